// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_packet.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <string.h>

static struct gdb_reader reader;

TestSuite(gdb_packet, .timeout = 60);

/* What is heard of the last byte; before it nothing is. */
static enum gdb_heard hear(const char *bytes, size_t count)
{
    for (size_t i = 0; i + 1 < count; i++) {
        cr_assert_eq(gdb_reader_take(&reader, (uint8_t)bytes[i]), GDB_HEARD_NOTHING, "byte %zu of %s", i, bytes);
    }
    return gdb_reader_take(&reader, (uint8_t)bytes[count - 1]);
}

#define HEAR(text) hear(text, sizeof text - 1)

Test(gdb_packet, is_read)
{
    cr_expect_eq(HEAR("$m0,4#fd"), GDB_HEARD_PACKET);
    cr_expect_eq(reader.count, 4);
    cr_expect_str_eq(reader.text, "m0,4");
    cr_expect_eq(HEAR("$#00"), GDB_HEARD_PACKET);
    cr_expect_eq(reader.count, 0);
    cr_expect_eq(HEAR("$zi#E3"), GDB_HEARD_PACKET, "digits of either case");
}

Test(gdb_packet, what_stands_beside_packets_is_told)
{
    cr_expect_eq(HEAR("+"), GDB_HEARD_ACK);
    cr_expect_eq(HEAR("-"), GDB_HEARD_NACK);
    cr_expect_eq(HEAR("\x03"), GDB_HEARD_INTERRUPT);
    cr_expect_eq(HEAR("$\x03-+#61"), GDB_HEARD_DAMAGED, "within a packet they are text");
    cr_expect_eq(HEAR("G"), GDB_HEARD_JUNK, "as from a browser");
    cr_expect_eq(HEAR("\0"), GDB_HEARD_JUNK);
}

Test(gdb_packet, that_is_damaged_is_told)
{
    cr_expect_eq(HEAR("$g#68"), GDB_HEARD_DAMAGED);
    cr_expect_eq(HEAR("$g#6x"), GDB_HEARD_JUNK);
    cr_expect_eq(HEAR("$g#67"), GDB_HEARD_PACKET, "and the next is read");
    cr_expect_eq(HEAR("$m0,$g#67"), GDB_HEARD_PACKET, "one that was cut short");
    cr_expect_str_eq(reader.text, "g");
}

static void begin_longest(void)
{
    cr_expect_eq(HEAR("$"), GDB_HEARD_NOTHING);
    for (size_t i = 0; i < GDB_PACKET_BYTES_MAX; i++) {
        cr_assert_eq(gdb_reader_take(&reader, 'a'), GDB_HEARD_NOTHING);
    }
}

/* So many times the same byte have the sum 0. */
Test(gdb_packet, has_a_longest)
{
    begin_longest();
    cr_expect_eq(HEAR("#00"), GDB_HEARD_PACKET);
    cr_expect_eq(reader.count, GDB_PACKET_BYTES_MAX);
    begin_longest();
    cr_expect_eq(HEAR("b"), GDB_HEARD_TOO_LONG);
}

Test(gdb_packet, is_written_with_its_sum_and_escapes)
{
    char sent[32];

    cr_expect_arr_eq(sent, "$OK#9a", gdb_packet_write("OK", 2, sent));
    cr_expect_arr_eq(sent, "$#00", gdb_packet_write("", 0, sent));
    cr_expect_eq(gdb_packet_write("#$}*", 4, sent), 12);
    cr_expect_arr_eq(sent, "$}\x03}\x04}]}\n#62", 12);
}

/* Whatever is written, is read; the escapes are the receiver's to undo. */
Test(gdb_packet, that_is_written_can_be_read)
{
    struct random random = {.state = 7};
    char text[300], sent[2 * sizeof text + 4];

    for (int round = 0; round < 2000; round++) {
        size_t count = random_below(&random, sizeof text), used = 0;

        for (size_t i = 0; i < count; i++) {
            text[i] = (char)random_below(&random, 256);
        }
        cr_assert_eq(hear(sent, gdb_packet_write(text, count, sent)), GDB_HEARD_PACKET);
        for (size_t i = 0; i < reader.count; i++) {
            bool is_escape = reader.text[i] == '}';

            i += is_escape;
            reader.text[used++] = (char)(is_escape ? reader.text[i] ^ 0x20 : reader.text[i]);
        }
        cr_assert_eq(used, count);
        cr_assert_arr_eq(reader.text, text, count);
    }
}
