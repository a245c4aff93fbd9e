// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator's caches as one thread sees them: each promise of loam/frame.h by example, then random operations
 * through several caches and past them, held against a cell a frame. Threads are in frame_thread_test.c.
 */
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static uint64_t barriers;

static bool count_barrier(void)
{
    barriers++;
    return true;
}

static void set_barrier(void)
{
    loam_frame_set_barrier(count_barrier);
}

TestSuite(frame_cache, .init = set_barrier, .fini = free_kept);

/* The same without the barrier that the others set. */
TestSuite(frame_cache_bare, .fini = free_kept);

/* Sections of 6 and of 59 whole chunks, ragged at both ends. MANY has a chunk for each order of several caches. */
enum { START = 1000, FRAMES = 4000, END = START + FRAMES, MANY = 24 + 59 * 512 + 9 };

static struct loam_frame_cache *cache_make(struct loam_frame *frame)
{
    struct loam_frame_cache *cache;

    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_OK);
    cr_assert_not_null(cache);
    return cache;
}

static uint64_t get(struct loam_frame_cache *cache, uint32_t order, uint64_t limit)
{
    loam_pfn start;
    enum loam_error error = loam_frame_cache_alloc(cache, order, pfn(limit), &start);

    cr_assert_eq(error, LOAM_OK, "order %u below %" PRIu64 ": %s", order, limit, loam_error_name(error));
    return start.value;
}

static void put(struct loam_frame_cache *cache, uint64_t start, uint64_t count)
{
    enum loam_error error = loam_frame_cache_free(cache, pfn(start), count);

    cr_assert_eq(error, LOAM_OK, "[0x%" PRIx64 ", +%" PRIu64 "): %s", start, count, loam_error_name(error));
}

static void drain(struct loam_frame_cache *cache)
{
    cr_assert_eq(loam_frame_cache_drain(cache), LOAM_OK);
}

/* Take all the frames that a section of the cache test has into starts. */
static void get_all(struct loam_frame_cache *cache, uint64_t *starts, uint64_t count)
{
    for (uint64_t n = 0; n < count; n++) {
        starts[n] = get(cache, 0, 0);
    }
}

/* Every free frame of [start, start + count) lies in the cache that this leaves behind. */
static struct loam_frame_cache *cache_all(struct loam_frame *frame, uint64_t count)
{
    struct loam_frame_cache *cache = cache_make(frame);
    uint64_t *starts = keep(malloc(count * sizeof starts[0]));

    get_all(cache, starts, count);
    for (uint64_t n = 0; n < count; n++) {
        put(cache, starts[n], 1);
    }
    return cache;
}

static void assert_unchanged(const struct loam_frame *frame, struct loam_frame_stats before)
{
    struct loam_frame_stats now = loam_frame_get_stats(frame);

    cr_assert_eq(now.free_frames, before.free_frames);
    cr_assert_eq(now.allocated_frames, before.allocated_frames);
    cr_assert_eq(memcmp(now.free_frames_in_zone, before.free_frames_in_zone, sizeof now.free_frames_in_zone), 0);
    assert_valid(frame);
}

/* Free frames that query says are cached. */
static uint64_t count_cached(const struct loam_frame *frame, uint64_t start, uint64_t count)
{
    uint64_t cached = 0;

    for (uint64_t n = 0; n < count; n++) {
        struct loam_frame_info info = loam_frame_query(frame, pfn(start + n));

        cr_assert(info.state == LOAM_FRAME_FREE || !info.cached);
        cached += info.cached;
    }
    return cached;
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

Test(frame_cache_bare, no_cache_without_a_barrier)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *cache = (struct loam_frame_cache *)&cache;

    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_ERROR_UNINITIALISED);
    cr_assert_null(cache);
    cr_assert_eq(loam_frame_get_stats(frame).cache_count, 0);
    loam_frame_set_barrier(count_barrier);
    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).cache_count, 1);
}

Test(frame_cache, of_a_closed_section_nothing_is_remembered_so_it_goes_whoever_cannot_be_stopped)
{
    struct loam_frame *frame = make_with(1024, 4096);
    struct loam_frame_cache *cache = cache_make(frame);
    uint64_t block = get(cache, 0, 0), before;

    cr_assert_eq(loam_frame_section_set_use(frame, 0, LOAM_FRAME_USE_CLOSED), LOAM_OK);
    put(cache, block, 1);
    before = barriers;
    cr_assert_eq(loam_frame_section_remove(frame, 0, NULL), LOAM_OK);
    cr_assert_eq(barriers, before, "nobody had to be stopped");
    assert_valid(frame);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
}

Test(frame_cache, what_it_borrowed_of_a_section_comes_back_before_it_is_closed)
{
    struct loam_frame *frame = make_with(1024, 4096);
    struct loam_frame_cache *cache;
    loam_pfn block, again;

    cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_OK);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &block), LOAM_OK);
    cr_assert_eq(loam_frame_section_set_use(frame, 0, LOAM_FRAME_USE_CLOSED), LOAM_OK);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &again), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_free(cache, block, 1), LOAM_OK);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &again), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_get_stats(frame).withheld_frames, 4096);
    assert_valid(frame);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
}

Test(frame_cache, capacity_is_from_1_to_1024)
{
    cr_assert_eq(loam_frame_bytes(&(struct loam_frame_config){.cache_capacity = LOAM_FRAME_CACHE_MAX + 1}), 0);
    cr_assert_eq(loam_frame_bytes(&(struct loam_frame_config){.cache_capacity = UINT32_MAX}), 0);
    cr_assert_gt(loam_frame_bytes(&(struct loam_frame_config){.cache_capacity = LOAM_FRAME_CACHE_MAX}),
                 loam_frame_bytes(&(struct loam_frame_config){.cache_capacity = 1}));
    cr_assert_eq(loam_frame_bytes(NULL), loam_frame_bytes(&(struct loam_frame_config){.cache_capacity = 4}));
}

Test(frame_cache, no_more_caches_than_the_capacity)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.cache_capacity = 3});
    struct loam_frame_cache *caches[3], *cache;

    for (uint32_t round = 0; round < 5; round++) {
        for (uint32_t n = 0; n < 3; n++) {
            caches[n] = cache_make(frame);
            cr_assert_eq(loam_frame_get_stats(frame).cache_count, n + 1);
        }
        cr_assert(caches[0] != caches[1] && caches[1] != caches[2] && caches[0] != caches[2]);
        cache = caches[0];
        cr_assert_eq(loam_frame_cache_make(frame, &cache), LOAM_ERROR_EXHAUSTED);
        cr_assert_null(cache);
        for (uint32_t n = 0; n < 3; n++) {
            cr_assert_eq(loam_frame_cache_destroy(caches[(n + round) % 3]), LOAM_OK);
            assert_valid(frame);
        }
        cr_assert_eq(loam_frame_get_stats(frame).cache_count, 0);
    }
}

Test(frame_cache, as_many_caches_as_there_can_ever_be)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.cache_capacity = LOAM_FRAME_CACHE_MAX});
    struct loam_frame_cache *caches[LOAM_FRAME_CACHE_MAX];

    add(frame, ZONE_END, 512 * LOAM_FRAME_CACHE_MAX);
    for (size_t n = 0; n < LOAM_FRAME_CACHE_MAX; n++) {
        caches[n] = cache_make(frame);
        get(caches[n], 0, 0);
    }
    assert_valid(frame);
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, LOAM_FRAME_CACHE_MAX);
    for (size_t n = 0; n < LOAM_FRAME_CACHE_MAX; n++) {
        cr_assert_eq(loam_frame_cache_destroy(caches[n]), LOAM_OK);
    }
    cr_assert_eq(loam_frame_get_stats(frame).cached_frames, 0);
    assert_valid(frame);
}

