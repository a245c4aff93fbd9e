// SPDX-License-Identifier: Apache-2.0
/* What the data sheet says of an 82093AA (290566), and ICH9's of its successor. */
#include "vmm/ioapic.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#define SEED UINT64_C(82093)

#define MASKED     0x10000u
#define LEVEL      0x8000u
#define REMOTE_IRR 0x4000u
#define LOW_ACTIVE 0x2000u
#define LOGICAL    0x800u
#define LOWEST     0x100u

static struct ioapic ioapic;

static void set_up(void)
{
    ioapic_reset(&ioapic);
}

TestSuite(ioapic, .init = set_up, .timeout = 60);

static void write_register(uint32_t number, uint32_t value)
{
    ioapic_write(&ioapic, IOAPIC_SELECT, number);
    ioapic_write(&ioapic, IOAPIC_WINDOW, value);
}

static uint32_t read_register(uint32_t number)
{
    ioapic_write(&ioapic, IOAPIC_SELECT, number);
    return ioapic_read(&ioapic, IOAPIC_WINDOW);
}

static void write_entry(uint32_t pin, uint32_t low, uint32_t high)
{
    write_register(0x11 + 2 * pin, high);
    write_register(0x10 + 2 * pin, low);
}

static uint32_t read_low(uint32_t pin)
{
    return read_register(0x10 + 2 * pin);
}

static void expect_nothing(const char *why)
{
    struct ioapic_message message;

    cr_expect_not(ioapic_take(&ioapic, &message), "%s", why);
}

static void expect_message(unsigned int pin, uint32_t address, uint32_t data, bool is_level)
{
    struct ioapic_message message = {0};

    cr_assert(ioapic_take(&ioapic, &message), "pin %u: nothing is sent", pin);
    cr_expect_eq(message.pin, pin);
    cr_expect_eq(message.address, address, "0x%" PRIx32, message.address);
    cr_expect_eq(message.data, data, "0x%" PRIx32, message.data);
    cr_expect_eq(message.is_level, is_level);
    expect_nothing("once");
}

static void pulse(unsigned int pin)
{
    ioapic_set_line(&ioapic, pin, true);
    ioapic_set_line(&ioapic, pin, false);
}

/* --- Registers -------------------------------------------------------------------------------------------------- */

Test(ioapic, says_what_it_is)
{
    cr_expect_eq(read_register(0), 0);
    cr_expect_eq(read_register(1), 0x00170020, "24 entries, version 0x20");
    write_register(0, 0xffffffff);
    cr_expect_eq(read_register(0), 0x0f000000);
    cr_expect_eq(read_register(2), 0x0f000000);
    write_register(1, 0xffffffff);
    write_register(2, 0);
    cr_expect_eq(read_register(1), 0x00170020);
    cr_expect_eq(read_register(2), 0x0f000000);
    cr_expect_eq(ioapic_read(&ioapic, IOAPIC_SELECT), 2);
    ioapic_write(&ioapic, IOAPIC_SELECT, 0x12345610);
    cr_expect_eq(ioapic_read(&ioapic, IOAPIC_SELECT), 0x10);
    cr_expect_eq(ioapic_read(&ioapic, IOAPIC_END), 0);
    cr_expect_eq(ioapic_read(&ioapic, 0x20), 0);
}

Test(ioapic, masks_every_entry_at_first)
{
    for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
        cr_expect_eq(read_low(pin), MASKED);
        cr_expect_eq(read_register(0x11 + 2 * pin), 0);
        cr_expect_not(ioapic_is_open(&ioapic, pin));
        ioapic_set_line(&ioapic, pin, true);
    }
    expect_nothing("masked");
}

Test(ioapic, keeps_what_is_written_but_for_what_it_says_itself)
{
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        write_entry(pin, 0xffffffff, 0xffffffff);
        cr_expect_eq(read_low(pin), 0x0001afff);
        cr_expect_eq(read_register(0x11 + 2 * pin), 0xff000000);
        write_entry(pin, 0, pin << 24);
        cr_expect_eq(read_low(pin), 0);
    }
    for (uint32_t number = 0x40; number < 0x100; number++) {
        write_register(number, 0xffffffff);
        cr_expect_eq(read_register(number), 0);
    }
    for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
        cr_expect_eq(read_register(0x11 + 2 * pin), pin << 24);
    }
}

/* --- Edges ------------------------------------------------------------------------------------------------------ */

Test(ioapic, sends_an_edge_once)
{
    write_entry(4, 0x34, 0x05000000);
    cr_expect(ioapic_is_open(&ioapic, 4));
    ioapic_set_line(&ioapic, 4, true);
    expect_message(4, 0xfee05000, 0x4034, false);
    cr_expect_eq(read_low(4), 0x34, "an edge has no remote IRR");
    ioapic_set_line(&ioapic, 4, true);
    expect_nothing("no edge");
    ioapic_end(&ioapic, 0x34);
    expect_nothing("no level");
    ioapic_set_line(&ioapic, 4, false);
    expect_nothing("the end of an assertion");
    pulse(4);
    expect_message(4, 0xfee05000, 0x4034, false);
}

