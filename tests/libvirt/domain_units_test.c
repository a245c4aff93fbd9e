// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/domain_units.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stddef.h>

Test(domain_units, every_unit_in_any_case)
{
    static const struct {
        const char *unit;
        uint64_t bytes;
    } units[] = {
        {"b", 1},
        {"byte", 1},
        {"bytes", 1},
        {"B", 1},
        {"k", 1024},
        {"K", 1024},
        {"KiB", 1024},
        {"kib", 1024},
        {"KB", 1000},
        {"kb", 1000},
        {"M", UINT64_C(1) << 20},
        {"MiB", UINT64_C(1) << 20},
        {"MB", 1000000},
        {"g", UINT64_C(1) << 30},
        {"GiB", UINT64_C(1) << 30},
        {"GB", 1000000000},
        {"T", UINT64_C(1) << 40},
        {"TiB", UINT64_C(1) << 40},
        {"TB", UINT64_C(1000000000000)},
        {"P", UINT64_C(1) << 50},
        {"PiB", UINT64_C(1) << 50},
        {"PB", UINT64_C(1000000000000000)},
        {"E", UINT64_C(1) << 60},
        {"EiB", UINT64_C(1) << 60},
        {"EB", UINT64_C(1000000000000000000)},
    };
    static const char *const bad[] = {"", " ", "KiBi", "Ki", "iB", "bits", "Z", "ZiB", "kbyte", "K B", "MiB ", "1"};
    uint64_t bytes;

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        cr_expect(domain_units_scale(units[i].unit, &bytes), "%s", units[i].unit);
        cr_expect_eq(bytes, units[i].bytes, "%s: %" PRIu64, units[i].unit, bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_not(domain_units_scale(bad[i], &bytes), "%s", bad[i]);
        cr_expect_eq(bytes, 0, "%s", bad[i]);
    }
}

Test(domain_units, numbers)
{
    static const struct {
        const char *text;
        uint64_t most, number;
    } good[] = {{"0", 0, 0},
                {"7", 7, 7},
                {"007", 7, 7},
                {"18446744073709551615", UINT64_MAX, UINT64_MAX},
                {"18446744073709551614", UINT64_MAX - 1, UINT64_MAX - 1}};
    static const struct {
        const char *text;
        uint64_t most;
    } bad[] = {{"", 9},
               {"8", 7},
               {"-1", 9},
               {"+1", 9},
               {" 1", 9},
               {"1 ", 9},
               {"0x1", 99},
               {"1.0", 99},
               {"1e1", 99},
               {"18446744073709551616", UINT64_MAX},
               {"184467440737095516150", UINT64_MAX}};
    uint64_t number;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cr_expect(domain_units_number(good[i].text, good[i].most, &number), "%s", good[i].text);
        cr_expect_eq(number, good[i].number, "%s: %" PRIu64, good[i].text, number);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_not(domain_units_number(bad[i].text, bad[i].most, &number), "%s", bad[i].text);
        cr_expect_eq(number, 0, "%s", bad[i].text);
    }
}

Test(domain_units, sets)
{
    static const struct {
        const char *text;
        uint64_t mask;
    } good[] = {
        {"0", 1},        {"63", UINT64_C(1) << 63}, {"0-63", UINT64_MAX}, {"0-3", 0xf},  {"0,2,4", 0x15},
        {"0-3,^2", 0xb}, {"0-3,^0,8-9", 0x30e},     {"5-5", 0x20},        {"1,^1,1", 2}, {"00,01", 3},
    };
    static const char *const bad[] = {"",
                                      ",",
                                      "0,",
                                      ",0",
                                      "64",
                                      "0-64",
                                      "3-0",
                                      "0,3-1",
                                      "-1",
                                      "0-",
                                      "^0",
                                      "0,^0",
                                      "0 ",
                                      "0;1",
                                      "0-3-5",
                                      "^",
                                      "0,^",
                                      "a",
                                      "18446744073709551616",
                                      "0,^0-1",
                                      "1+2"};
    uint64_t mask;

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        cr_expect(domain_units_set(good[i].text, &mask), "%s", good[i].text);
        cr_expect_eq(mask, good[i].mask, "%s: %#" PRIx64, good[i].text, mask);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_expect_not(domain_units_set(bad[i], &mask), "%s", bad[i]);
        cr_expect_eq(mask, 0, "%s", bad[i]);
    }
}
