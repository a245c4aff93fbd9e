// SPDX-License-Identifier: Apache-2.0
#include "vmm/decode.h"

#include "vmm/lost_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EFER_LME (UINT64_C(1) << 8)
#define EFER_LMA (UINT64_C(1) << 10)

/* A page of guest memory: translation holds for one of them. */
#define PAGE_BYTES UINT64_C(4096)

/* Bit 31 of the exit reason: VM entry failed (Intel SDM volume 3C, section 25.9.1). */
#define VMX_ENTRY_FAILED (UINT64_C(1) << 31)

/* used < bytes; data[used] == 0 */
struct text {
    char *data;
    size_t bytes;
    size_t used;
};

#define NAME(reason) [reason] = #reason

static const char *const exit_names[] = {
    NAME(KVM_EXIT_UNKNOWN),
    NAME(KVM_EXIT_EXCEPTION),
    NAME(KVM_EXIT_IO),
    NAME(KVM_EXIT_HYPERCALL),
    NAME(KVM_EXIT_DEBUG),
    NAME(KVM_EXIT_HLT),
    NAME(KVM_EXIT_MMIO),
    NAME(KVM_EXIT_IRQ_WINDOW_OPEN),
    NAME(KVM_EXIT_SHUTDOWN),
    NAME(KVM_EXIT_FAIL_ENTRY),
    NAME(KVM_EXIT_INTR),
    NAME(KVM_EXIT_SET_TPR),
    NAME(KVM_EXIT_TPR_ACCESS),
    NAME(KVM_EXIT_NMI),
    NAME(KVM_EXIT_INTERNAL_ERROR),
    NAME(KVM_EXIT_SYSTEM_EVENT),
    NAME(KVM_EXIT_IOAPIC_EOI),
    NAME(KVM_EXIT_HYPERV),
    NAME(KVM_EXIT_X86_RDMSR),
    NAME(KVM_EXIT_X86_WRMSR),
    NAME(KVM_EXIT_DIRTY_RING_FULL),
    NAME(KVM_EXIT_AP_RESET_HOLD),
    NAME(KVM_EXIT_X86_BUS_LOCK),
    NAME(KVM_EXIT_XEN),
    NAME(KVM_EXIT_NOTIFY),
    NAME(KVM_EXIT_MEMORY_FAULT),
};

/* VM-instruction errors that an entry can give (Intel SDM volume 3C, section 31.4). */
static const char *const vmx_errors[] = {
    [4] = "VMLAUNCH with a VMCS that is not clear",  [5] = "VMRESUME with a VMCS that was not launched",
    [7] = "VM entry with invalid control fields",    [8] = "VM entry with invalid host-state fields",
    [26] = "VM entry with events blocked by MOV SS",
};

const char *decode_exit_name(uint32_t exit_reason)
{
    bool is_known = exit_reason < sizeof exit_names / sizeof exit_names[0] && exit_names[exit_reason] != NULL;

    return is_known ? exit_names[exit_reason] : "KVM_EXIT_?";
}

const char *decode_entry_failure(uint64_t reason)
{
    if ((uint32_t)reason == UINT32_MAX) {
        return "SVM: invalid guest state in the VMCB";
    }
    if ((reason & VMX_ENTRY_FAILED) != 0) {
        switch (reason & 0xffff) {
        case 33:
            return "VT-x: invalid guest state";
        case 34:
            return "VT-x: loading of the MSRs failed";
        case 41:
            return "VT-x: a machine check during the entry";
        default:
            return "VT-x: the entry failed";
        }
    }
    if (reason < sizeof vmx_errors / sizeof vmx_errors[0] && vmx_errors[reason] != NULL) {
        return vmx_errors[reason];
    }
    return "not a reason that VT-x or SVM documents";
}

