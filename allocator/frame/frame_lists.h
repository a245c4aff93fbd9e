// SPDX-License-Identifier: Apache-2.0
/*
 * Lists of chunks, filed and unfiled. Private to allocator/frame and to lenders. The caller has the chunks of the lists
 * to itself: for the allocator's by its lock, for a lender's by being its owner or by having stopped him.
 */
#ifndef LOAM_FRAME_LISTS_H
#define LOAM_FRAME_LISTS_H

#include "allocator/frame/frame_spot.h"

void loam_frame_lists_init(struct frame_lists *lists);

/* The allocator's lists that a chunk without an owner belongs to, in a section of such use. */
static inline struct frame_lists *frame_lists_for(struct loam_frame *frame, const struct frame_spot *spot, uint32_t use)
{
    return &frame->lists[spot->zone][use == FRAME_OPEN ? spot->chunk->released & 1 : FRAME_LISTS_WITHHELD];
}

static inline struct frame_lists *frame_lists_of(struct loam_frame *frame, const struct frame_spot *spot)
{
    return frame_lists_for(frame, spot, spot->section->use);
}

/* The chunk is on no list. */
void loam_frame_lists_push(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot,
                           uint32_t list);

/* The chunk is on one of the lists. */
void loam_frame_lists_remove(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot);

/* Put a partly used chunk, on one of the lists or none, on the one that its free frames, fit and owner ask for. */
void loam_frame_lists_file(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot);

#endif
