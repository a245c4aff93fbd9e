// SPDX-License-Identifier: Apache-2.0
/*
 * Blocks in a cache's chunks that others than its owner free. Private to frame*.c; the allocator's lock is held. While
 * the owner runs they are marked in one of the cache's slots, a slot a chunk; when the owner comes for more, or when no
 * slot is left, they are collected: freed for good.
 */
#ifndef LOAM_FRAME_RETURN_H
#define LOAM_FRAME_RETURN_H

#include "allocator/frame_spot.h"

/*
 * Free a block in a chunk that has an owner. If the owner runs, the block is marked as returned.
 * LOAM_ERROR_INVALID: it is not exactly one block, or returned already. LOAM_ERROR_UNINITIALISED: no barrier.
 */
enum loam_error loam_frame_return_block(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                        uint64_t count);

/*
 * Mark count blocks of one frame from start on, within a word and managed, in a chunk of an owner who runs, as
 * returned. False: not all at once; nothing is changed.
 */
bool loam_frame_return_run(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start, uint32_t count);

/* Whether the block that starts at start, in a chunk that has an owner, is marked as returned. */
bool loam_frame_return_marked(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start);

/* Free for good what is marked as returned. The cache's owner holds the lock or is stopped. */
void loam_frame_return_collect(struct loam_frame *frame, struct loam_frame_cache *cache);

/* The same in all caches, if their owners can be stopped: what is returned or ready is free in the bitmaps then. */
void loam_frame_return_collect_all(struct loam_frame *frame);

#endif
