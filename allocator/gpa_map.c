// SPDX-License-Identifier: Apache-2.0
/*
 * The map is a header, table_capacity tables, and one more that is never published, on which changes that are made
 * together alternate with the table that they end in. All lie in the caller's memory, addressed by offsets. A table is
 * written when it is first wanted, and no other is while one that was is free: what is never needed is never touched.
 *
 * What a table holds, and its invariants, are in allocator/gpa_view.h; lookups in one are in gpa_view.c.
 *
 * Who may touch a table t that is made, t < made_count:
 *   t is current                     anybody may read it
 *   t is not, reader_count > 0       its holders may read it
 *   t is not, reader_count == 0      whoever holds change_lock may write it
 * Why a reader never holds a table that is being written is said at loam_gpa_map_acquire. loam_gpa_map_translate holds
 * none, and says how it sees that what it read was rewritten.
 *
 * Which table is free, at most: of N views that are held, or being acquired, each keeps one table from use, and the
 * current one is another. So N + 2 tables always leave one.
 *
 * Locks: change_lock only; readers take none.
 */
#include "loam/gpa_map.h"

#include "allocator/gpa_map_keeper.h"
#include "allocator/gpa_view.h"
#include "allocator/lock.h"

#include <stdalign.h>

#define REGION_CAPACITY_DEFAULT 64
#define TABLE_CAPACITY_DEFAULT  4
#define TABLE_CAPACITY_MIN      2
#define TABLE_CAPACITY_MAX      4096
#define TABLE_BITS              12
#define LOOKED_AT_MAX           64 /* tables that a change looks at before it takes one that was never used */
#define REGION_ALIGN_SHIFT      12
#define TRANSLATE_TRIES         4
#define LIKELY_PARTS            8 /* a region is likely if it has all but one of so many parts of all memory */

static_assert(sizeof(loam_gpa) == sizeof(uint64_t), "a GPA is passed as an integer");
static_assert(sizeof(loam_pfn) == sizeof(uint64_t), "a PFN is passed as an integer");
static_assert(UINT64_C(1) << REGION_ALIGN_SHIFT == LOAM_REGION_ALIGN_BYTES, "the least that a bucket covers");

static_assert(TABLE_CAPACITY_MAX <= 1 << TABLE_BITS, "a table's number fits in the word that names it");

/* current is never twice the same: the generation in it grows, and at one change a microsecond ends in 142 years. */
struct loam_gpa_map {
    alignas(GPA_VIEW_CACHE_LINE_BYTES) _Atomic uint64_t current; /* generation << TABLE_BITS | number of the table */
    uint32_t table_capacity;
    uint32_t kept_backing_count; /* rows whose backing is 1 to that many are the keeper's */
    size_t stride_bytes;
    alignas(GPA_VIEW_CACHE_LINE_BYTES) struct loam_lock change_lock;
    _Atomic uint32_t made_count; /* tables 0 to made_count - 1 have been written; grows under change_lock */
    uint32_t replaced;           /* the number of the table before the current one */
};

/* Changes that are made together. */
struct changes {
    const struct loam_gpa_change *list;
    uint32_t count;
    uint32_t kept_backing_count; /* as in the map; 0: the keeper itself makes them */
};

/* --- Layout ---------------------------------------------------------------------------------------------------- */

static size_t buckets_offset(uint32_t region_capacity)
{
    return offsetof(struct loam_gpa_view, starts) + ((size_t)region_capacity + 1) * sizeof(uint64_t);
}

static size_t rows_offset(uint32_t region_capacity)
{
    size_t buckets_end =
        buckets_offset(region_capacity) + ((size_t)gpa_view_bucket_capacity(region_capacity) + 1) * sizeof(uint32_t);

    return loam_align_up(buckets_end, GPA_VIEW_CACHE_LINE_BYTES);
}

static size_t table_stride(uint32_t region_capacity)
{
    return rows_offset(region_capacity) + (size_t)region_capacity * sizeof(struct gpa_view_row);
}

static struct loam_gpa_view *table_at(struct loam_gpa_map *map, uint64_t index)
{
    return (void *)((char *)map + sizeof *map + index * map->stride_bytes);
}

/* The table that current, as it was read, names. */
static struct loam_gpa_view *table_named(struct loam_gpa_map *map, uint64_t current)
{
    return table_at(map, current % (1u << TABLE_BITS));
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
           region->access == LOAM_ACCESS_NONE && !region->log_dirty;
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
    if (gpa_view_end_of(region) != next->start.value || region->type != next->type || region->access != next->access ||
        region->log_dirty != next->log_dirty) {
        return false;
    }
    return !gpa_view_is_memory(region) ||
           ((uintptr_t)region->hva + region->bytes == (uintptr_t)next->hva && region->backing == next->backing &&
            region->backing_offset + region->bytes == next->backing_offset);
}

