// SPDX-License-Identifier: Apache-2.0
#include "vmm/i8042.h"

#include <criterion/criterion.h>

static struct i8042 i8042;
static uint32_t reset_count;

static void count_reset(void *self)
{
    cr_assert_eq(self, &reset_count);
    reset_count++;
}

static void set_up(void)
{
    i8042_init(&i8042, count_reset, &reset_count);
}

TestSuite(i8042, .init = set_up);

static uint64_t in(bus_access_fn *port)
{
    struct bus_access access = {.bytes = 1, .value = UINT64_MAX};

    port(&i8042, &access);
    return access.value;
}

static void out(bus_access_fn *port, uint8_t value)
{
    struct bus_access access = {.bytes = 1, .is_write = true, .value = value};

    port(&i8042, &access);
}

Test(i8042, has_always_something_to_read_and_never_waits)
{
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert_eq(in(i8042_status_access), 0xfd);
        cr_assert_eq(in(i8042_data_access), 0xff);
    }
}

Test(i8042, resets_for_the_commands_that_pulse_its_line)
{
    uint32_t expected = 0;

    for (uint32_t command = 0; command <= 0xff; command++) {
        out(i8042_status_access, (uint8_t)command);
        expected += command >= 0xf0 && command % 2 == 0;
        cr_assert_eq(reset_count, expected, "command 0x%x", command);
    }
    cr_assert_eq(expected, 8);
}

Test(i8042, resets_by_its_output_port)
{
    out(i8042_data_access, 0xfe);
    cr_expect_eq(reset_count, 0, "nobody asked for the output port");
    out(i8042_status_access, 0xd1);
    out(i8042_data_access, 0xdf);
    cr_expect_eq(reset_count, 0, "A20 is no reset");
    out(i8042_data_access, 0xfe);
    cr_expect_eq(reset_count, 0, "one byte a command");
    out(i8042_status_access, 0xd1);
    out(i8042_status_access, 0x20);
    out(i8042_data_access, 0xfe);
    cr_expect_eq(reset_count, 0, "another command came between");
    out(i8042_status_access, 0xd1);
    out(i8042_data_access, 0xfe);
    cr_expect_eq(reset_count, 1);
}
