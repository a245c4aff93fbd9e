// SPDX-License-Identifier: Apache-2.0
/*
 * The map is a header and table_capacity tables, all in the caller's memory, addressed by offsets.
 *
 * Invariants of a published table, which nobody writes until it is neither current nor held:
 *   rows[i].start + rows[i].bytes <= rows[i + 1].start      sorted and disjoint
 *   no two neighbouring rows continue each other            canonical: see continues()
 *   starts[i] == rows[i].start, starts[count] == UINT64_MAX the dense copy that searches read, and its sentinel
 *   first == rows[0].start, first + span_bytes == end of the last row; span_bytes == 0 == count for an empty table
 *   buckets[b] == the last row that starts at or below first + (b << bucket_shift)
 *
 * Who may touch a table:
 *   current == t                    anybody may read it
 *   current != t, reader_count > 0  its holders may read it
 *   current != t, reader_count == 0 whoever holds change_lock may write it
 * Why a reader never holds a table that is being written is said at loam_gpa_map_acquire.
 *
 * Locks: change_lock only; readers take none.
 */
#include "loam/gpa_map.h"

#include "allocator/check.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <string.h>

#define CACHE_LINE_BYTES        64
#define REGION_CAPACITY_DEFAULT 64
#define TABLE_CAPACITY_DEFAULT  4
#define TABLE_CAPACITY_MIN      2
#define TABLE_CAPACITY_MAX      64
#define REGION_ALIGN_SHIFT      12
#define BUCKETS_PER_REGION      2

static_assert(UINT64_C(1) << REGION_ALIGN_SHIFT == LOAM_REGION_ALIGN_BYTES, "the least that a bucket covers");

/* A row fills one cache line, so that a lookup at random misses once at most. */
struct row {
    alignas(CACHE_LINE_BYTES) struct loam_region region;
};

static_assert(sizeof(struct row) == CACHE_LINE_BYTES, "a row is one cache line");

/* A table. What readers write stands on a line of its own. */
struct loam_gpa_view {
    alignas(CACHE_LINE_BYTES) _Atomic uint32_t reader_count;

    alignas(CACHE_LINE_BYTES) uint64_t first;
    uint64_t span_bytes;
    size_t buckets_offset_bytes; /* from the view */
    size_t rows_offset_bytes;
    uint32_t bucket_shift;
    uint32_t count;
    uint32_t capacity;
    bool complete; /* false while, and after, a change that failed was built here */
    uint64_t generation;

    alignas(CACHE_LINE_BYTES) uint64_t starts[]; /* capacity + 1; then buckets, then rows */
};

struct loam_gpa_map {
    alignas(CACHE_LINE_BYTES) _Atomic uint32_t current;
    uint32_t table_capacity;
    size_t stride_bytes;
    alignas(CACHE_LINE_BYTES) _Atomic uint32_t change_lock;
};

/* What one call changes: [start, end) receives region (insert), or access, or goes (LOAM_ACCESS_NONE). */
struct change {
    uint64_t start;
    uint64_t end;
    const struct loam_region *region;
    enum loam_access access;
};

/* --- Layout ---------------------------------------------------------------------------------------------------- */

static uint64_t bucket_capacity(uint32_t region_capacity)
{
    return (uint64_t)region_capacity * BUCKETS_PER_REGION;
}

static size_t buckets_offset(uint32_t region_capacity)
{
    return sizeof(struct loam_gpa_view) + ((size_t)region_capacity + 1) * sizeof(uint64_t);
}

static size_t rows_offset(uint32_t region_capacity)
{
    size_t buckets_end =
        buckets_offset(region_capacity) + ((size_t)bucket_capacity(region_capacity) + 1) * sizeof(uint32_t);

    return loam_align_up(buckets_end, CACHE_LINE_BYTES);
}

static size_t table_stride(uint32_t region_capacity)
{
    return rows_offset(region_capacity) + (size_t)region_capacity * sizeof(struct row);
}

static struct loam_gpa_view *table_at(struct loam_gpa_map *map, uint32_t index)
{
    return (void *)((char *)map + sizeof *map + index * map->stride_bytes);
}

static const uint32_t *buckets_of(const struct loam_gpa_view *view)
{
    return (const void *)((const char *)view + view->buckets_offset_bytes);
}