/* --- Building a table ------------------------------------------------------------------------------------------ */

/* Write a table that nobody can know yet. */
static struct loam_gpa_view *table_make(struct loam_gpa_map *map, uint32_t index, uint32_t region_capacity)
{
    struct loam_gpa_view *table = table_at(map, index);

    *table = (struct loam_gpa_view){
        .buckets_offset_bytes = buckets_offset(region_capacity),
        .rows_offset_bytes = rows_offset(region_capacity),
        .capacity = region_capacity,
    };
    return table;
}

static void table_clear(struct loam_gpa_view *table)
{
    table->complete = false;
    table->count = 0;
}

/* Every release from here to table_index pairs with the acquires of who holds no table: see loam_gpa_map_translate. */
static void row_share(struct gpa_view_row *row)
{
    shared_store_release(row->bytes, row->region.bytes);
    shared_store_release(row->hva_and_access, (uintptr_t)row->region.hva + row->region.access);
}

/* Add region behind the last row, or join it to that. Nothing is added if its bytes are 0. False: the table is full. */
static bool table_append(struct loam_gpa_view *table, const struct loam_region *region)
{
    struct gpa_view_row *rows = (void *)((char *)table + table->rows_offset_bytes);

    if (region->bytes == 0) {
        return true;
    }
    if (table->count > 0 && continues(&rows[table->count - 1].region, region)) {
        rows[table->count - 1].region.bytes += region->bytes;
        row_share(&rows[table->count - 1]);
        return true;
    }
    if (table->count == table->capacity) {
        return false;
    }
    rows[table->count].region = *region;
    row_share(&rows[table->count]);
    shared_store_release(table->starts[table->count], region->start.value);
    table->count++;
    return true;
}

/*
 * The row that nearly every lookup is for, as high RAM is in a large guest, and low RAM in a small one; count if there
 * is none. Lookups try it first, which is only worth it where the processor foresees that they are right.
 */
static uint32_t likely_row(const struct loam_gpa_view *table)
{
    uint64_t memory_bytes = 0, most_bytes = 0;
    uint32_t most = table->count;

    for (uint32_t row = 0; row < table->count; row++) {
        const struct loam_region *region = gpa_view_region_at(table, row);

        if (gpa_view_is_memory(region)) {
            memory_bytes += region->bytes;
            most = region->bytes > most_bytes ? row : most;
            most_bytes = region->bytes > most_bytes ? region->bytes : most_bytes;
        }
    }
    return memory_bytes - most_bytes <= memory_bytes / LIKELY_PARTS ? most : table->count;
}

static struct gpa_view_spot likely_spot(const struct loam_gpa_view *table)
{
    uint32_t row = likely_row(table);
    const struct loam_region *region = gpa_view_region_at(table, row);

    return row == table->count
               ? (struct gpa_view_spot){0}
               : (struct gpa_view_spot){region->start.value, region->bytes, region->hva, (uint32_t)region->access};
}

