// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator: each clause of loam/frame.h, and more than a million random operations held against
 * frame_oracle, which knows nothing but cells.
 */
#include "loam/frame.h"
#include "tests/allocator/frame_oracle.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ZONE_END (UINT64_C(1) << 20) /* with frames of 4 KiB */
#define PFN_END  (UINT64_C(1) << 40)
#define CAPACITY 6

/* The size of the allocator's first cache line, which holds its lock and nothing else. */
#define LOCK_BYTES 64

static loam_pfn pfn(uint64_t value)
{
    return loam_pfn_from_u64(value);
}

/* Memory that a test leaves behind is freed after it. */
static void *kept[2100];
static size_t kept_count;

static void *keep(void *memory)
{
    cr_assert_not_null(memory);
    cr_assert_lt(kept_count, sizeof kept / sizeof kept[0]);
    kept[kept_count++] = memory;
    return memory;
}

static void free_kept(void)
{
    while (kept_count > 0) {
        free(kept[--kept_count]);
    }
}

TestSuite(frame, .fini = free_kept);

static void *metadata_alloc(size_t bytes)
{
    void *memory = aligned_alloc(LOAM_FRAME_METADATA_ALIGN, (bytes + 63) / 64 * 64);

    cr_assert_not_null(memory);
    memset(memory, 0xa5, (bytes + 63) / 64 * 64);
    return memory;
}

static struct loam_frame *make(const struct loam_frame_config *config)
{
    size_t bytes = loam_frame_bytes(config);
    struct loam_frame *frame;

    cr_assert_eq(loam_frame_init(keep(metadata_alloc(bytes)), bytes, config, &frame), LOAM_OK);
    return frame;
}

static uint32_t add(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    size_t bytes = loam_frame_section_bytes(frame, pfn(start), count);
    uint32_t section;

    cr_assert_eq(loam_frame_section_add(frame, pfn(start), count, keep(metadata_alloc(bytes)), bytes, &section),
                 LOAM_OK);
    return section;
}

static struct loam_frame *make_with(uint64_t start, uint64_t count)
{
    struct loam_frame *frame = make(NULL);

    add(frame, start, count);
    return frame;
}

static enum loam_error alloc(struct loam_frame *frame, struct loam_frame_request request, uint64_t *start)
{
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(frame, &request, &block);

    *start = block.start.value;
    return error;
}

#define ALLOC(frame, start, ...) alloc(frame, (struct loam_frame_request){__VA_ARGS__}, start)

static void assert_valid(const struct loam_frame *frame)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_validate(frame, &diag), LOAM_OK, "%s", diag.text);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

Test(frame, bytes_is_zero_for_a_bad_config)
{
    cr_assert_gt(loam_frame_bytes(NULL), 0);
    cr_assert_eq(loam_frame_bytes(&(struct loam_frame_config){.frame_shift = 13}), 0);
    cr_assert_eq(loam_frame_bytes(&(struct loam_frame_config){.section_capacity = 65537}), 0);
    cr_assert_gt(loam_frame_bytes(&(struct loam_frame_config){.section_capacity = 65536}), 0);
    cr_assert_eq(loam_frame_bytes(NULL), loam_frame_bytes(&(struct loam_frame_config){.section_capacity = 16}));
}

Test(frame, init_refuses_what_is_malformed)
{
    struct loam_frame_config bad = {.frame_shift = 11};
    size_t bytes = loam_frame_bytes(NULL);
    char *memory = keep(metadata_alloc(bytes + 64));
    struct loam_frame *frame;

    cr_assert_eq(loam_frame_init(memory, bytes - 1, NULL, &frame), LOAM_ERROR_INVALID);
    cr_assert_null(frame);
    cr_assert_eq(loam_frame_init(memory + 8, bytes, NULL, &frame), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_init(NULL, bytes, NULL, &frame), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_init(memory, bytes, &bad, &frame), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_init(memory, bytes, NULL, &frame), LOAM_OK);
    cr_assert_eq((void *)frame, (void *)memory);
    cr_assert_eq(loam_frame_shift(frame), 12);
    assert_valid(frame);
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

Test(frame, metadata_takes_at_most_0_32_bytes_a_frame)
{
    struct loam_frame *frame = make(NULL);
    uint64_t frames = 8 * LOAM_GIB / LOAM_FRAME_BYTES;

    cr_assert_leq(loam_frame_section_bytes(frame, pfn(0), frames) * 100, frames * 32);
    cr_assert_leq(loam_frame_section_bytes(frame, pfn(511), frames) * 100, frames * 32);
}

Test(frame, section_bytes_is_zero_for_a_bad_range)
{
    struct loam_frame *frame = make(NULL);

    cr_assert_eq(loam_frame_section_bytes(frame, pfn(5), 0), 0);
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(PFN_END), 1), 0);
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(PFN_END - 1), 2), 0);
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(UINT64_MAX), 1), 0);
    cr_assert_eq(loam_frame_section_bytes(frame, pfn(1), UINT64_MAX), 0);
    cr_assert_gt(loam_frame_section_bytes(frame, pfn(PFN_END - 1), 1), 0);
    cr_assert_gt(loam_frame_section_bytes(frame, pfn(0), PFN_END), 0);
}

Test(frame, section_add_refuses_what_is_malformed)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.section_capacity = 1});
    size_t bytes = loam_frame_section_bytes(frame, pfn(10), 100);
    char *metadata = keep(metadata_alloc(bytes + 64));
    uint32_t section = 7;

    cr_assert_eq(loam_frame_section_add(frame, pfn(10), 0, metadata, bytes, &section), LOAM_ERROR_INVALID);
    cr_assert_eq(section, 0);
    cr_assert_eq(loam_frame_section_add(frame, pfn(PFN_END), 1, metadata, bytes, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(10), 100, NULL, bytes, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(10), 100, metadata + 1, bytes, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(10), 100, metadata, bytes - 1, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add(frame, pfn(10), 100, metadata, bytes, NULL), LOAM_OK);
    metadata = keep(metadata_alloc(bytes));
    cr_assert_eq(loam_frame_section_add(frame, pfn(109), 100, metadata, bytes, NULL), LOAM_ERROR_OVERLAP);
    cr_assert_eq(loam_frame_section_add(frame, pfn(110), 100, metadata, bytes, NULL), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_section_count(frame), 1);
    assert_valid(frame);
}

