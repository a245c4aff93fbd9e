// SPDX-License-Identifier: Apache-2.0
/*
 * What a table of the map looks like: gpa_map.c builds and publishes it, gpa_view.c answers from it. Private to the
 * two.
 *
 * Whoever calls a function here holds the table: as a reader, between acquire and release, or as a changer, who holds
 * the map's change_lock. What needs no hold says so. Nothing here writes to it.
 */
#ifndef LOAM_GPA_VIEW_H
#define LOAM_GPA_VIEW_H

#include "allocator/atomic.h"
#include "loam/gpa_map.h"

#include <assert.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GPA_VIEW_CACHE_LINE_BYTES   64
#define GPA_VIEW_BUCKETS_PER_REGION 2

/* A row fills one cache line, so that a lookup at random misses once at most. */
struct gpa_view_row {
    alignas(GPA_VIEW_CACHE_LINE_BYTES) struct loam_region region;
    uint64_t bytes;          /* region.bytes */
    uint64_t hva_and_access; /* region.hva, a multiple of LOAM_REGION_ALIGN_BYTES, and region.access below that */
};

static_assert(sizeof(struct gpa_view_row) == GPA_VIEW_CACHE_LINE_BYTES, "a row is one cache line");
static_assert(sizeof(struct loam_region) == 48, "no flag makes a region larger");

/* What translation wants of a region. bytes == 0: there is none. */
struct gpa_view_spot {
    uint64_t start;
    uint64_t bytes;
    char *hva;
    uint32_t access; /* enum loam_access */
};

/*
 * Invariants of a published table, which nobody writes until it is neither current nor held:
 *   rows[i].start + rows[i].bytes <= rows[i + 1].start      sorted and disjoint
 *   no two neighbouring rows continue each other            canonical: see continues() in gpa_map.c
 *   starts[i] == rows[i].start, starts[count] == UINT64_MAX the dense copy that searches read, and its sentinel
 *   first == rows[0].start, first + span_bytes == end of the last row; span_bytes == 0 == count for an empty table
 *   buckets[b] == the last row that starts at or below first + (b << bucket_shift)
 *   rows[i].bytes and rows[i].hva_and_access say what rows[i].region says
 *   likely is the row that has most of all memory; its bytes are 0 where none has: see likely_row() in gpa_map.c
 *
 * What readers write stands on a line of its own, and what every lookup reads on another.
 *
 * Shared: likely_*, bucket_shift, first, span_bytes, starts, buckets, and of a row bytes and hva_and_access. They are
 * also read by threads that hold no table: see loam_gpa_map_translate. Who changes the map stores them with release;
 * holders read them as any other memory. The two offsets and capacity stay as they are from before the first publication.
 */
struct loam_gpa_view {
    alignas(GPA_VIEW_CACHE_LINE_BYTES) _Atomic uint32_t reader_count;

    alignas(GPA_VIEW_CACHE_LINE_BYTES) uint64_t likely_start;
    uint64_t likely_bytes;
    char *likely_hva;
    uint32_t likely_access;
    uint32_t bucket_shift;
    uint64_t first;
    uint64_t span_bytes;
    size_t buckets_offset_bytes; /* from the view */
    size_t rows_offset_bytes;

    alignas(GPA_VIEW_CACHE_LINE_BYTES) uint64_t generation;
    uint32_t count;
    uint32_t capacity;
    bool complete; /* false while, and after, a change that failed was built here */

    uint64_t starts[]; /* capacity + 1; then buckets, then rows */
};

static_assert(offsetof(struct loam_gpa_view, generation) == (size_t)2 * GPA_VIEW_CACHE_LINE_BYTES,
              "lookups begin in one line");

/* --- A table's parts -------------------------------------------------------------------------------------------- */

static inline const uint32_t *gpa_view_buckets(const struct loam_gpa_view *view)
{
    return (const void *)((const char *)view + view->buckets_offset_bytes);
}

static inline const struct gpa_view_row *gpa_view_rows(const struct loam_gpa_view *view)
{
    return (const void *)((const char *)view + view->rows_offset_bytes);
}

static inline const struct loam_region *gpa_view_region_at(const struct loam_gpa_view *view, uint32_t index)
{
    return &gpa_view_rows(view)[index].region;
}

static inline uint64_t gpa_view_bucket_capacity(uint32_t region_capacity)
{
    return (uint64_t)region_capacity * GPA_VIEW_BUCKETS_PER_REGION;
}

static inline struct gpa_view_spot gpa_view_likely(const struct loam_gpa_view *view)
{
    return (struct gpa_view_spot){view->likely_start, view->likely_bytes, view->likely_hva, view->likely_access};
}

