// SPDX-License-Identifier: Apache-2.0
/*
 * Partly used chunks, and blocks on top of them and of the buddy. Private to frame*.c. The allocator's lock is held;
 * ranges lie within the section's managed frames.
 */
#ifndef LOAM_FRAME_CHUNK_H
#define LOAM_FRAME_CHUNK_H

#include "allocator/frame/frame_spot.h"

/* Write the descriptors of a new section, all frames free, without listing any. Needs no lock: nobody knows of it. */
void loam_frame_chunk_prepare(struct loam_frame *frame, struct frame_section *section);

/* List them. O(section frames / largest block). */
void loam_frame_chunk_add(struct loam_frame *frame, struct frame_section *section);

/* Take all chunks of a wholly free section, none with an owner, off the lists, and its frames out of the counters. */
void loam_frame_chunk_retire(struct loam_frame *frame, struct frame_section *section);

/* --- Blocks in chunks without an owner --- */

/* Make one block of [start, start + count), which is free. Returns whether it touches a released chunk. */
bool loam_frame_chunk_take(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count);

/* The reverse; the range is exactly one block. */
void loam_frame_chunk_release(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count);

/* The same of a block within one partly used chunk. */
void loam_frame_chunk_release_within(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                     uint32_t count);

/* Count frames that came to or left the chunks without an owner. */
void loam_frame_chunk_count(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count,
                            bool freed);

/* Whether the zones are short of free frames, by what is free now. */
void loam_frame_chunk_mark_pressure(struct loam_frame *frame);

/* Put it back to what it was before frames came and went for a while, as far as what is free now allows. */
struct frame_pressure {
    uint32_t zone[LOAM_FRAME_ZONE_COUNT];
};
struct frame_pressure loam_frame_chunk_pressure(const struct loam_frame *frame);
void loam_frame_chunk_reset_pressure(struct loam_frame *frame, struct frame_pressure pressure);

/* --- One chunk --- */

/* A chunk that was taken out of the buddy becomes partly used: all free, on no list. */
void loam_frame_chunk_make_partial(const struct frame_spot *spot);

/* The order of the largest naturally aligned free block that the frames just freed are part of, or a bound on it. */
uint32_t loam_frame_chunk_freed_fit_slowly(const struct frame_map *map, uint32_t offset, uint32_t count);

FRAME_HOT uint32_t loam_frame_chunk_freed_fit(const struct frame_map *map, uint32_t offset, uint32_t count)
{
    uint32_t order = frame_bits_order_at(frame_bits_word(map, FRAME_BITS_FREE, offset / 64), offset % 64);

    /* A whole word, and what is no natural block, may be part of more than the word shows. */
    return LIKELY(order < 6) && LIKELY((count & (count - 1)) == 0) && LIKELY((offset & (count - 1)) == 0)
               ? order
               : loam_frame_chunk_freed_fit_slowly(map, offset, count);
}

/* No block is larger than the free frames allow. */
void loam_frame_chunk_cap_fit(struct frame_chunk *chunk);

/* What blocks cross the borders of a partly used chunk without an owner: FRAME_ENTERED, FRAME_LEFT. */
uint8_t loam_frame_chunk_crossed(const struct loam_frame *frame, const struct frame_spot *spot);

/* --- Questions: the chunk may have an owner that goes on --- */

/* Whether pfn is allocated, and the whole block that holds it then. spot: the head of its piece. */
bool loam_frame_chunk_block(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t pfn,
                            struct frame_span *block);

enum loam_frame_tag loam_frame_chunk_tag(const struct loam_frame *frame, struct frame_section *section,
                                         struct frame_span block);

/* None of the block's chunks has an owner. */
void loam_frame_chunk_set_tag(struct loam_frame *frame, struct frame_section *section, struct frame_span block,
                              enum loam_frame_tag tag);

#endif
