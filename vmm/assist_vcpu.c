// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_vcpu.h"

#include <assert.h>
#include <string.h>

#define CR0_PE    (UINT64_C(1) << 0)
#define RFLAGS_TF (UINT64_C(1) << 8)
#define RFLAGS_RF (UINT64_C(1) << 16)
#define RFLAGS_VM (UINT64_C(1) << 17)

/* The image of XSAVE (Intel SDM volume 1, section 13.4): the FXSAVE area, and the header's first word. */
#define XSAVE_CONTROL     0
#define XSAVE_STATUS      2
#define XSAVE_TAGS        4
#define XSAVE_OPCODE      6
#define XSAVE_INSTRUCTION 8
#define XSAVE_OPERAND     16
#define XSAVE_REGISTERS   32
#define XSAVE_COMPONENTS  512 /* XSTATE_BV */
#define COMPONENT_X87     1u

static_assert(sizeof(struct kvm_xsave) == ASSIST_VCPU_XSAVE_BYTES, "what KVM reads and writes");

/* Neither real nor virtual-8086 mode, and a default size of 32 or 64 bits. */
static bool has_wide_code(const struct assist_vcpu *vcpu)
{
    return (vcpu->sregs.cr0 & CR0_PE) != 0 && (vcpu->regs.rflags & RFLAGS_VM) == 0 &&
           (assist_memory_is_long(&vcpu->sregs) || vcpu->sregs.cs.db != 0);
}

bool assist_vcpu_read(struct assist_vcpu *vcpu, int fd, const struct loam_gpa_view *view)
{
    vcpu->fd = fd;
    vcpu->view = view;
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

bool assist_vcpu_read_fpu(struct assist_vcpu *vcpu, struct kvm_fpu *fpu)
{
    const uint8_t *image = vcpu->xsave;

    if (kvm_ioctl(vcpu->fd, KVM_GET_XSAVE, vcpu->xsave) < 0) {
        return false;
    }
    *fpu = (struct kvm_fpu){.ftwx = image[XSAVE_TAGS]};
    memcpy(&fpu->fcw, image + XSAVE_CONTROL, sizeof fpu->fcw);
    memcpy(&fpu->fsw, image + XSAVE_STATUS, sizeof fpu->fsw);
    memcpy(&fpu->last_opcode, image + XSAVE_OPCODE, sizeof fpu->last_opcode);
    memcpy(&fpu->last_ip, image + XSAVE_INSTRUCTION, sizeof fpu->last_ip);
    memcpy(&fpu->last_dp, image + XSAVE_OPERAND, sizeof fpu->last_dp);
    memcpy(fpu->fpr, image + XSAVE_REGISTERS, sizeof fpu->fpr);
    return true;
}

bool assist_vcpu_write_fpu(struct assist_vcpu *vcpu, const struct kvm_fpu *fpu)
{
    uint8_t *image = vcpu->xsave;

    memcpy(image + XSAVE_CONTROL, &fpu->fcw, sizeof fpu->fcw);
    memcpy(image + XSAVE_STATUS, &fpu->fsw, sizeof fpu->fsw);
    image[XSAVE_TAGS] = fpu->ftwx;
    memcpy(image + XSAVE_OPCODE, &fpu->last_opcode, sizeof fpu->last_opcode);
    memcpy(image + XSAVE_INSTRUCTION, &fpu->last_ip, sizeof fpu->last_ip);
    memcpy(image + XSAVE_OPERAND, &fpu->last_dp, sizeof fpu->last_dp);
    memcpy(image + XSAVE_REGISTERS, fpu->fpr, sizeof fpu->fpr);
    image[XSAVE_COMPONENTS] |= COMPONENT_X87;
    return kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, vcpu->xsave) == 0;
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
