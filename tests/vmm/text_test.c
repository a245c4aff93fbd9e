// SPDX-License-Identifier: Apache-2.0
#include "vmm/text.h"

#include <criterion/criterion.h>
#include <string.h>

Test(text, is_put_together_and_cut_at_every_size)
{
    static const char whole[] = "one 2 three";

    for (size_t bytes = 1; bytes <= sizeof whole + 1; bytes++) {
        char data[sizeof whole + 2];
        size_t kept = bytes - 1 < sizeof whole - 1 ? bytes - 1 : sizeof whole - 1;
        struct text text;

        memset(data, 'x', sizeof data);
        text = text_in(data, bytes);
        cr_assert_str_empty(data);
        text_put(&text, "one ");
        text_put(&text, "%d", 2);
        text_put(&text, "%s", "");
        text_put(&text, " %s", "three");
        cr_assert_eq(text.used, kept);
        cr_assert_eq(strlen(data), kept);
        cr_assert_eq(memcmp(data, whole, kept), 0);
        cr_assert_eq(data[bytes], 'x');
    }
}
