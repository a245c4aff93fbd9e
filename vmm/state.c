// SPDX-License-Identifier: Apache-2.0
#include "vmm/state.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAYLOAD_ALIGN 8u

/* As they lie in the file, little-endian as the host is. */
struct file_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t record_count;
    uint64_t bytes; /* of the whole file */
    uint64_t sum;   /* of the whole file, with zero here */
};

struct record_header {
    uint32_t kind;
    uint32_t version;
    uint32_t index;
    uint32_t bytes; /* of the payload, behind which zeros follow up to a multiple of PAYLOAD_ALIGN */
};

static_assert(sizeof(struct file_header) == STATE_HEADER_BYTES, "as STATE.md lays it out");
static_assert(sizeof(struct record_header) == STATE_RECORD_BYTES, "as STATE.md lays it out");

static const uint8_t magic[8] = "LoamSave";

static const struct {
    const char *name;
    uint32_t version;
} kinds[STATE_KIND_COUNT] = {
    [STATE_MACHINE] = {"machine", 1},
    [STATE_PLAN] = {"plan", 1},
    [STATE_MAP] = {"map", 1},
    [STATE_LEDGER] = {"ledger", 1},
    [STATE_MEMORY] = {"memory", 1},
    [STATE_VCPU] = {"vcpu", 1},
    [STATE_CLOCK] = {"clock", 1},
    [STATE_IRQCHIP] = {"irqchip", 1},
    [STATE_PIT] = {"pit", 1},
    [STATE_SERIAL] = {"serial", 1},
    [STATE_POWER] = {"power", 1},
    [STATE_PLATFORM] = {"platform", 1},
    [STATE_VIRTIO] = {"virtio", 1},
    [STATE_VIRTIO_BLK] = {"virtio-blk", 1},
    [STATE_VIRTIO_NET] = {"virtio-net", 1},
    [STATE_VIRTIO_BALLOON] = {"virtio-balloon", 1},
    [STATE_ATTEST] = {"attest", 1},
};

const char *state_kind_name(uint32_t kind)
{
    return kind < STATE_KIND_COUNT && kinds[kind].name != NULL ? kinds[kind].name : "unknown";
}

uint32_t state_kind_version(enum state_kind kind)
{
    return kinds[kind].version;
}

static uint64_t sum_of(const uint8_t *bytes, size_t count)
{
    static const uint64_t nothing = 0;
    XXH3_state_t sum;

    XXH3_64bits_reset(&sum);
    XXH3_64bits_update(&sum, bytes, offsetof(struct file_header, sum));
    XXH3_64bits_update(&sum, &nothing, sizeof nothing);
    XXH3_64bits_update(&sum, bytes + sizeof(struct file_header), count - sizeof(struct file_header));
    return XXH3_64bits_digest(&sum);
}

/* --- Writing ------------------------------------------------------------------------------------------------------ */

void state_writer_init(struct state_writer *writer)
{
    *writer = (struct state_writer){.count = sizeof(struct file_header)};
}

void state_writer_release(struct state_writer *writer)
{
    free(writer->bytes);
    *writer = (struct state_writer){.bytes = NULL};
}

static bool make_room(struct state_writer *writer, size_t bytes)
{
    size_t wanted = writer->count + bytes, capacity = writer->capacity;
    uint8_t *grown;

    if (wanted <= capacity || writer->has_failed) {
        return !writer->has_failed;
    }
    while (capacity < wanted) {
        capacity = capacity == 0 ? 4096 : 2 * capacity;
    }
    grown = wanted <= STATE_BYTES_MAX ? realloc(writer->bytes, capacity) : NULL;
    if (grown == NULL) {
        writer->has_failed = true;
        return false;
    }
    if (writer->capacity == 0) {
        memset(grown, 0, sizeof(struct file_header));
    }
    writer->bytes = grown;
    writer->capacity = capacity;
    return true;
}

void state_put(struct state_writer *writer, const void *data, size_t bytes)
{
    if (make_room(writer, bytes)) {
        memcpy(writer->bytes + writer->count, data, bytes);
        writer->count += bytes;
    }
}

void state_put_u32(struct state_writer *writer, uint32_t value)
{
    state_put(writer, &value, sizeof value);
}

void state_put_u64(struct state_writer *writer, uint64_t value)
{
    state_put(writer, &value, sizeof value);
}

void state_put_text(struct state_writer *writer, const char *text, size_t bytes)
{
    state_put_u32(writer, (uint32_t)bytes);
    state_put(writer, text, bytes);
}

void state_begin(struct state_writer *writer, enum state_kind kind, uint32_t index)
{
    const struct record_header header = {.kind = kind, .version = kinds[kind].version, .index = index};

    writer->record = writer->count;
    writer->record_count++;
    state_put(writer, &header, sizeof header);
}