Test(frame_cache, what_was_destroyed_is_refused)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *cache = cache_make(frame);
    loam_pfn start = {7}, starts[2] = {{7}, {7}};
    uint64_t kept = get(cache, 0, 0);
    size_t done = 7;

    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_OK);
    cr_assert_eq(loam_frame_get_stats(frame).cached_frames, 0);
    cr_assert_eq(loam_frame_cache_destroy(cache), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_drain(cache), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &start), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(start.value, 0);
    cr_assert_eq(loam_frame_cache_alloc(cache, 15, pfn(0), &start), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(1200), &start), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_free(cache, pfn(kept), 1), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_alloc_batch(cache, 0, pfn(0), starts, 2), LOAM_ERROR_UNINITIALISED);
    starts[0] = pfn(kept);
    cr_assert_eq(loam_frame_cache_free_batch(cache, 0, starts, 1, &done), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(done, 0);
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 1);
    cr_assert_eq(loam_frame_free(frame, pfn(kept), 1), LOAM_OK);
    assert_valid(frame);
}

Test(frame_cache, a_place_that_never_was_a_cache_is_refused)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *first = cache_make(frame), *second = cache_make(frame);

    /* Caches lie at equal distances: behind the second comes a third place. */
    struct loam_frame_cache *third =
        (struct loam_frame_cache *)((uintptr_t)second + ((uintptr_t)second - (uintptr_t)first));

    cr_assert_eq(loam_frame_cache_drain(third), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_destroy(third), LOAM_ERROR_UNINITIALISED);
    cr_assert_eq(loam_frame_cache_alloc(third, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_UNINITIALISED);
    assert_valid(frame);
}

/* --- What lies in caches is free ------------------------------------------------------------------------------- */

Test(frame_cache, free_frames_in_caches_are_counted_and_named)
{
    struct loam_frame *frame = make_with(START, MANY);
    struct loam_frame_cache *one = cache_make(frame), *two = cache_make(frame);
    struct loam_frame_section section;

    for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
        uint64_t taken = UINT64_C(1) << order;
        uint64_t first = get(one, order, 0), second = get(two, order, order % 2 ? ZONE_END : 0);
        struct loam_frame_stats stats = loam_frame_get_stats(frame);

        cr_assert_eq(stats.allocated_frames, 2 * taken);
        cr_assert_eq(stats.free_frames, MANY - 2 * taken);
        cr_assert_eq(stats.free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], MANY - 2 * taken);
        cr_assert(order > 8 || stats.cached_frames > 0);
        cr_assert_eq(count_cached(frame, START, MANY), stats.cached_frames);
        cr_assert_eq(loam_frame_section_at(frame, 0, &section), LOAM_OK);
        cr_assert_eq(section.free_frames + stats.cached_frames, stats.free_frames);
        assert_valid(frame);
        put(one, first, taken);
        put(two, second, taken);
        cr_assert_eq(count_cached(frame, START, MANY), loam_frame_get_stats(frame).cached_frames);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, MANY);
}

Test(frame_cache, drain_gives_all_back_and_leaves_blocks_and_cache)
{
    struct loam_frame *frame = make_with(START, MANY);
    struct loam_frame_cache *cache = cache_make(frame);
    uint64_t starts[LOAM_FRAME_CACHE_ORDERS];

    for (int round = 0; round < 3; round++) {
        for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
            starts[order] = get(cache, order, 0);
        }
        drain(cache);
        cr_assert_eq(loam_frame_get_stats(frame).cached_frames, 0);
        cr_assert_eq(count_cached(frame, START, MANY), 0);
        assert_valid(frame);
        for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
            cr_assert_eq(loam_frame_check(frame, pfn(starts[order]), UINT64_C(1) << order, NULL), LOAM_OK);
            put(cache, starts[order], UINT64_C(1) << order);
        }
        drain(cache);
        drain(cache);
        cr_assert_eq(loam_frame_get_stats(frame).free_frames, MANY);
        cr_assert_eq(loam_frame_get_stats(frame).free_chunks, 59);
        assert_valid(frame);
    }
}

Test(frame_cache, chunks_in_caches_are_no_free_chunks)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    struct loam_frame_cache *cache = cache_make(frame);
    uint64_t start = get(cache, 0, 0), chunks = 0;
    struct loam_frame_range range = {0};
    bool released;

    put(cache, start, 1);
    while (loam_frame_next_free_chunks(frame, pfn(range.start.value + range.count_frames), &range, &released) ==
           LOAM_OK) {
        cr_assert_eq(count_cached(frame, range.start.value, range.count_frames), 0);
        chunks += range.count_frames / 512;
    }
    cr_assert_eq(chunks, loam_frame_get_stats(frame).free_chunks);
    cr_assert_lt(chunks, 8);
    cr_assert_eq(loam_frame_next_free(frame, pfn(0), &range), LOAM_OK);
    cr_assert(range.start.value == 0 && range.count_frames == 8 * 512);
    cr_assert_eq(loam_frame_largest_free(frame, pfn(0), &range), LOAM_OK);
    cr_assert_eq(range.count_frames, 8 * 512);
    cr_assert_eq(loam_frame_get_fragmentation(frame).usable_frames[12], 8 * 512);
}

/* --- Nobody starves -------------------------------------------------------------------------------------------- */

enum { HELD = 1024 + 300 };

/* An allocator all of whose frames, [512, 512 + HELD), lie free in an idle cache. */
static struct loam_frame *make_held(void)
{
    struct loam_frame *frame = make_with(512, HELD);

    cache_all(frame, HELD);
    cr_assert_gt(loam_frame_get_stats(frame).cached_frames, 0);
    barriers = 0;
    return frame;
}

Test(frame_cache, another_cache_gets_all_that_an_idle_one_holds)
{
    struct loam_frame *frame = make_held();
    struct loam_frame_cache *other = cache_make(frame);

    for (int n = 0; n < HELD; n++) {
        get(other, 0, 0);
    }
    cr_assert_gt(barriers, 0);
    cr_assert_eq(loam_frame_cache_alloc(other, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 0);
    assert_valid(frame);
}

Test(frame_cache, calls_without_a_cache_get_all_that_an_idle_one_holds)
{
    struct loam_frame *frame = make_held();

    for (int n = 0; n < HELD; n++) {
        cr_assert_eq(loam_frame_alloc_order(frame, 0, &(loam_pfn){0}), LOAM_OK);
    }
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    assert_valid(frame);
}

static const struct loam_frame_request held_requests[] = {
    {.count_frames = HELD},
    {.count_frames = 1024, .align_frames = 512},
    {.count_frames = 512, .align_frames = 1024},
    {.count_frames = 1, .limit = {513}},
    {.count_frames = 513, .limit = {1025}},
    {.count_frames = 1, .flags = LOAM_FRAME_AT, .at = {512}},
    {.count_frames = 3, .flags = LOAM_FRAME_AT, .at = {700}},
    {.count_frames = HELD, .flags = LOAM_FRAME_AT, .at = {512}},
    {.count_frames = 1, .flags = LOAM_FRAME_AT, .at = {512 + HELD - 1}},
    {.count_frames = 700, .flags = LOAM_FRAME_IN_SECTION, .section = 0},
    {.count_frames = 200, .align_frames = 4, .boundary_frames = 256},
    {.count_frames = 1, .flags = LOAM_FRAME_BACKED},
};

Test(frame_cache, every_request_that_a_cache_stands_before_is_served)
{
    for (size_t i = 0; i < sizeof held_requests / sizeof held_requests[0]; i++) {
        struct loam_frame *frame = make_held();
        struct loam_frame_block block;
        enum loam_error error = loam_frame_alloc(frame, &held_requests[i], &block);

        cr_assert_eq(error, LOAM_OK, "request %zu: %s", i, loam_error_name(error));
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, held_requests[i].count_frames);
        assert_valid(frame);
        cr_assert_eq(loam_frame_free(frame, block.start, block.count_frames), LOAM_OK);
        assert_valid(frame);
    }
}

