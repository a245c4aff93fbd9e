// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator's blocks that change size, batches, released chunks, watermarks, attach, check, and the questions
 * about free memory: each promise of loam/frame.h by example, answers held against a scan frame by frame. One thread,
 * no caches.
 */
#include "loam/frame.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

TestSuite(frame_block, .fini = free_kept);

/* A section of chunks 1 to 9: ragged at both ends, chunk borders at multiples of 512. */
enum { START = 1000, FRAMES = 4000, END = START + FRAMES };

static void assert_unchanged(const struct loam_frame *frame, struct loam_frame_stats before)
{
    struct loam_frame_stats now = loam_frame_get_stats(frame);

    cr_assert_eq(memcmp(&before, &now, sizeof now), 0);
    assert_valid(frame);
}

static struct loam_frame_block take(struct loam_frame *frame, struct loam_frame_request request)
{
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(frame, &request, &block);

    cr_assert_eq(error, LOAM_OK, "%" PRIu64 " frames: %s", request.count_frames, loam_error_name(error));
    cr_assert_eq(block.count_frames, request.count_frames);
    return block;
}

#define TAKE(frame, ...) take(frame, (struct loam_frame_request){__VA_ARGS__})

/* Why a request is refused, which must leave everything as it was and the block zero. */
static enum loam_error refusal(struct loam_frame *frame, struct loam_frame_request request)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    struct loam_frame_block block = {.start = {7}, .count_frames = 7, .section = 7, .flags = 7};
    enum loam_error error = loam_frame_alloc(frame, &request, &block);

    cr_assert_neq(error, LOAM_OK);
    cr_assert(block.start.value == 0 && block.count_frames == 0 && block.section == 0 && block.flags == 0);
    assert_unchanged(frame, before);
    return error;
}

#define REFUSAL(frame, ...) refusal(frame, (struct loam_frame_request){__VA_ARGS__})

static void take_at(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    cr_assert_eq(TAKE(frame, .count_frames = count, .flags = LOAM_FRAME_AT, .at = {start}).start.value, start);
}

static void give(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    cr_assert_eq(loam_frame_free(frame, pfn(start), count), LOAM_OK, "[0x%" PRIx64 ", +%" PRIu64 ")", start, count);
}

static bool is_block(const struct loam_frame *frame, uint64_t at, uint64_t start, uint64_t count,
                     enum loam_frame_tag tag)
{
    struct loam_frame_info info = loam_frame_query(frame, pfn(at));

    return info.state == LOAM_FRAME_ALLOCATED && info.tag == tag && info.block.start.value == start &&
           info.block.count_frames == count;
}

/* Exactly this block stands there: asked at its ends, its middle, and beside it. */
static void assert_block(const struct loam_frame *frame, uint64_t start, uint64_t count, enum loam_frame_tag tag)
{
    struct loam_frame_info behind = loam_frame_query(frame, pfn(start + count));
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_check(frame, pfn(start), count, &diag), LOAM_OK, "%s", diag.text);
    cr_assert(is_block(frame, start, start, count, tag));
    cr_assert(is_block(frame, start + count / 2, start, count, tag));
    cr_assert(is_block(frame, start + count - 1, start, count, tag));
    cr_assert(behind.state != LOAM_FRAME_ALLOCATED || behind.block.start.value == start + count);
    cr_assert_eq(loam_frame_check(frame, pfn(start), count + 1, NULL), LOAM_ERROR_INVALID);
}

static void tag(struct loam_frame *frame, uint64_t start)
{
    cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
}

static bool is_free(const struct loam_frame *frame, uint64_t at)
{
    return loam_frame_query(frame, pfn(at)).state == LOAM_FRAME_FREE;
}

/* --- Grow ------------------------------------------------------------------------------------------------------ */

/* From every interesting place and length to every length that fits. */
Test(frame_block, grow_takes_the_frames_behind_and_keeps_the_tag)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    uint64_t starts[] = {START, 1010, 1024, 1535, 1536, 2000}, counts[] = {1, 9, 512, 700};

    for (size_t i = 0; i < 24; i++) {
        uint64_t start = starts[i / 4], count = counts[i % 4];

        for (uint64_t wanted = count + 1; start + wanted <= END; wanted += wanted % 512 > 500 ? 1 : 41) {
            uint32_t flags = 7;

            take_at(frame, start, count);
            tag(frame, start);
            cr_assert_eq(loam_frame_grow(frame, pfn(start), count, wanted, &flags), LOAM_OK);
            cr_assert_eq(flags, 0);
            assert_block(frame, start, wanted, LOAM_FRAME_TAG_SLAB);
            cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, wanted);
            assert_valid(frame);
            cr_assert_eq(loam_frame_free(frame, pfn(start), count), LOAM_ERROR_INVALID);
            give(frame, start, wanted);
        }
    }
    assert_valid(frame);
}

Test(frame_block, grow_step_by_step_fills_a_section)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    take_at(frame, START, 1);
    for (uint64_t count = 1; count < FRAMES; count++) {
        cr_assert_eq(loam_frame_grow(frame, pfn(START), count, count + 1, NULL), LOAM_OK);
        cr_assert_eq(loam_frame_get_stats(frame).free_frames, FRAMES - count - 1);
        assert_valid(frame);
    }
    assert_block(frame, START, FRAMES, LOAM_FRAME_TAG_NONE);
    cr_assert_eq(loam_frame_grow(frame, pfn(START), FRAMES, FRAMES + 1, NULL), LOAM_ERROR_NOT_FOUND);
    give(frame, START, FRAMES);
}

static enum loam_error grow_refusal(struct loam_frame *frame, uint64_t start, uint64_t count, uint64_t wanted)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    uint32_t flags = 7;
    enum loam_error error = loam_frame_grow(frame, pfn(start), count, wanted, &flags);

    cr_assert_neq(error, LOAM_OK);
    cr_assert_eq(flags, 0);
    assert_unchanged(frame, before);
    return error;
}

Test(frame_block, grow_refuses_what_is_not_that_block)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    take_at(frame, 1200, 10);
    cr_assert_eq(grow_refusal(frame, START - 1, 1, 2), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(grow_refusal(frame, END, 1, 2), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(grow_refusal(frame, UINT64_MAX, 1, 2), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(grow_refusal(frame, 1199, 10, 20), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1201, 9, 20), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1200, 9, 20), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1200, 11, 20), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1200, 0, 20), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1200, 10, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1200, 10, 9), LOAM_ERROR_INVALID);
    cr_assert_eq(grow_refusal(frame, 1200, 10, 0), LOAM_ERROR_INVALID);
    assert_block(frame, 1200, 10, LOAM_FRAME_TAG_NONE);
}

