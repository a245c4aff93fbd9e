// SPDX-License-Identifier: Apache-2.0
/* What a running guest's registers and code look like is shown by machine_test. */
#include "vmm/decode.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

static struct kvm_run run;
static char text[8192];

static const char *decode(int run_errno)
{
    struct decode_subject subject = {.vcpu = 3, .vcpu_fd = -1, .run = &run, .run_errno = run_errno};
    size_t length = decode_exit(&subject, text, sizeof text);

    cr_assert_eq(length, strlen(text));
    cr_assert_gt(length, 0);
    cr_assert_eq(text[length - 1], '\n');
    return text;
}

/* The whole text of a vCPU without registers. */
static void check_text(const char *wanted)
{
    char whole[1024];

    snprintf(whole, sizeof whole, "vCPU 3: %s\nno registers: KVM did not give them\n", wanted);
    cr_assert_str_eq(text, whole);
}

static void check_has(const char *wanted)
{
    cr_assert_not_null(strstr(text, wanted), "\"%s\" is not in:\n%s", wanted, text);
}

Test(decode, names_exits)
{
    cr_assert_str_eq(decode_exit_name(KVM_EXIT_UNKNOWN), "KVM_EXIT_UNKNOWN");
    cr_assert_str_eq(decode_exit_name(KVM_EXIT_IO), "KVM_EXIT_IO");
    cr_assert_str_eq(decode_exit_name(KVM_EXIT_INTERNAL_ERROR), "KVM_EXIT_INTERNAL_ERROR");
    cr_assert_str_eq(decode_exit_name(39), "KVM_EXIT_MEMORY_FAULT");
    cr_assert_str_eq(decode_exit_name(13), "KVM_EXIT_?", "an exit of another architecture");
    cr_assert_str_eq(decode_exit_name(40), "KVM_EXIT_?");
    cr_assert_str_eq(decode_exit_name(UINT32_MAX), "KVM_EXIT_?");
}

Test(decode, names_entry_failures)
{
    cr_assert_str_eq(decode_entry_failure(0x80000021), "VT-x: invalid guest state");
    cr_assert_str_eq(decode_entry_failure(0x80000022), "VT-x: loading of the MSRs failed");
    cr_assert_str_eq(decode_entry_failure(0x80000029), "VT-x: a machine check during the entry");
    cr_assert_str_eq(decode_entry_failure(0x80000001), "VT-x: the entry failed");
    cr_assert_str_eq(decode_entry_failure(4), "VMLAUNCH with a VMCS that is not clear");
    cr_assert_str_eq(decode_entry_failure(5), "VMRESUME with a VMCS that was not launched");
    cr_assert_str_eq(decode_entry_failure(7), "VM entry with invalid control fields");
    cr_assert_str_eq(decode_entry_failure(8), "VM entry with invalid host-state fields");
    cr_assert_str_eq(decode_entry_failure(26), "VM entry with events blocked by MOV SS");
    cr_assert_str_eq(decode_entry_failure(UINT32_MAX), "SVM: invalid guest state in the VMCB");
    cr_assert_str_eq(decode_entry_failure(UINT64_MAX), "SVM: invalid guest state in the VMCB");
    cr_assert_str_eq(decode_entry_failure(0), "not a reason that VT-x or SVM documents");
    cr_assert_str_eq(decode_entry_failure(0x7fffffff), "not a reason that VT-x or SVM documents");
    for (uint64_t reason = 27; reason < 4096; reason++) {
        cr_assert_str_eq(decode_entry_failure(reason), "not a reason that VT-x or SVM documents");
    }
}

Test(decode, finds_the_linear_address_of_the_code)
{
    struct kvm_regs regs = {.rip = 0xfffff0};
    struct kvm_sregs sregs = {.cs.base = 0xffff0000};

    cr_assert_eq(decode_linear_rip(&regs, &sregs), 0xfefff0, "a segment wraps at 4 GiB");
    regs.rip = UINT64_C(0xffffffff80001000);
    sregs.efer = 1u << 10;
    sregs.cs.l = 1;
    cr_assert_eq(decode_linear_rip(&regs, &sregs), UINT64_C(0xffffffff80001000), "64-bit mode has no base");
    sregs.cs.l = 0;
    cr_assert_eq(decode_linear_rip(&regs, &sregs), 0x7fff1000, "compatibility mode wraps at 4 GiB");
    sregs.cs.l = 1;
    sregs.efer = 1u << 8;
    cr_assert_eq(decode_linear_rip(&regs, &sregs), 0x7fff1000, "long mode that is enabled, and not yet active");
}