Test(frame_cache, batches_and_growing_blocks_get_what_an_idle_cache_holds)
{
    struct loam_frame *frame = make_held();
    loam_pfn starts[HELD];
    size_t done;

    cr_assert_eq(loam_frame_alloc_batch(frame, 0, pfn(0), starts, HELD), LOAM_OK);
    cr_assert_eq(loam_frame_free_batch(frame, 0, starts, HELD, &done), LOAM_OK);
    frame = make_held();
    cr_assert_eq(loam_frame_cache_alloc_batch(cache_make(frame), 0, pfn(0), starts, HELD), LOAM_OK);
    assert_valid(frame);
    frame = make_held();
    cr_assert_eq(loam_frame_alloc(frame,
                                  &(struct loam_frame_request){.count_frames = 5, .flags = LOAM_FRAME_AT, .at = {600}},
                                  &(struct loam_frame_block){0}),
                 LOAM_OK);
    cr_assert_eq(loam_frame_grow(frame, pfn(600), 5, HELD - 88, NULL), LOAM_OK);
    assert_valid(frame);
}

/* One cache holds every second frame of all chunks, so that it owns many; another wants whole chunks of them. */
Test(frame_cache, blocks_meet_in_a_chunk_that_two_caches_used)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    struct loam_frame_cache *one = cache_make(frame), *two = cache_make(frame);
    uint64_t starts[8 * 512];

    get_all(one, starts, 8 * 512);
    for (size_t n = 0; n < 8 * 512; n += 2) {
        put(one, starts[n], 1);
    }
    for (size_t n = 0; n < 8 * 512; n += 2) {
        get(two, 0, 0);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 0);
    for (size_t n = 1; n < 8 * 512; n += 2) {
        put(two, starts[n], 1);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 8 * 256);
    assert_valid(frame);
    cr_assert_eq(loam_frame_cache_destroy(one), LOAM_OK);
    for (size_t n = 1; n < 8 * 512; n += 2) {
        get(two, 0, 0);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 0);
    assert_valid(frame);
}

/* --- Sections and caches --------------------------------------------------------------------------------------- */

Test(frame_cache, a_section_goes_with_what_lies_free_in_caches)
{
    struct loam_frame *frame = make(NULL);
    struct loam_frame_cache *cache = cache_make(frame), *two;
    uint32_t section = add(frame, START, FRAMES);
    uint64_t start = get(cache, 0, 0);
    loam_pfn blocker;

    cr_assert_eq(loam_frame_section_remove(frame, section, &blocker), LOAM_ERROR_BUSY);
    cr_assert_eq(blocker.value, start);
    put(cache, start, 1);
    cr_assert_eq(loam_frame_section_remove(frame, section, &blocker), LOAM_OK);
    cr_assert_eq(blocker.value, 0);
    assert_valid(frame);
    cr_assert_eq(loam_frame_get_stats(frame).cached_frames, 0);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_free(cache, pfn(start), 1), LOAM_ERROR_NOT_FOUND);
    add(frame, 100000, 600);
    two = cache_all(frame, 600);
    cr_assert_geq(get(cache, 0, 0), 100000);
    cr_assert_eq(loam_frame_cache_destroy(two), LOAM_OK);
    assert_valid(frame);
}

Test(frame_cache, a_section_stays_while_a_block_of_a_cache_is_in_it)
{
    struct loam_frame *frame = make(NULL);
    struct loam_frame_cache *cache = cache_make(frame), *other = cache_make(frame);
    uint32_t sections[4];
    uint64_t starts[1200];
    loam_pfn blocker;

    for (uint32_t i = 0; i < 4; i++) {
        sections[i] = add(frame, 10000 * (i + 1), 300);
    }
    get_all(cache, starts, 1200);
    for (size_t n = 0; n < 1200; n++) {
        if (starts[n] % 10000 != 150) {
            put(n % 3 ? cache : other, starts[n], 1);
        }
    }
    for (uint32_t i = 0; i < 4; i++) {
        cr_assert_eq(loam_frame_section_remove(frame, sections[i], &blocker), LOAM_ERROR_BUSY);
        cr_assert_eq(blocker.value, 10000 * (i + 1) + 150);
        assert_valid(frame);
        put(i % 2 ? cache : other, blocker.value, 1);
        cr_assert_eq(loam_frame_section_remove(frame, sections[i], NULL), LOAM_OK);
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_get_stats(frame).managed_frames, 0);
}

/* The section that a cache last freed in goes, and another comes in its place and id. */
Test(frame_cache, a_cache_does_not_remember_a_section_that_went)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.section_capacity = 1});
    struct loam_frame_cache *cache = cache_make(frame);

    for (uint64_t round = 0; round < 20; round++) {
        uint64_t base = 1000 + round * 700, start;
        uint32_t section = add(frame, base, 1200);

        for (int n = 0; n < 30; n++) {
            start = get(cache, (uint32_t)n % 4, 0);
            cr_assert(start >= base && start < base + 1200);
            put(cache, start, UINT64_C(1) << n % 4);
        }
        if (round > 0) {
            cr_assert_eq(loam_frame_cache_free(cache, pfn(base - 700), 1), LOAM_ERROR_NOT_FOUND);
        }
        cr_assert_eq(loam_frame_section_remove(frame, section, NULL), LOAM_OK);
        assert_valid(frame);
    }
}

/* --- Frees by others ------------------------------------------------------------------------------------------- */

Test(frame_cache, a_block_may_be_freed_through_any_cache_or_none)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *one = cache_make(frame), *two = cache_make(frame);

    for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
        uint64_t count = UINT64_C(1) << order, starts[3];

        for (size_t n = 0; n < 3; n++) {
            starts[n] = get(one, order, 0);
        }
        put(two, starts[0], count);
        cr_assert_eq(loam_frame_free(frame, pfn(starts[1]), count), LOAM_OK);
        for (size_t n = 0; n < 2; n++) {
            struct loam_frame_info info = loam_frame_query(frame, pfn(starts[n] + count / 2));

            cr_assert_eq(info.state, LOAM_FRAME_FREE);
        }
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, count);
        cr_assert_eq(count_cached(frame, START, FRAMES), loam_frame_get_stats(frame).cached_frames);
        assert_valid(frame);
        put(one, starts[2], count);
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, FRAMES);
}