Test(frame_block, grow_refuses_frames_that_are_taken_or_not_there)
{
    struct loam_frame *frame = make(NULL);

    add(frame, START, FRAMES);
    add(frame, END, 1000);
    take_at(frame, 4600, 100);
    take_at(frame, 1200, 10);
    take_at(frame, 2900, 1);
    cr_assert_eq(grow_refusal(frame, 1200, 10, 1701), LOAM_ERROR_BUSY);
    cr_assert_eq(grow_refusal(frame, 1200, 10, 3000), LOAM_ERROR_BUSY);
    cr_assert_eq(grow_refusal(frame, 4600, 100, END - 4600 + 1), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_grow(frame, pfn(1200), 10, 1700, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_grow(frame, pfn(4600), 100, END - 4600, NULL), LOAM_OK);
    assert_block(frame, 1200, 1700, LOAM_FRAME_TAG_NONE);
    assert_block(frame, 4600, END - 4600, LOAM_FRAME_TAG_NONE);
}

Test(frame_block, grow_reaches_the_largest_block_and_no_further)
{
    struct loam_frame *frame = make_with(100, LOAM_FRAME_COUNT_MAX + 1000);

    take_at(frame, 300, 5);
    cr_assert_eq(grow_refusal(frame, 300, 5, LOAM_FRAME_COUNT_MAX + 1), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_grow(frame, pfn(300), 5, LOAM_FRAME_COUNT_MAX, NULL), LOAM_OK);
    assert_block(frame, 300, LOAM_FRAME_COUNT_MAX, LOAM_FRAME_TAG_NONE);
    assert_valid(frame);
}

/* Only a block that lies below 4 GiB as a whole may take of the reserve. */
Test(frame_block, grow_leaves_the_reserve_to_blocks_within_it)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 100});

    add(frame, ZONE_END - 300, 600);
    take_at(frame, ZONE_END - 300, 150);
    cr_assert_eq(loam_frame_grow(frame, pfn(ZONE_END - 300), 150, 250, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], 50);
    cr_assert_eq(grow_refusal(frame, ZONE_END - 300, 250, 400), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_grow(frame, pfn(ZONE_END - 300), 250, 300, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], 0);
    assert_valid(frame);
}

Test(frame_block, grow_across_4_gib_takes_what_the_reserve_can_spare)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 100});

    add(frame, 0, 100);
    add(frame, ZONE_END - 300, 600);
    take_at(frame, ZONE_END - 20, 10);
    cr_assert_eq(loam_frame_grow(frame, pfn(ZONE_END - 20), 10, 320, NULL), LOAM_OK);
    assert_block(frame, ZONE_END - 20, 320, LOAM_FRAME_TAG_NONE);
    assert_valid(frame);
}

/* --- Trim ------------------------------------------------------------------------------------------------------ */

Test(frame_block, trim_frees_the_tail_and_keeps_the_tag)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    uint64_t starts[] = {START, 1024, 1300, 1535}, counts[] = {2, 300, 512, 1024, 2500};

    for (size_t i = 0; i < 20; i++) {
        uint64_t start = starts[i / 5], count = counts[i % 5];

        for (uint64_t rest = 1; rest<count; rest += rest % 512> 500 || rest % 64 < 5 ? 1 : 19) {
            take_at(frame, start, count);
            tag(frame, start);
            cr_assert_eq(loam_frame_trim(frame, pfn(start), count, rest), LOAM_OK);
            assert_block(frame, start, rest, LOAM_FRAME_TAG_SLAB);
            cr_assert(is_free(frame, start + rest) && is_free(frame, start + count - 1));
            cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, rest);
            assert_valid(frame);
            take_at(frame, start + rest, count - rest);
            assert_block(frame, start, rest, LOAM_FRAME_TAG_SLAB);
            assert_block(frame, start + rest, count - rest, LOAM_FRAME_TAG_NONE);
            give(frame, start + rest, count - rest);
            give(frame, start, rest);
        }
    }
    assert_valid(frame);
}

static enum loam_error trim_refusal(struct loam_frame *frame, uint64_t start, uint64_t count, uint64_t rest)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    enum loam_error error = loam_frame_trim(frame, pfn(start), count, rest);

    cr_assert_neq(error, LOAM_OK);
    assert_unchanged(frame, before);
    return error;
}

Test(frame_block, trim_refuses_what_is_malformed)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    take_at(frame, 1200, 1000);
    cr_assert_eq(trim_refusal(frame, 1200, 1000, 0), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1200, 1000, 1000), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1200, 1000, 1001), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1200, 1000, UINT64_MAX), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1200, 999, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1200, 1001, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1201, 999, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 1536, 512, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 2200, 1000, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(trim_refusal(frame, 999, 1000, 10), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(trim_refusal(frame, END, 1000, 10), LOAM_ERROR_NOT_FOUND);
    assert_block(frame, 1200, 1000, LOAM_FRAME_TAG_NONE);
}

/* --- Split ----------------------------------------------------------------------------------------------------- */

Test(frame_block, split_makes_two_blocks_with_the_same_tag)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    uint64_t starts[] = {START, 1024, 1300, 1535}, counts[] = {2, 300, 512, 1024, 2500};

    for (size_t i = 0; i < 20; i++) {
        uint64_t start = starts[i / 5], count = counts[i % 5];
        enum loam_frame_tag mark = i % 2 ? LOAM_FRAME_TAG_SLAB : LOAM_FRAME_TAG_NONE;

        for (uint64_t first = 1; first<count; first += first % 512> 500 || first % 64 < 5 ? 1 : 19) {
            take_at(frame, start, count);
            cr_assert_eq(loam_frame_tag_set(frame, pfn(start), mark), LOAM_OK);
            cr_assert_eq(loam_frame_split(frame, pfn(start), count, first), LOAM_OK);
            assert_block(frame, start, first, mark);
            assert_block(frame, start + first, count - first, mark);
            cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, count);
            assert_valid(frame);
            cr_assert_eq(loam_frame_free(frame, pfn(start), count), LOAM_ERROR_INVALID);
            give(frame, start + first * (first % 2), first % 2 ? count - first : first);
            assert_valid(frame);
            give(frame, start + first * (first % 2 == 0), first % 2 ? first : count - first);
        }
    }
    assert_valid(frame);
}

