// SPDX-License-Identifier: Apache-2.0
#include "loam/gpa_map.h"

#include "allocator/gpa_map_keeper.h"
#include "tests/allocator/gpa_map_oracle.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ORACLE_PAGE_BYTES

/* --- Help ------------------------------------------------------------------------------------------------------ */

static void *maps[16];
static size_t map_count;

static void free_maps(void)
{
    while (map_count > 0) {
        free(maps[--map_count]);
    }
}

TestSuite(gpa_map, .fini = free_maps);

#define UNTOUCHED 0xa5

/* An empty map, freed after the test. */
static struct loam_gpa_map *make_map(uint32_t region_capacity, uint32_t table_capacity)
{
    struct loam_gpa_map_config config = {region_capacity, table_capacity};
    size_t bytes = loam_gpa_map_bytes(&config);
    void *memory = aligned_alloc(64, loam_align_up(bytes, 64));
    struct loam_gpa_map *map;

    cr_assert_lt(map_count, sizeof maps / sizeof *maps);
    maps[map_count++] = memory;
    memset(memory, UNTOUCHED, bytes);
    cr_assert_eq(loam_gpa_map_init(memory, bytes, &config, &map), LOAM_OK);
    cr_assert_eq((void *)map, memory);
    return map;
}

static struct loam_region ram(uint64_t start, uint64_t bytes, uintptr_t hva, uint32_t backing, uint64_t backing_offset)
{
    return (struct loam_region){.start = {start},
                                .bytes = bytes,
                                .hva = (void *)hva,
                                .backing_offset = backing_offset,
                                .backing = backing,
                                .type = LOAM_REGION_RAM,
                                .access = LOAM_ACCESS_WRITE};
}

static struct loam_region device(uint64_t start, uint64_t bytes)
{
    return (struct loam_region){.start = {start}, .bytes = bytes, .type = LOAM_REGION_DEVICE};
}

static enum loam_error insert(struct loam_gpa_map *map, struct loam_region region)
{
    return loam_gpa_map_insert(map, &region);
}

static bool same_region(const struct loam_region *a, const struct loam_region *b)
{
    return a->start.value == b->start.value && a->bytes == b->bytes && a->hva == b->hva &&
           a->backing_offset == b->backing_offset && a->backing == b->backing && a->type == b->type &&
           a->access == b->access && a->log_dirty == b->log_dirty;
}

static void assert_valid(struct loam_gpa_map *map)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_gpa_map_validate(map, &diag), LOAM_OK, "%s", diag.text);
}

static uint32_t region_count(struct loam_gpa_map *map)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint32_t count = loam_gpa_view_count(view);

    loam_gpa_map_release(map, view);
    return count;
}

static uint64_t generation(struct loam_gpa_map *map)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint64_t value = loam_gpa_view_generation(view);

    loam_gpa_map_release(map, view);
    return value;
}

/* xorshift64*: Vigna, 2016. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

Test(gpa_map, init_checks_config_memory_and_size)
{
    static alignas(64) char memory[1 << 16];
    struct loam_gpa_map *map = (void *)memory;
    size_t bytes = loam_gpa_map_bytes(NULL);

    cr_assert_gt(bytes, 0);
    cr_assert_leq(bytes, sizeof memory);
    cr_assert_eq(loam_gpa_map_bytes(&(struct loam_gpa_map_config){.table_capacity = 1}), 0);
    cr_assert_eq(loam_gpa_map_bytes(&(struct loam_gpa_map_config){.table_capacity = 4097}), 0);
    cr_assert_gt(loam_gpa_map_bytes(&(struct loam_gpa_map_config){.table_capacity = 4096}), (size_t)4096 * 64 * 80);
    cr_assert_gt(loam_gpa_map_bytes(&(struct loam_gpa_map_config){UINT32_MAX, 64}), (size_t)UINT32_MAX * 64 * 48);
    cr_assert_eq(loam_gpa_map_init(memory, bytes - 1, NULL, &map), LOAM_ERROR_INVALID);
    cr_assert_null(map);
    cr_assert_eq(loam_gpa_map_init(memory + 8, bytes, NULL, &map), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_map_init(NULL, bytes, NULL, &map), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_map_init(memory, bytes, &(struct loam_gpa_map_config){.table_capacity = 1}, &map),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_map_init(memory, bytes, NULL, &map), LOAM_OK);
    cr_assert_eq((char *)map, memory);
}

Test(gpa_map, null_is_refused)
{
    struct loam_gpa_map *map = make_map(8, 2);
    struct loam_region region = ram(0, PAGE, 0x1000, 0, 0);
    struct loam_diag diag = {0};
    void *memory = maps[0];

    cr_expect_eq(loam_gpa_map_init(memory, 1 << 20, NULL, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_insert(NULL, &region), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_insert(map, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_remove(NULL, region.start, PAGE), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_protect(NULL, region.start, PAGE, LOAM_ACCESS_READ), LOAM_ERROR_INVALID);
    loam_gpa_map_freeze(NULL);
    loam_gpa_map_thaw(NULL);
    cr_expect_null(loam_gpa_map_acquire(NULL));
    cr_expect_eq(loam_gpa_map_translate(NULL, region.start, 1, LOAM_ACCESS_READ, &memory), LOAM_ERROR_INVALID);
    cr_expect_null(memory);
    cr_expect_eq(loam_gpa_map_translate(map, region.start, 1, LOAM_ACCESS_READ, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_validate(NULL, &diag), LOAM_ERROR_INVALID);
    cr_expect_str_eq(diag.text, "gpa map: NULL given where one is wanted");
    assert_valid(map);
}

Test(gpa_map, a_view_is_released_once_and_to_its_own_map)
{
    struct loam_gpa_map *map = make_map(8, 3), *other = make_map(8, 3);
    const struct loam_gpa_view *old = loam_gpa_map_acquire(map), *now;

    cr_assert_eq(insert(map, ram(0, PAGE, 0x1000, 0, 0)), LOAM_OK);
    now = loam_gpa_map_acquire(map);
    cr_expect_eq(loam_gpa_map_release(other, now), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_release(map, (const void *)((const char *)old + 64)), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_release(map, (const void *)map), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_release(map, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_release(NULL, now), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_map_release(map, old), LOAM_OK);
    cr_expect_eq(loam_gpa_map_release(map, old), LOAM_ERROR_INVALID, "twice");
    cr_expect_eq(loam_gpa_map_release(map, now), LOAM_OK);
    cr_expect_eq(loam_gpa_map_release(map, now), LOAM_ERROR_INVALID, "twice");
    assert_valid(map);
    assert_valid(other);
    for (uint64_t page = 1; page < 6; page++) {
        cr_assert_eq(insert(map, ram(page * 2 * PAGE, PAGE, 0x1000, 0, 0)), LOAM_OK, "no table is lost");
    }
}

Test(gpa_map, an_empty_map_answers)
{
    struct loam_gpa_map *map = make_map(0, 0);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct loam_region region;
    void *hva = map;
    uint32_t count = 7;
    loam_gpa gpa = {7};
    char byte;

    cr_assert_eq(loam_gpa_view_generation(view), 0);
    cr_assert_eq(loam_gpa_map_generation(map), 0);
    cr_assert_eq(loam_gpa_map_generation(NULL), 0);
    cr_assert_eq(loam_gpa_view_count(view), 0);
    cr_assert_eq(loam_gpa_view_region(view, 0, &region), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){0}, &region), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(region.bytes, 0);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 1, LOAM_ACCESS_READ, &hva), LOAM_ERROR_NOT_FOUND);
    cr_assert_null(hva);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){0}, 1, LOAM_ACCESS_READ, NULL, 0, &count), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(count, 0);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, map, 1, &gpa), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(gpa.value, 0);
    cr_assert_eq(loam_gpa_view_read(view, (loam_gpa){0}, &byte, 1), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_slots(view, NULL, 0, &count), LOAM_OK);
    cr_assert_eq(count, 0);
    cr_assert_eq(loam_gpa_view_e820(view, NULL, 0, &count), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0}, PAGE, LOAM_ACCESS_READ), LOAM_ERROR_NOT_FOUND);
    loam_gpa_map_release(map, view);
    assert_valid(map);
}

/* --- What is refused ------------------------------------------------------------------------------------------- */

Test(gpa_map, insert_refuses_what_is_no_region)
{
    struct loam_gpa_map *map = make_map(8, 2);
    const struct loam_region good = ram(PAGE, PAGE, 0x10000, 0, 0);
    struct loam_region bad[21];
    uint32_t n = 0;

#define BAD(member, value)                                                                                             \
    bad[n] = good;                                                                                                     \
    bad[n++].member = value
    BAD(bytes, 0);
    BAD(bytes, PAGE - 1);
    BAD(bytes, PAGE + 8);
    BAD(start.value, PAGE + 1);
    BAD(start.value, LOAM_GPA_END);
    BAD(start.value, UINT64_MAX - PAGE + 1);
    BAD(bytes, LOAM_GPA_END);
    BAD(bytes, UINT64_MAX - PAGE + 1);
    BAD(hva, NULL);
    BAD(hva, (void *)0x10008);
    BAD(hva, (void *)(UINTPTR_MAX - PAGE + 1));
    BAD(backing_offset, 8);
    BAD(backing_offset, UINT64_MAX - PAGE + 1);
    BAD(access, LOAM_ACCESS_NONE);
    BAD(access, LOAM_ACCESS_COUNT);
    BAD(type, LOAM_REGION_TYPE_COUNT);
    BAD(type, LOAM_REGION_DEVICE);
#undef BAD
    bad[n] = device(PAGE, PAGE);
    bad[n++].access = LOAM_ACCESS_READ;
    bad[n] = device(PAGE, PAGE);
    bad[n++].backing = 1;
    bad[n] = device(PAGE, PAGE);
    bad[n++].backing_offset = PAGE;
    bad[n] = device(PAGE, PAGE);
    bad[n++].log_dirty = true;
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(loam_gpa_map_insert(map, &bad[i]), LOAM_ERROR_INVALID, "bad region %u", i);
    }
    cr_assert_eq(generation(map), 0);
    cr_assert_eq(insert(map, good), LOAM_OK);
    assert_valid(map);
}

Test(gpa_map, remove_and_protect_refuse_malformed_ranges)
{
    const uint64_t bad[][2] = {{0, 0},
                               {1, PAGE},
                               {0, PAGE + 1},
                               {LOAM_GPA_END, PAGE},
                               {PAGE, LOAM_GPA_END},
                               {UINT64_MAX - PAGE + 1, PAGE},
                               {PAGE, UINT64_MAX - PAGE + 1}};
    struct loam_gpa_map *map = make_map(8, 2);

    cr_assert_eq(insert(map, ram(0, 16 * PAGE, 0x10000, 0, 0)), LOAM_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        loam_gpa start = {bad[i][0]};

        cr_assert_eq(loam_gpa_map_remove(map, start, bad[i][1]), LOAM_ERROR_INVALID, "range %zu", i);
        cr_assert_eq(loam_gpa_map_protect(map, start, bad[i][1], LOAM_ACCESS_READ), LOAM_ERROR_INVALID, "range %zu", i);
    }
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0}, PAGE, LOAM_ACCESS_NONE), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0}, PAGE, LOAM_ACCESS_COUNT), LOAM_ERROR_INVALID);
    cr_assert_eq(generation(map), 1);
}

Test(gpa_map, a_region_that_meets_another_is_refused)
{
    struct loam_gpa_map *map = make_map(8, 2);

    cr_assert_eq(insert(map, ram(4 * PAGE, 4 * PAGE, 0x100000, 0, 0)), LOAM_OK);
    for (uint64_t start = 0; start < 12; start++) {
        for (uint64_t pages = 1; pages < 12; pages++) {
            bool overlaps = start < 8 && start + pages > 4;
            struct loam_region region = device(start * PAGE, pages * PAGE);

            cr_assert_eq(loam_gpa_map_insert(map, &region), overlaps ? LOAM_ERROR_OVERLAP : LOAM_OK);
            if (!overlaps) {
                cr_assert_eq(loam_gpa_map_remove(map, region.start, region.bytes), LOAM_OK);
            }
        }
    }
    cr_assert_eq(region_count(map), 1);
    assert_valid(map);
}