Test(decode, tells_an_emulation_failure_with_its_bytes)
{
    run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = 4;
    memcpy(run.emulation_failure.insn_bytes, "\x66\x0f\xae\xf0", 4);
    decode(0);
    check_has("vCPU 3: KVM_EXIT_INTERNAL_ERROR (17), sub-error 1\n");
    check_has("the emulator of this KVM lacks the instruction at RIP (66 0f ae f0)");
    check_has("no registers");
}

Test(decode, says_why_kvm_run_failed)
{
    static const int errors[] = {EAGAIN, EFAULT, EHWPOISON, ENOMEM, EPERM, EACCES, ENOSYS, ENOEXEC, EINVAL, EIO, 9999};

    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        run.exit_reason = KVM_EXIT_UNKNOWN;
        decode(errors[i]);
        check_has("vCPU 3: KVM_RUN failed: ");
        check_has(decode_run_error(errors[i]));
        cr_expect_str_not_empty(decode_run_error(errors[i]));
    }
}

Test(decode, gives_the_bytes_that_the_emulator_gave_up_on)
{
    uint8_t bytes[DECODE_AFTER_BYTES] = {0};

    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = 3;
    memcpy(run.emulation_failure.insn_bytes, "\x0f\x01\xca", 3);
    cr_assert_eq(decode_failed_bytes(&run, bytes), 3);
    cr_assert_arr_eq(bytes, "\x0f\x01\xca\0", 4);
    run.emulation_failure.insn_size = 16;
    cr_assert_eq(decode_failed_bytes(&run, bytes), 0);
}

/* A KVM that says more bytes than there are, or none, or says it without the flag. */
Test(decode, believes_no_length_that_cannot_be)
{
    run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
    run.emulation_failure.ndata = 3;
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.insn_size = 16;
    cr_assert_null(strstr(decode(0), "RIP ("));
    run.emulation_failure.insn_size = 0;
    cr_assert_null(strstr(decode(0), "RIP ("));
    run.emulation_failure.insn_size = 4;
    run.emulation_failure.flags = 0;
    cr_assert_null(strstr(decode(0), "RIP ("));
    run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
    run.emulation_failure.ndata = 2;
    cr_assert_null(strstr(decode(0), "RIP ("));
    run.internal.suberror = 3;
    run.internal.ndata = 17;
    cr_assert_null(strstr(decode(0), "\ndata"));
    run.internal.ndata = 0;
    cr_assert_null(strstr(decode(0), "\ndata"));
    run.internal.ndata = 1;
    cr_assert_not_null(strstr(decode(0), "\ndata 0x"));
}

Test(decode, tells_the_other_internal_errors)
{
    static const char *const sentences[] = {"does not know that sub-error",
                                            NULL,
                                            "several exceptions came at once",
                                            "could not be delivered",
                                            "for a reason that this KVM does not know",
                                            "does not know that sub-error"};

    run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run.internal.ndata = 2;
    run.internal.data[0] = 0x80000b0d;
    run.internal.data[1] = 0x31;
    for (uint32_t i = 0; i < sizeof sentences / sizeof sentences[0]; i++) {
        if (sentences[i] != NULL) {
            run.internal.suberror = i;
            decode(0);
            check_has(sentences[i]);
            check_has("data 0x80000b0d 0x31\n");
        }
    }
}