static const struct row *rows_of(const struct loam_gpa_view *view)
{
    return (const void *)((const char *)view + view->rows_offset_bytes);
}

static const struct loam_region *region_at(const struct loam_gpa_view *view, uint32_t index)
{
    return &rows_of(view)[index].region;
}

/* The config with its zeros replaced; false if it is invalid. */
static bool effective_config(const struct loam_gpa_map_config *config, struct loam_gpa_map_config *effective)
{
    *effective = config != NULL ? *config : (struct loam_gpa_map_config){0};
    if (effective->region_capacity == 0) {
        effective->region_capacity = REGION_CAPACITY_DEFAULT;
    }
    if (effective->table_capacity == 0) {
        effective->table_capacity = TABLE_CAPACITY_DEFAULT;
    }
    return effective->table_capacity >= TABLE_CAPACITY_MIN && effective->table_capacity <= TABLE_CAPACITY_MAX;
}

/* --- Regions as values ----------------------------------------------------------------------------------------- */

static uint64_t end_of(const struct loam_region *region)
{
    return region->start.value + region->bytes;
}

static bool is_memory(const struct loam_region *region)
{
    return region->type != LOAM_REGION_DEVICE;
}

static bool range_valid(loam_gpa start, uint64_t bytes)
{
    return loam_gpa_range_valid(start, bytes) && loam_is_aligned(start.value | bytes, LOAM_REGION_ALIGN_BYTES);
}

static bool memory_members_valid(const struct loam_region *region)
{
    uintptr_t hva = (uintptr_t)region->hva;

    return hva != 0 && loam_is_aligned(hva | region->backing_offset, LOAM_REGION_ALIGN_BYTES) &&
           region->bytes <= UINTPTR_MAX - hva && region->bytes <= UINT64_MAX - region->backing_offset &&
           (region->access == LOAM_ACCESS_READ || region->access == LOAM_ACCESS_WRITE);
}

static bool device_members_valid(const struct loam_region *region)
{
    return region->hva == NULL && region->backing_offset == 0 && region->backing == 0 &&
           region->access == LOAM_ACCESS_NONE;
}

static bool region_valid(const struct loam_region *region)
{
    if (!range_valid(region->start, region->bytes)) {
        return false;
    }
    switch (region->type) {
    case LOAM_REGION_RAM:
    case LOAM_REGION_RESERVED:
        return memory_members_valid(region);
    case LOAM_REGION_DEVICE:
        return device_members_valid(region);
    case LOAM_REGION_TYPE_COUNT:
        break;
    }
    return false;
}

/* Whether next goes on where region ends, alike in every respect, so that the two are one region. */
static bool continues(const struct loam_region *region, const struct loam_region *next)
{
    if (end_of(region) != next->start.value || region->type != next->type || region->access != next->access) {
        return false;
    }
    return !is_memory(region) ||
           ((uintptr_t)region->hva + region->bytes == (uintptr_t)next->hva && region->backing == next->backing &&
            region->backing_offset + region->bytes == next->backing_offset);
}

/* What of region lies in [start, end); its bytes are 0 if nothing does. */
static struct loam_region clip(const struct loam_region *region, uint64_t start, uint64_t end)
{
    uint64_t from = region->start.value > start ? region->start.value : start;
    uint64_t to = end_of(region) < end ? end_of(region) : end;
    uint64_t skipped_bytes = from - region->start.value;
    struct loam_region part = *region;

    if (from >= to) {
        return (struct loam_region){0};
    }
    part.start.value = from;
    part.bytes = to - from;
    if (is_memory(region)) {
        part.hva = (char *)region->hva + skipped_bytes;
        part.backing_offset += skipped_bytes;
    }
    return part;
}

/* --- Search ---------------------------------------------------------------------------------------------------- */

/*
 * The last row that starts at or below gpa, which lies in [first, first + span_bytes). The buckets leave one or two
 * candidates where regions are of like size; where they are not, binary search does the rest. The last step needs no
 * condition: where low is the only candidate, the next start (or the sentinel) lies above gpa.
 */
