// SPDX-License-Identifier: Apache-2.0
/*
 * The reference behaves as the allocator that it models. Expected addresses are worked out by hand from that
 * allocator's rules; the random test holds it against a second statement of the same rules, a flat array of free
 * blocks that is searched from end to end.
 */
#include "tools/bench/seed.h"

#include "loam/types.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME SEED_FRAME_BYTES
#define FOUR  SEED_LOW_END

struct fixture {
    struct seed seed;
    struct seed_section sections[4];
    struct seed_record *records[4];
    unsigned count;
};

static void begin(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    seed_init(&fixture->seed);
}

static enum loam_error add(struct fixture *fixture, const struct seed_layout *layout)
{
    size_t bytes = seed_record_bytes(layout->heap_bytes);
    unsigned at = fixture->count++;

    fixture->records[at] = malloc(bytes + 1);
    memset(fixture->records[at], 0, bytes); /* what was there before is all alike free, first and of order 0 */
    return seed_section_add(&fixture->seed, &fixture->sections[at], layout, fixture->records[at], bytes);
}

static void add_frames(struct fixture *fixture, uint64_t start, uint64_t frames)
{
    struct seed_layout layout = seed_layout_out_of_band(start, frames * FRAME);

    cr_assert_eq(add(fixture, &layout), LOAM_OK);
}

static void end(struct fixture *fixture)
{
    for (unsigned i = 0; i < fixture->count; i++) {
        free(fixture->records[i]);
    }
}

static void expect_alloc(struct fixture *fixture, uint64_t count, uint64_t align, uint64_t expected)
{
    uint64_t address;

    cr_expect_eq(seed_alloc(&fixture->seed, count, align, &address), LOAM_OK);
    cr_expect_eq(address, expected, "%#lx, not %#lx", address, expected);
}

static void expect_low(struct fixture *fixture, uint64_t count, uint64_t align, uint64_t expected)
{
    uint64_t address;

    cr_expect_eq(seed_alloc_low(&fixture->seed, count, align, &address), LOAM_OK);
    cr_expect_eq(address, expected, "%#lx, not %#lx", address, expected);
}

static void expect_error(enum loam_error error, enum loam_error expected, uint64_t address)
{
    cr_expect_eq(error, expected);
    cr_expect_eq(address, 0);
}

static void expect_refused(struct fixture *fixture, uint64_t count, uint64_t align, enum loam_error expected)
{
    uint64_t address = 1;
    enum loam_error error = seed_alloc(&fixture->seed, count, align, &address);

    expect_error(error, expected, address);
}

static void expect_low_refused(struct fixture *fixture, uint64_t count, uint64_t align, enum loam_error expected)
{
    uint64_t address = 1;
    enum loam_error error = seed_alloc_low(&fixture->seed, count, align, &address);

    expect_error(error, expected, address);
}

Test(seed, a_block_is_halved_and_its_lower_half_is_used)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0x100000, 16);
    expect_alloc(&fixture, 1, 0, 0x100000); /* 1, 2-3, 4-7 and 8-15 stay free */
    expect_alloc(&fixture, 1, 0, 0x101000);
    expect_alloc(&fixture, 1, 0, 0x102000);
    expect_alloc(&fixture, 2, 0, 0x104000);
    expect_alloc(&fixture, 4, 0, 0x108000);
    cr_expect_eq(seed_free_frames(&fixture.seed), 7);
    end(&fixture);
}

Test(seed, a_count_is_rounded_up_to_a_power_of_two)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 16);
    expect_alloc(&fixture, 5, 0, 0);
    cr_expect_eq(seed_free_frames(&fixture.seed), 8);
    expect_refused(&fixture, 9, 0, LOAM_ERROR_EXHAUSTED);
    seed_free(&fixture.seed, 0, 1);
    cr_expect_eq(seed_free_frames(&fixture.seed), 16, "all of the block is freed, whatever the count");
    end(&fixture);
}

