// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator on one thread. Unless a case says otherwise the section is 8 GiB from address 0. The reference
 * has its metadata in the head of the section, for which it was designed: 2,091,025 frames stay, an odd number, so
 * that a fresh section has free blocks of several orders at hand, and pairs need few halvings or none.
 */
#include "tools/bench/subject.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define GIB_FRAMES (LOAM_GIB / LOAM_FRAME_BYTES)

#define PAIRS        5000000u
#define BULK         262144u
#define MIX_LIVE     100000u
#define MIX_STEPS    2000000u
#define MIX_ORDERS   10u
#define BATCH        64u
#define BATCHES      100000u
#define LOW_PAIRS    1000000u
#define SPARSE_EVERY 200u
#define WORST_LOW    20000u
#define WORST_HIGH   500000u
#define WORST_TIMED  100u /* of the reference: it takes milliseconds */
#define HUGE_STEPS   30000000u
#define HUGE_ORDER   9u
#define RANDOM_START UINT64_C(0x9E3779B97F4A7C15)

static const struct subject_sections usual = {.frames = 8 * GIB_FRAMES, .in_prefix = true};

/* The two functions of a case whose rounds are written once, as NAME(bench, calls). */
#define ROUNDS(name)                                                                                                   \
    static double name##_loam(const struct bench_case *bench)                                                          \
    {                                                                                                                  \
        return name(bench, &subject_loam);                                                                             \
    }                                                                                                                  \
    static double name##_seed(const struct bench_case *bench)                                                          \
    {                                                                                                                  \
        return name(bench, &subject_seed);                                                                             \
    }

/* The same for those without a cache, beside the reference under a lock. */
#define SHARED_ROUNDS(name)                                                                                            \
    static double name##_shared_loam(const struct bench_case *bench)                                                   \
    {                                                                                                                  \
        return name(bench, &subject_shared);                                                                           \
    }                                                                                                                  \
    static double name##_shared_seed(const struct bench_case *bench)                                                   \
    {                                                                                                                  \
        return name(bench, &subject_locked);                                                                           \
    }

static void expect(bool served, const struct bench_case *bench)
{
    if (!served) {
        bench_fail("%s: a call was refused", bench->name);
    }
}

/* --- Pairs ----------------------------------------------------------------------------------------------------- */

SUBJECT_INLINE double pairs(const struct bench_case *bench, const struct subject_calls *calls, bool low, uint32_t count)
{
    uint32_t order = (uint32_t)bench->parameter;
    struct subject subject;
    bool served = true;

    calls->make(&subject, &usual);
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < count; i++) {
        uint64_t place;

        served &= calls->alloc(&subject, order, low, &place);
        served &= calls->free(&subject, order, place);
    }
    uint64_t taken = bench_now() - start;
    expect(served, bench);
    calls->unmake(&subject);
    return (double)taken / count;
}

SUBJECT_INLINE double pair(const struct bench_case *bench, const struct subject_calls *calls)
{
    return pairs(bench, calls, false, PAIRS);
}

ROUNDS(pair)
SHARED_ROUNDS(pair)

SUBJECT_INLINE double low_pair(const struct bench_case *bench, const struct subject_calls *calls)
{
    return pairs(bench, calls, true, LOW_PAIRS);
}

ROUNDS(low_pair)

/* --- Guests with a reserve -------------------------------------------------------------------------------------- */

/* The default of loam/plan.h: the 16th part of what lies below 4 GiB, at most 16 MiB. */
static double reserve_pair(uint64_t frames)
{
    uint64_t most = 16 * LOAM_MIB / LOAM_FRAME_BYTES;
    struct subject_sections sections = {.frames = frames, .reserve_frames = frames / 16 < most ? frames / 16 : most};
    struct subject subject;
    bool served = true;

    subject_make_loam(&subject, &sections);
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < PAIRS; i++) {
        uint64_t place;

        served &= cached_alloc(&subject, 0, false, &place);
        served &= cached_free(&subject, 0, place);
    }
    uint64_t taken = bench_now() - start;
    subject_unmake(&subject);
    return served ? (double)taken / PAIRS : NAN;
}

static double reserve_loam(const struct bench_case *bench)
{
    return reserve_pair(bench->parameter);
}

static double reserve_reference(const struct bench_case *bench)
{
    (void)bench;
    return reserve_pair(6 * GIB_FRAMES);
}