Test(gpa_map, a_change_needs_the_whole_range)
{
    struct loam_gpa_map *map = make_map(8, 2);

    cr_assert_eq(insert(map, ram(PAGE, PAGE, 0x100000, 0, 0)), LOAM_OK);
    cr_assert_eq(insert(map, ram(3 * PAGE, PAGE, 0x200000, 0, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, device(4 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, 2 * PAGE), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){PAGE}, 3 * PAGE), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){4 * PAGE}, 2 * PAGE), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){3 * PAGE}, 2 * PAGE, LOAM_ACCESS_READ), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){PAGE}, 2 * PAGE, LOAM_ACCESS_READ), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(generation(map), 3);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){3 * PAGE}, 2 * PAGE), LOAM_OK);
    cr_assert_eq(region_count(map), 1);
    assert_valid(map);
}

/* --- Changes together ------------------------------------------------------------------------------------------ */

static struct loam_gpa_change change(enum loam_change_kind kind, struct loam_region region)
{
    return (struct loam_gpa_change){kind, region};
}

static struct loam_gpa_change retype(uint64_t start, uint64_t bytes, enum loam_region_type type)
{
    return change(LOAM_CHANGE_RETYPE, (struct loam_region){.start = {start}, .bytes = bytes, .type = type});
}

static struct loam_gpa_change log_dirty(uint64_t start, uint64_t bytes, bool wanted)
{
    return change(LOAM_CHANGE_LOG, (struct loam_region){.start = {start}, .bytes = bytes, .log_dirty = wanted});
}

static enum loam_error change_log(struct loam_gpa_map *map, uint64_t start, uint64_t bytes, bool wanted)
{
    const struct loam_gpa_change one = log_dirty(start, bytes, wanted);

    return loam_gpa_map_change(map, &one, 1, NULL);
}

Test(gpa_map, changes_together_are_one_publication)
{
    struct loam_gpa_map *map = make_map(8, 3);
    const struct loam_region old = ram(0, 4 * PAGE, 0x100000, 0, 0), new = ram(0, 4 * PAGE, 0x200000, 0, 0);
    const struct loam_gpa_change changes[] = {
        change(LOAM_CHANGE_REMOVE, (struct loam_region){.start = {0}, .bytes = 4 * PAGE}),
        change(LOAM_CHANGE_INSERT, new),
        retype(PAGE, PAGE, LOAM_REGION_RESERVED),
        change(LOAM_CHANGE_PROTECT, (struct loam_region){.start = {PAGE}, .bytes = PAGE, .access = LOAM_ACCESS_READ}),
    };
    const struct loam_gpa_view *view;
    struct loam_region region;
    uint32_t refused = 7;

    cr_assert_eq(loam_gpa_map_insert(map, &old), LOAM_OK);
    cr_assert_eq(loam_gpa_map_change(map, changes, 4, &refused), LOAM_OK);
    cr_expect_eq(refused, 4);
    cr_expect_eq(generation(map), 2, "one publication");
    view = loam_gpa_map_acquire(map);
    cr_expect_eq(loam_gpa_view_count(view), 3);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){PAGE}, &region), LOAM_OK);
    cr_expect_eq((uintptr_t)region.hva, 0x200000 + PAGE);
    cr_expect_eq(region.type, LOAM_REGION_RESERVED);
    cr_expect_eq(region.access, LOAM_ACCESS_READ);
    loam_gpa_map_release(map, view);
    cr_assert_eq(loam_gpa_map_change(map, &changes[2], 0, &refused), LOAM_OK);
    cr_expect_eq(generation(map), 2, "none, none");
    cr_expect_eq(refused, 0);
    assert_valid(map);
}

Test(gpa_map, one_change_that_is_refused_undoes_those_before_it)
{
    struct loam_gpa_map *map = make_map(2, 3);
    const struct loam_gpa_change halves = retype(PAGE, PAGE, LOAM_REGION_RESERVED);
    const struct loam_gpa_change bad[][2] = {
        {retype(0, PAGE, LOAM_REGION_RESERVED), change(LOAM_CHANGE_INSERT, ram(0, PAGE, 0x500000, 0, 0))},
        {retype(0, PAGE, LOAM_REGION_RESERVED), retype(8 * PAGE, PAGE, LOAM_REGION_RAM)},
        {retype(0, PAGE, LOAM_REGION_RESERVED), retype(0, PAGE, LOAM_REGION_DEVICE)},
        {retype(0, PAGE, LOAM_REGION_RESERVED), change(LOAM_CHANGE_COUNT, ram(0, PAGE, 0x500000, 0, 0))},
    };
    const struct loam_gpa_change joined[] = {bad[0][0], halves};
    const enum loam_error why[] = {LOAM_ERROR_OVERLAP, LOAM_ERROR_NOT_FOUND, LOAM_ERROR_INVALID, LOAM_ERROR_INVALID};
    uint32_t refused;

    cr_assert_eq(insert(map, ram(0, 4 * PAGE, 0x100000, 0, 0)), LOAM_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(loam_gpa_map_change(map, bad[i], 2, &refused), why[i], "list %zu", i);
        cr_expect_eq(refused, 1, "list %zu", i);
        cr_expect_eq(region_count(map), 1, "list %zu", i);
        cr_expect_eq(generation(map), 1, "list %zu", i);
        assert_valid(map);
    }
    cr_expect_eq(loam_gpa_map_change(map, &halves, 1, &refused), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(refused, 0);
    cr_expect_eq(loam_gpa_map_change(map, joined, 2, NULL), LOAM_OK, "pages 0 and 1 are one row again");
    cr_expect_eq(region_count(map), 2);
    assert_valid(map);
}

Test(gpa_map, changes_together_want_one_free_table_as_one_change_does)
{
    struct loam_gpa_map *map = make_map(8, 3), *small = make_map(8, 2);
    const struct loam_gpa_change changes[] = {retype(0, PAGE, LOAM_REGION_RESERVED), retype(0, PAGE, LOAM_REGION_RAM),
                                              retype(PAGE, PAGE, LOAM_REGION_RESERVED)};
    const struct loam_gpa_view *view, *second;
    uint32_t refused;

    cr_assert_eq(insert(map, ram(0, 4 * PAGE, 0x100000, 0, 0)), LOAM_OK);
    cr_assert_eq(insert(small, ram(0, 4 * PAGE, 0x100000, 0, 0)), LOAM_OK);
    for (uint32_t count = 1; count <= 3; count++) {
        cr_expect_eq(loam_gpa_map_change(small, changes, count, &refused), LOAM_OK);
        cr_expect_eq(refused, count);
        assert_valid(small);
    }
    cr_expect_eq(region_count(small), 3);
    view = loam_gpa_map_acquire(map);
    cr_expect_eq(loam_gpa_map_change(map, changes, 2, &refused), LOAM_OK);
    cr_expect_eq(loam_gpa_map_change(map, changes, 3, &refused), LOAM_OK,
                 "one view is held, and there are 1 + 2 tables");
    second = loam_gpa_map_acquire(map);
    cr_expect_eq(loam_gpa_map_change(map, changes, 2, &refused), LOAM_OK);
    cr_expect_eq(loam_gpa_map_change(map, changes, 2, &refused), LOAM_ERROR_BUSY);
    cr_expect_eq(refused, 2);
    cr_expect_eq(loam_gpa_map_change(map, changes, 1, &refused), LOAM_ERROR_BUSY);
    loam_gpa_map_release(map, second);
    cr_expect_eq(loam_gpa_map_change(map, changes, 3, &refused), LOAM_OK);
    cr_expect_eq(loam_gpa_view_count(view), 1);
    loam_gpa_map_release(map, view);
    assert_valid(map);
}

Test(gpa_map, changes_refuse_null)
{
    struct loam_gpa_map *map = make_map(8, 3);
    const struct loam_gpa_change none = retype(0, PAGE, LOAM_REGION_RAM);
    uint32_t refused = 0;

    cr_expect_eq(loam_gpa_map_change(NULL, &none, 1, &refused), LOAM_ERROR_INVALID);
    cr_expect_eq(refused, 1);
    cr_expect_eq(loam_gpa_map_change(map, NULL, 1, &refused), LOAM_ERROR_INVALID);
    cr_expect_eq(refused, 1);
    cr_expect_eq(loam_gpa_map_change(map, NULL, 0, NULL), LOAM_OK);
}

Test(gpa_map, a_reader_never_misses_what_changes_place, .timeout = 300)
{
    struct loam_gpa_map *map = make_map(8, 4);
    const struct loam_region places[] = {ram(0, PAGE, 0x100000, 0, 0), ram(0, PAGE, 0x200000, 0, 0)};
    const struct loam_gpa_change away = change(LOAM_CHANGE_REMOVE, places[0]);

    cr_assert_eq(insert(map, places[0]), LOAM_OK);
    for (uint32_t i = 1; i < 1000; i++) {
        const struct loam_gpa_change both[] = {away, change(LOAM_CHANGE_INSERT, places[i % 2])};
        const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
        void *before, *after;

        cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 1, LOAM_ACCESS_READ, &before), LOAM_OK);
        cr_assert_eq(loam_gpa_map_change(map, both, 2, NULL), LOAM_OK);
        cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 1, LOAM_ACCESS_READ, &after), LOAM_OK);
        cr_assert_eq(before, after, "a held view stays as it was");
        loam_gpa_map_release(map, view);
    }
    assert_valid(map);
}

/* --- The ends of the address space ----------------------------------------------------------------------------- */

Test(gpa_map, rows_of_kept_backings_come_and_go_only_by_their_keeper)
{
    struct loam_gpa_map *map = make_map(16, 2);
    struct loam_region kept = ram(4 * PAGE, 4 * PAGE, 0x100000, 2, 0);

    loam_gpa_map_keep(map, 2);
    for (uint32_t backing = 0; backing <= 4; backing++) {
        struct loam_region region = ram(64 * PAGE, PAGE, 0x800000, backing, 0);
        bool refused = backing == 1 || backing == 2;

        cr_assert_eq(insert(map, region), refused ? LOAM_ERROR_NOT_PERMITTED : LOAM_OK, "backing %" PRIu32, backing);
        if (refused) {
            cr_assert_eq(loam_gpa_map_keeper_insert(map, &region), LOAM_OK);
            cr_assert_eq(loam_gpa_map_remove(map, region.start, PAGE), LOAM_ERROR_NOT_PERMITTED);
            cr_assert_eq(loam_gpa_map_keeper_remove(map, region.start, PAGE), LOAM_OK);
        } else {
            cr_assert_eq(loam_gpa_map_remove(map, region.start, PAGE), LOAM_OK);
        }
    }
    cr_assert_eq(loam_gpa_map_keeper_insert(map, &kept), LOAM_OK);
    cr_assert_eq(insert(map, device(2 * PAGE, 2 * PAGE)), LOAM_OK);
    for (uint64_t page = 3; page < 8; page++) {
        cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){page * PAGE}, (8 - page) * PAGE), LOAM_ERROR_NOT_PERMITTED);
    }
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){5 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK,
                 "nothing comes or goes");
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){5 * PAGE}, PAGE), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(loam_gpa_map_keeper_remove(map, (loam_gpa){2 * PAGE}, 6 * PAGE), LOAM_OK, "others' rows too");
    cr_assert_eq(region_count(map), 0);
    assert_valid(map);
}

Test(gpa_map, ranges_at_zero_and_at_the_very_top)
{
    struct loam_gpa_map *map = make_map(4, 2);
    const struct loam_gpa_view *view;
    const uint64_t top = LOAM_GPA_END - PAGE;
    struct loam_piece piece;
    uint32_t count;
    loam_gpa gpa;
    void *hva;

    cr_assert_eq(insert(map, ram(0, PAGE, 0x100000, 0, 0)), LOAM_OK);
    cr_assert_eq(insert(map, ram(top, PAGE, 0x200000, 1, 0)), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, PAGE, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
    cr_assert_eq((uintptr_t)hva, 0x100000);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, PAGE + 1, LOAM_ACCESS_WRITE, &hva), LOAM_ERROR_OVERLAP);
    cr_assert_null(hva);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){top}, PAGE, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
    cr_assert_eq((uintptr_t)hva, 0x200000);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){LOAM_GPA_END - 1}, 1, LOAM_ACCESS_READ, &hva), LOAM_OK);
    cr_assert_eq((uintptr_t)hva, 0x200fff);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){LOAM_GPA_END - 1}, 2, LOAM_ACCESS_READ, &hva),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){LOAM_GPA_END}, 1, LOAM_ACCESS_READ, &hva),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){top}, UINT64_MAX, LOAM_ACCESS_READ, &hva),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){UINT64_MAX}, 2, LOAM_ACCESS_READ, &hva), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 0, LOAM_ACCESS_READ, &hva), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 1, LOAM_ACCESS_NONE, &hva), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 1, LOAM_ACCESS_COUNT, &hva), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){top}, PAGE, LOAM_ACCESS_WRITE, &piece, 1, &count), LOAM_OK);
    cr_assert_eq(count, 1);
    cr_assert_eq(piece.bytes, PAGE);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){0}, LOAM_GPA_END, LOAM_ACCESS_READ, &piece, 1, &count),
                 LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)0x200fff, 1, &gpa), LOAM_OK);
    cr_assert_eq(gpa.value, LOAM_GPA_END - 1);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)0x200fff, 2, &gpa), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)0x200fff, UINT64_MAX, &gpa), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)0x200fff, 0, &gpa), LOAM_ERROR_INVALID);
    loam_gpa_map_release(map, view);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){top}, PAGE), LOAM_OK);
    assert_valid(map);
}