Test(seed, what_was_freed_last_is_used_first)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 8);
    for (uint64_t i = 0; i < 8; i++) {
        expect_alloc(&fixture, 1, 0, i * FRAME);
    }
    expect_refused(&fixture, 1, 0, LOAM_ERROR_EXHAUSTED);
    seed_free(&fixture.seed, 2 * FRAME, 1);
    seed_free(&fixture.seed, 7 * FRAME, 1);
    seed_free(&fixture.seed, 4 * FRAME, 1);
    expect_alloc(&fixture, 1, 0, 4 * FRAME);
    expect_alloc(&fixture, 1, 0, 7 * FRAME);
    expect_alloc(&fixture, 1, 0, 2 * FRAME);
    end(&fixture);
}

Test(seed, buddies_merge_and_others_do_not)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 8);
    for (uint64_t i = 0; i < 8; i++) {
        expect_alloc(&fixture, 1, 0, i * FRAME);
    }
    seed_free(&fixture.seed, 1 * FRAME, 1);
    seed_free(&fixture.seed, 2 * FRAME, 1); /* neighbours, but not halves of one block */
    expect_refused(&fixture, 2, 0, LOAM_ERROR_EXHAUSTED);
    seed_free(&fixture.seed, 3 * FRAME, 1);
    expect_alloc(&fixture, 2, 0, 2 * FRAME);
    seed_free(&fixture.seed, 2 * FRAME, 2);
    seed_free(&fixture.seed, 0, 1); /* 0-1, and with 2-3 the lower half */
    cr_expect_eq(seed_usable_frames(&fixture.seed, 2), 4);
    for (uint64_t i = 4; i < 8; i++) {
        seed_free(&fixture.seed, i * FRAME, 1);
    }
    expect_alloc(&fixture, 8, 0, 0);
    end(&fixture);
}

Test(seed, the_tail_of_an_odd_section_is_used_and_merges_with_nothing_beyond)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 13); /* 0-7, 8-11, 12 */
    expect_alloc(&fixture, 1, 0, 12 * FRAME);
    expect_alloc(&fixture, 1, 0, 8 * FRAME);
    seed_free(&fixture.seed, 12 * FRAME, 1);
    expect_refused(&fixture, 16, 0, LOAM_ERROR_EXHAUSTED);
    expect_alloc(&fixture, 1, 0, 12 * FRAME);
    end(&fixture);
}

Test(seed, of_equal_blocks_the_highest_leads_a_fresh_section)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 3u << SEED_ORDER_MAX);
    expect_alloc(&fixture, 1u << SEED_ORDER_MAX, 0, 2 * FOUR);
    expect_alloc(&fixture, 1, 0, FOUR);
    expect_alloc(&fixture, 1u << SEED_ORDER_MAX, 0, 0);
    end(&fixture);
}

Test(seed, an_alignment_above_the_block_is_found_inside_a_larger_one_and_costs_nothing)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0x1000, 16);
    expect_alloc(&fixture, 1, 0x4000, 0x4000); /* frame 3: 2, 0-1, 4-7 and 8-15 stay free */
    cr_expect_eq(seed_free_frames(&fixture.seed), 15);
    expect_alloc(&fixture, 1, 0x2000, 0x2000); /* not in block 2, but in 0-1 */
    expect_alloc(&fixture, 1, 0, 0x1000);
    expect_alloc(&fixture, 1, 0, 0x3000);
    expect_alloc(&fixture, 4, 0, 0x5000);
    expect_alloc(&fixture, 1, 0x10000, 0x10000);
    end(&fixture);
}

Test(seed, an_alignment_that_the_start_lacks_is_refused)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0x1000, 16);
    expect_refused(&fixture, 2, 0x2000, LOAM_ERROR_EXHAUSTED); /* the block's own size */
    expect_refused(&fixture, 2, 0x4000, LOAM_ERROR_EXHAUSTED); /* more: no half lies there */
    expect_refused(&fixture, 1, 0x20000, LOAM_ERROR_EXHAUSTED);
    expect_low_refused(&fixture, 2, 0x2000, LOAM_ERROR_EXHAUSTED);
    expect_alloc(&fixture, 2, 0x1000, 0x1000);
    cr_expect_eq(seed_free_frames(&fixture.seed), 14);
    end(&fixture);
}

