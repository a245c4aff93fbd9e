// SPDX-License-Identifier: Apache-2.0
#include "vmm/cmos.h"

#include "loam/types.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <time.h>

#define SECOND      INT64_C(1000000000)
#define MICROSECOND INT64_C(1000)

enum { A = 0x0a, B = 0x0b, C = 0x0c, D = 0x0d };

enum { BINARY = 0x04, HOURS_24 = 0x02, SET = 0x80 };

static struct cmos cmos;
static int64_t clock_now;

static int64_t test_clock(void)
{
    return clock_now;
}

static void make(uint64_t low_bytes, uint64_t high_bytes, uint32_t vcpu_count)
{
    const struct cmos_config config = {low_bytes, high_bytes, vcpu_count, test_clock};

    cmos_init(&cmos, &config);
}

static void set_up(void)
{
    clock_now = SECOND * 1709210096; /* 2024-02-29 12:34:56, a Thursday */
    make(64 * LOAM_MIB, 0, 1);
}

TestSuite(cmos, .init = set_up);

static void out(uint64_t port, uint8_t value)
{
    struct bus_access access = {.offset = port, .bytes = 1, .is_write = true, .value = value};

    cmos_access(&cmos, &access);
}

static uint64_t in(uint64_t port)
{
    struct bus_access access = {.offset = port, .bytes = 1, .value = UINT64_MAX};

    cmos_access(&cmos, &access);
    return access.value;
}

static uint8_t get(uint8_t number)
{
    uint64_t value;

    out(0, number);
    value = in(1);
    cr_assert_leq(value, UINT8_MAX);
    return (uint8_t)value;
}

static void put(uint8_t number, uint8_t value)
{
    out(0, number);
    out(1, value);
}

/* --- Time ------------------------------------------------------------------------------------------------------- */

static void expect_time(const uint8_t expected[8])
{
    static const uint8_t numbers[8] = {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CMOS_CENTURY};

    for (uint32_t i = 0; i < 8; i++) {
        cr_expect_eq(get(numbers[i]), expected[i], "register 0x%x: 0x%x, 0x%x wanted", numbers[i], get(numbers[i]),
                     expected[i]);
    }
}

Test(cmos, tells_the_time_as_firmware_has_it)
{
    cr_expect_eq(get(A), 0x26);
    cr_expect_eq(get(B), HOURS_24);
    cr_expect_eq(get(D), 0x80);
    expect_time((const uint8_t[]){0x56, 0x34, 0x12, 5, 0x29, 0x02, 0x24, 0x20});
}

Test(cmos, tells_it_in_binary_and_with_12_hours)
{
    put(B, BINARY | HOURS_24);
    expect_time((const uint8_t[]){56, 34, 12, 5, 29, 2, 24, 20});
    put(B, BINARY);
    expect_time((const uint8_t[]){56, 34, 0x80 | 12, 5, 29, 2, 24, 20});
    put(B, 0);
    expect_time((const uint8_t[]){0x56, 0x34, 0x92, 5, 0x29, 0x02, 0x24, 0x20});
    for (int hour = 0; hour < 24; hour++) {
        const int expected = hour == 0 ? 12 : hour <= 12 ? hour : hour - 12;

        cr_expect_eq(cmos_time_register(4, hour * 3600, BINARY), expected | (hour >= 12 ? 0x80 : 0), "hour %d", hour);
    }
}