static inline uint32_t last_row_below(const struct loam_gpa_view *view, uint64_t gpa)
{
    const uint32_t *bucket = buckets_of(view) + ((gpa - view->first) >> view->bucket_shift);
    uint32_t low = bucket[0];
    uint32_t candidate_count = bucket[1] - low + 1;

    while (__builtin_expect(candidate_count > 2, 0)) {
        uint32_t half = candidate_count / 2;
        uint32_t upper = 0u - (uint32_t)(view->starts[low + half] <= gpa);

        /* Opaque, or clang makes a branch of it, which at random addresses is foretold wrongly every other time. */
        __asm__("" : "+r"(upper));
        low += half & upper;
        candidate_count -= half;
    }
    return low + (view->starts[low + 1] <= gpa);
}

/* The region that holds gpa; NULL if none does. */
static inline const struct loam_region *region_holding(const struct loam_gpa_view *view, uint64_t gpa)
{
    const struct loam_region *region;

    if (gpa - view->first >= view->span_bytes) {
        return NULL;
    }
    region = region_at(view, last_row_below(view, gpa));
    return gpa - region->start.value < region->bytes ? region : NULL;
}

/* Its row; count if none does. */
static uint32_t row_holding(const struct loam_gpa_view *view, uint64_t gpa)
{
    bool found = region_holding(view, gpa) != NULL;

    return found ? last_row_below(view, gpa) : view->count;
}

/* --- Building a table ------------------------------------------------------------------------------------------ */

static void table_clear(struct loam_gpa_view *table)
{
    table->complete = false;
    table->count = 0;
    table->first = 0;
    table->span_bytes = 0;
}

/* Add region behind the last row, or join it to that. Nothing is added if its bytes are 0. False: the table is full. */
static bool table_append(struct loam_gpa_view *table, const struct loam_region *region)
{
    struct row *rows = (void *)((char *)table + table->rows_offset_bytes);

    if (region->bytes == 0) {
        return true;
    }
    if (table->count > 0 && continues(&rows[table->count - 1].region, region)) {
        rows[table->count - 1].region.bytes += region->bytes;
        return true;
    }
    if (table->count == table->capacity) {
        return false;
    }
    rows[table->count].region = *region;
    table->starts[table->count] = region->start.value;
    table->count++;
    return true;
}

/* The smallest shift at which the buckets cover the span. */
static uint32_t bucket_shift_for(uint64_t span_bytes, uint64_t capacity)
{
    uint32_t shift = REGION_ALIGN_SHIFT;

    while ((span_bytes - 1) >> shift >= capacity) {
        shift++;
    }
    return shift;
}

static void table_index(struct loam_gpa_view *table)
{
    uint32_t *buckets = (void *)((char *)table + table->buckets_offset_bytes);
    uint32_t row = 0;

    table->starts[table->count] = UINT64_MAX;
    if (table->count == 0) {
        return;
    }
    table->first = table->starts[0];
    table->span_bytes = end_of(region_at(table, table->count - 1)) - table->first;
    table->bucket_shift = bucket_shift_for(table->span_bytes, bucket_capacity(table->capacity));
    for (uint64_t b = 0; b <= ((table->span_bytes - 1) >> table->bucket_shift) + 1; b++) {
        while (table->starts[row + 1] <= table->first + (b << table->bucket_shift)) {
            row++;
        }
        buckets[b] = row;
    }
}

/* Whether region lies between the rows of now. */
static enum loam_error check_insert(const struct loam_gpa_view *now, const struct change *change)
{
    for (uint32_t i = 0; i < now->count; i++) {
        if (clip(region_at(now, i), change->start, change->end).bytes != 0) {
            return LOAM_ERROR_OVERLAP;
        }
    }
    return LOAM_OK;
}

/* Whether the rows of now cover the whole range, with memory if it is to be protected. */
static enum loam_error check_cut(const struct loam_gpa_view *now, const struct change *change)
{
    uint32_t row = row_holding(now, change->start);

    for (uint64_t at = change->start; at < change->end; row++) {
        if (row >= now->count || region_at(now, row)->start.value > at) {
            return LOAM_ERROR_NOT_FOUND;
        }
        if (change->access != LOAM_ACCESS_NONE && !is_memory(region_at(now, row))) {
            return LOAM_ERROR_INVALID;
        }
        at = end_of(region_at(now, row));
    }
    return LOAM_OK;
}