static void table_set_likely(struct loam_gpa_view *table)
{
    struct gpa_view_spot likely = likely_spot(table);

    shared_store_release(table->likely_start, likely.start);
    shared_store_release(table->likely_bytes, likely.bytes);
    shared_store_release(table->likely_hva, likely.hva);
    shared_store_release(table->likely_access, likely.access);
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

/* Where the table starts and ends, and buckets of which size cover that. */
static void table_set_span(struct loam_gpa_view *table)
{
    uint64_t first = table->count > 0 ? table->starts[0] : 0;
    uint64_t end = table->count > 0 ? gpa_view_end_of(gpa_view_region_at(table, table->count - 1)) : 0;

    shared_store_release(table->first, first);
    shared_store_release(table->span_bytes, end - first);
    if (table->count > 0) {
        shared_store_release(table->bucket_shift,
                             bucket_shift_for(end - first, gpa_view_bucket_capacity(table->capacity)));
    }
}

static void table_index(struct loam_gpa_view *table)
{
    uint32_t *buckets = (void *)((char *)table + table->buckets_offset_bytes);
    uint32_t row = 0;

    shared_store_release(table->starts[table->count], UINT64_MAX);
    table_set_likely(table);
    table_set_span(table);
    if (table->count == 0) {
        return;
    }
    for (uint64_t b = 0; b <= ((table->span_bytes - 1) >> table->bucket_shift) + 1; b++) {
        while (table->starts[row + 1] <= table->first + (b << table->bucket_shift)) {
            row++;
        }
        shared_store_release(buckets[b], row);
    }
}

/* Whether region is of a backing that somebody keeps. */
static bool is_kept(const struct loam_region *region, uint32_t kept_backing_count)
{
    return region->backing - 1 < kept_backing_count;
}

/* Whether region lies between the rows of now. */
static enum loam_error check_insert(const struct loam_gpa_view *now, const struct loam_region *region,
                                    uint32_t kept_backing_count)
{
    if (is_kept(region, kept_backing_count)) {
        return LOAM_ERROR_NOT_PERMITTED;
    }
    for (uint32_t i = 0; i < now->count; i++) {
        if (loam_gpa_view_clip(gpa_view_region_at(now, i), region->start.value, gpa_view_end_of(region)).bytes != 0) {
            return LOAM_ERROR_OVERLAP;
        }
    }
    return LOAM_OK;
}

/* Whether the rows of now cover the whole range: with none of a keeper's if it goes, else with memory. */
static enum loam_error check_cut(const struct loam_gpa_view *now, const struct loam_gpa_change *change,
                                 uint32_t kept_backing_count)
{
    bool goes = change->kind == LOAM_CHANGE_REMOVE;
    uint32_t row = loam_gpa_view_row_holding(now, change->region.start.value);

    for (uint64_t at = change->region.start.value; at < gpa_view_end_of(&change->region); row++) {
        if (row >= now->count || gpa_view_region_at(now, row)->start.value > at) {
            return LOAM_ERROR_NOT_FOUND;
        }
        if (!goes && !gpa_view_is_memory(gpa_view_region_at(now, row))) {
            return LOAM_ERROR_INVALID;
        }
        if (goes && is_kept(gpa_view_region_at(now, row), kept_backing_count)) {
            return LOAM_ERROR_NOT_PERMITTED;
        }
        at = gpa_view_end_of(gpa_view_region_at(now, row));
    }
    return LOAM_OK;
}

static enum loam_error check_change(const struct loam_gpa_view *now, const struct loam_gpa_change *change,
                                    uint32_t kept_backing_count)
{
    return change->kind == LOAM_CHANGE_INSERT ? check_insert(now, &change->region, kept_backing_count)
                                              : check_cut(now, change, kept_backing_count);
}

/* What becomes of a part of a region that lies in the range; its bytes are 0 if it goes. */
static struct loam_region changed(struct loam_region part, const struct loam_gpa_change *change)
{
    switch (change->kind) {
    case LOAM_CHANGE_PROTECT:
        part.access = change->region.access;
        break;
    case LOAM_CHANGE_RETYPE:
        part.type = change->region.type;
        break;
    case LOAM_CHANGE_LOG:
        part.log_dirty = change->region.log_dirty;
        break;
    default:
        part.bytes = 0;
        break;
    }
    return part;
}

/* Fill table with what the rows of now become. Rows only ever join, so a full table is one row too many for good. */
static enum loam_error build(struct loam_gpa_view *table, const struct loam_gpa_view *now,
                             const struct loam_gpa_change *change)
{
    uint64_t start = change->region.start.value, end = gpa_view_end_of(&change->region);
    bool room = true;
    uint32_t row = 0;

    table_clear(table);
    for (; row < now->count && gpa_view_region_at(now, row)->start.value < start; row++) {
        struct loam_region before = loam_gpa_view_clip(gpa_view_region_at(now, row), 0, start);

        room = room && table_append(table, &before);
        if (gpa_view_end_of(gpa_view_region_at(now, row)) > start) {
            break;
        }
    }
    if (change->kind == LOAM_CHANGE_INSERT) {
        room = room && table_append(table, &change->region);
    }
    for (; row < now->count; row++) {
        struct loam_region inside = changed(loam_gpa_view_clip(gpa_view_region_at(now, row), start, end), change);
        struct loam_region after = loam_gpa_view_clip(gpa_view_region_at(now, row), end, LOAM_GPA_END);

        room = room && table_append(table, &inside) && table_append(table, &after);
    }
    if (!room) {
        return LOAM_ERROR_EXHAUSTED;
    }
    table_index(table);
    return LOAM_OK;
}

/* --- Changes: prepare in a table that nobody reads, then publish it --------------------------------------------- */

static void change_lock(struct loam_gpa_map *map)
{
    bool in_order = loam_lock_take(&map->change_lock);

    /* A holder that died has published its table, or has left one that nobody reads. */
    (void)in_order;
}

static void change_unlock(struct loam_gpa_map *map)
{
    loam_lock_give(&map->change_lock);
}

/* For a holder of change_lock, which orders all stores to current: relaxed will do. */
static uint64_t current_locked(struct loam_gpa_map *map)
{
    return shared_load(map->current);
}

/*
 * Whether the holder of change_lock may write a table that is made. seq_cst: see loam_gpa_map_acquire. As an acquire, it
 * also pairs with the release in loam_gpa_map_release: the last holder's reads are over.
 */
static bool is_free(struct loam_gpa_map *map, struct loam_gpa_view *table)
{
    return table != table_named(map, current_locked(map)) && shared_load_ordered(table->reader_count) == 0;
}

/*
 * A table that the holder of change_lock may write; NULL if there is none. First the one that was current before, which
 * as a rule nobody holds any more, so that a map of which few views are held stays in few tables.
 */
static struct loam_gpa_view *free_table(struct loam_gpa_map *map)
{
    uint32_t made_count = shared_load(map->made_count);
    bool all_made = made_count == map->table_capacity;
    struct loam_gpa_view *made;

    for (uint32_t i = 0; i < made_count && (all_made || i < LOOKED_AT_MAX); i++) {
        struct loam_gpa_view *table = table_at(map, (map->replaced + i) % made_count);

        if (is_free(map, table)) {
            return table;
        }
    }
    if (all_made) {
        return NULL;
    }
    made = table_make(map, made_count, table_at(map, 0)->capacity);
    /* relaxed: whoever is to find the table learns of it by current. */
    shared_store(map->made_count, made_count + 1);
    return made;
}

/* The table that changes made together alternate with; nobody ever reads it but the changer. */
static struct loam_gpa_view *spare_table(struct loam_gpa_map *map)
{
    return table_make(map, map->table_capacity, table_at(map, 0)->capacity);
}

/*
 * The table after all changes, complete but for nobody yet to read. One table becomes the next, to and fro between two
 * that nobody reads, so that the last comes to stand in the first of them.
 */
static enum loam_error prepare(struct loam_gpa_map *map, const struct changes *changes, struct loam_gpa_view **made,
                               uint32_t *refused)
{
    const struct loam_gpa_view *first = table_named(map, current_locked(map)), *now = first;
    enum loam_error error = check_change(now, &changes->list[0], changes->kept_backing_count);
    struct loam_gpa_view *other;

    *refused = 0;
    if (error != LOAM_OK) {
        return error;
    }
    *made = free_table(map);
    if (*made == NULL) {
        *refused = changes->count;
        return LOAM_ERROR_BUSY;
    }
    other = changes->count > 1 ? spare_table(map) : NULL;
    for (uint32_t i = 0; error == LOAM_OK && i < changes->count; i++) {
        struct loam_gpa_view *next = (changes->count - i) % 2 == 1 ? *made : other;

        *refused = i;
        error = i == 0 ? LOAM_OK : check_change(now, &changes->list[i], changes->kept_backing_count);
        error = error == LOAM_OK ? build(next, now, &changes->list[i]) : error;
        now = next;
    }
    if (error == LOAM_OK) {
        *refused = changes->count;
        (*made)->generation = first->generation + 1;
        (*made)->complete = true;
    }
    return error;
}

static uint32_t number_of(struct loam_gpa_map *map, const struct loam_gpa_view *table)
{
    return (uint32_t)((uint64_t)((const char *)table - (const char *)table_at(map, 0)) / map->stride_bytes);
}

/* With change_lock. */
static void publish(struct loam_gpa_map *map, const struct loam_gpa_view *made)
{
    map->replaced = number_of(map, table_named(map, current_locked(map)));
    /* As a release, it pairs with the loads in loam_gpa_map_acquire and _translate; seq_cst: see the former. */
    shared_store_ordered(map->current, made->generation << TABLE_BITS | number_of(map, made));
}

/* Make valid changes. *refused: the one that failed; count if it was none of them. */
static enum loam_error apply(struct loam_gpa_map *map, const struct changes *changes, uint32_t *refused)
{
    enum loam_error error;
    struct loam_gpa_view *made;

    change_lock(map);
    error = prepare(map, changes, &made, refused);
    if (error == LOAM_OK) {
        publish(map, made);
    }
    change_unlock(map);
    return error;
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

size_t loam_gpa_map_bytes(const struct loam_gpa_map_config *config)
{
    struct loam_gpa_map_config effective;

    if (!effective_config(config, &effective)) {
        return 0;
    }
    return sizeof(struct loam_gpa_map) +
           ((size_t)effective.table_capacity + 1) * table_stride(effective.region_capacity);
}

enum loam_error loam_gpa_map_init(void *memory, size_t bytes, const struct loam_gpa_map_config *config,
                                  struct loam_gpa_map **map)
{
    struct loam_gpa_map_config effective;
    struct loam_gpa_map *made = memory;
    struct loam_gpa_view *first;

    if (map == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *map = NULL;
    if (memory == NULL || !loam_is_aligned((uintptr_t)memory, GPA_VIEW_CACHE_LINE_BYTES) ||
        !effective_config(config, &effective) || bytes < loam_gpa_map_bytes(&effective)) {
        return LOAM_ERROR_INVALID;
    }
    *made = (struct loam_gpa_map){.table_capacity = effective.table_capacity,
                                  .stride_bytes = table_stride(effective.region_capacity),
                                  .made_count = 1};
    first = table_make(made, 0, effective.region_capacity);
    table_index(first);
    first->complete = true;
    *map = made;
    return LOAM_OK;
}

/* --- Changes --------------------------------------------------------------------------------------------------- */

static bool change_valid(const struct loam_gpa_change *change)
{
    const struct loam_region *region = &change->region;

    switch (change->kind) {
    case LOAM_CHANGE_INSERT:
        return region_valid(region);
    case LOAM_CHANGE_REMOVE:
    case LOAM_CHANGE_LOG:
        return range_valid(region->start, region->bytes);
    case LOAM_CHANGE_PROTECT:
        return range_valid(region->start, region->bytes) && gpa_view_access_valid(region->access);
    case LOAM_CHANGE_RETYPE:
        return range_valid(region->start, region->bytes) &&
               (region->type == LOAM_REGION_RAM || region->type == LOAM_REGION_RESERVED);
    case LOAM_CHANGE_COUNT:
        break;
    }
    return false;
}

enum loam_error loam_gpa_map_change(struct loam_gpa_map *map, const struct loam_gpa_change *changes, uint32_t count,
                                    uint32_t *refused)
{
    uint32_t ignored;

    refused = refused != NULL ? refused : &ignored;
    *refused = count;
    if (map == NULL || (changes == NULL && count > 0)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!change_valid(&changes[i])) {
            *refused = i;
            return LOAM_ERROR_INVALID;
        }
    }
    return count > 0 ? apply(map, &(struct changes){changes, count, map->kept_backing_count}, refused) : LOAM_OK;
}

static enum loam_error change_one(struct loam_gpa_map *map, struct loam_gpa_change change, uint32_t kept_backing_count)
{
    uint32_t ignored;

    return change_valid(&change) ? apply(map, &(struct changes){&change, 1, kept_backing_count}, &ignored)
                                 : LOAM_ERROR_INVALID;
}

static enum loam_error insert(struct loam_gpa_map *map, const struct loam_region *region, uint32_t kept_backing_count)
{
    return region != NULL ? change_one(map, (struct loam_gpa_change){LOAM_CHANGE_INSERT, *region}, kept_backing_count)
                          : LOAM_ERROR_INVALID;
}

static enum loam_error remove_range(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes,
                                    uint32_t kept_backing_count)
{
    struct loam_gpa_change change = {LOAM_CHANGE_REMOVE, {.start = start, .bytes = bytes}};

    return change_one(map, change, kept_backing_count);
}

enum loam_error loam_gpa_map_insert(struct loam_gpa_map *map, const struct loam_region *region)
{
    return map != NULL ? insert(map, region, map->kept_backing_count) : LOAM_ERROR_INVALID;
}

enum loam_error loam_gpa_map_remove(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes)
{
    return map != NULL ? remove_range(map, start, bytes, map->kept_backing_count) : LOAM_ERROR_INVALID;
}

enum loam_error loam_gpa_map_protect(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes, enum loam_access access)
{
    struct loam_gpa_change change = {LOAM_CHANGE_PROTECT, {.start = start, .bytes = bytes, .access = access}};

    return map != NULL ? change_one(map, change, map->kept_backing_count) : LOAM_ERROR_INVALID;
}

/* --- For the keeper of its backings ----------------------------------------------------------------------------- */

void loam_gpa_map_keep(struct loam_gpa_map *map, uint32_t backing_count)
{
    map->kept_backing_count = backing_count;
}

enum loam_error loam_gpa_map_keeper_insert(struct loam_gpa_map *map, const struct loam_region *region)
{
    return insert(map, region, 0);
}

enum loam_error loam_gpa_map_keeper_remove(struct loam_gpa_map *map, loam_gpa start, uint64_t bytes)
{
    return remove_range(map, start, bytes, 0);
}

enum loam_error loam_gpa_map_keeper_prepare(struct loam_gpa_map *map, const struct loam_gpa_change *change,
                                            const struct loam_gpa_view **view)
{
    struct loam_gpa_view *made;
    uint32_t ignored;
    enum loam_error error;

    *view = NULL;
    if (!change_valid(change)) {
        return LOAM_ERROR_INVALID;
    }
    change_lock(map);
    error = prepare(map, &(struct changes){change, 1, 0}, &made, &ignored);
    if (error != LOAM_OK) {
        change_unlock(map);
        return error;
    }
    *view = made;
    return LOAM_OK;
}

void loam_gpa_map_keeper_publish(struct loam_gpa_map *map, const struct loam_gpa_view *view)
{
    publish(map, view);
    change_unlock(map);
}

/* The table that was prepared is nobody's, like any that is not current and not held. */
void loam_gpa_map_keeper_abandon(struct loam_gpa_map *map)
{
    change_unlock(map);
}

bool loam_gpa_map_keeper_settled(struct loam_gpa_map *map, uint64_t generation)
{
    bool settled = true;

    change_lock(map);
    for (uint32_t i = 0; settled && i < shared_load(map->made_count); i++) {
        struct loam_gpa_view *table = table_at(map, i);

        settled =
            table->generation >= generation || table == table_named(map, current_locked(map)) || is_free(map, table);
    }
    change_unlock(map);
    return settled;
}

/* --- Acquire and release --------------------------------------------------------------------------------------- */

/*
 * A reader counts itself in at the table t that current, which it saw as w, names, and looks again. All four operations
 * are seq_cst, so they stand in one order S:
 *     reader:  R1 reader_count[t] += 1    R2 current == w ?
 *     changer: C1 current = x             C2 reader_count[t] == 0 ?    (x != w, which never comes again; then it writes t)
 * Each looks after it has told the other. If R1 comes before C2 in S, C2 finds the count raised and leaves t alone until
 * it falls. If C2 comes before R1, then C1 comes before R2, so R2 finds x or something newer. So a reader that found w at
 * R2, and with it all that was written to t before w was published, reads a finished table, which stays so until the
 * reader counts itself out. One that found something else has read nothing of t.
 * With acquire and release alone, R2 could pass R1 and C2 could pass C1, each side missing the other.
 */
const struct loam_gpa_view *loam_gpa_map_acquire(struct loam_gpa_map *map)
{
    if (map == NULL) {
        return NULL;
    }
    for (;;) {
        /* A guess, which the second look confirms. Acquire: the table has been made, with its reader_count, if never held. */
        uint64_t current = shared_load_acquire(map->current);
        struct loam_gpa_view *table = table_named(map, current);

        shared_add_ordered(table->reader_count, 1);
        /* As an acquire, it pairs with the store in apply: the table's contents are there. */
        if (__builtin_expect(shared_load_ordered(map->current) == current, 1)) {
            return table;
        }
        /* relaxed: nothing of the table was read. */
        shared_subtract(table->reader_count, 1);
    }
}

/* The table that view is; NULL if it is none of the map's. As a rule it is the current one. */
static struct loam_gpa_view *table_of(struct loam_gpa_map *map, const struct loam_gpa_view *view)
{
    /* relaxed: only a guess, as in loam_gpa_map_acquire. */
    struct loam_gpa_view *table = table_named(map, shared_load(map->current));
    uintptr_t offset_bytes = (uintptr_t)view - (uintptr_t)table_at(map, 0);

    if (__builtin_expect(table == view, 1)) {
        return table;
    }
    /* relaxed: whoever holds a table has seen it published, and so made. */
    return offset_bytes % map->stride_bytes == 0 && offset_bytes / map->stride_bytes < shared_load(map->made_count)
               ? table_at(map, offset_bytes / map->stride_bytes)
               : NULL;
}

enum loam_error loam_gpa_map_release(struct loam_gpa_map *map, const struct loam_gpa_view *view)
{
    struct loam_gpa_view *table = map != NULL && view != NULL ? table_of(map, view) : NULL;

    /* relaxed: whoever acquired has counted up; only one who did not can find nothing. */
    if (table == NULL || shared_load(table->reader_count) == 0) {
        return LOAM_ERROR_INVALID;
    }
    /* release: pairs with the load in free_table; this reader's reads come before the next change's writes. */
    shared_subtract_release(table->reader_count, 1);
    return LOAM_OK;
}

uint64_t loam_gpa_map_generation(const struct loam_gpa_map *map)
{
    /* relaxed: whoever has seen a change be made sees its generation too. */
    return map != NULL ? shared_load(map->current) >> TABLE_BITS : 0;
}

/* --- Translation without a view --------------------------------------------------------------------------------- */

/* A change came in between TRANSLATE_TRIES times: look for a table that stays. */
static enum loam_error translate_held(struct loam_gpa_map *map, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                                      void **hva)
{
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    enum loam_error error = loam_gpa_view_translate(view, gpa, bytes, access, hva);
    enum loam_error ignored = loam_gpa_map_release(map, view); /* it was acquired */

    (void)ignored;
    return error;
}

static __attribute__((noinline)) enum loam_error
translate_by_search(struct loam_gpa_map *map, loam_gpa gpa, uint64_t bytes, enum loam_access access, void **hva)
{
    for (uint32_t i = 0; i < TRANSLATE_TRIES; i++) {
        uint64_t current = shared_load_acquire(map->current); /* R1: see loam_gpa_map_translate */
        struct gpa_view_spot spot;

        if (gpa_view_peek(table_named(map, current), gpa, &spot) && shared_load(map->current) == current) {
            bool granted = gpa_view_grants(&spot, gpa, bytes, access);

            *hva = granted ? spot.hva + (gpa.value - spot.start) : NULL;
            return granted ? LOAM_OK : loam_gpa_view_why_not(spot, gpa, bytes, access);
        }
    }
    return translate_held(map, gpa, bytes, access, hva);
}

static __attribute__((noinline)) enum loam_error refuse_null(void **hva)
{
    if (hva != NULL) {
        *hva = NULL;
    }
    return LOAM_ERROR_INVALID;
}

/*
 * A reader counts itself in nowhere. It reads current, then what it wants of the table t that current names, then current
 * again, and believes what it read if nothing was published meanwhile:
 *     reader:  R1 current == w    R2 loads from t, acquire     R3 current == w ?
 *     changer: C1 current = x     C2 stores to t, release      (x != w, which never comes again)
 * R1 acquires what was written to t before w was published. So a load of R2 finds that, or what some C2 has stored since;
 * then that C2 is released to it, and C1, which happens before C2 (change_lock), happens before R3, which finds x or
 * something newer. If R3 finds w, all of R2 is of the table that was published with w.
 * Until then what R2 found may be of several tables: gpa_view_peek stays within this one whatever it finds.
 */
enum loam_error loam_gpa_map_translate(struct loam_gpa_map *map, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                                       void **hva)
{
    struct gpa_view_spot likely;
    uint64_t current;

    if (__builtin_expect(map == NULL || hva == NULL, 0)) {
        return refuse_null(hva);
    }
    current = shared_load_acquire(map->current);
    likely = gpa_view_peek_likely(table_named(map, current));
    /* relaxed, R3: the acquires of R2 come before it. */
    if (__builtin_expect(gpa_view_grants(&likely, gpa, bytes, access), 1) &&
        __builtin_expect(shared_load(map->current) == current, 1)) {
        *hva = likely.hva + (gpa.value - likely.start);
        return LOAM_OK;
    }
    return translate_by_search(map, gpa, bytes, access, hva);
}

/* --- fork(2) ---------------------------------------------------------------------------------------------------- */

void loam_gpa_map_freeze(struct loam_gpa_map *map)
{
    if (map != NULL) {
        change_lock(map);
    }
}

void loam_gpa_map_thaw(struct loam_gpa_map *map)
{
    if (map != NULL) {
        loam_lock_give_after_fork(&map->change_lock);
    }
}

/* --- Validate -------------------------------------------------------------------------------------------------- */

static enum loam_error validate_row(const struct loam_gpa_view *table, uint32_t row, struct loam_diag *diag)
{
    const struct gpa_view_row *shared = &gpa_view_rows(table)[row];
    const struct loam_region *region = &shared->region;

    if (!region_valid(region)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u, %#llx bytes at GPA %#llx, is no valid region", row,
                         (unsigned long long)region->bytes, (unsigned long long)region->start.value);
    }
    if (table->starts[row] != region->start.value) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u starts at GPA %#llx, its search key says %#llx",
                         row, (unsigned long long)region->start.value, (unsigned long long)table->starts[row]);
    }
    if (row > 0 && gpa_view_end_of(gpa_view_region_at(table, row - 1)) > region->start.value) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u at GPA %#llx starts before row %u ends", row,
                         (unsigned long long)region->start.value, row - 1);
    }
    if (row > 0 && continues(gpa_view_region_at(table, row - 1), region)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u at GPA %#llx continues row %u and is not joined",
                         row, (unsigned long long)region->start.value, row - 1);
    }
    if (shared->bytes != region->bytes || shared->hva_and_access != (uintptr_t)region->hva + region->access) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: row %u at GPA %#llx is another to who holds no view", row,
                         (unsigned long long)region->start.value);
    }
    return LOAM_OK;
}