Test(frame, section_add_does_not_touch_the_bitmaps_of_free_chunks)
{
    struct loam_frame *frame = make(NULL);
    size_t bytes = loam_frame_section_bytes(frame, pfn(0), 64 * 512);
    unsigned char *metadata = keep(metadata_alloc(bytes));

    cr_assert_eq(loam_frame_section_add(frame, pfn(0), 64 * 512, metadata, bytes, NULL), LOAM_OK);
    for (size_t i = bytes - 64 * 128; i < bytes; i++) {
        cr_assert_eq(metadata[i], 0xa5);
    }
}

Test(frame, sections_are_listed_and_found_in_ascending_order)
{
    struct loam_frame *frame = make(NULL);
    uint64_t starts[] = {5000, 100, 3000, 200};
    struct loam_frame_section section;
    uint64_t previous = 0;

    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(add(frame, starts[i], 100), i);
    }
    cr_assert_eq(loam_frame_section_count(frame), 4);
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(loam_frame_section_at(frame, i, &section), LOAM_OK);
        cr_assert_gt(section.start.value, previous);
        cr_assert_eq(section.start.value, starts[section.id]);
        cr_assert_eq(section.managed_frames, 100);
        cr_assert_eq(section.free_frames, 100);
        cr_assert_eq(section.metadata_bytes, loam_frame_section_bytes(frame, section.start, 100));
        previous = section.start.value;
    }
    cr_assert_eq(loam_frame_section_at(frame, 4, &section), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(section.managed_frames, 0);
    cr_assert_eq(loam_frame_section_find(frame, pfn(199), &section), LOAM_OK);
    cr_assert_eq(section.id, 1);
    cr_assert_eq(loam_frame_section_find(frame, pfn(200), &section), LOAM_OK);
    cr_assert_eq(section.id, 3);
    cr_assert_eq(loam_frame_section_find(frame, pfn(99), &section), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_section_find(frame, pfn(300), &section), LOAM_ERROR_NOT_FOUND);
}

Test(frame, section_remove_wants_it_free_and_gives_its_id_again)
{
    struct loam_frame *frame = make(NULL);
    uint32_t first = add(frame, 1000, 2000);
    loam_pfn blocker;
    uint64_t start;

    add(frame, 7000, 512);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 9, .flags = LOAM_FRAME_AT, .at = {2345}), LOAM_OK);
    cr_assert_eq(loam_frame_section_remove(frame, first, &blocker), LOAM_ERROR_BUSY);
    cr_assert_eq(blocker.value, 2345);
    cr_assert_eq(loam_frame_section_remove(frame, 2, &blocker), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(blocker.value, 0);
    cr_assert_eq(loam_frame_free(frame, pfn(2345), 9), LOAM_OK);
    cr_assert_eq(loam_frame_section_remove(frame, first, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_section_remove(frame, first, NULL), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_stats(frame).managed_frames, 512);
    assert_valid(frame);
    cr_assert_eq(add(frame, 50, 50), first);
    assert_valid(frame);
}

Test(frame, many_sections_are_added_and_removed)
{
    enum { COUNT = 1000 };
    struct loam_frame *frame = make(&(struct loam_frame_config){.section_capacity = COUNT});
    struct loam_frame_section section;

    for (uint64_t i = 0; i < COUNT; i++) {
        add(frame, (i * 379 % COUNT) * 100, 70);
    }
    assert_valid(frame);
    for (uint64_t i = 0; i < COUNT; i++) {
        cr_assert_eq(loam_frame_section_find(frame, pfn(i * 100 + 69), &section), LOAM_OK);
        cr_assert_eq(section.start.value, i * 100);
        cr_assert_eq(loam_frame_section_find(frame, pfn(i * 100 + 70), &section), LOAM_ERROR_NOT_FOUND);
    }
    for (uint32_t id = 0; id < COUNT; id++) {
        cr_assert_eq(loam_frame_section_remove(frame, id * 7 % COUNT, NULL), LOAM_OK);
    }
    cr_assert_eq(loam_frame_stats(frame).free_frames, 0);
    assert_valid(frame);
}

Test(frame, prefix_holds_the_metadata_and_is_never_handed_out)
{
    struct loam_frame *frame = make(NULL);
    uint64_t frames = 4096, start, taken = 0;
    void *region = keep(aligned_alloc(4096, frames * 4096));
    struct loam_frame_section section;
    char text[200];

    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(10000), frames, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_section_at(frame, 0, &section), LOAM_OK);
    cr_assert_eq(section.total_frames, frames);
    cr_assert_eq(section.managed_frames, frames - (section.start.value - 10000));
    cr_assert_leq(section.metadata_bytes, (section.start.value - 10000) * 4096);
    cr_assert_gt(section.metadata_bytes, (section.start.value - 10001) * 4096, "no frame more than needed");
    cr_assert_eq(loam_frame_query(frame, pfn(10000)).state, LOAM_FRAME_UNMANAGED);
    loam_frame_describe(frame, pfn(10000), text, sizeof text);
    cr_assert_str_eq(text, "frame 0x2710 holds the metadata of section 0");
    while (ALLOC(frame, &start, .count_frames = 1) == LOAM_OK) {
        cr_assert_geq(start, section.start.value);
        memset((char *)region + (start - 10000) * 4096, 0xff, 4096);
        taken++;
    }
    cr_assert_eq(taken, section.managed_frames);
    cr_assert_eq(loam_frame_stats(frame).total_frames, frames);
    assert_valid(frame);
}

Test(frame, prefix_is_refused_where_region_is_too_small_or_overlaps)
{
    struct loam_frame *frame = make(NULL);
    char *region = keep(aligned_alloc(4096, 3 * 4096));

    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(5), 1, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(5), 0, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, NULL, pfn(5), 3, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region + 8, pfn(5), 3, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(5), 2, NULL), LOAM_OK);
    cr_assert_eq(loam_frame_section_add_in_prefix(frame, region, pfn(4), 2, NULL), LOAM_ERROR_OVERLAP);
    cr_assert_eq(loam_frame_stats(frame).managed_frames, 1);
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

