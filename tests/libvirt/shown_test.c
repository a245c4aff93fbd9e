// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/shown.h"

#include <criterion/criterion.h>
#include <string.h>

Test(shown, one_line_that_a_terminal_does_not_obey)
{
    cr_expect_str_eq(shown_line("gr\xc3\xbc\xc3\x9f").text, "gr\xc3\xbc\xc3\x9f");
    cr_expect_str_eq(shown_line("a\nb\tc\x1b[31m\xff").text, "a\\x0ab\\x09c\\x1b[31m\\xff");
    cr_expect_str_eq(shown_line("\n").text, "\\x0a");
    cr_expect_str_eq(shown_line("").text, "");
}

Test(shown, long_texts_are_cut)
{
    static char text[3 * SHOWN_BYTES];
    struct shown shown;

    memset(text, '\x01', sizeof text - 1);
    shown = shown_line(text);
    cr_expect_eq(strlen(shown.text), SHOWN_BYTES * 4 + 3);
    cr_expect_str_eq(shown.text + SHOWN_BYTES * 4 - 4, "\\x01...");
    memset(text, '\n', sizeof text - 1);
    shown = shown_line(text);
    cr_expect_eq(strlen(shown.text), SHOWN_BYTES * 4 + 3);
    text[SHOWN_BYTES] = '\0';
    cr_expect_eq(strlen(shown_line(text).text), SHOWN_BYTES * 4);
}

Test(shown, what_is_not_known)
{
    json_t *text = shown_json_text("a\xff"), *none = shown_json_text(""), *figure = shown_json_figure(5),
           *unknown = shown_json_figure(UINT64_MAX);

    cr_expect_str_eq(json_string_value(text), "a\xef\xbf\xbd");
    cr_expect(json_is_null(none));
    cr_expect_eq(json_integer_value(figure), 5);
    cr_expect(json_is_null(unknown));
    cr_expect_str_eq(shown_count(UINT64_MAX).text, "unknown");
    cr_expect_str_eq(shown_amount(UINT64_MAX).text, "unknown");
    cr_expect_str_eq(shown_amount(4096).text, "4 KiB");
    json_decref(text);
    json_decref(none);
    json_decref(figure);
    json_decref(unknown);
}