Test(gpa_map, one_region_may_be_the_whole_address_space)
{
    struct loam_gpa_map *map = make_map(1, 2);
    struct loam_region region;
    const struct loam_gpa_view *view;

    cr_assert_eq(insert(map, device(0, LOAM_GPA_END)), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){LOAM_GPA_END - 1}, &region), LOAM_OK);
    cr_assert_eq(region.bytes, LOAM_GPA_END);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){LOAM_GPA_END}, &region), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){UINT64_MAX}, &region), LOAM_ERROR_NOT_FOUND);
    loam_gpa_map_release(map, view);
    assert_valid(map);
}

Test(gpa_map, a_host_range_may_end_just_below_the_top)
{
    struct loam_gpa_map *map = make_map(4, 2);
    const uintptr_t hva = UINTPTR_MAX - 2 * PAGE + 1;
    const struct loam_gpa_view *view;
    loam_gpa gpa;

    cr_assert_eq(insert(map, ram(PAGE, PAGE, hva, 0, 0)), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)(hva + 8), 8, &gpa), LOAM_OK);
    cr_assert_eq(gpa.value, PAGE + 8);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)(hva + PAGE), 8, &gpa), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_gpa_from_hva(view, (void *)(hva - 8), 8, &gpa), LOAM_ERROR_NOT_FOUND);
    loam_gpa_map_release(map, view);
}

/* --- Canonical form -------------------------------------------------------------------------------------------- */

Test(gpa_map, neighbours_join_only_if_alike_in_every_respect)
{
    struct loam_region left = ram(PAGE, PAGE, 0x100000, 1, PAGE), right;

    for (int unlike = 0; unlike < 7; unlike++) {
        struct loam_gpa_map *map = make_map(4, 2);

        right = ram(2 * PAGE, PAGE, 0x100000 + PAGE, 1, 2 * PAGE);
        right.hva = unlike == 1 ? (void *)0x200000 : right.hva;
        right.backing = unlike == 2 ? 2 : right.backing;
        right.backing_offset = unlike == 3 ? 0 : right.backing_offset;
        right.type = unlike == 4 ? LOAM_REGION_RESERVED : right.type;
        right.access = unlike == 5 ? LOAM_ACCESS_READ : right.access;
        right.log_dirty = unlike == 6;
        cr_assert_eq(loam_gpa_map_insert(map, &right), LOAM_OK);
        cr_assert_eq(loam_gpa_map_insert(map, &left), LOAM_OK);
        cr_assert_eq(region_count(map), unlike == 0 ? 1 : 2, "respect %d", unlike);
        assert_valid(map);
    }
}

Test(gpa_map, the_order_of_changes_does_not_show)
{
    const uint32_t orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

    for (size_t o = 0; o < 6; o++) {
        struct loam_gpa_map *map = make_map(3, 2);

        for (uint32_t i = 0; i < 3; i++) {
            uint64_t at = orders[o][i] * PAGE;

            cr_assert_eq(insert(map, ram(at, PAGE, 0x100000 + at, 0, at)), LOAM_OK);
        }
        cr_assert_eq(region_count(map), 1);
        cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
        cr_assert_eq(region_count(map), 3);
        cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){PAGE}, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
        cr_assert_eq(region_count(map), 1);
        cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){PAGE}, PAGE), LOAM_OK);
        cr_assert_eq(region_count(map), 2);
        assert_valid(map);
    }
}

/* --- Bounds of the caller's memory ----------------------------------------------------------------------------- */

Test(gpa_map, a_full_table_refuses_and_stays_as_it_was)
{
    struct loam_gpa_map *map = make_map(3, 2);
    struct loam_region whole = ram(0, 8 * PAGE, 0x100000, 0, 0), found;
    const struct loam_gpa_view *view;

    cr_assert_eq(loam_gpa_map_insert(map, &whole), LOAM_OK);
    cr_assert_eq(insert(map, device(16 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){2 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(insert(map, device(18 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, device(20 * PAGE, PAGE)), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){2 * PAGE}, PAGE), LOAM_ERROR_EXHAUSTED);
    assert_valid(map);
    cr_assert_eq(generation(map), 3);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_region(view, 0, &found), LOAM_OK);
    cr_assert(same_region(&whole, &found));
    loam_gpa_map_release(map, view);
    /* What joins takes no row more, and what frees one makes room. */
    cr_assert_eq(insert(map, device(17 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(region_count(map), 2);
    cr_assert_eq(insert(map, device(20 * PAGE, PAGE)), LOAM_OK);
    assert_valid(map);
}

Test(gpa_map, busy_while_readers_hold_every_other_table_and_never_after)
{
    struct loam_gpa_map *map = make_map(8, 3);
    const struct loam_gpa_view *first, *second, *again;

    first = loam_gpa_map_acquire(map);
    cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
    second = loam_gpa_map_acquire(map);
    again = loam_gpa_map_acquire(map);
    cr_assert_eq(insert(map, device(2 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, device(4 * PAGE, PAGE)), LOAM_ERROR_BUSY);
    cr_assert_eq(insert(map, device(0, PAGE)), LOAM_ERROR_OVERLAP);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){4 * PAGE}, PAGE), LOAM_ERROR_NOT_FOUND);
    assert_valid(map);
    cr_assert_eq(loam_gpa_view_count(first), 0);
    cr_assert_eq(loam_gpa_view_count(second), 1);
    cr_assert_eq(region_count(map), 2);
    loam_gpa_map_release(map, second);
    cr_assert_eq(insert(map, device(4 * PAGE, PAGE)), LOAM_ERROR_BUSY);
    loam_gpa_map_release(map, again);
    cr_assert_eq(insert(map, device(4 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(loam_gpa_view_count(first), 0);
    loam_gpa_map_release(map, first);
    for (uint64_t i = 0; i < 100; i++) {
        cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_OK);
        cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
    }
    cr_assert_eq(region_count(map), 3);
    assert_valid(map);
}

/* Each view is of a generation of its own, and keeps a table: there are two more, and so one is always free. */
Test(gpa_map, two_tables_more_than_views_are_never_busy)
{
    static const uint32_t counts[] = {1, 2, 63, 64, 65, 200};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        const uint32_t count = counts[i];
        struct loam_gpa_map *map = make_map(8, count + 2);
        const struct loam_gpa_view *views[201];
        uint64_t generations = 0;

        for (uint32_t round = 0; round < 3; round++) {
            for (uint32_t view = 0; view < count; view++) {
                views[view] = loam_gpa_map_acquire(map);
                cr_assert_eq(loam_gpa_view_generation(views[view]), generations);
                cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK, "%u of %u views held", view + 1, count);
                cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_OK);
                generations += 2;
            }
            views[count] = loam_gpa_map_acquire(map);
            cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
            cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_ERROR_BUSY, "one view more");
            cr_assert_eq(loam_gpa_map_release(map, views[round * count / 3]), LOAM_OK);
            cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_OK, "whichever view was released");
            generations += 2;
            for (uint32_t view = 0; view <= count; view++) {
                cr_assert(view == round * count / 3 || loam_gpa_map_release(map, views[view]) == LOAM_OK);
            }
            assert_valid(map);
        }
    }
}

/* How many pages of the map's memory have been written. */
static uint64_t touched_pages(const struct loam_gpa_map *map, uint64_t bytes)
{
    uint64_t touched = 0;

    for (uint64_t at = 0; at < bytes; at += PAGE) {
        const uint8_t *page = (const uint8_t *)map + at;
        uint64_t i = 0, end = bytes - at < PAGE ? bytes - at : PAGE;

        while (i < end && page[i] == UNTOUCHED) {
            i++;
        }
        touched += i < end;
    }
    return touched;
}

/* Room for 1,100 regions and 65 views, of which little is used: 80 bytes a region and table, and few of them touched. */
Test(gpa_map, memory_is_touched_only_as_it_is_needed)
{
    const struct loam_gpa_map_config config = {1100, 67};
    struct loam_gpa_map *map = make_map(config.region_capacity, config.table_capacity);
    const uint64_t bytes = loam_gpa_map_bytes(&config);
    const struct loam_gpa_view *view;

    cr_expect_leq(bytes, UINT64_C(81) * 1100 * 68);
    cr_expect_leq(touched_pages(map, bytes), 2, "init: %" PRIu64, touched_pages(map, bytes));
    for (uint64_t i = 0; i < 1000; i++) {
        cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
        cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_OK);
    }
    /* Of two tables: the head with the first keys, the buckets, the first rows. */
    cr_expect_leq(touched_pages(map, bytes), 12, "no view held: %" PRIu64, touched_pages(map, bytes));
    view = loam_gpa_map_acquire(map);
    for (uint64_t i = 0; i < 1000; i++) {
        cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
        cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, PAGE), LOAM_OK);
    }
    cr_expect_leq(touched_pages(map, bytes), 18, "one view held: %" PRIu64, touched_pages(map, bytes));
    loam_gpa_map_release(map, view);
    assert_valid(map);
    cr_expect_leq(touched_pages(make_map(1, 4096), loam_gpa_map_bytes(&(struct loam_gpa_map_config){1, 4096})), 2);
}

Test(gpa_map, a_map_is_settled_when_no_view_from_before_is_held)
{
    struct loam_gpa_map *map = make_map(8, 5);
    const struct loam_gpa_view *first = loam_gpa_map_acquire(map), *second, *third;
    uint64_t change;

    cr_expect(loam_gpa_map_keeper_settled(map, loam_gpa_map_generation(map)), "a view of the current table is held");
    cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
    second = loam_gpa_map_acquire(map);
    cr_assert_eq(insert(map, device(2 * PAGE, PAGE)), LOAM_OK);
    change = loam_gpa_map_generation(map);
    third = loam_gpa_map_acquire(map);
    cr_assert_eq(insert(map, device(4 * PAGE, PAGE)), LOAM_OK);
    cr_expect_not(loam_gpa_map_keeper_settled(map, change));
    cr_expect_eq(loam_gpa_map_release(map, first), LOAM_OK);
    cr_expect_not(loam_gpa_map_keeper_settled(map, change));
    cr_expect(loam_gpa_map_keeper_settled(map, change - 1), "the second is not from before the second");
    cr_expect_eq(loam_gpa_map_release(map, second), LOAM_OK);
    cr_expect(loam_gpa_map_keeper_settled(map, change), "the third is from after it");
    cr_expect_not(loam_gpa_map_keeper_settled(map, change + 1));
    cr_expect_eq(loam_gpa_map_release(map, third), LOAM_OK);
    cr_expect(loam_gpa_map_keeper_settled(map, change + 1));
}