void state_end(struct state_writer *writer)
{
    static const uint8_t zeros[PAYLOAD_ALIGN];
    size_t payload = writer->count - writer->record - sizeof(struct record_header);
    uint32_t bytes = (uint32_t)payload;

    if (!writer->has_failed) {
        memcpy(writer->bytes + writer->record + offsetof(struct record_header, bytes), &bytes, sizeof bytes);
    }
    state_put(writer, zeros, -payload % PAYLOAD_ALIGN);
    writer->record = 0;
}

enum loam_error state_finish(struct state_writer *writer, struct loam_diag *diag)
{
    struct file_header header = {
        .version = STATE_FILE_VERSION, .record_count = writer->record_count, .bytes = writer->count};

    if (!make_room(writer, 0) || writer->bytes == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "state: no memory for what the machine is");
    }
    memcpy(header.magic, magic, sizeof magic);
    memcpy(writer->bytes, &header, sizeof header);
    header.sum = sum_of(writer->bytes, writer->count);
    memcpy(writer->bytes, &header, sizeof header);
    return LOAM_OK;
}

/* --- Reading ------------------------------------------------------------------------------------------------------ */

static enum loam_error damaged(struct loam_diag *diag, const char *what)
{
    return loam_fail(diag, LOAM_ERROR_INVALID, "state: %s: it is damaged, or was never written whole: take another",
                     what);
}

static enum loam_error check_header(const struct file_header *header, const uint8_t *bytes, size_t count,
                                    struct loam_diag *diag)
{
    if (memcmp(header->magic, magic, sizeof magic) != 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "state: no saved machine: it does not begin with %.8s",
                         (const char *)magic);
    }
    if (header->version != STATE_FILE_VERSION) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: version %u wanted, which this program reads, and %" PRIu32
                         " found: take the program that wrote it",
                         STATE_FILE_VERSION, header->version);
    }
    if (header->bytes != count) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "state: %" PRIu64
                         " bytes wanted, as it says of itself, and %zu found: it was cut, or added to",
                         header->bytes, count);
    }
    if (header->sum != sum_of(bytes, count)) {
        return damaged(diag, "its sum is wrong");
    }
    return header->record_count <= STATE_RECORD_MAX ? LOAM_OK : damaged(diag, "it has too many records");
}

static bool is_there(const struct state_reader *reader, uint32_t kind, uint32_t index)
{
    for (uint32_t i = 0; i < reader->record_count; i++) {
        if (reader->records[i].kind == kind && reader->records[i].index == index) {
            return true;
        }
    }
    return false;
}

static enum loam_error check_record(const struct state_reader *reader, const struct record_header *header,
                                    struct loam_diag *diag)
{
    if (header->kind >= STATE_KIND_COUNT || kinds[header->kind].name == NULL) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: a record of kind %" PRIu32
                         " found, which this program does not know: take the one that wrote it, or a newer",
                         header->kind);
    }
    if (header->version != kinds[header->kind].version) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "state: record %s: version %" PRIu32 " wanted, which this program reads, and %" PRIu32
                         " found: take the program that wrote it",
                         kinds[header->kind].name, kinds[header->kind].version, header->version);
    }
    if (is_there(reader, header->kind, header->index)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "state: record %s %" PRIu32 " is there twice",
                         kinds[header->kind].name, header->index);
    }
    return LOAM_OK;
}

/* The record at *offset, which then is behind it. */
static enum loam_error add_record(struct state_reader *reader, size_t *offset, struct loam_diag *diag)
{
    const size_t left = reader->count - *offset;
    struct record_header header;
    size_t whole;
    enum loam_error error;

    if (left < sizeof header) {
        return damaged(diag, "a record is cut");
    }
    memcpy(&header, reader->bytes + *offset, sizeof header);
    whole = ((size_t)header.bytes + PAYLOAD_ALIGN - 1) / PAYLOAD_ALIGN * PAYLOAD_ALIGN;
    if (whole > left - sizeof header) {
        return damaged(diag, "a record is cut");
    }
    error = check_record(reader, &header, diag);
    if (error == LOAM_OK) {
        reader->records[reader->record_count++] =
            (struct state_record){.kind = header.kind,
                                  .index = header.index,
                                  .bytes = reader->bytes + *offset + sizeof header,
                                  .count = header.bytes};
        *offset += sizeof header + whole;
    }
    return error;
}

static enum loam_error add_records(struct state_reader *reader, uint32_t count, struct loam_diag *diag)
{
    size_t offset = sizeof(struct file_header);
    enum loam_error error = LOAM_OK;

