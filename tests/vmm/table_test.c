// SPDX-License-Identifier: Apache-2.0
#include "vmm/table.h"

#include <criterion/criterion.h>
#include <string.h>

enum { ROOM = 32, CANARY = 0xa5 };

static struct table table;
static uint8_t bytes[ROOM + 32];

static void set_up(void)
{
    memset(bytes, CANARY, sizeof bytes);
    table_init(&table, bytes, ROOM);
}

/* Nothing beyond the room is ever written. */
static void tear_down(void)
{
    for (size_t i = ROOM; i < sizeof bytes; i++) {
        cr_expect_eq(bytes[i], CANARY, "byte %zu", i);
    }
}

TestSuite(table, .init = set_up, .fini = tear_down, .timeout = 60);

Test(table, puts_numbers_with_the_lowest_byte_first)
{
    static const uint8_t expected[] = {0x88, 0x22, 0x11, 0x44, 0x33, 0x22, 0x11, 8, 7, 6, 5, 4, 3, 2, 1};

    table_put(&table, 0x7788, 1);
    table_put(&table, 0x1122, 2);
    table_put(&table, 0x11223344, 4);
    table_put(&table, UINT64_C(0x0102030405060708), 8);
    cr_expect_eq(table.used_bytes, sizeof expected);
    cr_expect_arr_eq(bytes, expected, sizeof expected);
    cr_expect(table_is_whole(&table));
}

Test(table, puts_text_into_its_field)
{
    table_put_text(&table, "ab", 4);
    table_put_text(&table, "", 2);
    table_put_text(&table, "abcdef", 3);
    cr_expect_eq(table.used_bytes, 9);
    cr_expect_arr_eq(bytes, "ab    abc", 9);
}

Test(table, aligns_with_zeros)
{
    table_put_bytes(&table, "xyz", 3);
    table_align(&table, 8);
    cr_expect_eq(table.used_bytes, 8);
    cr_expect_arr_eq(bytes, "xyz\0\0\0\0\0", 8);
    table_align(&table, 8);
    cr_expect_eq(table.used_bytes, 8);
}

Test(table, makes_way_in_the_middle)
{
    table_put_bytes(&table, "abcd", 4);
    table_make_way(&table, 1, 2);
    table_patch(&table, 1, 'y' << 8 | 'x', 2);
    cr_expect_eq(table.used_bytes, 6);
    cr_expect_arr_eq(bytes, "axybcd", 6);
    table_make_way(&table, 6, 1);
    table_patch(&table, 6, 'z', 1);
    cr_expect_arr_eq(bytes, "axybcdz", 7);
}

Test(table, adds_up_to_nothing)
{
    table_put_bytes(&table, "\xff\x80\x7f\x03\xee", 5);
    table_patch(&table, 4, table_checksum(&table, 0, 4), 1);
    cr_expect_eq(bytes[4], 0xff);
    cr_expect_eq(table_checksum(&table, 0, 5), 0);
    cr_expect_eq(table_checksum(&table, 1, 1), 0);
}

/* What is too long is cut off at the room, is counted whole, and nothing reads or writes beyond it. */
Test(table, counts_what_has_no_room)
{
    table_put_zeros(&table, ROOM - 2);
    cr_expect(table_is_whole(&table));
    table_put(&table, 0x04030201, 4);
    cr_expect_not(table_is_whole(&table));
    cr_expect_eq(table.used_bytes, ROOM + 2);
    cr_expect_arr_eq(bytes + ROOM - 2, "\1\2", 2);
    table_patch(&table, ROOM - 1, 0x0908, 2);
    cr_expect_eq(bytes[ROOM - 1], 8);
    cr_expect_eq(table_checksum(&table, 0, ROOM + 2), (uint8_t)-9);
    table_put_bytes(&table, "more", 4);
    table_put_text(&table, "more", 6);
    table_put_zeros(&table, 3);
    table_make_way(&table, ROOM - 3, 2);
    cr_expect_eq(bytes[ROOM - 1], 0);
    table_make_way(&table, ROOM + 1, 8);
    cr_expect_eq(table.used_bytes, ROOM + 2 + 4 + 6 + 3 + 2 + 8);
}

Test(table, has_no_room_at_all)
{
    table_init(&table, NULL, 0);
    cr_expect(table_is_whole(&table));
    table_put(&table, 1, 8);
    table_put_text(&table, "text", 8);
    table_align(&table, 32);
    table_make_way(&table, 0, 4);
    cr_expect_eq(table_checksum(&table, 0, 16), 0);
    cr_expect_eq(table.used_bytes, 36);
    cr_expect_not(table_is_whole(&table));
}
