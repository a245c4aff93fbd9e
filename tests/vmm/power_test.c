// SPDX-License-Identifier: Apache-2.0
#include "vmm/power.h"

#include "tests/support/waiter.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

enum { STATUS = 0, ENABLE = 2, CONTROL = 4, SLEEP_CONTROL = 8, SLEEP_STATUS = 12 };

static struct power power;
static bool level;
static uint32_t change_count, off_count;

static void set_line(void *controller, unsigned int number, bool new_level)
{
    cr_assert_eq(controller, &level);
    cr_assert_eq(number, 9);
    level = new_level;
    change_count++;
}

/* No lock is held: the owner may do as it likes. */
static void turn_off(void *self)
{
    cr_assert_eq(self, &off_count);
    cr_assert_eq(pthread_mutex_trylock(&power.lock), 0);
    pthread_mutex_unlock(&power.lock);
    off_count++;
}

static void set_up(void)
{
    const struct irq_line irq = {.set = set_line, .controller = &level, .number = 9};

    power_init(&power, irq, turn_off, &off_count);
}

static void tear_down(void)
{
    power_destroy(&power);
}

TestSuite(power, .init = set_up, .fini = tear_down, .timeout = 60);

static void out(uint64_t offset, uint32_t bytes, uint64_t value)
{
    struct bus_access access = {.offset = offset, .bytes = bytes, .is_write = true, .value = value};

    power_access(&power, &access);
}

static uint64_t in(uint64_t offset, uint32_t bytes)
{
    struct bus_access access = {.offset = offset, .bytes = bytes, .value = UINT64_MAX};

    power_access(&power, &access);
    return access.value;
}

Test(power, begins_with_nothing_but_its_mode)
{
    cr_expect_eq(in(STATUS, 2), 0);
    cr_expect_eq(in(ENABLE, 2), 0);
    cr_expect_eq(in(CONTROL, 2), 1, "SCI_EN");
    cr_expect_eq(in(0, 8), UINT64_C(1) << 32);
    cr_expect_eq(in(8, 8), 0);
    cr_expect_eq(change_count, 0);
}

Test(power, raises_its_line_while_a_press_is_enabled_and_not_cleared)
{
    cr_expect_not(power_press(&power), "nobody listens");
    cr_expect_eq(in(STATUS, 2), 0x100);
    cr_expect_not(level);
    out(ENABLE, 2, 0x100);
    cr_expect(level);
    out(ENABLE, 2, 0);
    cr_expect_not(level);
    out(ENABLE, 2, 0x100);
    out(STATUS, 2, 0xfeff);
    cr_expect(level, "a 0 clears nothing, nor do other bits");
    cr_expect_eq(in(STATUS, 2), 0x100);
    out(STATUS, 2, 0x100);
    cr_expect_not(level);
    cr_expect_eq(in(STATUS, 2), 0);
    cr_expect_eq(change_count, 4);
    cr_expect(power_press(&power));
    cr_expect(level);
    cr_expect(power_press(&power));
    cr_expect_eq(change_count, 5, "a line that is high is not raised again");
}

Test(power, clears_by_bytes_and_by_all_at_once)
{
    out(ENABLE + 1, 1, 0x01);
    cr_expect(power_press(&power));
    cr_expect_eq(in(STATUS + 1, 1), 0x01);
    out(STATUS, 1, 0xff);
    cr_expect_eq(in(STATUS, 2), 0x100);
    out(STATUS + 1, 1, 0x01);
    cr_expect_eq(in(STATUS, 2), 0);
    cr_expect_not(level);
    power_press(&power);
    out(STATUS, 4, 0x01000100);
    cr_expect_eq(in(STATUS, 4), 0x01000000, "cleared, and enabled still");
    power_press(&power);
    out(STATUS, 4, 0x00000100);
    cr_expect_eq(in(STATUS, 4), 0);
    power_press(&power);
    out(STATUS + 1, 2, 0xff01);
    cr_expect_eq(in(STATUS, 4), 0x00210000, "across two registers");
}

Test(power, keeps_what_a_driver_enables_of_events_that_never_come)
{
    out(ENABLE, 2, 0xffff);
    cr_expect_eq(in(ENABLE, 2), 0x0721);
    cr_expect_eq(in(STATUS, 2), 0);
    cr_expect_not(level);
}

Test(power, turns_off_by_the_type_0_alone)
{
    for (uint32_t type = 0; type < 8; type++) {
        out(CONTROL, 2, type << 10);
        cr_expect_eq(off_count, 0, "without SLP_EN");
        cr_expect_eq(in(CONTROL, 2), type << 10 | 1);
    }
    for (uint32_t type = 1; type < 8; type++) {
        out(CONTROL, 2, 0x2000 | type << 10);
        cr_expect_eq(off_count, 0, "type %" PRIu32, type);
        cr_expect_eq(in(CONTROL, 2), type << 10 | 1, "SLP_EN reads as 0");
    }
    out(CONTROL, 2, 0x2000);
    cr_expect_eq(off_count, 1);
    cr_expect_eq(in(CONTROL, 2), 1);
}

