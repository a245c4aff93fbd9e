// SPDX-License-Identifier: Apache-2.0
/*
 * dma: a buffer of one frame is released and another carved, while so many are live. What is timed is the ledger and what
 * it takes to say where a buffer lies: buffers are not zeroed. The buffer that goes is the oldest, as with a device's
 * ring, or one at random: that meets cache and TLB misses in whatever remembers more than these hold, the array of what
 * is live included.
 */
#include "loam/dma.h"
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "loam/gpa_map.h"
#include "tools/bench/bench.h"

#include <stdlib.h>

#define PAIR_COUNT    1000000u
#define LIVE_MOST     256000u
#define LIVE_FEW      64u
#define THREADS       2u
#define AT_RANDOM     (UINT64_C(1) << 32) /* in a case's parameter, which is how many are live */
#define GUEST_BYTES   (2 * LOAM_GIB)
#define GUEST_START   (4 * LOAM_GIB)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* --- A guest ----------------------------------------------------------------------------------------------------- */

struct guest {
    struct loam_frame *frame;
    struct loam_gpa_map *map;
    struct loam_dma *dma;
    size_t frame_bytes, section_bytes, map_bytes;
    void *section;
    void *memory;
};

static void guest_map(struct guest *guest)
{
    struct loam_region region = {
        .start = {GUEST_START}, .bytes = GUEST_BYTES, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};
    void *memory;

    region.hva = guest->memory = bench_map(GUEST_BYTES, false);
    guest->map_bytes = loam_gpa_map_bytes(NULL);
    memory = bench_map(guest->map_bytes, true);
    bench_expect(loam_gpa_map_init(memory, guest->map_bytes, NULL, &guest->map), "map init");
    bench_expect(loam_gpa_map_insert(guest->map, &region), "map insert");
}

static void guest_make(struct guest *guest)
{
    loam_pfn start = loam_pfn_from_u64(GUEST_START >> LOAM_FRAME_SHIFT);
    uint64_t count_frames = GUEST_BYTES >> LOAM_FRAME_SHIFT;
    void *memory;

    bench_barrier_init();
    guest_map(guest);
    guest->frame_bytes = loam_frame_bytes(NULL);
    memory = bench_map(guest->frame_bytes, true);
    bench_expect(loam_frame_init(memory, guest->frame_bytes, NULL, &guest->frame), "frame init");
    guest->section_bytes = loam_frame_section_bytes(guest->frame, start, count_frames);
    guest->section = bench_map(guest->section_bytes, true);
    bench_expect(loam_frame_section_add(guest->frame, start, count_frames, guest->section, guest->section_bytes, NULL),
                 "section");
    bench_expect(loam_dma_create(guest->frame, guest->map, &guest->dma), "dma create");
}

static void guest_unmake(struct guest *guest)
{
    loam_dma_destroy(guest->dma);
    bench_unmap(guest->section, guest->section_bytes);
    bench_unmap(guest->frame, guest->frame_bytes);
    bench_unmap(guest->map, guest->map_bytes);
    bench_unmap(guest->memory, GUEST_BYTES);
}

/* --- The two sides of the loop ----------------------------------------------------------------------------------- */

/* A thread of the guest, which has live buffers, or blocks of the frame allocator alone. */
struct carver {
    struct guest *guest;
    struct loam_frame_cache *cache; /* NULL: without */
    bool ledger;                    /* buffers; else blocks */
    bool at_random;                 /* which goes; else the oldest */
    uint32_t live_count;
    uint64_t seed;
    uint64_t *live; /* ids, or frame numbers */
};

ALWAYS_INLINE uint64_t take(const struct carver *carver, bool ledger)
{
    struct loam_dma_request request = {
        .owner = "bench", .bytes = LOAM_FRAME_BYTES, .flags = LOAM_DMA_NO_ZERO, .cache = carver->cache};
    struct loam_dma_buffer buffer;
    enum loam_error error;
    loam_pfn start;

    if (ledger) {
        bench_expect(loam_dma_alloc(carver->guest->dma, &request, &buffer, NULL), "dma alloc");
        return buffer.id;
    }
    error = carver->cache != NULL ? loam_frame_cache_alloc(carver->cache, 0, (loam_pfn){0}, &start)
                                  : loam_frame_alloc_order(carver->guest->frame, 0, &start);
    bench_expect(error, "frame alloc");
    return start.value;
}

ALWAYS_INLINE void give(const struct carver *carver, bool ledger, uint64_t what)
{
    loam_pfn start = {what};

    if (ledger) {
        bench_expect(loam_dma_release_into(carver->guest->dma, what, carver->cache), "dma release");
    } else if (carver->cache != NULL) {
        bench_expect(loam_frame_cache_free(carver->cache, start, 1), "frame free");
    } else {
        bench_expect(loam_frame_free(carver->guest->frame, start, 1), "frame free");
    }
}

ALWAYS_INLINE void pairs(const struct carver *carver, bool ledger)
{
    struct bench_random random = {carver->seed};

    for (uint32_t i = 0, next = 0; i < PAIR_COUNT; i++) {
        uint64_t *slot = &carver->live[carver->at_random ? bench_random_below(&random, carver->live_count) : next];

        next = next + 1 < carver->live_count ? next + 1 : 0;
        give(carver, ledger, *slot);
        *slot = take(carver, ledger);
    }
}