/* Whether searches in the table, whose rows are right, find their rows. */
static enum loam_error validate_index(const struct loam_gpa_view *table, struct loam_diag *diag)
{
    uint64_t first = table->count > 0 ? gpa_view_region_at(table, 0)->start.value : 0;
    uint64_t end = table->count > 0 ? gpa_view_end_of(gpa_view_region_at(table, table->count - 1)) : 0;
    uint32_t row = 0;

    if (table->starts[table->count] != UINT64_MAX || table->first != first || table->span_bytes != end - first) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: the index does not span GPA %#llx to %#llx",
                         (unsigned long long)first, (unsigned long long)end);
    }
    for (uint64_t b = 0; table->count > 0 && b <= ((end - first - 1) >> table->bucket_shift) + 1; b++) {
        while (row + 1 < table->count &&
               gpa_view_region_at(table, row + 1)->start.value <= first + (b << table->bucket_shift)) {
            row++;
        }
        if (b > gpa_view_bucket_capacity(table->capacity) || gpa_view_buckets(table)[b] != row) {
            return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: bucket %llu does not lead to row %u",
                             (unsigned long long)b, row);
        }
    }
    return LOAM_OK;
}

static enum loam_error validate_likely(const struct loam_gpa_view *table, struct loam_diag *diag)
{
    struct gpa_view_spot found = gpa_view_likely(table), likely = likely_spot(table);

