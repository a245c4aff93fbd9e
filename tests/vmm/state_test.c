// SPDX-License-Identifier: Apache-2.0
#include "vmm/state.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED  UINT64_C(20261127)
#define TRIES 20000u

struct thing {
    uint8_t small;
    bool is_set;
    uint16_t list[3];
    uint32_t number;
    uint64_t large;
};

static const struct state_field fields[] = {
    STATE_ANY(struct thing, small),        STATE_BOOL(struct thing, is_set), STATE_ARRAY(struct thing, list, 1000),
    STATE_FIELD(struct thing, number, 77), STATE_ANY(struct thing, large),
};

static const struct thing example = {
    .small = 255, .is_set = true, .list = {1, 2, 1000}, .number = 77, .large = UINT64_MAX};

static struct state_writer writer;
static struct state_reader reader;
static struct state_record *record;

static void set_up(void)
{
    state_writer_init(&writer);
}

static void tear_down(void)
{
    state_close(&reader);
    state_writer_release(&writer);
}

TestSuite(state, .init = set_up, .fini = tear_down, .timeout = 60);

/* Two records. */
static void write_example(void)
{
    struct loam_diag diag = {0};

    state_begin(&writer, STATE_SERIAL, 0);
    state_put_fields(&writer, STATE_FIELDS(fields), &example);
    state_end(&writer);
    state_begin(&writer, STATE_VIRTIO, 3);
    state_put_text(&writer, "words", 5);
    state_put_u32(&writer, 0x12345678);
    state_put_u64(&writer, 9);
    state_end(&writer);
    cr_assert_eq(state_finish(&writer, &diag), LOAM_OK, "%s", diag.text);
}

static enum loam_error open_bytes(const void *bytes, size_t count, struct loam_diag *diag)
{
    state_close(&reader); /* what it read before */
    return state_open(&reader, bytes, count, diag);
}

static void open_example(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(open_bytes(writer.bytes, writer.count, &diag), LOAM_OK, "%s", diag.text);
}

static void find(enum state_kind kind, uint32_t index)
{
    struct loam_diag diag = {0};

    cr_assert_eq(state_find(&reader, kind, index, &record, &diag), LOAM_OK, "%s", diag.text);
}

Test(state, what_was_written_is_read)
{
    struct thing thing = {0};
    char text[6];

    write_example();
    open_example();
    find(STATE_VIRTIO, 3);
    state_take_text(record, text, sizeof text);
    cr_expect_str_eq(text, "words");
    cr_expect_eq(state_take_u32(record), 0x12345678);
    cr_expect_eq(state_left(record), 8);
    cr_expect_eq(state_take_u64(record), 9);
    cr_expect_eq(state_done(record, NULL), LOAM_OK);
    find(STATE_SERIAL, 0);
    cr_expect_eq(state_take_fields(record, STATE_FIELDS(fields), &thing, NULL), LOAM_OK);
    cr_expect_eq(state_done(record, NULL), LOAM_OK);
    cr_expect(thing.small == example.small && thing.is_set && thing.number == example.number &&
              thing.large == example.large && memcmp(thing.list, example.list, sizeof thing.list) == 0);
    cr_expect_eq(state_all_done(&reader, NULL), LOAM_OK);
}

Test(state, a_record_that_nobody_takes_is_named)
{
    struct loam_diag diag = {0};

    write_example();
    open_example();
    find(STATE_SERIAL, 0);
    record->is_done = true;
    cr_expect_eq(state_all_done(&reader, &diag), LOAM_ERROR_INVALID);
    cr_expect(strstr(diag.text, "virtio 3") != NULL, "%s", diag.text);
    cr_expect(state_has(&reader, STATE_VIRTIO, 3) && !state_has(&reader, STATE_VIRTIO, 0));
    cr_expect_eq(state_find(&reader, STATE_PIT, 0, &record, &diag), LOAM_ERROR_NOT_FOUND);
    cr_expect(strstr(diag.text, "pit 0") != NULL, "%s", diag.text);
}

