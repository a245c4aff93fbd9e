// SPDX-License-Identifier: Apache-2.0
#include "vmm/transcript.h"

#include "tests/support/heap.h"
#include "vmm/utf8.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static struct transcript transcript;

static void set_up(void)
{
    transcript_open(&transcript);
}

static void tear_down(void)
{
    transcript_close(&transcript);
}

TestSuite(transcript, .init = set_up, .fini = tear_down);

static void add(const char *text)
{
    transcript_add(&transcript, (const uint8_t *)text, strlen(text));
}

static void expect_text(const char *wanted)
{
    char *text = transcript_text(&transcript);

    cr_assert_not_null(text);
    cr_assert_str_eq(text, wanted);
    free(text);
}

Test(transcript, keeps_what_was_said)
{
    expect_text("");
    add("h");
    expect_text("h");
    add("ello ");
    add("");
    add("world\n");
    expect_text("hello world\n");
    cr_assert_eq(transcript.total_bytes, 12);
    cr_assert_eq(transcript_lost_bytes(&transcript), 0);
}

/* A byte of each place, so that a piece in a wrong place shows; pieces that do not divide the ring. */
Test(transcript, keeps_the_end_of_what_is_too_long)
{
    const uint32_t total = 3 * TRANSCRIPT_BYTES + 1001;
    char *text;

    for (uint32_t done = 0; done < total;) {
        uint8_t piece[777];
        size_t count = total - done < sizeof piece ? total - done : sizeof piece;

        for (size_t i = 0; i < count; i++, done++) {
            piece[i] = (uint8_t)('!' + done % 89);
        }
        transcript_add(&transcript, piece, count);
    }
    text = transcript_text(&transcript);
    cr_assert_eq(strlen(text), TRANSCRIPT_BYTES);
    for (uint32_t i = 0; i < TRANSCRIPT_BYTES; i++) {
        cr_assert_eq(text[i], (char)('!' + (total - TRANSCRIPT_BYTES + i) % 89), "byte %u", i);
    }
    cr_assert_eq(transcript.total_bytes, total);
    cr_assert_eq(transcript_lost_bytes(&transcript), total - TRANSCRIPT_BYTES);
    free(text);
}

Test(transcript, takes_more_than_fits_at_once)
{
    uint8_t *bytes = malloc(TRANSCRIPT_BYTES + 1);

    cr_assert_not_null(bytes);
    memset(bytes, 'a', TRANSCRIPT_BYTES + 1);
    bytes[0] = 'b';
    transcript_add(&transcript, bytes, TRANSCRIPT_BYTES);
    cr_assert_eq(transcript_lost_bytes(&transcript), 0);
    transcript_add(&transcript, bytes + TRANSCRIPT_BYTES, 1);
    cr_assert_eq(transcript_lost_bytes(&transcript), 1);
    cr_assert_eq(transcript.bytes[0], 'a', "the oldest byte has made room");
    free(bytes);
}

Test(transcript, what_is_no_text_is_replaced)
{
    transcript_add(&transcript, (const uint8_t *)"a\xff\0z", 4);
    expect_text("a" UTF8_REPLACEMENT UTF8_REPLACEMENT "z");
}

Test(transcript, without_memory_it_only_counts)
{
    transcript_close(&transcript);
    add("lost");
    cr_assert_eq(transcript.total_bytes, 4);
    cr_assert_eq(transcript_lost_bytes(&transcript), 4);
    expect_text("");
}

Test(transcript, a_text_without_memory_is_none)
{
    uint32_t before = heap_block_count();

    add("hello");
    for (uint32_t call = 1; call <= 2; call++) {
        heap_fail(call);
        cr_expect_null(transcript_text(&transcript));
        cr_expect_eq(heap_block_count(), before);
    }
    heap_fail(0);
    expect_text("hello");
}

Test(transcript, nothing_is_left)
{
    uint32_t before = heap_block_count();
    struct transcript second = {0};

    transcript_open(&second);
    cr_expect_eq(heap_block_count(), before + 1);
    transcript_close(&second);
    cr_expect_eq(heap_block_count(), before);
    heap_fail(1);
    transcript_open(&second);
    cr_expect_null(second.bytes);
}
