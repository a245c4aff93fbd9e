// SPDX-License-Identifier: Apache-2.0
#include "vmm/utf8.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define R UTF8_REPLACEMENT

Test(utf8, what_is_broken_is_replaced_and_the_rest_kept)
{
    static const struct {
        const char *bytes;
        size_t count;
        const char *text;
    } cases[] = {
        {"", 0, ""},
        {"plain\n", 6, "plain\n"},
        {"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", 11, "\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\xe0\xa0\x80z", 4, "\xe0\xa0\x80z"},
        {"\xed\x9f\xbf", 3, "\xed\x9f\xbf"},
        {"\xef\xbf\xbf", 3, "\xef\xbf\xbf"},
        {"\xf4\x8f\xbf\xbf", 4, "\xf4\x8f\xbf\xbf"},
        {"a\0b", 3, "a" R "b"},
        {"a\x80z", 3, "a" R "z"},
        {"\xff\xfe", 2, R R},
        {"\xc0\xaf", 2, R R},             /* a longer form of '/' */
        {"\xed\xa0\x80", 3, R R R},       /* a surrogate */
        {"\xf4\x90\x80\x80", 4, R R R R}, /* beyond U+10FFFF */
        {"\xe0\x80\x80", 3, R R R},
        {"\xf0\x80\x80\x80", 4, R R R R},
        {"\xe2\x82", 2, R}, /* cut at the end */
        {"\xe2\x82z", 3, R "z"},
        {"\xf0\x9f\x98", 3, R},
        {"\xe2\x82\xac", 2, R}, /* cut, though what stands behind would complete it */
        {"a\xc3\xa9", 2, "a" R},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[64];
        size_t length = utf8_repair(cases[i].bytes, cases[i].count, text);

        cr_expect_str_eq(text, cases[i].text, "case %zu", i);
        cr_expect_eq(length, strlen(text));
    }
}

/* jansson is the oracle: it refuses what is no UTF-8. */
Test(utf8, any_two_bytes_make_a_json_string)
{
    for (unsigned i = 0; i < 65536; i++) {
        unsigned char bytes[2] = {(unsigned char)(i >> 8), (unsigned char)i};
        char text[UTF8_REPAIRED_BYTES(2)];
        json_t *string, *as_is = json_stringn((const char *)bytes, 2);

        utf8_repair(bytes, 2, text);
        string = json_string(text);
        cr_assert_not_null(string, "%02x %02x", bytes[0], bytes[1]);
        if (as_is != NULL && bytes[0] != 0 && bytes[1] != 0) {
            cr_assert(json_equal(string, as_is), "%02x %02x was changed", bytes[0], bytes[1]);
        }
        json_decref(string);
        json_decref(as_is);
    }
}

/* The bytes at which any rule of UTF-8 begins or ends. */
static const unsigned char limits[] = {0x01, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                       0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};

enum { LIMIT_COUNT = sizeof limits };

/* Good where jansson takes it, and kept; else changed. */
static void compare_with_jansson(const unsigned char bytes[4])
{
    json_t *as_is = json_stringn((const char *)bytes, 4);
    char text[UTF8_REPAIRED_BYTES(4)];
    size_t length = utf8_repair(bytes, 4, text);
    bool is_kept = length == 4 && memcmp(text, bytes, 4) == 0;

    cr_assert_eq(is_kept, as_is != NULL, "%02x %02x %02x %02x: kept %d, taken by jansson %d", bytes[0], bytes[1],
                 bytes[2], bytes[3], is_kept, as_is != NULL);
    json_decref(as_is);
}

Test(utf8, what_four_bytes_at_the_limits_are_kept_is_what_jansson_takes)
{
    for (unsigned i = 0; i < LIMIT_COUNT * LIMIT_COUNT * LIMIT_COUNT * LIMIT_COUNT; i++) {
        unsigned char bytes[4];

        for (unsigned at = 0, rest = i; at < 4; at++, rest /= LIMIT_COUNT) {
            bytes[at] = limits[rest % LIMIT_COUNT];
        }
        compare_with_jansson(bytes);
    }
}