/* Against the C library, at both ends of days, of years and of the range, and at random. */
Test(cmos, agrees_with_the_calendar)
{
    const int64_t end = INT64_C(253402300800); /* the year 10000 */
    struct random random = {20240602};

    for (uint32_t round = 0; round < 2000; round++) {
        const int64_t any = (int64_t)(((uint64_t)random_below(&random, UINT32_MAX) << 16) % (uint64_t)end);
        const int64_t day = any / 86400 * 86400;
        const int64_t seconds[] = {any, day, day > 0 ? day - 1 : 0, round, end - 1 - round};

        for (uint32_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++) {
            const time_t time = (time_t)seconds[i];
            const uint8_t status = BINARY | HOURS_24;
            struct tm tm;

            gmtime_r(&time, &tm);
            cr_assert(cmos_time_register(0, time, status) == tm.tm_sec &&
                          cmos_time_register(2, time, status) == tm.tm_min &&
                          cmos_time_register(4, time, status) == tm.tm_hour &&
                          cmos_time_register(6, time, status) == tm.tm_wday + 1 &&
                          cmos_time_register(7, time, status) == tm.tm_mday &&
                          cmos_time_register(8, time, status) == tm.tm_mon + 1 &&
                          cmos_time_register(9, time, status) + 100 * cmos_time_register(CMOS_CENTURY, time, status) ==
                              tm.tm_year + 1900,
                      "second %" PRId64, seconds[i]);
        }
    }
}

/* Who sees the bit clear has 244 us in which the time does not change. */
Test(cmos, says_that_an_update_is_near_in_the_last_244_microseconds)
{
    const int64_t start = clock_now;

    for (int64_t at = 0; at < SECOND; at += at < 999700 * MICROSECOND ? 500 * MICROSECOND : MICROSECOND) {
        clock_now = start + at;
        cr_assert_eq(get(A), at >= SECOND - 244 * MICROSECOND ? 0xa6 : 0x26, "%" PRId64 " ns", at);
        cr_assert_eq(get(0), 0x56);
    }
    clock_now = start + SECOND;
    cr_expect_eq(get(A), 0x26);
    cr_expect_eq(get(0), 0x57);
}

Test(cmos, keeps_the_time_while_it_is_being_set)
{
    put(B, SET | HOURS_24);
    clock_now += 4 * SECOND + 999900 * MICROSECOND;
    cr_expect_eq(get(0), 0x56);
    cr_expect_eq(get(A), 0x26, "no update is near");
    cr_expect_eq(get(C), 0, "and there was none");
    put(B, SET | BINARY | HOURS_24);
    cr_expect_eq(get(0), 56, "the same time still");
    put(B, HOURS_24);
    cr_expect_eq(get(A), 0xa6);
    cr_expect_eq(get(0), 0x00, "it went on meanwhile");
    cr_expect_eq(get(2), 0x35);
}

Test(cmos, says_once_that_a_second_has_begun)
{
    cr_expect_eq(get(C), 0);
    clock_now += SECOND;
    cr_expect_eq(get(C), 0x10);
    cr_expect_eq(get(C), 0);
}

Test(cmos, cannot_be_set)
{
    static const uint8_t numbers[] = {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, CMOS_CENTURY, C, D};

    put(B, SET | HOURS_24);
    for (uint32_t i = 0; i < sizeof numbers; i++) {
        const uint8_t before = get(numbers[i]);

        put(numbers[i], (uint8_t)~before);
        cr_expect_eq(get(numbers[i]), before, "register 0x%x", numbers[i]);
    }
    put(A, 0xff);
    cr_expect_eq(get(A), 0x7f, "whether an update is near is for the clock to say");
}

Test(cmos, has_the_hosts_time)
{
    const struct cmos_config config = {.low_bytes = LOAM_MIB, .vcpu_count = 1};
    struct tm tm = {0};
    time_t before, told;

    before = time(NULL);
    cmos_init(&cmos, &config);
    put(B, SET | BINARY | HOURS_24);
    tm.tm_sec = get(0), tm.tm_min = get(2), tm.tm_hour = get(4);
    tm.tm_mday = get(7), tm.tm_mon = get(8) - 1, tm.tm_year = get(9) + 100 * get(CMOS_CENTURY) - 1900;
    told = timegm(&tm);
    cr_expect_geq(told, before - 1, "the coarse clock of time(2) may be behind");
    cr_expect_leq(told, time(NULL) + 1);
}

/* --- Bytes ------------------------------------------------------------------------------------------------------ */