Test(frame, malformed_requests_are_refused)
{
    struct loam_frame *frame = make_with(0, 4096);
    uint64_t s;

    cr_assert_eq(ALLOC(frame, &s, .count_frames = 0), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = LOAM_FRAME_COUNT_MAX + 1), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 1, .align_frames = 3), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 1, .align_frames = LOAM_FRAME_ALIGN_MAX * 2), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 5, .boundary_frames = 4), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 5, .boundary_frames = 12), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 1, .flags = 4), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .align_frames = 2, .flags = LOAM_FRAME_AT, .at = {7}),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .limit = {8}, .flags = LOAM_FRAME_AT, .at = {7}),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .boundary_frames = 8, .flags = LOAM_FRAME_AT, .at = {7}),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {UINT64_MAX}), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {4096}), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {4095}), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 1, .flags = LOAM_FRAME_IN_SECTION, .section = 1),
                 LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_alloc_order(frame, LOAM_FRAME_ORDER_MAX + 1, &(loam_pfn){1}), LOAM_ERROR_INVALID);
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 2, .limit = {1}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(s, 0);
    cr_assert_eq(loam_frame_stats(frame).free_frames, 4096);
}

Test(frame, every_order_is_naturally_aligned_and_comes_back)
{
    struct loam_frame *frame = make_with(12345, 4 * LOAM_FRAME_COUNT_MAX);
    uint64_t all = loam_frame_stats(frame).free_frames;

    for (uint32_t order = 0; order <= LOAM_FRAME_ORDER_MAX; order++) {
        loam_pfn start;

        cr_assert_eq(loam_frame_alloc_order(frame, order, &start), LOAM_OK);
        cr_assert_eq(start.value % (UINT64_C(1) << order), 0);
        cr_assert_eq(loam_frame_stats(frame).free_frames, all - (UINT64_C(1) << order));
        assert_valid(frame);
        cr_assert_eq(loam_frame_free(frame, start, UINT64_C(1) << order), LOAM_OK);
    }
    cr_assert_eq(loam_frame_stats(frame).free_frames, all);
    assert_valid(frame);
}

Test(frame, exact_counts_are_taken_and_the_rest_stays_free)
{
    uint64_t counts[] = {1, 3, 511, 512, 513, 1000, 1024, 1537, 100000};
    struct loam_frame *frame = make_with(77, 300000);
    uint64_t taken = 0, starts[9];

    for (size_t i = 0; i < 9; i++) {
        cr_assert_eq(ALLOC(frame, &starts[i], .count_frames = counts[i]), LOAM_OK);
        taken += counts[i];
        cr_assert_eq(loam_frame_stats(frame).allocated_frames, taken);
        assert_valid(frame);
    }
    for (size_t i = 0; i < 9; i++) {
        cr_assert_eq(loam_frame_free(frame, pfn(starts[i]), counts[i] + 1), LOAM_ERROR_INVALID);
        cr_assert_eq(loam_frame_free(frame, pfn(starts[i]), counts[i] - 1), LOAM_ERROR_INVALID);
        cr_assert_eq(loam_frame_free(frame, pfn(starts[i]), counts[i]), LOAM_OK);
        assert_valid(frame);
    }
}

Test(frame, alignment_costs_no_frames)
{
    struct loam_frame *frame = make_with(LOAM_FRAME_ALIGN_MAX - 5, 4000);
    uint64_t start;

    cr_assert_eq(ALLOC(frame, &start, .count_frames = 3, .align_frames = LOAM_FRAME_ALIGN_MAX), LOAM_OK);
    cr_assert_eq(start, LOAM_FRAME_ALIGN_MAX);
    cr_assert_eq(loam_frame_stats(frame).allocated_frames, 3);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 3, .align_frames = LOAM_FRAME_ALIGN_MAX), LOAM_ERROR_EXHAUSTED);
}

Test(frame, ordinary_requests_take_high_memory_first_and_leave_the_reserve)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 100});
    uint64_t start;

    add(frame, ZONE_END - 300, 300);
    add(frame, ZONE_END + 1000, 700);
    for (int i = 0; i < 700; i++) {
        cr_assert_eq(ALLOC(frame, &start, .count_frames = 1), LOAM_OK);
        cr_assert_geq(start, ZONE_END);
    }
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .limit = {i % 2 ? 0 : ZONE_END + 5}), LOAM_OK);
        cr_assert_lt(start, ZONE_END);
    }
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .limit = {ZONE_END + 1}), LOAM_ERROR_EXHAUSTED);
    for (uint64_t i = 0; i < 50; i++) {
        cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .limit = {ZONE_END}), LOAM_OK);
    }
    cr_assert_eq(loam_frame_next_free(frame, pfn(0), &(struct loam_frame_range){0}), LOAM_OK);
    cr_assert_eq(loam_frame_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], 50);
    assert_valid(frame);
}

Test(frame, a_block_larger_than_the_lower_zone_spans_both)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.frame_shift = 16});
    uint64_t zone_end = ZONE_END >> 4, frames = 4 * zone_end, start;

    add(frame, 0, frames);
    assert_valid(frame);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = frames, .align_frames = frames), LOAM_OK);
    cr_assert_eq(start, 0);
    assert_valid(frame);
    cr_assert_eq(loam_frame_free(frame, pfn(0), frames), LOAM_OK);
    assert_valid(frame);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = zone_end, .limit = {zone_end}), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(start), zone_end), LOAM_OK);
    /* What was freed merges as far as its zone goes, and no further. */
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .limit = {zone_end}), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 1), LOAM_OK);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 3 * zone_end), LOAM_OK);
    cr_assert_eq(start, zone_end);
    assert_valid(frame);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 512, .align_frames = 512, .limit = {zone_end}), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(zone_end), 3 * zone_end), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 512), LOAM_OK);
    cr_assert_eq(loam_frame_alloc_order(frame, 18, &(loam_pfn){0}), LOAM_OK);
    assert_valid(frame);
}

Test(frame, at_takes_exactly_that_place_also_in_the_reserve)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 1 << 20});
    uint64_t start;

    add(frame, 100, 5000);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 3000, .flags = LOAM_FRAME_AT, .at = {200}), LOAM_OK);
    cr_assert_eq(start, 200);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {199}), LOAM_ERROR_BUSY);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {3199}), LOAM_ERROR_BUSY);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {3200}), LOAM_OK);
    assert_valid(frame);
}