const char *decode_run_error(int run_errno)
{
    switch (run_errno) {
    case EAGAIN:
        return "each time: KVM cannot start a thread of its own: raise the limit on processes and threads "
               "(RLIMIT_NPROC, pids.max of the control group)";
    case EFAULT:
        return "the host does not supply memory that the guest touched";
    case EHWPOISON:
        return "the host reports a memory error where the guest touched its memory";
    case ENOMEM:
        return "the host's kernel has no memory for the guest's page tables: free some, or raise memory.max of the "
               "control group";
    case EPERM:
    case EACCES:
    case ENOSYS:
        return "a filter of system calls (seccomp) or a security module stands against ioctl KVM_RUN: allow it";
    case ENOEXEC:
    case EINVAL:
        return "KVM holds the vCPU's state to be impossible: see the kernel log (dmesg)";
    case EIO:
        return "the VM is dead: KVM met a bug of its own or its process changed: see the kernel log (dmesg)";
    default:
        return "see the kernel log (dmesg)";
    }
}

uint64_t decode_linear_rip(const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    if ((sregs->efer & EFER_LMA) != 0 && sregs->cs.l != 0) {
        return regs->rip;
    }
    return (sregs->cs.base + regs->rip) & UINT32_MAX;
}

LOAM_PRINTF(2, 3) static void put(struct text *text, const char *format, ...)
{
    size_t room = text->bytes - text->used;
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(text->data + text->used, room, format, arguments);
    va_end(arguments);
    if (length > 0) {
        text->used += (size_t)length < room ? (size_t)length : room - 1;
    }
}

static void put_hex(struct text *text, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put(text, i == 0 ? "%02x" : " %02x", bytes[i]);
    }
}

/* --- What the exit says -------------------------------------------------------------------------------------- */

/*
 * Instructions of kernels that emulators lack, and the word on Linux's command line that avoids them (numbers of features:
 * arch/x86/include/asm/cpufeatures.h). Prefixes but 66 and f3 are left out of bytes; the last byte counts in the bits of
 * mask only: a ModRM byte whose middle field belongs to the opcode.
 */
static const struct {
    const char *name, *word;
    uint8_t bytes[4];
    uint8_t count, mask;
} lacking[] = {
    {"XSAVE", "noxsave", {0x0f, 0xae, 0x20}, 3, 0x38},
    {"XRSTOR", "noxsave", {0x0f, 0xae, 0x28}, 3, 0x38},
    {"XGETBV", "noxsave", {0x0f, 0x01, 0xd0}, 3, 0xff},
    {"XSETBV", "noxsave", {0x0f, 0x01, 0xd1}, 3, 0xff},
    {"CLAC", "clearcpuid=308", {0x0f, 0x01, 0xca}, 3, 0xff},
    {"STAC", "clearcpuid=308", {0x0f, 0x01, 0xcb}, 3, 0xff},
    {"POPCNT", "clearcpuid=151", {0xf3, 0x0f, 0xb8}, 3, 0xff},
    {"CMPXCHG16B", "clearcpuid=141", {0x0f, 0xc7, 0x08}, 3, 0x38},
    {"INVPCID", "nopcid noinvpcid", {0x66, 0x0f, 0x38, 0x82}, 4, 0xff},
    {"RDFSBASE and the like", "clearcpuid=288", {0xf3, 0x0f, 0xae}, 3, 0xff},
    {"VMCALL", "nopv", {0x0f, 0x01, 0xc1}, 3, 0xff},
    {"VMMCALL", "nopv", {0x0f, 0x01, 0xd9}, 3, 0xff},
};

static bool is_ignored_prefix(uint8_t byte)
{
    static const uint8_t prefixes[] = {0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65, 0x67, 0xf0, 0xf2};

    return (byte & 0xf0) == 0x40 || memchr(prefixes, byte, sizeof prefixes) != NULL;
}

/* Without REX and such, in place. Returns how many are left. */
static uint8_t drop_prefixes(uint8_t *bytes, uint8_t count)
{
    uint8_t kept = 0;

    for (uint8_t i = 0; i < count; i++) {
        bool is_prefix = is_ignored_prefix(bytes[i]) && memchr(bytes, 0x0f, i) == NULL;

        if (!is_prefix) {
            bytes[kept++] = bytes[i];
        }
    }
    return kept;
}