/* --- Few frames below 4 GiB -------------------------------------------------------------------------------------- */

/* Allocations below 4 GiB, where every 200th frame is free, or all are. */
static double sparse(bool few)
{
    const uint32_t count = SUBJECT_LIMIT / SPARSE_EVERY;
    struct subject subject;
    bool served = true;
    uint64_t place;

    subject_make_loam(&subject, &usual);
    for (uint64_t frame = 0; few && frame < SUBJECT_LIMIT; frame++) {
        served &= shared_alloc(&subject, 0, true, &place);
    }
    for (uint64_t frame = 0; few && frame < SUBJECT_LIMIT; frame += SPARSE_EVERY) {
        served &= shared_free(&subject, 0, frame);
    }
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < count; i++) {
        served &= cached_alloc(&subject, 0, true, &place);
    }
    uint64_t taken = bench_now() - start;
    subject_unmake(&subject);
    return served ? (double)taken / count : NAN;
}

static double sparse_loam(const struct bench_case *bench)
{
    (void)bench;
    return sparse(true);
}

static double sparse_seed(const struct bench_case *bench)
{
    (void)bench;
    return sparse(false);
}

/* --- Bulk ------------------------------------------------------------------------------------------------------ */

/* parameter: 0 for the allocations' time, 1 for that of the frees in random order. */
SUBJECT_INLINE double bulk(const struct bench_case *bench, const struct subject_calls *calls)
{
    static uint64_t places[BULK], shuffled[BULK];
    static uint32_t order[BULK];
    struct bench_random random = {RANDOM_START};
    struct subject subject;
    uint64_t times[3];
    bool served = true;

    bench_random_order(&random, order, BULK);
    calls->make(&subject, &usual);
    times[0] = bench_now();
    for (uint32_t i = 0; i < BULK; i++) {
        served &= calls->alloc(&subject, 0, false, &places[i]);
    }
    times[1] = bench_now();
    for (uint32_t i = 0; i < BULK; i++) {
        shuffled[i] = places[order[i]];
    }
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < BULK; i++) {
        served &= calls->free(&subject, 0, shuffled[i]);
    }
    times[2] = bench_now();
    expect(served, bench);
    calls->unmake(&subject);
    return (double)(bench->parameter == 0 ? times[1] - times[0] : times[2] - start) / BULK;
}

ROUNDS(bulk)
SHARED_ROUNDS(bulk)

/* --- Mixed orders ---------------------------------------------------------------------------------------------- */

/*
 * What happens, drawn once: first the orders of what is live, then which of it makes room for a block of which order.
 */
struct mix {
    uint8_t first_order[MIX_LIVE];
    uint32_t victim[MIX_STEPS];
    uint8_t order[MIX_STEPS];
};

/* Order k with probability 2^-(k + 1); the last takes the rest. */
static uint8_t geometric(struct bench_random *random)
{
    unsigned zeros = (unsigned)__builtin_ctzll(bench_random_next(random) | UINT64_C(1) << (MIX_ORDERS - 1));

    return (uint8_t)zeros;
}

static const struct mix *mix_drawn(void)
{
    static struct mix mix;
    static bool drawn;
    struct bench_random random = {RANDOM_START};

    for (uint32_t i = 0; i < MIX_LIVE && !drawn; i++) {
        mix.first_order[i] = geometric(&random);
    }
    for (uint32_t i = 0; i < MIX_STEPS && !drawn; i++) {
        mix.victim[i] = bench_random_below(&random, MIX_LIVE);
        mix.order[i] = geometric(&random);
    }
    drawn = true;
    return &mix;
}

SUBJECT_INLINE double mixed(const struct bench_case *bench, const struct subject_calls *calls)
{
    static struct {
        uint64_t place;
        uint32_t order;
    } live[MIX_LIVE];
    const struct mix *mix = mix_drawn();
    struct subject subject;
    bool served = true;

    calls->make(&subject, &usual);
    for (uint32_t i = 0; i < MIX_LIVE; i++) {
        live[i].order = mix->first_order[i];
        served &= calls->alloc(&subject, live[i].order, false, &live[i].place);
    }
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < MIX_STEPS; i++) {
        uint32_t at = mix->victim[i];

        served &= calls->free(&subject, live[at].order, live[at].place);
        live[at].order = mix->order[i];
        served &= calls->alloc(&subject, live[at].order, false, &live[at].place);
    }
    uint64_t taken = bench_now() - start;
    expect(served, bench);
    calls->unmake(&subject);
    return (double)taken / (2.0 * MIX_STEPS);
}

