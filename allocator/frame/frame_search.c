// SPDX-License-Identifier: Apache-2.0
/*
 * By list, a request is taken for one of the order that holds it at its natural alignment:
 *     order == log2(max(align, count rounded up to a power of two))
 * A naturally aligned block of that order serves it whatever the boundary, so an empty list is a proof only where the
 * request is such a block itself: count == align.
 */
#include "allocator/frame/frame_search.h"

#include "allocator/frame/frame_buddy.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_lists.h"

/* --- Places in a free range ------------------------------------------------------------------------------------ */

static bool crosses(const struct frame_want *want, uint64_t start)
{
    return want->boundary != 0 && ((start ^ (start + want->count - 1)) & ~(want->boundary - 1)) != 0;
}

/*
 * The lowest place in [from, to). Where the first aligned place crosses a boundary, the block fits behind that
 * boundary: count <= boundary, and align <= boundary, or an aligned place would not cross.
 */
static bool fit_low(const struct frame_want *want, uint64_t from, uint64_t to, uint64_t *start)
{
    uint64_t at = loam_align_up(from, want->align);

    if (crosses(want, at)) {
        at = loam_align_down(at + want->count - 1, want->boundary);
    }
    *start = at;
    return at <= to && want->count <= to - at;
}

/* The highest place in [from, to); likewise. */
static bool fit_high(const struct frame_want *want, uint64_t from, uint64_t to, uint64_t *start)
{
    uint64_t at;

    if (to - from < want->count) {
        return false;
    }
    at = loam_align_down(to - want->count, want->align);
    if (crosses(want, at)) {
        uint64_t border = loam_align_down(at + want->count - 1, want->boundary);

        if (border < want->count) {
            return false;
        }
        at = loam_align_down(border - want->count, want->align);
    }
    *start = at;
    return at >= from;
}

/* --- By list --------------------------------------------------------------------------------------------------- */

static uint32_t list_order(const struct frame_want *want)
{
    return (uint32_t)frame_max(frame_log2_ceil(want->count), frame_log2_floor(want->align));
}

/* The lowest place within one partly used chunk. */
static bool fit_in_chunk(const struct frame_map *map, const struct frame_want *want, uint64_t base, uint64_t *start)
{
    uint32_t from, to = 0;

    if (want->count == want->align) {
        from = frame_bits_find_order(map, frame_log2_floor(want->count));
        *start = base + from;
        return from < LOAM_FRAME_CHUNK_FRAMES;
    }
    while ((from = frame_bits_next(map, FRAME_BITS_FREE, to)) < LOAM_FRAME_CHUNK_FRAMES) {
        to = frame_bits_next(map, FRAME_BITS_USED, from);
        if (fit_low(want, base + from, base + to, start)) {
            return true;
        }
        if (to == LOAM_FRAME_CHUNK_FRAMES) {
            break;
        }
    }
    return false;
}

/* A bit for the lowest list of each bucket. */
#define ALL_BUCKETS  UINT64_C(0x0040201008040201)
#define FIRST_BUCKET UINT64_C(1)

/* The chunk turned out not to hold a block of the order: it is filed lower. Nobody frees in a lent one meanwhile. */
static void lower(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot, uint32_t order)
{
    bool held = shared_load(spot->chunk->owner) != 0 && frame_lend_hold(spot->chunk);

    if (!held || frame_bits_find_order(spot->map, order) == LOAM_FRAME_CHUNK_FRAMES) {
        spot->chunk->fit = (uint8_t)(order - 1);
        loam_frame_lists_file(frame, lists, spot);
    }
    if (held) {
        frame_lend_unlock(spot->chunk);
    }
}

/*
 * The fullest partly used chunk of the lists that may hold a block of the order. Each that turns out not to is filed
 * lower, and rises only when frames in it are freed: so failures are paid for by frees.
 */
