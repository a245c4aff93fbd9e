// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks that caches own, and how they come and go. Private to frame*.c; the allocator's lock is held, and the cache
 * stands still (frame_stop.h), but where it says that its owner calls without the lock.
 */
#ifndef LOAM_FRAME_OWNER_H
#define LOAM_FRAME_OWNER_H

#include "allocator/frame_spot.h"

/* A backed PARTIAL chunk without an owner, or one just made, on no list (state INNER becomes FREE), gets this owner. */
void loam_frame_owner_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                            enum frame_set set);

/* Free a block of the cache's in one chunk. */
void loam_frame_owner_release(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                              uint32_t offset, uint32_t count);

/* The chunk has no owner any more. Nothing in it is marked as returned. */
void loam_frame_owner_disown(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot);

/*
 * Stop a chunk from being current, and file it. Also by the cache's owner without the lock, if a frame of it is used.
 */
void loam_frame_owner_put_aside(struct loam_frame *frame, const struct frame_spot *spot);

#endif