Test(frame_block, split_down_to_single_frames)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    take_at(frame, 1500, 1600);
    tag(frame, 1500);
    for (uint64_t count = 1600; count > 1; count--) {
        cr_assert_eq(loam_frame_split(frame, pfn(3100 - count), count, 1), LOAM_OK);
    }
    assert_valid(frame);
    for (uint64_t n = 0; n < 1600; n++) {
        assert_block(frame, 1500 + n, 1, LOAM_FRAME_TAG_SLAB);
    }
    for (uint64_t n = 0; n < 1600; n++) {
        give(frame, 1500 + n * 7 % 1600, 1);
    }
    assert_valid(frame);
}

static enum loam_error split_refusal(struct loam_frame *frame, uint64_t start, uint64_t count, uint64_t first)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    enum loam_error error = loam_frame_split(frame, pfn(start), count, first);

    cr_assert_neq(error, LOAM_OK);
    assert_unchanged(frame, before);
    return error;
}

Test(frame_block, split_refuses_what_is_malformed)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    take_at(frame, 1200, 1000);
    cr_assert_eq(split_refusal(frame, 1200, 1000, 0), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 1200, 1000, 1000), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 1200, 1000, UINT64_MAX), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 1200, 999, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 1200, 1001, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 1201, 999, 10), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 1100, 10, 5), LOAM_ERROR_INVALID);
    cr_assert_eq(split_refusal(frame, 999, 10, 5), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(split_refusal(frame, END, 10, 5), LOAM_ERROR_NOT_FOUND);
    assert_block(frame, 1200, 1000, LOAM_FRAME_TAG_NONE);
}

/* --- Batches --------------------------------------------------------------------------------------------------- */

enum { BATCH = 600 };

static void assert_distinct_blocks(const struct loam_frame *frame, const loam_pfn *starts, size_t count, uint32_t order,
                                   uint64_t limit)
{
    uint64_t frames = UINT64_C(1) << order;

    for (size_t i = 0; i < count; i++) {
        cr_assert(loam_is_aligned(starts[i].value, frames));
        cr_assert(limit == 0 || starts[i].value + frames <= limit);
        assert_block(frame, starts[i].value, frames, LOAM_FRAME_TAG_NONE);
    }
    /* No two are one block: together they are all there is. */
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, count * frames);
}

Test(frame_block, batches_of_every_order_come_and_go)
{
    struct loam_frame *frame = make_with(ZONE_END - 9000, 20000);
    loam_pfn starts[BATCH];
    size_t done;

    for (uint32_t order = 0; order <= 12; order++) {
        size_t count = order < 3 ? BATCH : (size_t)2200 >> order;

        count = count == 0 ? 1 : count;
        for (uint64_t limit = 0; limit <= ZONE_END; limit += ZONE_END) {
            cr_assert_eq(loam_frame_alloc_batch(frame, order, pfn(limit), starts, count), LOAM_OK);
            assert_distinct_blocks(frame, starts, count, order, limit);
            assert_valid(frame);
            cr_assert_eq(loam_frame_free_batch(frame, order, starts, count, &done), LOAM_OK);
            cr_assert_eq(done, count);
            cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 0);
            assert_valid(frame);
        }
    }
}

static enum loam_error batch_refusal(struct loam_frame *frame, uint32_t order, uint64_t limit, size_t count)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    loam_pfn starts[BATCH];
    enum loam_error error;

    memset(starts, 0x77, sizeof starts);
    error = loam_frame_alloc_batch(frame, order, pfn(limit), starts, count);
    cr_assert_neq(error, LOAM_OK);
    for (size_t i = 0; error != LOAM_ERROR_INVALID && i < count; i++) {
        cr_assert_eq(starts[i].value, 0);
    }
    assert_unchanged(frame, before);
    return error;
}

Test(frame_block, a_batch_is_had_whole_or_not_at_all)
{
    struct loam_frame *frame = make_with(START, 599);
    loam_pfn starts[BATCH];
    size_t done;

    cr_assert_eq(batch_refusal(frame, 0, 0, 600), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, 0, 1100, 101), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, 9, 0, 2), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, LOAM_FRAME_ORDER_MAX + 1, 0, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(batch_refusal(frame, UINT32_MAX, 0, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_alloc_batch(frame, 0, pfn(0), starts, 599), LOAM_OK);
    cr_assert_eq(batch_refusal(frame, 0, 0, 1), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_free_batch(frame, 0, starts, 599, &done), LOAM_OK);
    assert_valid(frame);
}

Test(frame_block, an_empty_batch_changes_nothing)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    size_t done = 7;

    cr_assert_eq(loam_frame_alloc_batch(frame, 0, pfn(0), &(loam_pfn){0}, 0), LOAM_OK);
    cr_assert_eq(loam_frame_free_batch(frame, 0, &(loam_pfn){0}, 0, &done), LOAM_OK);
    cr_assert_eq(done, 0);
    assert_unchanged(frame, before);
}

Test(frame_block, a_batch_without_limit_leaves_the_reserve)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 100});
    loam_pfn starts[BATCH];

    add(frame, 5000, 300);
    cr_assert_eq(batch_refusal(frame, 0, 0, 201), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, 0, ZONE_END + 1, 201), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_alloc_batch(frame, 0, pfn(0), starts, 200), LOAM_OK);
    cr_assert_eq(batch_refusal(frame, 0, ZONE_END, 101), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_alloc_batch(frame, 0, pfn(ZONE_END), starts + 200, 100), LOAM_OK);
    assert_distinct_blocks(frame, starts, 300, 0, 0);
}

Test(frame_block, a_batch_of_frees_stops_at_the_first_that_is_wrong)
{
    uint64_t wrong[] = {1, START + FRAMES, UINT64_MAX};
    loam_pfn starts[100];

    for (size_t i = 0; i < 5; i++) {
        struct loam_frame *frame = make_with(START, FRAMES);
        loam_pfn kept;
        size_t done = 0;

        cr_assert_eq(loam_frame_alloc_batch(frame, 2, pfn(0), starts, 100), LOAM_OK);
        kept = starts[40];
        starts[40] = i < 3 ? pfn(wrong[i]) : i == 3 ? starts[7] : pfn(starts[70].value + 1);
        cr_assert_eq(loam_frame_free_batch(frame, 2, starts, 100, &done),
                     i < 3 ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID);
        cr_assert_eq(done, 40);
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 60 * 4);
        assert_valid(frame);
        starts[40] = kept;
        cr_assert_eq(loam_frame_free_batch(frame, 2, starts + 40, 60, &done), LOAM_OK);
        cr_assert_eq(done, 60);
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 0);
    }
}

