// SPDX-License-Identifier: Apache-2.0
/*
 * Packets of GDB's remote serial protocol, out of the bytes of a stream and into them:
 *
 *     $ text # two digits      a packet; the digits are the sum of the text's bytes, in base 16
 *     + and -                  it has come, or is to be sent again; none of these in no-ack mode
 *     0x03                     stop the guest
 *
 * Whoever sends the bytes is not trusted: nothing grows, and what is none of these is told as junk.
 *
 * Source: Debugging with GDB, appendix E, "GDB Remote Serial Protocol" (Overview). Threads: one at a time.
 */
#ifndef LOAM_VMM_GDB_PACKET_H
#define LOAM_VMM_GDB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a packet's text, both ways. */
#define GDB_PACKET_BYTES_MAX 16384u

/* Of a packet as it is sent: each byte of its text may need an escape. */
#define GDB_PACKET_SENT_BYTES_MAX (2 * GDB_PACKET_BYTES_MAX + 4)

enum gdb_heard {
    GDB_HEARD_NOTHING, /* in the middle of a packet */
    GDB_HEARD_PACKET,  /* text and count hold it */
    GDB_HEARD_DAMAGED, /* a packet whose sum is wrong */
    GDB_HEARD_ACK,
    GDB_HEARD_NACK,
    GDB_HEARD_INTERRUPT,
    GDB_HEARD_JUNK,     /* a byte that is none of these, outside a packet or where its sum should be */
    GDB_HEARD_TOO_LONG, /* a packet whose text does not end */
};

enum gdb_reader_place { GDB_OUTSIDE, GDB_IN_TEXT, GDB_AT_FIRST_DIGIT, GDB_AT_SECOND_DIGIT };

/* Starts as {0}. count <= GDB_PACKET_BYTES_MAX */
struct gdb_reader {
    enum gdb_reader_place place;
    uint8_t sum, digit;
    size_t count;
    char text[GDB_PACKET_BYTES_MAX + 1]; /* with a zero behind it, after GDB_HEARD_PACKET */
};

/* Take the next byte. After GDB_HEARD_JUNK and GDB_HEARD_TOO_LONG there is no telling where a packet begins. */
enum gdb_heard gdb_reader_take(struct gdb_reader *reader, uint8_t byte);

/*
 * The packet of count bytes of text, GDB_PACKET_BYTES_MAX at most, any bytes; sent has room for 2 * count + 4. Returns its length.
 */
size_t gdb_packet_write(const char *text, size_t count, char *sent);

#endif