Test(ioapic, loses_an_edge_that_comes_while_it_is_masked)
{
    write_entry(4, MASKED | 0x34, 0);
    ioapic_set_line(&ioapic, 4, true);
    write_entry(4, 0x34, 0);
    expect_nothing("lost");
    pulse(4);
    expect_nothing("it is asserted already");
    pulse(4);
    expect_message(4, 0xfee00000, 0x4034, false);
}

Test(ioapic, hands_on_destinations_and_modes)
{
    write_entry(1, LOGICAL | LOWEST | 0x41, 0xff000000);
    pulse(1);
    expect_message(1, 0xfeeff004, 0x4141, false);
    for (uint32_t mode = 0; mode < 8; mode++) {
        bool is_known = mode != 3 && mode != 6 && mode != 7;

        write_entry(2, mode << 8 | LEVEL | 0x50, 0);
        cr_expect_eq(ioapic_is_open(&ioapic, 2), is_known, "mode %" PRIu32, mode);
        cr_expect_eq(ioapic_message(&ioapic, 2).is_level, mode < 2, "mode %" PRIu32, mode);
        pulse(2);
        if (is_known && mode >= 2) {
            expect_message(2, 0xfee00000, 0x4050 | mode << 8, false);
        }
        expect_nothing("a mode that is none, or no line that is asserted");
    }
}

/* --- Levels ----------------------------------------------------------------------------------------------------- */

Test(ioapic, sends_a_level_again_when_it_was_ended_and_is_asserted_still)
{
    write_entry(5, LEVEL | 0x45, 0x01000000);
    ioapic_set_line(&ioapic, 5, true);
    expect_message(5, 0xfee01000, 0xc045, true);
    cr_expect_eq(read_low(5), LEVEL | REMOTE_IRR | 0x45);
    pulse(5);
    ioapic_set_line(&ioapic, 5, true);
    expect_nothing("it is not ended");
    ioapic_end(&ioapic, 0x46);
    expect_nothing("another's");
    ioapic_end(&ioapic, 0x45);
    cr_expect_eq(read_low(5), LEVEL | 0x45);
    expect_message(5, 0xfee01000, 0xc045, true);
    ioapic_set_line(&ioapic, 5, false);
    ioapic_end(&ioapic, 0x45);
    expect_nothing("it is asserted no more");
    cr_expect_eq(read_low(5), LEVEL | 0x45);
    ioapic_set_line(&ioapic, 5, true);
    expect_message(5, 0xfee01000, 0xc045, true);
}

Test(ioapic, sends_a_level_that_was_masked)
{
    write_entry(5, LEVEL | MASKED | 0x45, 0);
    ioapic_set_line(&ioapic, 5, true);
    expect_nothing("masked");
    write_entry(5, LEVEL | 0x45, 0);
    expect_message(5, 0xfee00000, 0xc045, true);
    write_entry(5, LEVEL | MASKED | 0x45, 0);
    ioapic_end(&ioapic, 0x45);
    expect_nothing("masked meanwhile");
    write_entry(5, LEVEL | 0x45, 0);
    expect_message(5, 0xfee00000, 0xc045, true);
}

Test(ioapic, ends_a_level_through_its_register)
{
    write_entry(5, LEVEL | 0x45, 0);
    ioapic_set_line(&ioapic, 5, true);
    expect_message(5, 0xfee00000, 0xc045, true);
    ioapic_set_line(&ioapic, 5, false);
    ioapic_write(&ioapic, IOAPIC_END, 0x46);
    cr_expect_eq(read_low(5), LEVEL | REMOTE_IRR | 0x45);
    ioapic_write(&ioapic, IOAPIC_END, 0x45);
    cr_expect_eq(read_low(5), LEVEL | 0x45);
}

/* What drivers do without that register: Linux's __eoi_ioapic_pin. */
Test(ioapic, ends_a_level_that_becomes_an_edge)
{
    write_entry(5, LEVEL | 0x45, 0);
    ioapic_set_line(&ioapic, 5, true);
    expect_message(5, 0xfee00000, 0xc045, true);
    ioapic_set_line(&ioapic, 5, false);
    write_register(0x1a, MASKED | 0x45);
    cr_expect_eq(read_low(5), MASKED | 0x45);
    write_register(0x1a, LEVEL | 0x45);
    cr_expect_eq(read_low(5), LEVEL | 0x45);
    ioapic_set_line(&ioapic, 5, true);
    expect_message(5, 0xfee00000, 0xc045, true);
}

Test(ioapic, ends_all_pins_that_share_a_vector)
{
    struct ioapic_message message;

    write_entry(5, LEVEL | 0x45, 0);
    write_entry(6, LEVEL | 0x45, 0);
    ioapic_set_line(&ioapic, 5, true);
    ioapic_set_line(&ioapic, 6, true);
    cr_assert(ioapic_take(&ioapic, &message));
    cr_assert_eq(message.pin, 5);
    expect_message(6, 0xfee00000, 0xc045, true);
    ioapic_set_line(&ioapic, 5, false);
    ioapic_end(&ioapic, 0x45);
    expect_message(6, 0xfee00000, 0xc045, true);
}

