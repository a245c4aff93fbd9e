// SPDX-License-Identifier: Apache-2.0
/* What the two halves of loam_frame_validate share. Private to frame_validate*.c. */
#ifndef LOAM_FRAME_VALIDATE_CACHE_H
#define LOAM_FRAME_VALIDATE_CACHE_H

#include "allocator/frame_spot.h"

/* What was counted so far. */
struct recount {
    struct loam_frame *frame;
    struct loam_diag *diag;
    uint64_t listed[LOAM_FRAME_ZONE_COUNT][2][FRAME_LISTS]; /* chunks that say that they are on the list */
    uint64_t owned;                                         /* chunks with an owner, but those WHOLE */
    uint64_t kept;                                          /* WHOLE chunks that say that they are in the front */
    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT];
    uint64_t free_chunks;
    uint64_t released_chunks;
    bool spare_seen[LOAM_FRAME_ZONE_COUNT]; /* the spare piece is a free piece of the zone */
};

#define CORRUPT(recount, ...) loam_fail((recount)->diag, LOAM_ERROR_CORRUPT, __VA_ARGS__)

/* Whether a link leads to a chunk. */
bool loam_frame_validate_link(const struct recount *recount, uint64_t link);

/* Nothing but blocks of the order that the chunk's bitmaps show as allocated is made, ready or back. */
bool loam_frame_validate_made(const struct frame_spot *spot, const struct frame_window *window, uint32_t order);

/* Follow a list; *steps receives its length. At most most steps are made. */
LOAM_MUST_USE enum loam_error loam_frame_validate_list(struct recount *recount, const struct frame_lists *lists,
                                                       uint32_t list, uint64_t most, uint64_t *steps);

/* Whether what a cache says of itself, apart from its chunks, can be; its owner may be in a call. */
bool loam_frame_validate_record(const struct loam_frame *frame, uint32_t id);

/*
 * All caches stand still, and the sections' records are in order. What lies ready in the caches is settled if it could
 * lie there.
 */
LOAM_MUST_USE enum loam_error loam_frame_validate_windows(struct recount *recount);

/* The same, and the sections are counted. */
LOAM_MUST_USE enum loam_error loam_frame_validate_caches(struct recount *recount);

#endif
