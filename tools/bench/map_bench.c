// SPDX-License-Identifier: Apache-2.0
/*
 * GPA to HVA. The reference is what machine monitors do: a binary search over an array of regions, then the check that
 * the range ends inside the region found.
 */
#include "loam/gpa_map.h"
#include "tools/bench/bench.h"

#include <stdbool.h>
#include <stddef.h>

#define REGION_MOST  1024u
#define REGION_BYTES (2 * LOAM_MIB)
#define REGION_EVERY (4 * LOAM_MIB)           /* none continues another, so that none are joined */
#define HVA_START    UINT64_C(0x100000000000) /* never touched */
#define QUERIES      16384u                   /* a table that fits in the second-level cache */
#define PASSES       500u
#define ACCESS_BYTES 8u

struct search_region {
    uint64_t start;
    uint64_t bytes;
    char *hva;
};

static struct search_region table[REGION_MOST];
static loam_gpa queries[QUERIES];

static char *hva_of(uint32_t region)
{
    return (char *)(uintptr_t)(HVA_START + region * REGION_BYTES);
}

/* Random places in random regions, the same in every round. */
static void draw_queries(uint32_t region_count)
{
    struct bench_random random = {UINT64_C(0x9E3779B97F4A7C15)};

    for (uint32_t i = 0; i < QUERIES; i++) {
        uint64_t region = bench_random_below(&random, region_count);

        queries[i] = loam_gpa_from_u64(region * REGION_EVERY + bench_random_below(&random, REGION_BYTES / 8) * 8ull);
    }
}

/* --- Loam ------------------------------------------------------------------------------------------------------ */

static void insert_all(struct loam_gpa_map *map, uint32_t region_count)
{
    for (uint32_t i = 0; i < region_count; i++) {
        struct loam_region region = {.start = loam_gpa_from_u64(i * REGION_EVERY),
                                     .bytes = REGION_BYTES,
                                     .hva = hva_of(i),
                                     .backing_offset = i * REGION_BYTES,
                                     .type = LOAM_REGION_RAM,
                                     .access = LOAM_ACCESS_WRITE};

        bench_expect(loam_gpa_map_insert(map, &region), "a region");
    }
}

/* Returns nanoseconds for all passes; *sum is that of the low bits of all HVAs. */
static uint64_t time_loam(const struct loam_gpa_view *view, uint64_t *sum)
{
    uint64_t start = bench_now();

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            void *hva;
            enum loam_error error = loam_gpa_view_translate(view, queries[i], ACCESS_BYTES, LOAM_ACCESS_WRITE, &hva);

            *sum += (uintptr_t)hva + error;
        }
    }
    return bench_now() - start;
}

/* --- The reference --------------------------------------------------------------------------------------------- */

static void fill_table(uint32_t region_count)
{
    for (uint32_t i = 0; i < region_count; i++) {
        table[i] = (struct search_region){i * REGION_EVERY, REGION_BYTES, hva_of(i)};
    }
}

/* Called as Loam's function is: not inlined into the loop. NULL: no region holds the range. */
static __attribute__((noinline)) void *search(const struct search_region *regions, size_t count, uint64_t gpa,
                                              uint64_t bytes)
{
    size_t low = 0;

    for (size_t left = count; left > 1;) {
        size_t half = left / 2;

        low += regions[low + half].start <= gpa ? half : 0;
        left -= half;
    }
    const struct search_region *found = &regions[low];
    return gpa >= found->start && loam_fits(gpa - found->start, bytes, found->bytes) ? found->hva + (gpa - found->start)
                                                                                     : NULL;
}

static uint64_t time_search(uint32_t region_count, uint64_t *sum)
{
    uint64_t start = bench_now();

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            *sum += (uintptr_t)search(table, region_count, queries[i].value, ACCESS_BYTES);
        }
    }
    return bench_now() - start;
}

/* --- Cases ----------------------------------------------------------------------------------------------------- */

/* What the sum must be. */
static uint64_t expected_sum(void)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < QUERIES; i++) {
        uint64_t gpa = queries[i].value;

        sum += (uintptr_t)hva_of((uint32_t)(gpa / REGION_EVERY)) + gpa % REGION_EVERY;
    }
    return sum * PASSES;
}

static double figure(const struct bench_case *bench, uint64_t taken, uint64_t sum)
{
    if (sum != expected_sum()) {
        bench_fail("%s: an address was translated wrongly", bench->name);
    }
    return (double)taken / ((double)QUERIES * PASSES);
}

/* parameter: the number of regions. */
static double translate_loam(const struct bench_case *bench)
{
    uint32_t count = (uint32_t)bench->parameter;
    struct loam_gpa_map_config config = {.region_capacity = count};
    size_t bytes = loam_gpa_map_bytes(&config);
    void *memory = bench_map(bytes, true);
    struct loam_gpa_map *map;
    uint64_t sum = 0;

    draw_queries(count);
    bench_expect(loam_gpa_map_init(memory, bytes, &config, &map), "a map");
    insert_all(map, count);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint64_t taken = time_loam(view, &sum);
    loam_gpa_map_release(map, view);
    bench_unmap(memory, bytes);
    return figure(bench, taken, sum);
}

static double translate_search(const struct bench_case *bench)
{
    uint32_t count = (uint32_t)bench->parameter;
    uint64_t sum = 0;

    draw_queries(count);
    fill_table(count);
    uint64_t taken = time_search(count, &sum);
    return figure(bench, taken, sum);
}

const struct bench_case map_cases[] = {
    {.name = "gpa_map.translate.1",
     .what = "GPA to HVA at random in one region; reference: a plain binary search",
     .unit = "ns",
     .goal_figure = 1.5,
     .parameter = 1,
     .loam = translate_loam,
     .reference = translate_search},
    {.name = "gpa_map.translate.1024",
     .what = "GPA to HVA at random in 1,024 regions; reference: a plain binary search",
     .unit = "ns",
     .goal_figure = 4,
     .parameter = REGION_MOST,
     .loam = translate_loam,
     .reference = translate_search},
    {.name = NULL},
};
