// SPDX-License-Identifier: Apache-2.0
/* The guest's range arithmetic on the host: the walk over RAM against a map of pages, one flag each. */
#include "guest/ranges.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <string.h>

#define PAGE  UINT64_C(4096)
#define PAGES 64u
#define SEED  UINT64_C(0x10a4)

static struct loam_abi_table table;

static void add(uint32_t kind, uint64_t start, uint64_t bytes)
{
    table.ranges[table.range_count++] = (struct loam_abi_range){.start = start, .bytes = bytes, .kind = kind};
}

/* Walk all of RAM; visits[page] counts. Pieces are whole, disjoint within a range, and as long as possible. */
static uint32_t walk(uint8_t visits[PAGES])
{
    struct ranges_cursor cursor = {0};
    struct ranges_piece piece;
    uint32_t count = 0;

    memset(visits, 0, PAGES);
    while (ranges_next_piece(&table, &cursor, &piece)) {
        cr_assert_lt(piece.start, piece.end);
        cr_assert_eq((piece.start | piece.end) % PAGE, 0);
        cr_assert_leq(piece.end, PAGES * PAGE);
        for (uint64_t page = piece.start / PAGE; page < piece.end / PAGE; page++) {
            visits[page]++;
        }
        cr_assert_leq(++count, PAGES * LOAM_ABI_RANGE_MAX, "the walk does not end");
    }
    return count;
}

/* Naive: how often a page is RAM, and whether any byte of it is kept. */
static void expect_naive(uint64_t seed, uint8_t visits[PAGES])
{
    for (uint64_t page = 0; page < PAGES; page++) {
        uint32_t ram = 0;
        bool kept = false;

        for (uint32_t i = 0; i < table.range_count; i++) {
            const struct loam_abi_range *range = &table.ranges[i];
            bool meets =
                range->bytes > 0 && range->start < (page + 1) * PAGE && page * PAGE < range->start + range->bytes;

            ram += meets && range->kind == LOAM_ABI_KIND_RAM && (range->start | range->bytes) % PAGE == 0;
            kept = kept || (meets && range->kind == LOAM_ABI_KIND_KEPT);
        }
        cr_assert_eq(visits[page], kept ? 0 : ram, "page %lu, seed 0x%lx", page, seed);
    }
}

static void add_at_random(struct random *random)
{
    uint64_t start = random_below(random, PAGES * PAGE), bytes = random_below(random, (uint32_t)(PAGES * PAGE - start));

    if (random_one_in(random, 3)) {
        start = start / PAGE * PAGE;
        bytes = bytes / PAGE * PAGE;
        add(LOAM_ABI_KIND_RAM, start, bytes);
    } else if (random_one_in(random, 4)) {
        add(random_one_in(random, 2) ? LOAM_ABI_KIND_RAM : LOAM_ABI_KIND_ECHO, start, bytes);
    } else {
        add(LOAM_ABI_KIND_KEPT, start, bytes >> random_below(random, 18));
    }
}

Test(ranges, walk_visits_what_a_map_of_pages_says)
{
    uint8_t visits[PAGES];

    for (uint64_t seed = SEED; seed < SEED + 20000; seed++) {
        struct random random = {seed};
        uint32_t count = random_below(&random, seed % 16 == 0 ? LOAM_ABI_RANGE_MAX : 12);

        table.range_count = 0;
        while (table.range_count < count) {
            add_at_random(&random);
        }
        walk(visits);
        expect_naive(seed, visits);
    }
}

Test(ranges, pieces_are_as_long_as_they_can_be)
{
    uint8_t visits[PAGES];

    add(LOAM_ABI_KIND_KEPT, 40 * PAGE, PAGE);
    add(LOAM_ABI_KIND_RAM, 0, PAGES * PAGE);
    add(LOAM_ABI_KIND_KEPT, 10 * PAGE + 5, 1);
    add(LOAM_ABI_KIND_KEPT, 11 * PAGE - 1, 2);
    cr_assert_eq(walk(visits), 3);
    cr_assert_eq(visits[9], 1);
    cr_assert_eq(visits[10], 0);
    cr_assert_eq(visits[11], 0);
    cr_assert_eq(visits[12], 1);
}

Test(ranges, all_kept_is_no_piece, .timeout = 10)
{
    uint8_t visits[PAGES];

    add(LOAM_ABI_KIND_RAM, 0, PAGES * PAGE);
    add(LOAM_ABI_KIND_KEPT, 0, UINT64_MAX);
    cr_assert_eq(walk(visits), 0);
}

Test(ranges, ram_up_to_the_last_whole_page)
{
    struct ranges_cursor cursor = {0};
    struct ranges_piece piece;

    add(LOAM_ABI_KIND_RAM, UINT64_MAX - 3 * PAGE + 1, 2 * PAGE);
    add(LOAM_ABI_KIND_KEPT, UINT64_MAX - 2 * PAGE + 1, 2 * PAGE - 1);
    cr_assert(ranges_next_piece(&table, &cursor, &piece));
    cr_assert_eq(piece.start, UINT64_MAX - 3 * PAGE + 1);
    cr_assert_eq(piece.end - piece.start, PAGE);
    cr_assert_not(ranges_next_piece(&table, &cursor, &piece));
}

static bool valid(uint64_t start, uint64_t bytes, uint64_t align_bytes)
{
    return ranges_valid(&(struct loam_abi_range){.start = start, .bytes = bytes}, align_bytes);
}

Test(ranges, valid_at_its_edges)
{
    cr_assert(valid(0, 1, 1));
    cr_assert_not(valid(0, 0, 1));
    cr_assert(valid(0, UINT64_MAX, 1));
    cr_assert_not(valid(1, UINT64_MAX, 1));
    cr_assert(valid(UINT64_MAX - 1, 1, 1));
    cr_assert_not(valid(UINT64_MAX, 1, 1));
    cr_assert_not(valid(UINT64_MAX - 7, 16, 8));
    cr_assert_not(valid(8, 4096, 4096));
    cr_assert_not(valid(4096, 8, 4096));
    cr_assert(valid(4096, 8, 8));
}

static bool overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    const struct loam_abi_range one = {.start = a, .bytes = a_bytes}, other = {.start = b, .bytes = b_bytes};

    cr_assert_eq(ranges_overlap(&one, &other), ranges_overlap(&other, &one));
    return ranges_overlap(&one, &other);
}

Test(ranges, neighbours_do_not_overlap)
{
    cr_assert_not(overlap(0, 10, 10, 10));
    cr_assert(overlap(0, 11, 10, 10));
    cr_assert(overlap(0, 30, 10, 10));
    cr_assert(overlap(10, 10, 10, 10));
    cr_assert_not(overlap(0, 1, UINT64_MAX - 1, 1));
}
