// SPDX-License-Identifier: Apache-2.0
/* What loam_frame_validate shares with a lender's part of it. Private to allocator/frame and to lenders. */
#ifndef LOAM_FRAME_RECOUNT_H
#define LOAM_FRAME_RECOUNT_H

#include "allocator/frame/frame_spot.h"

/* What was counted so far. */
struct frame_recount {
    struct loam_frame *frame;
    struct loam_diag *diag;
    uint64_t listed[LOAM_FRAME_ZONE_COUNT][FRAME_LISTS_COUNT]
                   [FRAME_LISTS]; /* chunks that say that they are on the list */
    uint64_t kept;                /* WHOLE chunks that say that they are in the front */
    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT];
    uint64_t withheld_frames[LOAM_FRAME_ZONE_COUNT];
    uint64_t free_chunks;
    uint64_t released_chunks;
    bool spare_seen[LOAM_FRAME_ZONE_COUNT]; /* the spare piece is a free piece of the zone */
    uint64_t lent;                          /* lent chunks, but those WHOLE */
    uint64_t freed;                         /* lent chunks in which others freed */
    uint32_t lent_whole[LOAM_FRAME_CACHE_MAX];
    uint64_t lent_frames[LOAM_FRAME_ZONE_COUNT]; /* that are free in them */
};

#define CORRUPT(recount, ...) loam_fail((recount)->diag, LOAM_ERROR_CORRUPT, __VA_ARGS__)

/* Whether a link leads to a chunk. */
bool loam_frame_validate_link(const struct frame_recount *recount, uint64_t link);

/* Nothing but blocks of the order that the chunk's bitmaps show as allocated is made, ready or back. */
bool loam_frame_validate_made(const struct frame_spot *spot, const struct frame_window *window, uint32_t order);

/* Follow a list of chunks of one owner, 0: nobody; *steps receives its length. At most most steps are made. */
LOAM_MUST_USE enum loam_error loam_frame_validate_list(struct frame_recount *recount, const struct frame_lists *lists,
                                                       uint32_t list, uint32_t owner, uint64_t most, uint64_t *steps);

#endif
