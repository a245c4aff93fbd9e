// SPDX-License-Identifier: Apache-2.0
#include "vmm/fw_cfg.h"

#include <criterion/criterion.h>
#include <inttypes.h>

static struct fw_cfg fw_cfg;

static void set_up(void)
{
    fw_cfg_init(&fw_cfg, UINT64_C(0x123456789a), 3);
}

TestSuite(fw_cfg, .init = set_up);

static void access_at(uint64_t offset, uint32_t bytes, bool is_write, uint64_t *value)
{
    struct bus_access access = {.offset = offset, .bytes = bytes, .is_write = is_write, .value = *value};

    fw_cfg_access(&fw_cfg, &access);
    *value = access.value;
}

static void choose(uint16_t key)
{
    uint64_t value = key;

    access_at(0, 2, true, &value);
}

static uint64_t in(void)
{
    uint64_t value = UINT64_MAX;

    access_at(1, 1, false, &value);
    return value;
}

static uint64_t item(uint16_t key, uint32_t bytes)
{
    uint64_t value = 0;

    choose(key);
    for (uint32_t i = 0; i < bytes; i++) {
        value |= in() << (8 * i);
    }
    return value;
}

Test(fw_cfg, tells_what_it_knows)
{
    cr_expect_eq(item(FW_CFG_SIGNATURE, 4), 'Q' | 'E' << 8 | 'M' << 16 | 'U' << 24);
    cr_expect_eq(item(FW_CFG_ID, 4), 1);
    cr_expect_eq(item(FW_CFG_RAM_SIZE, 8), UINT64_C(0x123456789a));
    cr_expect_eq(item(FW_CFG_NB_CPUS, 2), 3);
    cr_expect_eq(item(FW_CFG_MAX_CPUS, 2), 3);
    cr_expect_eq(item(FW_CFG_FILE_DIRECTORY, 4), 0);
}

Test(fw_cfg, gives_zeros_after_an_item_and_of_none)
{
    cr_expect_eq(item(FW_CFG_RAM_SIZE, 8), UINT64_C(0x123456789a));
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert_eq(in(), 0);
    }
    cr_expect_eq(item(FW_CFG_SIGNATURE, 8), item(FW_CFG_SIGNATURE, 4));
    for (uint32_t key = 0; key <= UINT16_MAX; key++) {
        bool is_item = key == FW_CFG_SIGNATURE || key == FW_CFG_ID || key == FW_CFG_RAM_SIZE || key == FW_CFG_NB_CPUS ||
                       key == FW_CFG_MAX_CPUS;

        cr_assert_eq(item((uint16_t)key, 8) != 0, is_item, "key 0x%x", key);
    }
}

Test(fw_cfg, begins_anew_with_each_choice)
{
    choose(FW_CFG_SIGNATURE);
    cr_expect_eq(in(), 'Q');
    cr_expect_eq(in(), 'E');
    choose(FW_CFG_SIGNATURE);
    cr_expect_eq(in(), 'Q');
}

/* Of other widths and at the other port: nothing is chosen, nothing is read, and the next byte waits. */
Test(fw_cfg, passes_over_other_accesses)
{
    uint64_t value = FW_CFG_RAM_SIZE;

    choose(FW_CFG_SIGNATURE);
    access_at(0, 1, true, &value);
    access_at(1, 1, true, &value);
    for (uint32_t bytes = 1; bytes <= 2; bytes++) {
        value = UINT64_MAX;
        access_at(0, bytes, false, &value);
        cr_expect_eq(value, 0);
    }
    cr_expect_eq(in(), 'Q');
}

Test(fw_cfg, counts_no_more_processors_than_it_can_say)
{
    fw_cfg_init(&fw_cfg, 0, 1u << 20);
    cr_expect_eq(item(FW_CFG_NB_CPUS, 2), UINT16_MAX);
}