static void run_pairs(void *argument)
{
    const struct carver *carver = argument;

    if (carver->ledger) {
        pairs(carver, true);
    } else {
        pairs(carver, false);
    }
}

static void carver_make(struct carver *carver, bool cached)
{
    if (cached) {
        bench_expect(loam_frame_cache_make(carver->guest->frame, &carver->cache), "cache");
    }
    carver->live = bench_map(carver->live_count * sizeof *carver->live, true);
    for (uint32_t i = 0; i < carver->live_count; i++) {
        carver->live[i] = take(carver, carver->ledger);
    }
}

static void carver_unmake(struct carver *carver)
{
    for (uint32_t i = 0; i < carver->live_count; i++) {
        give(carver, carver->ledger, carver->live[i]);
    }
    bench_unmap(carver->live, carver->live_count * sizeof *carver->live);
    if (carver->cache != NULL) {
        bench_expect(loam_frame_cache_destroy(carver->cache), "cache destroy");
    }
}

/* --- Cases ------------------------------------------------------------------------------------------------------- */

/* Nanoseconds a pair, on one thread. */
static double pair_ns(uint64_t parameter, bool ledger, bool cached)
{
    struct guest guest;
    struct carver carver = {.guest = &guest,
                            .ledger = ledger,
                            .at_random = (parameter & AT_RANDOM) != 0,
                            .live_count = (uint32_t)(parameter & ~AT_RANDOM),
                            .seed = 1};
    uint64_t start;
    double figure;

    guest_make(&guest);
    carver_make(&carver, cached);
    start = bench_now();
    run_pairs(&carver);
    figure = (double)(bench_now() - start) / PAIR_COUNT;
    carver_unmake(&carver);
    guest_unmake(&guest);
    return figure;
}

static double cached_dma(const struct bench_case *bench)
{
    return pair_ns(bench->parameter, true, true);
}

static double cached_frame(const struct bench_case *bench)
{
    return pair_ns(bench->parameter, false, true);
}

static double shared_dma(const struct bench_case *bench)
{
    return pair_ns(bench->parameter, true, false);
}

static double shared_frame(const struct bench_case *bench)
{
    return pair_ns(bench->parameter, false, false);
}

/* Millions of pairs a second, by so many threads together. */
static double pairs_by(unsigned threads)
{
    struct guest guest;
    struct carver carvers[THREADS] = {{0}};
    struct bench_thread run[THREADS];
    double figure;

    guest_make(&guest);
    for (unsigned i = 0; i < threads; i++) {
        carvers[i] =
            (struct carver){.guest = &guest, .ledger = true, .at_random = true, .live_count = LIVE_FEW, .seed = i + 1};
        carver_make(&carvers[i], true);
        run[i] = (struct bench_thread){.run = run_pairs, .argument = &carvers[i]};
    }
    figure = 1000.0 * PAIR_COUNT * threads / (double)bench_threads(run, threads);
    for (unsigned i = 0; i < threads; i++) {
        carver_unmake(&carvers[i]);
    }
    guest_unmake(&guest);
    return figure;
}

static double two_threads(const struct bench_case *bench)
{
    (void)bench;
    return pairs_by(THREADS);
}

static double one_thread(const struct bench_case *bench)
{
    (void)bench;
    return pairs_by(1);
}

const struct bench_case dma_cases[] = {
    {.name = "dma.pair",
     .what = "release a buffer and carve one, a random one of 64 live, through a thread's cache, against frames from "
             "such a cache",
     .unit = "ns",
     .better = BENCH_LESS,
     .goal = 0.33,
     .parameter = LIVE_FEW | AT_RANDOM,
     .loam = cached_dma,
     .reference = cached_frame},
    {.name = "dma.shared.pair",
     .what = "the same without a cache, against frames without one",
     .unit = "ns",
     .better = BENCH_LESS,
     .parameter = LIVE_FEW | AT_RANDOM,
     .loam = shared_dma,
     .reference = shared_frame},
    {.name = "dma.live.1000",
     .what = "release the oldest of 1,000 live buffers and carve one, through a thread's cache",
     .unit = "ns",
     .better = BENCH_LESS,
     .goal = 0.5,
     .parameter = 1000,
     .loam = cached_dma,
     .group = "dma.live"},
    {.name = "dma.live.256000",
     .what = "the same, 256,000 live, against the fastest of these",
     .unit = "ns",
     .better = BENCH_LESS,
     .goal = 0.5,
     .parameter = LIVE_MOST,
     .loam = cached_dma,
     .group = "dma.live"},
    {.name = "dma.random.256000",
     .what = "a random one of 256,000 live, against frames through a thread's cache",
     .unit = "ns",
     .better = BENCH_LESS,
     .goal = 0.33,
     .parameter = LIVE_MOST | AT_RANDOM,
     .loam = cached_dma,
     .reference = cached_frame},
    {.name = "dma.threads2",
     .what = "pairs a second by two threads, 64 live and a cache each, against one thread",
     .unit = "M/s",
     .better = BENCH_MORE,
     .goal = 1.5,
     .loam = two_threads,
     .reference = one_thread},
    {.name = NULL},
};
