// SPDX-License-Identifier: Apache-2.0
/* With a real KVM's local APIC; that guests are interrupted is shown by machine_test. */
#include "vmm/irqchip.h"

#include "tests/support/waiter.h"
#include "tests/vmm/ioctl_fake.h"
#include "vmm/kvm.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define APIC_SPURIOUS 0x0f0u
#define APIC_ENABLED  0x100u
#define APIC_TMR      0x180u
#define APIC_IRR      0x200u

#define MASKED 0x10000u
#define LEVEL  0x8000u

static struct kvm kvm;
static int vm_fd, vcpu_fd;
static struct irqchip chip;
static struct bus bus;
static uint32_t call_count, failure_count, catch_up_count, attend_count, taken_count;
static struct loam_diag failure;

static bool is_locked_on_purpose;

/* No lock is held: the owner may do as it likes. */
static void expect_unlocked(void *self)
{
    cr_assert_eq(self, &chip);
    if (!is_locked_on_purpose) {
        cr_assert_eq(pthread_mutex_trylock(&chip.lock), 0);
        pthread_mutex_unlock(&chip.lock);
    }
}

static void call_back(void *self)
{
    expect_unlocked(self);
    cr_assert(atomic_load(&chip.is_raised), "it stands before anybody is called back");
    call_count++;
}

static void keep_failure(void *self, const struct loam_diag *diag)
{
    cr_assert_eq(self, &chip);
    failure = *diag;
    failure_count++;
}

static void catch_up(void *self)
{
    expect_unlocked(self);
    catch_up_count++;
}

static void attend(void *self)
{
    expect_unlocked(self);
    attend_count++;
}

static void taken(void *self)
{
    expect_unlocked(self);
    taken_count++;
}

static void enable_apic(void)
{
    struct kvm_lapic_state apic;
    uint32_t value;

    cr_assert_eq(kvm_ioctl(vcpu_fd, KVM_GET_LAPIC, &apic), 0);
    memcpy(&value, apic.regs + APIC_SPURIOUS, sizeof value);
    value |= APIC_ENABLED;
    memcpy(apic.regs + APIC_SPURIOUS, &value, sizeof value);
    cr_assert_eq(kvm_ioctl(vcpu_fd, KVM_SET_LAPIC, &apic), 0);
}

static void set_up(void)
{
    const struct irqchip_owner owner = {call_back, keep_failure, catch_up, attend, taken, &chip};
    struct loam_diag diag = {0};

    if (access(KVM_DEVICE, R_OK | W_OK) != 0) {
        cr_skip("no access to " KVM_DEVICE);
    }
    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    cr_assert_eq(kvm_create_vm(&kvm, &vm_fd, NULL), LOAM_OK);
    ioctl_fake_reset();
    cr_assert_eq(irqchip_init(&chip, vm_fd, &owner, &diag), LOAM_OK, "%s", diag.text);
    vcpu_fd = kvm_ioctl_number(vm_fd, KVM_CREATE_VCPU, 0);
    cr_assert_geq(vcpu_fd, 0);
    enable_apic();
    bus_init(&bus);
    cr_assert_eq(irqchip_add(&chip, &bus, &diag), LOAM_OK, "%s", diag.text);
    ioctl_fake_reset();
}

static void tear_down(void)
{
    irqchip_destroy(&chip);
    bus_destroy(&bus);
    close(vcpu_fd);
    close(vm_fd);
    kvm_close(&kvm);
}

TestSuite(irqchip, .init = set_up, .fini = tear_down, .timeout = 60);

static bool has_bit(uint32_t offset, uint8_t vector)
{
    struct kvm_lapic_state apic;
    uint32_t value;

    cr_assert_eq(kvm_ioctl(vcpu_fd, KVM_GET_LAPIC, &apic), 0);
    memcpy(&value, apic.regs + offset + vector / 32 * 16, sizeof value);
    return (value >> vector % 32 & 1) != 0;
}

static void out(uint16_t port, uint32_t bytes, uint32_t value)
{
    cr_assert(bus_dispatch(&bus, BUS_PIO, port, &value, bytes, true));
}

static uint32_t in(uint16_t port, uint32_t bytes)
{
    uint32_t value = 0;

    cr_assert(bus_dispatch(&bus, BUS_PIO, port, &value, bytes, false));
    return value;
}