Test(frame, blocks_never_span_sections)
{
    struct loam_frame *frame = make(NULL);
    uint32_t low = add(frame, 512, 512);
    uint64_t start;

    add(frame, 1024, 512);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 513), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 2, .flags = LOAM_FRAME_AT, .at = {1023}), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 512, .flags = LOAM_FRAME_IN_SECTION, .section = low), LOAM_OK);
    cr_assert_eq(start, 512);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .flags = LOAM_FRAME_IN_SECTION, .section = low),
                 LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .flags = LOAM_FRAME_IN_SECTION | LOAM_FRAME_AT, .section = low,
                       .at = {1024}),
                 LOAM_ERROR_INVALID);
}

Test(frame, ranges_at_the_top_of_the_address_space_work)
{
    struct loam_frame *frame = make(NULL);
    uint64_t start;

    add(frame, PFN_END - 700, 700);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 700), LOAM_OK);
    cr_assert_eq(start, PFN_END - 700);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 700), LOAM_OK);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .flags = LOAM_FRAME_AT, .at = {PFN_END - 1}), LOAM_OK);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .limit = {UINT64_MAX}), LOAM_OK);
    cr_assert_eq(loam_frame_query(frame, pfn(UINT64_MAX)).state, LOAM_FRAME_UNMANAGED);
    assert_valid(frame);
}

Test(frame, frames_of_64_kib_reach_the_top_too)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.frame_shift = 16});
    uint64_t start, frames = UINT64_C(1) << 22;

    add(frame, (PFN_END >> 4) - frames, frames);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = LOAM_FRAME_COUNT_MAX, .align_frames = LOAM_FRAME_ALIGN_MAX),
                 LOAM_OK);
    assert_valid(frame);
}

/* --- Free ------------------------------------------------------------------------------------------------------ */

Test(frame, wrong_frees_are_refused_and_change_nothing)
{
    struct loam_frame *frame = make_with(1000, 6000);
    uint64_t counts[] = {1, 8, 600, 512, 2048}, start;

    for (size_t i = 0; i < 5; i++) {
        uint64_t count = counts[i];

        cr_assert_eq(ALLOC(frame, &start, .count_frames = count), LOAM_OK);
        cr_assert_eq(loam_frame_free(frame, pfn(start), 0), LOAM_ERROR_INVALID);
        cr_assert_eq(loam_frame_free(frame, pfn(start), count + 1), LOAM_ERROR_INVALID);
        cr_assert_eq(loam_frame_free(frame, pfn(start), UINT64_MAX), LOAM_ERROR_INVALID);
        for (uint64_t inside = 1; inside < count; inside++) {
            cr_assert_eq(loam_frame_free(frame, pfn(start + inside), count - inside), LOAM_ERROR_INVALID);
        }
        cr_assert_eq(loam_frame_stats(frame).allocated_frames, count);
        cr_assert_eq(loam_frame_free(frame, pfn(start), count), LOAM_OK);
        cr_assert_eq(loam_frame_free(frame, pfn(start), count), LOAM_ERROR_INVALID);
    }
    cr_assert_eq(loam_frame_free(frame, pfn(999), 1), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_free(frame, pfn(7000), 1), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_free(frame, pfn(UINT64_MAX), 1), LOAM_ERROR_NOT_FOUND);
    assert_valid(frame);
}

/* --- What stands where ----------------------------------------------------------------------------------------- */

Test(frame, describe_says_what_stands_there)
{
    struct loam_frame *frame = make_with(0x1000, 0x1000);
    char text[200];
    uint64_t start;

    cr_assert_eq(ALLOC(frame, &start, .count_frames = 8, .flags = LOAM_FRAME_AT, .at = {0x1230}), LOAM_OK);
    loam_frame_describe(frame, pfn(0x1234), text, sizeof text);
    cr_assert_str_eq(text, "frame 0x1234 is inside the allocated block [0x1230, 0x1238) of section 0");
    cr_assert_eq(loam_frame_tag_set(frame, pfn(0x1230), LOAM_FRAME_TAG_SLAB), LOAM_OK);
    loam_frame_describe(frame, pfn(0x1230), text, sizeof text);
    cr_assert_str_eq(text, "frame 0x1230 starts the allocated block [0x1230, 0x1238) of section 0, tagged slab");
    loam_frame_describe(frame, pfn(0x1238), text, sizeof text);
    cr_assert_str_eq(text, "frame 0x1238 is free in section 0");
    cr_assert_eq(loam_frame_describe(frame, pfn(0x2000), text, 10), strlen("frame 0x2000 is in no section"));
    cr_assert_str_eq(text, "frame 0x2");
    cr_assert_gt(loam_frame_describe(frame, pfn(0), NULL, 0), 0);
}

Test(frame, tags_stay_with_their_block_and_go_with_it)
{
    struct loam_frame *frame = make_with(3, 9000);
    uint64_t counts[] = {1, 2, 64, 512, 700, 1024, 1500, 2048};

    for (size_t i = 0; i < 8; i++) {
        uint64_t start, next;

        cr_assert_eq(ALLOC(frame, &start, .count_frames = counts[i]), LOAM_OK);
        cr_assert_eq(ALLOC(frame, &next, .count_frames = 1), LOAM_OK);
        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
        for (uint64_t n = 0; n < counts[i]; n++) {
            cr_assert_eq(loam_frame_query(frame, pfn(start + n)).tag, LOAM_FRAME_TAG_SLAB);
            cr_assert_eq(loam_frame_query(frame, pfn(start + n)).block.start.value, start);
        }
        cr_assert_eq(loam_frame_query(frame, pfn(next)).tag, LOAM_FRAME_TAG_NONE);
        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), (enum loam_frame_tag)2), LOAM_ERROR_INVALID);
        assert_valid(frame);
        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_NONE), LOAM_OK);
        cr_assert_eq(loam_frame_query(frame, pfn(start)).tag, LOAM_FRAME_TAG_NONE);
        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
        cr_assert_eq(loam_frame_free(frame, pfn(start), counts[i]), LOAM_OK);
        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_ERROR_INVALID);
        cr_assert_eq(ALLOC(frame, &start, .count_frames = counts[i], .flags = LOAM_FRAME_AT, .at = {start}), LOAM_OK);
        cr_assert_eq(loam_frame_query(frame, pfn(start)).tag, LOAM_FRAME_TAG_NONE);
        cr_assert_eq(loam_frame_free(frame, pfn(start), counts[i]), LOAM_OK);
    }
}

