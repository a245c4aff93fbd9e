// SPDX-License-Identifier: Apache-2.0
/*
 * References: KVM API, sections 4.29 (KVM_GET_CLOCK), 4.30 (KVM_SET_CLOCK), 4.70 (KVM_KVMCLOCK_CTRL);
 * Linux: Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET.
 */
#include "vmm/guest_clock.h"

#include "vmm/kvm.h"

void guest_clock_hold(struct guest_clock *clock, int vm_fd)
{
    *clock = (struct guest_clock){.is_held = false};
    clock->is_held = kvm_ioctl(vm_fd, KVM_GET_CLOCK, &clock->held) == 0;
}

/* How far the host's TSC has gone since then. */
static uint64_t tsc_since(const struct kvm_clock_data *then, int vm_fd)
{
    struct kvm_clock_data now = {.flags = 0};

    if (kvm_ioctl(vm_fd, KVM_GET_CLOCK, &now) != 0 || (then->flags & now.flags & KVM_CLOCK_HOST_TSC) == 0) {
        return 0;
    }
    return now.host_tsc - then->host_tsc;
}

void guest_clock_go_on(struct guest_clock *clock, int vm_fd)
{
    struct kvm_clock_data set = {.clock = clock->held.clock};

    if (clock->is_held) {
        clock->tsc_shift = tsc_since(&clock->held, vm_fd);
        (void)kvm_ioctl(vm_fd, KVM_SET_CLOCK, &set);
        clock->is_held = false;
    }
}

void guest_clock_go_on_vcpu(const struct guest_clock *clock, int vcpu_fd)
{
    uint64_t offset = 0;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

    if (clock->tsc_shift != 0 && kvm_ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) == 0) {
        offset -= clock->tsc_shift;
        (void)kvm_ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute);
    }
    (void)kvm_ioctl_number(vcpu_fd, KVM_KVMCLOCK_CTRL, 0); /* EINVAL: this guest has no kvmclock */
}
