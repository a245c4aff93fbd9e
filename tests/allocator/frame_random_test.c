// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator under more than a million random operations held against frame_oracle, which knows nothing but
 * cells; under threads; and its metadata, moved and damaged.
 */
#include "loam/frame.h"
#include "tests/allocator/frame_fixture.h"
#include "tests/allocator/frame_play.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The size of the allocator's first cache line, which holds its lock and nothing else. */
#define LOCK_BYTES 64

TestSuite(frame, .fini = free_kept);

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
    cr_assert_eq(loam_frame_get_stats(shared).allocated_frames, 0);
}

/* --- Random operations against the oracle ---------------------------------------------------------------------- */

enum { TURNS = 100000 };

struct world {
    struct frame_play play;
    uint64_t seed, turn;
};

#define PLAYED(world, success)                                                                                         \
    cr_assert((success), "seed %" PRIu64 ", turn %" PRIu64 ": %s", (world)->seed, (world)->turn, (world)->play.why)

/* xorshift64*. */
static uint64_t random_below(struct frame_play *play, uint64_t limit)
{
    play->state ^= play->state >> 12;
    play->state ^= play->state << 25;
    play->state ^= play->state >> 27;
    return (play->state * UINT64_C(0x2545f4914f6cdd1d) >> 11) % limit;
}

static void world_make(struct world *world, const struct frame_play_geometry *geometry, uint64_t seed)
{
    memset(world, 0, sizeof *world);
    world->seed = seed;
    world->play.choose = random_below;
    world->play.state = seed * UINT64_C(0x9e3779b97f4a7c15);
    PLAYED(world, frame_play_make(&world->play, geometry));
}

static void take_turn(struct world *world)
{
    world->turn++;
    /* Filling and emptying by turns, so that both full and empty states are seen. */
    PLAYED(world, frame_play_turn(&world->play, world->turn / 2000 % 2 ? 35 : 65));
    if (world->play.geometry->dynamic && world->turn % 100 == 0) {
        PLAYED(world, frame_play_section(&world->play));
    }
    if (world->turn % 500 == 0) {
        PLAYED(world, frame_play_cache(&world->play));
    }
    if (world->turn % 200 == 0) {
        PLAYED(world, frame_play_validate(&world->play));
    }
}

static void world_end(struct world *world)
{
    PLAYED(world, frame_play_end(&world->play));
    cr_assert(world->play.served > world->turn / 20 && world->play.refused > world->turn / 100,
              "%s: too few requests served (%" PRIu64 ") or refused (%" PRIu64 ") to show anything",
              world->play.geometry->name, world->play.served, world->play.refused);
    frame_play_drop(&world->play);
}

static void play(const struct frame_play_geometry *geometry, uint64_t seed)
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
    play(&(struct frame_play_geometry){.name = "ragged", .sections = {{{100}, 2700}}}, 1);
}

Test(frame, random_around_4_gib)
{
    play(&(struct frame_play_geometry){.name = "around 4 GiB", .sections = {{{ZONE_END - 1300}, 2800}}}, 2);
}

Test(frame, random_around_4_gib_with_reserve)
{
    play(&(struct frame_play_geometry){.name = "around 4 GiB, reserve",
                                       .config = {.dma32_reserve_frames = 400},
                                       .sections = {{{ZONE_END - 1300}, 2800}, {{3000}, 600}}},
         3);
}