Test(decode, tells_what_each_exit_means)
{
    struct kvm_memory_fault fault = {.flags = 8, .gpa = 0x123000, .size = 4096};

    run.exit_reason = KVM_EXIT_FAIL_ENTRY;
    run.fail_entry.hardware_entry_failure_reason = 0x80000021;
    decode(0);
    check_text("KVM_EXIT_FAIL_ENTRY (9)\n"
               "the processor refused to enter the guest: reason 0x80000021, VT-x: invalid guest state");
    run.exit_reason = KVM_EXIT_UNKNOWN;
    run.hw.hardware_exit_reason = 0x55;
    decode(0);
    check_text("KVM_EXIT_UNKNOWN (0)\nthe processor left the guest for hardware reason 0x55");
    run.exit_reason = KVM_EXIT_SHUTDOWN;
    decode(0);
    check_text("KVM_EXIT_SHUTDOWN (8)\n"
               "triple fault: an exception could not be delivered, nor the double fault that it became");
    run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
    run.system_event.type = KVM_SYSTEM_EVENT_CRASH;
    decode(0);
    check_text("KVM_EXIT_SYSTEM_EVENT (24)\nthe guest reports crash (type 3)");
    run.system_event.type = 7;
    decode(0);
    check_has("an unknown event (type 7)");
    run.system_event.type = 0;
    decode(0);
    check_has("an unknown event (type 0)");
    run.exit_reason = KVM_EXIT_MEMORY_FAULT;
    memcpy(run.padding, &fault, sizeof fault);
    decode(EFAULT);
    check_text("KVM_EXIT_MEMORY_FAULT (39)\n"
               "KVM could not reach the memory behind GPA 0x123000, 4096 bytes, flags 0x8: the guest wants it "
               "private");
    fault.flags = 0;
    memcpy(run.padding, &fault, sizeof fault);
    decode(EFAULT);
    check_text("KVM_EXIT_MEMORY_FAULT (39)\n"
               "KVM could not reach the memory behind GPA 0x123000, 4096 bytes, flags 0x0");
    run.exit_reason = KVM_EXIT_HLT;
    decode(0);
    check_text("KVM_EXIT_HLT (5)\nnot an exit that this VMM asked for");
    memset(&run, 0, sizeof run);
    run.exit_reason = KVM_EXIT_IO;
    run.io.port = 0x3f8;
    run.io.size = 3;
    run.io.count = 2;
    run.io.data_offset = 0x1000;
    decode(0);
    check_text("KVM_EXIT_IO (2)\nport 0x3f8, 2 accesses of 3 bytes, data at offset 0x1000: not an access that KVM "
               "documents");
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = 0xd0000000;
    run.mmio.len = 9;
    decode(0);
    check_text("KVM_EXIT_MMIO (6)\nGPA 0xd0000000, 9 bytes: not an access that KVM documents");
    run.mmio.len = 0;
    decode(0);
    check_text("KVM_EXIT_MMIO (6)\nGPA 0xd0000000, 0 bytes: not an access that KVM documents");
    run.mmio.len = 8;
    decode(0);
    check_text("KVM_EXIT_MMIO (6)\na read of 8 bytes at GPA 0xd0000000, for a device");
    run.mmio.len = 1;
    run.mmio.is_write = 1;
    decode(0);
    check_text("KVM_EXIT_MMIO (6)\na write of 1 bytes at GPA 0xd0000000, for a device");
}

Test(decode, tells_that_kvm_run_failed)
{
    run.exit_reason = KVM_EXIT_IO;
    decode(EFAULT);
    check_has("KVM_RUN failed: Bad address");
    cr_assert_null(strstr(text, "KVM_EXIT_IO"), "the exit is an old one");
}

Test(decode, tells_what_each_error_of_kvm_run_means)
{
    static const struct {
        int run_errno;
        const char *sentence;
    } cases[] = {
        {EAGAIN, "raise the limit on processes and threads"},
        {EFAULT, "the host does not supply memory"},
        {EHWPOISON, "a memory error"},
        {ENOMEM, "no memory for the guest's page tables"},
        {EPERM, "seccomp"},
        {EACCES, "seccomp"},
        {ENOSYS, "seccomp"},
        {ENOEXEC, "the vCPU's state to be impossible"},
        {EINVAL, "the vCPU's state to be impossible"},
        {EIO, "the VM is dead"},
        {EBADF, "see the kernel log"},
    };

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char whole[512];

        snprintf(whole, sizeof whole, "KVM_RUN failed: %s: %s", strerror(cases[i].run_errno),
                 decode_run_error(cases[i].run_errno));
        cr_expect_not_null(strstr(whole, cases[i].sentence), "%s", whole);
        decode(cases[i].run_errno);
        check_text(whole);
    }
}