/* Blocks of more chunks than there is room to note frees in, freed in turns so that every chunk has some pending. */
Test(frame_cache, more_frees_by_others_than_can_be_noted)
{
    enum { CHUNKS = 40 };
    struct loam_frame *frame = make_with(0, CHUNKS * 512);
    struct loam_frame_cache *one = cache_make(frame), *two = cache_make(frame);
    uint64_t *starts = keep(malloc(CHUNKS * 512 * sizeof starts[0]));

    for (uint64_t round = 0; round < 3; round++) {
        get_all(one, starts, CHUNKS * 512);
        cr_assert_eq(loam_frame_get_stats(frame).free_frames, 0);
        barriers = 0;
        for (uint64_t n = 0; n < CHUNKS * 512; n++) {
            uint64_t start = starts[n % CHUNKS * 512 + n / CHUNKS];

            put(round < 2 ? two : n % 2 ? one : two, start, 1);
            cr_assert_eq(loam_frame_query(frame, pfn(start)).state, LOAM_FRAME_FREE);
            cr_assert_eq(loam_frame_get_stats(frame).free_frames, n + 1);
            if (n % 1000 == 0) {
                assert_valid(frame);
            }
        }
        cr_assert_gt(barriers, 0);
        assert_valid(frame);
        cr_assert_eq(count_cached(frame, 0, CHUNKS * 512), loam_frame_get_stats(frame).cached_frames);
    }
    drain(one);
    drain(two);
    cr_assert_eq(loam_frame_get_stats(frame).free_chunks, CHUNKS);
    assert_valid(frame);
}

/* What others freed is the owner's to use again, before anybody is told that there is nothing. */
Test(frame_cache, what_others_freed_is_served_again)
{
    struct loam_frame *frame = make_with(0, 2 * 512);
    struct loam_frame_cache *one = cache_make(frame), *two = cache_make(frame);
    uint64_t starts[2 * 512];

    get_all(one, starts, 2 * 512);
    for (int round = 0; round < 100; round++) {
        put(two, starts[round], 1);
        starts[round] = get(round % 2 ? one : two, 0, 0);
        cr_assert_eq(loam_frame_get_stats(frame).free_frames, 0);
        cr_assert_eq(loam_frame_free(frame, pfn(starts[round + 5]), 1), LOAM_OK);
        cr_assert_eq(loam_frame_alloc_order(frame, 0, &(loam_pfn){0}), LOAM_OK);
        cr_assert_eq(loam_frame_cache_alloc(one, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    }
    assert_valid(frame);
}

/* --- Misuse ---------------------------------------------------------------------------------------------------- */

/* Every way to say that the block goes, or changes, is refused with this error, and nothing changes. */
static void assert_refused(struct loam_frame *frame, struct loam_frame_cache *const caches[2], uint64_t start,
                           uint64_t count, enum loam_error error)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_cache_free(caches[0], pfn(start), count), error);
    cr_assert_eq(loam_frame_cache_free(caches[1], pfn(start), count), error);
    cr_assert_eq(loam_frame_free(frame, pfn(start), count), error);
    cr_assert_eq(loam_frame_check(frame, pfn(start), count, &diag), error);
    cr_assert_str_not_empty(diag.text);
    cr_assert_eq(loam_frame_grow(frame, pfn(start), count, count + 1, NULL), error);
    cr_assert(count < 2 || loam_frame_trim(frame, pfn(start), count, 1) == error);
    cr_assert(count < 2 || loam_frame_split(frame, pfn(start), count, 1) == error);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(start), count), error);
    cr_assert_eq(loam_frame_free_released(frame, pfn(start), count), error);
    assert_unchanged(frame, before);
}

Test(frame_cache, no_block_is_freed_twice_whoever_frees_it)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};

    for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
        for (int who = 0; who < 3; who++) {
            uint64_t count = UINT64_C(1) << order, kept = get(caches[0], 0, 0), start = get(caches[0], order, 0);

            if (who < 2) {
                put(caches[who], start, count);
            } else {
                cr_assert_eq(loam_frame_free(frame, pfn(start), count), LOAM_OK);
            }
            assert_refused(frame, caches, start, count, LOAM_ERROR_INVALID);
            cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_ERROR_INVALID);
            put(caches[1], kept, 1);
            assert_refused(frame, caches, kept, 1, LOAM_ERROR_INVALID);
        }
    }
}

Test(frame_cache, what_lies_free_in_a_cache_cannot_be_freed)
{
    struct loam_frame *frame = make_with(512, 512);
    struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};
    uint64_t taken = get(caches[0], 3, 0);

    for (uint64_t at = 512; at < 1024; at++) {
        if (at < taken || at >= taken + 8) {
            cr_assert(loam_frame_query(frame, pfn(at)).cached);
            cr_assert_eq(loam_frame_cache_free(caches[at % 2], pfn(at), 1), LOAM_ERROR_INVALID);
            cr_assert_eq(loam_frame_free(frame, pfn(at), 1), LOAM_ERROR_INVALID);
        }
    }
    assert_refused(frame, caches, taken + 8, 8, LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 8);
}

Test(frame_cache, wrong_frees_are_refused_and_change_nothing)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};

    for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
        uint64_t count = UINT64_C(1) << order, start = get(caches[order % 2], order, 0);

        assert_refused(frame, caches, start, 0, LOAM_ERROR_INVALID);
        assert_refused(frame, caches, start, count + 1, LOAM_ERROR_INVALID);
        assert_refused(frame, caches, start, UINT64_MAX - 1, LOAM_ERROR_INVALID);
        for (uint64_t inside = 1; inside < count; inside++) {
            cr_assert_eq(loam_frame_cache_free(caches[0], pfn(start + inside), count - inside), LOAM_ERROR_INVALID);
            cr_assert_eq(loam_frame_cache_free(caches[1], pfn(start), count - inside), LOAM_ERROR_INVALID);
            cr_assert_eq(loam_frame_cache_free(caches[1], pfn(start + inside), 1), LOAM_ERROR_INVALID);
        }
        put(caches[0], start, count);
    }
    assert_refused(frame, caches, START - 1, 1, LOAM_ERROR_NOT_FOUND);
    assert_refused(frame, caches, END, 1, LOAM_ERROR_NOT_FOUND);
    assert_refused(frame, caches, UINT64_MAX, 1, LOAM_ERROR_NOT_FOUND);
}

/* --- Batches --------------------------------------------------------------------------------------------------- */

enum { BATCH = 600 };

static void assert_batch(const struct loam_frame *frame, const loam_pfn *starts, size_t count, uint32_t order)
{
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(loam_frame_check(frame, starts[i], UINT64_C(1) << order, NULL), LOAM_OK);
        cr_assert(loam_is_aligned(starts[i].value, UINT64_C(1) << order));
    }
    /* No two are one block: together they are all there is. */
    cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, count << order);
    assert_valid(frame);
}

Test(frame_cache, batches_of_every_order_come_and_go)
{
    struct loam_frame *frame = make_with(ZONE_END - 9000, 20000);
    struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};
    loam_pfn starts[BATCH];
    size_t done;

    for (uint32_t order = 0; order <= 12; order++) {
        size_t count = order < 3 ? BATCH : (size_t)2200 >> order;

        count = count == 0 ? 1 : count;
        for (uint32_t round = 0; round < 4; round++) {
            uint64_t limit = round % 2 ? ZONE_END : 0;

            cr_assert_eq(loam_frame_cache_alloc_batch(caches[0], order, pfn(limit), starts, count), LOAM_OK);
            assert_batch(frame, starts, count, order);
            for (size_t i = 0; i < count; i++) {
                cr_assert(limit == 0 || starts[i].value + (UINT64_C(1) << order) <= limit);
            }
            cr_assert_eq(loam_frame_cache_free_batch(caches[round / 2], order, starts, count, &done), LOAM_OK);
            cr_assert_eq(done, count);
            assert_batch(frame, starts, 0, order);
        }
    }
}

static enum loam_error batch_refusal(const struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                     uint64_t limit, size_t count)
{
    struct loam_frame_stats before = loam_frame_get_stats(frame);
    loam_pfn starts[BATCH];
    enum loam_error error;

