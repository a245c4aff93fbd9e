// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator under threads, under every sequence of a small world, and under more than a million random
 * operations held against frame_oracle, which knows nothing but cells; and its metadata, moved and damaged.
 */
#include "loam/frame.h"
#include "tests/allocator/frame_fixture.h"
#include "tests/allocator/frame_oracle.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY 6

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
