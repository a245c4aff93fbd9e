// SPDX-License-Identifier: Apache-2.0
/*
 * The buddy of whole chunks: free pieces, naturally aligned, merged and split; and the pieces of blocks that cover
 * whole chunks. Private to frame*.c; the allocator's lock is held, and the chunks have no owner.
 *
 * A piece is backed as a whole or released as a whole; pieces of different kinds do not merge.
 */
#ifndef LOAM_FRAME_BUDDY_H
#define LOAM_FRAME_BUDDY_H

#include "allocator/frame/frame_spot.h"

/* List free pieces that make up the chunks [from, to), none of which has a free buddy outside. */
void loam_frame_buddy_add(struct loam_frame *frame, struct frame_section *section, uint64_t from, uint64_t to);

/* Take the piece at its first chunk off its list, whole: for a section that goes away. */
void loam_frame_buddy_remove(struct loam_frame *frame, const struct frame_spot *spot);

/* Take one chunk of a free piece out; it is INNER then, its `released` as the piece's. */
void loam_frame_buddy_take_one(struct loam_frame *frame, const struct frame_spot *spot);

/* Make the chunks [from, to), which are free, WHOLE pieces of the block. Returns whether one is released. */
bool loam_frame_buddy_take(struct loam_frame *frame, struct frame_section *section, uint64_t from, uint64_t to,
                           struct frame_span block);

/* Give a piece of chunks back, `released` as its first chunk says. */
void loam_frame_buddy_give(struct loam_frame *frame, const struct frame_spot *spot, uint32_t order);

/* Merge the piece that was given back last in the zone with its buddies. False: there is none. */
bool loam_frame_buddy_merge_spare(struct loam_frame *frame, enum loam_frame_zone zone);

#endif
