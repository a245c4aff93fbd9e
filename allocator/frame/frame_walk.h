// SPDX-License-Identifier: Apache-2.0
/*
 * From frame to frame over a section. Private to frame*.c; the allocator's lock is held.
 *
 * A view says what is seen as free: chunks with backing, released ones, lent ones. Whatever is not seen counts as
 * used. Lent chunks change meanwhile: what a walk says of them was so at one moment for each word of 64 frames.
 */
#ifndef LOAM_FRAME_WALK_H
#define LOAM_FRAME_WALK_H

#include "allocator/frame/frame_spot.h"

enum {
    FRAME_VIEW_BACKED = 1u << 0,
    FRAME_VIEW_RELEASED = 1u << 1,
    FRAME_VIEW_LENT = 1u << 2,
    FRAME_VIEW_SHARED = FRAME_VIEW_BACKED | FRAME_VIEW_RELEASED,
    FRAME_VIEW_ALL = FRAME_VIEW_SHARED | FRAME_VIEW_LENT,
};

/* The lowest free (used) frame in [pfn, to); to: none. At most to the section's end. */
uint64_t loam_frame_walk_free(const struct loam_frame *frame, struct frame_section *section, uint64_t pfn, uint64_t to,
                              uint32_t view);
uint64_t loam_frame_walk_used(const struct loam_frame *frame, struct frame_section *section, uint64_t pfn, uint64_t to,
                              uint32_t view);

/* One above the highest free (used) frame below end; section->start: none. */
uint64_t loam_frame_walk_free_down(const struct loam_frame *frame, struct frame_section *section, uint64_t end,
                                   uint32_t view);
uint64_t loam_frame_walk_used_down(const struct loam_frame *frame, struct frame_section *section, uint64_t end,
                                   uint32_t view);

/* Whether a chunk that [start, start + count) touches is released. */
bool loam_frame_walk_released(const struct loam_frame *frame, struct frame_section *section, uint64_t start,
                              uint64_t count);

#endif
