// SPDX-License-Identifier: Apache-2.0
/*
 * What a debugger sends, byte by byte, to a guest without a machine. A byte that no packet holds, 0xff, stands for a stop of the
 * guest while it is on its way, so that the fuzzer gets further than the first "c".
 *
 * What holds: the target is asked for nothing that there is not (gdb_toy.h); an answer is text within its bounds, and what is
 * sent of it is read again as one packet with the same text.
 */
#include "tests/vmm/gdb_toy.h"
#include "vmm/gdb_command.h"
#include "vmm/gdb_packet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STOP 0xff

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct gdb_toy toy;
static struct gdb_command command;
static struct gdb_reader reader, other;
static char sent[GDB_PACKET_SENT_BYTES_MAX];

/* As the other side reads it. */
static void check_answer(void)
{
    enum gdb_heard heard = GDB_HEARD_NOTHING;
    size_t count, used = 0;

    REQUIRE(command.answer_bytes <= GDB_PACKET_BYTES_MAX);
    REQUIRE(command.answer[command.answer_bytes] == '\0');
    count = gdb_packet_write(command.answer, command.answer_bytes, sent);
    REQUIRE(count <= sizeof sent);
    if (count > GDB_PACKET_BYTES_MAX) {
        return; /* with its escapes it is longer than what this side takes */
    }
    other = (struct gdb_reader){0};
    for (size_t i = 0; i < count; i++) {
        REQUIRE(heard == GDB_HEARD_NOTHING);
        heard = gdb_reader_take(&other, (uint8_t)sent[i]);
    }
    REQUIRE(heard == GDB_HEARD_PACKET);
    for (size_t i = 0; i < other.count; i++) {
        char byte = other.text[i] == '}' ? (char)(other.text[++i] ^ 0x20) : other.text[i];

        REQUIRE(used < command.answer_bytes && byte == command.answer[used]);
        used++;
    }
    REQUIRE(used == command.answer_bytes);
}

static void check_actions(void)
{
    bool has_any = false;

    for (uint32_t i = 0; i < toy.target.vcpu_count; i++) {
        REQUIRE(command.actions[i] <= GDB_ACTION_STEP);
        has_any = has_any || command.actions[i] != GDB_ACTION_HOLD;
    }
    REQUIRE(has_any);
}

/* false: the client has left. */
static bool obey(bool *is_running)
{
    switch (gdb_command_obey(&command, reader.text, reader.count)) {
    case GDB_NEXT_ANSWER:
        check_answer();
        return true;
    case GDB_NEXT_RUN:
        check_actions();
        *is_running = true;
        return true;
    default:
        return false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool is_running = false, goes_on = true;

    gdb_toy_init(&toy);
    gdb_command_init(&command, &toy.target);
    reader = (struct gdb_reader){0};
    toy.has_watch = size > 0 && (data[0] & 1) != 0;
    for (size_t i = 1; i < size && goes_on; i++) {
        enum gdb_heard heard;

        if (data[i] == STOP && is_running) {
            const struct gdb_stop stop = {(enum gdb_stop_reason)(i % (GDB_STOP_ABORT + 1)),
                                          (uint32_t)(i % GDB_TOY_VCPUS), i};

            is_running = false;
            gdb_command_tell_stop(&command, &stop);
            check_answer();
            continue;
        }
        heard = gdb_reader_take(&reader, data[i]);
        REQUIRE(reader.count <= GDB_PACKET_BYTES_MAX);
        goes_on = heard != GDB_HEARD_JUNK && heard != GDB_HEARD_TOO_LONG;
        if (heard == GDB_HEARD_DAMAGED) {
            heard =
                GDB_HEARD_PACKET; /* the fuzzer is not to guess sums: what a right one leads to, a wrong one does here */
        }
        if (heard == GDB_HEARD_PACKET && !is_running) {
            goes_on = obey(&is_running);
        }
    }
    return 0;
}