Test(seed, below_4_gib_it_is_the_part_that_counts)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, FOUR - 8 * FRAME, 16);
    expect_low_refused(&fixture, 16, 0, LOAM_ERROR_EXHAUSTED);
    expect_low(&fixture, 8, 0, FOUR - 8 * FRAME); /* it ends at the limit */
    expect_low_refused(&fixture, 1, 0, LOAM_ERROR_EXHAUSTED);
    expect_alloc(&fixture, 1, 0, FOUR);
    seed_free(&fixture.seed, FOUR - 8 * FRAME, 8);
    expect_low(&fixture, 1, 8 * FRAME, FOUR - 8 * FRAME);
    end(&fixture);
}

Test(seed, below_4_gib_high_blocks_are_passed_over)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, FOUR - 8 * FRAME, 16);
    for (uint64_t i = 0; i < 16; i++) {
        expect_alloc(&fixture, 1, 0, FOUR - 8 * FRAME + i * FRAME);
    }
    seed_free(&fixture.seed, FOUR - 3 * FRAME, 1);
    seed_free(&fixture.seed, FOUR - 1 * FRAME, 1);
    seed_free(&fixture.seed, FOUR, 1);
    seed_free(&fixture.seed, FOUR + 2 * FRAME, 1);
    expect_low(&fixture, 1, 0, FOUR - 1 * FRAME);
    expect_low(&fixture, 1, 0, FOUR - 3 * FRAME);
    expect_low_refused(&fixture, 1, 0, LOAM_ERROR_EXHAUSTED);
    expect_alloc(&fixture, 1, 0, FOUR + 2 * FRAME);
    expect_alloc(&fixture, 1, 0, FOUR);
    end(&fixture);
}

Test(seed, below_4_gib_in_a_fresh_section_of_8_gib)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 2u << SEED_ORDER_MAX);
    expect_low(&fixture, 1, 0, 0);
    expect_low(&fixture, 1u << 19, 0, 0x80000000);
    expect_low_refused(&fixture, 1u << 20, 0, LOAM_ERROR_EXHAUSTED);
    end(&fixture);
}

Test(seed, sections_serve_in_the_order_of_registration)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0x100000, 4);
    add_frames(&fixture, 0x10000, 4);
    expect_alloc(&fixture, 4, 0, 0x100000);
    expect_alloc(&fixture, 2, 0, 0x10000);
    seed_free(&fixture.seed, 0x100000, 4);
    expect_alloc(&fixture, 1, 0, 0x100000);
    expect_refused(&fixture, 4, 0, LOAM_ERROR_EXHAUSTED);
    expect_refused(&fixture, 1, 0x200000, LOAM_ERROR_EXHAUSTED);
    end(&fixture);
}

Test(seed, neighbouring_sections_do_not_merge)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0, 4);
    add_frames(&fixture, 4 * FRAME, 4);
    expect_refused(&fixture, 8, 0, LOAM_ERROR_EXHAUSTED);
    expect_alloc(&fixture, 4, 0, 0);
    expect_alloc(&fixture, 4, 0, 4 * FRAME);
    seed_free(&fixture.seed, 4 * FRAME, 4);
    seed_free(&fixture.seed, 0, 4);
    expect_refused(&fixture, 8, 0, LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(fixture.seed.section_count, 2);
    cr_expect_eq(seed_managed_frames(&fixture.seed), 8);
    end(&fixture);
}

Test(seed, sections_that_meet_or_make_no_sense_are_refused)
{
    struct fixture fixture;
    struct seed_layout overlapping = {12 * FRAME, 8 * FRAME, 16 * FRAME, 4 * FRAME};
    struct seed_layout beyond = {32 * FRAME, 4 * FRAME, 34 * FRAME, 4 * FRAME};
    struct seed_layout misaligned = {32 * FRAME, 4 * FRAME, 33 * FRAME + 1, FRAME};
    struct seed_layout empty = {32 * FRAME, 4 * FRAME, 33 * FRAME, 0};

    begin(&fixture);
    add_frames(&fixture, 0, 16);
    cr_expect_eq(add(&fixture, &overlapping), LOAM_ERROR_OVERLAP, "regions count, not heaps");
    cr_expect_eq(add(&fixture, &beyond), LOAM_ERROR_INVALID);
    cr_expect_eq(add(&fixture, &misaligned), LOAM_ERROR_INVALID);
    end(&fixture);
    begin(&fixture);
    cr_expect_eq(add(&fixture, &empty), LOAM_ERROR_INVALID);
    cr_expect_eq(fixture.seed.section_count, 0);
    end(&fixture);
}