static void write_ioapic(uint32_t number, uint32_t value)
{
    cr_assert(bus_dispatch(&bus, BUS_MMIO, IOAPIC_BASE + IOAPIC_SELECT, &number, 4, true));
    cr_assert(bus_dispatch(&bus, BUS_MMIO, IOAPIC_BASE + IOAPIC_WINDOW, &value, 4, true));
}

static void write_entry(uint32_t pin, uint32_t low)
{
    write_ioapic(0x11 + 2 * pin, 0);
    write_ioapic(0x10 + 2 * pin, low);
}

static void initialise_first(uint8_t mask)
{
    out(0x20, 1, 0x11);
    out(0x21, 1, 0x30);
    out(0x21, 1, 0x04);
    out(0x21, 1, 0x01);
    out(0x21, 1, mask);
}

/* --- The I/O APIC ------------------------------------------------------------------------------------------------ */

Test(irqchip, sends_edges_to_local_apics_and_tells_kvm_of_no_routes)
{
    write_entry(4, 0x44);
    ioctl_fake_reset();
    irqchip_set_line(&chip, 4, true);
    cr_expect_eq(ioctl_fake_count(), 1, "KVM_SIGNAL_MSI");
    cr_expect(has_bit(APIC_IRR, 0x44));
    cr_expect_not(has_bit(APIC_TMR, 0x44));
    cr_expect_eq(call_count, 0, "nobody has to come back");
    cr_expect_eq(failure_count, 0);
}

Test(irqchip, tells_kvm_of_a_level_before_it_is_sent_and_once)
{
    write_entry(5, LEVEL | 0x45);
    write_entry(6, LEVEL | MASKED | 0x46);
    ioctl_fake_reset();
    irqchip_set_line(&chip, 5, true);
    cr_expect_eq(ioctl_fake_count(), 2, "KVM_SET_GSI_ROUTING, KVM_SIGNAL_MSI");
    cr_expect(has_bit(APIC_IRR, 0x45));
    cr_expect(has_bit(APIC_TMR, 0x45), "as a level");
    ioctl_fake_reset();
    irqchip_end(&chip, 0x45);
    cr_expect_eq(ioctl_fake_count(), 1, "it is asserted still");
    irqchip_set_line(&chip, 5, false);
    irqchip_end(&chip, 0x45);
    cr_expect_eq(ioctl_fake_count(), 1);
    irqchip_set_line(&chip, 6, true);
    cr_expect_eq(ioctl_fake_count(), 1);
    write_entry(6, LEVEL | 0x46);
    cr_expect_eq(ioctl_fake_count(), 2, "told already");
    write_entry(5, LEVEL | 0x55);
    irqchip_set_line(&chip, 5, true);
    cr_expect_eq(ioctl_fake_count(), 4, "a new vector is a new route");
    cr_expect(has_bit(APIC_IRR, 0x55));
}

Test(irqchip, wires_the_timer_to_both_of_its_inputs)
{
    write_entry(2, 0x42);
    write_entry(0, 0x40);
    irqchip_set_line(&chip, 0, true);
    cr_expect(has_bit(APIC_IRR, 0x42));
    cr_expect(has_bit(APIC_IRR, 0x40));
    write_entry(2, 0x52);
    irqchip_set_line(&chip, 0, false);
    irqchip_set_line(&chip, 0, true);
    cr_expect(has_bit(APIC_IRR, 0x52));
}

Test(irqchip, sends_to_nobody_without_complaint)
{
    write_ioapic(0x19, 0x77000000);
    write_ioapic(0x18, 0x44);
    irqchip_set_line(&chip, 4, true);
    cr_expect_eq(failure_count, 0);
}

Test(irqchip, says_that_a_route_cannot_be_told)
{
    write_entry(5, LEVEL | 0x45);
    ioctl_fake_reset();
    ioctl_fake_fail(0, ENOMEM);
    irqchip_set_line(&chip, 5, true);
    cr_expect_eq(failure_count, 1);
    cr_expect_str_eq(failure.text, "interrupts: KVM_SET_GSI_ROUTING: Cannot allocate memory");
    cr_expect_eq(failure.system_errno, ENOMEM);
}

Test(irqchip, is_quiet_while_lines_send_interrupts_alone)
{
    write_entry(23, 0x44);
    cr_expect(irqchip_is_quiet(&chip));
    write_entry(23, 0x400); /* NMI */
    cr_expect_not(irqchip_is_quiet(&chip));
}

/* --- The 8259As -------------------------------------------------------------------------------------------------- */