ROUNDS(mixed)
SHARED_ROUNDS(mixed)

/* --- Batches --------------------------------------------------------------------------------------------------- */

SUBJECT_INLINE double batch(const struct bench_case *bench, const struct subject_calls *calls)
{
    uint64_t places[BATCH];
    struct subject subject;
    bool served = true;

    calls->make(&subject, &usual);
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < BATCHES; i++) {
        served &= calls->alloc_batch(&subject, places, BATCH);
        served &= calls->free_batch(&subject, places, BATCH);
    }
    uint64_t taken = bench_now() - start;
    expect(served, bench);
    calls->unmake(&subject);
    return (double)taken / ((double)BATCHES * BATCH);
}

ROUNDS(batch)

/* --- Below 4 GiB at the worst ---------------------------------------------------------------------------------- */

/* Every frame of the section, in the order of the calls. */
SUBJECT_INLINE uint64_t *fill(const struct bench_case *bench, const struct subject_calls *calls,
                              struct subject *subject, uint64_t frames)
{
    uint64_t *places = bench_map(frames * sizeof *places, true);

    for (uint64_t i = 0; i < frames; i++) {
        expect(calls->alloc(subject, 0, false, &places[i]), bench);
    }
    return places;
}

/* Free up to most frames from first up, each other one: none can merge. */
SUBJECT_INLINE void free_isolated(const struct bench_case *bench, const struct subject_calls *calls,
                                  struct subject *subject, uint64_t *by_frame, uint64_t first, uint32_t most)
{
    for (uint32_t i = 0; i < most; i++) {
        expect(calls->free(subject, 0, by_frame[first + 2 * (uint64_t)i]), bench);
    }
}

/*
 * 16 GiB, all taken; then isolated frames below 4 GiB are freed, and after them 500,000 above: these lead the
 * reference's list, in the order of their addresses, which is the kindest to its walk. What is timed is not freed: the
 * reference would find it again at the head of its list.
 */
SUBJECT_INLINE double worst(const struct bench_case *bench, const struct subject_calls *calls, uint32_t timed)
{
    static const struct subject_sections sections = {.frames = 16 * GIB_FRAMES};
    uint64_t *by_frame = bench_map(sections.frames * sizeof *by_frame, true);
    struct subject subject;
    uint64_t place;
    bool served = true;

    calls->make(&subject, &sections);
    uint64_t *places = fill(bench, calls, &subject, sections.frames);
    for (uint64_t i = 0; i < sections.frames; i++) {
        by_frame[calls->frame_of(places[i])] = places[i];
    }
    free_isolated(bench, calls, &subject, by_frame, GIB_FRAMES, WORST_LOW);
    free_isolated(bench, calls, &subject, by_frame, SUBJECT_LIMIT, WORST_HIGH);
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < timed; i++) {
        served &= calls->alloc(&subject, 0, true, &place);
    }
    uint64_t taken = bench_now() - start;
    expect(served && calls->frame_of(place) < SUBJECT_LIMIT, bench);
    bench_unmap(places, sections.frames * sizeof *places);
    bench_unmap(by_frame, sections.frames * sizeof *by_frame);
    calls->unmake(&subject);
    return (double)taken / timed;
}

static double worst_loam(const struct bench_case *bench)
{
    return worst(bench, &subject_loam, WORST_LOW);
}

static double worst_seed(const struct bench_case *bench)
{
    return worst(bench, &subject_seed, WORST_TIMED);
}

/* --- Metadata -------------------------------------------------------------------------------------------------- */

/* parameter: GiB of the section. Milliseconds from untouched memory to an allocator that can serve. */
static double init_loam(const struct bench_case *bench)
{
    uint64_t frames = bench->parameter * GIB_FRAMES;
    size_t bytes = loam_frame_bytes(NULL), all_bytes = bytes + frames / 2;
    char *memory = bench_map(all_bytes, false);
    struct loam_frame *frame;

    bench_barrier_init();
    bytes = loam_align_up(bytes, LOAM_FRAME_METADATA_ALIGN);
    uint64_t start = bench_now();
    bench_expect(loam_frame_init(memory, bytes, NULL, &frame), bench->name);
    size_t section_bytes = loam_frame_section_bytes(frame, (loam_pfn){0}, frames);
    bench_expect(loam_frame_section_add(frame, (loam_pfn){0}, frames, memory + bytes, section_bytes, NULL),
                 bench->name);
    uint64_t taken = bench_now() - start;
    bench_unmap(memory, all_bytes);
    return (double)taken / 1e6;
}

