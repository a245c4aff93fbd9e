// SPDX-License-Identifier: Apache-2.0
#include "vmm/decode.h"

#include "vmm/guest_code.h"
#include "vmm/text.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define EFER_LMA (UINT64_C(1) << 10)

/* Bit 31 of the exit reason: VM entry failed (Intel SDM volume 3C, section 25.9.1). */
#define VMX_ENTRY_FAILED (UINT64_C(1) << 31)

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

uint32_t decode_failed_bytes(const struct kvm_run *run, uint8_t bytes[DECODE_AFTER_BYTES])
{
    uint32_t count = run->emulation_failure.insn_size;
    bool has_bytes = run->emulation_failure.ndata >= 3 && count <= sizeof run->emulation_failure.insn_bytes &&
                     (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;

    static_assert(sizeof run->emulation_failure.insn_bytes == DECODE_AFTER_BYTES, "all of them fit");
    if (!has_bytes) {
        return 0;
    }
    memcpy(bytes, run->emulation_failure.insn_bytes, count);
    return count;
}

static void put_hex(struct text *text, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        text_put(text, i == 0 ? "%02x" : " %02x", bytes[i]);
    }
}

/* --- What the exit says -------------------------------------------------------------------------------------- */

static void put_emulation_failure(struct text *text, const struct kvm_run *run)
{
    uint8_t bytes[DECODE_AFTER_BYTES];
    uint32_t count = decode_failed_bytes(run, bytes);

    text_put(text, "the emulator of this KVM lacks the instruction at RIP");
    if (count == 0) {
        text_put(text, ", or RIP points to no code\n");
        return;
    }
    text_put(text, " (");
    put_hex(text, bytes, count);
    text_put(text, ")\n");
}

static void put_internal_error(struct text *text, const struct kvm_run *run)
{
    uint32_t suberror = run->internal.suberror;
    uint32_t count = run->internal.ndata;

    text_put(text, ", sub-error %" PRIu32 "\n", suberror);
    switch (suberror) {
    case KVM_INTERNAL_ERROR_EMULATION:
        put_emulation_failure(text, run);
        return;
    case KVM_INTERNAL_ERROR_SIMUL_EX:
        text_put(text, "several exceptions came at once, and KVM cannot tell which to deliver\n");
        break;
    case KVM_INTERNAL_ERROR_DELIVERY_EV:
        text_put(text, "an event could not be delivered: the IDT, the TSS or the stack lies where no memory is\n");
        break;
    case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
        text_put(text, "the processor left the guest for a reason that this KVM does not know\n");
        break;
    default:
        text_put(text, "this VMM does not know that sub-error\n");
        break;
    }
    if (count > 0 && count <= sizeof run->internal.data / sizeof run->internal.data[0]) {
        text_put(text, "data");
        for (uint32_t i = 0; i < count; i++) {
            text_put(text, " 0x%llx", run->internal.data[i]);
        }
        text_put(text, "\n");
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

    text_put(text, "\nthe guest reports %s (type %" PRIu32 ")\n", is_known ? names[type] : "an unknown event", type);
}

static void put_memory_fault(struct text *text, const struct kvm_run *run)
{
    struct kvm_memory_fault fault;

    memcpy(&fault, run->padding, sizeof fault);
    text_put(text,
             "\nKVM could not reach the memory behind GPA 0x%" PRIx64 ", %" PRIu64 " bytes, flags 0x%" PRIx64 "%s\n",
             fault.gpa, fault.size, fault.flags,
             (fault.flags & KVM_MEMORY_FAULT_PRIVATE) != 0 ? ": the guest wants it private" : "");
}

static void put_access(struct text *text, const struct kvm_run *run)
{
    if (run->exit_reason == KVM_EXIT_IO) {
        text_put(text,
                 "\nport 0x%x, %u accesses of %u bytes, data at offset 0x%llx: not an access that KVM documents\n",
                 run->io.port, run->io.count, run->io.size, run->io.data_offset);
    } else if (run->mmio.len == 0 || run->mmio.len > sizeof run->mmio.data) {
        text_put(text, "\nGPA 0x%llx, %u bytes: not an access that KVM documents\n", run->mmio.phys_addr,
                 run->mmio.len);
    } else {
        text_put(text, "\na %s of %u bytes at GPA 0x%llx, for a device\n", run->mmio.is_write != 0 ? "write" : "read",
                 run->mmio.len, run->mmio.phys_addr);
    }
}

static void put_reason(struct text *text, const struct kvm_run *run)
{
    text_put(text, "%s (%" PRIu32 ")", decode_exit_name(run->exit_reason), run->exit_reason);
    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR:
        put_internal_error(text, run);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        text_put(text, "\nthe processor refused to enter the guest: reason 0x%llx, %s\n",
                 run->fail_entry.hardware_entry_failure_reason,
                 decode_entry_failure(run->fail_entry.hardware_entry_failure_reason));
        break;
    case KVM_EXIT_UNKNOWN:
        text_put(text, "\nthe processor left the guest for hardware reason 0x%llx\n", run->hw.hardware_exit_reason);
        break;
    case KVM_EXIT_SHUTDOWN:
        text_put(text, "\ntriple fault: an exception could not be delivered, nor the double fault that it became\n");
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
        text_put(text, "\nnot an exit that this VMM asked for\n");
        break;
    }
}

