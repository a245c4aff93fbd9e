// SPDX-License-Identifier: Apache-2.0
/*
 * GPA to HVA, and guest memory copied. The reference is what machine monitors do: a binary search over an array of
 * regions, then the check that the range ends inside the region found; of copies, memcpy(3) at an address that is known.
 */
#include "loam/gpa_map.h"
#include "tools/bench/bench.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define REGION_MOST  1024u
#define REGION_BYTES (2 * LOAM_MIB)
#define REGION_EVERY (4 * LOAM_MIB)           /* none continues another, so that none are joined */
#define HVA_START    UINT64_C(0x100000000000) /* never touched */
#define QUERIES      16384u                   /* a table that fits in the second-level cache */
#define PASSES       500u
#define ACCESS_BYTES 8u
#define PAGE_BYTES   4096u
#define NEAR_BYTES   16384u  /* what 8 bytes are read from: fits in the first-level cache */
#define FAR_BYTES    262144u /* what pages are copied from and to: fits in the second-level cache */

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

/*
 * Each returns nanoseconds for all passes; *sum is that of all HVAs. It is added up in a register: in memory, each
 * addition would wait for the one before.
 */
static uint64_t time_loam(const struct loam_gpa_view *view, uint64_t *sum)
{
    uint64_t start = bench_now(), total = 0;

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            void *hva;
            enum loam_error error = loam_gpa_view_translate(view, queries[i], ACCESS_BYTES, LOAM_ACCESS_WRITE, &hva);

            total += (uintptr_t)hva + error;
        }
    }
    *sum = total;
    return bench_now() - start;
}

static uint64_t time_acquire(struct loam_gpa_map *map, uint64_t *sum)
{
    uint64_t start = bench_now(), total = 0;

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
            void *hva;
            enum loam_error error = loam_gpa_view_translate(view, queries[i], ACCESS_BYTES, LOAM_ACCESS_WRITE, &hva);

            total += (uintptr_t)hva + error + loam_gpa_map_release(map, view);
        }
    }
    *sum = total;
    return bench_now() - start;
}

static uint64_t time_map_translate(struct loam_gpa_map *map, uint64_t *sum)
{
    uint64_t start = bench_now(), total = 0;

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            void *hva;
            enum loam_error error = loam_gpa_map_translate(map, queries[i], ACCESS_BYTES, LOAM_ACCESS_WRITE, &hva);

            total += (uintptr_t)hva + error;
        }
    }
    *sum = total;
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
    uint64_t start = bench_now(), total = 0;

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            total += (uintptr_t)search(table, region_count, queries[i].value, ACCESS_BYTES);
        }
    }
    *sum = total;
    return bench_now() - start;
}

/* The least that keeps a table from going away while it is read: one atomic addition before, and one after. */
static uint64_t time_counted_search(uint32_t region_count, uint64_t *sum)
{
    static _Atomic uint64_t reader_count;
    uint64_t start = bench_now(), total = 0;

    for (uint32_t pass = 0; pass < PASSES; pass++) {
        for (uint32_t i = 0; i < QUERIES; i++) {
            atomic_fetch_add(&reader_count, 1);
            total += (uintptr_t)search(table, region_count, queries[i].value, ACCESS_BYTES);
            atomic_fetch_sub_explicit(&reader_count, 1, memory_order_release);
        }
    }
    *sum = total;
    return bench_now() - start;
}

/* --- Cases of translation -------------------------------------------------------------------------------------- */

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

/* A map of that many regions. */
struct guest {
    struct loam_gpa_map *map;
    void *memory;
    size_t bytes;
};

static struct guest guest_make(uint32_t region_count)
{
    struct loam_gpa_map_config config = {.region_capacity = region_count};
    size_t bytes = loam_gpa_map_bytes(&config);
    struct guest guest = {.memory = bench_map(bytes, true), .bytes = bytes};

    bench_expect(loam_gpa_map_init(guest.memory, bytes, &config, &guest.map), "a map");
    return guest;
}