Test(frame_block, a_batch_of_frees_of_another_order_is_refused)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    loam_pfn starts[10];
    size_t done = 7;

    cr_assert_eq(loam_frame_alloc_batch(frame, 3, pfn(0), starts, 10), LOAM_OK);
    cr_assert_eq(loam_frame_free_batch(frame, 2, starts, 10, &done), LOAM_ERROR_INVALID);
    cr_assert_eq(done, 0);
    cr_assert_eq(loam_frame_free_batch(frame, LOAM_FRAME_ORDER_MAX + 1, starts, 10, &done), LOAM_ERROR_INVALID);
    cr_assert_eq(done, 0);
    assert_distinct_blocks(frame, starts, 10, 3, 0);
}

/* --- Reclaim --------------------------------------------------------------------------------------------------- */

/* Chunks of a section [0, 8 * 512) by number. */
static void release_chunks(struct loam_frame *frame, uint64_t chunk, uint64_t count)
{
    take_at(frame, chunk * 512, count * 512);
    cr_assert_eq(loam_frame_free_released(frame, pfn(chunk * 512), count * 512), LOAM_OK);
    assert_valid(frame);
}

static void assert_released_chunks(const struct loam_frame *frame, const char *chunks)
{
    for (uint64_t n = 0; chunks[n] != '\0'; n++) {
        cr_assert_eq(loam_frame_query(frame, pfn(n * 512 + 77)).released, chunks[n] == 'r', "chunk %" PRIu64, n);
    }
}

Test(frame_block, released_chunks_are_counted_and_serve_last)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    loam_pfn start;

    release_chunks(frame, 2, 3);
    assert_released_chunks(frame, "..rrr...");
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 3);
    cr_assert_eq(loam_frame_get_stats(frame).free_chunks, 8);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 8 * 512);
    for (int i = 0; i < 5 * 512; i++) {
        cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_OK);
        cr_assert(start.value < 1024 || start.value >= 2560);
    }
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(start.value, 0);
    cr_assert_eq(REFUSAL(frame, .count_frames = 1, .flags = LOAM_FRAME_BACKED), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(TAKE(frame, .count_frames = 1).flags, LOAM_FRAME_BLOCK_RELEASED);
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 2);
    assert_valid(frame);
}

/* With one order-9 block each of both kinds free, and one request for each kind of chunk. */
Test(frame_block, requests_choose_between_backed_and_released)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    struct loam_frame_block block;

    release_chunks(frame, 3, 2);
    block = TAKE(frame, .count_frames = 700, .flags = LOAM_FRAME_RELEASED);
    cr_assert(block.start.value >= 3 * 512 && block.start.value + 700 <= 5 * 512);
    cr_assert_eq(block.flags, LOAM_FRAME_BLOCK_RELEASED);
    cr_assert_eq(REFUSAL(frame, .count_frames = 400, .flags = LOAM_FRAME_RELEASED), LOAM_ERROR_EXHAUSTED);
    block = TAKE(frame, .count_frames = 300, .flags = LOAM_FRAME_RELEASED);
    cr_assert(block.start.value >= 3 * 512 && block.start.value + 300 <= 5 * 512);
    block = TAKE(frame, .count_frames = 3 * 512, .flags = LOAM_FRAME_BACKED);
    cr_assert_eq(block.flags, 0);
    cr_assert_eq(REFUSAL(frame, .count_frames = 1, .flags = LOAM_FRAME_BACKED | LOAM_FRAME_RELEASED),
                 LOAM_ERROR_INVALID);
    assert_valid(frame);
}

Test(frame_block, a_block_that_spans_both_kinds_is_neither_backed_nor_released)
{
    struct loam_frame *frame = make_with(0, 4 * 512);

    release_chunks(frame, 1, 1);
    cr_assert_eq(REFUSAL(frame, .count_frames = 4 * 512, .flags = LOAM_FRAME_BACKED), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(REFUSAL(frame, .count_frames = 4 * 512, .flags = LOAM_FRAME_RELEASED), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_alloc_order(frame, 11, &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(REFUSAL(frame, .count_frames = 2, .flags = LOAM_FRAME_AT | LOAM_FRAME_BACKED, .at = {511}),
                 LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(TAKE(frame, .count_frames = 4 * 512, .align_frames = 4 * 512).flags, LOAM_FRAME_BLOCK_RELEASED);
    give(frame, 0, 4 * 512);
    assert_released_chunks(frame, ".r..");
    cr_assert_eq(TAKE(frame, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {511}).flags, LOAM_FRAME_BLOCK_RELEASED);
    cr_assert_eq(TAKE(frame, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {1024}).flags, 0);
    assert_valid(frame);
}

Test(frame_block, released_stays_with_the_chunk_until_it_is_backed)
{
    struct loam_frame *frame = make_with(0, 4 * 512);
    struct loam_frame_block one, two;

    release_chunks(frame, 0, 4);
    one = TAKE(frame, .count_frames = 10);
    two = TAKE(frame, .count_frames = 20);
    cr_assert_eq(one.start.value / 512, two.start.value / 512);
    cr_assert_eq(one.flags & two.flags, LOAM_FRAME_BLOCK_RELEASED);
    give(frame, one.start.value, 10);
    give(frame, two.start.value, 20);
    assert_released_chunks(frame, "rrrr");
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 4);
    take_at(frame, 600, 10);
    take_at(frame, 700, 10);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(700), 10), LOAM_OK);
    assert_released_chunks(frame, "r.rr");
    cr_assert_eq(TAKE(frame, .count_frames = 1, .flags = LOAM_FRAME_AT, .at = {800}).flags, 0);
    give(frame, 600, 10);
    give(frame, 700, 10);
    give(frame, 800, 1);
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 3);
    assert_valid(frame);
}

Test(frame_block, set_backed_reaches_every_chunk_that_the_block_touches)
{
    struct loam_frame *frame = make_with(0, 8 * 512);

    release_chunks(frame, 0, 8);
    take_at(frame, 1000, 1100);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(1000), 1100), LOAM_OK);
    assert_released_chunks(frame, "r....rrr");
    assert_valid(frame);
    give(frame, 1000, 1100);
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 4);
    assert_released_chunks(frame, "r....rrr");
    assert_valid(frame);
}

static enum loam_error released_refusal(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    enum loam_error error = loam_frame_free_released(frame, pfn(start), count);

    cr_assert_neq(error, LOAM_OK);
    assert_unchanged(frame, before);
    return error;
}