Test(gpa_map, validate_sees_damage)
{
    struct loam_gpa_map_config config = {8, 2};
    size_t bytes = loam_gpa_map_bytes(&config);
    struct loam_gpa_map *map = make_map(8, 2);
    char *copy = malloc(bytes);
    const struct loam_gpa_view *other;
    struct loam_diag last = {0};
    uint32_t seen = 0;

    cr_assert_eq(insert(map, ram(0, 2 * PAGE, 0x100000, 3, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, ram(4 * PAGE, 2 * PAGE, 0x200000, 4, PAGE)), LOAM_OK);
    memcpy(copy, map, bytes);
    /* Each word that holds the second region's start: its row, the search key, and the index's end behind it. */
    for (size_t at = 0; at + 8 <= bytes; at += 8) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
        bool current = (const char *)map + at >= (const char *)view;
        uint64_t word;

        loam_gpa_map_release(map, view);
        memcpy(&word, (char *)map + at, sizeof word);
        if (current && word == 4 * PAGE) {
            struct loam_diag diag = {0};

            word = PAGE;
            memcpy((char *)map + at, &word, sizeof word);
            cr_assert_eq(loam_gpa_map_validate(map, &diag), LOAM_ERROR_CORRUPT, "offset %zu", at);
            cr_assert_neq(diag.text[0], 0);
            memcpy(map, copy, bytes);
            seen++;
        }
    }
    cr_assert_geq(seen, 2);
    assert_valid(map);
    other = loam_gpa_map_acquire(map);
    loam_gpa_map_release(map, other);
    cr_assert_eq(loam_gpa_map_remove(map, (loam_gpa){0}, 2 * PAGE), LOAM_OK);
    memset((void *)(uintptr_t)other, 0xff, sizeof(uint32_t)); /* its readers */
    cr_assert_eq(loam_gpa_map_validate(map, &last), LOAM_ERROR_CORRUPT);
    cr_assert_str_eq(last.text, "gpa map: table 0 was released 1 times too often");
    free(copy);
}

/* In the table that is current, put the word after in place of every word before. */
static void replace_word(struct loam_gpa_map *map, uint64_t before, uint64_t after)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    const struct loam_gpa_map_config config = {8, 2};
    char *end = (char *)map + loam_gpa_map_bytes(&config);
    uint32_t count = 0;

    loam_gpa_map_release(map, view);
    for (char *at = (char *)(uintptr_t)view; at + sizeof before <= end; at += sizeof before) {
        if (memcmp(at, &before, sizeof before) == 0) {
            memcpy(at, &after, sizeof after);
            count++;
        }
    }
    cr_assert_gt(count, 0, "there is no %#" PRIx64, before);
}

Test(gpa_map, validate_says_what_is_damaged)
{
    static const struct {
        uint64_t words[4][2]; /* before, after */
        const char *text;
    } cases[] = {
        {{{0x3000, 0x3001}}, "gpa map: row 0, 0x3001 bytes at GPA 0x10000, is no valid region"},
        {{{0x3000, 0x11000}}, "gpa map: row 1 at GPA 0x20000 starts before row 0 ends"},
        {{{0x14000, 0x15000}}, "gpa map: the index does not span GPA 0x10000 to 0x24000"},
        {{{0x10000, 0x11000}, {0x14000, 0x15000}}, "gpa map: the index does not span GPA 0x11000 to 0x24000"},
        {{{0x20000, 0x13000}, {0x9000000, 0x7003000}, {0x6000, 0x8000}},
         "gpa map: row 1 at GPA 0x13000 continues row 0 and is not joined"},
        {{{0x9000000 + LOAM_ACCESS_WRITE, 0x9000000 + LOAM_ACCESS_READ}},
         "gpa map: row 1 at GPA 0x20000 is another to who holds no view"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_gpa_map *map = make_map(8, 2);
        struct loam_diag diag = {0};

        cr_assert_eq(insert(map, ram(0x10000, 0x3000, 0x7000000, 3, 0x5000)), LOAM_OK);
        cr_assert_eq(insert(map, ram(0x20000, 0x4000, 0x9000000, 3, 0x6000)), LOAM_OK);
        assert_valid(map);
        for (size_t j = 0; j < 4 && cases[i].words[j][0] != 0; j++) {
            replace_word(map, cases[i].words[j][0], cases[i].words[j][1]);
        }
        cr_expect_eq(loam_gpa_map_validate(map, &diag), LOAM_ERROR_CORRUPT, "case %zu", i);
        cr_expect_str_eq(diag.text, cases[i].text, "%s", diag.text);
    }
}

/* Lookups try first what has most of all memory: it is damaged, and the row that it stands for is not. */
Test(gpa_map, validate_sees_that_what_is_likely_is_damaged)
{
    static const uint64_t words[] = {0x10000, 0x30000, 0x7000000};
    struct loam_diag diag = {0};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct loam_gpa_map *map = make_map(8, 2);
        const struct loam_gpa_view *view;
        uint64_t *word;

        cr_assert_eq(insert(map, ram(0x10000, 0x30000, 0x7000000, 3, 0x5000)), LOAM_OK);
        cr_assert_eq(insert(map, ram(0x50000, 0x1000, 0x9000000, 3, 0x6000)), LOAM_OK);
        view = loam_gpa_map_acquire(map);
        word = (uint64_t *)(uintptr_t)view;
        loam_gpa_map_release(map, view);
        while (*word != words[i]) {
            word++;
        }
        *word += 0x1000;
        cr_assert_eq(loam_gpa_map_validate(map, &diag), LOAM_ERROR_CORRUPT, "word %zu", i);
        cr_expect(strstr(diag.text, "which are not the likely row, 0 of 2") != NULL, "%s", diag.text);
    }
}

/*
 * One region is likely, first among others or last, and what is asked of it or of them is answered as if none were. The
 * second turn is one in which no region is.
 */
Test(gpa_map, a_likely_region_changes_no_answer)
{
    static const uint64_t large[] = {64 * PAGE, 6 * PAGE};

    for (size_t i = 0; i < 2; i++) {
        struct loam_gpa_map *map = make_map(8, 2);
        struct loam_region reserved = ram(0x400000, 4 * PAGE, 0x9000000, 2, 0);
        const struct loam_gpa_view *view;
        void *hva;

        cr_assert_eq(insert(map, device(0, 1024 * PAGE)), LOAM_OK, "larger than any, and no memory");
        cr_assert_eq(insert(map, reserved), LOAM_OK);
        cr_assert_eq(insert(map, ram(0x500000, large[i], 0x7000000, 1, 0)), LOAM_OK);
        cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){0x500000}, large[i], LOAM_ACCESS_READ), LOAM_OK);
        view = loam_gpa_map_acquire(map);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x500000}, large[i], LOAM_ACCESS_READ, &hva), LOAM_OK);
        cr_expect_eq((uintptr_t)hva, 0x7000000);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x501234}, 1, LOAM_ACCESS_READ, &hva), LOAM_OK);
        cr_expect_eq((uintptr_t)hva, 0x7001234);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x400010}, 8, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
        cr_expect_eq((uintptr_t)hva, 0x9000010);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x501234}, 1, LOAM_ACCESS_WRITE, &hva),
                     LOAM_ERROR_NOT_PERMITTED);
        cr_expect_null(hva);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x500001}, large[i], LOAM_ACCESS_READ, &hva),
                     LOAM_ERROR_OVERLAP);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x501234}, 0, LOAM_ACCESS_READ, &hva),
                     LOAM_ERROR_INVALID);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x501234}, UINT64_MAX, LOAM_ACCESS_READ, &hva),
                     LOAM_ERROR_INVALID);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x501234}, 1, LOAM_ACCESS_NONE, &hva),
                     LOAM_ERROR_INVALID);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0x4fffff}, 1, LOAM_ACCESS_READ, &hva),
                     LOAM_ERROR_NOT_FOUND);
        cr_expect_eq(loam_gpa_view_translate(view, (loam_gpa){0}, 1, LOAM_ACCESS_READ, &hva), LOAM_ERROR_NOT_FOUND);
        loam_gpa_map_release(map, view);
        assert_valid(map);
    }
}

/* Whatever the answer is: granted or refused, found at once or by a search. The memory cannot be written meanwhile. */
Test(gpa_map, translating_without_a_view_writes_nothing)
{
    const struct loam_gpa_map_config config = {8, 2};
    const size_t bytes = loam_align_up(loam_gpa_map_bytes(&config), PAGE);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *hva = memory;
    struct loam_gpa_map *map;

    cr_assert_neq(memory, MAP_FAILED);
    cr_assert_eq(loam_gpa_map_init(memory, bytes, &config, &map), LOAM_OK);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){0}, 1, LOAM_ACCESS_READ, &hva), LOAM_ERROR_NOT_FOUND);
    cr_expect_null(hva);
    cr_assert_eq(insert(map, ram(0, 64 * PAGE, 0x100000, 0, 0)), LOAM_OK);
    cr_assert_eq(insert(map, device(64 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, ram(128 * PAGE, PAGE, 0x900000, 0, 0)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){128 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(mprotect(memory, bytes, PROT_READ), 0);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){PAGE}, 8, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
    cr_expect_eq((uintptr_t)hva, 0x101000);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){128 * PAGE + 8}, 8, LOAM_ACCESS_READ, &hva), LOAM_OK);
    cr_expect_eq((uintptr_t)hva, 0x900008);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){128 * PAGE}, 8, LOAM_ACCESS_WRITE, &hva),
                 LOAM_ERROR_NOT_PERMITTED);
    cr_expect_null(hva);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){64 * PAGE}, 8, LOAM_ACCESS_READ, &hva), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){65 * PAGE}, 8, LOAM_ACCESS_READ, &hva), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){64 * PAGE - 4}, 8, LOAM_ACCESS_READ, &hva), LOAM_ERROR_OVERLAP);
    cr_expect_eq(loam_gpa_map_translate(map, (loam_gpa){0}, 0, LOAM_ACCESS_READ, &hva), LOAM_ERROR_INVALID);
    cr_expect_eq(munmap(memory, bytes), 0);
}

/* --- Pieces and copies ----------------------------------------------------------------------------------------- */

Test(gpa_map, pieces_cover_exactly_the_range)
{
    struct loam_gpa_map *map = make_map(8, 2);
    const struct loam_gpa_view *view;
    struct loam_piece pieces[3];
    uint32_t count;

    /* Pages 1 and 2 lie together in the host, though of two types; page 3 lies elsewhere, page 4 is read-only. */
    cr_assert_eq(insert(map, ram(PAGE, PAGE, 0x100000, 0, 0)), LOAM_OK);
    cr_assert_eq(insert(map, ram(2 * PAGE, PAGE, 0x100000 + PAGE, 7, 0)), LOAM_OK);
    cr_assert_eq(insert(map, ram(3 * PAGE, 2 * PAGE, 0x900000, 0, 0)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){4 * PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    cr_assert_eq(insert(map, device(5 * PAGE, PAGE)), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE + 16}, 2 * PAGE, LOAM_ACCESS_WRITE, pieces, 3, &count),
                 LOAM_OK);
    cr_assert_eq(count, 2);
    cr_assert_eq((uintptr_t)pieces[0].hva, 0x100010);
    cr_assert_eq(pieces[0].bytes, 2 * PAGE - 16);
    cr_assert_eq(pieces[1].start.value, 3 * PAGE);
    cr_assert_eq((uintptr_t)pieces[1].hva, 0x900000);
    cr_assert_eq(pieces[1].bytes, 16);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE}, 3 * PAGE, LOAM_ACCESS_WRITE, pieces, 1, &count),
                 LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(count, 2);
    cr_assert_eq(pieces[0].bytes, 2 * PAGE);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE}, 3 * PAGE + 1, LOAM_ACCESS_WRITE, pieces, 3, &count),
                 LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(count, 0);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE}, 4 * PAGE, LOAM_ACCESS_READ, pieces, 3, &count), LOAM_OK);
    cr_assert_eq(count, 2);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE}, 4 * PAGE + 1, LOAM_ACCESS_READ, pieces, 3, &count),
                 LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE}, 0, LOAM_ACCESS_READ, pieces, 3, &count),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_gpa_view_pieces(view, (loam_gpa){PAGE}, 1, LOAM_ACCESS_NONE, pieces, 3, &count),
                 LOAM_ERROR_INVALID);
    loam_gpa_map_release(map, view);
}