/* Records of 1 TiB take 3 GiB of real memory. */
static bool has_room(const struct bench_case *bench, size_t bytes)
{
    uint64_t memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    if (memory_bytes / 2 < bytes) {
        bench_note("%s: the reference wants %zu MiB, half the memory here is %llu MiB: no figure for it", bench->name,
                   bytes >> 20, (unsigned long long)(memory_bytes >> 21));
        return false;
    }
    return true;
}

static double init_seed(const struct bench_case *bench)
{
    struct seed_layout layout;
    struct seed_section section;
    struct seed seed;

    bench_expect(seed_layout_in_prefix(0, bench->parameter * LOAM_GIB, &layout), bench->name);
    size_t bytes = seed_record_bytes(layout.heap_bytes);
    if (!has_room(bench, bytes)) {
        return NAN;
    }
    void *records = bench_map(bytes, false);
    uint64_t start = bench_now();
    seed_init(&seed);
    bench_expect(seed_section_add(&seed, &section, &layout, records, bytes), bench->name);
    uint64_t taken = bench_now() - start;
    bench_unmap(records, bytes);
    return (double)taken / 1e6;
}

/* The allocator's own, its caches and its table of sections included. */
static double meta_loam(const struct bench_case *bench)
{
    struct subject subject;

    (void)bench;
    subject_make_loam(&subject, &usual);
    struct loam_frame_stats stats = loam_frame_get_stats(subject.frame);
    subject_unmake(&subject);
    return (double)stats.metadata_bytes / (double)stats.managed_frames;
}

static double meta_seed(const struct bench_case *bench)
{
    struct seed_layout layout;

    bench_expect(seed_layout_in_prefix(0, usual.frames * SEED_FRAME_BYTES, &layout), bench->name);
    uint64_t frames = layout.heap_bytes / SEED_FRAME_BYTES;
    return (double)(layout.region_bytes - layout.heap_bytes) / (double)frames;
}

/* --- What hugepages are left ----------------------------------------------------------------------------------- */

SUBJECT_INLINE void free_random(const struct bench_case *bench, const struct subject_calls *calls,
                                struct subject *subject, uint64_t *live, uint32_t *live_count,
                                struct bench_random *random)
{
    uint32_t at = bench_random_below(random, *live_count);

    expect(calls->free(subject, 0, live[at]), bench);
    live[at] = live[--*live_count];
}

/* Random calls stray from half by a few thousand frames of a million. Returns the places of what is live. */
SUBJECT_INLINE uint64_t *run_hugeable(const struct bench_case *bench, const struct subject_calls *calls,
                                      struct subject *subject, uint32_t frames)
{
    uint32_t live_count = 0;
    uint64_t *live = bench_map(frames * sizeof *live, true);
    struct bench_random random = {RANDOM_START};

    while (live_count < (uint64_t)frames * 9 / 10) {
        expect(calls->alloc(subject, 0, false, &live[live_count++]), bench);
    }
    while (live_count > frames / 2) {
        free_random(bench, calls, subject, live, &live_count, &random);
    }
    for (uint32_t step = 0; step < HUGE_STEPS; step++) {
        if (bench_random_next(&random) >> 63 != 0) {
            free_random(bench, calls, subject, live, &live_count, &random);
        } else {
            expect(calls->alloc(subject, 0, false, &live[live_count++]), bench);
        }
    }
    return live;
}

/* 4 GiB, none of them below 4 GiB. */
static const struct subject_sections ordinary = {.start_frame = 4 * GIB_FRAMES, .frames = 4 * GIB_FRAMES};

static double hugeable_loam(const struct bench_case *bench)
{
    struct subject subject;

    subject_make_loam(&subject, &ordinary);
    bench_unmap(run_hugeable(bench, &subject_loam, &subject, (uint32_t)ordinary.frames),
                ordinary.frames * sizeof(uint64_t));
    struct loam_frame_fragmentation found = loam_frame_get_fragmentation(subject.frame);
    subject_unmake(&subject);
    return 100.0 * (double)found.usable_frames[HUGE_ORDER] / (double)found.free_frames;
}

