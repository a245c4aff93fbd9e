// SPDX-License-Identifier: Apache-2.0
/*
 * References: KVM API, sections 4.29 (KVM_GET_CLOCK), 4.30 (KVM_SET_CLOCK), 4.70 (KVM_KVMCLOCK_CTRL);
 * Linux: Documentation/virt/kvm/devices/vcpu.rst, KVM_VCPU_TSC_OFFSET.
 */
#include "vmm/guest_clock.h"

#include "vmm/kvm.h"

#include <time.h>

static uint64_t realtime(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void guest_clock_hold(struct guest_clock *clock, int vm_fd)
{
    *clock = (struct guest_clock){.held_realtime = realtime()};
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

uint64_t guest_clock_elapsed(const struct guest_clock *clock, int vm_fd)
{
    return clock->is_held ? tsc_since(&clock->held, vm_fd) : 0;
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

void guest_clock_save(const struct guest_clock *clock, struct state_writer *writer)
{
    state_begin(writer, STATE_CLOCK, 0);
    state_put_u64(writer, clock->held.clock);
    state_put_u64(writer, clock->held_realtime);
    state_end(writer);
}

enum loam_error guest_clock_load(struct guest_clock *clock, int vm_fd, enum guest_clock_jump jump,
                                 struct state_reader *reader, struct guest_clock_base *base, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_CLOCK, 0, &record, diag);
    uint64_t said, then;

    if (error != LOAM_OK) {
        return error;
    }
    said = state_take_u64(record);
    then = state_take_u64(record);
    guest_clock_hold(clock, vm_fd);
    base->host_tsc = (clock->held.flags & KVM_CLOCK_HOST_TSC) != 0 ? clock->held.host_tsc : 0;
    base->jump_nanoseconds = jump == GUEST_CLOCK_JUMPS && clock->held_realtime > then ? clock->held_realtime - then : 0;
    clock->held.clock = said + base->jump_nanoseconds;
    return state_done(record, diag);
}