Test(gpa_map, a_refused_copy_copies_nothing)
{
    static alignas(4096) char host[2 * PAGE];
    struct loam_gpa_map *map = make_map(8, 2);
    char buffer[64], before[64];
    const struct loam_gpa_view *view;

    memset(host, 1, sizeof host);
    memset(buffer, 2, sizeof buffer);
    memcpy(before, buffer, sizeof before);
    cr_assert_eq(insert(map, ram(0, PAGE, (uintptr_t)host + PAGE, 0, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, ram(PAGE, PAGE, (uintptr_t)host, 0, 0)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){PAGE}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_read(view, (loam_gpa){2 * PAGE - 32}, buffer, 64), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(memcmp(buffer, before, sizeof before), 0);
    cr_assert_eq(loam_gpa_view_write(view, (loam_gpa){PAGE - 32}, buffer, 64), LOAM_ERROR_NOT_PERMITTED);
    cr_assert_eq(host[2 * PAGE - 1], 1);
    cr_assert_eq(loam_gpa_view_write(view, (loam_gpa){PAGE - 32}, buffer, 32), LOAM_OK);
    cr_assert_eq(loam_gpa_view_read(view, (loam_gpa){PAGE - 32}, buffer, 64), LOAM_OK);
    cr_assert_eq(buffer[31], 2);
    cr_assert_eq(buffer[32], 1);
    cr_assert_eq(loam_gpa_view_read(view, (loam_gpa){0}, buffer, 0), LOAM_ERROR_INVALID);
    loam_gpa_map_release(map, view);
}

/* --- Derived tables: the layouts of x86-64 --------------------------------------------------------------------- */

#define LOW_HVA  UINT64_C(0x100000000000)
#define HIGH_HVA UINT64_C(0x200000000000)

/* RAM with the legacy window in it, from 0 to low_bytes and from 4 GiB on. */
static struct loam_gpa_map *make_x86(uint64_t low_bytes, uint64_t high_bytes)
{
    struct loam_gpa_map *map = make_map(16, 2);
    struct loam_region legacy = ram(640 * LOAM_KIB, 384 * LOAM_KIB, LOW_HVA + 640 * LOAM_KIB, 0, 640 * LOAM_KIB);

    legacy.type = LOAM_REGION_RESERVED;
    cr_assert_eq(insert(map, ram(0, 640 * LOAM_KIB, LOW_HVA, 0, 0)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &legacy), LOAM_OK);
    cr_assert_eq(insert(map, ram(LOAM_MIB, low_bytes - LOAM_MIB, LOW_HVA + LOAM_MIB, 0, LOAM_MIB)), LOAM_OK);
    if (high_bytes > 0) {
        cr_assert_eq(insert(map, ram(4 * LOAM_GIB, high_bytes, HIGH_HVA, 1, 0)), LOAM_OK);
    }
    return map;
}

static void assert_e820(struct loam_gpa_map *map, const struct loam_e820_entry *expected, uint32_t expected_count)
{
    struct loam_e820_entry entries[16];
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint32_t count;

    cr_assert_eq(loam_gpa_view_e820(view, entries, 16, &count), LOAM_OK);
    cr_assert_eq(count, expected_count);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(entries[i].start, expected[i].start, "row %u", i);
        cr_assert_eq(entries[i].bytes, expected[i].bytes, "row %u", i);
        cr_assert_eq(entries[i].type, expected[i].type, "row %u", i);
    }
    cr_assert_eq(loam_gpa_view_e820(view, entries, expected_count - 1, &count), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(count, expected_count);
    loam_gpa_map_release(map, view);
}

static void assert_slots(struct loam_gpa_map *map, const struct loam_slot *expected, uint32_t expected_count)
{
    struct loam_slot slots[16];
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    uint32_t count;

    cr_assert_eq(loam_gpa_view_slots(view, slots, 16, &count), LOAM_OK);
    cr_assert_eq(count, expected_count);
    for (uint32_t i = 0; i < count; i++) {
        cr_assert_eq(slots[i].start.value, expected[i].start.value, "slot %u", i);
        cr_assert_eq(slots[i].bytes, expected[i].bytes, "slot %u", i);
        cr_assert_eq(slots[i].hva, expected[i].hva, "slot %u", i);
        cr_assert_eq(slots[i].read_only, expected[i].read_only, "slot %u", i);
        cr_assert_eq(slots[i].log_dirty, expected[i].log_dirty, "slot %u", i);
    }
    cr_assert_eq(loam_gpa_view_slots(view, slots, expected_count - 1, &count), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(count, expected_count);
    loam_gpa_map_release(map, view);
}

static void assert_x86(uint64_t low_bytes, uint64_t high_bytes)
{
    const struct loam_e820_entry e820[] = {{0, 640 * LOAM_KIB, LOAM_E820_RAM},
                                           {640 * LOAM_KIB, 384 * LOAM_KIB, LOAM_E820_RESERVED},
                                           {LOAM_MIB, low_bytes - LOAM_MIB, LOAM_E820_RAM},
                                           {4 * LOAM_GIB, high_bytes, LOAM_E820_RAM}};
    const struct loam_slot slots[] = {{{0}, low_bytes, (void *)LOW_HVA, false, false},
                                      {{4 * LOAM_GIB}, high_bytes, (void *)HIGH_HVA, false, false}};
    struct loam_gpa_map *map = make_x86(low_bytes, high_bytes);

    assert_e820(map, e820, high_bytes > 0 ? 4 : 3);
    assert_slots(map, slots, high_bytes > 0 ? 2 : 1);
    assert_valid(map);
}

Test(gpa_map, e820_and_slots_of_64_mib_around_a_hole_at_12_mib)
{
    assert_x86(12 * LOAM_MIB, 52 * LOAM_MIB);
}

Test(gpa_map, e820_and_slots_of_64_mib_without_high_ram)
{
    assert_x86(64 * LOAM_MIB, 0);
}

Test(gpa_map, e820_and_slots_of_3_5_gib)
{
    assert_x86(3 * LOAM_GIB, LOAM_GIB / 2);
}

Test(gpa_map, e820_and_slots_of_6_gib)
{
    assert_x86(3 * LOAM_GIB, 3 * LOAM_GIB);
}

Test(gpa_map, a_read_only_page_is_reserved_and_a_slot_of_its_own)
{
    const uint64_t page = 8 * LOAM_MIB;
    const struct loam_e820_entry e820[] = {{0, 640 * LOAM_KIB, LOAM_E820_RAM},
                                           {640 * LOAM_KIB, 384 * LOAM_KIB, LOAM_E820_RESERVED},
                                           {LOAM_MIB, 7 * LOAM_MIB, LOAM_E820_RAM},
                                           {page, PAGE, LOAM_E820_RESERVED},
                                           {page + PAGE, 56 * LOAM_MIB - PAGE, LOAM_E820_RAM}};
    const struct loam_slot slots[] = {
        {{0}, page, (void *)LOW_HVA, false, false},
        {{page}, PAGE, (void *)(LOW_HVA + page), true, false},
        {{page + PAGE}, 56 * LOAM_MIB - PAGE, (void *)(LOW_HVA + page + PAGE), false, false}};
    struct loam_gpa_map *map = make_x86(64 * LOAM_MIB, 0);

    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){page}, PAGE, LOAM_ACCESS_READ), LOAM_OK);
    assert_e820(map, e820, 5);
    assert_slots(map, slots, 3);
    cr_assert_eq(loam_gpa_map_protect(map, (loam_gpa){page}, PAGE, LOAM_ACCESS_WRITE), LOAM_OK);
    assert_valid(map);
    cr_assert_eq(region_count(map), 3);
}

