// SPDX-License-Identifier: Apache-2.0
#include "vmm/printable.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *text, size_t count, const char *expected)
{
    char output[256];

    memset(output, 'z', sizeof output);
    cr_expect_eq(printable_escape(text, count, output), strlen(expected), "%s", expected);
    cr_expect_str_eq(output, expected);
    cr_expect_eq(output[strlen(expected) + 1], 'z', "nothing is written behind the end");
    cr_expect_eq(printable_is_clean(text, count), strlen(expected) == count && memcmp(text, expected, count) == 0);
}

#define CHECK(text, expected) check(text, sizeof(text) - 1, expected)

Test(printable, text_stays_as_it_is)
{
    CHECK("", "");
    CHECK("loam: a line\n\tand another\\x1b ~", "loam: a line\n\tand another\\x1b ~");
    CHECK("gr\xc3\xb6\xc3\x9f"
          "e \xe2\x82\xac \xf0\x9f\x8c\xb1 \xc2\xa0",
          "gr\xc3\xb6\xc3\x9f"
          "e \xe2\x82\xac \xf0\x9f\x8c\xb1 \xc2\xa0");
}

Test(printable, what_a_terminal_obeys_is_shown)
{
    CHECK("\x1b[31mred\a", "\\x1b[31mred\\x07");
    CHECK("a\rb\bc\x7f", "a\\x0db\\x08c\\x7f");
    CHECK("\xc2\x9b"
          "31m",
          "\\xc2\\x9b31m");
    CHECK("\xc2\x80\xc2\x9f", "\\xc2\\x80\\xc2\\x9f");
    check("a\0b", 3, "a\\x00b");
}

Test(printable, what_is_no_utf8_is_shown)
{
    CHECK("no\xff\xfe"
          "file",
          "no\\xff\\xfefile");
    CHECK("\xc3", "\\xc3");
    CHECK("\xe2\x82", "\\xe2\\x82");
    CHECK("\xe2\x28\xa1", "\\xe2(\\xa1");
    CHECK("\xc0\x80\xed\xa0\x80", "\\xc0\\x80\\xed\\xa0\\x80");
}

/* Every byte by itself: it stays, or is shown by its number. */
Test(printable, every_byte)
{
    for (unsigned byte = 0; byte <= 0xff; byte++) {
        const char text = (char)byte;
        char expected[8];
        const bool stays = (byte >= 0x20 && byte < 0x7f) || byte == '\n' || byte == '\t';

        snprintf(expected, sizeof expected, stays ? "%c" : "\\x%02x", byte);
        check(&text, 1, expected);
    }
}

Test(printable, a_message_as_a_value_is_cut_where_none_is_longer)
{
    char *text = malloc(PRINTABLE_BYTES + 100);

    memset(text, '\a', PRINTABLE_BYTES + 99);
    text[PRINTABLE_BYTES + 99] = '\0';
    cr_expect_str_eq(printable_of("a\ab").text, "a\\x07b");
    cr_expect_eq(strlen(printable_of(text).text), PRINTABLE_BYTES * PRINTABLE_GROWTH);
    free(text);
}