Test(frame, next_free_walks_maximal_ranges_section_by_section)
{
    struct loam_frame *frame = make(NULL);
    struct loam_frame_range range;
    uint64_t start;

    cr_assert_eq(loam_frame_next_free(frame, pfn(0), &range), LOAM_ERROR_NOT_FOUND);
    add(frame, 100, 2000);
    add(frame, 2100, 50);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1000, .flags = LOAM_FRAME_AT, .at = {300}), LOAM_OK);
    cr_assert_eq(loam_frame_next_free(frame, pfn(0), &range), LOAM_OK);
    cr_assert(range.start.value == 100 && range.count_frames == 200);
    cr_assert_eq(loam_frame_next_free(frame, pfn(250), &range), LOAM_OK);
    cr_assert(range.start.value == 250 && range.count_frames == 50);
    cr_assert_eq(loam_frame_next_free(frame, pfn(300), &range), LOAM_OK);
    cr_assert(range.start.value == 1300 && range.count_frames == 800);
    cr_assert_eq(loam_frame_next_free(frame, pfn(2100), &range), LOAM_OK);
    cr_assert(range.start.value == 2100 && range.count_frames == 50);
    cr_assert_eq(loam_frame_next_free(frame, pfn(2150), &range), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(range.count_frames, 0);
}

/* --- Threads --------------------------------------------------------------------------------------------------- */

enum { THREADS = 4, THREAD_TURNS = 20000, THREAD_LIVE = 64, THREAD_FRAMES = 40000 };

static struct loam_frame *shared;
static atomic_uint owners[THREAD_FRAMES];

static void *work(void *argument)
{
    uint32_t id = (uint32_t)(uintptr_t)argument, seed = id;
    struct loam_frame_block live[THREAD_LIVE] = {0};
    uintptr_t wrong = 0;

    for (int turn = 0; turn < THREAD_TURNS + THREAD_LIVE; turn++) {
        struct loam_frame_block *block = &live[turn % THREAD_LIVE];

        for (uint64_t n = 0; n < block->count_frames; n++) {
            wrong += atomic_exchange(&owners[block->start.value - ZONE_END + 20000 + n], 0) != id;
        }
        if (block->count_frames != 0) {
            wrong += loam_frame_free(shared, block->start, block->count_frames) != LOAM_OK;
        }
        block->count_frames = 0;
        if (turn < THREAD_TURNS) {
            seed = seed * 1664525 + 1013904223;
            struct loam_frame_request request = {.count_frames = seed % 8 == 0 ? seed / 8 % 600 + 1 : seed / 8 % 8 + 1,
                                                 .limit = {seed >> 31 ? ZONE_END : 0}};

            if (loam_frame_alloc(shared, &request, block) != LOAM_OK) {
                continue;
            }
            for (uint64_t n = 0; n < block->count_frames; n++) {
                wrong += atomic_exchange(&owners[block->start.value - ZONE_END + 20000 + n], id) != 0;
            }
        }
    }
    return (void *)wrong;
}

Test(frame, threads_never_share_a_frame)
{
    pthread_t threads[THREADS];
    void *wrong;

    shared = make_with(ZONE_END - 20000, THREAD_FRAMES);
    for (uintptr_t i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
    }
    for (int i = 0; i < 200; i++) {
        assert_valid(shared);
    }
    for (size_t i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_join(threads[i], &wrong), 0);
        cr_assert_null(wrong);
    }
    assert_valid(shared);
    cr_assert_eq(loam_frame_stats(shared).allocated_frames, 0);
}

/* --- Random operations against the oracle ---------------------------------------------------------------------- */

/* All metadata lies in one arena, so that the whole can be copied elsewhere. */
enum { SLOT_BYTES = 1 << 13, ARENA_BYTES = SLOT_BYTES * (CAPACITY + 1), TURNS = 150000 };

struct geometry {
    const char *name;
    struct loam_frame_config config;
    struct loam_frame_range sections[CAPACITY]; /* count_frames 0: none */
    bool dynamic;                               /* sections come and go */
};

struct world {
    const struct geometry *geometry;
    struct frame_oracle oracle;
    char *arena;
    struct loam_frame *frame;
    bool slot_used[CAPACITY];
    uint32_t slot_of_section[CAPACITY];
    uint64_t seed;
    uint64_t random;
    uint64_t turn;
    uint64_t served, refused;
};