/*
 * For who holds no table: the likely region, and what lies at gpa, of a table that may be rewritten at the same moment.
 * What they say counts for nothing if it was. Acquire: pairs with the releases of the changer; see
 * loam_gpa_map_translate.
 */
static inline struct gpa_view_spot gpa_view_peek_likely(const struct loam_gpa_view *view)
{
    return (struct gpa_view_spot){shared_load_acquire(view->likely_start), shared_load_acquire(view->likely_bytes),
                                  shared_load_acquire(view->likely_hva), shared_load_acquire(view->likely_access)};
}

/*
 * False: what was read does not fit together, so that the table is being rewritten. It is the search of gpa_view.c where
 * every word may be of another table than the one before: each index is held against what the table has room for, and the
 * candidates only ever get fewer.
 */
static inline bool gpa_view_peek(const struct loam_gpa_view *view, loam_gpa gpa, struct gpa_view_spot *spot)
{
    const uint32_t *buckets = gpa_view_buckets(view);
    uint64_t offset_bytes = gpa.value - shared_load_acquire(view->first), bucket, start, bytes, hva_and_access;
    uint32_t low, candidate_count;

    *spot = (struct gpa_view_spot){0};
    if (offset_bytes >= shared_load_acquire(view->span_bytes)) {
        return true;
    }
    bucket = offset_bytes >> shared_load_acquire(view->bucket_shift) % 64;
    if (bucket >= gpa_view_bucket_capacity(view->capacity)) {
        return false;
    }
    low = shared_load_acquire(buckets[bucket]);
    candidate_count = shared_load_acquire(buckets[bucket + 1]) - low + 1;
    if (low >= view->capacity || candidate_count > view->capacity - low) {
        return false;
    }
    while (__builtin_expect(candidate_count > 2, 0)) {
        uint32_t half = candidate_count / 2;

        low += shared_load_acquire(view->starts[low + half]) <= gpa.value ? half : 0;
        candidate_count -= half;
    }
    low += shared_load_acquire(view->starts[low + 1]) <= gpa.value;
    if (low >= view->capacity) {
        return false;
    }
    start = shared_load_acquire(view->starts[low]);
    bytes = shared_load_acquire(gpa_view_rows(view)[low].bytes);
    hva_and_access = shared_load_acquire(gpa_view_rows(view)[low].hva_and_access);
    if (gpa.value - start < bytes) {
        uint64_t access = hva_and_access % LOAM_REGION_ALIGN_BYTES;

        *spot = (struct gpa_view_spot){start, bytes, (char *)(uintptr_t)(hva_and_access - access), (uint32_t)access};
    }
    return true;
}

/* The row whose region holds gpa; count if none does. */
uint32_t loam_gpa_view_row_holding(const struct loam_gpa_view *view, uint64_t gpa);

/* --- Regions and accesses as values ----------------------------------------------------------------------------- */

static inline uint64_t gpa_view_end_of(const struct loam_region *region)
{
    return region->start.value + region->bytes;
}

static inline bool gpa_view_is_memory(const struct loam_region *region)
{
    return region->type != LOAM_REGION_DEVICE;
}

/*
 * Whether all of [gpa, gpa + bytes) lies in [start, start + room_bytes), which grants as much as granted. As few branches
 * as can be: a device grants LOAM_ACCESS_NONE, and what is no access or no byte wraps to more than any region has.
 */
static inline bool gpa_view_allows(uint64_t start, uint64_t room_bytes, uint32_t granted, uint64_t gpa, uint64_t bytes,
                                   enum loam_access access)
{
    return __builtin_expect(bytes - 1 < room_bytes, 1) && __builtin_expect(gpa - start <= room_bytes - bytes, 1) &&
           __builtin_expect((uint32_t)access - 1 < granted, 1);
}

static inline bool gpa_view_grants(const struct gpa_view_spot *spot, loam_gpa gpa, uint64_t bytes,
                                   enum loam_access access)
{
    return gpa_view_allows(spot->start, spot->bytes, spot->access, gpa.value, bytes, access);
}

/* Why the spot where gpa lies does not grant it: the first reason in the order of loam_gpa_view_translate. */
enum loam_error loam_gpa_view_why_not(struct gpa_view_spot spot, loam_gpa gpa, uint64_t bytes, enum loam_access access);

/* Whether access is one that can be asked for. */
static inline bool gpa_view_access_valid(enum loam_access access)
{
    return access == LOAM_ACCESS_READ || access == LOAM_ACCESS_WRITE;
}

/* What of region lies in [start, end); its bytes are 0 if nothing does. */
struct loam_region loam_gpa_view_clip(const struct loam_region *region, uint64_t start, uint64_t end);

#endif
