// SPDX-License-Identifier: Apache-2.0
/*
 * From ids, links and frame numbers to records, trusting nothing. Private to frame*.c; the allocator's lock is held, or
 * a cache's owner follows links among its own chunks.
 *
 * What leads nowhere is damage. It is noted, and where a chunk is wanted the sink stands in for it, so that the
 * operation under way comes to its end without touching anything else; the public call then answers LOAM_ERROR_CORRUPT.
 */
#ifndef LOAM_FRAME_FIND_H
#define LOAM_FRAME_FIND_H

#include "allocator/frame_layout.h"

/* Metadata contradicts itself: from now on nothing is changed; owners of caches take the lock and are told. */
void loam_frame_damage(const struct loam_frame *frame);

/* The section that has the id, or NULL; also if its record is damaged, which is noted. */
struct frame_section *loam_frame_section_from_id(const struct loam_frame *frame, uint64_t id);

/* The chunk of a link, its section in *section; the sink and NULL if there is none. */
struct frame_chunk *loam_frame_chunk_from_link(struct loam_frame *frame, uint64_t link, struct frame_section **section);

/* The section whose range, prefix included, holds pfn, or the nearest below; its place in the index. -1: none. */
int64_t loam_frame_index_of(const struct loam_frame *frame, uint64_t pfn);

/* The n-th section in ascending order, n below section_count; NULL: damage. */
struct frame_section *loam_frame_section_from_index(const struct loam_frame *frame, uint64_t n);

/* The section that manages pfn, or NULL. O(log sections). */
struct frame_section *loam_frame_section_from_pfn(const struct loam_frame *frame, uint64_t pfn);

#endif