static void guest_unmake(struct guest *guest)
{
    bench_unmap(guest->memory, guest->bytes);
}

/* parameter: the number of regions. */
static double translate_loam(const struct bench_case *bench)
{
    uint32_t count = (uint32_t)bench->parameter;
    struct guest guest = guest_make(count);
    uint64_t sum = 0;

    draw_queries(count);
    insert_all(guest.map, count);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(guest.map);
    uint64_t taken = time_loam(view, &sum);
    loam_gpa_map_release(guest.map, view);
    guest_unmake(&guest);
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

static double acquire_loam(const struct bench_case *bench)
{
    uint32_t count = (uint32_t)bench->parameter;
    struct guest guest = guest_make(count);
    uint64_t sum = 0;

    draw_queries(count);
    insert_all(guest.map, count);
    uint64_t taken = time_acquire(guest.map, &sum);
    guest_unmake(&guest);
    return figure(bench, taken, sum);
}

static double map_translate_loam(const struct bench_case *bench)
{
    uint32_t count = (uint32_t)bench->parameter;
    struct guest guest = guest_make(count);
    uint64_t sum = 0;

    draw_queries(count);
    insert_all(guest.map, count);
    uint64_t taken = time_map_translate(guest.map, &sum);
    guest_unmake(&guest);
    return figure(bench, taken, sum);
}

static double acquire_search(const struct bench_case *bench)
{
    uint32_t count = (uint32_t)bench->parameter;
    uint64_t sum = 0;

    draw_queries(count);
    fill_table(count);
    uint64_t taken = time_counted_search(count, &sum);
    return figure(bench, taken, sum);
}

/* --- Cases of copies ------------------------------------------------------------------------------------------- */

/* One region of guest memory that is there, what is asked of it, and the buffer on the other side. */
struct copies {
    struct guest guest;
    const struct loam_gpa_view *view;
    char *ram;
    uint64_t bytes; /* a copy's */
    char buffer[PAGE_BYTES];
};

enum direction { FROM_GUEST, TO_GUEST };

static void draw_copies(uint64_t bytes, uint64_t window_bytes)
{
    struct bench_random random = {UINT64_C(0x9E3779B97F4A7C15)};

    for (uint32_t i = 0; i < QUERIES; i++) {
        queries[i] = loam_gpa_from_u64(bench_random_below(&random, (uint32_t)(window_bytes / bytes)) * bytes);
    }
}

/* bytes: how many a copy has. */
static void copies_make(struct copies *copies, uint64_t bytes)
{
    uint64_t window_bytes = bytes < PAGE_BYTES ? NEAR_BYTES : FAR_BYTES;
    struct loam_region region = {.bytes = FAR_BYTES, .type = LOAM_REGION_RAM, .access = LOAM_ACCESS_WRITE};

    *copies = (struct copies){.guest = guest_make(1), .ram = bench_map(FAR_BYTES, true), .bytes = bytes};
    region.hva = copies->ram;
    bench_expect(loam_gpa_map_insert(copies->guest.map, &region), "a region");
    copies->view = loam_gpa_map_acquire(copies->guest.map);
    draw_copies(bytes, window_bytes);
}

static void copies_unmake(struct copies *copies)
{
    loam_gpa_map_release(copies->guest.map, copies->view);
    bench_unmap(copies->ram, FAR_BYTES);
    guest_unmake(&copies->guest);
}

static uint32_t passes_of(uint64_t bytes)
{
    return bytes < PAGE_BYTES ? PASSES : PASSES / 50;
}

static enum loam_error copy_all_by_loam(struct copies *copies, enum direction direction)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; i < QUERIES; i++) {
        error |= direction == FROM_GUEST ? loam_gpa_view_read(copies->view, queries[i], copies->buffer, copies->bytes)
                                         : loam_gpa_view_write(copies->view, queries[i], copies->buffer, copies->bytes);
        bench_keep((uintptr_t)copies->buffer);
    }
    return error;
}

