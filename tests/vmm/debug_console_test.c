// SPDX-License-Identifier: Apache-2.0
#include "vmm/debug_console.h"

#include <criterion/criterion.h>

static struct debug_console console;
static uint8_t said[512];
static size_t said_count;

static void keep(void *self, const uint8_t *bytes, size_t count)
{
    cr_assert_eq(self, said);
    for (size_t i = 0; i < count; i++) {
        said[said_count++] = bytes[i];
    }
}

static void set_up(void)
{
    debug_console_init(&console, keep, said);
}

TestSuite(debug_console, .init = set_up);

Test(debug_console, says_that_it_is_there)
{
    struct bus_access access = {.bytes = 1, .value = UINT64_MAX};

    debug_console_access(&console, &access);
    cr_expect_eq(access.value, 0xe9);
    cr_expect_eq(said_count, 0);
}

Test(debug_console, hands_on_every_byte)
{
    for (uint32_t byte = 0; byte <= 0xff; byte++) {
        struct bus_access access = {.bytes = 1, .is_write = true, .value = byte};

        debug_console_access(&console, &access);
    }
    cr_assert_eq(said_count, 256);
    for (uint32_t byte = 0; byte <= 0xff; byte++) {
        cr_expect_eq(said[byte], byte);
    }
}
