// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator over millions of operations of two kinds.
 *
 * Ten million against the reference model of tools/bench/seed.h: both have the same frames free at each step, because
 * Loam takes each block exactly where the reference took it. Whatever the reference serves, Loam serves before that by
 * its own choice, and frees again.
 *
 * Five million against an array of owners, by its own choice throughout: with caches, batches, sections that come and
 * go, and misuse.
 */
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "tests/allocator/frame_fixture.h"
#include "tools/bench/seed.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SECTIONS = 5, CACHES = 3, LIVE_MAX = 20000, BATCH_MAX = 32, VALIDATE_TURNS = 100000 };

enum { REFERENCE_TURNS = 2000000, OWNER_TURNS = 1000000 }; /* for each of five seeds */

struct live {
    uint64_t start, count;
};

/* A section, with a cell a frame: the number of the block that owns it, 0: none. */
struct range {
    uint64_t start, count;
    uint32_t *owners;
    void *metadata;
    uint32_t id;
    bool there;
};

struct run {
    const char *name;
    uint64_t seed, random, turn;
    struct loam_frame *frame;
    struct loam_frame_cache *caches[CACHES];
    struct range ranges[SECTIONS];
    struct live live[LIVE_MAX];
    size_t live_count;
    uint64_t free_frames;
    uint64_t served, refused, better;
    uint32_t next_owner;
    struct seed reference;
    struct seed_section sections[SECTIONS];
};

TestSuite(frame_differential, .fini = free_kept);

