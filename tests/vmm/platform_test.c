// SPDX-License-Identifier: Apache-2.0
#include "vmm/platform.h"

#include "loam/types.h"

#include <criterion/criterion.h>
#include <string.h>

static struct bus bus;
static struct platform platform;
static uint32_t reset_count;
static char said[16];

static void count_reset(void *self)
{
    cr_assert_eq(self, &platform);
    reset_count++;
}

static void keep(void *self, const uint8_t *bytes, size_t count)
{
    cr_assert_eq(self, &platform);
    strncat(said, (const char *)bytes, count);
}

/* RAM on both sides of the hole, which two parts share below it. */
static void set_up(void)
{
    const struct loam_plan plan = {.part_count = 3,
                                   .parts = {{.start = {0}, .bytes = 16 * LOAM_MIB},
                                             {.start = {16 * LOAM_MIB}, .bytes = 64 * LOAM_KIB},
                                             {.start = {4 * LOAM_GIB}, .bytes = 128 * LOAM_KIB}},
                                   .hole_start = {16 * LOAM_MIB + 64 * LOAM_KIB}};
    const struct platform_config config = {&plan, 2, count_reset, keep, &platform};

    bus_init(&bus);
    platform_init(&platform, &config);
}

static void tear_down(void)
{
    bus_destroy(&bus);
}

TestSuite(platform, .init = set_up, .fini = tear_down);

static void add_all(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(platform_add(&platform, &bus, &diag), LOAM_OK, "%s", diag.text);
}

static uint8_t in(uint64_t port)
{
    uint8_t value = 0;

    cr_assert(bus_dispatch(&bus, BUS_PIO, port, &value, 1, false), "port 0x%lx", (unsigned long)port);
    return value;
}

static void out(uint64_t port, uint16_t value, uint32_t bytes)
{
    cr_assert(bus_dispatch(&bus, BUS_PIO, port, &value, bytes, true), "port 0x%lx", (unsigned long)port);
}

static uint64_t fw_cfg_item(uint16_t key)
{
    uint64_t value = 0;

    out(FW_CFG_PORT, key, 2);
    for (uint32_t i = 0; i < 8; i++) {
        value |= (uint64_t)in(FW_CFG_PORT + 1) << (8 * i);
    }
    return value;
}

static uint8_t cmos_register(uint8_t number)
{
    out(CMOS_PORT, number, 1);
    return in(CMOS_PORT + 1);
}

Test(platform, tells_by_each_device_of_the_same_memory_and_processors)
{
    add_all();
    cr_expect_eq(fw_cfg_item(FW_CFG_RAM_SIZE), 16 * LOAM_MIB + 192 * LOAM_KIB);
    cr_expect_eq(fw_cfg_item(FW_CFG_NB_CPUS), 2);
    cr_expect_eq(cmos_register(0x34), 1, "64 KiB from 16 MiB on");
    cr_expect_eq(cmos_register(0x5b), 2, "128 KiB from 4 GiB on");
    cr_expect_eq(cmos_register(0x5f), 1);
}

Test(platform, hands_on_resets_and_what_is_said)
{
    add_all();
    cr_expect_eq(in(DEBUG_CONSOLE_PORT), DEBUG_CONSOLE_ANSWER);
    out(DEBUG_CONSOLE_PORT, 'L', 1);
    cr_expect_str_eq(said, "L");
    out(I8042_STATUS_PORT, 0xfe, 1);
    cr_expect_eq(reset_count, 1);
    out(I8042_STATUS_PORT, 0xd1, 1);
    out(I8042_DATA_PORT, 0xfe, 1);
    cr_expect_eq(reset_count, 2, "both ports are of one device");
}

Test(platform, says_which_device_finds_no_place)
{
    struct loam_diag diag = {0};

    cr_assert_eq(bus_add(&bus, &(struct bus_device){"other", BUS_PIO, FW_CFG_PORT + 1, 1, cmos_access, &bus}), LOAM_OK);
    cr_expect_eq(platform_add(&platform, &bus, &diag), LOAM_ERROR_OVERLAP);
    cr_expect_not_null(strstr(diag.text, "no place for fw_cfg at 0x510"), "%s", diag.text);
}