Test(decode, keeps_to_its_buffer_at_every_size)
{
    char whole[sizeof text], small[1024];
    size_t length;

    run.exit_reason = KVM_EXIT_SHUTDOWN;
    strcpy(whole, decode(0));
    length = strlen(whole);
    for (size_t bytes = 1; bytes <= length + 1; bytes++) {
        struct decode_subject subject = {.vcpu = 3, .vcpu_fd = -1, .run = &run};

        memset(small, 'x', sizeof small);
        cr_assert_eq(decode_exit(&subject, small, bytes), bytes - 1);
        cr_assert_eq(memcmp(small, whole, bytes - 1), 0);
        cr_assert_eq(small[bytes - 1], '\0');
        cr_assert_eq(small[bytes], 'x');
    }
}

/* --- Registers and code, from a vCPU that is played ------------------------------------------------------------- */

enum { VCPU_FD = 1000, PAGE = 4096 };

static struct {
    unsigned long failing; /* this request fails */
    uint64_t pages[2][2];  /* linear and guest-physical; others are not mapped */
    uint32_t translation_count;
} vcpu;

static void answer_registers(struct kvm_regs *regs)
{
    *regs = (struct kvm_regs){.rax = 1,
                              .rbx = 2,
                              .rcx = 3,
                              .rdx = 4,
                              .rsi = 5,
                              .rdi = 6,
                              .rsp = 7,
                              .rbp = 8,
                              .r8 = 9,
                              .r9 = 10,
                              .r10 = 11,
                              .r11 = 12,
                              .r12 = 13,
                              .r13 = 14,
                              .r14 = 15,
                              .r15 = 16,
                              .rip = 0x2ffa,
                              .rflags = 0x202};
}

static struct kvm_segment segment(uint16_t selector)
{
    return (struct kvm_segment){.base = selector * 0x100,
                                .limit = selector * 0x10,
                                .selector = selector,
                                .type = 11,
                                .present = 1,
                                .dpl = 3,
                                .s = 1,
                                .l = 1};
}

static void answer_system(struct kvm_sregs *sregs)
{
    *sregs = (struct kvm_sregs){.cs = segment(1),
                                .ss = segment(2),
                                .ds = segment(3),
                                .es = segment(4),
                                .fs = segment(5),
                                .gs = segment(6),
                                .tr = segment(7),
                                .ldt = segment(8),
                                .gdt = {.base = 0x20, .limit = 0x21},
                                .idt = {.base = 0x30, .limit = 0x31},
                                .cr0 = 0x40,
                                .cr2 = 0x42,
                                .cr3 = 0x43,
                                .cr4 = 0x44,
                                .cr8 = 0x48,
                                .efer = 0x500,
                                .apic_base = 0xfee00900};
    sregs->ss.db = 1;
    sregs->ds.g = 1;
    sregs->ldt.unusable = 1;
}