Test(frame, random_sections_that_share_chunks)
{
    play(&(struct frame_play_geometry){.name = "shared chunks",
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
    play(&(struct frame_play_geometry){.name = "come and go",
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
    play(&(struct frame_play_geometry){.name = "16 KiB frames",
                                       .config = {.frame_shift = 14},
                                       .sections = {{{(ZONE_END >> 2) - 2048}, 4096}, {{PFN_END / 4 - 600}, 600}}},
         6);
}

Test(frame, random_64_kib_frames)
{
    play(&(struct frame_play_geometry){.name = "64 KiB frames",
                                       .config = {.frame_shift = 16, .dma32_reserve_frames = 700},
                                       .sections = {{{(ZONE_END >> 4) - 1025}, 3000}, {{0}, 513}}},
         7);
}

Test(frame, random_whole_chunks)
{
    play(&(struct frame_play_geometry){.name = "whole chunks",
                                       .sections = {{{ZONE_END}, 8192}, {{ZONE_END - 2048}, 2048}}},
         8);
}

Test(frame, random_tiny_sections)
{
    play(
        &(struct frame_play_geometry){
            .name = "tiny",
            .config = {.dma32_reserve_frames = 3},
            .sections = {{{0}, 1}, {{5}, 16}, {{511}, 2}, {{ZONE_END - 3}, 6}, {{ZONE_END + 9}, 1}},
            .dynamic = true},
        9);
}

Test(frame, random_with_caches)
{
    play(&(struct frame_play_geometry){.name = "caches",
                                       .sections = {{{ZONE_END - 1300}, 2800}, {{3000}, 600}},
                                       .cache_count = 3},
         20);
}

Test(frame, random_with_caches_and_sections_that_come_and_go)
{
    play(&(struct frame_play_geometry){.name = "caches, sections come and go",
                                       .sections = {{{511}, 1026},
                                                    {{1537}, 300},
                                                    {{2000}, 512},
                                                    {{ZONE_END - 700}, 1500},
                                                    {{ZONE_END + 4096}, 1024}},
                                       .dynamic = true,
                                       .cache_count = 2},
         21);
}

Test(frame, random_with_caches_and_whole_chunks)
{
    play(&(struct frame_play_geometry){.name = "caches, whole chunks",
                                       .sections = {{{ZONE_END}, 8192}, {{ZONE_END - 4096}, 4096}},
                                       .cache_count = 3},
         26);
}

Test(frame, random_with_caches_and_reserve)
{
    play(&(struct frame_play_geometry){.name = "caches, reserve",
                                       .config = {.dma32_reserve_frames = 700},
                                       .sections = {{{ZONE_END - 2048}, 3000}, {{100}, 900}},
                                       .cache_count = 3},
         22);
}

Test(frame, random_with_watermarks)
{
    play(&(struct frame_play_geometry){.name = "watermarks",
                                       .config = {.watermarks = {{300, 700}, {400, 400}}},
                                       .sections = {{{ZONE_END - 1300}, 2800}, {{3000}, 600}}},
         23);
}

Test(frame, random_with_watermarks_caches_and_reserve)
{
    play(
        &(struct frame_play_geometry){.name = "watermarks, caches, reserve",
                                      .config = {.watermarks = {{600, 1500}, {1, 512}}, .dma32_reserve_frames = 500},
                                      .sections = {{{ZONE_END - 1300}, 2800}, {{3000}, 600}, {{ZONE_END + 5000}, 1600}},
                                      .dynamic = true,
                                      .cache_count = 3},
        24);
}

Test(frame, random_with_caches_on_tiny_sections)
{
    play(
        &(struct frame_play_geometry){
            .name = "tiny, caches",
            .config = {.dma32_reserve_frames = 3},
            .sections = {{{0}, 1}, {{5}, 16}, {{511}, 2}, {{ZONE_END - 3}, 6}, {{ZONE_END + 9}, 40}},
            .dynamic = true,
            .cache_count = 3},
        25);
}

/* --- A section so large that questions take more than one step through it -------------------------------------- */

static void take_at(struct loam_frame *frame, uint64_t start, uint64_t end)
{
    while (start < end) {
        uint64_t count = end - start < LOAM_FRAME_COUNT_MAX ? end - start : LOAM_FRAME_COUNT_MAX;
        struct loam_frame_request request = {.count_frames = count, .flags = LOAM_FRAME_AT, .at = {start}};
        struct loam_frame_block block;

        cr_assert_eq(loam_frame_alloc(frame, &request, &block), LOAM_OK);
        start += count;
    }
}

Test(frame, questions_see_all_of_a_large_section)
{
    enum { FRAMES = 5 << 20, STEP = 1 << 20 };
    static const struct loam_frame_range holes[] = {
        {{5}, 1},         {{STEP - 700}, 1400}, {{2 * STEP}, 1}, {{3 * STEP - 512}, 1024}, {{4 * STEP - 1}, 1},
        {{FRAMES - 3}, 3}};
    struct loam_frame *frame = make_with(ZONE_END, FRAMES);
    struct loam_frame_range range = {0};
    uint64_t at = ZONE_END;
    bool released;

    for (size_t i = 0; i < sizeof holes / sizeof holes[0]; i++) {
        take_at(frame, at, ZONE_END + holes[i].start.value);
        at = ZONE_END + holes[i].start.value + holes[i].count_frames;
    }
    at = 0;
    for (size_t i = 0; i < sizeof holes / sizeof holes[0]; i++) {
        cr_assert_eq(loam_frame_next_free(frame, pfn(at), &range), LOAM_OK);
        cr_assert_eq(range.start.value, ZONE_END + holes[i].start.value);
        cr_assert_eq(range.count_frames, holes[i].count_frames);
        at = range.start.value + range.count_frames;
    }
    cr_assert_eq(loam_frame_next_free(frame, pfn(at), &range), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_largest_free(frame, pfn(0), &range), LOAM_OK);
    cr_assert(range.start.value == ZONE_END + STEP - 700 && range.count_frames == 1400);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(0), &range, &released), LOAM_OK);
    cr_assert(range.start.value == ZONE_END + STEP - 512 && range.count_frames == 1024);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(ZONE_END + STEP + 512), &range, &released), LOAM_OK);
    cr_assert(range.start.value == ZONE_END + 3 * STEP - 512 && range.count_frames == 1024);
    cr_assert_eq(loam_frame_next_free_chunks(frame, pfn(range.start.value + 1024), &range, &released),
                 LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_frame_get_fragmentation(frame).usable_frames[9], 2048);
    cr_assert_eq(loam_frame_get_fragmentation(frame).usable_frames[0], 2430);
    assert_valid(frame);
}