Test(frame_block, only_blocks_of_whole_chunks_are_freed_as_released)
{
    struct loam_frame *frame = make_with(100, 8 * 512);

    take_at(frame, 512, 512);
    take_at(frame, 1024, 1025);
    take_at(frame, 2100, 1000);
    take_at(frame, 100, 412);
    take_at(frame, 4096, 100);
    cr_assert_eq(released_refusal(frame, 1024, 1025), LOAM_ERROR_INVALID);
    cr_assert_eq(released_refusal(frame, 2100, 1000), LOAM_ERROR_INVALID);
    cr_assert_eq(released_refusal(frame, 100, 412), LOAM_ERROR_INVALID);
    cr_assert_eq(released_refusal(frame, 4096, 100), LOAM_ERROR_INVALID);
    cr_assert_eq(released_refusal(frame, 512, 1024), LOAM_ERROR_INVALID);
    cr_assert_eq(released_refusal(frame, 3584, 512), LOAM_ERROR_INVALID);
    cr_assert_eq(released_refusal(frame, 0, 512), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(released_refusal(frame, 8 * 512 + 100, 512), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_free_released(frame, pfn(512), 512), LOAM_OK);
    cr_assert_eq(released_refusal(frame, 512, 512), LOAM_ERROR_INVALID);
    assert_valid(frame);
}

Test(frame_block, set_backed_wants_an_allocated_block)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    take_at(frame, 1200, 1000);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(1200), 999), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(1201), 999), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(3000), 10), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(999), 10), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(1200), 1000), LOAM_OK);
    assert_valid(frame);
}

Test(frame_block, blocks_that_change_size_keep_count_of_released_chunks)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    uint32_t flags = 0;

    release_chunks(frame, 1, 2);
    take_at(frame, 500, 5);
    cr_assert_eq(loam_frame_grow(frame, pfn(500), 5, 12, &flags), LOAM_OK);
    cr_assert_eq(flags, 0);
    cr_assert_eq(loam_frame_grow(frame, pfn(500), 12, 600, &flags), LOAM_OK);
    cr_assert_eq(flags, LOAM_FRAME_BLOCK_RELEASED);
    assert_released_chunks(frame, ".rr.....");
    cr_assert_eq(loam_frame_split(frame, pfn(500), 600, 12), LOAM_OK);
    assert_released_chunks(frame, ".rr.....");
    cr_assert_eq(loam_frame_trim(frame, pfn(512), 588, 1), LOAM_OK);
    assert_released_chunks(frame, ".rr.....");
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 1);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(512), 1), LOAM_OK);
    assert_released_chunks(frame, "..r.....");
    assert_valid(frame);
    give(frame, 500, 12);
    give(frame, 512, 1);
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 1);
    assert_valid(frame);
}

Test(frame_block, every_chunk_can_be_released_and_given_back)
{
    struct loam_frame *frame = make_with(0, 64 * 512);
    struct loam_frame_block block;

    for (uint64_t n = 0; n < 64; n++) {
        block = TAKE(frame, .count_frames = 512, .align_frames = 512, .flags = LOAM_FRAME_BACKED);
        cr_assert_eq(loam_frame_free_released(frame, block.start, 512), LOAM_OK);
        cr_assert_eq(loam_frame_get_stats(frame).released_chunks, n + 1);
        assert_valid(frame);
    }
    cr_assert_eq(REFUSAL(frame, .count_frames = 1, .flags = LOAM_FRAME_BACKED), LOAM_ERROR_EXHAUSTED);
    for (uint64_t n = 64; n > 0; n--) {
        block = TAKE(frame, .count_frames = 512, .align_frames = 512, .flags = LOAM_FRAME_RELEASED);
        cr_assert_eq(loam_frame_set_backed(frame, block.start, 512), LOAM_OK);
        give(frame, block.start.value, 512);
        cr_assert_eq(loam_frame_get_stats(frame).released_chunks, n - 1);
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_alloc_order(frame, 15, &(loam_pfn){0}), LOAM_OK);
}

Test(frame_block, sections_with_released_chunks_can_go)
{
    struct loam_frame *frame = make(NULL);
    uint32_t section = add(frame, 0, 8 * 512);

    release_chunks(frame, 1, 6);
    cr_assert_eq(loam_frame_section_remove(frame, section, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 0);
    assert_valid(frame);
    add(frame, 0, 8 * 512);
    assert_released_chunks(frame, "........");
    assert_valid(frame);
}

/* --- Watermarks ------------------------------------------------------------------------------------------------ */

Test(frame_block, watermarks_that_contradict_each_other_are_refused)
{
    cr_assert_eq(loam_frame_bytes(&(struct loam_frame_config){.watermarks = {{10, 9}}}), 0);
    cr_assert_eq(loam_frame_bytes(&(struct loam_frame_config){.watermarks = {{0, 0}, {1, 0}}}), 0);
    cr_assert_gt(loam_frame_bytes(&(struct loam_frame_config){.watermarks = {{10, 10}, {5, 7}}}), 0);
}

/* Pressure begins below low and ends at high, in each zone for itself, and blocks say so. */
static void assert_watermarks(enum loam_frame_zone zone, uint64_t limit)
{
    struct loam_frame_config config = {.watermarks = {{50, 70}, {50, 70}}};
    enum loam_frame_zone other = zone == LOAM_FRAME_ZONE_DMA32 ? LOAM_FRAME_ZONE_NORMAL : LOAM_FRAME_ZONE_DMA32;
    struct loam_frame *frame = make(&config);
    uint64_t starts[100];

    add(frame, ZONE_END - 100, 200);
    for (uint64_t n = 0; n < 60; n++) {
        struct loam_frame_block block = TAKE(frame, .count_frames = 1, .limit = {limit});

        starts[n] = block.start.value;
        cr_assert_eq(block.start.value < ZONE_END, zone == LOAM_FRAME_ZONE_DMA32);
        cr_assert_eq(block.flags, n + 1 > 50 ? LOAM_FRAME_BLOCK_PRESSURE : 0);
        cr_assert_eq(loam_frame_pressure(frame, zone), n + 1 > 50);
        cr_assert(!loam_frame_pressure(frame, other));
    }
    for (uint64_t n = 60; n > 0; n--) {
        give(frame, starts[n - 1], 1);
        cr_assert_eq(loam_frame_pressure(frame, zone), 101 - n < 70);
    }
    assert_valid(frame);
}

Test(frame_block, pressure_lasts_from_low_to_high)
{
    assert_watermarks(LOAM_FRAME_ZONE_DMA32, ZONE_END);
    assert_watermarks(LOAM_FRAME_ZONE_NORMAL, 0);
}

Test(frame_block, no_watermark_is_no_pressure)
{
    struct loam_frame *frame = make_with(ZONE_END - 100, 200);

    take_at(frame, ZONE_END - 100, 200);
    cr_assert(!loam_frame_pressure(frame, LOAM_FRAME_ZONE_DMA32));
    cr_assert(!loam_frame_pressure(frame, LOAM_FRAME_ZONE_NORMAL));
}

Test(frame_block, growing_and_trimming_move_the_pressure)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.watermarks = {{50, 70}}});
    uint32_t flags = 0;

    add(frame, 0, 100);
    take_at(frame, 0, 50);
    cr_assert_eq(loam_frame_grow(frame, pfn(0), 50, 51, &flags), LOAM_OK);
    cr_assert_eq(flags, LOAM_FRAME_BLOCK_PRESSURE);
    cr_assert(loam_frame_pressure(frame, LOAM_FRAME_ZONE_DMA32));
    cr_assert_eq(loam_frame_trim(frame, pfn(0), 51, 31), LOAM_OK);
    cr_assert(loam_frame_pressure(frame, LOAM_FRAME_ZONE_DMA32));
    cr_assert_eq(loam_frame_trim(frame, pfn(0), 31, 30), LOAM_OK);
    cr_assert(!loam_frame_pressure(frame, LOAM_FRAME_ZONE_DMA32));
    assert_valid(frame);
}

