// SPDX-License-Identifier: Apache-2.0
/*
 * From ids, links and frame numbers to records. Private to frame*.c; the allocator's lock is held, or a cache's owner
 * follows links among its own chunks.
 */
#ifndef LOAM_FRAME_FIND_H
#define LOAM_FRAME_FIND_H

#include "allocator/frame_layout.h"

/* The section that has the id, or NULL. */
struct frame_section *loam_frame_section_from_id(const struct loam_frame *frame, uint64_t id);

/* The section of a link. */
static inline struct frame_section *frame_section_from_link(const struct loam_frame *frame, uint64_t link)
{
    return &frame_sections(frame)[link >> 32];
}

static inline struct frame_chunk *frame_chunk_from_link(const struct loam_frame *frame, uint64_t link)
{
    return &frame_chunks(frame, frame_section_from_link(frame, link))[(uint32_t)link];
}

/* The section whose range, prefix included, holds pfn, or the nearest below; its place in the index. -1: none. */
int64_t loam_frame_index_of(const struct loam_frame *frame, uint64_t pfn);

/* The n-th section in ascending order, n below section_count. */
static inline struct frame_section *frame_section_from_index(const struct loam_frame *frame, uint64_t n)
{
    return &frame_sections(frame)[frame_indexes(frame)[n].id];
}

/* The section that manages pfn, or NULL. O(log sections). */
struct frame_section *loam_frame_section_from_pfn(const struct loam_frame *frame, uint64_t pfn);

#endif