Test(irqchip, calls_the_first_vcpu_back_once_for_what_waits)
{
    initialise_first(0xef);
    irqchip_set_line(&chip, 3, true);
    cr_expect_eq(call_count, 0, "masked");
    irqchip_set_line(&chip, 4, true);
    cr_expect_eq(call_count, 1);
    irqchip_set_line(&chip, 4, false);
    irqchip_set_line(&chip, 4, true);
    cr_expect_eq(call_count, 1);
    out(0x21, 1, 0xff);
    cr_expect_not(atomic_load(&chip.is_raised));
    out(0x21, 1, 0xef);
    cr_expect_eq(call_count, 2);
}

Test(irqchip, hands_in_what_waits_when_it_can_be_taken)
{
    struct kvm_run run = {.request_interrupt_window = 1};

    initialise_first(0xe7);
    ioctl_fake_reset();
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(run.request_interrupt_window, 0, "nothing waits");
    irqchip_set_line(&chip, 4, true);
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(run.request_interrupt_window, 1, "it cannot be taken yet");
    cr_expect_eq(ioctl_fake_count(), 0);
    run.ready_for_interrupt_injection = 1;
    irqchip_set_line(&chip, 3, true);
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(ioctl_fake_count(), 1);
    cr_expect_eq(chip.pic.chips[0].in_service, 0x08, "the higher one is taken");
    cr_expect_eq(run.request_interrupt_window, 0, "and holds up the other");
    cr_expect_eq(run.ready_for_interrupt_injection, 0, "one at a time");
    out(0x20, 1, 0x20);
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(run.request_interrupt_window, 1);
    cr_expect_eq(ioctl_fake_count(), 1);
    cr_expect_eq(failure_count, 0);
}

Test(irqchip, hands_in_nothing_that_is_gone)
{
    struct kvm_run run = {.ready_for_interrupt_injection = 1};

    initialise_first(0xef);
    irqchip_set_line(&chip, 4, true);
    out(0x21, 1, 0xff);
    ioctl_fake_reset();
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(ioctl_fake_count(), 0);
    cr_expect_eq(run.ready_for_interrupt_injection, 1);
    atomic_store(&chip.is_raised, true); /* as seen by a look that came too early */
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(ioctl_fake_count(), 0);
    cr_expect_eq(run.request_interrupt_window, 0);
}

Test(irqchip, says_that_an_interrupt_cannot_be_handed_in)
{
    struct kvm_run run = {.ready_for_interrupt_injection = 1};

    initialise_first(0xef);
    irqchip_set_line(&chip, 4, true);
    ioctl_fake_reset();
    ioctl_fake_fail(0, EIO);
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(failure_count, 1);
    cr_expect_str_eq(failure.text, "interrupts: KVM_INTERRUPT: Input/output error");
}

Test(irqchip, answers_at_the_ports_of_both)
{
    out(0x20, 1, 0x11);
    out(0x21, 1, 0x30);
    out(0x21, 1, 0x04);
    out(0x21, 1, 0x01);
    out(0x21, 1, 0x5a);
    out(0xa1, 1, 0xa5);
    cr_expect_eq(in(0x21, 1), 0x5a);
    cr_expect_eq(in(0xa1, 1), 0xa5);
    out(0x4d0, 2, 0xffff);
    cr_expect_eq(in(0x4d0, 2), 0xdef8, "byte by byte");
    cr_expect_eq(in(0x4d1, 1), 0xde);
    out(0x20, 2, 0xc30b); /* OCW3: ISR; and a mask */
    cr_expect_eq(in(0x20, 2), 0xc300);
}

/* --- The timer's line -------------------------------------------------------------------------------------------- */

Test(irqchip, says_when_the_timer_is_heard)
{
    cr_expect_not(irqchip_hears_timer(&chip));
    initialise_first(0xff);
    attend_count = 0; /* between ICW4 and the mask it was open */
    cr_expect_not(irqchip_hears_timer(&chip));
    out(0x21, 1, 0xfe);
    cr_expect(irqchip_hears_timer(&chip));
    cr_expect_eq(attend_count, 1);
    write_entry(2, 0x42);
    cr_expect_eq(attend_count, 1);
    out(0x21, 1, 0xff);
    cr_expect(irqchip_hears_timer(&chip), "through the I/O APIC still");
    write_entry(2, MASKED);
    cr_expect_not(irqchip_hears_timer(&chip));
    cr_expect_eq(attend_count, 2);
    write_entry(0, 0x40);
    cr_expect(irqchip_hears_timer(&chip));
    write_entry(0, MASKED);
    write_entry(4, 0x44);
    cr_expect_not(irqchip_hears_timer(&chip));
}