    memset(starts, 0x77, sizeof starts);
    error = loam_frame_cache_alloc_batch(cache, order, pfn(limit), starts, count);
    cr_assert_neq(error, LOAM_OK);
    for (size_t i = 0; error != LOAM_ERROR_INVALID && i < count; i++) {
        cr_assert_eq(starts[i].value, 0);
    }
    assert_unchanged(frame, before);
    return error;
}

Test(frame_cache, a_batch_is_had_whole_or_not_at_all)
{
    struct loam_frame *frame = make_with(START, 599);
    struct loam_frame_cache *cache = cache_make(frame), *other = cache_all(frame, 599);
    loam_pfn starts[BATCH];

    cr_assert_eq(batch_refusal(frame, cache, 0, 0, 600), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, other, 0, 0, 600), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, cache, 0, 1100, 101), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, cache, 9, 0, 2), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(batch_refusal(frame, cache, LOAM_FRAME_ORDER_MAX + 1, 0, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(batch_refusal(frame, cache, UINT32_MAX, 0, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_alloc_batch(cache, 0, pfn(0), starts, 599), LOAM_OK);
    cr_assert_eq(batch_refusal(frame, cache, 0, 0, 1), LOAM_ERROR_EXHAUSTED);
    assert_batch(frame, starts, 599, 0);
}

Test(frame_cache, an_empty_batch_changes_nothing)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *cache = cache_make(frame);
    size_t done = 7;

    cr_assert_eq(loam_frame_cache_alloc_batch(cache, 0, pfn(0), &(loam_pfn){0}, 0), LOAM_OK);
    cr_assert_eq(loam_frame_cache_free_batch(cache, 0, &(loam_pfn){0}, 0, &done), LOAM_OK);
    cr_assert_eq(done, 0);
    assert_batch(frame, NULL, 0, 0);
}

Test(frame_cache, a_batch_of_frees_stops_at_the_first_that_is_wrong)
{
    for (uint32_t i = 0; i < 8; i++) {
        struct loam_frame *frame = make_with(START, FRAMES);
        struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};
        loam_pfn starts[100], kept;
        size_t done = 7;

        cr_assert_eq(loam_frame_cache_alloc_batch(caches[0], 2, pfn(0), starts, 100), LOAM_OK);
        kept = starts[40];
        starts[40] = i / 2 == 0   ? pfn(END)
                     : i / 2 == 1 ? starts[7]
                     : i / 2 == 2 ? pfn(starts[70].value + 1)
                                  : pfn(UINT64_MAX);
        cr_assert_eq(loam_frame_cache_free_batch(caches[i % 2], 2, starts, 100, &done),
                     i / 2 % 3 == 0 ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID);
        cr_assert_eq(done, 40);
        starts[40] = kept;
        assert_batch(frame, starts + 40, 60, 2);
        cr_assert_eq(loam_frame_cache_free_batch(caches[i % 2], 3, starts + 40, 60, &done), LOAM_ERROR_INVALID);
        cr_assert_eq(done, 0);
        cr_assert_eq(loam_frame_cache_free_batch(caches[i % 2], 2, starts + 40, 60, &done), LOAM_OK);
        cr_assert_eq(done, 60);
        assert_batch(frame, NULL, 0, 2);
    }
}

/* The frames beyond the end share a chunk, and a word of its bitmaps, with the last ones of the section. */
Test(frame_cache, a_batch_of_frees_does_not_leave_the_section)
{
    for (uint64_t other = 0; other < 2; other++) {
        struct loam_frame *frame = make(NULL);
        struct loam_frame_cache *cache = cache_make(frame);
        loam_pfn starts[20], run[24];
        size_t done = 7;

        add(frame, 1024, 20);
        cr_assert_eq(loam_frame_cache_alloc_batch(cache, 0, pfn(0), starts, 20), LOAM_OK);
        if (other) {
            add(frame, 1044, 20);
        }
        for (uint64_t n = 0; n < 24; n++) {
            run[n] = pfn(1024 + n);
        }
        cr_assert_eq(loam_frame_cache_free_batch(cache, 0, run + 10, 1, &done), LOAM_OK);
        cr_assert_eq(loam_frame_cache_free_batch(cache, 0, run + 15, 8, &done),
                     other ? LOAM_ERROR_INVALID : LOAM_ERROR_NOT_FOUND);
        cr_assert_eq(done, 5);
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 14);
        assert_valid(frame);
    }
}

/* --- Zones, limits, orders ------------------------------------------------------------------------------------- */

Test(frame_cache, the_reserve_is_kept_to_the_frame)
{
    for (uint64_t reserve = 1; reserve < 1000; reserve += 111) {
        struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = reserve});
        struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};
        uint64_t taken = 0;
        loam_pfn start;

        add(frame, ZONE_END - 1000, 1700);
        while (loam_frame_cache_alloc(caches[taken % 2], 0, pfn(0), &start) == LOAM_OK) {
            taken++;
        }
        cr_assert_eq(taken, 1700 - reserve);
        cr_assert_eq(loam_frame_get_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], reserve);
        cr_assert_eq(loam_frame_cache_alloc(caches[taken % 2 == 0], 0, pfn(0), &start), LOAM_ERROR_EXHAUSTED);
        cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_ERROR_EXHAUSTED);
        for (uint64_t n = 1; n < reserve; n++) {
            get(caches[n % 2], 0, n % 3 ? ZONE_END : ZONE_END - 1);
        }
        cr_assert_eq(loam_frame_get_stats(frame).free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], 1);
        get(caches[0], 0, ZONE_END);
        assert_valid(frame);
    }
}

Test(frame_cache, the_highest_zone_serves_first)
{
    struct loam_frame *frame = make_with(ZONE_END - 1000, 1700);
    struct loam_frame_cache *cache = cache_make(frame);

    for (int n = 0; n < 1700; n++) {
        cr_assert_eq(get(cache, 0, 0) >= ZONE_END, n < 700);
    }
}

/* A cache that lent frames of the reserve to limited requests keeps the others for them. */
Test(frame_cache, what_a_cache_holds_of_the_reserve_is_for_limited_requests_only)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = 5000});
    struct loam_frame_cache *cache = cache_make(frame);
    uint64_t start;

    add(frame, 0, 5000);
    start = get(cache, 0, ZONE_END);
    cr_assert_gt(loam_frame_get_stats(frame).cached_frames, 0);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(ZONE_END + 1), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    put(cache, start, 1);
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    get(cache, 9, ZONE_END);
    assert_valid(frame);
}

/* All of a small guest lies below 4 GiB: a cache has chunks for requests without a limit, as long as the reserve stays. */
Test(frame_cache, requests_without_a_limit_are_served_below_4_gib_too)
{
    enum { SMALL = 65536, RESERVE = 4096 };
    struct loam_frame *frame = make(&(struct loam_frame_config){.dma32_reserve_frames = RESERVE});
    struct loam_frame_cache *cache = cache_make(frame);
    struct loam_frame_section section;

    add(frame, 0, SMALL);
    for (uint32_t n = 0; n < SMALL - RESERVE; n++) {
        uint64_t start = get(cache, 0, 0);

        cr_assert_eq(loam_frame_section_find(frame, pfn(start), &section), LOAM_OK);
        if (n < SMALL - RESERVE - 512) {
            cr_assert_geq(section.free_frames, RESERVE, "what is lent was the reserve's");
            cr_assert(n % 512 != 0 || loam_frame_get_stats(frame).cached_frames > 0, "frame %u is the allocator's", n);
        }
    }
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, RESERVE);
    for (uint32_t n = 0; n < RESERVE; n++) {
        get(cache, 0, ZONE_END);
    }
    assert_valid(frame);
}