#define JUDGE(world, judgement)                                                                                        \
    cr_assert((judgement), "%s, seed %" PRIu64 ", turn %" PRIu64 ": %s: %s", (world)->geometry->name, (world)->seed,   \
              (world)->turn, #judgement, (world)->oracle.why)

/* xorshift64*. */
static uint64_t random_below(struct world *world, uint64_t limit)
{
    world->random ^= world->random >> 12;
    world->random ^= world->random << 25;
    world->random ^= world->random >> 27;
    return (world->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % limit;
}

/* A frame in a section of the geometry, now and then right beside it. */
static uint64_t random_pfn(struct world *world)
{
    const struct loam_frame_range *range = &world->geometry->sections[random_below(world, CAPACITY)];

    if (range->count_frames == 0) {
        range = &world->geometry->sections[0];
    }
    if (random_below(world, 50) == 0) {
        return range->start.value + range->count_frames + random_below(world, 3);
    }
    return range->start.value + random_below(world, range->count_frames);
}

static void turn_add(struct world *world, uint64_t start, uint64_t count)
{
    uint32_t slot = 0, section;
    enum loam_error error;

    while (slot < CAPACITY - 1 && world->slot_used[slot]) {
        slot++;
    }
    cr_assert_leq(loam_frame_section_bytes(world->frame, pfn(start), count), SLOT_BYTES);
    error = loam_frame_section_add(world->frame, pfn(start), count, world->arena + SLOT_BYTES * (slot + 1), SLOT_BYTES,
                                   &section);
    JUDGE(world, frame_oracle_add(&world->oracle, start, count, error, section));
    if (error == LOAM_OK) {
        world->slot_used[slot] = true;
        world->slot_of_section[section] = slot;
    }
}

static void turn_remove(struct world *world, uint32_t section)
{
    loam_pfn blocker;
    enum loam_error error = loam_frame_section_remove(world->frame, section, &blocker);

    JUDGE(world, frame_oracle_remove(&world->oracle, section, error, blocker));
    if (error == LOAM_OK) {
        uint32_t slot = world->slot_of_section[section];

        memset(world->arena + SLOT_BYTES * (slot + 1), 0xdb, SLOT_BYTES);
        world->slot_used[slot] = false;
    }
}

static uint64_t random_count(struct world *world)
{
    switch (random_below(world, 8)) {
    case 0:
        return 1 + random_below(world, 40);
    case 1:
        return 1 + random_below(world, 700);
    case 2:
        return 1 + random_below(world, 2500);
    case 3:
        return UINT64_C(1) << random_below(world, 12);
    default:
        return UINT64_C(1) << random_below(world, 5);
    }
}

static struct loam_frame_request random_request(struct world *world)
{
    struct loam_frame_request request = {.count_frames = random_count(world)};
    uint64_t odd = random_below(world, 100);

    if (random_below(world, 2)) {
        request.align_frames = loam_is_power_of_two(request.count_frames) && random_below(world, 3)
                                   ? request.count_frames
                                   : UINT64_C(1) << random_below(world, random_below(world, 8) ? 10 : 21);
    }
    if (random_below(world, 6) == 0) {
        request.boundary_frames = UINT64_C(1) << random_below(world, 14);
        while (request.boundary_frames < request.count_frames && random_below(world, 50)) {
            request.boundary_frames *= 2;
        }
    }
    if (random_below(world, 3) == 0) {
        request.limit.value = random_below(world, 2) ? world->oracle.zone_end : random_pfn(world);
    }
    if (random_below(world, 10) == 0) {
        request.flags |= LOAM_FRAME_AT;
        request.at.value = random_pfn(world);
        request.align_frames = random_below(world, 4) ? 0 : request.align_frames;
        request.limit.value = random_below(world, 4) ? 0 : request.limit.value;
    }
    if (random_below(world, 10) == 0) {
        request.flags |= LOAM_FRAME_IN_SECTION;
        request.section = (uint32_t)random_below(world, CAPACITY + 1);
    }
    request.count_frames = odd == 0 ? 0 : odd == 1 ? LOAM_FRAME_COUNT_MAX + odd : request.count_frames;
    request.align_frames = odd == 2 ? 24 : request.align_frames;
    request.flags |= odd == 3 ? 4u : 0;
    request.at.value = odd == 4 ? UINT64_MAX - 1 : request.at.value;
    return request;
}

static void turn_alloc(struct world *world)
{
    struct loam_frame_request request = random_request(world);
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(world->frame, &request, &block);

    JUDGE(world, frame_oracle_alloc(&world->oracle, &request, error, &block));
    world->served += error == LOAM_OK;
    world->refused += error == LOAM_ERROR_EXHAUSTED;
}

static void turn_free(struct world *world, bool wrong)
{
    uint64_t at = random_pfn(world), start, count = frame_oracle_block(&world->oracle, at, &start);

    if (wrong || count == 0) {
        start = random_below(world, 3) == 0 ? start : at;
        count += random_below(world, 3) - 1;
    }
    JUDGE(world, frame_oracle_free(&world->oracle, start, count, loam_frame_free(world->frame, pfn(start), count)));
}

static void turn_question(struct world *world)
{
    uint64_t at = random_pfn(world), start = at;
    enum loam_frame_tag tag = (enum loam_frame_tag)random_below(world, 3);
    struct loam_frame_info info = loam_frame_query(world->frame, pfn(at));
    struct loam_frame_stats stats;
    struct loam_frame_range range;
    enum loam_error error;

    JUDGE(world, frame_oracle_query(&world->oracle, at, &info));
    switch (random_below(world, 8)) {
    case 0:
        stats = loam_frame_stats(world->frame);
        JUDGE(world, frame_oracle_stats(&world->oracle, &stats));
        break;
    case 1:
        error = loam_frame_next_free(world->frame, pfn(at), &range);
        JUDGE(world, frame_oracle_next_free(&world->oracle, at, error, &range));
        break;
    default:
        if (random_below(world, 4)) {
            frame_oracle_block(&world->oracle, at, &start);
        }
        error = loam_frame_tag_set(world->frame, pfn(start), tag);
        JUDGE(world, frame_oracle_tag(&world->oracle, start, tag, error));
        break;
    }
}

static void turn_section(struct world *world)
{
    const struct loam_frame_range *range = &world->geometry->sections[random_below(world, CAPACITY)];

    if (random_below(world, 2)) {
        turn_remove(world, (uint32_t)random_below(world, CAPACITY + 1));
    } else if (random_below(world, 4)) {
        turn_add(world, range->start.value, range->count_frames);
    } else {
        turn_add(world, random_pfn(world), random_below(world, 900));
    }
}

/* Free whatever stands in a section, so that sections can go. */
static void empty_section(struct world *world, uint32_t section)
{
    const struct frame_oracle_section *this = &world->oracle.sections[section];

    for (uint64_t n = 0; this->used && n < this->count; n++) {
        uint64_t start, count = frame_oracle_block(&world->oracle, this->start + n, &start);

        if (count > 0) {
            enum loam_error error = loam_frame_free(world->frame, pfn(start), count);

            JUDGE(world, frame_oracle_free(&world->oracle, start, count, error));
        }
    }
}

static void take_turn(struct world *world)
{
    /* Filling and emptying by turns, so that both full and empty states are seen. */
    uint64_t frees = world->turn / 2000 % 2 ? 60 : 30;
    uint64_t choice = random_below(world, 100);

    world->turn++;
    if (choice < frees) {
        turn_free(world, false);
    } else if (choice < 85) {
        turn_alloc(world);
    } else if (choice < 92) {
        turn_free(world, true);
    } else {
        turn_question(world);
    }
    if (world->geometry->dynamic && world->turn % 100 == 0) {
        if (random_below(world, 4) == 0) {
            empty_section(world, (uint32_t)random_below(world, CAPACITY));
        }
        turn_section(world);
    }
    if (world->turn % 200 == 0) {
        struct loam_diag diag = {0};

        cr_assert_eq(loam_frame_validate(world->frame, &diag), LOAM_OK, "%s, seed %" PRIu64 ", turn %" PRIu64 ": %s",
                     world->geometry->name, world->seed, world->turn, diag.text);
    }
}

static void world_make(struct world *world, const struct geometry *geometry, uint64_t seed)
{
    struct loam_frame_config config = geometry->config;

    memset(world, 0, sizeof *world);
    config.section_capacity = CAPACITY;
    world->geometry = geometry;
    world->seed = seed;
    world->random = seed * UINT64_C(0x9e3779b97f4a7c15);
    world->arena = metadata_alloc(ARENA_BYTES);
    frame_oracle_init(&world->oracle, &config);
    cr_assert_eq(loam_frame_init(world->arena, SLOT_BYTES, &config, &world->frame), LOAM_OK);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        if (geometry->sections[i].count_frames != 0) {
            turn_add(world, geometry->sections[i].start.value, geometry->sections[i].count_frames);
        }
    }
}

static void world_drop(struct world *world)
{
    frame_oracle_destroy(&world->oracle);
    free(world->arena);
}

/* Everything can be freed, everything merges again, every section can go. */
static void world_end(struct world *world)
{
    struct loam_frame_stats stats;

    for (uint32_t i = 0; i < CAPACITY; i++) {
        empty_section(world, i);
    }
    stats = loam_frame_stats(world->frame);
    JUDGE(world, frame_oracle_stats(&world->oracle, &stats));
    assert_valid(world->frame);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        turn_remove(world, i);
    }
    cr_assert_eq(loam_frame_section_count(world->frame), 0);
    assert_valid(world->frame);
    cr_assert(world->served > world->turn / 20 && world->refused > world->turn / 100,
              "%s: too few requests served (%" PRIu64 ") or refused (%" PRIu64 ") to show anything",
              world->geometry->name, world->served, world->refused);
    world_drop(world);
}