Test(gpa_map, logged_pages_are_a_slot_of_their_own_and_no_share_or_e820_row)
{
    const struct loam_e820_entry e820[] = {{0, 8 * PAGE, LOAM_E820_RAM}};
    const struct loam_slot slots[] = {{{0}, 2 * PAGE, (void *)0x100000, false, false},
                                      {{2 * PAGE}, 2 * PAGE, (void *)(0x100000 + 2 * PAGE), false, true},
                                      {{4 * PAGE}, 4 * PAGE, (void *)(0x100000 + 4 * PAGE), false, false}};
    const struct loam_slot whole[] = {{{0}, 8 * PAGE, (void *)0x100000, false, true}};
    struct loam_gpa_map *map = make_map(8, 2);
    const struct loam_gpa_view *view;
    struct loam_share share;
    uint32_t count;

    cr_assert_eq(insert(map, ram(0, 8 * PAGE, 0x100000, 1, 0)), LOAM_OK);
    cr_assert_eq(insert(map, device(8 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(change_log(map, 2 * PAGE, 2 * PAGE, true), LOAM_OK);
    cr_assert_eq(region_count(map), 4);
    assert_slots(map, slots, 3);
    assert_e820(map, e820, 1);
    view = loam_gpa_map_acquire(map);
    cr_assert_eq(loam_gpa_view_shares(view, NULL, 0, &share, 1, &count), LOAM_OK);
    cr_assert_eq(share.bytes, 8 * PAGE);
    loam_gpa_map_release(map, view);
    cr_assert_eq(change_log(map, 0, 8 * PAGE, true), LOAM_OK);
    assert_slots(map, whole, 1);
    cr_assert_eq(change_log(map, 7 * PAGE, 2 * PAGE, false), LOAM_ERROR_INVALID, "a device is not logged");
    cr_assert_eq(change_log(map, 8 * PAGE, PAGE, false), LOAM_ERROR_INVALID);
    cr_assert_eq(change_log(map, 9 * PAGE, PAGE, true), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(change_log(map, 0, PAGE + 1, true), LOAM_ERROR_INVALID);
    cr_assert_eq(change_log(map, 0, 8 * PAGE, false), LOAM_OK);
    cr_assert_eq(region_count(map), 2);
    assert_valid(map);
}

Test(gpa_map, devices_have_no_slot_and_no_e820_row)
{
    const struct loam_e820_entry e820[] = {{PAGE, PAGE, LOAM_E820_RAM}, {3 * PAGE, PAGE, LOAM_E820_RAM}};
    const struct loam_slot slots[] = {{{PAGE}, PAGE, (void *)0x100000, false, false},
                                      {{3 * PAGE}, PAGE, (void *)(0x100000 + PAGE), false, false}};
    struct loam_gpa_map *map = make_map(8, 2);

    cr_assert_eq(insert(map, device(0, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, ram(PAGE, PAGE, 0x100000, 0, 0)), LOAM_OK);
    cr_assert_eq(insert(map, device(2 * PAGE, PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, ram(3 * PAGE, PAGE, 0x100000 + PAGE, 0, PAGE)), LOAM_OK);
    assert_e820(map, e820, 2);
    assert_slots(map, slots, 2);
}

/*
 * What every consumer is told of a byte is the same: its slot, its share, its E820 row and its region agree, page by
 * page, and no page is told of twice or left out.
 */
static void assert_consumers_agree(struct loam_gpa_map *map, uint64_t pages)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct loam_e820_entry entries[64];
    struct loam_region region;
    struct loam_share shares[64];
    struct loam_slot slots[64];
    uint32_t slot_count, share_count, entry_count;

    cr_assert_eq(loam_gpa_view_slots(view, slots, 64, &slot_count), LOAM_OK);
    cr_assert_eq(loam_gpa_view_shares(view, NULL, 0, shares, 64, &share_count), LOAM_OK);
    cr_assert_eq(loam_gpa_view_e820(view, entries, 64, &entry_count), LOAM_OK);
    for (uint64_t gpa = 0; gpa < pages * PAGE; gpa += PAGE) {
        bool memory = loam_gpa_view_find(view, (loam_gpa){gpa}, &region) == LOAM_OK && region.hva != NULL;
        uint64_t hva = memory ? (uintptr_t)region.hva + (gpa - region.start.value) : 0;
        uint32_t in_slots = 0, in_shares = 0, in_e820 = 0;

        for (uint32_t i = 0; i < slot_count; i++) {
            if (gpa - slots[i].start.value < slots[i].bytes) {
                in_slots++;
                cr_assert_eq((uintptr_t)slots[i].hva + (gpa - slots[i].start.value), hva);
            }
        }
        for (uint32_t i = 0; i < share_count; i++) {
            uint64_t offset_bytes = gpa - shares[i].start.value;

            if (offset_bytes < shares[i].bytes) {
                in_shares++;
                cr_assert_eq((uintptr_t)shares[i].hva + offset_bytes, hva);
                cr_assert_eq(shares[i].backing_offset + offset_bytes,
                             region.backing_offset + (gpa - region.start.value), "where a snapshot has it");
            }
        }
        for (uint32_t i = 0; i < entry_count; i++) {
            in_e820 += gpa - entries[i].start < entries[i].bytes;
        }
        cr_assert_eq(in_slots, memory);
        cr_assert_eq(in_shares, memory);
        cr_assert_eq(in_e820, memory);
    }
    loam_gpa_map_release(map, view);
}

Test(gpa_map, slots_shares_and_e820_of_random_maps_agree)
{
    uint64_t random = UINT64_C(0x9e3779b97f4a7c15);

    for (int round = 0; round < 200; round++) {
        struct loam_gpa_map *map = make_map(64, 2);

        for (uint64_t gpa = 0, host = 0; gpa < 40; gpa += 1 + next_random(&random) % 3) {
            uint64_t pages = 1 + next_random(&random) % 4;
            struct loam_region region = ram(gpa * PAGE, pages * PAGE, 0x100000 + host * PAGE, 1, host * PAGE);

            host += pages + next_random(&random) % 2;
            region.log_dirty = next_random(&random) % 4 == 0;
            switch (next_random(&random) % 4) {
            case 0:
                region = device(gpa * PAGE, pages * PAGE);
                break;
            case 1:
                region.type = LOAM_REGION_RESERVED;
                break;
            case 2:
                region.access = LOAM_ACCESS_READ;
                break;
            default:
                break;
            }
            cr_assert_eq(loam_gpa_map_insert(map, &region), LOAM_OK, "round %d", round);
            gpa += pages;
        }
        assert_consumers_agree(map, 64);
        free_maps();
    }
}

Test(gpa_map, the_legacy_window_costs_no_share)
{
    struct loam_gpa_map *map = make_map(8, 2);
    const struct loam_gpa_view *view;
    const int fds[] = {5, 6};
    struct loam_share shares[4];
    uint32_t count;

    cr_assert_eq(insert(map, ram(0, 160 * PAGE, 0x10000000, 2, 0)), LOAM_OK);
    cr_assert_eq(insert(map, ram(160 * PAGE, 96 * PAGE, 0x10000000 + 160 * PAGE, 2, 160 * PAGE)), LOAM_OK);
    cr_assert_eq(insert(map, ram(256 * PAGE, 768 * PAGE, 0x10000000 + 256 * PAGE, 2, 256 * PAGE)), LOAM_OK);
    cr_assert_eq(loam_gpa_map_change(
                     map,
                     &(struct loam_gpa_change){
                         LOAM_CHANGE_RETYPE, {.start = {160 * PAGE}, .bytes = 96 * PAGE, .type = LOAM_REGION_RESERVED}},
                     1, NULL),
                 LOAM_OK);
    view = loam_gpa_map_acquire(map);
    cr_expect_eq(loam_gpa_view_count(view), 3);
    cr_assert_eq(loam_gpa_view_shares(view, fds, 2, shares, 4, &count), LOAM_OK);
    cr_expect_eq(count, 1);
    cr_expect_eq(shares[0].bytes, 1024 * PAGE);
    cr_expect_eq(shares[0].fd, 6);
    cr_assert_eq(loam_gpa_view_shares(view, fds, 1, shares, 4, &count), LOAM_OK);
    cr_expect_eq(shares[0].fd, -1, "nobody said which it is");
    cr_expect_eq(loam_gpa_view_shares(view, NULL, 1, shares, 4, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_shares(view, fds, 2, NULL, 4, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_shares(NULL, fds, 2, shares, 4, &count), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_shares(view, fds, 2, shares, 4, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_gpa_view_shares(view, fds, 2, NULL, 0, &count), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(count, 1);
    loam_gpa_map_release(map, view);
}

/* --- Against the oracle ---------------------------------------------------------------------------------------- */

#define HOST_PAGES     1024u
#define HELD_MAX       5u
#define TABLE_CAPACITY 4u
#define CHANGES_MAX    4u

struct held {
    const struct loam_gpa_view *view;
    uint64_t generation;
    struct oracle oracle;
};

/* One run: the map, what it should be, host memory and a copy of what that should hold. */
struct trial {
    struct loam_gpa_map *map;
    uint64_t random;
    uint64_t seed;
    uint64_t step;
    uint32_t region_capacity;
    uint64_t generation;
    uint64_t outcomes[LOAM_ERROR_COUNT]; /* of changes */
    uint64_t lists_made;                 /* of more than one */
    struct oracle oracle;
    struct held held[HELD_MAX];
    char *host;
    char *mirror;
};

#define TRIAL_ASSERT(trial, condition) cr_assert(condition, "seed %#lx, step %lu", (trial)->seed, (trial)->step)

static uint64_t below(struct trial *trial, uint64_t end)
{
    return next_random(&trial->random) % end;
}

/* Mostly in the windows and not too long; at times at their edges, between them or malformed. */
static loam_gpa random_gpa(struct trial *trial)
{
    static const uint64_t odd[] = {LOAM_GPA_END, UINT64_MAX, LOAM_GPA_END - 1, LOAM_GPA_END / 2,
                                   ORACLE_WINDOW_PAGES * PAGE};

    if (below(trial, 64) == 0) {
        return loam_gpa_from_u64(odd[below(trial, sizeof odd / sizeof *odd)]);
    }
    return loam_gpa_from_u64(oracle_gpa((uint32_t)below(trial, ORACLE_PAGES)).value);
}

static loam_gpa random_byte_gpa(struct trial *trial)
{
    loam_gpa gpa = random_gpa(trial);

    gpa.value += below(trial, 4) == 0 ? PAGE - 1 - below(trial, 16) : below(trial, PAGE);
    return gpa;
}

static uint64_t random_page_bytes(struct trial *trial)
{
    switch (below(trial, 64)) {
    case 0:
        return 0;
    case 1:
        return below(trial, 4 * PAGE);
    default:
        return (1 + below(trial, 24)) * PAGE;
    }
}

static uint64_t random_bytes(struct trial *trial)
{
    switch (below(trial, 64)) {
    case 0:
        return 0;
    case 1:
        return next_random(&trial->random);
    default:
        return below(trial, 2) == 0 ? 1 + below(trial, 64) : 1 + below(trial, 12 * PAGE);
    }
}

static enum loam_access random_access(struct trial *trial)
{
    return below(trial, 64) == 0 ? (enum loam_access)(below(trial, 2) * LOAM_ACCESS_COUNT)
                                 : (enum loam_access)(LOAM_ACCESS_READ + below(trial, 2));
}

/* Tables that are held and not current. */
static uint32_t held_tables(const struct trial *trial)
{
    uint32_t held = 0;

    for (uint32_t i = 0; i < HELD_MAX; i++) {
        bool counts = trial->held[i].view != NULL && trial->held[i].generation != trial->generation;

        for (uint32_t j = 0; j < i; j++) {
            counts = counts && trial->held[j].view != trial->held[i].view;
        }
        held += counts;
    }
    return held;
}

/* No table is free. */
static bool busy(const struct trial *trial)
{
    return held_tables(trial) == TABLE_CAPACITY - 1;
}

static void compare_regions(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    struct loam_region expected[ORACLE_PAGES], found;
    uint32_t count = oracle_regions(oracle, expected);

    TRIAL_ASSERT(trial, loam_gpa_view_count(view) == count);
    for (uint32_t i = 0; i < count; i++) {
        TRIAL_ASSERT(trial, loam_gpa_view_region(view, i, &found) == LOAM_OK);
        TRIAL_ASSERT(trial, same_region(&found, &expected[i]));
    }
    TRIAL_ASSERT(trial, loam_gpa_view_region(view, count, &found) == LOAM_ERROR_NOT_FOUND);
}

static void changed(struct trial *trial, enum loam_error found, enum loam_error expected)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(trial->map);

    TRIAL_ASSERT(trial, found == expected);
    trial->generation += expected == LOAM_OK;
    trial->outcomes[expected]++;
    TRIAL_ASSERT(trial, loam_gpa_view_generation(view) == trial->generation);
    TRIAL_ASSERT(trial, loam_gpa_map_generation(trial->map) == trial->generation);
    compare_regions(trial, view, &trial->oracle);
    loam_gpa_map_release(trial->map, view);
}

/* Whether the oracle can hold the range, or refuses it as malformed. */
static bool oracle_can_judge(loam_gpa start, uint64_t bytes)
{
    const uint64_t low_end = ORACLE_WINDOW_PAGES * PAGE, high_start = LOAM_GPA_END - low_end;

    return start.value >= high_start || (start.value < low_end && bytes <= low_end - start.value);
}

/* Most of the regions follow one line through the host, so that neighbours join; the others lie anywhere. */
static struct loam_region random_region(struct trial *trial)
{
    struct loam_region region = {.start = random_gpa(trial), .bytes = random_page_bytes(trial)};
    uint64_t host_page = below(trial, HOST_PAGES - 24);

    region.type = (enum loam_region_type)(below(trial, 64) == 0 ? LOAM_REGION_TYPE_COUNT : below(trial, 8) / 3);
    if (region.type != LOAM_REGION_DEVICE || below(trial, 64) == 0) {
        if (below(trial, 4) != 0) {
            host_page = region.start.value / PAGE % ORACLE_WINDOW_PAGES;
        }
        region.hva = trial->host + host_page * PAGE;
        region.backing = (uint32_t)(below(trial, 8) == 0);
        region.backing_offset = (host_page + (below(trial, 16) == 0)) * PAGE;
        region.access = random_access(trial);
        region.log_dirty = below(trial, 8) == 0;
    }
    return region;
}

static void try_insert(struct trial *trial)
{
    struct loam_region region = random_region(trial);

    if (oracle_can_judge(region.start, region.bytes)) {
        changed(trial, loam_gpa_map_insert(trial->map, &region),
                oracle_insert(&trial->oracle, &region, trial->region_capacity, busy(trial)));
    }
}

/* A range of pages to change: in most cases a region or a part of one, else anything. */
static void random_target(struct trial *trial, loam_gpa *start, uint64_t *bytes)
{
    struct loam_region regions[ORACLE_PAGES];
    uint32_t count = oracle_regions(&trial->oracle, regions);

    *start = random_gpa(trial);
    *bytes = random_page_bytes(trial);
    if (count > 0 && below(trial, 4) != 0) {
        const struct loam_region *region = &regions[below(trial, count)];
        uint64_t first = below(trial, 2) == 0 ? 0 : below(trial, region->bytes / PAGE);
        uint64_t pages = region->bytes / PAGE - first;

        start->value = region->start.value + first * PAGE;
        *bytes = (below(trial, 2) == 0 ? pages : 1 + below(trial, pages)) * PAGE;
    }
}

static void try_remove(struct trial *trial)
{
    loam_gpa start;
    uint64_t bytes;

    random_target(trial, &start, &bytes);
    changed(trial, loam_gpa_map_remove(trial->map, start, bytes),
            oracle_remove(&trial->oracle, start, bytes, trial->region_capacity, busy(trial)));
}

static void try_protect(struct trial *trial)
{
    enum loam_access access = random_access(trial);
    loam_gpa start;
    uint64_t bytes;

    random_target(trial, &start, &bytes);
    changed(trial, loam_gpa_map_protect(trial->map, start, bytes, access),
            oracle_protect(&trial->oracle, start, bytes, access, trial->region_capacity, busy(trial)));
}

/* A change that is not malformed; what it meets may not suit it. False: none came up. */
static bool random_change(struct trial *trial, struct loam_gpa_change *change)
{
    struct loam_region *region = &change->region;

    *change = (struct loam_gpa_change){(enum loam_change_kind)below(trial, LOAM_CHANGE_COUNT), random_region(trial)};
    if (change->kind == LOAM_CHANGE_INSERT) {
        region->type = LOAM_REGION_RAM;
        region->hva = trial->host + region->start.value / PAGE % ORACLE_WINDOW_PAGES * PAGE;
        region->backing_offset = region->start.value / PAGE % ORACLE_WINDOW_PAGES * PAGE;
        region->access = LOAM_ACCESS_WRITE;
    } else {
        random_target(trial, &region->start, &region->bytes);
        region->access = (enum loam_access)(LOAM_ACCESS_READ + below(trial, 2));
        region->type = (enum loam_region_type)(LOAM_REGION_RAM + below(trial, 2));
        region->log_dirty = below(trial, 2) == 0;
    }
    return oracle_can_judge(region->start, region->bytes) && loam_gpa_range_valid(region->start, region->bytes) &&
           loam_is_aligned(region->start.value | region->bytes, PAGE);
}

static void try_change(struct trial *trial)
{
    uint32_t count = 1 + (uint32_t)below(trial, CHANGES_MAX), refused, expected_refused;
    struct loam_gpa_change changes[CHANGES_MAX];
    bool is_busy = busy(trial);
    enum loam_error error, expected;

    for (uint32_t i = 0; i < count; i++) {
        if (!random_change(trial, &changes[i])) {
            return;
        }
    }
    error = loam_gpa_map_change(trial->map, changes, count, &refused);
    expected = oracle_change(&trial->oracle, changes, count, trial->region_capacity, is_busy, &expected_refused);
    changed(trial, error, expected);
    TRIAL_ASSERT(trial, refused == expected_refused);
    trial->lists_made += error == LOAM_OK && count > 1;
}

static void try_find(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    struct loam_region found, expected;
    loam_gpa gpa = random_byte_gpa(trial);

    TRIAL_ASSERT(trial, loam_gpa_view_find(view, gpa, &found) == oracle_find(oracle, gpa, &expected));
    TRIAL_ASSERT(trial, same_region(&found, &expected));
}

static void try_translate(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    loam_gpa gpa = random_byte_gpa(trial);
    uint64_t bytes = random_bytes(trial);
    enum loam_access access = random_access(trial);
    void *found, *expected;

    TRIAL_ASSERT(trial, loam_gpa_view_translate(view, gpa, bytes, access, &found) ==
                            oracle_translate(oracle, gpa, bytes, access, &expected));
    TRIAL_ASSERT(trial, found == expected);
}

/* Of the map as it is, whatever is held. */
static void try_map_translate(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    loam_gpa gpa = random_byte_gpa(trial);
    uint64_t bytes = random_bytes(trial);
    enum loam_access access = random_access(trial);
    void *found, *expected;

    TRIAL_ASSERT(trial, loam_gpa_map_translate(trial->map, gpa, bytes, access, &found) ==
                            oracle_translate(&trial->oracle, gpa, bytes, access, &expected));
    TRIAL_ASSERT(trial, found == expected);
    (void)view;
    (void)oracle;
}

static void try_pieces(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    struct loam_piece found[ORACLE_PAGES], expected[ORACLE_PAGES];
    uint32_t capacity = below(trial, 4) == 0 ? (uint32_t)below(trial, 3) : ORACLE_PAGES, count, expected_count;
    loam_gpa gpa = random_byte_gpa(trial);
    uint64_t bytes = random_bytes(trial);
    enum loam_access access = random_access(trial);
    enum loam_error error = oracle_pieces(oracle, gpa, bytes, access, expected, &expected_count);

    error = error == LOAM_OK && expected_count > capacity ? LOAM_ERROR_EXHAUSTED : error;
    TRIAL_ASSERT(trial, loam_gpa_view_pieces(view, gpa, bytes, access, found, capacity, &count) == error);
    TRIAL_ASSERT(trial, count == expected_count);
    for (uint32_t i = 0; i < count && i < capacity; i++) {
        TRIAL_ASSERT(trial, found[i].start.value == expected[i].start.value);
        TRIAL_ASSERT(trial, found[i].hva == expected[i].hva && found[i].bytes == expected[i].bytes);
    }
}

static void try_reverse(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    const char *hva = trial->host + below(trial, HOST_PAGES * PAGE);
    uint64_t bytes = random_bytes(trial);
    loam_gpa found, expected;

    TRIAL_ASSERT(trial, loam_gpa_view_gpa_from_hva(view, hva, bytes, &found) ==
                            oracle_gpa_from_hva(oracle, hva, bytes, &expected));
    TRIAL_ASSERT(trial, found.value == expected.value);
}

static void try_read(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    static char buffer[16 * PAGE];
    struct loam_piece pieces[ORACLE_PAGES];
    loam_gpa gpa = random_byte_gpa(trial);
    uint64_t bytes = random_bytes(trial) % sizeof buffer;
    uint32_t count;

    memset(buffer, 0x5a, sizeof buffer);
    TRIAL_ASSERT(trial, loam_gpa_view_read(view, gpa, buffer, bytes) ==
                            oracle_pieces(oracle, gpa, bytes, LOAM_ACCESS_READ, pieces, &count));
    for (uint32_t i = 0; i < count; i++) {
        TRIAL_ASSERT(trial, memcmp(buffer + (pieces[i].start.value - gpa.value),
                                   trial->mirror + ((char *)pieces[i].hva - trial->host), pieces[i].bytes) == 0);
    }
    TRIAL_ASSERT(trial, buffer[count == 0 ? 0 : bytes] == 0x5a);
}

static void try_write(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    static char buffer[16 * PAGE];
    struct loam_piece pieces[ORACLE_PAGES];
    loam_gpa gpa = random_byte_gpa(trial);
    uint64_t bytes = random_bytes(trial) % sizeof buffer;
    uint32_t count;

    memset(buffer, (int)below(trial, 256), bytes);
    if (bytes > 0) {
        buffer[0] = (char)below(trial, 256);
        buffer[bytes - 1] = (char)below(trial, 256);
    }
    TRIAL_ASSERT(trial, loam_gpa_view_write(view, gpa, buffer, bytes) ==
                            oracle_pieces(oracle, gpa, bytes, LOAM_ACCESS_WRITE, pieces, &count));
    for (uint32_t i = 0; i < count; i++) {
        memcpy(trial->mirror + ((char *)pieces[i].hva - trial->host), buffer + (pieces[i].start.value - gpa.value),
               pieces[i].bytes);
    }
    for (uint32_t i = 0; i < count; i++) {
        TRIAL_ASSERT(
            trial, memcmp(trial->mirror + ((char *)pieces[i].hva - trial->host), pieces[i].hva, pieces[i].bytes) == 0);
    }
}

static void try_slots(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    struct loam_slot found[ORACLE_PAGES], expected[ORACLE_PAGES];
    uint32_t count, expected_count = oracle_slots(oracle, expected);

    TRIAL_ASSERT(trial, loam_gpa_view_slots(view, found, ORACLE_PAGES, &count) == LOAM_OK);
    TRIAL_ASSERT(trial, count == expected_count);
    for (uint32_t i = 0; i < count; i++) {
        TRIAL_ASSERT(trial, found[i].start.value == expected[i].start.value && found[i].bytes == expected[i].bytes);
        TRIAL_ASSERT(trial, found[i].hva == expected[i].hva && found[i].read_only == expected[i].read_only);
        TRIAL_ASSERT(trial, found[i].log_dirty == expected[i].log_dirty);
    }
}

static void try_shares(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    struct loam_share found[ORACLE_PAGES], expected[ORACLE_PAGES];
    const int fds[] = {7};
    uint32_t fd_count = (uint32_t)below(trial, 2), capacity = below(trial, 4) == 0 ? 2 : ORACLE_PAGES;
    uint32_t count, expected_count = oracle_shares(oracle, fds, fd_count, expected);
    enum loam_error error = expected_count > capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;

    TRIAL_ASSERT(trial, loam_gpa_view_shares(view, fds, fd_count, found, capacity, &count) == error);
    TRIAL_ASSERT(trial, count == expected_count);
    for (uint32_t i = 0; i < count && i < capacity; i++) {
        TRIAL_ASSERT(trial, found[i].start.value == expected[i].start.value && found[i].bytes == expected[i].bytes);
        TRIAL_ASSERT(trial, found[i].hva == expected[i].hva && found[i].read_only == expected[i].read_only);
        TRIAL_ASSERT(trial, found[i].backing == expected[i].backing && found[i].fd == expected[i].fd);
        TRIAL_ASSERT(trial, found[i].backing_offset == expected[i].backing_offset);
    }
}

static void try_e820(struct trial *trial, const struct loam_gpa_view *view, const struct oracle *oracle)
{
    struct loam_e820_entry found[ORACLE_PAGES], expected[ORACLE_PAGES];
    uint32_t count, expected_count = oracle_e820(oracle, expected);

    TRIAL_ASSERT(trial, loam_gpa_view_e820(view, found, ORACLE_PAGES, &count) == LOAM_OK);
    TRIAL_ASSERT(trial, count == expected_count);
    for (uint32_t i = 0; i < count; i++) {
        TRIAL_ASSERT(trial, found[i].start == expected[i].start && found[i].bytes == expected[i].bytes);
        TRIAL_ASSERT(trial, found[i].type == expected[i].type);
    }
}

/* Release a view, or hold one, less often; what was held answers as of its generation. */
static void try_hold(struct trial *trial)
{
    struct held *held = &trial->held[below(trial, HELD_MAX)];

    if (held->view != NULL) {
        TRIAL_ASSERT(trial, loam_gpa_view_generation(held->view) == held->generation);
        compare_regions(trial, held->view, &held->oracle);
        loam_gpa_map_release(trial->map, held->view);
        held->view = NULL;
    } else if (below(trial, 3) == 0) {
        held->view = loam_gpa_map_acquire(trial->map);
        held->generation = trial->generation;
        held->oracle = trial->oracle;
    }
}

static void (*const questions[])(struct trial *, const struct loam_gpa_view *, const struct oracle *) = {
    try_find,    try_translate, try_translate, try_map_translate, try_pieces, try_pieces,
    try_reverse, try_read,      try_write,     try_slots,         try_shares, try_e820};

/* Ask the published table, or one that is held. */
static void try_question(struct trial *trial)
{
    const struct held *held = &trial->held[below(trial, HELD_MAX)];
    uint64_t question = below(trial, sizeof questions / sizeof *questions);

    if (held->view != NULL) {
        questions[question](trial, held->view, &held->oracle);
    } else {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(trial->map);

        questions[question](trial, view, &trial->oracle);
        loam_gpa_map_release(trial->map, view);
    }
}

static void one_step(struct trial *trial)
{
    uint64_t dice = below(trial, 100);

    if (dice < 18) {
        try_insert(trial);
    } else if (dice < 28) {
        try_remove(trial);
    } else if (dice < 36) {
        try_protect(trial);
    } else if (dice < 38) {
        try_hold(trial);
    } else if (dice < 46) {
        try_change(trial);
    } else {
        try_question(trial);
    }
    if (trial->step % 64 == 0) {
        assert_valid(trial->map);
    }
    if (trial->step % 8192 == 0) {
        TRIAL_ASSERT(trial, memcmp(trial->host, trial->mirror, HOST_PAGES * PAGE) == 0);
    }
}

static void run_trial(uint64_t seed, uint64_t step_count, uint32_t region_capacity)
{
    struct trial *trial = calloc(1, sizeof *trial);

    trial->seed = trial->random = seed;
    trial->region_capacity = region_capacity;
    trial->map = make_map(trial->region_capacity, TABLE_CAPACITY);
    trial->host = aligned_alloc(PAGE, HOST_PAGES * PAGE);
    trial->mirror = malloc(HOST_PAGES * PAGE);
    memset(trial->host, 0, HOST_PAGES * PAGE);
    memset(trial->mirror, 0, HOST_PAGES * PAGE);
    for (trial->step = 0; trial->step < step_count; trial->step++) {
        one_step(trial);
    }
    /* The run has been everywhere: done, and refused for every reason. */
    TRIAL_ASSERT(trial, trial->generation > step_count / 10);
    for (int e = 0; e < LOAM_ERROR_UNINITIALISED; e++) {
        TRIAL_ASSERT(trial, trial->outcomes[e] > step_count / 1000 ||
                                (e == LOAM_ERROR_EXHAUSTED && region_capacity == ORACLE_PAGES));
    }
    TRIAL_ASSERT(trial, trial->outcomes[LOAM_ERROR_BUSY] > step_count / 1000);
    TRIAL_ASSERT(trial, trial->lists_made > step_count / 1000);
    free(trial->host);
    free(trial->mirror);
    free(trial);
}

Test(gpa_map, agrees_with_the_oracle_over_random_operations, .timeout = 600)
{
    const uint32_t capacities[] = {24, 24, 40, ORACLE_PAGES};

    for (uint64_t i = 0; i < 4; i++) {
        run_trial((i + 1) * UINT64_C(0x9e3779b97f4a7c15), 300000, capacities[i]);
    }
}

/* Many rows, of like size and heaped up in one place: both ways through the index. */
Test(gpa_map, finds_every_row_of_large_tables)
{
    for (int heaped = 0; heaped < 2; heaped++) {
        struct loam_gpa_map *map = make_map(1024, 2);
        const struct loam_gpa_view *view;
        struct loam_region region;

        for (uint64_t i = 0; i < 1023; i++) {
            uint64_t start = i * (heaped ? 2 * PAGE : 2 * LOAM_MIB);

            cr_assert_eq(insert(map, ram(start, PAGE, 0x100000 + i * PAGE, 0, start)), LOAM_OK);
        }
        cr_assert_eq(insert(map, device(LOAM_GPA_END / 2, LOAM_GIB)), LOAM_OK);
        assert_valid(map);
        view = loam_gpa_map_acquire(map);
        for (uint64_t i = 0; i < 1023; i++) {
            uint64_t start = i * (heaped ? 2 * PAGE : 2 * LOAM_MIB);
            void *hva;

            cr_assert_eq(loam_gpa_view_translate(view, (loam_gpa){start}, PAGE, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
            cr_assert_eq((uintptr_t)hva, 0x100000 + i * PAGE);
            cr_assert_eq(loam_gpa_map_translate(map, (loam_gpa){start}, PAGE, LOAM_ACCESS_WRITE, &hva), LOAM_OK);
            cr_assert_eq((uintptr_t)hva, 0x100000 + i * PAGE);
            cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){start + PAGE - 1}, &region), LOAM_OK);
            cr_assert_eq(region.start.value, start);
            cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){start + PAGE}, &region), LOAM_ERROR_NOT_FOUND);
        }
        cr_assert_eq(loam_gpa_view_find(view, (loam_gpa){LOAM_GPA_END / 2 + LOAM_GIB - 1}, &region), LOAM_OK);
        loam_gpa_map_release(map, view);
    }
}

/* --- Threads --------------------------------------------------------------------------------------------------- */

#define STRIPES 16u

struct shared {
    struct loam_gpa_map *map;
    atomic_bool stop;
    atomic_ulong wrong;
    atomic_ulong views;
    atomic_ulong changers;
    uint32_t thread;
};

/* Generation g has protected stripe g % STRIPES last, as g / STRIPES is odd or even: each table tells its generation.
 */
static enum loam_access access_of(uint64_t generation, uint64_t stripe)
{
    uint64_t last = generation - (generation - stripe) % STRIPES;

    if (stripe > generation) {
        return LOAM_ACCESS_WRITE;
    }
    return last / STRIPES % 2 == 1 ? LOAM_ACCESS_READ : LOAM_ACCESS_WRITE;
}

static unsigned long wrong_stripes(const struct loam_gpa_view *view)
{
    unsigned long wrong = 0;

    for (uint64_t stripe = 0; stripe < STRIPES; stripe++) {
        /* The first generation is the insertion. */
        enum loam_access expected = access_of(loam_gpa_view_generation(view) - 1, stripe);
        loam_gpa gpa = {stripe * PAGE + 8};
        struct loam_region region;
        void *hva;

        wrong += loam_gpa_view_find(view, gpa, &region) != LOAM_OK || region.access != expected;
        wrong += loam_gpa_view_translate(view, gpa, 8, LOAM_ACCESS_READ, &hva) != LOAM_OK ||
                 (uintptr_t)hva != 0x100000 + gpa.value;
    }
    return wrong;
}

static void *read_generations(void *argument)
{
    struct shared *shared = argument;
    uint64_t last = 0;

    while (!atomic_load(&shared->stop)) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(shared->map);
        const struct loam_gpa_view *second = loam_gpa_map_acquire(shared->map);
        uint64_t before = loam_gpa_view_generation(view);

        atomic_fetch_add(&shared->wrong, wrong_stripes(view) + wrong_stripes(second));
        atomic_fetch_add(&shared->wrong, before < last || loam_gpa_view_generation(second) < before);
        atomic_fetch_add(&shared->wrong, loam_gpa_view_generation(view) != before);
        last = before;
        loam_gpa_map_release(shared->map, view);
        loam_gpa_map_release(shared->map, second);
        atomic_fetch_add(&shared->views, 1);
    }
    return NULL;
}

Test(gpa_map, readers_see_whole_generations_while_a_writer_changes, .timeout = 300)
{
    for (uint32_t table_capacity = 2; table_capacity <= 4; table_capacity++) {
        /* Readers hold the one spare table of two nearly always. */
        const uint64_t generation_count = table_capacity == 2 ? 500 : 8000;
        struct shared shared = {.map = make_map(2 * STRIPES, table_capacity)};
        pthread_t readers[3];

        cr_assert_eq(insert(shared.map, ram(0, STRIPES * PAGE, 0x100000, 0, 0)), LOAM_OK);
        for (size_t i = 0; i < 3; i++) {
            cr_assert_eq(pthread_create(&readers[i], NULL, read_generations, &shared), 0);
        }
        for (uint64_t g = 1; g <= generation_count; g++) {
            enum loam_error error;

            do {
                error =
                    loam_gpa_map_protect(shared.map, (loam_gpa){g % STRIPES * PAGE}, PAGE, access_of(g, g % STRIPES));
                cr_assert(error == LOAM_OK || error == LOAM_ERROR_BUSY);
            } while (error != LOAM_OK && sched_yield() == 0);
        }
        while (atomic_load(&shared.views) < 100) {
        }
        atomic_store(&shared.stop, true);
        for (size_t i = 0; i < 3; i++) {
            pthread_join(readers[i], NULL);
        }
        cr_assert_eq(atomic_load(&shared.wrong), 0);
        cr_assert_eq(generation(shared.map), generation_count + 1);
        assert_valid(shared.map);
    }
}

/*
 * A region that is here or a page further up, in host memory that goes with the place, and another beside it: what is
 * read half before a change and half after it gives an address that neither table has.
 */
#define PLACE_GPA(place) ((8 + (place)) * PAGE)
#define PLACE_HVA(place) (0x100000ul + ((place) << 32))

static void *translate_moving(void *argument)
{
    struct shared *shared = argument;
    uint64_t last = 0;

    while (!atomic_load(&shared->stop)) {
        uint64_t before = loam_gpa_map_generation(shared->map), after, place;
        void *hva;
        enum loam_error error =
            loam_gpa_map_translate(shared->map, (loam_gpa){PLACE_GPA(1) + 8}, 8, LOAM_ACCESS_WRITE, &hva);

        after = loam_gpa_map_generation(shared->map);
        place = (uintptr_t)hva >> 32;
        atomic_fetch_add(&shared->wrong, error != LOAM_OK || place > 1 || before < last || after < before ||
                                             (uintptr_t)hva != PLACE_HVA(place) + PLACE_GPA(1) + 8 - PLACE_GPA(place) ||
                                             (before == after && before > 2 && place != before % 2));
        last = after;
        atomic_fetch_add(&shared->views, 1);
    }
    return NULL;
}

static struct loam_region moving(uint64_t place, uint64_t pages)
{
    return ram(PLACE_GPA(place), pages * PAGE, PLACE_HVA(place), 1, 0);
}

/* A region of many pages has most of all memory, and lookups try it first; one of few is searched for. */
static void translate_while_it_moves(uint64_t pages, uint32_t table_capacity)
{
    struct shared shared = {.map = make_map(8, table_capacity)};
    pthread_t readers[3];

    cr_assert_eq(insert(shared.map, ram(0, PAGE, 0x900000, 2, 0)), LOAM_OK);
    cr_assert_eq(insert(shared.map, moving(0, pages)), LOAM_OK);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&readers[i], NULL, translate_moving, &shared), 0);
    }
    for (uint64_t g = 3; g < 20000 || atomic_load(&shared.views) < 1000; g++) {
        struct loam_region from = moving((g + 1) % 2, pages), to = moving(g % 2, pages);
        const struct loam_gpa_change both[] = {{LOAM_CHANGE_REMOVE, from}, {LOAM_CHANGE_INSERT, to}};

        cr_assert_eq(loam_gpa_map_change(shared.map, both, 2, NULL), LOAM_OK, "nobody holds a view");
    }
    atomic_store(&shared.stop, true);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(readers[i], NULL);
    }
    cr_assert_eq(atomic_load(&shared.wrong), 0);
    assert_valid(shared.map);
}