Test(frame_cache, limits_other_than_4_gib_are_exact)
{
    uint64_t limits[] = {1, 100, 511, 512, 513, 4096, 4099, 5000};

    for (size_t i = 0; i < 16; i++) {
        struct loam_frame *frame = make_with(0, 6000);
        struct loam_frame_cache *cache = i % 2 ? cache_make(frame) : cache_all(frame, 6000);
        uint64_t limit = limits[i / 2], taken = 0;
        loam_pfn start;

        while (loam_frame_cache_alloc(cache, 0, pfn(limit), &start) == LOAM_OK) {
            cr_assert_lt(start.value, limit);
            taken++;
        }
        cr_assert_eq(taken, limit);
        cr_assert_eq(loam_frame_cache_alloc(cache, 3, pfn(limit), &start), LOAM_ERROR_EXHAUSTED);
        cr_assert_geq(get(cache, 3, 0), limit);
        assert_valid(frame);
    }
}

Test(frame_cache, a_limit_of_4_gib_never_lets_a_block_above_it)
{
    struct loam_frame *frame = make_with(ZONE_END - 700, 3000);
    struct loam_frame_cache *cache = cache_all(frame, 3000);
    uint64_t low = 0, high = 0;
    loam_pfn start;

    while (loam_frame_cache_alloc(cache, 0, pfn(ZONE_END), &start) == LOAM_OK) {
        cr_assert_lt(start.value, ZONE_END);
        low++;
    }
    while (loam_frame_cache_alloc(cache, 0, pfn(ZONE_END + 100), &start) == LOAM_OK) {
        cr_assert(start.value >= ZONE_END && start.value < ZONE_END + 100);
        high++;
    }
    cr_assert(low == 700 && high == 100);
    assert_valid(frame);
}

Test(frame_cache, orders_that_no_cache_serves_go_past_it)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    struct loam_frame_cache *cache = cache_all(frame, 8 * 512);

    for (uint32_t order = 9; order <= 12; order++) {
        uint64_t start = get(cache, order, 0);

        cr_assert(loam_is_aligned(start, UINT64_C(1) << order));
        cr_assert_eq(loam_frame_check(frame, pfn(start), UINT64_C(1) << order, NULL), LOAM_OK);
        assert_valid(frame);
        put(cache, start, UINT64_C(1) << order);
    }
    cr_assert_eq(loam_frame_cache_alloc(cache, 13, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_alloc(cache, LOAM_FRAME_ORDER_MAX + 1, pfn(0), &(loam_pfn){0}), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_alloc(cache, UINT32_MAX, pfn(0), &(loam_pfn){0}), LOAM_ERROR_INVALID);
    assert_valid(frame);
}

Test(frame_cache, blocks_of_any_length_are_freed_through_a_cache)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct loam_frame_cache *cache = cache_make(frame);

    for (uint64_t count = 1; count <= FRAMES; count += count < 20 ? 1 : 97) {
        struct loam_frame_block block;
        uint64_t beside;

        cr_assert_eq(loam_frame_alloc(frame, &(struct loam_frame_request){.count_frames = count}, &block), LOAM_OK);
        beside = count < FRAMES ? get(cache, 0, 0) : 0;
        put(cache, block.start.value, count);
        assert_valid(frame);
        if (beside != 0) {
            put(cache, beside, 1);
        }
    }
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, FRAMES);
}

/* --- Blocks of a cache, changed ------------------------------------------------------------------------------- */

Test(frame_cache, blocks_of_a_cache_change_like_any_other)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};

    for (uint32_t order = 1; order < LOAM_FRAME_CACHE_ORDERS; order++) {
        uint64_t count = UINT64_C(1) << order, start = get(caches[0], order, 0);
        struct loam_frame_info info;

        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
        cr_assert_eq(loam_frame_split(frame, pfn(start), count, 1), LOAM_OK);
        assert_valid(frame);
        info = loam_frame_query(frame, pfn(start + count - 1));
        cr_assert(info.tag == LOAM_FRAME_TAG_SLAB && info.block.start.value == start + 1);
        put(caches[order % 2], start + 1, count - 1);
        cr_assert_eq(loam_frame_grow(frame, pfn(start), 1, count, NULL), LOAM_OK);
        assert_valid(frame);
        cr_assert_eq(loam_frame_query(frame, pfn(start + count - 1)).tag, LOAM_FRAME_TAG_SLAB);
        cr_assert_eq(loam_frame_trim(frame, pfn(start), count, count / 2), LOAM_OK);
        cr_assert_eq(loam_frame_set_backed(frame, pfn(start), count / 2), LOAM_OK);
        assert_valid(frame);
        cr_assert_eq(loam_frame_query(frame, pfn(start + count - 1)).state, LOAM_FRAME_FREE);
        put(caches[0], start, count / 2);
        cr_assert_eq(loam_frame_get_stats(frame).allocated_frames, 0);
        assert_valid(frame);
    }
}

Test(frame_cache, a_tag_goes_with_its_block_also_through_a_cache)
{
    struct loam_frame *frame = make_with(512, 512);
    struct loam_frame_cache *cache = cache_make(frame);

    for (uint32_t order = 0; order < LOAM_FRAME_CACHE_ORDERS; order++) {
        uint64_t start = get(cache, order, 0);

        cr_assert_eq(loam_frame_tag_set(frame, pfn(start), LOAM_FRAME_TAG_SLAB), LOAM_OK);
        put(cache, start, UINT64_C(1) << order);
        for (uint64_t n = 0; n < UINT64_C(512) >> order; n++) {
            cr_assert_eq(loam_frame_query(frame, pfn(get(cache, order, 0))).tag, LOAM_FRAME_TAG_NONE);
        }
        for (uint64_t n = 0; n < UINT64_C(512) >> order; n++) {
            put(cache, 512 + (n << order), UINT64_C(1) << order);
        }
    }
    assert_valid(frame);
}

/* A block that begins in one chunk and ends in another, whose chunks a cache then comes to own. */
Test(frame_cache, blocks_across_chunks_beside_those_of_a_cache)
{
    struct loam_frame_request request = {.count_frames = 1024, .flags = LOAM_FRAME_AT, .at = {256}};
    struct loam_frame *frame = make_with(0, 3 * 512);
    struct loam_frame_cache *caches[2] = {cache_make(frame), cache_make(frame)};
    uint64_t starts[512];
    size_t count = 0;

    cr_assert_eq(loam_frame_alloc(frame, &request, &(struct loam_frame_block){0}), LOAM_OK);
    for (count = 0; count < 512; count++) {
        starts[count] = get(caches[count % 2], 0, 0);
    }
    for (size_t i = 0; i < 512; i += 3) {
        put(caches[i % 2], starts[i], 1);
    }
    assert_valid(frame);
    assert_refused(frame, caches, 256, 1023, LOAM_ERROR_INVALID);
    assert_refused(frame, caches, 512, 512, LOAM_ERROR_INVALID);
    assert_refused(frame, caches, 1024, 256, LOAM_ERROR_INVALID);
    put(caches[0], 256, 1024);
    assert_refused(frame, caches, 256, 1024, LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_get_stats(frame).free_frames, 1024 + 171);
    for (size_t n = 0; n < 1024 + 171; n++) {
        get(caches[n % 2], 0, 0);
    }
    assert_valid(frame);
}

/* --- Reclaim and pressure -------------------------------------------------------------------------------------- */

