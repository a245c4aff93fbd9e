// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist.h"

#include <stdint.h>

#define OPCODE_FWAIT 0x9bu
#define OPCODE_INT3  0xccu

/* Exceptions (Intel SDM volume 3A, table 6-1). */
#define VECTOR_BREAKPOINT 3u
#define VECTOR_NO_DEVICE  7u
#define VECTOR_FPU_ERROR  16u

#define CR0_MP (UINT64_C(1) << 1)
#define CR0_TS (UINT64_C(1) << 3)
#define CR0_NE (UINT64_C(1) << 5)

#define FPU_EXCEPTIONS 0x3fu /* in the status word, and masked in the control word */

/* The first byte of the instruction that was given up on; false: this exit is none of that kind, or KVM does not say. */
static bool failed_opcode(const struct kvm_run *run, uint8_t *opcode)
{
    if (run->exit_reason != KVM_EXIT_INTERNAL_ERROR || run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION ||
        run->emulation_failure.ndata < 3 ||
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) == 0 ||
        run->emulation_failure.insn_size == 0) {
        return false;
    }
    *opcode = run->emulation_failure.insn_bytes[0];
    return true;
}

static bool step_over_byte(int vcpu_fd)
{
    struct kvm_regs regs;

    if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0) {
        return false;
    }
    regs.rip++;
    return kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs) == 0;
}

static bool inject(int vcpu_fd, uint8_t vector)
{
    struct kvm_vcpu_events events;

    if (kvm_ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &events) < 0 || events.exception.injected != 0) {
        return false;
    }
    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = 0;
    events.flags = 0;
    return kvm_ioctl(vcpu_fd, KVM_SET_VCPU_EVENTS, &events) == 0;
}

/* FWAIT raises what the FPU has pending, and does nothing else (Intel SDM volume 2, WAIT/FWAIT). */
static bool assist_fwait(int vcpu_fd)
{
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;

    if (kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0 || kvm_ioctl(vcpu_fd, KVM_GET_FPU, &fpu) < 0) {
        return false;
    }
    if ((sregs.cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS)) {
        return inject(vcpu_fd, VECTOR_NO_DEVICE);
    }
    if ((fpu.fsw & ~fpu.fcw & FPU_EXCEPTIONS) != 0) {
        return (sregs.cr0 & CR0_NE) != 0 && inject(vcpu_fd, VECTOR_FPU_ERROR);
    }
    return step_over_byte(vcpu_fd);
}

bool assist_instruction(int vcpu_fd, const struct kvm_run *run)
{
    uint8_t opcode;

    if (!failed_opcode(run, &opcode)) {
        return false;
    }
    switch (opcode) {
    case OPCODE_FWAIT:
        return assist_fwait(vcpu_fd);
    case OPCODE_INT3: /* a trap: the handler returns behind it */
        return step_over_byte(vcpu_fd) && inject(vcpu_fd, VECTOR_BREAKPOINT);
    default:
        return false;
    }
}
