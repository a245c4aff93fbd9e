// SPDX-License-Identifier: Apache-2.0
/* The frame allocator: each clause of loam/frame.h. Random operations are in frame_random_test.c. */
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

TestSuite(frame, .fini = free_kept);

static enum loam_error alloc(struct loam_frame *frame, struct loam_frame_request request, uint64_t *start)
{
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(frame, &request, &block);

    *start = block.start.value;
    return error;
}

#define ALLOC(frame, start, ...) alloc(frame, (struct loam_frame_request){__VA_ARGS__}, start)

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

/* --- Careless callers -------------------------------------------------------------------------------------------- */

static bool no_barrier(void)
{
    return true;
}

Test(frame, null_is_refused_and_outputs_are_defined)
{
    struct loam_frame *frame = make_with(512, 1024), *none = frame;
    const struct loam_frame_request request = {.count_frames = 1};
    struct loam_frame_fragmentation fragmentation = loam_frame_get_fragmentation(NULL);
    struct loam_frame_stats before = loam_frame_get_stats(frame), after, nothing = loam_frame_get_stats(NULL);
    struct loam_frame_section section = {.id = 7};
    struct loam_frame_block block = {.count_frames = 7};
    struct loam_frame_range range = {.count_frames = 7};
    struct loam_frame_cache *cache = (void *)&range;
    struct loam_diag diag = {0};
    loam_pfn start = {7}, blocker = {7};
    uint32_t flags = 7, id = 7;
    size_t done = 7;
    bool released = true;
    char text[64];

    cr_expect_eq(loam_frame_init(frame, 1 << 20, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_attach(NULL, 1 << 20, &none, &diag), LOAM_ERROR_INVALID);
    cr_expect_null(none);
    cr_expect_eq(loam_frame_attach(frame, 1 << 20, NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_shift(NULL), 0);
    cr_expect_eq(loam_frame_section_bytes(NULL, pfn(0), 1), 0);
    cr_expect_eq(loam_frame_section_add(NULL, pfn(0), 1, text, sizeof text, &id), LOAM_ERROR_INVALID);
    cr_expect_eq(id, 0);
    cr_expect_eq(loam_frame_section_add(frame, pfn(0), 1, NULL, 1 << 20, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_section_add_in_prefix(NULL, text, pfn(0), 1, &id), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_section_add_in_prefix(frame, NULL, pfn(0), 1, &id), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_section_remove(NULL, 0, &blocker), LOAM_ERROR_INVALID);
    cr_expect_eq(blocker.value, 0);
    cr_expect_eq(loam_frame_section_count(NULL), 0);
    cr_expect_eq(loam_frame_section_at(NULL, 0, &section), LOAM_ERROR_INVALID);
    cr_expect_eq(section.id, 0);
    cr_expect_eq(loam_frame_section_at(frame, 0, NULL), LOAM_ERROR_INVALID);
    section.id = 7;
    cr_expect_eq(loam_frame_section_find(NULL, pfn(512), &section), LOAM_ERROR_INVALID);
    cr_expect_eq(section.id, 0);
    cr_expect_eq(loam_frame_section_find(frame, pfn(512), NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc(NULL, &request, &block), LOAM_ERROR_INVALID);
    cr_expect_eq(block.count_frames, 0);
    cr_expect_eq(loam_frame_alloc(frame, NULL, &block), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc(frame, &request, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc_order(NULL, 0, &start), LOAM_ERROR_INVALID);
    cr_expect_eq(start.value, 0);
    cr_expect_eq(loam_frame_alloc_order(frame, 0, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc_order_below(frame, 0, pfn(0), NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_free(NULL, pfn(512), 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc_batch(NULL, 0, pfn(0), &start, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc_batch(frame, 0, pfn(0), NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_alloc_batch(frame, 0, pfn(0), NULL, 0), LOAM_OK, "none of nothing");
    cr_expect_eq(loam_frame_free_batch(NULL, 0, &start, 1, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(done, 0);
    cr_expect_eq(loam_frame_free_batch(frame, 0, NULL, 1, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_free_batch(frame, 0, &start, 1, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_grow(NULL, pfn(512), 1, 2, &flags), LOAM_ERROR_INVALID);
    cr_expect_eq(flags, 0);
    cr_expect_eq(loam_frame_trim(NULL, pfn(512), 2, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_split(NULL, pfn(512), 2, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_make(frame, &cache), LOAM_ERROR_UNINITIALISED, "no barrier is set");
    cr_expect_null(cache);
    loam_frame_set_barrier(no_barrier);
    cr_expect_eq(loam_frame_cache_make(NULL, &cache), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_make(frame, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_drain(NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_destroy(NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_alloc(NULL, 0, pfn(0), &start), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_free(NULL, pfn(512), 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_alloc_batch(NULL, 0, pfn(0), &start, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_free_batch(NULL, 0, &start, 1, &done), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_OK);
    cr_expect_eq(loam_frame_cache_alloc(cache, 0, pfn(0), NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_alloc_batch(cache, 0, pfn(0), NULL, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_free_batch(cache, 0, NULL, 1, &done), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_cache_free_batch(cache, 0, &start, 1, NULL), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
    cr_expect_eq(loam_frame_cache_destroy(cache), LOAM_ERROR_UNINITIALISED, "twice");
    cr_expect_eq(loam_frame_free_released(NULL, pfn(512), 512), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_set_backed(NULL, pfn(512), 512), LOAM_ERROR_INVALID);
    cr_expect_not(loam_frame_pressure(NULL, LOAM_FRAME_ZONE_DMA32));
    cr_expect_not(loam_frame_pressure(frame, LOAM_FRAME_ZONE_COUNT));
    cr_expect_not(loam_frame_pressure(frame, (enum loam_frame_zone) - 1));
    cr_expect_eq(loam_frame_query(NULL, pfn(512)).state, LOAM_FRAME_UNMANAGED);
    cr_expect_eq(loam_frame_tag_set(NULL, pfn(512), LOAM_FRAME_TAG_SLAB), LOAM_ERROR_INVALID);
    cr_expect_gt(loam_frame_describe(NULL, pfn(512), text, sizeof text), 0);
    cr_expect_str_eq(text, "frame 0x200: no allocator is given");
    cr_expect_eq(loam_frame_describe(frame, pfn(512), NULL, 99), strlen("frame 0x200 is free in section 0"));
    cr_expect_eq(loam_frame_check(NULL, pfn(512), 1, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_next_free(NULL, pfn(0), &range), LOAM_ERROR_INVALID);
    cr_expect_eq(range.count_frames, 0);
    cr_expect_eq(loam_frame_next_free(frame, pfn(0), NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_next_free_chunks(NULL, pfn(0), &range, &released), LOAM_ERROR_INVALID);
    cr_expect_not(released);
    cr_expect_eq(loam_frame_next_free_chunks(frame, pfn(0), NULL, &released), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_next_free_chunks(frame, pfn(0), &range, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_largest_free(NULL, pfn(0), &range), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_largest_free(frame, pfn(0), NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(fragmentation.free_frames, 0);
    cr_expect_eq(nothing.metadata_bytes, 0);
    loam_frame_freeze(NULL);
    loam_frame_thaw(NULL);
    cr_expect_eq(loam_frame_validate(NULL, &diag), LOAM_ERROR_INVALID);
    after = loam_frame_get_stats(frame);
    cr_expect_eq(memcmp(&before, &after, sizeof before), 0, "something has changed");
    assert_valid(frame);
}

Test(frame, a_member_without_effect_is_refused)
{
    struct loam_frame *frame = make_with(512, 1024);
    const struct loam_frame_config high_alone = {.watermarks = {{0, 1}}}, other_alone = {.watermarks = {{0}, {0, 1}}};
    uint64_t start;

    cr_expect_eq(ALLOC(frame, &start, .count_frames = 1, .at = {600}), LOAM_ERROR_INVALID);
    cr_expect_eq(ALLOC(frame, &start, .count_frames = 1, .section = 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_frame_bytes(&high_alone), 0);
    cr_expect_eq(loam_frame_bytes(&other_alone), 0);
    cr_expect_eq(loam_frame_get_stats(frame).allocated_frames, 0);
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
    cr_assert_eq(loam_frame_get_stats(frame).managed_frames, 512);
    assert_valid(frame);
    cr_assert_eq(add(frame, 50, 50), first);
    assert_valid(frame);
}

/* A new section of 1024 frames from start on, closed. */
static uint32_t add_closed(struct loam_frame *frame, uint64_t start)
{
    size_t bytes = loam_frame_section_bytes(frame, pfn(start), 1024);
    uint32_t section;

    cr_assert_eq(loam_frame_section_add_closed(frame, pfn(start), 1024, keep(metadata_alloc(bytes)), bytes, &section),
                 LOAM_OK);
    return section;
}

Test(frame, of_a_closed_section_nobody_gets_a_frame)
{
    struct loam_frame *frame = make_with(1024, 1024);
    uint32_t closed = add_closed(frame, ZONE_END);
    struct loam_frame_section section;
    uint64_t start;

    cr_assert_eq(loam_frame_section_find(frame, pfn(ZONE_END), &section), LOAM_OK);
    cr_assert_eq(section.use, LOAM_FRAME_USE_CLOSED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1024), LOAM_OK);
    cr_assert_eq(start, 1024);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .flags = LOAM_FRAME_IN_SECTION, .section = closed),
                 LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1, .flags = LOAM_FRAME_AT, .at = {ZONE_END}),
                 LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_frame_get_stats(frame).withheld_frames, 1024);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 1024);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_NORMAL], 0);
    assert_valid(frame);
    cr_assert_eq(loam_frame_section_set_use(frame, closed, LOAM_FRAME_USE_OPEN), LOAM_OK);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 1024), LOAM_OK);
    cr_assert_eq(start, ZONE_END);
    assert_valid(frame);
}

Test(frame, a_section_apart_serves_who_names_it)
{
    struct loam_frame *frame = make_with(1024, 1024);
    uint32_t apart = add_closed(frame, ZONE_END);
    uint64_t start, at;

    cr_assert_eq(loam_frame_section_set_use(frame, apart, LOAM_FRAME_USE_APART), LOAM_OK);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 8), LOAM_OK);
    cr_assert_lt(start, ZONE_END);
    cr_assert_eq(ALLOC(frame, &start, .count_frames = 8, .flags = LOAM_FRAME_IN_SECTION, .section = apart), LOAM_OK);
    cr_assert_geq(start, ZONE_END);
    cr_assert_eq(ALLOC(frame, &at, .count_frames = 4, .flags = LOAM_FRAME_AT, .at = {ZONE_END}), LOAM_OK);
    cr_assert_eq(loam_frame_grow(frame, pfn(at), 4, 8, NULL), LOAM_OK);
    assert_valid(frame);
    cr_assert_eq(loam_frame_section_set_use(frame, apart, LOAM_FRAME_USE_CLOSED), LOAM_OK);
    cr_assert_eq(loam_frame_grow(frame, pfn(at), 8, 9, NULL), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_frame_trim(frame, pfn(at), 8, 3), LOAM_OK);
    cr_assert_eq(loam_frame_free(frame, pfn(start), 8), LOAM_OK);
    cr_assert_eq(loam_frame_section_remove(frame, apart, NULL), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_free(frame, pfn(at), 3), LOAM_OK);
    cr_assert_eq(loam_frame_section_remove(frame, apart, NULL), LOAM_OK);
    assert_valid(frame);
}

Test(frame, what_is_no_use_of_a_section_is_refused)
{
    struct loam_frame *frame = make_with(1024, 1024);

    cr_assert_eq(loam_frame_section_set_use(NULL, 0, LOAM_FRAME_USE_OPEN), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_set_use(frame, 0, LOAM_FRAME_USE_COUNT), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_section_set_use(frame, 1, LOAM_FRAME_USE_CLOSED), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_section_set_use(frame, 0, LOAM_FRAME_USE_CLOSED), LOAM_OK);
    cr_assert_eq(loam_frame_section_set_use(frame, 0, LOAM_FRAME_USE_CLOSED), LOAM_OK);
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
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 0);
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
    cr_assert_eq(loam_frame_get_stats(frame).total_frames, frames);
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
    cr_assert_eq(loam_frame_get_stats(frame).managed_frames, 1);
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
    cr_assert_eq(ALLOC(frame, &s, .count_frames = 1, .flags = 1u << 4), LOAM_ERROR_INVALID);
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
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 4096);
}

Test(frame, every_order_is_naturally_aligned_and_comes_back)
{
    struct loam_frame *frame = make_with(12345, 4 * LOAM_FRAME_COUNT_MAX);
    uint64_t all = loam_frame_get_stats(frame).free_frames;

    for (uint32_t order = 0; order <= LOAM_FRAME_ORDER_MAX; order++) {
        loam_pfn start;

        cr_assert_eq(loam_frame_alloc_order(frame, order, &start), LOAM_OK);
        cr_assert_eq(start.value % (UINT64_C(1) << order), 0);
        cr_assert_eq(loam_frame_get_stats(frame).free_frames, all - (UINT64_C(1) << order));
        assert_valid(frame);
        cr_assert_eq(loam_frame_free(frame, start, UINT64_C(1) << order), LOAM_OK);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, all);
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
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, taken);
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
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 3);
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
    cr_assert_eq(loam_frame_get_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], 50);
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
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, count);
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