static bool search_partial(struct loam_frame *frame, struct frame_lists *lists, const struct frame_want *want,
                           uint32_t order, uint64_t buckets, struct frame_spot *spot, uint64_t *start)
{
    /* The fits from order up, in each of the buckets. */
    uint64_t fits = ((UINT64_C(0x1ff) << order) & 0x1ff) * buckets;

    while ((lists->mask[0] & fits) != 0) {
        *spot = frame_spot_from_link(frame, lists->head[__builtin_ctzll(lists->mask[0] & fits)]);
        if (fit_in_chunk(spot->map, want, spot->start, start)) {
            return true;
        }
        lower(frame, lists, spot, order);
    }
    return false;
}

/* The smallest free block of whole chunks that holds the order. */
static bool search_buddy(const struct loam_frame *frame, const struct frame_lists *lists, uint32_t order,
                         struct frame_spot *spot)
{
    uint64_t fits = lists->mask[1] >> (order - FRAME_CHUNK_ORDER) << (order - FRAME_CHUNK_ORDER);

    if (fits == 0) {
        return false;
    }
    *spot = frame_spot_from_link(frame, lists->head[FRAME_LIST_FREE + __builtin_ctzll(fits)]);
    return true;
}

/* Anywhere in a zone, all of which the request may use. released: which of the two sets of lists. */
static bool search_set(struct loam_frame *frame, const struct frame_want *want, enum loam_frame_zone zone,
                       bool released, struct frame_section **section, uint64_t *start)
{
    struct frame_lists *lists = &frame->lists[zone][released];
    uint32_t order = list_order(want);
    struct frame_spot spot;

    if (order < FRAME_CHUNK_ORDER && search_partial(frame, lists, want, order, ALL_BUCKETS, &spot, start)) {
        *section = spot.section;
        return true;
    }
    order = (uint32_t)frame_max(order, FRAME_CHUNK_ORDER);
    if (!search_buddy(frame, lists, order, &spot) &&
        !(loam_frame_buddy_merge_spare(frame, zone) && search_buddy(frame, lists, order, &spot))) {
        return false;
    }
    *section = spot.section;
    *start = spot.start;
    return true;
}

static bool search_lists(struct loam_frame *frame, const struct frame_want *want, enum loam_frame_zone zone,
                         struct frame_section **section, uint64_t *start)
{
    return ((want->view & FRAME_VIEW_BACKED) != 0 && search_set(frame, want, zone, false, section, start)) ||
           ((want->view & FRAME_VIEW_RELEASED) != 0 && search_set(frame, want, zone, true, section, start));
}

bool loam_frame_search_order(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order,
                             struct frame_section **section, uint64_t *start)
{
    const struct frame_want want = {.count = UINT64_C(1) << order, .align = UINT64_C(1) << order};

    return search_set(frame, &want, zone, false, section, start);
}

bool loam_frame_search_lists(struct loam_frame *frame, struct frame_lists *lists, uint32_t order,
                             struct frame_spot *spot)
{
    const struct frame_want want = {.count = UINT64_C(1) << order, .align = UINT64_C(1) << order};
    uint64_t start;

    /* One with a few free frames is soon full again: it is left to gather more while there are others. */
    return search_partial(frame, lists, &want, order, ALL_BUCKETS - FIRST_BUCKET, spot, &start) ||
           search_partial(frame, lists, &want, order, FIRST_BUCKET, spot, &start);
}

bool loam_frame_search_chunk(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order,
                             struct frame_spot *spot)
{
    return loam_frame_search_lists(frame, &frame->lists[zone][0], order, spot);
}

bool loam_frame_search_piece(struct loam_frame *frame, enum loam_frame_zone zone, struct frame_spot *spot)
{
    return search_buddy(frame, &frame->lists[zone][0], FRAME_CHUNK_ORDER, spot);
}

/* --- By walk --------------------------------------------------------------------------------------------------- */