Test(state, every_changed_bit_is_seen)
{
    write_example();
    for (size_t bit = 0; bit < 8 * writer.count; bit++) {
        writer.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_expect_neq(open_bytes(writer.bytes, writer.count, NULL), LOAM_OK, "bit %zu", bit);
        writer.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    open_example();
}

Test(state, a_file_that_is_cut_or_longer_is_refused)
{
    uint8_t *longer;

    write_example();
    for (size_t count = 0; count < writer.count; count++) {
        uint8_t *cut = malloc(count + 1); /* so that a sanitizer sees who reads beyond */

        memcpy(cut, writer.bytes, count);
        cr_expect_eq(open_bytes(cut, count, NULL), LOAM_ERROR_INVALID, "%zu bytes", count);
        free(cut);
    }
    longer = calloc(1, writer.count + 8);
    memcpy(longer, writer.bytes, writer.count);
    cr_expect_eq(open_bytes(longer, writer.count + 8, NULL), LOAM_ERROR_INVALID);
    free(longer);
}

/* A file with one record of a header of the test's own, whose sum is right. */
static enum loam_error open_with_header(uint32_t kind, uint32_t version, uint32_t bytes, struct loam_diag *diag)
{
    const uint32_t header[4] = {kind, version, 0, bytes};

    state_begin(&writer, STATE_SERIAL, 0);
    state_put_u64(&writer, 1);
    state_end(&writer);
    memcpy(writer.bytes + STATE_HEADER_BYTES, header, sizeof header);
    cr_assert_eq(state_finish(&writer, NULL), LOAM_OK);
    return open_bytes(writer.bytes, writer.count, diag);
}

Test(state, an_unknown_kind_is_named)
{
    struct loam_diag diag = {0};

    cr_expect_eq(open_with_header(STATE_KIND_COUNT, 1, 8, &diag), LOAM_ERROR_NOT_FOUND);
    cr_expect(strstr(diag.text, "does not know") != NULL, "%s", diag.text);
}

Test(state, an_unknown_version_is_named)
{
    struct loam_diag diag = {0};

    cr_expect_eq(open_with_header(STATE_SERIAL, 2, 8, &diag), LOAM_ERROR_NOT_FOUND);
    cr_expect(strstr(diag.text, "record serial: version 1 wanted") != NULL, "%s", diag.text);
}

Test(state, a_record_beyond_the_file_is_refused)
{
    cr_expect_eq(open_with_header(STATE_SERIAL, 1, UINT32_MAX, NULL), LOAM_ERROR_INVALID);
}

Test(state, a_record_that_leaves_a_rest_is_refused)
{
    cr_expect_eq(open_with_header(STATE_SERIAL, 1, 0, NULL), LOAM_ERROR_INVALID);
}

Test(state, a_record_is_there_once)
{
    struct loam_diag diag = {0};

    for (int i = 0; i < 2; i++) {
        state_begin(&writer, STATE_POWER, 5);
        state_end(&writer);
    }
    cr_assert_eq(state_finish(&writer, NULL), LOAM_OK);
    cr_expect_eq(open_bytes(writer.bytes, writer.count, &diag), LOAM_ERROR_INVALID);
    cr_expect(strstr(diag.text, "power 5 is there twice") != NULL, "%s", diag.text);
}

Test(state, a_record_is_read_to_its_end_and_no_further)
{
    struct loam_diag diag = {0};
    uint8_t bytes[64];
    char text[5];

    write_example();
    open_example();
    find(STATE_VIRTIO, 3);
    state_take_text(record, text, sizeof text); /* "words" does not fit */
    cr_expect_eq(state_done(record, &diag), LOAM_ERROR_INVALID);
    open_example();
    find(STATE_VIRTIO, 3);
    memset(bytes, 0xff, sizeof bytes);
    state_take(record, bytes, sizeof bytes);
    cr_expect_eq(bytes[0], 0, "what is missing reads as zero");
    cr_expect_eq(state_done(record, &diag), LOAM_ERROR_INVALID);
    cr_expect(strstr(diag.text, "too short") != NULL, "%s", diag.text);
    open_example();
    find(STATE_VIRTIO, 3);
    cr_expect_eq(state_done(record, &diag), LOAM_ERROR_INVALID);
    cr_expect(strstr(diag.text, "too long") != NULL, "%s", diag.text);
}

Test(state, a_value_beyond_its_most_is_named)
{
    struct loam_diag diag = {0};
    struct thing thing = example;

    thing.list[2] = 1001;
    state_begin(&writer, STATE_SERIAL, 0);
    state_put_fields(&writer, STATE_FIELDS(fields), &thing);
    state_end(&writer);
    cr_assert_eq(state_finish(&writer, NULL), LOAM_OK);
    open_example();
    find(STATE_SERIAL, 0);
    cr_expect_eq(state_take_fields(record, STATE_FIELDS(fields), &thing, &diag), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "state: record serial 0: list is 1001, at most 1000");
}

/* Records whose headers are rubbish, in a file whose sum is right: refused, or read within bounds. */
Test(state, rubbish_is_refused_or_bounded)
{
    struct random random = {SEED};

    for (uint32_t try = 0; try < TRIES; try++) {
        uint32_t record_count = random_below(&random, 4);

        state_writer_init(&writer);
        for (uint32_t i = 0; i < record_count; i++) {
            state_begin(&writer, (enum state_kind)random_below(&random, STATE_KIND_COUNT), random_below(&random, 2));
            for (uint32_t words = random_below(&random, 6); words > 0; words--) {
                state_put_u32(&writer, random_below(&random, 40));
            }
            state_end(&writer);
        }
        if (writer.bytes == NULL) {
            continue;
        }
        for (uint32_t i = random_below(&random, 3); i > 0; i--) {
            writer.bytes[STATE_HEADER_BYTES + random_below(&random, (uint32_t)writer.count - STATE_HEADER_BYTES)] =
                (uint8_t)random_below(&random, 64);
        }
        cr_assert_eq(state_finish(&writer, NULL), LOAM_OK);
        if (open_bytes(writer.bytes, writer.count, NULL) == LOAM_OK) {
            for (uint32_t i = 0; i < reader.record_count; i++) {
                const uint8_t *end = reader.records[i].bytes + reader.records[i].count;

                cr_assert(end <= writer.bytes + writer.count, "seed %" PRIu64 ", try %" PRIu32, SEED, try);
            }
        }
        state_close(&reader);
        state_writer_release(&writer);
    }
}