Test(irqchip, says_when_a_tick_is_taken)
{
    struct kvm_run run = {.ready_for_interrupt_injection = 1};

    initialise_first(0xfc);
    irqchip_set_line(&chip, 1, true);
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(taken_count, 0, "another line's");
    out(0x20, 1, 0x20);
    irqchip_set_line(&chip, 0, true);
    cr_expect_eq(taken_count, 0);
    run.ready_for_interrupt_injection = 1;
    irqchip_enter(&chip, vcpu_fd, &run);
    cr_expect_eq(taken_count, 1);
    initialise_first(0xff);
    write_entry(2, 0x42);
    write_entry(4, 0x44);
    ioctl_fake_reset();
    irqchip_set_line(&chip, 0, false);
    irqchip_set_line(&chip, 0, true);
    cr_expect_eq(ioctl_fake_count(), 2, "KVM is told that the end of this edge is wanted");
    irqchip_set_line(&chip, 0, false);
    irqchip_set_line(&chip, 0, true);
    cr_expect_eq(ioctl_fake_count(), 3);
    cr_expect_not(has_bit(APIC_TMR, 0x42), "and an edge it is");
    irqchip_end(&chip, 0x44);
    cr_expect_eq(taken_count, 1);
    irqchip_end(&chip, 0x42);
    cr_expect_eq(taken_count, 2);
    write_entry(2, MASKED | 0x42);
    irqchip_end(&chip, 0x42);
    cr_expect_eq(taken_count, 2);
}

Test(irqchip, has_the_timers_line_brought_up_to_date_before_it_is_looked_at)
{
    uint32_t number = 0;

    catch_up_count = 0;
    (void)in(0x20, 1);
    cr_expect_eq(catch_up_count, 1);
    out(0xa1, 1, 0xff);
    cr_expect_eq(catch_up_count, 2);
    cr_assert(bus_dispatch(&bus, BUS_MMIO, IOAPIC_BASE + IOAPIC_WINDOW, &number, 4, false));
    cr_expect_eq(catch_up_count, 3);
}

/* --- Threads, and what can go wrong ------------------------------------------------------------------------------- */

static void set_line(void *self)
{
    irqchip_set_line(self, 4, true);
}

static void end_vector(void *self)
{
    irqchip_end(self, 0x45);
}

static void ask_quiet(void *self)
{
    (void)irqchip_is_quiet(self);
}

static void read_port(void *self)
{
    (void)self;
    (void)in(0x21, 1);
}

static void read_trigger(void *self)
{
    (void)self;
    (void)in(0x4d0, 1);
}

static void read_ioapic(void *self)
{
    uint32_t value;

    (void)self;
    cr_assert(bus_dispatch(&bus, BUS_MMIO, IOAPIC_BASE, &value, 4, false));
}

Test(irqchip, is_changed_by_one_thread_at_a_time)
{
    void (*const calls[])(void *) = {set_line, end_vector, ask_quiet, read_trigger, read_port, read_ioapic};

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct waiter waiter;

        is_locked_on_purpose = true;
        pthread_mutex_lock(&chip.lock);
        waiter_start(&waiter, calls[i], &chip);
        cr_expect(waiter_sleeps(&waiter), "call %zu", i);
        pthread_mutex_unlock(&chip.lock);
        waiter_join(&waiter);
    }
}

Test(irqchip, is_refused_where_kvm_has_no_such_controllers)
{
    const struct irqchip_owner owner = {call_back, keep_failure, catch_up, attend, taken, &chip};
    struct irqchip another;
    struct loam_diag diag = {0};

    cr_assert_eq(irqchip_init(&another, vm_fd, &owner, &diag), LOAM_ERROR_SYSTEM, "there are vCPUs already");
    cr_expect_not_null(strstr(diag.text, "KVM_ENABLE_CAP: KVM_CAP_SPLIT_IRQCHIP with 24 routes: "), "%s", diag.text);
}

Test(irqchip, is_refused_a_place_that_is_taken)
{
    struct loam_diag diag = {0};

    cr_assert_eq(irqchip_add(&chip, &bus, &diag), LOAM_ERROR_OVERLAP);
    cr_expect_str_eq(diag.text, "bus: no place for 8259A at 0x20");
}