/* --- Attach ---------------------------------------------------------------------------------------------------- */

/* An allocator and one section's metadata in one piece of memory, so that it can be copied as a whole. */
struct arena {
    char *memory;
    size_t allocator_bytes;
    size_t bytes;
};

static struct arena arena_make(uint64_t start, uint64_t count)
{
    struct arena arena = {.allocator_bytes = (loam_frame_bytes(NULL) + 63) / 64 * 64};
    struct loam_frame *frame;
    size_t bytes;

    arena.memory = keep(metadata_alloc(arena.allocator_bytes + 65536));
    cr_assert_eq(loam_frame_init(arena.memory, arena.allocator_bytes, NULL, &frame), LOAM_OK);
    bytes = loam_frame_section_bytes(frame, pfn(start), count);
    cr_assert_leq(bytes, 65536);
    arena.bytes = arena.allocator_bytes + bytes;
    cr_assert_eq(loam_frame_section_add(frame, pfn(start), count, arena.memory + arena.allocator_bytes, bytes, NULL),
                 LOAM_OK);
    return arena;
}

static struct loam_frame *attach(char *memory, size_t bytes)
{
    struct loam_diag diag = {0};
    struct loam_frame *frame;

    cr_assert_eq(loam_frame_attach(memory, bytes, &frame, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq((void *)frame, (void *)memory);
    return frame;
}

Test(frame_block, what_is_attached_elsewhere_goes_on_as_it_was)
{
    struct arena arena = arena_make(START, FRAMES);
    char *copy = keep(metadata_alloc(arena.bytes));
    struct loam_frame *frame = attach(arena.memory, arena.allocator_bytes);

    take_at(frame, 1200, 1000);
    tag(frame, 1200);
    memcpy(copy, arena.memory, arena.bytes);
    memset(arena.memory, 0xee, arena.bytes);
    frame = attach(copy, arena.allocator_bytes);
    assert_block(frame, 1200, 1000, LOAM_FRAME_TAG_SLAB);
    assert_valid(frame);
    give(frame, 1200, 1000);
    cr_assert_eq(TAKE(frame, .count_frames = FRAMES).start.value, START);
    assert_valid(frame);
}

static enum loam_error attach_refusal(void *memory, size_t bytes)
{
    struct loam_frame *frame = (struct loam_frame *)&frame;
    struct loam_diag diag = {0};
    enum loam_error error = loam_frame_attach(memory, bytes, &frame, &diag);

    cr_assert_neq(error, LOAM_OK);
    cr_assert_null(frame);
    cr_assert_eq(diag.error, error);
    cr_assert_str_not_empty(diag.text);
    cr_assert_eq(loam_frame_attach(memory, bytes, &frame, NULL), error);
    return error;
}

Test(frame_block, attach_refuses_what_is_no_allocator)
{
    struct arena arena = arena_make(START, FRAMES);
    char *other = keep(metadata_alloc(arena.bytes + 64));

    cr_assert_eq(attach_refusal(NULL, arena.allocator_bytes), LOAM_ERROR_INVALID);
    cr_assert_eq(attach_refusal(arena.memory + 8, arena.allocator_bytes), LOAM_ERROR_INVALID);
    cr_assert_eq(attach_refusal(arena.memory, arena.allocator_bytes - 1), LOAM_ERROR_INVALID);
    cr_assert_eq(attach_refusal(arena.memory, 0), LOAM_ERROR_INVALID);
    cr_assert_eq(attach_refusal(other, arena.allocator_bytes), LOAM_ERROR_UNINITIALISED);
    memset(other, 0, arena.bytes);
    cr_assert_eq(attach_refusal(other, arena.allocator_bytes), LOAM_ERROR_UNINITIALISED);
    assert_valid(attach(arena.memory, arena.allocator_bytes));
}

/* --- Check ----------------------------------------------------------------------------------------------------- */

static enum loam_error check(const struct loam_frame *frame, uint64_t start, uint64_t count, const char *text)
{
    struct loam_diag diag = {0};
    enum loam_error error = loam_frame_check(frame, pfn(start), count, &diag);

    cr_assert_eq(diag.error, error);
    cr_assert_eq(loam_frame_check(frame, pfn(start), count, NULL), error);
    cr_assert(text == NULL ? diag.text[0] == '\0' : strstr(diag.text, text) != NULL, "%s", diag.text);
    cr_assert_null(strchr(diag.text, '\n'));
    return error;
}

Test(frame_block, check_says_whether_a_block_could_be_freed)
{
    struct loam_frame *frame = make_with(0x1000, 0x1000);
    struct loam_frame_stats before;

    take_at(frame, 0x1230, 8);
    before = loam_frame_get_stats(frame);
    cr_assert_eq(check(frame, 0x1230, 8, NULL), LOAM_OK);
    cr_assert_eq(check(frame, 0x1238, 4, "block [0x1238, 0x123c): frame 0x1238 is free in section 0"),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(check(frame, 0x1234, 4, "0x1230"), LOAM_ERROR_INVALID);
    cr_assert_eq(check(frame, 0x1230, 9, "0x1230"), LOAM_ERROR_INVALID);
    cr_assert_eq(check(frame, 0x1230, 0, "0x1230"), LOAM_ERROR_INVALID);
    cr_assert_eq(check(frame, 0x1230, UINT64_MAX, "0x1230"), LOAM_ERROR_INVALID);
    cr_assert_eq(check(frame, 0x2000, 1, "0x2000"), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(check(frame, UINT64_MAX, 1, "0xffffffffffffffff"), LOAM_ERROR_NOT_FOUND);
    assert_unchanged(frame, before);
}

/* What check says is what free does, whatever is asked. */
Test(frame_block, check_foretells_free)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    uint64_t served = 0;

    take_at(frame, 1020, 10);
    take_at(frame, 1030, 1100);
    take_at(frame, 2560, 512);
    for (uint64_t at = 990; at < 3100; at++) {
        uint64_t counts[] = {0, 1, 10, 512, 1100, loam_frame_query(frame, pfn(at)).block.count_frames};

        for (size_t i = 0; i < 6; i++) {
            enum loam_error error = loam_frame_check(frame, pfn(at), counts[i], NULL);

            cr_assert_eq(loam_frame_free(frame, pfn(at), counts[i]), error);
            served += error == LOAM_OK;
        }
    }
    cr_assert_eq(served, 3);
}

/* --- Questions about free memory ------------------------------------------------------------------------------- */

static uint64_t random_below(uint64_t *random, uint64_t limit)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random % limit;
}

/* Sections that meet in the middle of a chunk, and one across 4 GiB. */
static const struct loam_frame_range areas[] = {{{START}, 3000}, {{START + 3000}, 2500}, {{ZONE_END - 1700}, 4600}};

/* Blocks of many lengths, holes, and released chunks. */
static struct loam_frame *scatter(uint64_t seed, uint64_t density)
{
    struct loam_frame *frame = make(NULL);
    uint64_t random = seed;

    for (size_t i = 0; i < 3; i++) {
        uint64_t at = areas[i].start.value, end = at + areas[i].count_frames;

        add(frame, at, end - at);
        while (at < end) {
            uint64_t long_run = random_below(&random, 4) == 0 ? 900 : 12;
            uint64_t count = 1 + random_below(&random, long_run);

            count = count < end - at ? count : end - at;
            if (random_below(&random, 100) < density) {
                take_at(frame, at, count);
            }
            at += count;
        }
    }
    for (uint64_t chunk = 2; chunk < 9; chunk += 1 + random_below(&random, 3)) {
        struct loam_frame_request request = {
            .count_frames = 512, .flags = LOAM_FRAME_AT | LOAM_FRAME_BACKED, .at = {chunk * 512}};
        struct loam_frame_block block;

        if (loam_frame_alloc(frame, &request, &block) == LOAM_OK) {
            cr_assert_eq(loam_frame_free_released(frame, block.start, 512), LOAM_OK);
        }
    }
    assert_valid(frame);
    return frame;
}

/* Free frames of one area from at on, frame by frame. */
static uint64_t free_run(const struct loam_frame *frame, uint64_t at, uint64_t end)
{
    uint64_t count = 0;

    while (at + count < end && is_free(frame, at + count)) {
        count++;
    }
    return count;
}

static struct loam_frame_range naive_next_free(const struct loam_frame *frame, uint64_t from)
{
    for (size_t i = 0; i < 3; i++) {
        uint64_t start = areas[i].start.value, end = start + areas[i].count_frames;

        for (uint64_t at = from > start ? from : start; at < end; at++) {
            uint64_t count = free_run(frame, at, end);

            if (count > 0) {
                return (struct loam_frame_range){pfn(at), count};
            }
        }
    }
    return (struct loam_frame_range){0};
}

Test(frame_block, next_free_is_what_a_scan_finds)
{
    for (uint64_t seed = 1; seed < 8; seed++) {
        struct loam_frame *frame = scatter(seed, seed * 12);

        for (uint64_t i = 0; i < 3; i++) {
            for (uint64_t n = 0; n < areas[i].count_frames + 5; n += 3) {
                struct loam_frame_range found, wanted = naive_next_free(frame, areas[i].start.value + n - 2);
                enum loam_error error = loam_frame_next_free(frame, pfn(areas[i].start.value + n - 2), &found);

                cr_assert_eq(error, wanted.count_frames == 0 ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
                cr_assert_eq(found.count_frames, wanted.count_frames, "seed %" PRIu64, seed);
                cr_assert_eq(found.start.value, wanted.start.value, "seed %" PRIu64, seed);
            }
        }
    }
}

/* Whether the whole chunk at at is free within the area, and of which kind. */
static bool free_chunk(const struct loam_frame *frame, uint64_t at, uint64_t end, bool *released)
{
    *released = loam_frame_query(frame, pfn(at)).released;
    return loam_fits(at, 512, end) && free_run(frame, at, end) >= 512;
}

static struct loam_frame_range naive_next_chunks(const struct loam_frame *frame, uint64_t from, bool *released)
{
    bool other;

    for (size_t i = 0; i < 3; i++) {
        uint64_t start = areas[i].start.value, end = start + areas[i].count_frames;
        uint64_t at = from > start ? loam_align_down(from, 512) : start;

        for (at = at < start ? start : at, at = loam_align_up(at, 512); at < end; at += 512) {
            uint64_t count = 512;

            if (!free_chunk(frame, at, end, released)) {
                continue;
            }
            while (free_chunk(frame, at + count, end, &other) && other == *released) {
                count += 512;
            }
            return (struct loam_frame_range){pfn(at), count};
        }
    }
    *released = false;
    return (struct loam_frame_range){0};
}

Test(frame_block, next_free_chunks_is_what_a_scan_finds)
{
    uint64_t seen_released = 0, seen_long = 0;

    for (uint64_t seed = 1; seed < 20; seed++) {
        struct loam_frame *frame = scatter(seed, seed * 3);

        for (uint64_t i = 0; i < 3; i++) {
            for (uint64_t n = 0; n < areas[i].count_frames + 100; n += 64) {
                bool is_released = true, released = true;
                uint64_t from = areas[i].start.value + n - 3;
                struct loam_frame_range found, wanted = naive_next_chunks(frame, from, &is_released);
                enum loam_error error = loam_frame_next_free_chunks(frame, pfn(from), &found, &released);

                cr_assert_eq(error, wanted.count_frames == 0 ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
                cr_assert_eq(found.count_frames, wanted.count_frames, "seed %" PRIu64 ", from %" PRIu64, seed, from);
                cr_assert_eq(found.start.value, wanted.start.value, "seed %" PRIu64 ", from %" PRIu64, seed, from);
                cr_assert_eq(released, is_released);
                seen_released += released;
                seen_long += found.count_frames > 512;
            }
        }
    }
    cr_assert(seen_released > 100 && seen_long > 100);
}

Test(frame_block, next_free_chunks_of_nothing)
{
    struct loam_frame *frame = make(NULL);
    struct loam_frame_range range = {{7}, 7};
    bool released = true;

    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(0), &range, &released), LOAM_ERROR_NOT_FOUND);
    cr_assert(range.start.value == 0 && range.count_frames == 0 && !released);
    add(frame, 1, 1022);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(0), &range, &released), LOAM_ERROR_NOT_FOUND);
    add(frame, PFN_END - 1024, 1024);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(PFN_END - 1), &range, &released), LOAM_OK);
    cr_assert(range.start.value == PFN_END - 512 && range.count_frames == 512 && !released);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(PFN_END), &range, &released), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(UINT64_MAX), &range, &released), LOAM_ERROR_NOT_FOUND);
}

