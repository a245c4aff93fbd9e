// SPDX-License-Identifier: Apache-2.0
/* On a VM of its own, in which nothing runs. What a guest sees is shown by machine_test. */
#include "vmm/guest_clock.h"

#include "tests/vmm/ioctl_fake.h"
#include "vmm/kvm.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <time.h>
#include <unistd.h>

#define STANDING_NANOSECONDS 100000000
#define SLACK_NANOSECONDS    50000000

static struct kvm kvm;
static struct guest_clock guest_clock;
static int vm_fd, vcpu_fd;

static void set_up(void)
{
    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    ioctl_fake_reset();
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, NULL), LOAM_OK);
    vcpu_fd = kvm_ioctl_number(vm_fd, KVM_CREATE_VCPU, 0);
    cr_assert_geq(vcpu_fd, 0);
}

static void tear_down(void)
{
    close(vcpu_fd);
    close(vm_fd);
    kvm_close(&kvm);
}

TestSuite(guest_clock, .init = set_up, .fini = tear_down, .timeout = 60);

static uint64_t now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void let_pass(uint64_t nanoseconds)
{
    for (uint64_t end = now() + nanoseconds; now() < end;) {
    }
}

static uint64_t vm_clock(void)
{
    struct kvm_clock_data data = {.flags = 0};

    cr_assert_eq(kvm_ioctl(vm_fd, KVM_GET_CLOCK, &data), 0);
    return data.clock;
}

static void stand_for(uint64_t nanoseconds)
{
    guest_clock_hold(&guest_clock, vm_fd);
    let_pass(nanoseconds);
    guest_clock_go_on(&guest_clock, vm_fd);
    guest_clock_go_on_vcpu(&guest_clock, vcpu_fd);
}

Test(guest_clock, holds_the_clock_of_the_vm)
{
    uint64_t before, after;

    for (uint32_t i = 0; i < 3; i++) {
        before = vm_clock();
        stand_for(STANDING_NANOSECONDS);
        after = vm_clock();
        cr_assert_geq(after, before);
        cr_assert_lt(after - before, SLACK_NANOSECONDS, "%" PRIu64 " ns", after - before);
    }
    let_pass(STANDING_NANOSECONDS);
    cr_assert_geq(vm_clock() - after, STANDING_NANOSECONDS, "and it goes on");
}

Test(guest_clock, does_nothing_to_a_clock_that_is_not_held)
{
    uint64_t before = vm_clock();

    let_pass(STANDING_NANOSECONDS);
    guest_clock_go_on(&guest_clock, vm_fd);
    guest_clock_go_on_vcpu(&guest_clock, vcpu_fd);
    stand_for(0);
    guest_clock_go_on(&guest_clock, vm_fd);
    cr_assert_geq(vm_clock() - before, STANDING_NANOSECONDS);
}

static bool get_offset(uint64_t *offset)
{
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)offset};

    return kvm_ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attribute) == 0;
}

/* Whether this KVM keeps what it is told: one that emulates may not. */
static bool takes_offsets(void)
{
    uint64_t before = 0, after = 0;
    struct kvm_device_attr attribute = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&before};

    if (!get_offset(&before)) {
        return false;
    }
    before += 12345;
    return kvm_ioctl(vcpu_fd, KVM_SET_DEVICE_ATTR, &attribute) == 0 && get_offset(&after) && after == before;
}

Test(guest_clock, takes_from_a_tsc_what_the_host_s_has_gone_on)
{
    uint64_t before, after;

    if (!takes_offsets()) {
        cr_skip("this KVM shifts no TSC");
    }
    cr_assert(get_offset(&before));
    guest_clock.tsc_shift = 1000000;
    guest_clock_go_on_vcpu(&guest_clock, vcpu_fd);
    cr_assert(get_offset(&after));
    cr_assert_eq(before - after, 1000000);
}

/* Whatever fails, no other clock suffers, and nothing is shifted that is not known. */
Test(guest_clock, leaves_clocks_alone_that_kvm_does_not_tell_of)
{
    uint64_t before = vm_clock();

    ioctl_fake_reset();
    ioctl_fake_fail(0, EIO);
    guest_clock_hold(&guest_clock, vm_fd);
    cr_assert_not(guest_clock.is_held);
    let_pass(STANDING_NANOSECONDS);
    guest_clock_go_on(&guest_clock, vm_fd);
    cr_assert_geq(vm_clock() - before, STANDING_NANOSECONDS);
    ioctl_fake_reset();
    guest_clock_hold(&guest_clock, vm_fd);
    guest_clock.held.flags |= KVM_CLOCK_HOST_TSC;
    ioctl_fake_fail(1, EIO);
    guest_clock_go_on(&guest_clock, vm_fd);
    cr_assert_eq(ioctl_fake_failed_request(), KVM_GET_CLOCK);
    cr_assert_eq(guest_clock.tsc_shift, 0);
}
