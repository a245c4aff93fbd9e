// SPDX-License-Identifier: Apache-2.0
#include "vmm/json_text.h"

#include "tests/support/heap.h"
#include "vmm/utf8.h"

#include <criterion/criterion.h>

Test(json_text, what_is_broken_is_replaced_and_the_rest_kept)
{
    static const struct {
        const char *text, *string;
    } cases[] = {
        {"", ""},
        {"plain \"\x01\n", "plain \"\x01\n"},
        {"\xc3\xa9 \xf0\x9f\x98\x80", "\xc3\xa9 \xf0\x9f\x98\x80"},
        {"a\xff\xfez", "a" UTF8_REPLACEMENT UTF8_REPLACEMENT "z"},
        {"cut \xe2\x82", "cut " UTF8_REPLACEMENT},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *string = json_text(cases[i].text);

        cr_assert_not_null(string, "case %zu", i);
        cr_expect_str_eq(json_string_value(string), cases[i].string, "case %zu", i);
        json_decref(string);
    }
}

Test(json_text, without_memory_there_is_none)
{
    uint32_t before = heap_block_count();

    heap_fail(1);
    cr_expect_null(json_text("text"));
    cr_expect_eq(heap_block_count(), before);
}