/* Fill table with what the rows of now become. Rows only ever join, so a full table is one row too many for good. */
static enum loam_error build(struct loam_gpa_view *table, const struct loam_gpa_view *now, const struct change *change)
{
    bool room = true;
    uint32_t row = 0;

    table_clear(table);
    for (; row < now->count && region_at(now, row)->start.value < change->start; row++) {
        struct loam_region before = clip(region_at(now, row), 0, change->start);

        room = room && table_append(table, &before);
        if (end_of(region_at(now, row)) > change->start) {
            break;
        }
    }
    if (change->region != NULL) {
        room = room && table_append(table, change->region);
    }
    for (; row < now->count; row++) {
        struct loam_region inside = clip(region_at(now, row), change->start, change->end);
        struct loam_region after = clip(region_at(now, row), change->end, LOAM_GPA_END);

        inside.access = change->access;
        room = room && (change->access == LOAM_ACCESS_NONE || table_append(table, &inside));
        room = room && table_append(table, &after);
    }
    if (!room) {
        return LOAM_ERROR_EXHAUSTED;
    }
    table_index(table);
    table->generation = now->generation + 1;
    table->complete = true;
    return LOAM_OK;
}

/* --- Changes: prepare in a table that nobody reads, then publish it --------------------------------------------- */

static void change_lock(struct loam_gpa_map *map)
{
    /* acquire: sees what the last holder did; pairs with the release in change_unlock. */
    while (atomic_exchange_explicit(&map->change_lock, 1, memory_order_acquire) != 0) {
        /* relaxed: a hint only; the exchange above decides. */
        while (atomic_load_explicit(&map->change_lock, memory_order_relaxed) != 0) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    }
}

static void change_unlock(struct loam_gpa_map *map)
{
    /* release: pairs with the acquire in change_lock. */
    atomic_store_explicit(&map->change_lock, 0, memory_order_release);
}

/* The published table, for a holder of change_lock, which orders all stores to current: relaxed will do. */
static uint32_t current_locked(struct loam_gpa_map *map)
{
    return atomic_load_explicit(&map->current, memory_order_relaxed);
}

/*
 * A table that the holder of change_lock may write; table_capacity if there is none. seq_cst: see loam_gpa_map_acquire.
 * As an acquire, it also pairs with the release in loam_gpa_map_release: the last holder's reads are over.
 */
static uint32_t free_table(struct loam_gpa_map *map)
{
    uint32_t current = current_locked(map);
    uint32_t index = 0;

    while (index < map->table_capacity &&
           (index == current || atomic_load_explicit(&table_at(map, index)->reader_count, memory_order_seq_cst) != 0)) {
        index++;
    }
    return index;
}

static enum loam_error apply(struct loam_gpa_map *map, const struct change *change)
{
    const struct loam_gpa_view *now;
    enum loam_error error;
    uint32_t next = 0;

    change_lock(map);
    now = table_at(map, current_locked(map));
    error = change->region != NULL ? check_insert(now, change) : check_cut(now, change);
    if (error == LOAM_OK) {
        next = free_table(map);
        error = next < map->table_capacity ? build(table_at(map, next), now, change) : LOAM_ERROR_BUSY;
    }
    if (error == LOAM_OK) {
        /* As a release, it pairs with the loads in loam_gpa_map_acquire; seq_cst: see there. */
        atomic_store_explicit(&map->current, next, memory_order_seq_cst);
    }
    change_unlock(map);
    return error;
}

/* --- Walking a range ------------------------------------------------------------------------------------------- */

struct walk {
    const struct loam_gpa_view *view;
    uint64_t at;
    uint64_t end;
    uint32_t row;
    enum loam_access access;
};

static bool access_wanted_valid(enum loam_access access)
{
    return access == LOAM_ACCESS_READ || access == LOAM_ACCESS_WRITE;
}

