// SPDX-License-Identifier: Apache-2.0
/*
 * What lies at hand behind plain calls is seen by nobody: it is free to every other call, misuse of it is told at once,
 * and no figure leaves it out.
 */
#include "loam/frame.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>

TestSuite(frame_front, .fini = free_kept);

enum { START = 512 * 10, FRAMES = 512 * 8 };

static uint64_t take(struct loam_frame *frame, uint32_t order)
{
    loam_pfn start;

    cr_assert_eq(loam_frame_alloc_order(frame, order, &start), LOAM_OK, "order %u", order);
    return start.value;
}

static enum loam_error give(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    return loam_frame_free(frame, pfn(start), count);
}

static enum loam_error take_at(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    struct loam_frame_request request = {.count_frames = count, .flags = LOAM_FRAME_AT, .at = {start}};
    struct loam_frame_block block;

    return loam_frame_alloc(frame, &request, &block);
}

Test(frame_front, what_is_at_hand_is_free_to_every_other_call)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    for (uint32_t order = 0; order <= 9; order++) {
        uint64_t count = UINT64_C(1) << order, start = take(frame, order);

        cr_assert_eq(give(frame, start, count), LOAM_OK);
        cr_assert_eq(take_at(frame, start, count), LOAM_OK, "order %u", order);
        cr_assert_eq(give(frame, start, count), LOAM_OK);
        assert_valid(frame);
    }
    cr_assert_eq(take_at(frame, START, FRAMES), LOAM_OK);
}

Test(frame_front, misuse_of_what_is_at_hand_is_told_at_once)
{
    struct loam_frame *frame = make_with(START, FRAMES);

    for (uint32_t order = 0; order <= 9; order++) {
        uint64_t count = UINT64_C(1) << order, start = take(frame, order), other = take(frame, order);

        cr_assert_eq(give(frame, start, count * 2), LOAM_ERROR_INVALID);
        cr_assert_eq(give(frame, start, count + 1), LOAM_ERROR_INVALID);
        cr_assert(order == 0 || give(frame, start, count / 2) == LOAM_ERROR_INVALID);
        cr_assert(order == 0 || give(frame, start + 1, 1) == LOAM_ERROR_INVALID);
        cr_assert_eq(give(frame, start, count), LOAM_OK);
        cr_assert_eq(give(frame, start, count), LOAM_ERROR_INVALID, "order %u: freed twice", order);
        cr_assert_eq(give(frame, start, 1), LOAM_ERROR_INVALID);
        cr_assert_eq(give(frame, other, count), LOAM_OK);
        cr_assert_eq(give(frame, other, count), LOAM_ERROR_INVALID);
        /* Made at the same time as the two, and never handed out. */
        cr_assert_eq(give(frame, other + count, count), LOAM_ERROR_INVALID);
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 0);
}

/* A block keeps its count when another order has what lies beside it at hand. */
Test(frame_front, blocks_of_several_orders_come_and_go)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    uint64_t starts[200];

    for (uint32_t round = 0; round < 20; round++) {
        for (uint32_t n = 0; n < 200; n++) {
            starts[n] = take(frame, (n * 7 + round) % 5);
        }
        assert_valid(frame);
        for (uint32_t n = 0; n < 200; n++) {
            cr_assert_eq(give(frame, starts[(n * 77) % 200], UINT64_C(1) << ((n * 77) % 200 * 7 + round) % 5), LOAM_OK);
        }
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_chunks, FRAMES / 512);
}

Test(frame_front, chunks_that_came_back_make_larger_blocks)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    uint64_t starts[8];

    for (uint32_t n = 0; n < 8; n++) {
        starts[n] = take(frame, 9);
    }
    for (uint32_t n = 0; n < 8; n++) {
        cr_assert_eq(give(frame, starts[n], 512), LOAM_OK);
    }
    assert_valid(frame);
    cr_assert_eq(give(frame, starts[3], 512), LOAM_ERROR_INVALID);
    cr_assert_eq(take(frame, 11) % 2048, 0);
}

Test(frame_front, the_reserve_is_left_to_the_frame)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 100});
    loam_pfn start;

    add(frame, START, FRAMES);
    for (uint32_t n = 0; n < FRAMES - 100; n++) {
        take(frame, 0);
    }
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 100);
    for (uint32_t n = 0; n < 100; n++) {
        cr_assert_eq(loam_frame_alloc_order_below(frame, 0, pfn(ZONE_END), &start), LOAM_OK);
    }
    cr_assert_eq(loam_frame_alloc_order_below(frame, 0, pfn(ZONE_END), &start), LOAM_ERROR_EXHAUSTED);
    assert_valid(frame);
}

Test(frame_front, a_reserve_larger_than_any_memory_leaves_nothing)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = UINT64_MAX});
    loam_pfn start;

    add(frame, START, FRAMES);
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_ERROR_EXHAUSTED);
}