static void put_lacking(struct text *text, const struct kvm_run *run, uint8_t count)
{
    uint8_t bytes[sizeof run->emulation_failure.insn_bytes];

    memcpy(bytes, run->emulation_failure.insn_bytes, sizeof bytes);
    count = drop_prefixes(bytes, count);
    for (size_t i = 0; i < sizeof lacking / sizeof lacking[0]; i++) {
        uint8_t last = (uint8_t)(lacking[i].count - 1);

        if (count >= lacking[i].count && memcmp(bytes, lacking[i].bytes, last) == 0 &&
            ((bytes[last] ^ lacking[i].bytes[last]) & lacking[i].mask) == 0) {
            put(text, "it is %s: a Linux kernel leaves it out with %s on its command line\n", lacking[i].name,
                lacking[i].word);
            return;
        }
    }
}

/* The bytes that KVM's emulator gave up on, if it says them (KVM API, section 5, emulation_failure). */
static void put_emulation_failure(struct text *text, const struct kvm_run *run)
{
    uint8_t count = run->emulation_failure.insn_size;
    bool has_bytes = run->emulation_failure.ndata >= 3 && count > 0 &&
                     count <= sizeof run->emulation_failure.insn_bytes &&
                     (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;

    put(text, "the emulator of this KVM lacks the instruction at RIP");
    if (!has_bytes) {
        put(text, ", or RIP points to no code\n");
        return;
    }
    put(text, " (");
    put_hex(text, run->emulation_failure.insn_bytes, count);
    put(text, ")\n");
    put_lacking(text, run, count);
}

static void put_internal_error(struct text *text, const struct kvm_run *run)
{
    uint32_t suberror = run->internal.suberror;
    uint32_t count = run->internal.ndata;

    put(text, ", sub-error %" PRIu32 "\n", suberror);
    switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        put_emulation_failure(text, run);
        return;
    case KVM_INTERNAL_ERROR_SIMUL_EX:
        put(text, "several exceptions came at once, and KVM cannot tell which to deliver\n");
        break;
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        put(text, "an event could not be delivered: the IDT, the TSS or the stack lies where no memory is\n");
        break;
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
        put(text, "the processor left the guest for a reason that this KVM does not know\n");
        break;
    default:
        put(text, "this VMM does not know that sub-error\n");
        break;
    }
    if (count > 0 && count <= sizeof run->internal.data / sizeof run->internal.data[0]) {
        put(text, "data");
        for (uint32_t i = 0; i < count; i++) {
            put(text, " 0x%llx", run->internal.data[i]);
        }
        put(text, "\n");
    }
}

static void put_system_event(struct text *text, const struct kvm_run *run)
{
    static const char *const names[] = {
        [KVM_SYSTEM_EVENT_SHUTDOWN] = "shutdown", [KVM_SYSTEM_EVENT_RESET] = "reset",
        [KVM_SYSTEM_EVENT_CRASH] = "crash",       [KVM_SYSTEM_EVENT_WAKEUP] = "wake-up",
        [KVM_SYSTEM_EVENT_SUSPEND] = "suspend",   [KVM_SYSTEM_EVENT_SEV_TERM] = "end of an encrypted guest",
    };
    uint32_t type = run->system_event.type;
    bool is_known = type < sizeof names / sizeof names[0] && names[type] != NULL;

    put(text, "\nthe guest reports %s (type %" PRIu32 ")\n", is_known ? names[type] : "an unknown event", type);
}

static void put_memory_fault(struct text *text, const struct kvm_run *run)
{
    struct kvm_memory_fault fault;

    memcpy(&fault, run->padding, sizeof fault);
    put(text, "\nKVM could not reach the memory behind GPA 0x%" PRIx64 ", %" PRIu64 " bytes, flags 0x%" PRIx64 "%s\n",
        fault.gpa, fault.size, fault.flags,
        (fault.flags & KVM_MEMORY_FAULT_PRIVATE) != 0 ? ": the guest wants it private" : "");
}

