// SPDX-License-Identifier: Apache-2.0
/* What needs a running guest (registers, code) is shown by machine_test. */
#include "vmm/decode.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

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
    cr_assert_str_eq(decode_exit_name(40), "KVM_EXIT_?");
    cr_assert_str_eq(decode_exit_name(UINT32_MAX), "KVM_EXIT_?");
}

Test(decode, names_entry_failures)
{
    cr_assert_str_eq(decode_entry_failure(0x80000021), "VT-x: invalid guest state");
    cr_assert_str_eq(decode_entry_failure(0x80000022), "VT-x: loading of the MSRs failed");
    cr_assert_str_eq(decode_entry_failure(0x80000029), "VT-x: a machine check during the entry");
    cr_assert_str_eq(decode_entry_failure(0x80000001), "VT-x: the entry failed");
    cr_assert_str_eq(decode_entry_failure(7), "VM entry with invalid control fields");
    cr_assert_str_eq(decode_entry_failure(UINT32_MAX), "SVM: invalid guest state in the VMCB");
    cr_assert_str_eq(decode_entry_failure(UINT64_MAX), "SVM: invalid guest state in the VMCB");
    cr_assert_str_eq(decode_entry_failure(0), "not a reason that VT-x or SVM documents");
    cr_assert_str_eq(decode_entry_failure(27), "not a reason that VT-x or SVM documents");
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
    run.internal.suberror = 3;
    run.internal.ndata = 17;
    cr_assert_null(strstr(decode(0), "data 0x"));
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
    check_has("reason 0x80000021, VT-x: invalid guest state");
    run.exit_reason = KVM_EXIT_UNKNOWN;
    run.hw.hardware_exit_reason = 0x55;
    decode(0);
    check_has("hardware reason 0x55");
    run.exit_reason = KVM_EXIT_SHUTDOWN;
    decode(0);
    check_has("triple fault");
    run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
    run.system_event.type = KVM_SYSTEM_EVENT_CRASH;
    decode(0);
    check_has("the guest reports crash (type 3)");
    run.system_event.type = 77;
    decode(0);
    check_has("an unknown event (type 77)");
    run.exit_reason = KVM_EXIT_MEMORY_FAULT;
    memcpy(run.padding, &fault, sizeof fault);
    decode(EFAULT);
    check_has("GPA 0x123000, 4096 bytes, flags 0x8");
    run.exit_reason = KVM_EXIT_HLT;
    decode(0);
    check_has("KVM_EXIT_HLT (5)\nnot an exit that this VMM asked for");
    run.exit_reason = KVM_EXIT_IO;
    run.io.port = 0x3f8;
    run.io.size = 3;
    decode(0);
    check_has("port 0x3f8");
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = 0xd0000000;
    run.mmio.len = 9;
    decode(0);
    check_has("GPA 0xd0000000, 9 bytes");
}

Test(decode, tells_that_kvm_run_failed)
{
    run.exit_reason = KVM_EXIT_IO;
    decode(EFAULT);
    check_has("KVM_RUN failed: Bad address");
    cr_assert_null(strstr(text, "KVM_EXIT_IO"), "the exit is an old one");
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
