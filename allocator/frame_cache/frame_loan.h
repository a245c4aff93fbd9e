// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks that caches have on loan: how they come and go. Private to allocator/frame_cache. By the cache's owner, entered
 * or with the allocator's lock, or by others who have that lock and stopped him.
 */
#ifndef LOAM_FRAME_LOAN_H
#define LOAM_FRAME_LOAN_H

#include "allocator/frame_cache/frame_cache.h"

/* File what was freed of late. locked: what is free and more than the cache keeps goes back to the allocator. */
void loam_frame_loan_collect(struct loam_frame *frame, struct loam_frame_cache *cache, bool locked);

/* Whether a chunk that is free, and not kept, waits to go back to the allocator; *spot receives it. */
bool loam_frame_loan_surplus(const struct loam_frame *frame, const struct loam_frame_cache *cache, uint32_t set,
                             struct frame_spot *spot);

/* A free chunk of the cache's, on no list, is kept. False: there is no room. */
bool loam_frame_loan_keep(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot);

/* --- With the allocator's lock --------------------------------------------------------------------------------- */

/* The cache borrows a chunk that was taken out of the allocator: PARTIAL, or INNER, which is FREE then. */
void loam_frame_loan_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                           enum frame_set set);

/* What is ready is free in its bitmaps again. */
void loam_frame_loan_settle(struct loam_frame *frame, struct loam_frame_cache *cache);

/* The chunk goes back, and is the allocator's; nothing is ready in it. False: its lock cannot be had. */
bool loam_frame_loan_part_with(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot);

/* Give chunks back: those that have free frames, or all but those handed out whole. False: one cannot be had. */
bool loam_frame_loan_drain(struct loam_frame *frame, struct loam_frame_cache *cache, bool all);

/* Give all back, those handed out whole too: they are the allocator's blocks from now on. False: likewise. */
bool loam_frame_loan_end(struct loam_frame *frame, struct loam_frame_cache *cache);

/* A window leaves its chunk, which is filed then. False: the chunk's lock cannot be had. */
bool loam_frame_loan_leave_window(struct loam_frame *frame, struct frame_window *window, const struct frame_spot *spot,
                                  struct frame_lists *lists);

#endif
