// SPDX-License-Identifier: Apache-2.0
/* vCPUs that are played; machine_test has real ones. */
#include "vmm/rest.h"

#include "vmm/kvm.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

enum { VCPU_FD = 1001, VCPU_COUNT = 3 };

#define RIP        UINT64_C(0xffffffff81000123)
#define LVT_MASKED (UINT32_C(1) << 16)

static struct played {
    uint32_t mp_state;
    struct kvm_regs regs;
    struct kvm_vcpu_events events;
    struct kvm_lapic_state apic;
} played[VCPU_COUNT];

static unsigned long failing; /* this request fails; 0: none */

static void answer_vcpu(const struct played *vcpu, unsigned long request, void *argument)
{
    switch (request) {
    case KVM_GET_MP_STATE:
        ((struct kvm_mp_state *)argument)->mp_state = vcpu->mp_state;
        break;
    case KVM_GET_REGS:
        *(struct kvm_regs *)argument = vcpu->regs;
        break;
    case KVM_GET_VCPU_EVENTS:
        *(struct kvm_vcpu_events *)argument = vcpu->events;
        break;
    case KVM_GET_LAPIC:
        *(struct kvm_lapic_state *)argument = vcpu->apic;
        break;
    default:
        cr_assert(false, "request 0x%lx", request);
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == failing) {
        errno = EINVAL;
        return -1;
    }
    cr_assert(fd >= VCPU_FD && fd < VCPU_FD + VCPU_COUNT);
    answer_vcpu(&played[fd - VCPU_FD], request, argument);
    return 0;
}

static void set_vector(struct played *vcpu, uint32_t offset, uint32_t value)
{
    memcpy(vcpu->apic.regs + offset, &value, sizeof value);
}

/* Three that rest: as firmware leaves the local APIC of the first. */
static void set_up(void)
{
    for (uint32_t i = 0; i < VCPU_COUNT; i++) {
        played[i] = (struct played){.mp_state = KVM_MP_STATE_HALTED, .regs = {.rip = RIP + i, .rflags = 2}};
        set_vector(&played[i], 0x340, LVT_MASKED);
        set_vector(&played[i], 0x350, 0x700);
        set_vector(&played[i], 0x360, 0x400);
    }
    failing = 0;
}

TestSuite(rest, .init = set_up);

static bool rests(uint32_t count, struct rest *rest)
{
    struct vcpu vcpus[VCPU_COUNT];

    for (uint32_t i = 0; i < VCPU_COUNT; i++) {
        vcpus[i] = (struct vcpu){.fd = VCPU_FD + (int)i, .index = i};
    }
    return rest_is_for_good(vcpus, count, rest);
}

static void check(uint32_t count, bool is_wanted, const char *what)
{
    struct rest rest = {0};

    cr_expect_eq(rests(count, &rest), is_wanted, "%s", what);
    cr_expect_eq(rest.halted_count + rest.unstarted_count, is_wanted ? count : 0, "%s", what);
}

static void check_text(uint32_t count, const char *wanted)
{
    struct rest rest;
    char text[160];

    cr_assert(rests(count, &rest), "%s", wanted);
    rest_describe(&rest, text, sizeof text);
    cr_expect_str_eq(text, wanted);
}

Test(rest, is_told_in_words)
{
    check_text(1, "is halted for good: HLT with interrupts off, at 0xffffffff81000123 (the next instruction): nothing "
                  "can wake it");
    check_text(3, "is halted for good: HLT with interrupts off on each of its 3 vCPUs: nothing can wake it");
    played[0].mp_state = KVM_MP_STATE_UNINITIALIZED;
    check_text(3,
               "is halted for good: HLT with interrupts off on 2 of its vCPUs, and 1 never started: nothing can wake "
               "it");
    played[1].mp_state = played[2].mp_state = KVM_MP_STATE_INIT_RECEIVED;
    check_text(3, "is halted for good: none of its vCPUs was started, and none is there to start them");
}

Test(rest, names_the_first_that_is_halted)
{
    struct rest rest;

    played[0].mp_state = KVM_MP_STATE_INIT_RECEIVED;
    cr_assert(rests(3, &rest));
    cr_expect_eq(rest.vcpu, 1);
    cr_expect_eq(rest.rip, RIP + 1);
    cr_expect_eq(rest.halted_count, 2);
    cr_expect_eq(rest.unstarted_count, 1);
}

Test(rest, is_none_where_one_vcpu_may_go_on)
{
    for (uint32_t i = 0; i < VCPU_COUNT; i++) {
        played[i].mp_state = KVM_MP_STATE_RUNNABLE;
        check(3, false, "it runs");
        played[i].mp_state = KVM_MP_STATE_SIPI_RECEIVED;
        check(3, false, "it is about to start");
        played[i].mp_state = KVM_MP_STATE_HALTED;
        played[i].regs.rflags = 0x202;
        check(3, false, "it takes interrupts");
        set_up();
        check(3, true, "as before");
    }
}

Test(rest, is_none_while_something_is_pending)
{
    uint8_t *const events[] = {
        &played[1].events.exception.injected,
        &played[1].events.exception.pending,
        &played[1].events.interrupt.injected,
        &played[1].events.nmi.injected,
        &played[1].events.nmi.pending,
        &played[1].events.smi.pending,
        &played[1].events.smi.smm,
        &played[1].events.smi.latched_init,
    };

    for (size_t i = 0; i < sizeof events / sizeof events[0]; i++) {
        *events[i] = 1;
        check(3, false, "pending");
        *events[i] = 0;
        check(3, true, "no more");
    }
}

/* As Linux has its watchdogs: the timer's line, and the counter of the processor's cycles. */
Test(rest, is_none_where_a_local_apic_makes_an_nmi)
{
    static const uint32_t vectors[] = {0x340, 0x350};

    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        set_vector(&played[2], vectors[i], 0x400);
        check(3, false, "an NMI");
        set_vector(&played[2], vectors[i], 0x200);
        check(3, false, "an SMI");
        set_vector(&played[2], vectors[i], 0x400 | LVT_MASKED);
        check(3, true, "masked");
        set_vector(&played[2], vectors[i], 0xef);
        check(3, true, "an interrupt");
        set_up();
    }
    set_vector(&played[2], 0x350, 0x400);
    played[2].mp_state = KVM_MP_STATE_UNINITIALIZED;
    check(3, true, "a vCPU that was never started takes none");
}

Test(rest, is_none_where_kvm_does_not_tell)
{
    static const unsigned long requests[] = {KVM_GET_MP_STATE, KVM_GET_REGS, KVM_GET_VCPU_EVENTS, KVM_GET_LAPIC};

    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        failing = requests[i];
        check(3, false, "it fails");
    }
    failing = 0;
    check(3, true, "as before");
}