static void put_access(struct text *text, const struct kvm_run *run)
{
    if (run->exit_reason == KVM_EXIT_IO) {
        put(text, "\nport 0x%x, %u accesses of %u bytes, data at offset 0x%llx: not an access that KVM documents\n",
            run->io.port, run->io.count, run->io.size, run->io.data_offset);
    } else if (run->mmio.len == 0 || run->mmio.len > sizeof run->mmio.data) {
        put(text, "\nGPA 0x%llx, %u bytes: not an access that KVM documents\n", run->mmio.phys_addr, run->mmio.len);
    } else {
        put(text, "\na %s of %u bytes at GPA 0x%llx, for a device\n", run->mmio.is_write != 0 ? "write" : "read",
            run->mmio.len, run->mmio.phys_addr);
    }
}

static void put_reason(struct text *text, const struct kvm_run *run)
{
    put(text, "%s (%" PRIu32 ")", decode_exit_name(run->exit_reason), run->exit_reason);
    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR:
        put_internal_error(text, run);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        put(text, "\nthe processor refused to enter the guest: reason 0x%llx, %s\n",
            run->fail_entry.hardware_entry_failure_reason,
            decode_entry_failure(run->fail_entry.hardware_entry_failure_reason));
        break;
    case KVM_EXIT_UNKNOWN:
        put(text, "\nthe processor left the guest for hardware reason 0x%llx\n", run->hw.hardware_exit_reason);
        break;
    case KVM_EXIT_SHUTDOWN:
        put(text,
            "\ntriple fault: no handler could be reached, not even that of the double fault; see IDT and stack\n");
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        put_system_event(text, run);
        break;
    case KVM_EXIT_MEMORY_FAULT:
        put_memory_fault(text, run);
        break;
    case KVM_EXIT_IO:
    case KVM_EXIT_MMIO:
        put_access(text, run);
        break;
    default:
        put(text, "\nnot an exit that this VMM asked for\n");
        break;
    }
}

/* With EFAULT the exit reason counts only where it says which memory (KVM API, section 5, memory_fault). */
static void put_run(struct text *text, const struct decode_subject *subject)
{
    if (subject->run_errno == 0 || subject->run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
        put_reason(text, subject->run);
    } else {
        put(text, "KVM_RUN failed: %s: %s\n", strerror(subject->run_errno), decode_run_error(subject->run_errno));
    }
}

/* --- Registers ------------------------------------------------------------------------------------------------ */

static void put_general(struct text *text, const struct kvm_regs *regs)
{
    put(text, "rip %016llx rsp %016llx rfl %016llx\n", regs->rip, regs->rsp, regs->rflags);
    put(text, "rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", regs->rax, regs->rbx, regs->rcx, regs->rdx);
    put(text, "rsi %016llx rdi %016llx rbp %016llx r8  %016llx\n", regs->rsi, regs->rdi, regs->rbp, regs->r8);
    put(text, "r9  %016llx r10 %016llx r11 %016llx r12 %016llx\n", regs->r9, regs->r10, regs->r11, regs->r12);
    put(text, "r13 %016llx r14 %016llx r15 %016llx\n", regs->r13, regs->r14, regs->r15);
}

static void put_segment(struct text *text, const char *name, const struct kvm_segment *segment)
{
    put(text, "%-3s %04x base %016llx limit %08x type %x s %u dpl %u p %u db %u l %u g %u%s\n", name, segment->selector,
        segment->base, segment->limit, segment->type, segment->s, segment->dpl, segment->present, segment->db,
        segment->l, segment->g, segment->unusable != 0 ? " unusable" : "");
}

static void put_system(struct text *text, const struct kvm_sregs *sregs)
{
    put(text, "cr0 %016llx cr2 %016llx cr3 %016llx cr4 %016llx\n", sregs->cr0, sregs->cr2, sregs->cr3, sregs->cr4);
    put(text, "cr8 %016llx efer %015llx apic %015llx\n", sregs->cr8, sregs->efer, sregs->apic_base);
    put_segment(text, "cs", &sregs->cs);
    put_segment(text, "ss", &sregs->ss);
    put_segment(text, "ds", &sregs->ds);
    put_segment(text, "es", &sregs->es);
    put_segment(text, "fs", &sregs->fs);
    put_segment(text, "gs", &sregs->gs);
    put_segment(text, "tr", &sregs->tr);
    put_segment(text, "ldt", &sregs->ldt);
    put(text, "gdt base %016llx limit %04x\n", sregs->gdt.base, sregs->gdt.limit);
    put(text, "idt base %016llx limit %04x\n", sregs->idt.base, sregs->idt.limit);
}