static uint64_t number(uint8_t first, uint32_t bytes)
{
    uint64_t value = 0;

    for (uint32_t i = 0; i < bytes; i++) {
        value |= (uint64_t)get((uint8_t)(first + i)) << (8 * i);
    }
    return value;
}

Test(cmos, tells_what_memory_and_processors_there_are)
{
    static const struct {
        uint64_t low, high;
        uint32_t vcpu_count;
        uint64_t extended_kib, low_blocks, high_blocks;
    } rows[] = {
        {2 * LOAM_MIB, 0, 1, 1024, 0, 0},
        {16 * LOAM_MIB, 0, 2, 15 * 1024, 0, 0},
        {16 * LOAM_MIB + 64 * LOAM_KIB, 0, 255, 15 * 1024 + 64, 1, 0},
        {64 * LOAM_MIB, 0, 1, 63 * 1024, 768, 0},
        {65 * LOAM_MIB, 0, 1, 65535, 784, 0},
        {3 * LOAM_GIB, 5 * LOAM_GIB, 1, 65535, 48896, 81920},
        {3 * LOAM_GIB, 2048 * LOAM_GIB, 1, 65535, 48896, 0xffffff},
    };

    for (uint32_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        make(rows[i].low, rows[i].high, rows[i].vcpu_count);
        cr_expect_eq(number(0x15, 2), 640, "row %u", i);
        cr_expect_eq(number(0x17, 2), rows[i].extended_kib, "row %u", i);
        cr_expect_eq(number(0x30, 2), rows[i].extended_kib, "row %u", i);
        cr_expect_eq(number(0x34, 2), rows[i].low_blocks, "row %u", i);
        cr_expect_eq(number(0x5b, 3), rows[i].high_blocks, "row %u", i);
        cr_expect_eq(get(0x5f), rows[i].vcpu_count - 1, "row %u", i);
    }
}

Test(cmos, has_a_checksum_that_is_right)
{
    uint32_t sum = 0;

    for (uint8_t i = 0x10; i <= 0x2d; i++) {
        sum += get(i);
    }
    cr_expect_gt(sum, 0);
    cr_expect_eq(sum, (uint32_t)get(0x2e) << 8 | get(0x2f));
}

Test(cmos, keeps_the_other_bytes)
{
    for (uint32_t i = D + 1; i < CMOS_REGISTER_COUNT; i++) {
        if (i != CMOS_CENTURY) {
            put((uint8_t)i, (uint8_t)(i * 7));
        }
    }
    put(1, 0x11); /* of an alarm */
    for (uint32_t i = D + 1; i < CMOS_REGISTER_COUNT; i++) {
        cr_expect(i == CMOS_CENTURY || get((uint8_t)i) == (uint8_t)(i * 7), "register 0x%x", i);
    }
    cr_expect_eq(get(1), 0x11);
}

Test(cmos, takes_the_bit_of_the_nmi_for_none_of_the_number)
{
    cr_expect_eq(get(0x80 | D), 0x80);
    cr_expect_eq(in(0), 0xff);
}

Test(cmos, takes_both_ports_at_once)
{
    struct bus_access access = {.bytes = 2, .is_write = true, .value = 0x5a40};

    cmos_access(&cmos, &access);
    cr_expect_eq(get(0x40), 0x5a);
    access = (struct bus_access){.bytes = 2, .value = UINT64_MAX};
    cmos_access(&cmos, &access);
    cr_expect_eq(access.value, 0x5aff);
}

/* Whatever a guest does, in whatever order. */
Test(cmos, answers_anything)
{
    struct random random = {20240603};

    for (uint32_t i = 0; i < 20000; i++) {
        const uint32_t bytes = 1u << random_below(&random, 4);
        struct bus_access access = {.offset = random_below(&random, CMOS_BYTES),
                                    .bytes = bytes,
                                    .is_write = random_below(&random, 2) == 0,
                                    .value = random_below(&random, 1 << 16)};

        clock_now += random_below(&random, 1 << 30);
        cmos_access(&cmos, &access);
        cr_assert(access.is_write || access.value <= UINT16_MAX);
    }
}