static enum loam_error walk_start(struct walk *walk, const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                  enum loam_access access)
{
    if (!access_wanted_valid(access) || !loam_gpa_range_valid(gpa, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    *walk = (struct walk){view, gpa.value, gpa.value + bytes, row_holding(view, gpa.value), access};
    return LOAM_OK;
}

/* The next part of the range, as far as one region reaches; only while walk->at < walk->end. */
static enum loam_error walk_next(struct walk *walk, struct loam_piece *part)
{
    const struct loam_region *region = region_at(walk->view, walk->row);
    struct loam_region inside;

    if (walk->row >= walk->view->count || region->start.value > walk->at || !is_memory(region)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if (region->access < walk->access) {
        return LOAM_ERROR_NOT_PERMITTED;
    }
    inside = clip(region, walk->at, walk->end);
    *part = (struct loam_piece){inside.start, inside.hva, inside.bytes};
    walk->at = end_of(&inside);
    walk->row++;
    return LOAM_OK;
}

/* Whether all of a range may be accessed; on LOAM_OK, *walk stands at its start again. */
static enum loam_error walk_checked(struct walk *walk, const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                    enum loam_access access)
{
    struct loam_piece part;
    struct walk ahead;
    enum loam_error error = walk_start(walk, view, gpa, bytes, access);

    for (ahead = *walk; error == LOAM_OK && ahead.at < ahead.end;) {
        error = walk_next(&ahead, &part);
    }
    return error;
}

static bool host_contiguous(const void *hva, uint64_t bytes, const void *next)
{
    return (uintptr_t)hva + bytes == (uintptr_t)next;
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

size_t loam_gpa_map_bytes(const struct loam_gpa_map_config *config)
{
    struct loam_gpa_map_config effective;

    if (!effective_config(config, &effective)) {
        return 0;
    }
    return sizeof(struct loam_gpa_map) + effective.table_capacity * table_stride(effective.region_capacity);
}

enum loam_error loam_gpa_map_init(void *memory, size_t bytes, const struct loam_gpa_map_config *config,
                                  struct loam_gpa_map **map)
{
    struct loam_gpa_map_config effective;
    struct loam_gpa_map *made = memory;

    *map = NULL;
    if (memory == NULL || !loam_is_aligned((uintptr_t)memory, CACHE_LINE_BYTES) ||
        !effective_config(config, &effective) || bytes < loam_gpa_map_bytes(&effective)) {
        return LOAM_ERROR_INVALID;
    }
    *made = (struct loam_gpa_map){.table_capacity = effective.table_capacity,
                                  .stride_bytes = table_stride(effective.region_capacity)};
    for (uint32_t i = 0; i < effective.table_capacity; i++) {
        *table_at(made, i) = (struct loam_gpa_view){
            .buckets_offset_bytes = buckets_offset(effective.region_capacity),
            .rows_offset_bytes = rows_offset(effective.region_capacity),
            .capacity = effective.region_capacity,
        };
    }
    table_index(table_at(made, 0));
    table_at(made, 0)->complete = true;
    *map = made;
    return LOAM_OK;
}

/* --- Changes --------------------------------------------------------------------------------------------------- */

enum loam_error loam_gpa_map_insert(struct loam_gpa_map *map, const struct loam_region *region)
{
    struct change change = {.region = region};

    if (!region_valid(region)) {
        return LOAM_ERROR_INVALID;
    }
    change.start = region->start.value;
    change.end = end_of(region);
    return apply(map, &change);
}

enum loam_error loam_gpa_map_remove(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes)
{
    if (!range_valid(start, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    return apply(map, &(struct change){.start = start.value, .end = start.value + bytes});
}

enum loam_error loam_gpa_map_protect(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes, enum loam_access access)
{
    if (!range_valid(start, bytes) || !access_wanted_valid(access)) {
        return LOAM_ERROR_INVALID;
    }
    return apply(map, &(struct change){.start = start.value, .end = start.value + bytes, .access = access});
}

/* --- Views ----------------------------------------------------------------------------------------------------- */

/*
 * A reader counts itself in at the table that it saw as current, and looks again. All four operations are seq_cst, so they
 * stand in one order S:
 *     reader:  R1 reader_count[t] += 1    R2 current == t ?
 *     changer: C1 current = u             C2 reader_count[t] == 0 ?    (t != u; then it writes t; then C3 current = t)
 * Each looks after it has told the other. If R1 comes before C2 in S, C2 finds the count raised and leaves t alone until it
 * falls. If C2 comes before R1, then C1 comes before R2, so R2 finds u or something newer. Only C3 makes that t again, and
 * then R2 reads from C3 and sees all that was written to t before it. In every case a reader that found t at R2 reads a
 * finished table, which stays so until the reader counts itself out. One that found something else has read nothing of t.
 * With acquire and release alone, R2 could pass R1 and C2 could pass C1, each side missing the other.
 */
const struct loam_gpa_view *loam_gpa_map_acquire(struct loam_gpa_map *map)
{
    for (;;) {
        /* relaxed: a guess, which the second look confirms. */
        uint32_t index = atomic_load_explicit(&map->current, memory_order_relaxed);
        struct loam_gpa_view *table = table_at(map, index);

        atomic_fetch_add_explicit(&table->reader_count, 1, memory_order_seq_cst);
        /* As an acquire, it pairs with the store in apply: the table's contents are there. */
        if (__builtin_expect(atomic_load_explicit(&map->current, memory_order_seq_cst) == index, 1)) {
            return table;
        }
        /* relaxed: nothing of the table was read. */
        atomic_fetch_sub_explicit(&table->reader_count, 1, memory_order_relaxed);
    }
}

void loam_gpa_map_release(struct loam_gpa_map *map, const struct loam_gpa_view *view)
{
    size_t offset_bytes = (size_t)((const char *)view - (const char *)map);
    struct loam_gpa_view *table = (void *)((char *)map + offset_bytes);

    ASSERT((offset_bytes - sizeof *map) % map->stride_bytes == 0);
    /* release: pairs with the load in free_table; this reader's reads come before the next change's writes. */
    atomic_fetch_sub_explicit(&table->reader_count, 1, memory_order_release);
}

uint64_t loam_gpa_view_generation(const struct loam_gpa_view *view)
{
    return view->generation;
}

uint32_t loam_gpa_view_count(const struct loam_gpa_view *view)
{
    return view->count;
}

enum loam_error loam_gpa_view_region(const struct loam_gpa_view *view, uint32_t index, struct loam_region *region)
{
    bool found = index < view->count;

    *region = found ? *region_at(view, index) : (struct loam_region){0};
    return found ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

enum loam_error loam_gpa_view_find(const struct loam_gpa_view *view, loam_gpa gpa, struct loam_region *region)
{
    const struct loam_region *found = region_holding(view, gpa.value);

    *region = found != NULL ? *found : (struct loam_region){0};
    return found != NULL ? LOAM_OK : LOAM_ERROR_NOT_FOUND;
}

/* Why translation was refused: the first reason in the header's order. */
static __attribute__((noinline)) enum loam_error why_not(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                         enum loam_access access)
{
    const struct loam_region *region = region_holding(view, gpa.value);

    if (!access_wanted_valid(access) || !loam_gpa_range_valid(gpa, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    if (region == NULL || !is_memory(region)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    return region->access < access ? LOAM_ERROR_NOT_PERMITTED : LOAM_ERROR_OVERLAP;
}

/*
 * The way of a range that is granted has as few branches as can be: a device grants LOAM_ACCESS_NONE, and what is no access
 * or no byte wraps to more than any region grants or has left.
 */
enum loam_error loam_gpa_view_translate(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                        enum loam_access access, void **hva)
{
    const struct loam_region *region = region_holding(view, gpa.value);

    if (region != NULL) {
        uint64_t offset_bytes = gpa.value - region->start.value;

        if (bytes - 1 < region->bytes - offset_bytes && (unsigned)access - 1 < (unsigned)region->access) {
            *hva = (char *)region->hva + offset_bytes;
            return LOAM_OK;
        }
    }
    *hva = NULL;
    return why_not(view, gpa, bytes, access);
}

enum loam_error loam_gpa_view_pieces(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                     enum loam_access access, struct loam_piece *pieces, uint32_t capacity,
                                     uint32_t *count)
{
    struct loam_piece piece = {0}, part;
    struct walk walk;
    enum loam_error error = walk_checked(&walk, view, gpa, bytes, access);

    *count = 0;
    while (error == LOAM_OK && walk.at < walk.end) {
        error = walk_next(&walk, &part);
        if (*count > 0 && host_contiguous(piece.hva, piece.bytes, part.hva)) {
            piece.bytes += part.bytes;
        } else {
            piece = part;
            ++*count;
        }
        if (*count <= capacity) {
            pieces[*count - 1] = piece;
        }
    }
    return error == LOAM_OK && *count > capacity ? LOAM_ERROR_EXHAUSTED : error;
}

enum loam_error loam_gpa_view_gpa_from_hva(const struct loam_gpa_view *view, const void *hva, uint64_t bytes,
                                           loam_gpa *gpa)
{
    *gpa = (loam_gpa){0};
    if (bytes == 0) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = region_at(view, i);
        /* Below the region this wraps, to more than any region's bytes: memory_members_valid refuses what wraps. */
        uint64_t offset_bytes = (uintptr_t)hva - (uintptr_t)region->hva;

        if (is_memory(region) && loam_fits(offset_bytes, bytes, region->bytes)) {
            gpa->value = region->start.value + offset_bytes;
            return LOAM_OK;
        }
    }
    return LOAM_ERROR_NOT_FOUND;
}

enum loam_error loam_gpa_view_read(const struct loam_gpa_view *view, loam_gpa gpa, void *buffer, uint64_t bytes)
{
    struct loam_piece part;
    struct walk walk;
    void *hva;
    enum loam_error error = loam_gpa_view_translate(view, gpa, bytes, LOAM_ACCESS_READ, &hva);

    if (error == LOAM_OK) {
        memcpy(buffer, hva, bytes);
        return LOAM_OK;
    }
    error = walk_checked(&walk, view, gpa, bytes, LOAM_ACCESS_READ);
    while (error == LOAM_OK && walk.at < walk.end) {
        error = walk_next(&walk, &part);
        memcpy((char *)buffer + (part.start.value - gpa.value), part.hva, part.bytes);
    }
    return error;
}

enum loam_error loam_gpa_view_write(const struct loam_gpa_view *view, loam_gpa gpa, const void *buffer, uint64_t bytes)
{
    struct loam_piece part;
    struct walk walk;
    void *hva;
    enum loam_error error = loam_gpa_view_translate(view, gpa, bytes, LOAM_ACCESS_WRITE, &hva);

    if (error == LOAM_OK) {
        memcpy(hva, buffer, bytes);
        return LOAM_OK;
    }
    error = walk_checked(&walk, view, gpa, bytes, LOAM_ACCESS_WRITE);
    while (error == LOAM_OK && walk.at < walk.end) {
        error = walk_next(&walk, &part);
        memcpy(part.hva, (const char *)buffer + (part.start.value - gpa.value), part.bytes);
    }
    return error;
}

/* --- Derived tables -------------------------------------------------------------------------------------------- */

/* Whether region can lie in the same slot, which ends where region starts in the guest or before. */
static bool slot_continues(const struct loam_slot *slot, const struct loam_region *region)
{
    return slot->start.value + slot->bytes == region->start.value &&
           host_contiguous(slot->hva, slot->bytes, region->hva) &&
           slot->read_only == (region->access != LOAM_ACCESS_WRITE);
}

enum loam_error loam_gpa_view_slots(const struct loam_gpa_view *view, struct loam_slot *slots, uint32_t capacity,
                                    uint32_t *count)
{
    struct loam_slot slot = {0};

    *count = 0;
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = region_at(view, i);

        if (!is_memory(region)) {
            continue;
        }
        if (*count > 0 && slot_continues(&slot, region)) {
            slot.bytes += region->bytes;
        } else {
            slot = (struct loam_slot){region->start, region->bytes, region->hva, region->access != LOAM_ACCESS_WRITE};
            ++*count;
        }
        if (*count <= capacity) {
            slots[*count - 1] = slot;
        }
    }
    return *count > capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

static uint32_t e820_type(const struct loam_region *region)
{
    return region->type == LOAM_REGION_RAM && region->access == LOAM_ACCESS_WRITE ? LOAM_E820_RAM : LOAM_E820_RESERVED;
}

enum loam_error loam_gpa_view_e820(const struct loam_gpa_view *view, struct loam_e820_entry *entries, uint32_t capacity,
                                   uint32_t *count)
{
    struct loam_e820_entry entry = {0};

    *count = 0;
    for (uint32_t i = 0; i < view->count; i++) {
        const struct loam_region *region = region_at(view, i);

        if (!is_memory(region)) {
            continue;
        }
        if (*count > 0 && entry.start + entry.bytes == region->start.value && entry.type == e820_type(region)) {
            entry.bytes += region->bytes;
        } else {
            entry = (struct loam_e820_entry){region->start.value, region->bytes, e820_type(region)};
            ++*count;
        }
        if (*count <= capacity) {
            entries[*count - 1] = entry;
        }
    }
    return *count > capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

/* --- Validate -------------------------------------------------------------------------------------------------- */

static enum loam_error validate_row(const struct loam_gpa_view *table, uint32_t row, struct loam_diag *diag)
{
    const struct loam_region *region = region_at(table, row);

    if (!region_valid(region)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u, %#llx bytes at GPA %#llx, is no valid region", row,
                         (unsigned long long)region->bytes, (unsigned long long)region->start.value);
    }
    if (table->starts[row] != region->start.value) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u starts at GPA %#llx, its search key says %#llx",
                         row, (unsigned long long)region->start.value, (unsigned long long)table->starts[row]);
    }
    if (row > 0 && end_of(region_at(table, row - 1)) > region->start.value) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u at GPA %#llx starts before row %u ends", row,
                         (unsigned long long)region->start.value, row - 1);
    }
    if (row > 0 && continues(region_at(table, row - 1), region)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u at GPA %#llx continues row %u and is not joined",
                         row, (unsigned long long)region->start.value, row - 1);
    }
    return LOAM_OK;
}

/* Whether searches in the table, whose rows are right, find their rows. */
static enum loam_error validate_index(const struct loam_gpa_view *table, struct loam_diag *diag)
{
    uint64_t first = table->count > 0 ? region_at(table, 0)->start.value : 0;
    uint64_t end = table->count > 0 ? end_of(region_at(table, table->count - 1)) : 0;
    uint32_t row = 0;

    if (table->starts[table->count] != UINT64_MAX || table->first != first || table->span_bytes != end - first) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: the index does not span GPA %#llx to %#llx",
                         (unsigned long long)first, (unsigned long long)end);
    }
    for (uint64_t b = 0; table->count > 0 && b <= ((end - first - 1) >> table->bucket_shift) + 1; b++) {
        while (row + 1 < table->count && region_at(table, row + 1)->start.value <= first + (b << table->bucket_shift)) {
            row++;
        }
        if (b > bucket_capacity(table->capacity) || buckets_of(table)[b] != row) {
            return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: bucket %llu does not lead to row %u",
                             (unsigned long long)b, row);
        }
    }
    return LOAM_OK;
}

static enum loam_error validate_table(const struct loam_gpa_view *table, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    if (table->count > table->capacity || table->bucket_shift >= LOAM_GPA_BITS) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: a table holds %u rows of %u, buckets of 2^%u bytes",
                         table->count, table->capacity, table->bucket_shift);
    }
    for (uint32_t row = 0; error == LOAM_OK && row < table->count; row++) {
        error = validate_row(table, row, diag);
    }
    return error == LOAM_OK ? validate_index(table, diag) : error;
}

/* Tables that nobody may read are not looked at. */
static enum loam_error validate_locked(struct loam_gpa_map *map, struct loam_diag *diag)
{
    uint32_t current = current_locked(map);
    enum loam_error error = LOAM_OK;

    if (current >= map->table_capacity || !table_at(map, current)->complete) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: table %u of %u is published and is not complete", current,
                         map->table_capacity);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < map->table_capacity; i++) {
        struct loam_gpa_view *table = table_at(map, i);
        /* acquire: as in free_table. */
        uint32_t reader_count = atomic_load_explicit(&table->reader_count, memory_order_acquire);

        if (reader_count > INT32_MAX) {
            return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: table %u was released %u times too often", i,
                             -reader_count);
        }
        if (i == current || (reader_count > 0 && table->complete)) {
            error = validate_table(table, diag);
        }
    }
    return error;
}

enum loam_error loam_gpa_map_validate(struct loam_gpa_map *map, struct loam_diag *diag)
{
    enum loam_error error;

    change_lock(map);
    error = validate_locked(map, diag);
    change_unlock(map);
    return error;
}