Test(gpa_map, translations_without_a_view_are_of_one_table, .timeout = 300)
{
    translate_while_it_moves(64, 8);
    translate_while_it_moves(2, 8);
}

#define VIEWS 3u

static void *hold_one_view_at_a_time(void *argument)
{
    struct shared *shared = argument;

    while (!atomic_load(&shared->stop)) {
        const struct loam_gpa_view *view = loam_gpa_map_acquire(shared->map);

        atomic_fetch_add(&shared->wrong, loam_gpa_view_count(view) < 1);
        for (uint32_t i = 0; i < atomic_load(&shared->views) % 8; i++) {
            sched_yield();
        }
        loam_gpa_map_release(shared->map, view);
        atomic_fetch_add(&shared->views, 1);
    }
    return NULL;
}

/* One change and several, by turns, of a range of its own. */
static void *change_and_count_busy(void *argument)
{
    struct shared *shared = argument;
    uint64_t page = 4 + 4 * atomic_fetch_add(&shared->changers, 1);
    struct loam_region mine = ram(page * PAGE, PAGE, 0x100000, 0, 0), other = ram(page * PAGE, PAGE, 0x200000, 0, 0);
    const struct loam_gpa_change both[] = {{LOAM_CHANGE_REMOVE, mine}, {LOAM_CHANGE_INSERT, other}};

    for (uint32_t i = 0; i < 3000; i++) {
        atomic_fetch_add(&shared->wrong, loam_gpa_map_insert(shared->map, &mine) != LOAM_OK);
        atomic_fetch_add(&shared->wrong, loam_gpa_map_change(shared->map, both, 2, NULL) != LOAM_OK);
        atomic_fetch_add(&shared->wrong, loam_gpa_map_remove(shared->map, other.start, other.bytes) != LOAM_OK);
    }
    return NULL;
}

