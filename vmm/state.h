// SPDX-License-Identifier: Apache-2.0
/*
 * What a machine is, written down: records in one run of bytes, as vmm/STATE.md lays them out.
 *
 *     state_writer_init -> { state_begin, state_put..., state_end } ... -> state_finish
 *     state_open -> { state_find, state_take..., state_done } ... -> state_close
 *
 * A writer that has run out of memory remembers it, and state_finish says so: nobody asks in between. A reader takes its
 * bytes for hostile: all that a record says of itself is checked by state_open, and a record is never read beyond its end.
 *
 * Pure: no system calls. Threads: one at a time has a writer or a reader.
 */
#ifndef LOAM_VMM_STATE_H
#define LOAM_VMM_STATE_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STATE_FILE_VERSION 1u
#define STATE_HEADER_BYTES 32u
#define STATE_RECORD_BYTES 16u                  /* before a record's payload */
#define STATE_RECORD_MAX   4096u                /* records of one file */
#define STATE_BYTES_MAX    (UINT64_C(64) << 20) /* of one file */

/* What a record is of. Numbers stay as they are; new ones follow at the end, before STATE_KIND_COUNT. */
enum state_kind {
    STATE_NONE,
    STATE_MACHINE, /* what has to be made before all else is loaded */
    STATE_PLAN,    /* RAM as it was asked for and placed */
    STATE_MAP,     /* what is mapped where, once it is changed */
    STATE_LEDGER,  /* who owns what of it */
    STATE_MEMORY,  /* where its contents are */
    STATE_VCPU,
    STATE_CLOCK,
    STATE_IRQCHIP,
    STATE_PIT,
    STATE_SERIAL,
    STATE_POWER,
    STATE_PLATFORM,
    STATE_VIRTIO,
    STATE_VIRTIO_BLK,
    STATE_VIRTIO_NET,
    STATE_VIRTIO_BALLOON,
    STATE_ATTEST,
    STATE_KIND_COUNT
};

/* "vcpu", "serial", ...; "unknown" otherwise. */
const char *state_kind_name(uint32_t kind);

/* The version of such records that this program writes, and the only one that it reads. */
uint32_t state_kind_version(enum state_kind kind);

/* --- Writing ------------------------------------------------------------------------------------------------------ */

struct state_writer {
    uint8_t *bytes; /* heap */
    size_t count, capacity;
    size_t record; /* where the open one begins; 0: none is */
    uint32_t record_count;
    bool has_failed;
};

/* Nothing is taken yet. */
void state_writer_init(struct state_writer *writer);
void state_writer_release(struct state_writer *writer);

/* A record of its own for each (kind, index). None is open. */
void state_begin(struct state_writer *writer, enum state_kind kind, uint32_t index);
void state_end(struct state_writer *writer);

/* Into the open record. Integers are little-endian. */
void state_put(struct state_writer *writer, const void *data, size_t bytes);
void state_put_u32(struct state_writer *writer, uint32_t value);
void state_put_u64(struct state_writer *writer, uint64_t value);

/* bytes is below 65,536, and may hold anything. */
void state_put_text(struct state_writer *writer, const char *text, size_t bytes);

/* Close the file: header and sum. The bytes are the writer's still. LOAM_ERROR_SYSTEM: memory has run out. */
LOAM_MUST_USE enum loam_error state_finish(struct state_writer *writer, struct loam_diag *diag);

/* --- Reading ------------------------------------------------------------------------------------------------------ */

struct state_record {
    uint32_t kind;
    uint32_t index;
    const uint8_t *bytes;
    size_t count;
    size_t taken;
    bool is_short; /* more was taken than there is; what was missing reads as zero */
    bool is_done;
};

struct state_reader {
    const uint8_t *bytes; /* the caller's */
    size_t count;
    uint32_t record_count;
    struct state_record *records; /* heap; in the file's order */
};

/*
 * Check all of it but what payloads say. The bytes outlive the reader, and nobody changes them.
 * LOAM_ERROR_INVALID: it is no such file, is cut short, or its sum is wrong. LOAM_ERROR_NOT_FOUND: a version of the file or
 * of a record, or a kind of record, that this program does not know. LOAM_ERROR_SYSTEM: no memory. diag names which.
 */
LOAM_MUST_USE enum loam_error state_open(struct state_reader *reader, const void *bytes, size_t count,
                                         struct loam_diag *diag);
void state_close(struct state_reader *reader);

/* *record is the reader's. LOAM_ERROR_NOT_FOUND: there is none. */
LOAM_MUST_USE enum loam_error state_find(struct state_reader *reader, enum state_kind kind, uint32_t index,
                                         struct state_record **record, struct loam_diag *diag);

/* Whether there is one, with nothing said. */
bool state_has(const struct state_reader *reader, enum state_kind kind, uint32_t index);

/* The next bytes of it. */
void state_take(struct state_record *record, void *data, size_t bytes);
uint32_t state_take_u32(struct state_record *record);
uint64_t state_take_u64(struct state_record *record);

/* A text of at most room - 1 characters without a zero, and a zero behind it; else the record is short. */
void state_take_text(struct state_record *record, char *text, size_t room);

/* How much is left. */
size_t state_left(const struct state_record *record);

/* All of it has been taken, and no more. LOAM_ERROR_INVALID: it was shorter or longer. */
LOAM_MUST_USE enum loam_error state_done(struct state_record *record, struct loam_diag *diag);

/* A value of the record is none: "record serial 0: line_count is 5000, at most 4096". Returns LOAM_ERROR_INVALID. */
LOAM_PRINTF(3, 4)
LOAM_MUST_USE enum loam_error state_refuse(const struct state_record *record, struct loam_diag *diag,
                                           const char *format, ...);

/* Every record was done. LOAM_ERROR_INVALID: diag names the first that nothing here takes. */
LOAM_MUST_USE enum loam_error state_all_done(const struct state_reader *reader, struct loam_diag *diag);

/* --- Fields of a struct ----------------------------------------------------------------------------------------------- */

/* An unsigned integer, a bool, an enum, or an array of them, and the most that each may be. */
struct state_field {
    const char *name;
    size_t offset;
    size_t bytes; /* of one: 1, 2, 4 or 8 */
    size_t count;
    uint64_t max;
};

#define STATE_FIELD(type, member, most)                                                                                \
    {                                                                                                                  \
#member, offsetof(type, member), sizeof((type *)0)->member, 1, most                                            \
    }
#define STATE_BOOL(type, member) STATE_FIELD(type, member, 1)
#define STATE_ANY(type, member)  STATE_FIELD(type, member, UINT64_MAX)
#define STATE_ARRAY(type, member, most)                                                                                \
    {                                                                                                                  \
#member, offsetof(type, member),                                                                               \
            sizeof((type *)0)->member[0], sizeof((type *)0)->member / sizeof((type *)0)->member[0], most               \
    }

#define STATE_FIELDS(table) table, sizeof(table) / sizeof(table)[0]

/* One after the other, as they lie in the table, into the open record. */
void state_put_fields(struct state_writer *writer, const struct state_field *fields, size_t count, const void *object);

/* LOAM_ERROR_INVALID: one is more than it may be, or the record ends; *object may be changed in part. */
LOAM_MUST_USE enum loam_error state_take_fields(struct state_record *record, const struct state_field *fields,
                                                size_t count, void *object, struct loam_diag *diag);

#endif