/* A guest that was told of a line that is active when it is low hears of it all the same. */
Test(ioapic, has_no_ear_for_polarity)
{
    struct ioapic_message message;

    write_entry(5, LEVEL | LOW_ACTIVE | 0x45, 0);
    expect_nothing("it is not asserted");
    ioapic_set_line(&ioapic, 5, true);
    expect_message(5, 0xfee00000, 0xc045, true);
    write_entry(6, LOW_ACTIVE | 0x46, 0);
    ioapic_set_line(&ioapic, 6, true);
    expect_message(6, 0xfee00000, 0x4046, false);
    ioapic_set_line(&ioapic, 6, false);
    cr_expect_not(ioapic_take(&ioapic, &message));
}

Test(ioapic, says_what_a_pin_would_send)
{
    struct ioapic_message message;

    write_entry(9, LEVEL | MASKED | LOGICAL | 0x49, 0x03000000);
    message = ioapic_message(&ioapic, 9);
    cr_expect(message.is_level);
    cr_expect_eq(message.pin, 9);
    cr_expect_eq(message.address, 0xfee03004);
    cr_expect_eq(message.data, 0x4049 | IOAPIC_MESSAGE_LEVEL);
    write_entry(9, 0x49, 0x03000000);
    cr_expect_not(ioapic_message(&ioapic, 9).is_level);
}

Test(ioapic, is_quiet_while_it_sends_interrupts_alone)
{
    cr_expect(ioapic_is_quiet(&ioapic));
    for (uint32_t mode = 0; mode < 8; mode++) {
        write_entry(23, MASKED | mode << 8, 0);
        cr_expect(ioapic_is_quiet(&ioapic), "masked, mode %" PRIu32, mode);
        write_entry(23, mode << 8, 0);
        cr_expect_eq(ioapic_is_quiet(&ioapic), mode != 2 && mode != 4 && mode != 5, "mode %" PRIu32, mode);
    }
}

Test(ioapic, has_no_more_pins_than_it_has)
{
    ioapic_set_line(&ioapic, IOAPIC_PINS, true);
    ioapic_set_line(&ioapic, UINT32_MAX, true);
    cr_expect_eq(ioapic.lines, 0);
    cr_expect_not(ioapic_is_open(&ioapic, IOAPIC_PINS));
    cr_expect_not(ioapic_is_open(&ioapic, UINT32_MAX));
}

/* --- Anything at all -------------------------------------------------------------------------------------------- */

/*
 * Against the rules told a second time, a pin at a time: a level is out if and only if it was sent and not ended; nothing is
 * sent that is masked; what is asserted, open and not out is sent at once.
 */
Test(ioapic, leaves_no_level_behind)
{
    struct random random = {SEED};

    for (uint32_t i = 0; i < 200000; i++) {
        const unsigned int pin = random_below(&random, IOAPIC_PINS);
        const uint32_t value = (uint32_t)random_u64(&random);
        struct ioapic_message message;

        switch (random_below(&random, 5)) {
        case 0:
            ioapic_set_line(&ioapic, pin, (value & 1) != 0);
            break;
        case 1:
            ioapic_end(&ioapic, (uint8_t)value);
            break;
        case 2:
            ioapic_write(&ioapic, random_below(&random, 0x50), value);
            break;
        default:
            write_register(random_below(&random, 0x42), value);
            break;
        }
        for (uint32_t count = 0; ioapic_take(&ioapic, &message); count++) {
            uint64_t entry = ioapic.entries[message.pin];

            cr_assert_lt(count, IOAPIC_PINS, "round %" PRIu32 " of seed %" PRIu64, i, SEED);
            cr_assert_eq(entry & MASKED, 0);
            cr_assert_eq(message.data & 0xff, entry & 0xff);
        }
        for (unsigned int k = 0; k < IOAPIC_PINS; k++) {
            bool is_level = (ioapic.entries[k] & LEVEL) != 0 && (ioapic.entries[k] >> 8 & 7) < 2;
            bool is_out = (ioapic.entries[k] & REMOTE_IRR) != 0;

            cr_assert(is_level || !is_out);
            cr_assert(!is_level || is_out || (ioapic.lines >> k & 1) == 0 || (ioapic.entries[k] & MASKED) != 0);
        }
    }
}

/* A state that somebody else wrote. */
Test(ioapic, stays_within_itself_whatever_its_state)
{
    struct random random = {SEED};

    for (uint32_t i = 0; i < 20000; i++) {
        struct ioapic_message message;

        for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++) {
            ioapic.entries[pin] = random_u64(&random);
        }
        ioapic.lines = (uint32_t)random_u64(&random);
        ioapic.edges = (uint32_t)random_u64(&random);
        ioapic.selected = (uint8_t)random_u64(&random);
        ioapic_write(&ioapic, IOAPIC_WINDOW, i);
        (void)ioapic_read(&ioapic, IOAPIC_WINDOW);
        for (uint32_t count = 0; ioapic_take(&ioapic, &message); count++) {
            cr_assert_lt(count, IOAPIC_PINS);
        }
    }
}
