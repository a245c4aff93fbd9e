// SPDX-License-Identifier: Apache-2.0
#include "tests/support/screen.h"

#include <criterion/criterion.h>
#include <string.h>

static struct screen screen_of(const char *text)
{
    struct screen screen;

    screen_init(&screen);
    for (size_t i = 0; text[i] != '\0'; i++) {
        screen_write(&screen, text + i, 1); /* a byte at a time: sequences may come in pieces */
    }
    return screen;
}

Test(screen, text_stands_where_the_cursor_was_put)
{
    struct screen screen = screen_of("\033[2J\033[3;5Hhere\033[31mred\033[25;80Hend");

    cr_expect_arr_eq(screen.rows[2] + 4, "herered", 7);
    cr_expect_eq(screen.rows[24][79], 'e');
    cr_expect_not_null(screen_find(&screen, "here"));
    cr_expect_null(screen_find(&screen, "gone"));
}

Test(screen, later_text_overwrites_earlier)
{
    struct screen screen = screen_of("\033[1;1HErrors: 0\033[1;9H7");

    cr_expect_not_null(screen_find(&screen, "Errors: 7"));
}

Test(screen, erasing)
{
    struct screen screen = screen_of("one\r\ntwo\033[1;2H\033[K\033[2;2H\033[J");

    cr_expect_arr_eq(screen.rows[0], "o   ", 4);
    cr_expect_arr_eq(screen.rows[1], "t   ", 4);
}

Test(screen, nonsense_does_no_harm)
{
    struct screen screen =
        screen_of("\033[99999999;99999999Hx\033[;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;;Hy\033cz\b\b\b");

    cr_expect_lt(screen.row, SCREEN_ROWS);
    cr_expect_leq(screen.column, SCREEN_COLUMNS);
}
