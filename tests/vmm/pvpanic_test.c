// SPDX-License-Identifier: Apache-2.0
#include "vmm/pvpanic.h"

#include <criterion/criterion.h>

static struct pvpanic pvpanic;
static uint32_t panic_count;
static uint8_t last;

static void keep_panic(void *self, uint8_t events)
{
    cr_assert_eq(self, &panic_count);
    panic_count++;
    last = events;
}

static void set_up(void)
{
    pvpanic_init(&pvpanic, keep_panic, &panic_count);
}

TestSuite(pvpanic, .init = set_up);

static void out(uint64_t value)
{
    struct bus_access access = {.bytes = 1, .is_write = true, .value = value};

    pvpanic_access(&pvpanic, &access);
}

Test(pvpanic, says_what_it_understands)
{
    struct bus_access access = {.bytes = 1, .value = UINT64_MAX};

    pvpanic_access(&pvpanic, &access);
    cr_assert_eq(access.value, 3);
    cr_assert_eq(panic_count, 0);
}

Test(pvpanic, hears_of_a_panic_and_of_nothing_else)
{
    uint32_t expected = 0;

    for (uint32_t value = 0; value <= 0xff; value++) {
        out(value);
        expected += value & 1;
        cr_assert_eq(panic_count, expected, "0x%x", value);
        cr_assert_eq(last, (value & 1) != 0 ? value : value != 0 ? value - 1 : 0);
    }
}
