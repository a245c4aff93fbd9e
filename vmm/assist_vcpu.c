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
#define XSAVE_MXCSR       24
#define XSAVE_REGISTERS   32
#define XSAVE_SSE         160
#define XSAVE_COMPONENTS  512 /* XSTATE_BV */
#define COMPONENT_X87     1u
#define COMPONENT_SSE     2u

static_assert(sizeof(struct kvm_xsave) == ASSIST_VCPU_XSAVE_BYTES, "what KVM reads and writes");

/* Neither real nor virtual-8086 mode, and a default size of 32 or 64 bits. */
static bool has_wide_code(const struct assist_vcpu *vcpu)
{
    return (vcpu->sregs.cr0 & CR0_PE) != 0 && (vcpu->regs.rflags & RFLAGS_VM) == 0 &&
           (assist_memory_is_long(&vcpu->sregs) || vcpu->sregs.cs.db != 0);
}

bool assist_vcpu_read(struct assist_vcpu *vcpu, int fd, const struct loam_gpa_view *view, struct loam_dirty *dirty)
{
    vcpu->fd = fd;
    vcpu->view = view;
    vcpu->dirty = dirty;
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
    return (struct assist_memory){
        .view = vcpu->view, .sregs = &vcpu->sregs, .rflags = vcpu->regs.rflags, .dirty = vcpu->dirty};
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

bool assist_vcpu_read_sse(struct assist_vcpu *vcpu, struct assist_sse *sse)
{
    if (kvm_ioctl(vcpu->fd, KVM_GET_XSAVE, vcpu->xsave) < 0) {
        return false;
    }
    memcpy(&sse->mxcsr, vcpu->xsave + XSAVE_MXCSR, sizeof sse->mxcsr);
    memcpy(sse->registers, vcpu->xsave + XSAVE_SSE, sizeof sse->registers);
    return true;
}

bool assist_vcpu_write_sse(struct assist_vcpu *vcpu, const struct assist_sse *sse)
{
    memcpy(vcpu->xsave + XSAVE_MXCSR, &sse->mxcsr, sizeof sse->mxcsr);
    memcpy(vcpu->xsave + XSAVE_SSE, sse->registers, sizeof sse->registers);
    vcpu->xsave[XSAVE_COMPONENTS] |= COMPONENT_SSE;
    return kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, vcpu->xsave) == 0;
}

uint8_t assist_vcpu_lacks_sse(const struct assist_vcpu *vcpu)
{
    if ((vcpu->sregs.cr0 & ASSIST_CR0_EM) != 0 || (vcpu->sregs.cr4 & ASSIST_CR4_OSFXSR) == 0) {
        return ASSIST_UNDEFINED;
    }
    return (vcpu->sregs.cr0 & ASSIST_CR0_TS) != 0 ? ASSIST_NO_DEVICE : 0;
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

/* A fault's handler finds RF set, so that what it returns to is not stopped at again (Intel SDM volume 3B, 17.3.1.1). */
static bool set_resume(const struct assist_vcpu *vcpu)
{
    struct kvm_regs regs = vcpu->regs;

    regs.rflags |= RFLAGS_RF;
    return kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs) == 0;
}

/* events: the vCPU's, with what is to be injected. */
static bool inject(const struct assist_vcpu *vcpu, struct kvm_vcpu_events *events)
{
    events->interrupt.shadow = 0;
    events->flags = KVM_VCPUEVENT_VALID_SHADOW;
    return kvm_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, events) == 0;
}

bool assist_vcpu_raise(struct assist_vcpu *vcpu, uint8_t vector)
{
    struct kvm_vcpu_events events = vcpu->events;

    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = 0;
    return (vector == ASSIST_BREAKPOINT || set_resume(vcpu)) && inject(vcpu, &events);
}

bool assist_vcpu_fault(struct assist_vcpu *vcpu, const struct assist_fault *fault)
{
    struct kvm_vcpu_events events = vcpu->events;
    struct kvm_sregs sregs = vcpu->sregs;

    if (fault->vector == 0 || !set_resume(vcpu)) {
        return false;
    }
    sregs.cr2 = fault->address;
    if (fault->vector == ASSIST_PAGE_FAULT && kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0) {
        return false;
    }
    events.exception.injected = 1;
    events.exception.nr = fault->vector;
    events.exception.has_error_code = 1;
    events.exception.error_code = fault->error_code;
    return inject(vcpu, &events);
}

bool assist_vcpu_protect(struct assist_vcpu *vcpu)
{
    const struct assist_fault fault = {.vector = ASSIST_PROTECTION};

    return assist_vcpu_fault(vcpu, &fault);
}

bool assist_vcpu_interrupt(struct assist_vcpu *vcpu, uint8_t length, uint8_t vector)
{
    struct kvm_vcpu_events events = vcpu->events;

    if (events.interrupt.injected != 0 || !assist_vcpu_commit(vcpu, length)) {
        return false;
    }
    events.interrupt.injected = 1;
    events.interrupt.nr = vector;
    events.interrupt.soft = 1;
    return inject(vcpu, &events);
}