static void play(const struct geometry *geometry, uint64_t seed)
{
    struct world world;

    world_make(&world, geometry, seed);
    while (world.turn < TURNS) {
        take_turn(&world);
    }
    world_end(&world);
}

Test(frame, random_ragged_section)
{
    play(&(struct geometry){.name = "ragged", .sections = {{{100}, 2700}}}, 1);
}

Test(frame, random_around_4_gib)
{
    play(&(struct geometry){.name = "around 4 GiB", .sections = {{{ZONE_END - 1300}, 2800}}}, 2);
}

Test(frame, random_around_4_gib_with_reserve)
{
    play(&(struct geometry){.name = "around 4 GiB, reserve",
                            .config = {.dma32_reserve_frames = 400},
                            .sections = {{{ZONE_END - 1300}, 2800}, {{3000}, 600}}},
         3);
}

Test(frame, random_sections_that_share_chunks)
{
    play(&(struct geometry){.name = "shared chunks",
                            .config = {.dma32_reserve_frames = 50},
                            .sections = {{{1000}, 300},
                                         {{1300}, 1},
                                         {{1301}, 900},
                                         {{ZONE_END - 100}, 100},
                                         {{ZONE_END}, 700},
                                         {{PFN_END - 520}, 520}}},
         4);
}

Test(frame, random_sections_that_come_and_go)
{
    play(&(struct geometry){.name = "come and go",
                            .config = {.dma32_reserve_frames = 300},
                            .sections = {{{511}, 1026},
                                         {{1537}, 300},
                                         {{2000}, 512},
                                         {{ZONE_END - 700}, 1500},
                                         {{ZONE_END + 4096}, 1024}},
                            .dynamic = true},
         5);
}

Test(frame, random_16_kib_frames)
{
    play(&(struct geometry){.name = "16 KiB frames",
                            .config = {.frame_shift = 14},
                            .sections = {{{(ZONE_END >> 2) - 2048}, 4096}, {{PFN_END / 4 - 600}, 600}}},
         6);
}

Test(frame, random_64_kib_frames)
{
    play(&(struct geometry){.name = "64 KiB frames",
                            .config = {.frame_shift = 16, .dma32_reserve_frames = 700},
                            .sections = {{{(ZONE_END >> 4) - 1025}, 3000}, {{0}, 513}}},
         7);
}

Test(frame, random_whole_chunks)
{
    play(&(struct geometry){.name = "whole chunks", .sections = {{{ZONE_END}, 8192}, {{ZONE_END - 2048}, 2048}}}, 8);
}

Test(frame, random_tiny_sections)
{
    play(&(struct geometry){.name = "tiny",
                            .config = {.dma32_reserve_frames = 3},
                            .sections = {{{0}, 1}, {{5}, 16}, {{511}, 2}, {{ZONE_END - 3}, 6}, {{ZONE_END + 9}, 1}},
                            .dynamic = true},
         9);
}

/* --- Every sequence of a small world --------------------------------------------------------------------------- */

enum { SMALL_FRAMES = 16, SMALL_DEPTH = 4, SMALL_ARENA = 8192 };

struct small {
    struct frame_oracle oracle; /* its one section's cells are copied with it, into here: */
    uint32_t block[SMALL_FRAMES];
    uint8_t tag[SMALL_FRAMES];
    _Alignas(64) char arena[SMALL_ARENA];
};

static const struct loam_frame_request small_requests[] = {
    {.count_frames = 1},
    {.count_frames = 2, .align_frames = 2},
    {.count_frames = 3},
    {.count_frames = 4, .align_frames = 4},
    {.count_frames = 7},
    {.count_frames = 8, .align_frames = 8},
    {.count_frames = 16},
    {.count_frames = 1, .align_frames = 8},
    {.count_frames = 2, .boundary_frames = 2},
    {.count_frames = 3, .limit = {ZONE_END}},
    {.count_frames = 5, .limit = {ZONE_END + 3}},
    {.count_frames = 2, .flags = LOAM_FRAME_AT, .at = {ZONE_END - 1}},
    {.count_frames = 1, .flags = LOAM_FRAME_AT, .at = {ZONE_END + 7}},
};