/* --- Code ----------------------------------------------------------------------------------------------------- */

/* One byte at a linear address; page and frame remember the last translation, and are equal to start with. */
static bool read_byte(const struct decode_subject *subject, uint64_t linear, struct kvm_translation *last,
                      uint8_t *byte)
{
    uint64_t page = linear & ~(PAGE_BYTES - 1);
    loam_gpa gpa;

    if (last->linear_address != page) {
        *last = (struct kvm_translation){.linear_address = page};
        if (kvm_ioctl(subject->vcpu_fd, KVM_TRANSLATE, last) < 0 ||
            lost_memory_ask(subject->view, loam_gpa_from_u64(last->physical_address)) != 0) {
            last->valid = 0;
        }
        last->linear_address = page;
    }
    gpa = loam_gpa_from_u64(last->physical_address + (linear & (PAGE_BYTES - 1)));
    return last->valid != 0 && loam_gpa_view_read(subject->view, gpa, byte, 1) == LOAM_OK;
}

static void put_code(struct text *text, const struct decode_subject *subject, uint64_t rip)
{
    /* No page has this address, so that the first byte is translated. */
    struct kvm_translation last = {.linear_address = UINT64_MAX};

    put(text, "code");
    for (uint32_t i = 0; i < DECODE_BEFORE_BYTES + DECODE_AFTER_BYTES; i++) {
        uint8_t byte = 0;
        bool is_there = read_byte(subject, rip - DECODE_BEFORE_BYTES + i, &last, &byte);

        put(text, i == DECODE_BEFORE_BYTES ? " |" : "");
        if (is_there) {
            put(text, " %02x", byte);
        } else {
            put(text, " ??");
        }
    }
    put(text, "  (| is at linear 0x%" PRIx64 ")\n", rip);
}

/* MOV CR0 to turn paging on outside long mode: KVMs that emulate every instruction end it in a triple fault. */
static void put_legacy_paging(struct text *text, const struct decode_subject *subject, uint64_t rip, uint64_t efer)
{
    struct kvm_translation last = {.linear_address = UINT64_MAX};
    uint8_t code[3] = {0};

    for (uint32_t i = 0; i < sizeof code; i++) {
        if (!read_byte(subject, rip + i, &last, &code[i])) {
            return;
        }
    }
    if ((efer & EFER_LME) == 0 && code[0] == 0x0f && code[1] == 0x22 && (code[2] & 0x38) == 0) {
        put(text, "it came of MOV CR0: a KVM without hardware virtualization has no paging outside long mode: use a "
                  "64-bit guest, or a host with VT-x or AMD-V\n");
    }
}

size_t decode_exit(const struct decode_subject *subject, char *text, size_t bytes)
{
    struct text out = {.data = text, .bytes = bytes};
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    text[0] = '\0';
    put(&out, "vCPU %" PRIu32 ": ", subject->vcpu);
    put_run(&out, subject);
    if (subject->vcpu_fd < 0 || kvm_ioctl(subject->vcpu_fd, KVM_GET_REGS, &regs) < 0 ||
        kvm_ioctl(subject->vcpu_fd, KVM_GET_SREGS, &sregs) < 0) {
        put(&out, "no registers: KVM did not give them\n");
        return out.used;
    }
    put_general(&out, &regs);
    put_system(&out, &sregs);
    if (subject->view != NULL) {
        put_code(&out, subject, decode_linear_rip(&regs, &sregs));
        if (subject->run_errno == 0 && subject->run->exit_reason == KVM_EXIT_SHUTDOWN) {
            put_legacy_paging(&out, subject, decode_linear_rip(&regs, &sregs), sregs.efer);
        }
    }
    return out.used;
}