Test(power, turns_off_by_accesses_of_each_size)
{
    out(CONTROL, 1, 0x20);
    cr_expect_eq(off_count, 0, "the low byte has no SLP_EN");
    out(CONTROL + 1, 1, 0x20);
    cr_expect_eq(off_count, 1);
    out(CONTROL, 4, 0xffff2001);
    cr_expect_eq(off_count, 2);
    out(ENABLE, 4, 0x20000100);
    cr_expect_eq(off_count, 3);
    cr_expect_eq(in(ENABLE, 2), 0x100);
    out(0, 8, UINT64_C(0x200000000000));
    cr_expect_eq(off_count, 4);
    out(CONTROL + 2, 2, 0x2020);
    cr_expect_eq(off_count, 4, "reserved");
    cr_expect_eq(in(CONTROL + 2, 2), 0);
}

/* Section 4.8.3.7: SLP_TYP in bits 2 to 4, SLP_EN in bit 5. */
Test(power, turns_off_by_the_sleep_control_register_too)
{
    for (uint32_t type = 1; type < 8; type++) {
        out(SLEEP_CONTROL, 1, type << 2 | 0xc3);
        cr_expect_eq(in(SLEEP_CONTROL, 1), type << 2);
        out(SLEEP_CONTROL, 1, 0x20 | type << 2);
        cr_expect_eq(in(SLEEP_CONTROL, 1), type << 2, "SLP_EN reads as 0");
    }
    cr_expect_eq(in(CONTROL, 2), 1, "the other type is as it was");
    out(SLEEP_STATUS, 1, 0xff);
    cr_expect_eq(in(SLEEP_STATUS, 1), 0, "it never wakes");
    out(SLEEP_CONTROL + 1, 1, 0x20);
    out(SLEEP_CONTROL - 1, 1, 0x20);
    cr_expect_eq(off_count, 0);
    out(SLEEP_CONTROL, 1, 0x20);
    cr_expect_eq(off_count, 1);
    out(CONTROL + 2, 4, 0x00200000);
    cr_expect_eq(off_count, 2, "across both halves");
    out(CONTROL + 1, 4, 0x20000020);
    cr_expect_eq(off_count, 3, "both at once");
}

/* The registers byte by byte, as the specification has them. */
struct model {
    uint8_t bytes[16];
    uint32_t off_count;
};

/* Returns whether it turns the machine off. */
static bool model_write(struct model *model, uint32_t at, uint8_t value)
{
    static const uint8_t writable[16] = {0, 0, 0x21, 0x07, 0, 0x1c, 0, 0, 0x1c};

    if (at < 2) {
        model->bytes[at] = (uint8_t)(model->bytes[at] & ~value);
    } else {
        model->bytes[at] = (uint8_t)((model->bytes[at] & ~writable[at]) | (value & writable[at]));
    }
    return (at == 5 || at == 8) && (value & 0x3c) == 0x20;
}

Test(power, agrees_with_a_model_of_bytes)
{
    const uint64_t seed = 0x90e7;
    struct random random = {seed};
    struct model model = {.bytes = {0, 0, 0, 0, 1}};

    for (uint32_t i = 0; i < 100000; i++) {
        uint32_t bytes = 1u << random_below(&random, 4), offset = random_below(&random, 17 - bytes);
        uint64_t value = random_u64(&random), expected = 0;
        bool is_off = false;

        if (random_one_in(&random, 8)) {
            cr_assert_eq(power_press(&power), (model.bytes[3] & 1) != 0);
            model.bytes[1] |= 1;
        } else if (random_one_in(&random, 2)) {
            out(offset, bytes, value);
            for (uint32_t b = 0; b < bytes; b++) {
                is_off = model_write(&model, offset + b, (uint8_t)(value >> 8 * b)) || is_off;
            }
            model.off_count += is_off;
        }
        memcpy(&expected, model.bytes + offset, bytes);
        cr_assert_eq(in(offset, bytes), expected, "step %" PRIu32 " of seed 0x%" PRIx64, i, seed);
        cr_assert_eq(off_count, model.off_count);
        cr_assert_eq(level, (model.bytes[1] & model.bytes[3] & 1) != 0);
    }
    cr_assert_gt(off_count, 0);
}

static void press(void *self)
{
    power_press(self);
}

static void clear(void *self)
{
    (void)self;
    out(STATUS, 2, 0x100);
}

Test(power, is_used_by_one_at_a_time)
{
    void (*const calls[])(void *) = {press, clear};
    struct waiter waiter;

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        pthread_mutex_lock(&power.lock);
        waiter_start(&waiter, calls[i], &power);
        cr_expect(waiter_sleeps(&waiter));
        pthread_mutex_unlock(&power.lock);
        waiter_join(&waiter);
    }
}