static bool search_section(const struct loam_frame *frame, struct frame_section *section, const struct frame_want *want,
                           uint64_t *start)
{
    uint64_t to = frame_min(section->end, want->ceiling);
    uint64_t floor = frame_max(section->start, want->floor);
    bool at_top = to >= section->free_top && want->view == FRAME_VIEW_SHARED;

    to = frame_min(to, section->free_top);
    while (to > floor && to - floor >= want->count) {
        uint64_t from;

        to = loam_frame_walk_free_down(frame, section, to, want->view);
        if (at_top) {
            section->free_top = to;
            at_top = false;
        }
        from = loam_frame_walk_used_down(frame, section, to, want->view);
        if (to > floor && fit_high(want, frame_max(from, floor), to, start)) {
            return true;
        }
        to = from;
    }
    return false;
}

static bool search_walk(struct loam_frame *frame, const struct frame_want *want, struct frame_section **section,
                        uint64_t *start)
{
    uint64_t ceiling = frame_min(want->ceiling, frame->open_end);

    for (int64_t n = ceiling == 0 ? -1 : loam_frame_spot_index(frame, ceiling - 1); n >= 0; n--) {
        *section = frame_spot_indexed(frame, (uint64_t)n);
        if ((*section)->end <= want->floor) {
            break;
        }
        if ((*section)->use == FRAME_OPEN && (*section)->free_frames >= want->count &&
            search_section(frame, *section, want, start)) {
            return true;
        }
    }
    return false;
}

/* --- Both ------------------------------------------------------------------------------------------------------ */

/* In chunks of the kinds in view, by list where that decides. */
static bool search_view(struct loam_frame *frame, const struct frame_want *want, struct frame_section **section,
                        uint64_t *start)
{
    uint64_t top = frame->open_end;
    /* Free pieces of both kinds side by side are on no list together. */
    bool one_kind = want->view != FRAME_VIEW_SHARED || !frame->released_ever;
    bool exact = want->count == want->align && want->count <= frame->zone_end && one_kind;

    if (want->ceiling > frame->zone_end && top > frame->zone_end) {
        bool listed = want->ceiling >= top;

        if (listed && search_lists(frame, want, LOAM_FRAME_ZONE_NORMAL, section, start)) {
            return true;
        }
        if (!listed || !exact) {
            /* Also where the lists of DMA32 would do: a fit above 4 GiB goes before one below. */
            return search_walk(frame, want, section, start);
        }
    }
    if (want->ceiling >= frame_min(top, frame->zone_end)) {
        if (want->floor == 0 && search_lists(frame, want, LOAM_FRAME_ZONE_DMA32, section, start)) {
            return true;
        }
        if (exact) {
            return false;
        }
    }
    return search_walk(frame, want, section, start);
}

bool loam_frame_search(struct loam_frame *frame, const struct frame_want *want, struct frame_section **section,
                       uint64_t *start)
{
    struct frame_want backed = *want, high = *want;

    if (want->view != FRAME_VIEW_SHARED || !frame->released_ever) {
        return search_view(frame, want, section, start);
    }
    /* The highest zone first, and in each what is backed. */
    backed.view = FRAME_VIEW_BACKED;
    if (want->ceiling > frame->zone_end) {
        backed.floor = frame->zone_end;
        high.floor = frame->zone_end;
        if (search_view(frame, &backed, section, start) || search_view(frame, &high, section, start)) {
            return true;
        }
        backed.floor = want->floor;
    }
    return search_view(frame, &backed, section, start) || search_view(frame, want, section, start);
}

bool loam_frame_search_section(const struct loam_frame *frame, struct frame_section *section,
                               const struct frame_want *want, uint64_t *start)
{
    struct frame_want backed = *want;

    backed.view = FRAME_VIEW_BACKED;
    return (want->view == FRAME_VIEW_SHARED && frame->released_ever &&
            search_section(frame, section, &backed, start)) ||
           search_section(frame, section, want, start);
}