    return found.start == likely.start && found.bytes == likely.bytes && found.hva == likely.hva &&
                   found.access == likely.access
               ? LOAM_OK
               : loam_fail(
                     diag, LOAM_ERROR_CORRUPT,
                     "gpa map: lookups first try %#llx bytes at GPA %#llx, which are not the likely row, %u of %u",
                     (unsigned long long)found.bytes, (unsigned long long)found.start, likely_row(table), table->count);
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
    error = error == LOAM_OK ? validate_index(table, diag) : error;
    return error == LOAM_OK ? validate_likely(table, diag) : error;
}

/* Whether what current names was made, is complete, and is of the generation that current says. */
static enum loam_error validate_current(struct loam_gpa_map *map, struct loam_diag *diag)
{
    uint64_t current = current_locked(map), index = current % (1u << TABLE_BITS);
    uint32_t made_count = shared_load(map->made_count);

    if (made_count > map->table_capacity || index >= made_count || !table_at(map, index)->complete) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT,
                         "gpa map: table %u of %u, %u of them made, is published and is not complete", (uint32_t)index,
                         map->table_capacity, made_count);
    }
    if (table_at(map, index)->generation != current >> TABLE_BITS) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: table %u is of generation %llu, and published as of %llu",
                         (uint32_t)index, (unsigned long long)table_at(map, index)->generation,
                         (unsigned long long)(current >> TABLE_BITS));
    }
    return LOAM_OK;
}

/* Tables that nobody may read are not looked at. */
static enum loam_error validate_locked(struct loam_gpa_map *map, struct loam_diag *diag)
{
    enum loam_error error = validate_current(map, diag);

    for (uint32_t i = 0; error == LOAM_OK && i < shared_load(map->made_count); i++) {
        struct loam_gpa_view *table = table_at(map, i);
        /* relaxed: a table that is held or current is not written, and this only reads. */
        uint32_t reader_count = shared_load(table->reader_count);

        if (reader_count > INT32_MAX) {
            return loam_fail(diag, LOAM_ERROR_CORRUPT, "gpa map: table %u was released %u times too often", i,
                             -reader_count);
        }
        if (table == table_named(map, current_locked(map)) || (reader_count > 0 && table->complete)) {
            error = validate_table(table, diag);
        }
    }
    return error;
}

enum loam_error loam_gpa_map_validate(struct loam_gpa_map *map, struct loam_diag *diag)
{
    enum loam_error error;

    if (map == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "gpa map: NULL given where one is wanted");
    }
    change_lock(map);
    error = validate_locked(map, diag);
    change_unlock(map);
    return error;
}