static void explore(const struct small *from, uint64_t base, uint32_t depth, uint64_t *states)
{
    size_t requests = sizeof small_requests / sizeof small_requests[0];
    struct loam_diag diag = {0};

    *states += 1;
    for (size_t step = 0; depth > 0 && step < requests + SMALL_FRAMES; step++) {
        struct small next = *from;
        struct loam_frame *frame = (struct loam_frame *)next.arena;
        uint64_t start, count;

        next.oracle.sections[0].block = next.block;
        next.oracle.sections[0].tag = next.tag;
        if (step < requests) {
            struct loam_frame_block block;
            enum loam_error error = loam_frame_alloc(frame, &small_requests[step], &block);

            cr_assert(frame_oracle_alloc(&next.oracle, &small_requests[step], error, &block), "%s", next.oracle.why);
        } else {
            count = frame_oracle_block(&next.oracle, base + step - requests, &start);
            if (count == 0 || start != base + step - requests) {
                continue;
            }
            cr_assert(frame_oracle_free(&next.oracle, start, count, loam_frame_free(frame, pfn(start), count)));
        }
        cr_assert_eq(loam_frame_validate(frame, &diag), LOAM_OK, "%s", diag.text);
        explore(&next, base, depth - 1, states);
    }
}

static void explore_all(uint64_t base, uint64_t reserve, uint32_t depth)
{
    struct loam_frame_config config = {.section_capacity = 1, .dma32_reserve_frames = reserve};
    struct small world = {0};
    struct loam_frame *frame;
    uint64_t states = 0;
    size_t bytes = (loam_frame_bytes(&config) + 63) / 64 * 64;

    frame_oracle_init(&world.oracle, &config);
    cr_assert_eq(loam_frame_init(world.arena, bytes, &config, &frame), LOAM_OK);
    cr_assert_eq(loam_frame_section_add(frame, pfn(base), SMALL_FRAMES, world.arena + bytes, SMALL_ARENA - bytes, NULL),
                 LOAM_OK);
    world.oracle.sections[0] = (struct frame_oracle_section){.used = true, .start = base, .count = SMALL_FRAMES};
    explore(&world, base, depth, &states);
    cr_assert_gt(states, 10000);
}

Test(frame, every_sequence_on_16_frames_around_4_gib)
{
    explore_all(ZONE_END - 8, 0, SMALL_DEPTH);
    explore_all(ZONE_END - 8, 3, SMALL_DEPTH);
}

Test(frame, every_sequence_on_16_frames_around_a_chunk_border)
{
    explore_all(ZONE_END + 512 - 5, 0, SMALL_DEPTH);
}

/* --- Metadata that moves, and metadata that was damaged -------------------------------------------------------- */

static const struct geometry moving = {
    .name = "moving",
    .config = {.dma32_reserve_frames = 100},
    .sections = {{{511}, 1026}, {{ZONE_END - 700}, 1500}, {{ZONE_END + 4096}, 2048}}};

Test(frame, metadata_works_on_at_another_address)
{
    struct world world;

    world_make(&world, &moving, 10);
    while (world.turn < 30000) {
        take_turn(&world);
        if (world.turn % 1000 == 0) {
            char *arena = metadata_alloc(ARENA_BYTES);

            memcpy(arena, world.arena, ARENA_BYTES);
            memset(world.arena, 0xee, ARENA_BYTES);
            free(world.arena);
            world.arena = arena;
            world.frame = (struct loam_frame *)arena;
        }
    }
    world_end(&world);
}

/* Flip bits in what the allocator and its sections use, the lock left out: who reads it waits for it. */
static void damage(struct world *world, char *arena, uint64_t flips)
{
    for (uint64_t i = 0; i < flips; i++) {
        uint64_t slot = random_below(world, 4);
        uint64_t bytes = slot == 0 ? loam_frame_bytes(&(struct loam_frame_config){.section_capacity = CAPACITY})
                                   : loam_frame_section_bytes(world->frame, moving.sections[slot - 1].start,
                                                              moving.sections[slot - 1].count_frames);
        uint64_t at = slot == 0 ? LOCK_BYTES + random_below(world, bytes - LOCK_BYTES) : random_below(world, bytes);

        arena[slot * SLOT_BYTES + at] ^= (char)(1u << random_below(world, 8));
    }
}

Test(frame, validate_survives_damage_and_finds_most_of_it)
{
    uint64_t tries = 20000, found = 0, named = 0;
    char *arena = keep(metadata_alloc(ARENA_BYTES));
    struct world world;

    world_make(&world, &moving, 11);
    for (uint64_t i = 0; i < tries; i++) {
        struct loam_diag diag = {0};

        if (i % 50 == 0) {
            take_turn(&world);
        }
        memcpy(arena, world.arena, ARENA_BYTES);
        damage(&world, arena, i % 2 ? 1 : 1 + random_below(&world, 64));
        if (loam_frame_validate((struct loam_frame *)arena, &diag) != LOAM_OK) {
            found++;
            named += diag.error == LOAM_ERROR_CORRUPT && diag.text[0] != '\0';
        }
        cr_assert_eq(loam_frame_validate((struct loam_frame *)arena, NULL) != LOAM_OK, diag.error != LOAM_OK);
    }
    world_drop(&world);
    cr_assert_eq(named, found);
    cr_assert_gt(found * 10, tries * 6, "%" PRIu64 " of %" PRIu64 " found", found, tries);
}

Test(frame, validate_survives_random_bytes)
{
    struct world world;
    char *arena = keep(metadata_alloc(ARENA_BYTES));

    world_make(&world, &moving, 12);
    for (int i = 0; i < 2000; i++) {
        uint64_t at = LOCK_BYTES + random_below(&world, ARENA_BYTES - LOCK_BYTES - 64);

        memcpy(arena, world.arena, ARENA_BYTES);
        for (uint64_t n = 0; n < 64; n++) {
            arena[at + n] = (char)random_below(&world, 256);
        }
        (void)!loam_frame_validate((struct loam_frame *)arena, NULL);
    }
    world_drop(&world);
    memset(arena, 0, ARENA_BYTES);
    cr_assert_eq(loam_frame_validate((struct loam_frame *)arena, NULL), LOAM_ERROR_CORRUPT);
}