Test(seed, too_few_records_are_refused)
{
    struct seed_section section;
    struct seed_record records[4];
    struct seed seed;
    struct seed_layout layout = seed_layout_out_of_band(0, 4 * FRAME);

    seed_init(&seed);
    cr_expect_eq(seed_section_add(&seed, &section, &layout, records, sizeof records - 1), LOAM_ERROR_INVALID);
    cr_expect_eq(seed_section_add(&seed, &section, &layout, records, sizeof records), LOAM_OK);
}

Test(seed, requests_that_make_no_sense_are_refused)
{
    struct fixture fixture;

    begin(&fixture);
    expect_refused(&fixture, 1, 0, LOAM_ERROR_EXHAUSTED);
    add_frames(&fixture, 0, 16);
    expect_refused(&fixture, 0, 0, LOAM_ERROR_INVALID);
    expect_refused(&fixture, 1, 0x3000, LOAM_ERROR_INVALID);
    expect_refused(&fixture, 1, 0x800, LOAM_ERROR_INVALID);
    expect_refused(&fixture, (1u << SEED_ORDER_MAX) + 1, 0, LOAM_ERROR_INVALID);
    expect_refused(&fixture, UINT64_MAX, 0, LOAM_ERROR_INVALID);
    expect_refused(&fixture, 1u << SEED_ORDER_MAX, 0, LOAM_ERROR_EXHAUSTED);
    expect_low_refused(&fixture, 0, 0, LOAM_ERROR_INVALID);
    expect_low_refused(&fixture, 1, 0x3000, LOAM_ERROR_INVALID);
    cr_expect_eq(seed_free_frames(&fixture.seed), 16);
    end(&fixture);
}

Test(seed, an_address_outside_is_ignored)
{
    struct fixture fixture;

    begin(&fixture);
    add_frames(&fixture, 0x10000, 4);
    expect_alloc(&fixture, 4, 0, 0x10000);
    seed_free(&fixture.seed, 0xF000, 4);
    seed_free(&fixture.seed, 0x14000, 4);
    cr_expect_eq(seed_free_frames(&fixture.seed), 0);
    end(&fixture);
}

Test(seed, metadata_in_the_head_of_a_region)
{
    struct seed_layout layout;

    /* 160 + 12 * 2091025 bytes fill 6127 frames, and 6127 + 2091025 = 2^21. */
    cr_expect_eq(seed_layout_in_prefix(0, 8 * LOAM_GIB, &layout), LOAM_OK);
    cr_expect_eq(layout.heap_start, 6127 * FRAME);
    cr_expect_eq(layout.heap_bytes, 2091025 * FRAME);
    cr_expect_eq(seed_layout_in_prefix(0x1001, 3 * FRAME, &layout), LOAM_OK); /* from 0x2000 to 0x4000 */
    cr_expect_eq(layout.region_start, 0x2000);
    cr_expect_eq(layout.region_bytes, 2 * FRAME);
    cr_expect_eq(layout.heap_start, 0x3000);
    cr_expect_eq(layout.heap_bytes, FRAME);
    cr_expect_eq(seed_layout_in_prefix(0, FRAME, &layout), LOAM_ERROR_INVALID);
    cr_expect_eq(layout.heap_bytes, 0);
    cr_expect_eq(seed_layout_in_prefix(0, 0, &layout), LOAM_ERROR_INVALID);
    cr_expect_eq(seed_layout_in_prefix(UINT64_MAX, 2, &layout), LOAM_ERROR_INVALID);
}