static double hugeable_seed(const struct bench_case *bench)
{
    struct subject subject;

    subject_make_seed(&subject, &ordinary);
    bench_unmap(run_hugeable(bench, &subject_seed, &subject, (uint32_t)ordinary.frames),
                ordinary.frames * sizeof(uint64_t));
    double usable = (double)seed_usable_frames(&subject.seed, HUGE_ORDER);
    double percentage = 100.0 * usable / (double)seed_free_frames(&subject.seed);
    subject_unmake(&subject);
    return percentage;
}

/* --- The table ------------------------------------------------------------------------------------------------- */

#define NS(case_name, text, times, number, rounds)                                                                     \
    {                                                                                                                  \
        .name = case_name, .what = text, .unit = "ns", .goal = times, .parameter = number, .loam = rounds##_loam,      \
        .reference = rounds##_seed                                                                                     \
    }
#define RESERVE(case_name, text, guest_frames)                                                                         \
    {                                                                                                                  \
        .name = case_name, .what = text, .unit = "ns", .goal = 0.85, .parameter = guest_frames, .loam = reserve_loam,  \
        .reference = reserve_reference                                                                                 \
    }

const struct bench_case frame_cases[] = {
    NS("frame.pair.order0", "allocate and free a frame at once", 1.6, 0, pair),
    NS("frame.pair.order3", "the same with 8 frames", 1.9, 3, pair),
    NS("frame.pair.order9", "the same with 512 frames", 1.3, 9, pair),
    NS("frame.shared.pair.order0", "allocate and free a frame at once, without a cache; reference: under a spin lock",
       1, 0, pair_shared),
    NS("frame.shared.pair.order3", "the same with 8 frames", 1, 3, pair_shared),
    NS("frame.shared.pair.order9", "the same with 512 frames", 1, 9, pair_shared),
    NS("frame.shared.bulk.alloc", "each of 262,144 frames allocated, likewise", 1, 0, bulk_shared),
    NS("frame.shared.bulk.free", "each of them freed, in random order", 1, 1, bulk_shared),
    NS("frame.shared.mix", "as frame.mix, likewise", 1, 0, mixed_shared),
    RESERVE("frame.reserve.256m",
            "allocate and free a frame in a guest of 256 MiB with its reserve; reference: of 6 GiB", GIB_FRAMES / 4),
    RESERVE("frame.reserve.3g", "the same in a guest of 3 GiB", 3 * GIB_FRAMES),
    NS("frame.bulk.alloc", "each of 262,144 frames allocated", 1.9, 0, bulk),
    NS("frame.bulk.free", "each of them freed, in random order", 1.5, 1, bulk),
    NS("frame.mix", "each call with orders 0 to 9 geometric, 100,000 blocks live, a random one freed for each new", 1.1,
       0, mixed),
    NS("frame.batch", "allocate and free each frame, 64 a call; one a call for the reference", 10, 0, batch),
    NS("frame.dma32.fresh", "allocate and free a frame below 4 GiB in a fresh section", 15, 0, low_pair),
    NS("frame.dma32.worst", "allocate a frame below 4 GiB where 500,000 isolated free ones above were freed last",
       40000, 0, worst),
    NS("frame.dma32.sparse", "allocate a frame below 4 GiB where every 200th is free; reference: where all are", 0.4, 0,
       sparse),
    {.name = "frame.init.8g",
     .what = "make an allocator and add 8 GiB, metadata in memory that was never touched",
     .unit = "ms",
     .goal = 100,
     .parameter = 8,
     .loam = init_loam,
     .reference = init_seed},
    {.name = "frame.init.1t",
     .what = "the same with 1 TiB",
     .unit = "ms",
     .goal = 100,
     .parameter = 1024,
     .loam = init_loam,
     .reference = init_seed},
    {.name = "frame.meta",
     .what = "bytes of metadata a frame, all included",
     .unit = "B",
     .goal = 37,
     .loam = meta_loam,
     .reference = meta_seed},
    {.name = "frame.hugeable",
     .what = "of free memory, usable as 2 MiB: 4 GiB filled to 90 %, freed at random to 50 %, 30 million random calls",
     .unit = "%",
     .better = BENCH_MORE,
     .goal = 4.9,
     .once = true,
     .loam = hugeable_loam,
     .reference = hugeable_seed},
    {.name = NULL},
};
