// SPDX-License-Identifier: Apache-2.0
/*
 * Where things are: from frame numbers, links and ids to records. Private to frame*.c; the allocator's lock is held, or
 * a cache's owner looks among its own chunks.
 *
 * A chunk is found once, at the door, and handed down as a spot: all there is to know of its place.
 */
#ifndef LOAM_FRAME_SPOT_H
#define LOAM_FRAME_SPOT_H

#include "allocator/frame/frame_layout.h"

struct frame_spot {
    struct frame_section *section;
    struct frame_chunk *chunk;
    struct frame_map *map;
    uint64_t index; /* the chunk's, in its section */
    uint64_t start; /* its first frame; below section->start where that lies inside the chunk */
    enum loam_frame_zone zone;
};

static inline struct frame_spot frame_spot_at(const struct loam_frame *frame, struct frame_section *section,
                                              uint64_t index)
{
    uint64_t start = frame_chunk_start(section, index);

    return (struct frame_spot){
        .section = section,
        .chunk = &frame_chunks(frame, section)[index],
        .map = frame_map(frame, section, index),
        .index = index,
        .start = start,
        .zone = frame_zone(frame, start),
    };
}

/* The chunk of a frame that the section manages. */
static inline struct frame_spot frame_spot_of(const struct loam_frame *frame, struct frame_section *section,
                                              uint64_t pfn)
{
    return frame_spot_at(frame, section, frame_chunk_index(section, pfn));
}

static inline struct frame_spot frame_spot_from_link(const struct loam_frame *frame, uint64_t link)
{
    return frame_spot_at(frame, &frame_sections(frame)[link >> 32], (uint32_t)link);
}

static inline uint64_t frame_spot_link(const struct frame_spot *spot)
{
    return frame_link(spot->section, spot->index);
}

static inline bool frame_spot_manages(const struct frame_section *section, uint64_t pfn)
{
    return pfn - section->start < section->end - section->start;
}

/* As frame_spot_find, by the index; that section is looked at first from now on. */
bool loam_frame_spot_search(const struct loam_frame *frame, uint64_t pfn, struct frame_spot *spot);

/* The chunk of any frame. False: no section manages it. O(log sections), and O(1) in the section asked for last. */
FRAME_HOT bool frame_spot_find(const struct loam_frame *frame, uint64_t pfn, struct frame_spot *spot)
{
    struct frame_section *section = &frame_sections(frame)[frame->memo];

    if (UNLIKELY(frame->memo >= frame->id_top) || UNLIKELY(section->used == 0) ||
        UNLIKELY(!frame_spot_manages(section, pfn))) {
        return loam_frame_spot_search(frame, pfn, spot);
    }
    *spot = frame_spot_of(frame, section, pfn);
    return true;
}

/* The first chunk of the piece that the chunk belongs to; the chunk itself if it is PARTIAL. */
struct frame_spot loam_frame_spot_head(const struct loam_frame *frame, struct frame_section *section, uint64_t index);

/* How many chunks the piece at its first chunk has. */
static inline uint64_t frame_spot_chunks(const struct frame_spot *spot)
{
    return shared_load(spot->chunk->state) == FRAME_CHUNK_PARTIAL || shared_load(spot->chunk->owner) != 0
               ? 1
               : frame_piece_chunks(spot->chunk->order);
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

/* The section that has the id, or NULL. */
struct frame_section *loam_frame_spot_section(const struct loam_frame *frame, uint64_t id);

/* The section whose range, prefix included, holds pfn, or the nearest below; its place in the index. -1: none. */
int64_t loam_frame_spot_index(const struct loam_frame *frame, uint64_t pfn);

/* The n-th section in ascending order, n below section_count. */
static inline struct frame_section *frame_spot_indexed(const struct loam_frame *frame, uint64_t n)
{
    return &frame_sections(frame)[frame_indexes(frame)[n].id];
}

#endif