Test(seed, find_says_what_stands_where)
{
    struct fixture fixture;
    struct seed_block block;

    begin(&fixture);
    add_frames(&fixture, 0x10000, 8);
    expect_alloc(&fixture, 2, 0, 0x10000);
    cr_expect_eq(seed_find(&fixture.seed, 0x11FFF, &block), LOAM_OK);
    cr_expect(block.start == 0x10000 && block.order == 1 && block.flags == SEED_ALLOCATED);
    cr_expect_eq(seed_find(&fixture.seed, 0x16000, &block), LOAM_OK);
    cr_expect(block.start == 0x14000 && block.order == 2 && block.flags == SEED_FREE);
    cr_expect_eq(seed_find(&fixture.seed, 0x18000, &block), LOAM_ERROR_NOT_FOUND);
    end(&fixture);
}

/* --- The same rules again: one array of free blocks, in the order in which they became free --------------------- */

#define NAIVE_BLOCKS 4096

struct naive_block {
    unsigned section;
    uint64_t start; /* address */
    uint32_t order;
};

struct naive {
    struct naive_block blocks[NAIVE_BLOCKS];
    size_t count;
    uint64_t heap_start[4], frames[4];
    unsigned sections;
};

static void naive_push(struct naive *naive, unsigned section, uint64_t start, uint32_t order)
{
    cr_assert_lt(naive->count, NAIVE_BLOCKS);
    naive->blocks[naive->count++] = (struct naive_block){section, start, order};
}

static void naive_drop(struct naive *naive, size_t at)
{
    memmove(&naive->blocks[at], &naive->blocks[at + 1], (naive->count - at - 1) * sizeof naive->blocks[0]);
    naive->count--;
}

static void naive_add(struct naive *naive, uint64_t heap_start, uint64_t frames)
{
    unsigned section = naive->sections++;
    uint64_t frame = 0;

    naive->heap_start[section] = heap_start;
    naive->frames[section] = frames;
    while (frame < frames) {
        uint32_t order = SEED_ORDER_MAX;

        while (frame % (UINT64_C(1) << order) != 0 || frame + (UINT64_C(1) << order) > frames) {
            order--;
        }
        naive_push(naive, section, heap_start + frame * FRAME, order);
        frame += UINT64_C(1) << order;
    }
}

/* The first part of the block that stands at a multiple of align, tried one after another. */
static bool naive_part(const struct naive_block *block, uint32_t order, uint64_t align, uint64_t limit, uint64_t *part)
{
    for (*part = block->start; *part < block->start + (FRAME << block->order); *part += FRAME << order) {
        if (*part % align == 0) {
            return *part + (FRAME << order) <= limit;
        }
    }
    return false;
}

static uint64_t naive_take(struct naive *naive, size_t at, uint32_t order, uint64_t part)
{
    struct naive_block block = naive->blocks[at];

    naive_drop(naive, at);
    while (block.order > order) {
        uint64_t middle = block.start + (FRAME << --block.order);

        naive_push(naive, block.section, part < middle ? middle : block.start, block.order);
        block.start = part < middle ? block.start : middle;
    }
    cr_assert_eq(block.start, part);
    return part;
}

/* UINT64_MAX: there is none. */
static uint64_t naive_alloc(struct naive *naive, uint64_t count, uint64_t align, uint64_t limit)
{
    uint32_t order = 0;
    uint64_t part;

    while ((UINT64_C(1) << order) < count) {
        order++;
    }
    for (unsigned section = 0; section < naive->sections; section++) {
        for (uint32_t of = order; of <= SEED_ORDER_MAX; of++) {
            for (size_t at = naive->count; at-- > 0;) {
                const struct naive_block *block = &naive->blocks[at];

                if (block->section == section && block->order == of && naive_part(block, order, align, limit, &part)) {
                    return naive_take(naive, at, order, part);
                }
            }
        }
    }
    return UINT64_MAX;
}

static bool naive_merge(struct naive *naive, struct naive_block *freed)
{
    uint64_t heap_start = naive->heap_start[freed->section];
    uint64_t bytes = FRAME << freed->order;

    for (size_t at = 0; at < naive->count; at++) {
        struct naive_block *other = &naive->blocks[at];
        uint64_t lower = other->start < freed->start ? other->start : freed->start;
        uint64_t upper = other->start < freed->start ? freed->start : other->start;

        if (other->section == freed->section && other->order == freed->order && upper - lower == bytes &&
            (lower - heap_start) % (2 * bytes) == 0) {
            naive_drop(naive, at);
            freed->start = lower;
            freed->order++;
            return true;
        }
    }
    return false;
}

