// SPDX-License-Identifier: Apache-2.0
/*
 * Taking chunks and frames back from caches. Private to frame*.c; the allocator's lock is held.
 */
#ifndef LOAM_FRAME_CLAIM_H
#define LOAM_FRAME_CLAIM_H

#include "allocator/frame_spot.h"

/* No chunk that the managed range touches has an owner any more. False: an owner cannot be stopped. */
bool loam_frame_claim_range(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count);

/* Give back all chunks of the cache that it can name; those WHOLE stay until their block is freed. */
bool loam_frame_claim_drain(struct loam_frame *frame, struct loam_frame_cache *cache);

/* Drain all caches that hold free frames. False: there was none, or none that could be stopped. */
bool loam_frame_claim_all(struct loam_frame *frame);

/* Free frames in all caches, blocks returned included. */
uint64_t loam_frame_claim_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone);

/* Forget every cache's memo of the section, and any other; all owners are stopped. False: one cannot be. */
bool loam_frame_claim_forget(struct loam_frame *frame);

#endif
