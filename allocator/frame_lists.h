// SPDX-License-Identifier: Apache-2.0
/*
 * Lists of chunks, filed and unfiled. Private to frame*.c. The caller has the chunks of the lists to itself:
 * for those of the allocator by its lock, for those of a cache by being its owner or by having stopped it.
 */
#ifndef LOAM_FRAME_LISTS_H
#define LOAM_FRAME_LISTS_H

#include "allocator/frame_spot.h"

void loam_frame_lists_init(struct frame_lists *lists);

/* The lists that the chunk belongs to: its owner's, or the allocator's. */
struct frame_lists *loam_frame_lists_of(struct loam_frame *frame, const struct frame_spot *spot);

/* The chunk is on no list. */
void loam_frame_lists_push(struct loam_frame *frame, const struct frame_spot *spot, uint32_t list);

/* The chunk is on a list. */
void loam_frame_lists_remove(struct loam_frame *frame, const struct frame_spot *spot);

/* Put a partly used chunk, not current, on the list that its free frames, fit and owner ask for. */
void loam_frame_lists_file(struct loam_frame *frame, const struct frame_spot *spot);

#endif