static struct loam_frame_range naive_largest(const struct loam_frame *frame, uint64_t limit)
{
    struct loam_frame_range best = {0};

    for (size_t i = 0; i < 3; i++) {
        uint64_t at = areas[i].start.value, end = at + areas[i].count_frames;

        end = limit != 0 && limit < end ? limit : end;
        while (at < end) {
            uint64_t count = free_run(frame, at, end);

            if (count > best.count_frames) {
                best = (struct loam_frame_range){pfn(at), count};
            }
            at += count + 1;
        }
    }
    return best;
}

Test(frame_block, largest_free_is_what_a_scan_finds_below_any_limit)
{
    for (uint64_t seed = 1; seed < 8; seed++) {
        struct loam_frame *frame = scatter(seed, seed * 12);
        uint64_t random = seed;

        for (int i = 0; i < 300; i++) {
            const struct loam_frame_range *area = &areas[random_below(&random, 3)];
            uint64_t limit = i == 0 ? 0 : area->start.value + random_below(&random, area->count_frames + 10);
            struct loam_frame_range found, wanted = naive_largest(frame, limit);
            enum loam_error error = loam_frame_largest_free(frame, pfn(limit), &found);

            cr_assert_eq(error, wanted.count_frames == 0 ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
            cr_assert_eq(found.count_frames, wanted.count_frames, "seed %" PRIu64 ", limit %" PRIu64, seed, limit);
            cr_assert_eq(found.start.value, wanted.start.value, "seed %" PRIu64 ", limit %" PRIu64, seed, limit);
        }
    }
}

Test(frame_block, largest_free_of_equals_is_the_lowest)
{
    struct loam_frame *frame = make_with(1024, 1024);
    struct loam_frame_range range = {{7}, 7};

    take_at(frame, 1024, 1024);
    cr_assert_eq(loam_frame_largest_free(frame, pfn(0), &range), LOAM_ERROR_NOT_FOUND);
    cr_assert(range.start.value == 0 && range.count_frames == 0);
    cr_assert_eq(loam_frame_split(frame, pfn(1024), 1024, 100), LOAM_OK);
    cr_assert_eq(loam_frame_split(frame, pfn(1124), 924, 100), LOAM_OK);
    cr_assert_eq(loam_frame_split(frame, pfn(1224), 824, 100), LOAM_OK);
    give(frame, 1024, 100);
    give(frame, 1224, 100);
    cr_assert_eq(loam_frame_largest_free(frame, pfn(0), &range), LOAM_OK);
    cr_assert(range.start.value == 1024 && range.count_frames == 100);
    cr_assert_eq(loam_frame_largest_free(frame, pfn(1074), &range), LOAM_OK);
    cr_assert(range.start.value == 1024 && range.count_frames == 50);
    cr_assert_eq(loam_frame_largest_free(frame, pfn(1024), &range), LOAM_ERROR_NOT_FOUND);
}

static uint64_t naive_usable(const struct loam_frame *frame, uint32_t order)
{
    uint64_t usable = 0, size = UINT64_C(1) << order;

    for (size_t i = 0; i < 3; i++) {
        uint64_t end = areas[i].start.value + areas[i].count_frames;
        uint64_t run_end = 0;

        for (uint64_t at = loam_align_up(areas[i].start.value, size); loam_fits(at, size, end); at += size) {
            run_end = run_end > at ? run_end : at + free_run(frame, at, end);
            usable += run_end >= at + size ? size : 0;
        }
    }
    return usable;
}

Test(frame_block, fragmentation_is_what_a_scan_finds)
{
    for (uint64_t seed = 1; seed < 12; seed++) {
        struct loam_frame *frame = scatter(seed, seed * 6);
        struct loam_frame_fragmentation found = loam_frame_get_fragmentation(frame);

        cr_assert_eq(found.free_frames, loam_frame_get_stats(frame).free_frames);
        for (uint32_t order = 0; order <= LOAM_FRAME_ORDER_MAX; order++) {
            cr_assert_eq(found.usable_frames[order], naive_usable(frame, order), "seed %" PRIu64 ", order %u", seed,
                         order);
        }
    }
}

Test(frame_block, fragmentation_of_a_large_section_without_holes)
{
    struct loam_frame *frame = make_with(LOAM_FRAME_COUNT_MAX - 1, 2 * LOAM_FRAME_COUNT_MAX + 1);
    struct loam_frame_fragmentation found = loam_frame_get_fragmentation(frame);

    cr_assert_eq(found.usable_frames[0], 2 * LOAM_FRAME_COUNT_MAX + 1);
    cr_assert_eq(found.usable_frames[20], 2 * LOAM_FRAME_COUNT_MAX);
    take_at(frame, LOAM_FRAME_COUNT_MAX + 5, 1);
    found = loam_frame_get_fragmentation(frame);
    cr_assert_eq(found.usable_frames[0], 2 * LOAM_FRAME_COUNT_MAX);
    cr_assert_eq(found.usable_frames[20], LOAM_FRAME_COUNT_MAX);
    for (uint32_t order = 1; order <= LOAM_FRAME_ORDER_MAX; order++) {
        cr_assert_eq(found.usable_frames[order], 2 * LOAM_FRAME_COUNT_MAX - (UINT64_C(1) << order));
    }
}