Test(frame_cache, a_cache_serves_no_released_chunk)
{
    struct loam_frame_request request = {.count_frames = 1024, .flags = LOAM_FRAME_AT, .at = {1024}};
    struct loam_frame *frame = make_with(0, 4 * 512);
    struct loam_frame_cache *cache = cache_make(frame);
    struct loam_frame_block block;

    cr_assert_eq(loam_frame_alloc(frame, &request, &block), LOAM_OK);
    cr_assert_eq(loam_frame_free_released(frame, pfn(1024), 1024), LOAM_OK);
    for (int n = 0; n < 1024; n++) {
        cr_assert_lt(get(cache, 0, 0), 1024);
    }
    for (uint32_t order = 0; order < 12; order++) {
        cr_assert_eq(loam_frame_cache_alloc(cache, order, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    }
    cr_assert_eq(loam_frame_alloc(frame, &request, &block), LOAM_OK);
    cr_assert_eq(block.flags, LOAM_FRAME_BLOCK_RELEASED);
    cr_assert_eq(loam_frame_set_backed(frame, pfn(1024), 1024), LOAM_OK);
    put(cache, 1024, 1024);
    for (int n = 0; n < 1024; n++) {
        cr_assert_geq(get(cache, 0, 0), 1024);
    }
    assert_valid(frame);
}

Test(frame_cache, a_chunk_that_a_cache_handed_out_can_be_released)
{
    struct loam_frame *frame = make_with(0, 8 * 512);
    struct loam_frame_cache *cache = cache_all(frame, 8 * 512);

    for (uint64_t n = 0; n < 8; n++) {
        uint64_t start = get(cache, 9, 0);

        cr_assert_eq(loam_frame_free_released(frame, pfn(start), 512), LOAM_OK);
        cr_assert(loam_frame_query(frame, pfn(start)).released);
        assert_valid(frame);
    }
    cr_assert_eq(loam_frame_cache_alloc(cache, 0, pfn(0), &(loam_pfn){0}), LOAM_ERROR_EXHAUSTED);
    drain(cache);
    cr_assert_eq(loam_frame_get_stats(frame).released_chunks, 8);
    assert_valid(frame);
}

/* A request for backed frames is served with what caches hold before it is refused, or given released ones. */
Test(frame_cache, backed_frames_in_caches_come_before_none)
{
    struct loam_frame_request backed = {.count_frames = 512, .align_frames = 512, .flags = LOAM_FRAME_BACKED};
    struct loam_frame *frame = make_with(0, 2 * 512);
    struct loam_frame_block block;

    cache_all(frame, 2 * 512);
    cr_assert_eq(loam_frame_alloc(frame, &backed, &block), LOAM_OK);
    cr_assert_eq(loam_frame_free_released(frame, block.start, 512), LOAM_OK);
    cr_assert_eq(loam_frame_alloc(frame, &backed, &block), LOAM_OK);
    cr_assert_eq(block.flags, 0);
    cr_assert_eq(loam_frame_alloc(frame, &backed, &block), LOAM_ERROR_EXHAUSTED);
    assert_valid(frame);
}

/* Watermarks count what is free outside of caches. */
Test(frame_cache, pressure_does_not_count_what_caches_hold)
{
    struct loam_frame *frame = make(&(struct loam_frame_config){.watermarks = {{600, 1000}}});
    struct loam_frame_cache *cache;

    add(frame, 0, 4 * 512);
    cache = cache_all(frame, 4 * 512);
    cr_assert_eq(loam_frame_get_stats(frame).cached_frames, 4 * 512);
    cr_assert(loam_frame_pressure(frame, LOAM_FRAME_ZONE_DMA32));
    cr_assert(!loam_frame_pressure(frame, LOAM_FRAME_ZONE_NORMAL));
    drain(cache);
    cr_assert(!loam_frame_pressure(frame, LOAM_FRAME_ZONE_DMA32));
    assert_valid(frame);
}

/* --- Random operations through caches, against a cell a frame -------------------------------------------------- */

enum { CACHES = 3, CELLS = 6000, TURNS = 60000 };

#define BASE (ZONE_END - 3000)

/* Sections: [BASE, BASE + 1900) and [BASE + 1900, BASE + CELLS). */
struct model {
    struct loam_frame *frame;
    struct loam_frame_cache *caches[CACHES];
    uint64_t reserve;
    uint64_t random;
    uint32_t cell[CELLS]; /* 0: free, else the number of its block */
    uint32_t next;
    uint64_t start[CELLS]; /* blocks, in no order */
    uint64_t count[CELLS];
    uint32_t live;
    uint64_t turn;
    uint64_t served, refused, fetched;
};

static uint64_t random_below(struct model *model, uint64_t limit)
{
    model->random ^= model->random << 13;
    model->random ^= model->random >> 7;
    model->random ^= model->random << 17;
    return model->random % limit;
}

static bool cells_free(const struct model *model, uint64_t start, uint64_t count)
{
    for (uint64_t n = 0; n < count; n++) {
        if (model->cell[start - BASE + n] != 0) {
            return false;
        }
    }
    return true;
}

/* Whether [start, start + count) lies within one section. */
static bool within(uint64_t start, uint64_t count)
{
    bool low = start >= BASE && loam_fits(start - BASE, count, 1900);

    return low || (start >= BASE + 1900 && loam_fits(start - BASE - 1900, count, CELLS - 1900));
}

static uint64_t low_free(const struct model *model)
{
    uint64_t count = 0;

    for (uint64_t n = 0; n < ZONE_END - BASE; n++) {
        count += model->cell[n] == 0;
    }
    return count;
}

/* Whether the model has room for a block of the order that the request may take. */
static bool could_serve(const struct model *model, uint32_t order, uint64_t limit)
{
    uint64_t size = UINT64_C(1) << order;
    bool low = (limit != 0 && limit <= ZONE_END) || low_free(model) >= model->reserve + size;

    for (uint64_t start = loam_align_up(BASE, size); start < BASE + CELLS; start += size) {
        if (within(start, size) && (limit == 0 || start + size <= limit) && (low || start >= ZONE_END) &&
            cells_free(model, start, size)) {
            return true;
        }
    }
    return false;
}

static void note(struct model *model, uint64_t start, uint64_t count)
{
    cr_assert(within(start, count) && cells_free(model, start, count), "turn %" PRIu64 ": 0x%" PRIx64 " given twice",
              model->turn, start);
    model->next++;
    for (uint64_t n = 0; n < count; n++) {
        model->cell[start - BASE + n] = model->next;
    }
    model->start[model->live] = start;
    model->count[model->live++] = count;
}

static void forget(struct model *model, uint32_t block)
{
    memset(&model->cell[model->start[block] - BASE], 0, model->count[block] * sizeof model->cell[0]);
    model->live--;
    model->start[block] = model->start[model->live];
    model->count[block] = model->count[model->live];
}

static uint64_t random_limit(struct model *model)
{
    switch (random_below(model, 4)) {
    case 0:
        return ZONE_END;
    case 1:
        return random_below(model, 5) ? 0 : BASE + random_below(model, CELLS);
    default:
        return 0;
    }
}

static void turn_alloc(struct model *model)
{
    uint32_t order = random_below(model, 8) == 0 ? (uint32_t)random_below(model, 12) : (uint32_t)random_below(model, 5);
    uint64_t who = random_below(model, CACHES + 1), limit = random_limit(model);
    uint64_t barriers_before = barriers;
    loam_pfn start;
    enum loam_error error = who < CACHES ? loam_frame_cache_alloc(model->caches[who], order, pfn(limit), &start)
                                         : loam_frame_alloc_order_below(model->frame, order, pfn(limit), &start);

    if (error == LOAM_OK) {
        uint64_t size = UINT64_C(1) << order;

        cr_assert(loam_is_aligned(start.value, size) && (limit == 0 || start.value + size <= limit));
        note(model, start.value, size);
        cr_assert(start.value >= ZONE_END || (limit != 0 && limit <= ZONE_END) || low_free(model) >= model->reserve,
                  "turn %" PRIu64 ": the reserve was entered", model->turn);
        model->fetched += barriers != barriers_before;
    } else {
        cr_assert_eq(error, LOAM_ERROR_EXHAUSTED);
        cr_assert(!could_serve(model, order, limit), "turn %" PRIu64 ": order %u below %" PRIu64 " refused",
                  model->turn, order, limit);
        model->refused++;
    }
    model->served += error == LOAM_OK;
}

static enum loam_error free_by_anyone(struct model *model, uint64_t start, uint64_t count)
{
    uint64_t who = random_below(model, CACHES + 1);

    return who < CACHES ? loam_frame_cache_free(model->caches[who], pfn(start), count)
                        : loam_frame_free(model->frame, pfn(start), count);
}

static void turn_free(struct model *model)
{
    uint32_t block = (uint32_t)random_below(model, model->live);

    cr_assert_eq(free_by_anyone(model, model->start[block], model->count[block]), LOAM_OK, "turn %" PRIu64,
                 model->turn);
    forget(model, block);
}

/* A free that is right only by chance. */
static void turn_wrong(struct model *model)
{
    uint64_t start = BASE + random_below(model, CELLS), count = random_below(model, 9);
    enum loam_error error;

    if (random_below(model, 3) && model->live > 0) {
        uint32_t block = (uint32_t)random_below(model, model->live);

        start = model->start[block] + random_below(model, 3) - 1;
        count = model->count[block] + random_below(model, 3) - 1;
    }
    error = free_by_anyone(model, start, count);
    for (uint32_t block = 0; block < model->live; block++) {
        if (model->start[block] == start && model->count[block] == count) {
            cr_assert_eq(error, LOAM_OK);
            forget(model, block);
            return;
        }
    }
    cr_assert_eq(error, within(start, 1) ? LOAM_ERROR_INVALID : LOAM_ERROR_NOT_FOUND, "turn %" PRIu64, model->turn);
}

static void turn_change(struct model *model)
{
    uint32_t block = (uint32_t)random_below(model, model->live);
    uint64_t start = model->start[block], count = model->count[block], other = 1 + random_below(model, count + 40);
    enum loam_error error;

    if (other < count && random_below(model, 2)) {
        cr_assert_eq(loam_frame_split(model->frame, pfn(start), count, other), LOAM_OK);
        forget(model, block);
        note(model, start, other);
        note(model, start + other, count - other);
    } else if (other < count) {
        cr_assert_eq(loam_frame_trim(model->frame, pfn(start), count, other), LOAM_OK);
        forget(model, block);
        note(model, start, other);
    } else if (other > count && (start >= ZONE_END || start + other <= ZONE_END)) {
        error = loam_frame_grow(model->frame, pfn(start), count, other, NULL);
        if (!within(start, other) || !cells_free(model, start + count, other - count)) {
            cr_assert_eq(error, within(start, other) ? LOAM_ERROR_BUSY : LOAM_ERROR_NOT_FOUND);
            return;
        }
        cr_assert_eq(error, LOAM_OK);
        forget(model, block);
        note(model, start, other);
    }
}

static void turn_batch(struct model *model)
{
    uint64_t who = random_below(model, CACHES), count = random_below(model, 64);
    uint32_t order = (uint32_t)random_below(model, 3);
    loam_pfn starts[64];
    size_t done;

    if (loam_frame_cache_alloc_batch(model->caches[who], order, pfn(0), starts, count) != LOAM_OK) {
        return;
    }
    for (uint64_t n = 0; n < count; n++) {
        note(model, starts[n].value, UINT64_C(1) << order);
    }
    if (random_below(model, 2)) {
        who = random_below(model, CACHES);
        cr_assert_eq(loam_frame_cache_free_batch(model->caches[who], order, starts, count, &done), LOAM_OK);
        for (uint64_t n = 0; n < count; n++) {
            forget(model, model->live - 1);
        }
    }
}

static void turn_cache(struct model *model)
{
    uint64_t who = random_below(model, CACHES);

    if (random_below(model, 2)) {
        drain(model->caches[who]);
    } else {
        cr_assert_eq(loam_frame_cache_destroy(model->caches[who]), LOAM_OK);
        model->caches[who] = cache_make(model->frame);
    }
}

/* Everything is as the model has it. */
static void assert_agreed(struct model *model)
{
    struct loam_frame_stats stats = loam_frame_get_stats(model->frame);
    uint64_t low = low_free(model), taken = 0, cached = 0;

    for (uint64_t n = 0; n < CELLS; n++) {
        struct loam_frame_info info = loam_frame_query(model->frame, pfn(BASE + n));

        cr_assert_eq(info.state == LOAM_FRAME_ALLOCATED, model->cell[n] != 0, "turn %" PRIu64, model->turn);
        taken += model->cell[n] != 0;
        cached += info.cached;
    }
    for (uint32_t block = 0; block < model->live; block++) {
        cr_assert_eq(loam_frame_check(model->frame, pfn(model->start[block]), model->count[block], NULL), LOAM_OK);
    }
    cr_assert_eq(stats.allocated_frames, taken);
    cr_assert_eq(stats.cached_frames, cached);
    cr_assert_eq(stats.free_frames_in_zone[LOAM_FRAME_ZONE_DMA32], low);
}

static void take_turn(struct model *model)
{
    uint64_t frees = model->turn / 3000 % 2 ? 50 : 30, choice = random_below(model, 100);

    model->turn++;
    if (choice < frees && model->live > 0) {
        turn_free(model);
    } else if (choice < 90) {
        turn_alloc(model);
    } else if (choice < 94) {
        turn_wrong(model);
    } else if (choice < 96 && model->live > 0) {
        turn_change(model);
    } else if (choice < 98) {
        turn_batch(model);
    } else if (random_below(model, 20) == 0) {
        turn_cache(model);
    }
    if (model->turn % 100 == 0) {
        assert_valid(model->frame);
    }
    if (model->turn % 1500 == 0) {
        assert_agreed(model);
    }
}

static void play(uint64_t seed, uint64_t reserve)
{
    static struct model model;

    model = (struct model){.reserve = reserve, .random = seed * UINT64_C(0x9e3779b97f4a7c15)};
    model.frame = make(&(struct loam_frame_config){.dma32_reserve_frames = reserve});
    add(model.frame, BASE, 1900);
    add(model.frame, BASE + 1900, CELLS - 1900);
    for (size_t n = 0; n < CACHES; n++) {
        model.caches[n] = cache_make(model.frame);
    }
    while (model.turn < TURNS) {
        take_turn(&model);
    }
    cr_assert(model.served > 10000 && model.refused > 1000 && model.fetched > 10,
              "seed %" PRIu64 ": %" PRIu64 " served, %" PRIu64 " refused, %" PRIu64 " fetched back", seed, model.served,
              model.refused, model.fetched);
    while (model.live > 0) {
        turn_free(&model);
    }
    assert_agreed(&model);
    for (size_t n = 0; n < CACHES; n++) {
        cr_assert_eq(loam_frame_cache_destroy(model.caches[n]), LOAM_OK);
    }
    cr_assert_eq(loam_frame_get_stats(model.frame).cached_frames, 0);
    assert_valid(model.frame);
}

Test(frame_cache, random_operations_agree_with_the_model)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        play(seed, 0);
    }
}

Test(frame_cache, random_operations_agree_with_the_model_and_leave_the_reserve)
{
    for (uint64_t seed = 4; seed <= 6; seed++) {
        play(seed, 400);
    }
}
