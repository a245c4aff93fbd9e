// SPDX-License-Identifier: Apache-2.0
/*
 * The proof at loam_gpa_map_acquire, on a machine that keeps no orders of memory but those which the code names
 * (tests/support/weak_atomic.h): a table that a reader holds is not written, whoever changes the map meanwhile. That what
 * was written is there when a table is acquired is for ThreadSanitizer: rows are plain memory.
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

enum { RUNS = 20000, CHANGES = 6, READS = 4, HOLD_MAX = 8 };

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
