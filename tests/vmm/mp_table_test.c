// SPDX-License-Identifier: Apache-2.0
/* The table as one reads it who knows the MultiProcessor Specification 1.4, chapter 4, and not its writer. */
#include "vmm/mp_table.h"

#include "vmm/machine.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#define BASE 0xf0000u

static uint8_t bytes[8192];
static const uint8_t *const table = bytes + 16;

static uint32_t number(const uint8_t *at, uint32_t count)
{
    uint32_t value = 0;

    while (count > 0) {
        value = value << 8 | at[--count];
    }
    return value;
}

static uint8_t sum(const uint8_t *at, size_t count)
{
    uint8_t total = 0;

    while (count > 0) {
        total = (uint8_t)(total + at[--count]);
    }
    return total;
}

static size_t write_for(uint32_t vcpu_count)
{
    memset(bytes, 0xa5, sizeof bytes);
    return mp_table_write(vcpu_count, loam_gpa_from_u64(BASE), bytes, sizeof bytes);
}

TestSuite(mp_table, .timeout = 60);

Test(mp_table, is_244_bytes_for_two)
{
    cr_expect_eq(write_for(2), 16 + 244);
    cr_expect_eq(mp_table_bytes(2), 16 + 244);
    cr_expect_arr_eq(bytes, "_MP_", 4);
    cr_expect_eq(number(bytes + 4, 4), BASE + 16);
    cr_expect_eq(bytes[8], 1, "of 16 bytes");
    cr_expect_eq(bytes[9], 4);
    cr_expect_eq(sum(bytes, 16), 0);
    cr_expect_eq(number(bytes + 11, 4), 0, "there is a table, and no IMCR");
    cr_expect_arr_eq(table, "PCMP", 4);
    cr_expect_eq(number(table + 4, 2), 244);
    cr_expect_eq(table[6], 4);
    cr_expect_eq(sum(table, 244), 0);
    cr_expect_arr_eq(table + 8, "LOAM    MICROVM     ", 20);
    cr_expect_eq(number(table + 36, 4), 0xfee00000);
    cr_expect_eq(bytes[16 + 244], 0xa5);
}

static void expect_interrupt(const uint8_t *entry, uint32_t line)
{
    bool is_level = line == MACHINE_POWER_IRQ;

    for (unsigned int i = 0; i < MACHINE_VIRTIO_MAX; i++) {
        is_level = is_level || machine_virtio_irq(i) == line;
    }
    cr_expect_eq(entry[1], 0, "a vectored interrupt");
    cr_expect_eq(number(entry + 2, 2), is_level ? 0xd : 0, "line %" PRIu32, line);
    cr_expect_eq(entry[4], 0);
    cr_expect_eq(entry[5], line);
    cr_expect_eq(entry[6], 0);
    cr_expect_eq(entry[7], line);
}

/* Entries of each kind come in the order of their kinds, which is their numbers'. */
Test(mp_table, lists_all_processors_and_lines)
{
    static const uint32_t counts[] = {1, 2, 3, 64, 254, 255, 256, 1024};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const uint32_t named = counts[i] < 255 ? counts[i] : 255;
        uint32_t found[5] = {0};
        size_t whole = write_for(counts[i]), at = 16 + 44;

        cr_assert_eq(whole, mp_table_bytes(counts[i]));
        cr_assert_eq(number(table + 4, 2), whole - 16);
        cr_expect_eq(sum(table, whole - 16), 0);
        while (at < whole) {
            const uint8_t *entry = bytes + at;

            cr_assert_lt(entry[0], 5);
            if (entry[0] == 0) {
                cr_expect_eq(entry[1], found[0]);
                cr_expect_eq(entry[3], found[0] == 0 ? 3 : 1, "enabled, and the first boots");
            } else if (entry[0] == 1) {
                cr_expect_arr_eq(entry + 1, "\0ISA   ", 7);
            } else if (entry[0] == 2) {
                cr_expect_eq(entry[3], 1);
                cr_expect_eq(number(entry + 4, 4), 0xfec00000);
            } else if (entry[0] == 3) {
                expect_interrupt(entry, found[3]);
            } else {
                cr_expect_eq(entry[1], found[4] == 0 ? 3 : 1, "ExtINT, then NMI");
                cr_expect_eq(entry[6], 0xff);
                cr_expect_eq(entry[7], found[4]);
            }
            found[entry[0]]++;
            at += entry[0] == 0 ? 20 : 8;
        }
        cr_expect_eq(at, whole);
        cr_expect_arr_eq(found, ((uint32_t[]){named, 1, 1, 16, 2}), sizeof found);
        cr_expect_eq(number(table + 34, 2), named + 20);
    }
}

Test(mp_table, writes_no_further_than_its_room)
{
    for (size_t room = 0; room < 260; room++) {
        memset(bytes, 0xa5, sizeof bytes);
        cr_assert_eq(mp_table_write(2, loam_gpa_from_u64(BASE), bytes, room), 260);
        for (size_t i = room; i < 300; i++) {
            cr_assert_eq(bytes[i], 0xa5, "room for %zu, byte %zu", room, i);
        }
    }
}