static void answer_translation(struct kvm_translation *translation)
{
    vcpu.translation_count++;
    translation->valid = 0;
    for (uint32_t i = 0; i < 2; i++) {
        if (vcpu.pages[i][0] == translation->linear_address) {
            translation->physical_address = vcpu.pages[i][1];
            translation->valid = 1;
        }
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    cr_assert_eq(fd, VCPU_FD);
    if (request == vcpu.failing) {
        errno = EIO;
        return -1;
    }
    switch (request) {
    case KVM_GET_REGS:
        answer_registers(argument);
        return 0;
    case KVM_GET_SREGS:
        answer_system(argument);
        return 0;
    default:
        cr_assert_eq(request, KVM_TRANSLATE);
        answer_translation(argument);
        return 0;
    }
}

#define REGISTERS                                                                                                      \
    "vCPU 0: KVM_EXIT_HLT (5)\nnot an exit that this VMM asked for\n"                                                  \
    "rip 0000000000002ffa rsp 0000000000000007 rfl 0000000000000202\n"                                                 \
    "rax 0000000000000001 rbx 0000000000000002 rcx 0000000000000003 rdx 0000000000000004\n"                            \
    "rsi 0000000000000005 rdi 0000000000000006 rbp 0000000000000008 r8  0000000000000009\n"                            \
    "r9  000000000000000a r10 000000000000000b r11 000000000000000c r12 000000000000000d\n"                            \
    "r13 000000000000000e r14 000000000000000f r15 0000000000000010\n"                                                 \
    "cr0 0000000000000040 cr2 0000000000000042 cr3 0000000000000043 cr4 0000000000000044\n"                            \
    "cr8 0000000000000048 efer 000000000000500 apic 0000000fee00900\n"                                                 \
    "cs  0001 base 0000000000000100 limit 00000010 type b s 1 dpl 3 p 1 db 0 l 1 g 0\n"                                \
    "ss  0002 base 0000000000000200 limit 00000020 type b s 1 dpl 3 p 1 db 1 l 1 g 0\n"                                \
    "ds  0003 base 0000000000000300 limit 00000030 type b s 1 dpl 3 p 1 db 0 l 1 g 1\n"                                \
    "es  0004 base 0000000000000400 limit 00000040 type b s 1 dpl 3 p 1 db 0 l 1 g 0\n"                                \
    "fs  0005 base 0000000000000500 limit 00000050 type b s 1 dpl 3 p 1 db 0 l 1 g 0\n"                                \
    "gs  0006 base 0000000000000600 limit 00000060 type b s 1 dpl 3 p 1 db 0 l 1 g 0\n"                                \
    "tr  0007 base 0000000000000700 limit 00000070 type b s 1 dpl 3 p 1 db 0 l 1 g 0\n"                                \
    "ldt 0008 base 0000000000000800 limit 00000080 type b s 1 dpl 3 p 1 db 0 l 1 g 0 unusable\n"                       \
    "gdt base 0000000000000020 limit 0021\n"                                                                           \
    "idt base 0000000000000030 limit 0031\n"

/* The exit of a vCPU that stands six bytes before the end of a page. */
static void check_vcpu(const struct loam_gpa_view *view, const char *code)
{
    struct decode_subject subject = {.vcpu_fd = VCPU_FD, .run = &run, .view = view};
    char whole[4096];

    run.exit_reason = KVM_EXIT_HLT;
    snprintf(whole, sizeof whole, "%s%s", REGISTERS, code);
    vcpu.translation_count = 0;
    decode_exit(&subject, text, sizeof text);
    cr_assert_str_eq(text, whole);
}

Test(decode, tells_registers_whole)
{
    check_vcpu(NULL, "");
}

Test(decode, does_without_registers_that_kvm_does_not_give)
{
    static const unsigned long requests[] = {KVM_GET_REGS, KVM_GET_SREGS};

    for (uint32_t i = 0; i < 2; i++) {
        struct decode_subject subject = {.vcpu = 3, .vcpu_fd = VCPU_FD, .run = &run};

        run.exit_reason = KVM_EXIT_HLT;
        vcpu.failing = requests[i];
        decode_exit(&subject, text, sizeof text);
        check_text("KVM_EXIT_HLT (5)\nnot an exit that this VMM asked for");
    }
}

Test(decode, tells_code_page_by_page)
{
    static _Alignas(64) uint8_t map_memory[1 << 16];
    static _Alignas(PAGE) uint8_t ram[2 * PAGE];
    struct loam_region region = {
        .start = {0x8000}, .bytes = sizeof ram, .hva = ram, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_READ};
    const struct loam_gpa_map_config config = {.region_capacity = 4};
    const struct loam_gpa_view *view;
    struct loam_gpa_map *map;

    for (uint32_t i = 0; i < sizeof ram; i++) {
        ram[i] = (uint8_t)i;
    }
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, &config, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK);
    view = loam_gpa_map_acquire(map);

    memcpy(vcpu.pages, (uint64_t[2][2]){{0x2000, 0x9000}, {0x3000, 0x8000}}, sizeof vcpu.pages);
    check_vcpu(view, "code f2 f3 f4 f5 f6 f7 f8 f9 | fa fb fc fd fe ff 00 01 02 03 04 05 06 07 08"
                     "  (| is at linear 0x2ffa)\n");
    cr_assert_eq(vcpu.translation_count, 2, "one for each page");
    vcpu.pages[1][1] = 0x20000; /* mapped to where no memory is */
    check_vcpu(view, "code f2 f3 f4 f5 f6 f7 f8 f9 | fa fb fc fd fe ff ?? ?? ?? ?? ?? ?? ?? ?? ??"
                     "  (| is at linear 0x2ffa)\n");
    vcpu.pages[0][0] = 0; /* not mapped */
    check_vcpu(view, "code ?? ?? ?? ?? ?? ?? ?? ?? | ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ??"
                     "  (| is at linear 0x2ffa)\n");
    vcpu.failing = KVM_TRANSLATE;
    check_vcpu(view, "code ?? ?? ?? ?? ?? ?? ?? ?? | ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ?? ??"
                     "  (| is at linear 0x2ffa)\n");
    loam_gpa_map_release(map, view);
}
