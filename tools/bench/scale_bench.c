// SPDX-License-Identifier: Apache-2.0
/*
 * Whether a call costs the same however much there is: 1, 64 and 1,024 GiB in one section, and 64 GiB in 1, 64 and
 * 4,096 sections with as much space between them. Each case is held against the fastest of its group; the goal, flat
 * within 1.5 times, is a ratio of two thirds. Managed memory is never touched, so it need not be there.
 */
#include "tools/bench/subject.h"

#define GIB_FRAMES (LOAM_GIB / LOAM_FRAME_BYTES)
#define PAIRS      2000000u
#define TOTAL_GIB  64u /* in many sections */
#define FLAT       (1 / 1.5)

/* parameter: GiB in one section, or with MANY the number of sections. */
#define MANY (UINT64_C(1) << 32)

static struct subject_sections sections_of(uint64_t parameter)
{
    uint32_t count = parameter < MANY ? 1 : (uint32_t)(parameter - MANY);
    uint64_t frames = (parameter < MANY ? parameter : TOTAL_GIB) * GIB_FRAMES / count;

    return (struct subject_sections){.frames = frames, .count = count, .every_frames = 2 * frames};
}

SUBJECT_INLINE double pairs(const struct bench_case *bench, const struct subject_calls *calls, bool low)
{
    struct subject_sections sections = sections_of(bench->parameter);
    struct subject subject;
    bool served = true;

    calls->make(&subject, &sections);
    uint64_t start = bench_now();
    for (uint32_t i = 0; i < PAIRS; i++) {
        uint64_t place;

        served &= calls->alloc(&subject, 0, low, &place);
        served &= calls->free(&subject, 0, place);
    }
    uint64_t taken = bench_now() - start;
    if (!served) {
        bench_fail("%s: a call was refused", bench->name);
    }
    calls->unmake(&subject);
    return (double)taken / PAIRS;
}

static double pair(const struct bench_case *bench)
{
    return pairs(bench, &subject_loam, false);
}

static double pair_low(const struct bench_case *bench)
{
    return pairs(bench, &subject_loam, true);
}

static double pair_shared(const struct bench_case *bench)
{
    return pairs(bench, &subject_shared, false);
}

static double pair_shared_low(const struct bench_case *bench)
{
    return pairs(bench, &subject_shared, true);
}

#define SCALE(set, scale, text, number, round)                                                                         \
    {                                                                                                                  \
        .name = set "." scale, .what = text ": " scale, .unit = "ns", .goal = FLAT, .parameter = number,               \
        .loam = round, .group = set                                                                                    \
    }
#define SIZES(set, text, round)                                                                                        \
    SCALE(set ".gib", "1", text " in so many GiB", 1, round),                                                          \
        SCALE(set ".gib", "64", text " in so many GiB", 64, round),                                                    \
        SCALE(set ".gib", "1024", text " in so many GiB", 1024, round)
#define SECTIONS(set, text, round)                                                                                     \
    SCALE(set ".sections", "1", text " in so many sections", MANY + 1, round),                                         \
        SCALE(set ".sections", "64", text " in so many sections", MANY + 64, round),                                   \
        SCALE(set ".sections", "4096", text " in so many sections", MANY + 4096, round)

const struct bench_case scale_cases[] = {
    SIZES("frame.scale.pair", "allocate and free a frame", pair),
    SECTIONS("frame.scale.pair", "allocate and free a frame", pair),
    SIZES("frame.scale.dma32", "allocate and free a frame below 4 GiB", pair_low),
    SECTIONS("frame.scale.dma32", "allocate and free a frame below 4 GiB", pair_low),
    SIZES("frame.scale.shared.pair", "without a cache, allocate and free a frame", pair_shared),
    SECTIONS("frame.scale.shared.pair", "without a cache, allocate and free a frame", pair_shared),
    SIZES("frame.scale.shared.dma32", "without a cache, allocate and free a frame below 4 GiB", pair_shared_low),
    SECTIONS("frame.scale.shared.dma32", "without a cache, allocate and free a frame below 4 GiB", pair_shared_low),
    {.name = NULL},
};