/* --- Metadata that moves, and metadata that was damaged -------------------------------------------------------- */

static const struct frame_play_geometry moving = {
    .name = "moving",
    .config = {.dma32_reserve_frames = 100},
    .sections = {{{511}, 1026}, {{ZONE_END - 700}, 1500}, {{ZONE_END + 4096}, 2048}},
    .cache_count = 2};

Test(frame, metadata_works_on_at_another_address)
{
    struct world world;

    world_make(&world, &moving, 10);
    while (world.turn < 30000) {
        take_turn(&world);
        if (world.turn % 300 == 0) {
            PLAYED(&world, frame_play_move(&world.play));
        }
    }
    world_end(&world);
}

/* Damage to what the allocator and its sections use, the lock left out: who reads it waits for it. */
static size_t random_place(struct world *world)
{
    return LOCK_BYTES + random_below(&world->play, world->play.arena_bytes - LOCK_BYTES - 64);
}

/* Without caches: a damaged word that says that an owner is in a call makes who reads it wait for it. */
Test(frame, validate_survives_random_bytes)
{
    struct frame_play_geometry still = moving;
    struct world world;
    char *arena;

    still.cache_count = 0;
    world_make(&world, &still, 12);
    arena = keep(metadata_alloc(world.play.arena_bytes));
    for (int i = 0; i < 4000; i++) {
        size_t at = random_place(&world), bytes = i % 2 ? 64 : 1;

        if (i % 50 == 0) {
            take_turn(&world);
        }
        memcpy(arena, world.play.arena, world.play.arena_bytes);
        for (size_t n = 0; n < bytes; n++) {
            arena[at + n] = (char)random_below(&world.play, 256);
        }
        (void)!loam_frame_validate((struct loam_frame *)arena, NULL);
    }
    memset(arena, 0, world.play.arena_bytes);
    cr_assert_eq(loam_frame_validate((struct loam_frame *)arena, NULL), LOAM_ERROR_CORRUPT);
    frame_play_drop(&world.play);
}
