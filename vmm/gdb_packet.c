// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_packet.h"

#define INTERRUPT 0x03
#define ESCAPE    '}'
#define ESCAPED   0x20 /* what an escaped byte is changed by */

/* -1: none. */
static int digit_value(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    if (byte >= 'a' && byte <= 'f') {
        return byte - 'a' + 10;
    }
    return byte >= 'A' && byte <= 'F' ? byte - 'A' + 10 : -1;
}

static enum gdb_heard begin(struct gdb_reader *reader, uint8_t byte)
{
    switch (byte) {
    case '$':
        reader->place = GDB_IN_TEXT;
        reader->count = 0;
        reader->sum = 0;
        return GDB_HEARD_NOTHING;
    case '+':
        return GDB_HEARD_ACK;
    case '-':
        return GDB_HEARD_NACK;
    case INTERRUPT:
        return GDB_HEARD_INTERRUPT;
    default:
        return GDB_HEARD_JUNK;
    }
}

/* A packet that begins anew before its end was cut short on its way: the one before counts for nothing. */
static enum gdb_heard take_text(struct gdb_reader *reader, uint8_t byte)
{
    if (byte == '$') {
        return begin(reader, byte);
    }
    if (byte == '#') {
        reader->place = GDB_AT_FIRST_DIGIT;
        return GDB_HEARD_NOTHING;
    }
    if (reader->count == GDB_PACKET_BYTES_MAX) {
        reader->place = GDB_OUTSIDE;
        return GDB_HEARD_TOO_LONG;
    }
    reader->text[reader->count++] = (char)byte;
    reader->sum = (uint8_t)(reader->sum + byte);
    return GDB_HEARD_NOTHING;
}

static enum gdb_heard take_digit(struct gdb_reader *reader, uint8_t byte)
{
    int value = digit_value(byte);

    if (value < 0) {
        reader->place = GDB_OUTSIDE;
        return GDB_HEARD_JUNK;
    }
    if (reader->place == GDB_AT_FIRST_DIGIT) {
        reader->digit = (uint8_t)value;
        reader->place = GDB_AT_SECOND_DIGIT;
        return GDB_HEARD_NOTHING;
    }
    reader->place = GDB_OUTSIDE;
    reader->text[reader->count] = '\0';
    return (reader->digit << 4 | value) == reader->sum ? GDB_HEARD_PACKET : GDB_HEARD_DAMAGED;
}

enum gdb_heard gdb_reader_take(struct gdb_reader *reader, uint8_t byte)
{
    switch (reader->place) {
    case GDB_OUTSIDE:
        return begin(reader, byte);
    case GDB_IN_TEXT:
        return take_text(reader, byte);
    default:
        return take_digit(reader, byte);
    }
}

size_t gdb_packet_write(const char *text, size_t count, char *sent)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum = 0;
    size_t used = 0;

    sent[used++] = '$';
    for (size_t i = 0; i < count; i++) {
        bool needs_escape = text[i] == '#' || text[i] == '$' || text[i] == ESCAPE || text[i] == '*';

        if (needs_escape) {
            sent[used++] = ESCAPE;
            sum = (uint8_t)(sum + ESCAPE);
        }
        sent[used] = (char)(needs_escape ? text[i] ^ ESCAPED : text[i]);
        sum = (uint8_t)(sum + (uint8_t)sent[used++]);
    }
    sent[used++] = '#';
    sent[used++] = digits[sum >> 4];
    sent[used++] = digits[sum & 0xf];
    return used;
}
