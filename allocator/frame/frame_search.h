// SPDX-License-Identifier: Apache-2.0
/*
 * Where a request can be served. Private to frame*.c; the allocator's lock is held.
 *
 * Two ways. By list: constant time, and the answer is right whenever it is yes. By walk: from the highest frame allowed
 * downwards over every free range, right in either case, for requests that the lists cannot decide.
 */
#ifndef LOAM_FRAME_SEARCH_H
#define LOAM_FRAME_SEARCH_H

#include "allocator/frame/frame_walk.h"

/* A request, checked, in one form. A block [s, s + count) serves it if floor <= s and s + count <= ceiling. */
struct frame_want {
    uint64_t count;
    uint64_t align;    /* a power of two */
    uint64_t boundary; /* a power of two >= count; 0: none */
    uint64_t floor;    /* > 0: the DMA32 reserve may not be entered below it; then floor > zone_end - count */
    uint64_t ceiling;
    uint32_t view; /* FRAME_VIEW_BACKED, FRAME_VIEW_RELEASED or both */
};

/* A place for the block. Lowers fit of chunks and free_top of sections on the way; nothing else changes. */
bool loam_frame_search(struct loam_frame *frame, const struct frame_want *want, struct frame_section **section,
                       uint64_t *start);

/* The same in one section. */
bool loam_frame_search_section(const struct loam_frame *frame, struct frame_section *section,
                               const struct frame_want *want, uint64_t *start);

/*
 * A chunk, backed and partly used, in which a block of the order is free, order 0 to 8; the fullest. False: there is
 * none.
 */
bool loam_frame_search_chunk(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order,
                             struct frame_spot *spot);

/* A naturally aligned block of the order that is free in the zone and backed, by its lists alone. */
bool loam_frame_search_order(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order,
                             struct frame_section **section, uint64_t *start);

/* The smallest free piece of whole chunks that is backed; its first chunk. */
bool loam_frame_search_piece(struct loam_frame *frame, enum loam_frame_zone zone, struct frame_spot *spot);

/* As loam_frame_search_chunk, among the lists of a lender. */
bool loam_frame_search_lists(struct loam_frame *frame, struct frame_lists *lists, uint32_t order,
                             struct frame_spot *spot);

#endif
