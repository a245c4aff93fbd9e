// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks: the buddy of whole chunks, the bitmaps of partly used ones, the lists of both, and the blocks on top of them.
 * Private to frame*.c. Every function wants the allocator's lock held; ranges lie within the section's managed frames.
 */
#ifndef LOAM_FRAME_CHUNK_H
#define LOAM_FRAME_CHUNK_H

#include "allocator/frame_layout.h"

/* Write the descriptors of a new section, all frames free, and list them. */
void loam_frame_chunk_init(struct loam_frame *frame, struct frame_section *section);

/* Take all chunks of a wholly free section off the lists, and its frames out of the counters. */
void loam_frame_chunk_retire(struct loam_frame *frame, struct frame_section *section);

/* Make one block of [start, start + count), which is free. */
void loam_frame_chunk_take(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count);

/* The reverse; the range is exactly one block. */
void loam_frame_chunk_release(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count);

/* A partly used chunk has no free block of this order or above: file it where it will not be asked again. */
void loam_frame_chunk_lower_fit(struct loam_frame *frame, struct frame_section *section, uint64_t chunk,
                                uint32_t order);

/* Merge the piece that was freed last in the zone with its buddies. False: there is none. */
bool loam_frame_chunk_merge_spare(struct loam_frame *frame, enum loam_frame_zone zone);

/* The first chunk of the piece that chunk belongs to; chunk itself if it is PARTIAL. */
uint64_t loam_frame_chunk_head(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk);

/* Whether pfn is allocated, and the whole block that holds it then. */
bool loam_frame_chunk_block(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn,
                            struct frame_span *block);

enum loam_frame_tag loam_frame_chunk_tag(const struct loam_frame *frame, const struct frame_section *section,
                                         struct frame_span block);

void loam_frame_chunk_set_tag(struct loam_frame *frame, const struct frame_section *section, struct frame_span block,
                              enum loam_frame_tag tag);

/* The lowest free (used) frame at or above pfn; section->end: none. */
uint64_t loam_frame_chunk_next_free(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn);
uint64_t loam_frame_chunk_next_used(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn);

/* One above the highest free (used) frame below end; section->start: none. */
uint64_t loam_frame_chunk_previous_free_end(const struct loam_frame *frame, const struct frame_section *section,
                                            uint64_t end);
uint64_t loam_frame_chunk_previous_used_end(const struct loam_frame *frame, const struct frame_section *section,
                                            uint64_t end);

#endif
