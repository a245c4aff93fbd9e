// SPDX-License-Identifier: Apache-2.0
/*
 * The proofs at loam_gpa_map_acquire and loam_gpa_map_translate, on a machine that keeps no orders of memory but those
 * which the code names (tests/support/weak_atomic.h): a table that a reader holds is not written, whoever changes the
 * map meanwhile; and who holds none is given what one table says. That what was written is there when a table is
 * acquired is for ThreadSanitizer: rows are plain memory.
 */
#include "tests/support/weak_atomic.h"

#include "allocator/gpa_view.h"
#include "allocator/lock.h"
#include "loam/gpa_map.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* The lock of the weak machine. Linked in place of what lock.h leaves to lock.c. */
bool weak_lock_take_slowly(struct loam_lock *lock);

bool weak_lock_take_slowly(struct loam_lock *lock)
{
    uint32_t none = 0;

    while (
        !atomic_compare_exchange_strong_explicit(&lock->owner, &none, 1, memory_order_acquire, memory_order_relaxed)) {
        none = 0;
        weak_yield();
    }
    return true;
}

/* Linked with --wrap: a table is built a row at a time, and readers go on in between. */
struct loam_region __real_loam_gpa_view_clip(const struct loam_region *region, uint64_t start, uint64_t end);
struct loam_region __wrap_loam_gpa_view_clip(const struct loam_region *region, uint64_t start, uint64_t end);

struct loam_region __wrap_loam_gpa_view_clip(const struct loam_region *region, uint64_t start, uint64_t end)
{
    weak_yield();
    return __real_loam_gpa_view_clip(region, start, end);
}

enum { RUNS = 20000, RUNS_WITHOUT_VIEW = 40000, CHANGES = 6, READS = 4, HOLD_MAX = 8 };

static struct loam_gpa_map *map;
static uint64_t seed;

static void read_map(void)
{
    for (unsigned i = 0; i < READS; i++) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
        uint64_t generation = view->generation;

        for (unsigned n = 0; n < (seed + i) % HOLD_MAX; n++) {
            weak_yield();
        }
        cr_assert(view->complete && view->generation == generation, "seed %lu: a table changed while it was held",
                  seed);
        loam_gpa_map_release(map, view);
    }
}

/* Two tables: who holds the one that is not current makes a change fail, and that is all. */
static void change_map(void)
{
    struct loam_region device = {.start = {4096}, .bytes = 4096, .type = LOAM_REGION_DEVICE};

    for (unsigned i = 0; i < CHANGES; i++) {
        if (loam_gpa_map_insert(map, &device) == LOAM_OK) {
            device.start.value += 8192;
        } else {
            weak_yield();
        }
    }
}

TestSuite(gpa_map_order, .timeout = 300);

Test(gpa_map_order, a_table_does_not_change_while_it_is_held)
{
    struct loam_gpa_map_config config = {.region_capacity = 16, .table_capacity = 2};
    size_t bytes = loam_gpa_map_bytes(&config);
    void *memory = aligned_alloc(64, loam_align_up(bytes, 64));

    for (seed = 0; seed < RUNS; seed++) {
        cr_assert_eq(loam_gpa_map_init(memory, bytes, &config, &map), LOAM_OK);
        weak_run(seed, 3, (void (*const[])(void)){change_map, read_map, read_map});
        cr_assert_eq(loam_gpa_map_validate(map, NULL), LOAM_OK);
    }
    free(memory);
}

/* --- Translation without a view --------------------------------------------------------------------------------- */

#define PAGE UINT64_C(4096)

/* Where the region that moves is in a generation: in host memory of its own, and at one of three places in the guest. */
static struct loam_region moving(uint64_t generation)
{
    return (struct loam_region){.start = {(32 + generation % 3) * PAGE},
                                .bytes = 32 * PAGE,
                                .hva = (void *)(uintptr_t)(generation << 32),
                                .type = LOAM_REGION_RAM,
                                .access = LOAM_ACCESS_WRITE};
}

/* In every third generation two devices lie before it, so that its row is another, and not the one beside. */
static const struct loam_region in_front[] = {
    {.start = {8 * PAGE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE},
    {.start = {12 * PAGE}, .bytes = PAGE, .type = LOAM_REGION_DEVICE},
};

static void move_region(void)
{
    for (unsigned i = 0; i < CHANGES; i++) {
        uint64_t generation = loam_gpa_map_generation(map);
        enum loam_change_kind kind = generation % 3 == 2 ? LOAM_CHANGE_INSERT : LOAM_CHANGE_REMOVE;
        const struct loam_gpa_change changes[] = {
            {LOAM_CHANGE_REMOVE, moving(generation)},
            {LOAM_CHANGE_INSERT, moving(generation + 1)},
            {kind, in_front[0]},
            {kind, in_front[1]},
        };

        if (loam_gpa_map_change(map, changes, generation % 3 == 1 ? 2 : 4, NULL) != LOAM_OK) {
            weak_yield();
        }
    }
}

static void translate_moving(void)
{
    const uint64_t gpa = 40 * PAGE + 8;

    for (unsigned i = 0; i < READS; i++) {
        uint64_t before = loam_gpa_map_generation(map), generation;
        void *hva;

        cr_assert_eq(loam_gpa_map_translate(map, (loam_gpa){gpa}, 8, LOAM_ACCESS_WRITE, &hva), LOAM_OK, "seed %lu",
                     seed);
        generation = (uintptr_t)hva >> 32;
        cr_assert_geq(generation, before, "seed %lu: what was seen before is not seen", seed);
        cr_assert_eq((uintptr_t)hva, (generation << 32) + gpa - moving(generation).start.value,
                     "seed %lu: HVA %p is of two tables", seed, hva);
    }
}

Test(gpa_map_order, what_is_translated_without_a_view_is_of_one_table)
{
    struct loam_gpa_map_config config = {.region_capacity = 4, .table_capacity = 2};
    size_t bytes = loam_gpa_map_bytes(&config);
    void *memory = aligned_alloc(64, loam_align_up(bytes, 64));

    /* A table is rewritten by the second change after it was read: long after, where no thread ever stands still. */
    weak_stall(16, 600);
    for (seed = 0; seed < RUNS_WITHOUT_VIEW; seed++) {
        struct loam_region beside = moving(0), first = moving(2);

        /* Beside a small one, the region that moves is what lookups try first; beside one as large, it is searched for. */
        beside.start.value = 100 * PAGE;
        beside.bytes = (seed % 2 == 0 ? 1 : 30) * PAGE;
        beside.hva = (void *)(uintptr_t)PAGE;
        cr_assert_eq(loam_gpa_map_init(memory, bytes, &config, &map), LOAM_OK);
        cr_assert_eq(loam_gpa_map_insert(map, &beside), LOAM_OK);
        cr_assert_eq(loam_gpa_map_insert(map, &first), LOAM_OK);
        weak_run(seed, 3,
                 (void (*const[])(void)){move_region, translate_moving, seed % 4 < 2 ? translate_moving : read_map});
        cr_assert_eq(loam_gpa_map_validate(map, NULL), LOAM_OK);
    }
    free(memory);
}