/* With EFAULT the exit reason counts only where it says which memory (KVM API, section 5, memory_fault). */
static void put_run(struct text *text, const struct decode_subject *subject)
{
    if (subject->run_errno == 0 || subject->run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
        put_reason(text, subject->run);
    } else {
        text_put(text, "KVM_RUN failed: %s: %s\n", strerror(subject->run_errno), decode_run_error(subject->run_errno));
    }
}

/* --- Registers ------------------------------------------------------------------------------------------------ */

static void put_general(struct text *text, const struct kvm_regs *regs)
{
    text_put(text, "rip %016llx rsp %016llx rfl %016llx\n", regs->rip, regs->rsp, regs->rflags);
    text_put(text, "rax %016llx rbx %016llx rcx %016llx rdx %016llx\n", regs->rax, regs->rbx, regs->rcx, regs->rdx);
    text_put(text, "rsi %016llx rdi %016llx rbp %016llx r8  %016llx\n", regs->rsi, regs->rdi, regs->rbp, regs->r8);
    text_put(text, "r9  %016llx r10 %016llx r11 %016llx r12 %016llx\n", regs->r9, regs->r10, regs->r11, regs->r12);
    text_put(text, "r13 %016llx r14 %016llx r15 %016llx\n", regs->r13, regs->r14, regs->r15);
}

static void put_segment(struct text *text, const char *name, const struct kvm_segment *segment)
{
    text_put(text, "%-3s %04x base %016llx limit %08x type %x s %u dpl %u p %u db %u l %u g %u%s\n", name,
             segment->selector, segment->base, segment->limit, segment->type, segment->s, segment->dpl,
             segment->present, segment->db, segment->l, segment->g, segment->unusable != 0 ? " unusable" : "");
}

static void put_system(struct text *text, const struct kvm_sregs *sregs)
{
    text_put(text, "cr0 %016llx cr2 %016llx cr3 %016llx cr4 %016llx\n", sregs->cr0, sregs->cr2, sregs->cr3, sregs->cr4);
    text_put(text, "cr8 %016llx efer %015llx apic %015llx\n", sregs->cr8, sregs->efer, sregs->apic_base);
    put_segment(text, "cs", &sregs->cs);
    put_segment(text, "ss", &sregs->ss);
    put_segment(text, "ds", &sregs->ds);
    put_segment(text, "es", &sregs->es);
    put_segment(text, "fs", &sregs->fs);
    put_segment(text, "gs", &sregs->gs);
    put_segment(text, "tr", &sregs->tr);
    put_segment(text, "ldt", &sregs->ldt);
    text_put(text, "gdt base %016llx limit %04x\n", sregs->gdt.base, sregs->gdt.limit);
    text_put(text, "idt base %016llx limit %04x\n", sregs->idt.base, sregs->idt.limit);
}

/* --- Code ----------------------------------------------------------------------------------------------------- */

static void put_code(struct text *text, const struct decode_subject *subject, uint64_t rip)
{
    struct guest_code code = guest_code_of(subject->vcpu_fd, subject->view);

    text_put(text, "code");
    for (uint32_t i = 0; i < DECODE_BEFORE_BYTES + DECODE_AFTER_BYTES; i++) {
        uint8_t byte = 0;
        bool is_there = guest_code_byte(&code, rip - DECODE_BEFORE_BYTES + i, &byte);

        text_put(text, i == DECODE_BEFORE_BYTES ? " |" : "");
        if (is_there) {
            text_put(text, " %02x", byte);
        } else {
            text_put(text, " ??");
        }
    }
    text_put(text, "  (| is at linear 0x%" PRIx64 ")\n", rip);
}

size_t decode_exit(const struct decode_subject *subject, char *text, size_t bytes)
{
    struct text out = text_in(text, bytes);
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    text_put(&out, "vCPU %" PRIu32 ": ", subject->vcpu);
    put_run(&out, subject);
    if (subject->vcpu_fd < 0 || kvm_ioctl(subject->vcpu_fd, KVM_GET_REGS, &regs) < 0 ||
        kvm_ioctl(subject->vcpu_fd, KVM_GET_SREGS, &sregs) < 0) {
        text_put(&out, "no registers: KVM did not give them\n");
        return out.used;
    }
    put_general(&out, &regs);
    put_system(&out, &sregs);
    if (subject->view != NULL) {
        put_code(&out, subject, decode_linear_rip(&regs, &sregs));
    }
    return out.used;
}