Test(gpa_map, no_changer_is_busy_where_there_are_two_tables_more_than_views, .timeout = 300)
{
    struct shared shared = {.map = make_map(16, VIEWS + 2)};
    pthread_t readers[VIEWS], changers[2];

    cr_assert_eq(insert(shared.map, ram(0, PAGE, 0x900000, 0, 0)), LOAM_OK);
    for (size_t i = 0; i < VIEWS; i++) {
        cr_assert_eq(pthread_create(&readers[i], NULL, hold_one_view_at_a_time, &shared), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&changers[i], NULL, change_and_count_busy, &shared), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        pthread_join(changers[i], NULL);
    }
    atomic_store(&shared.stop, true);
    for (size_t i = 0; i < VIEWS; i++) {
        pthread_join(readers[i], NULL);
    }
    cr_assert_eq(atomic_load(&shared.wrong), 0);
    cr_assert(loam_gpa_map_keeper_settled(shared.map, UINT64_MAX));
    assert_valid(shared.map);
}

/* Each writer owns a range: it comes and goes, and the others' ranges stay as their owners left them. */
static void *change_own_range(void *argument)
{
    struct shared *shared = argument;
    const uint64_t start = (shared->thread * 4 + 1) * PAGE;
    struct loam_region region = ram(start, 3 * PAGE, 0x100000 + start, shared->thread, 0);

    for (uint32_t i = 0; i < 5000; i++) {
        while (loam_gpa_map_insert(shared->map, &region) == LOAM_ERROR_BUSY) {
        }
        while (loam_gpa_map_protect(shared->map, (loam_gpa){start + PAGE}, PAGE, LOAM_ACCESS_READ) == LOAM_ERROR_BUSY) {
        }
        if (i == 4999) {
            break;
        }
        while (loam_gpa_map_remove(shared->map, region.start, region.bytes) == LOAM_ERROR_BUSY) {
        }
        atomic_fetch_add(&shared->wrong, loam_gpa_map_validate(shared->map, NULL) != LOAM_OK);
    }
    return NULL;
}

Test(gpa_map, writers_exclude_each_other, .timeout = 300)
{
    struct loam_gpa_map *map = make_map(16, 3);
    struct shared shared[4];
    pthread_t writers[4];

    for (uint32_t i = 0; i < 4; i++) {
        shared[i] = (struct shared){.map = map, .thread = i};
        cr_assert_eq(pthread_create(&writers[i], NULL, change_own_range, &shared[i]), 0);
    }
    for (uint32_t i = 0; i < 4; i++) {
        pthread_join(writers[i], NULL);
        cr_assert_eq(atomic_load(&shared[i].wrong), 0);
    }
    cr_assert_eq(region_count(map), 12);
    cr_assert_eq(generation(map), 4 * (4999 * 3 + 2));
    assert_valid(map);
}
