// SPDX-License-Identifier: Apache-2.0
#include "vmm/stand.h"

#include "vmm/decode.h"
#include "vmm/guest_code.h"
#include "vmm/vcpu.h"

#include <string.h>

#define CR0_PE    (UINT64_C(1) << 0)
#define CR0_PG    (UINT64_C(1) << 31)
#define CR4_PAE   (UINT64_C(1) << 5)
#define CR4_LA57  (UINT64_C(1) << 12)
#define EFER_LMA  (UINT64_C(1) << 10)
#define RFLAGS_IF (UINT64_C(1) << 9)
#define RFLAGS_VM (UINT64_C(1) << 17)

/* Where a processor starts after a reset (Intel SDM volume 3A, section 9.1.4). */
#define RESET_RIP     UINT64_C(0xfff0)
#define RESET_CS_BASE UINT64_C(0xffff0000)

enum stand_mode stand_mode(const struct kvm_regs *regs, const struct kvm_sregs *sregs)
{
    if ((sregs->cr0 & CR0_PE) == 0) {
        return STAND_REAL;
    }
    if ((sregs->efer & EFER_LMA) != 0) {
        return sregs->cs.l != 0 ? STAND_LONG : STAND_COMPATIBILITY;
    }
    if ((regs->rflags & RFLAGS_VM) != 0) {
        return STAND_VIRTUAL_8086;
    }
    return sregs->cs.db != 0 ? STAND_PROTECTED : STAND_PROTECTED_16;
}

enum stand_paging stand_paging(const struct kvm_sregs *sregs)
{
    if ((sregs->cr0 & CR0_PG) == 0) {
        return STAND_PAGING_NONE;
    }
    if ((sregs->efer & EFER_LMA) != 0) {
        return (sregs->cr4 & CR4_LA57) != 0 ? STAND_PAGING_5 : STAND_PAGING_4;
    }
    return (sregs->cr4 & CR4_PAE) != 0 ? STAND_PAGING_PAE : STAND_PAGING_32;
}

enum disassembly_width stand_width(const struct stand *stand)
{
    if (stand->mode == STAND_LONG) {
        return DISASSEMBLY_64;
    }
    return stand->sregs.cs.db != 0 ? DISASSEMBLY_32 : DISASSEMBLY_16;
}

bool stand_is_reset(const struct stand *stand)
{
    return stand->is_triple_fault && stand->regs.rip == RESET_RIP && stand->sregs.cs.base == RESET_CS_BASE;
}

/* A VM without interrupt controllers has its HLT as an exit, and no state for it. */
static enum stand_activity activity_of(const struct vcpu *vcpu, const struct kvm_regs *regs)
{
    bool is_off = (regs->rflags & RFLAGS_IF) == 0;
    struct kvm_mp_state state = {.mp_state = KVM_MP_STATE_RUNNABLE};

    (void)kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &state);
    switch (state.mp_state) {
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
        return STAND_UNSTARTED;
    case KVM_MP_STATE_HALTED:
        return is_off ? STAND_HALTED : STAND_WAITING;
    default:
        break;
    }
    if (vcpu->run_errno == 0 && vcpu->run->exit_reason == KVM_EXIT_HLT) {
        return is_off ? STAND_HALTED : STAND_WAITING;
    }
    return STAND_RUNNING;
}

static void read_code(const struct vcpu *vcpu, const struct loam_gpa_view *view, struct stand *stand)
{
    if (view != NULL) {
        struct guest_code code = guest_code_of(vcpu->fd, view);

        stand->code_bytes = guest_code_read(&code, stand->rip, stand->code, STAND_CODE_BYTES);
    }
    if (stand->code_bytes == 0 && stand->lacks_instruction) {
        stand->code_bytes = decode_failed_bytes(vcpu->run, stand->code);
    }
}

void stand_ask(const struct vcpu *vcpu, const struct loam_gpa_view *view, struct stand *stand)
{
    const struct kvm_run *run = vcpu->run;

    *stand = (struct stand){.activity = STAND_UNKNOWN};
    if (kvm_ioctl(vcpu->fd, KVM_GET_REGS, &stand->regs) < 0 || kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &stand->sregs) < 0) {
        return;
    }
    stand->activity = activity_of(vcpu, &stand->regs);
    stand->mode = stand_mode(&stand->regs, &stand->sregs);
    stand->paging = stand_paging(&stand->sregs);
    stand->rip = decode_linear_rip(&stand->regs, &stand->sregs);
    stand->is_triple_fault = vcpu->run_errno == 0 && run->exit_reason == KVM_EXIT_SHUTDOWN;
    stand->lacks_instruction = vcpu->run_errno == 0 && run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
                               run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
    read_code(vcpu, view, stand);
}
