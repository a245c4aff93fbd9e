// SPDX-License-Identifier: Apache-2.0
#include "vmm/rest.h"

#include "vmm/kvm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RFLAGS_IF (UINT64_C(1) << 9)

/* Of a local APIC's vectors, those that something may raise beside what the vCPU itself does. */
#define APIC_LVT_COUNTER   0x340u
#define APIC_LVT_LINT0     0x350u
#define APIC_LVT_MODE_BIT  8u
#define APIC_LVT_MODE_MASK 7u
#define APIC_LVT_MASKED    (UINT32_C(1) << 16)

/* Delivery modes of interrupts, which a vCPU leaves pending while they are off. */
#define DELIVERY_FIXED    0u
#define DELIVERY_LOWEST   1u
#define DELIVERY_EXTERNAL 7u

static bool waits_while_off(uint32_t mode)
{
    return mode == DELIVERY_FIXED || mode == DELIVERY_LOWEST || mode == DELIVERY_EXTERNAL;
}

static bool has_quiet_vectors(int vcpu_fd)
{
    static const uint32_t vectors[] = {APIC_LVT_COUNTER, APIC_LVT_LINT0};
    struct kvm_lapic_state apic;

    if (kvm_ioctl(vcpu_fd, KVM_GET_LAPIC, &apic) < 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        uint32_t vector;

        memcpy(&vector, apic.regs + vectors[i], sizeof vector);
        if ((vector & APIC_LVT_MASKED) == 0 && !waits_while_off(vector >> APIC_LVT_MODE_BIT & APIC_LVT_MODE_MASK)) {
            return false;
        }
    }
    return true;
}

static bool has_nothing_pending(int vcpu_fd)
{
    struct kvm_vcpu_events events = {.flags = 0};

    return kvm_ioctl(vcpu_fd, KVM_GET_VCPU_EVENTS, &events) == 0 && events.exception.injected == 0 &&
           events.exception.pending == 0 && events.interrupt.injected == 0 && events.nmi.injected == 0 &&
           events.nmi.pending == 0 && events.smi.pending == 0 && events.smi.smm == 0 && events.smi.latched_init == 0;
}

static bool is_halted(int vcpu_fd, uint64_t *rip)
{
    struct kvm_regs regs;

    if (kvm_ioctl(vcpu_fd, KVM_GET_REGS, &regs) < 0 || (regs.rflags & RFLAGS_IF) != 0) {
        return false;
    }
    *rip = regs.rip;
    return has_nothing_pending(vcpu_fd) && has_quiet_vectors(vcpu_fd);
}

static bool add(const struct vcpu *vcpu, struct rest *rest)
{
    struct kvm_mp_state state;
    uint64_t rip;

    if (kvm_ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) < 0) {
        return false;
    }
    if (state.mp_state == KVM_MP_STATE_UNINITIALIZED || state.mp_state == KVM_MP_STATE_INIT_RECEIVED) {
        rest->unstarted_count++;
        return true;
    }
    if (state.mp_state != KVM_MP_STATE_HALTED || !is_halted(vcpu->fd, &rip)) {
        return false;
    }
    if (rest->halted_count++ == 0) {
        rest->vcpu = vcpu->index;
        rest->rip = rip;
    }
    return true;
}

bool rest_is_for_good(const struct vcpu *vcpus, uint32_t count, struct rest *rest)
{
    *rest = (struct rest){.halted_count = 0};
    for (uint32_t i = 0; i < count; i++) {
        if (!add(&vcpus[i], rest)) {
            *rest = (struct rest){.halted_count = 0};
            return false;
        }
    }
    return true;
}

void rest_describe(const struct rest *rest, char *text, size_t bytes)
{
    if (rest->halted_count == 0) {
        snprintf(text, bytes, "is halted for good: none of its vCPUs was started, and none is there to start them");
    } else if (rest->halted_count + rest->unstarted_count == 1) {
        snprintf(text, bytes,
                 "is halted for good: HLT with interrupts off, at 0x%" PRIx64
                 " (the next instruction): nothing can wake it",
                 rest->rip);
    } else if (rest->unstarted_count == 0) {
        snprintf(text, bytes,
                 "is halted for good: HLT with interrupts off on each of its %" PRIu32 " vCPUs: nothing can wake it",
                 rest->halted_count);
    } else {
        snprintf(text, bytes,
                 "is halted for good: HLT with interrupts off on %" PRIu32 " of its vCPUs, and %" PRIu32
                 " never started: nothing can wake it",
                 rest->halted_count, rest->unstarted_count);
    }
}