static void naive_free(struct naive *naive, uint64_t start, uint64_t count)
{
    struct naive_block freed = {.start = start};

    while (start - naive->heap_start[freed.section] >= naive->frames[freed.section] * FRAME) {
        freed.section++;
    }
    while ((UINT64_C(1) << freed.order) < count) {
        freed.order++;
    }
    while (freed.order < SEED_ORDER_MAX && naive_merge(naive, &freed)) {
    }
    naive_push(naive, freed.section, freed.start, freed.order);
}

static uint64_t naive_usable(const struct naive *naive, uint32_t order)
{
    uint64_t frames = 0;

    for (size_t at = 0; at < naive->count; at++) {
        frames += naive->blocks[at].order >= order ? UINT64_C(1) << naive->blocks[at].order : 0;
    }
    return frames;
}

static uint64_t draw(uint64_t *state, uint64_t limit)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state % limit;
}

struct live {
    uint64_t start, count;
};

struct random_run {
    struct fixture fixture;
    struct naive naive;
    struct live live[2048];
    size_t live_count;
    uint64_t state;
};

static void random_alloc(struct random_run *run)
{
    uint64_t count = 1 + draw(&run->state, UINT64_C(1) << draw(&run->state, 8));
    uint64_t align = FRAME << (draw(&run->state, 3) == 0 ? draw(&run->state, 8) : 0);
    bool low = draw(&run->state, 3) == 0;
    uint64_t expected = naive_alloc(&run->naive, count, align, low ? FOUR : UINT64_MAX), address;
    enum loam_error error = low ? seed_alloc_low(&run->fixture.seed, count, align, &address)
                                : seed_alloc(&run->fixture.seed, count, align, &address);

    cr_assert_eq(error, expected == UINT64_MAX ? LOAM_ERROR_EXHAUSTED : LOAM_OK);
    if (error == LOAM_OK) {
        cr_assert_eq(address, expected, "%lu at a multiple of %#lx: %#lx, not %#lx", count, align, address, expected);
        run->live[run->live_count++] = (struct live){address, count};
    }
}

static void random_free(struct random_run *run)
{
    size_t at = draw(&run->state, run->live_count);
    struct live freed = run->live[at];

    seed_free(&run->fixture.seed, freed.start, freed.count);
    naive_free(&run->naive, freed.start, freed.count);
    run->live[at] = run->live[--run->live_count];
}

static void random_operations(struct random_run *run, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        bool grows = draw(&run->state, 1000) < (i / 5000 % 2 == 0 ? 700 : 300);

        if (run->live_count == 0 || (grows && run->live_count < 2048)) {
            random_alloc(run);
        } else {
            random_free(run);
        }
        cr_assert_eq(seed_free_frames(&run->fixture.seed), naive_usable(&run->naive, 0), "operation %u", i);
        cr_assert_eq(seed_usable_frames(&run->fixture.seed, 4), naive_usable(&run->naive, 4), "operation %u", i);
    }
}

static void random_section(struct random_run *run, uint64_t start, uint64_t frames)
{
    add_frames(&run->fixture, start, frames);
    naive_add(&run->naive, start, frames);
}

Test(seed, random_operations_go_as_the_same_rules_stated_again)
{
    for (uint64_t number = 1; number <= 4; number++) {
        struct random_run *run = calloc(1, sizeof *run);

        run->state = number * UINT64_C(0x9E3779B97F4A7C15);
        printf("state %#lx\n", run->state);
        begin(&run->fixture);
        random_section(run, FOUR - 700 * FRAME, 1000 + number); /* around the limit */
        random_section(run, 0x5000, 600);                       /* misaligned, and wholly below it */
        random_section(run, 2 * FOUR, 1024);
        random_operations(run, 20000);
        while (run->live_count > 0) {
            random_free(run);
        }
        cr_assert_eq(run->naive.count, (size_t)__builtin_popcountll(1000 + number) + 4 + 1);
        end(&run->fixture);
        free(run);
    }
}
