// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_vcpu.h"

#define CR0_PE    (UINT64_C(1) << 0)
#define RFLAGS_TF (UINT64_C(1) << 8)
#define RFLAGS_RF (UINT64_C(1) << 16)
#define RFLAGS_VM (UINT64_C(1) << 17)

/* Neither real nor virtual-8086 mode, and a default size of 32 or 64 bits. */
static bool has_wide_code(const struct assist_vcpu *vcpu)
{
    return (vcpu->sregs.cr0 & CR0_PE) != 0 && (vcpu->regs.rflags & RFLAGS_VM) == 0 &&
           (assist_memory_is_long(&vcpu->sregs) || vcpu->sregs.cs.db != 0);
}

bool assist_vcpu_read(struct assist_vcpu *vcpu, int fd, const struct loam_gpa_view *view)
{
    *vcpu = (struct assist_vcpu){.fd = fd, .view = view};
    if (kvm_ioctl(fd, KVM_GET_REGS, &vcpu->regs) < 0 || kvm_ioctl(fd, KVM_GET_SREGS, &vcpu->sregs) < 0 ||
        kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &vcpu->events) < 0) {
        return false;
    }
    return has_wide_code(vcpu) && (vcpu->regs.rflags & RFLAGS_TF) == 0 && vcpu->events.exception.injected == 0 &&
           vcpu->events.exception.pending == 0;
}

enum assist_mode assist_vcpu_mode(const struct assist_vcpu *vcpu)
{
    return assist_memory_is_long(&vcpu->sregs) ? ASSIST_MODE_64 : ASSIST_MODE_32;
}

struct assist_memory assist_vcpu_memory(const struct assist_vcpu *vcpu)
{
    return (struct assist_memory){.view = vcpu->view, .sregs = &vcpu->sregs, .rflags = vcpu->regs.rflags};
}

/* Interrupts are held back after STI and MOV SS for one instruction, and this was it. */
static bool end_shadow(struct assist_vcpu *vcpu)
{
    struct kvm_vcpu_events events = vcpu->events;

    if (events.interrupt.shadow == 0) {
        return true;
    }
    events.interrupt.shadow = 0;
    events.flags = KVM_VCPUEVENT_VALID_SHADOW;
    return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) == 0;
}

bool assist_vcpu_commit(struct assist_vcpu *vcpu, uint8_t length)
{
    struct kvm_regs regs = vcpu->regs;

    regs.rip += length;
    if (assist_vcpu_mode(vcpu) == ASSIST_MODE_32) {
        regs.rip &= UINT32_MAX;
    }
    regs.rflags &= ~RFLAGS_RF;
    return end_shadow(vcpu) && kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs) == 0;
}

bool assist_vcpu_raise(struct assist_vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu_events events = vcpu->events;

    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = 0;
    events.interrupt.shadow = 0;
    events.flags = KVM_VCPUEVENT_VALID_SHADOW;
    return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) == 0;
}