#define HOLDS(run, condition)                                                                                          \
    cr_assert((condition), "%s, seed %" PRIu64 ", turn %" PRIu64 ": %s", (run)->name, (run)->seed, (run)->turn,        \
              #condition)

/* xorshift64*. */
static uint64_t random_below(struct run *run, uint64_t limit)
{
    run->random ^= run->random >> 12;
    run->random ^= run->random << 25;
    run->random ^= run->random >> 27;
    return (run->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % limit;
}

/* Only one thread is here. */
static bool pass_no_barrier(void)
{
    return true;
}

/* --- The owners ------------------------------------------------------------------------------------------------ */

static struct range *range_of(struct run *run, uint64_t start)
{
    for (size_t i = 0; i < SECTIONS; i++) {
        struct range *range = &run->ranges[i];

        if (range->there && start >= range->start && start - range->start < range->count) {
            return range;
        }
    }
    return NULL;
}

/* A block was handed out: every frame of it was free, and in one section. */
static void own(struct run *run, uint64_t start, uint64_t count)
{
    struct range *range = range_of(run, start);

    HOLDS(run, range != NULL && count <= range->count - (start - range->start));
    HOLDS(run, run->live_count < LIVE_MAX);
    run->next_owner++;
    for (uint64_t n = start - range->start; n < start - range->start + count; n++) {
        HOLDS(run, range->owners[n] == 0);
        range->owners[n] = run->next_owner;
    }
    run->live[run->live_count++] = (struct live){start, count};
    run->free_frames -= count;
    run->served++;
}

static struct live disown(struct run *run, size_t i)
{
    struct live live = run->live[i];
    struct range *range = range_of(run, live.start);

    memset(&range->owners[live.start - range->start], 0, live.count * sizeof *range->owners);
    run->live[i] = run->live[--run->live_count];
    run->free_frames += live.count;
    return live;
}

/* Whether some place would have served: the slow look at everything. */
static bool fit_exists(const struct run *run, const struct loam_frame_request *request)
{
    for (size_t i = 0; i < SECTIONS; i++) {
        const struct range *range = &run->ranges[i];
        uint64_t free_run = 0;

        for (uint64_t n = 0; range->there && n < range->count; n++) {
            uint64_t end = range->start + n + 1;

            free_run = range->owners[n] == 0 ? free_run + 1 : 0;
            if (request->limit.value != 0 && end > request->limit.value) {
                break;
            }
            if (free_run >= request->count_frames &&
                loam_is_aligned(end - request->count_frames, request->align_frames)) {
                return true;
            }
        }
    }
    return false;
}

/* The block starts where it should; whether it is free, own tells. */
static bool is_asked_for(const struct loam_frame_request *request, uint64_t start)
{
    return loam_is_aligned(start, request->align_frames) &&
           (request->limit.value == 0 || start + request->count_frames <= request->limit.value);
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

static void add_range(struct run *run, size_t i, uint64_t start, uint64_t count)
{
    struct range *range = &run->ranges[i];
    size_t bytes = loam_frame_section_bytes(run->frame, pfn(start), count);

    *range = (struct range){start, count, calloc(count, sizeof(uint32_t)), metadata_alloc(bytes), .there = true};
    HOLDS(run, range->owners != NULL);
    HOLDS(run, loam_frame_section_add(run->frame, pfn(start), count, range->metadata, bytes, &range->id) == LOAM_OK);
    run->free_frames += count;
}

/* Wholly free. */
static void remove_range(struct run *run, size_t i)
{
    struct range *range = &run->ranges[i];

    HOLDS(run, loam_frame_section_remove(run->frame, range->id, NULL) == LOAM_OK);
    run->free_frames -= range->count;
    free(range->owners);
    free(range->metadata);
    range->there = false;
}

static void begin(struct run *run, const char *name, uint64_t seed)
{
    struct loam_frame_config config = {.section_capacity = SECTIONS, .cache_capacity = CACHES};

    memset(run, 0, sizeof *run);
    run->name = name;
    run->seed = seed;
    run->random = seed * UINT64_C(0x9e3779b97f4a7c15);
    run->frame = make(&config);
    loam_frame_set_barrier(pass_no_barrier);
    for (size_t i = 0; i < CACHES; i++) {
        HOLDS(run, loam_frame_cache_make(run->frame, &run->caches[i]) == LOAM_OK);
    }
}

static void check(struct run *run)
{
    struct loam_frame_stats stats = loam_frame_get_stats(run->frame);
    struct loam_diag diag = {0};

    cr_assert_eq(loam_frame_validate(run->frame, &diag), LOAM_OK, "%s, seed %" PRIu64 ", turn %" PRIu64 ": %s",
                 run->name, run->seed, run->turn, diag.text);
    HOLDS(run, stats.free_frames == run->free_frames && stats.cached_frames <= stats.free_frames);
}

/* --- Requests -------------------------------------------------------------------------------------------------- */

static uint64_t random_count(struct run *run)
{
    uint64_t kind = random_below(run, 100);

    if (kind < 80) {
        return UINT64_C(1) << __builtin_ctzll(random_below(run, 512) | 512);
    }
    return 1 + random_below(run, kind < 98 ? 30 : 1500);
}

static struct loam_frame_request random_request(struct run *run)
{
    struct loam_frame_request request = {.count_frames = random_count(run), .align_frames = 1};

    if (random_below(run, 3) > 0 && loam_is_power_of_two(request.count_frames)) {
        request.align_frames = request.count_frames;
    } else if (random_below(run, 8) == 0) {
        request.align_frames = UINT64_C(1) << random_below(run, 12);
    }
    request.limit.value = random_below(run, 4) == 0 ? ZONE_END : 0;
    return request;
}

/* Naturally aligned orders can go through a cache. */
static struct loam_frame_cache *random_cache(struct run *run, const struct loam_frame_request *request)
{
    bool natural = loam_is_power_of_two(request->count_frames) && request->align_frames == request->count_frames;

    return natural && random_below(run, 2) ? run->caches[random_below(run, CACHES)] : NULL;
}

static enum loam_error alloc(struct run *run, const struct loam_frame_request *request, struct loam_frame_cache *cache,
                             uint64_t *start)
{
    struct loam_frame_block block;
    loam_pfn got;
    enum loam_error error;

    if (cache != NULL) {
        error = loam_frame_cache_alloc(cache, (uint32_t)__builtin_ctzll(request->count_frames), request->limit, &got);
        *start = got.value;
        return error;
    }
    error = loam_frame_alloc(run->frame, request, &block);
    HOLDS(run, error != LOAM_OK || block.count_frames == request->count_frames);
    *start = block.start.value;
    return error;
}

static enum loam_error give_back(struct run *run, struct live live)
{
    uint64_t i = random_below(run, CACHES * 2);

    return i < CACHES ? loam_frame_cache_free(run->caches[i], pfn(live.start), live.count)
                      : loam_frame_free(run->frame, pfn(live.start), live.count);
}

/* --- Misuse ---------------------------------------------------------------------------------------------------- */

/* Another count, another start, a block just freed: refused, and nothing changes, as the owners show later. */
static void misuse(struct run *run)
{
    struct live live = run->live[random_below(run, run->live_count)];
    uint64_t inside = random_below(run, live.count), freed = 0;

    HOLDS(run, give_back(run, (struct live){live.start, live.count + 1}) == LOAM_ERROR_INVALID);
    HOLDS(run, give_back(run, (struct live){live.start, live.count - 1}) == LOAM_ERROR_INVALID);
    if (inside > 0) {
        HOLDS(run, give_back(run, (struct live){live.start + inside, live.count - inside}) == LOAM_ERROR_INVALID);
    }
    HOLDS(run, give_back(run, (struct live){ZONE_END * 3 + inside, live.count}) == LOAM_ERROR_NOT_FOUND);
    for (size_t i = 0; i < SECTIONS && freed == 0; i++) {
        uint64_t n = run->ranges[i].there ? random_below(run, run->ranges[i].count) : 0;

        if (run->ranges[i].there && run->ranges[i].owners[n] == 0) {
            freed = run->ranges[i].start + n;
        }
    }
    HOLDS(run, freed == 0 || give_back(run, (struct live){freed, 1}) == LOAM_ERROR_INVALID);
}

/* --- Against the reference ------------------------------------------------------------------------------------- */

static void mirror_sections(struct run *run, uint64_t seed)
{
    uint64_t ragged = seed % 2 == 0 ? 0 : random_below(run, 300);
    const struct live places[] = {{4096 + ragged, 3000}, {ZONE_END - 6144, 6144}, {ZONE_END, 8192}};

    seed_init(&run->reference);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        struct seed_layout layout =
            seed_layout_out_of_band(places[i].start * SEED_FRAME_BYTES, places[i].count * SEED_FRAME_BYTES);
        size_t bytes = seed_record_bytes(layout.heap_bytes);

        add_range(run, i, places[i].start, places[i].count);
        HOLDS(run, seed_section_add(&run->reference, &run->sections[i], &layout, keep(metadata_alloc(bytes)), bytes) ==
                       LOAM_OK);
    }
}

static enum loam_error reference_alloc(struct run *run, const struct loam_frame_request *request, uint64_t *start)
{
    uint64_t align_bytes = request->align_frames * SEED_FRAME_BYTES, address;
    enum loam_error error = request->limit.value != 0
                                ? seed_alloc_low(&run->reference, request->count_frames, align_bytes, &address)
                                : seed_alloc(&run->reference, request->count_frames, align_bytes, &address);

    *start = address / SEED_FRAME_BYTES;
    return error;
}

/* What the reference serves, Loam serves; then Loam takes the very frames that the reference took, rounded up too. */
static void mirror_alloc(struct run *run)
{
    struct loam_frame_request request = random_request(run), same = {.count_frames = 1, .flags = LOAM_FRAME_AT};
    struct loam_frame_cache *cache = random_cache(run, &request);
    struct loam_frame_block block;
    uint64_t start;
    enum loam_error by_loam = alloc(run, &request, cache, &start);

    if (by_loam == LOAM_OK) {
        HOLDS(run, is_asked_for(&request, start));
        own(run, start, request.count_frames);
        HOLDS(run, give_back(run, disown(run, run->live_count - 1)) == LOAM_OK);
    }
    if (reference_alloc(run, &request, &same.at.value) != LOAM_OK) {
        run->refused += by_loam == LOAM_ERROR_EXHAUSTED;
        run->better += by_loam == LOAM_OK;
        return;
    }
    HOLDS(run, by_loam == LOAM_OK);
    while (same.count_frames < request.count_frames) {
        same.count_frames *= 2;
    }
    HOLDS(run, loam_frame_alloc(run->frame, &same, &block) == LOAM_OK && block.start.value == same.at.value);
    own(run, block.start.value, block.count_frames);
}

static void mirror_free(struct run *run, size_t i)
{
    struct live live = disown(run, i);

    seed_free(&run->reference, live.start * SEED_FRAME_BYTES, live.count);
    HOLDS(run, give_back(run, live) == LOAM_OK);
}

static void mirror_turn(struct run *run)
{
    uint64_t fill = run->turn / 50000 % 2 ? 40 : 60;

    run->turn++;
    if (run->live_count > 0 && random_below(run, 1000) == 0) {
        misuse(run);
    }
    if (run->live_count == 0 || random_below(run, 100) < fill) {
        mirror_alloc(run);
    } else {
        mirror_free(run, random_below(run, run->live_count));
    }
    HOLDS(run, run->turn % 1000 != 0 || seed_free_frames(&run->reference) == run->free_frames);
    if (run->turn % VALIDATE_TURNS == 0) {
        check(run);
    }
}

static void report(const struct run *run)
{
    fprintf(stderr,
            "%s, seed %" PRIu64 ": %" PRIu64 " turns, %" PRIu64 " blocks handed out, %" PRIu64
            " requests refused, %" PRIu64 " served that the reference refused\n",
            run->name, run->seed, run->turn, run->served, run->refused, run->better);
}

/* Everything is freed, and every section goes. */
static void finish(struct run *run)
{
    check(run);
    for (size_t i = 0; i < SECTIONS; i++) {
        if (run->ranges[i].there) {
            remove_range(run, i);
        }
    }
    for (size_t i = 0; i < CACHES; i++) {
        HOLDS(run, loam_frame_cache_destroy(run->caches[i]) == LOAM_OK);
    }
    check(run);
    report(run);
    HOLDS(run, run->served > run->turn / 10 && run->refused > run->turn / 10000);
}

Test(frame_differential, serves_whatever_the_reference_serves)
{
    static struct run run;

    for (uint64_t seed = 1; seed <= 5; seed++) {
        begin(&run, "against the reference", seed);
        mirror_sections(&run, seed);
        while (run.turn < REFERENCE_TURNS) {
            mirror_turn(&run);
        }
        while (run.live_count > 0) {
            mirror_free(&run, run.live_count - 1);
        }
        HOLDS(&run, seed_free_frames(&run.reference) == seed_managed_frames(&run.reference));
        finish(&run);
    }
}

/* --- Against the owners ------------------------------------------------------------------------------------------ */

static void owned_alloc(struct run *run)
{
    struct loam_frame_request request = random_request(run);
    uint64_t start;
    enum loam_error error = alloc(run, &request, random_cache(run, &request), &start);

    if (error == LOAM_OK) {
        HOLDS(run, is_asked_for(&request, start));
        own(run, start, request.count_frames);
        return;
    }
    HOLDS(run, error == LOAM_ERROR_EXHAUSTED);
    /* Looking at every frame is slow: some refusals stand for all. */
    HOLDS(run, run->refused++ % 16 != 0 || !fit_exists(run, &request));
}

static void owned_alloc_batch(struct run *run)
{
    struct loam_frame_cache *cache = random_below(run, 2) ? run->caches[random_below(run, CACHES)] : NULL;
    uint32_t order = (uint32_t)__builtin_ctzll(random_below(run, 16) | 16);
    size_t count = 1 + random_below(run, BATCH_MAX);
    loam_pfn starts[BATCH_MAX];
    enum loam_error error = cache != NULL ? loam_frame_cache_alloc_batch(cache, order, pfn(0), starts, count)
                                          : loam_frame_alloc_batch(run->frame, order, pfn(0), starts, count);

    HOLDS(run, error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED);
    for (size_t i = 0; error == LOAM_OK && i < count; i++) {
        HOLDS(run, loam_is_aligned(starts[i].value, UINT64_C(1) << order));
        own(run, starts[i].value, UINT64_C(1) << order);
    }
}

/* Single frames, as many as some tries find. */
static void owned_free_batch(struct run *run)
{
    struct loam_frame_cache *cache = random_below(run, 2) ? run->caches[random_below(run, CACHES)] : NULL;
    loam_pfn starts[BATCH_MAX];
    size_t count = 0, done_count;

    for (size_t tries = 0; tries < BATCH_MAX && run->live_count > 0; tries++) {
        size_t i = random_below(run, run->live_count);

        if (run->live[i].count == 1) {
            starts[count++] = pfn(disown(run, i).start);
        }
    }
    HOLDS(run, (cache != NULL ? loam_frame_cache_free_batch(cache, 0, starts, count, &done_count)
                              : loam_frame_free_batch(run->frame, 0, starts, count, &done_count)) == LOAM_OK);
    HOLDS(run, done_count == count);
}

/* The tail goes back, or what is free behind comes in. */
static void owned_resize(struct run *run)
{
    struct live *live = &run->live[random_below(run, run->live_count)];
    struct range *range = range_of(run, live->start);
    uint64_t n = live->start - range->start, end = n + live->count, added = 1 + random_below(run, 20), taken = 0;
    enum loam_error error;

    if (live->count > 1 && random_below(run, 2)) {
        uint64_t less = 1 + random_below(run, live->count - 1);

        HOLDS(run, loam_frame_trim(run->frame, pfn(live->start), live->count, live->count - less) == LOAM_OK);
        memset(&range->owners[end - less], 0, less * sizeof *range->owners);
        live->count -= less;
        run->free_frames += less;
        return;
    }
    while (taken < added && end + taken < range->count && range->owners[end + taken] == 0) {
        taken++;
    }
    error = loam_frame_grow(run->frame, pfn(live->start), live->count, live->count + added, NULL);
    HOLDS(run, (error == LOAM_OK) == (taken == added));
    if (error == LOAM_OK) {
        for (uint64_t k = end; k < end + added; k++) {
            range->owners[k] = range->owners[n];
        }
        live->count += added;
        run->free_frames -= added;
    }
}

static void owned_free(struct run *run, size_t i)
{
    HOLDS(run, give_back(run, disown(run, i)) == LOAM_OK);
}

/* Free a section's blocks and take it away, or bring it again. */
static void turn_section(struct run *run)
{
    size_t i = random_below(run, SECTIONS);
    struct range *range = &run->ranges[i];

    if (!range->there) {
        add_range(run, i, range->start, range->count);
        return;
    }
    if (run->live_count > 0 && range_of(run, run->live[0].start) == range) {
        HOLDS(run, loam_frame_section_remove(run->frame, range->id, NULL) == LOAM_ERROR_BUSY);
    }
    for (size_t k = run->live_count; k > 0; k--) {
        if (range_of(run, run->live[k - 1].start) == range) {
            owned_free(run, k - 1);
        }
    }
    remove_range(run, i);
}

static void owned_turn(struct run *run)
{
    uint64_t fill = run->turn / 50000 % 2 ? 40 : 60, choice = random_below(run, 1000);

    run->turn++;
    if (run->live_count == 0 || (choice < 950 && random_below(run, 100) < fill)) {
        owned_alloc(run);
    } else if (choice < 950) {
        owned_free(run, random_below(run, run->live_count));
    } else if (choice < 960) {
        owned_alloc_batch(run);
    } else if (choice < 970) {
        owned_free_batch(run);
    } else if (choice < 999) {
        owned_resize(run);
    } else {
        misuse(run);
    }
    if (run->turn % 5000 == 0) {
        HOLDS(run, loam_frame_cache_drain(run->caches[random_below(run, CACHES)]) == LOAM_OK);
    }
    if (run->turn % 20000 == 0) {
        turn_section(run);
    }
    if (run->turn % VALIDATE_TURNS == 0) {
        check(run);
    }
}

Test(frame_differential, frames_have_one_owner_at_a_time)
{
    static const struct live places[SECTIONS] = {
        {100, 3000}, {5000, 2048}, {ZONE_END - 4000, 7000}, {ZONE_END + 8192, 8192}, {ZONE_END + 16384, 1}};
    static struct run run;

    for (uint64_t seed = 101; seed <= 105; seed++) {
        begin(&run, "against the owners", seed);
        for (size_t i = 0; i < SECTIONS; i++) {
            add_range(&run, i, places[i].start, places[i].count);
        }
        while (run.turn < OWNER_TURNS) {
            owned_turn(&run);
        }
        while (run.live_count > 0) {
            owned_free(&run, run.live_count - 1);
        }
        finish(&run);
    }
}