    reader->records = calloc(count + 1, sizeof *reader->records);
    if (reader->records == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "state: no memory for %" PRIu32 " records", count);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        error = add_record(reader, &offset, diag);
    }
    return error == LOAM_OK && offset != reader->count ? damaged(diag, "something follows its last record") : error;
}

enum loam_error state_open(struct state_reader *reader, const void *bytes, size_t count, struct loam_diag *diag)
{
    struct file_header header;
    enum loam_error error;

    *reader = (struct state_reader){.bytes = bytes, .count = count};
    if (count < sizeof header) {
        return damaged(diag, "it is shorter than its header");
    }
    memcpy(&header, bytes, sizeof header);
    error = check_header(&header, bytes, count, diag);
    if (error == LOAM_OK) {
        error = add_records(reader, header.record_count, diag);
    }
    if (error != LOAM_OK) {
        state_close(reader);
    }
    return error;
}

void state_close(struct state_reader *reader)
{
    free(reader->records);
    *reader = (struct state_reader){.records = NULL};
}

bool state_has(const struct state_reader *reader, enum state_kind kind, uint32_t index)
{
    return is_there(reader, kind, index);
}

enum loam_error state_find(struct state_reader *reader, enum state_kind kind, uint32_t index,
                           struct state_record **record, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < reader->record_count; i++) {
        *record = &reader->records[i];
        if ((*record)->kind == kind && (*record)->index == index) {
            (*record)->taken = 0;
            return LOAM_OK;
        }
    }
    *record = NULL;
    return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "state: record %s %" PRIu32 " wanted, and there is none",
                     kinds[kind].name, index);
}

size_t state_left(const struct state_record *record)
{
    return record->count - record->taken;
}

void state_take(struct state_record *record, void *data, size_t bytes)
{
    if (bytes > state_left(record)) {
        memset(data, 0, bytes);
        record->is_short = true;
        return;
    }
    memcpy(data, record->bytes + record->taken, bytes);
    record->taken += bytes;
}

uint32_t state_take_u32(struct state_record *record)
{
    uint32_t value;

    state_take(record, &value, sizeof value);
    return value;
}

uint64_t state_take_u64(struct state_record *record)
{
    uint64_t value;

    state_take(record, &value, sizeof value);
    return value;
}

void state_take_text(struct state_record *record, char *text, size_t room)
{
    uint32_t bytes = state_take_u32(record);

    if (bytes >= room) {
        record->is_short = true;
        bytes = 0;
    }
    state_take(record, text, bytes);
    text[bytes] = '\0';
    record->is_short = record->is_short || strlen(text) != bytes;
}

enum loam_error state_done(struct state_record *record, struct loam_diag *diag)
{
    record->is_done = true;
    if (record->is_short) {
        return state_refuse(record, diag, "it is too short: %zu bytes", record->count);
    }
    return state_left(record) == 0
               ? LOAM_OK
               : state_refuse(record, diag, "it is too long: %zu bytes, of which %zu mean something", record->count,
                              record->taken);
}

enum loam_error state_refuse(const struct state_record *record, struct loam_diag *diag, const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return loam_fail(diag, LOAM_ERROR_INVALID, "state: record %s %" PRIu32 ": %s", state_kind_name(record->kind),
                     record->index, text);
}

enum loam_error state_all_done(const struct state_reader *reader, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < reader->record_count; i++) {
        if (!reader->records[i].is_done) {
            return state_refuse(&reader->records[i], diag, "nothing here takes it: the machine is another");
        }
    }
    return LOAM_OK;
}

/* --- Fields of a struct ----------------------------------------------------------------------------------------------- */

void state_put_fields(struct state_writer *writer, const struct state_field *fields, size_t count, const void *object)
{
    for (size_t i = 0; i < count; i++) {
        state_put(writer, (const char *)object + fields[i].offset, fields[i].bytes * fields[i].count);
    }
}

static enum loam_error take_field(struct state_record *record, const struct state_field *field, void *object,
                                  struct loam_diag *diag)
{
    char *to = (char *)object + field->offset;

    for (size_t i = 0; i < field->count; i++) {
        uint64_t value = 0;

        state_take(record, &value, field->bytes);
        if (value > field->max) {
            return state_refuse(record, diag, "%s is %" PRIu64 ", at most %" PRIu64, field->name, value, field->max);
        }
        memcpy(to + i * field->bytes, &value, field->bytes);
    }
    return LOAM_OK;
}

enum loam_error state_take_fields(struct state_record *record, const struct state_field *fields, size_t count,
                                  void *object, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (size_t i = 0; error == LOAM_OK && i < count; i++) {
        error = take_field(record, &fields[i], object, diag);
    }
    return error == LOAM_OK && record->is_short
               ? state_refuse(record, diag, "it is too short: %zu bytes", record->count)
               : error;
}