static void copy_all_by_memcpy(struct copies *copies, enum direction direction)
{
    for (uint32_t i = 0; i < QUERIES; i++) {
        char *guest = copies->ram + queries[i].value;

        memcpy(direction == FROM_GUEST ? copies->buffer : guest, direction == FROM_GUEST ? guest : copies->buffer,
               copies->bytes);
        bench_keep((uintptr_t)copies->buffer);
    }
}

static double copy_figure(const struct bench_case *bench, enum direction direction, bool by_loam)
{
    static struct copies copies;
    uint32_t passes = passes_of(bench->parameter);
    enum loam_error error = LOAM_OK;

    copies_make(&copies, bench->parameter);
    uint64_t start = bench_now();
    for (uint32_t pass = 0; pass < passes; pass++) {
        if (by_loam) {
            error |= copy_all_by_loam(&copies, direction);
        } else {
            copy_all_by_memcpy(&copies, direction);
        }
    }
    uint64_t taken = bench_now() - start;
    copies_unmake(&copies);
    bench_expect(error, "a copy");
    return (double)taken / ((double)QUERIES * passes);
}

/* parameter: bytes. */
static double read_loam(const struct bench_case *bench)
{
    return copy_figure(bench, FROM_GUEST, true);
}

static double read_memcpy(const struct bench_case *bench)
{
    return copy_figure(bench, FROM_GUEST, false);
}

static double write_loam(const struct bench_case *bench)
{
    return copy_figure(bench, TO_GUEST, true);
}

static double write_memcpy(const struct bench_case *bench)
{
    return copy_figure(bench, TO_GUEST, false);
}

const struct bench_case map_cases[] = {
    {.name = "gpa_map.translate.1",
     .what = "GPA to HVA at random in one region; reference: a plain binary search",
     .unit = "ns",
     .goal_figure = 1.5,
     .parameter = 1,
     .loam = translate_loam,
     .reference = translate_search},
    {.name = "gpa_map.translate.2",
     .what = "the same in two regions of one size",
     .unit = "ns",
     .goal_figure = 4,
     .parameter = 2,
     .loam = translate_loam,
     .reference = translate_search},
    {.name = "gpa_map.translate.1024",
     .what = "GPA to HVA at random in 1,024 regions; reference: a plain binary search",
     .unit = "ns",
     .goal_figure = 4,
     .parameter = REGION_MOST,
     .loam = translate_loam,
     .reference = translate_search},
    {.name = "gpa_map.acquire",
     .what = "a view acquired, a translation in one region, the view released; reference: a search between two atomic "
             "additions",
     .unit = "ns",
     .goal_figure = 8,
     .parameter = 1,
     .loam = acquire_loam,
     .reference = acquire_search},
    {.name = "gpa_map.map_translate.1",
     .what = "GPA to HVA without a view, at random in one region; reference: as of gpa_map.acquire",
     .unit = "ns",
     .goal_figure = 8,
     .parameter = 1,
     .loam = map_translate_loam,
     .reference = acquire_search},
    {.name = "gpa_map.map_translate.1024",
     .what = "the same in 1,024 regions",
     .unit = "ns",
     .goal = 1.5,
     .parameter = REGION_MOST,
     .loam = map_translate_loam,
     .reference = acquire_search},
    {.name = "gpa_map.read8",
     .what = "8 bytes of guest memory read, in the first-level cache; reference: memcpy at a known address",
     .unit = "ns",
     .goal = 1,
     .parameter = 8,
     .loam = read_loam,
     .reference = read_memcpy},
    {.name = "gpa_map.copy4k",
     .what = "a page of guest memory read, in the second-level cache; reference: memcpy at a known address",
     .unit = "ns",
     .goal = 1,
     .parameter = PAGE_BYTES,
     .loam = read_loam,
     .reference = read_memcpy},
    {.name = "gpa_map.write4k",
     .what = "the same, written",
     .unit = "ns",
     .goal = 1,
     .parameter = PAGE_BYTES,
     .loam = write_loam,
     .reference = write_memcpy},
    {.name = NULL},
};
