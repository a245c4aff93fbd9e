// SPDX-License-Identifier: Apache-2.0
/*
 * How owners of caches are stopped. Private to frame*.c; the allocator's lock is held.
 *
 *     owner, without the lock                    whoever holds the lock
 *     busy = 1                                   forbidden = STOPPING
 *     (the compiler keeps the order)             barrier in all threads
 *     forbidden == RUNNING ? work : take lock    wait until busy == 0
 *     busy = 0 (release)                         (acquire)  forbidden = STOPPED, work, then RUNNING (release)
 *
 * The barrier stands in for the one that the owner leaves out: after it either the owner's busy is seen here, or the
 * owner sees forbidden. So never do both work. Whatever the owner wrote is seen through the pair busy = 0 and wait;
 * whatever was written here is seen by the owner through forbidden = RUNNING, or through the lock.
 *
 * The owner itself holds the lock now and then; it is `holder` then, and counts as stopped.
 *
 * The barrier may be refused, and an owner may have died in a call, or be stopped in one. Then forbidden is RUNNING
 * again at once, and what the cache has is left to it.
 */
#ifndef LOAM_FRAME_STOP_H
#define LOAM_FRAME_STOP_H

#include "allocator/frame_spot.h"

/* Whether this process has set a barrier. */
bool loam_frame_stop_barrier_set(void);

/* The cache that owns the chunk, which has an owner. */
static inline struct loam_frame_cache *frame_owner_of(const struct loam_frame *frame, const struct frame_chunk *chunk)
{
    return &frame_caches(frame)[frame_read(chunk->owner) - 1];
}

/* Whether the caller has the cache's chunks to itself already. */
bool loam_frame_stop_still(const struct loam_frame *frame, const struct loam_frame_cache *cache);

/*
 * Has the cache to itself until the lock is given up; nothing is ready in it. False: the process has set no barrier, it
 * was refused, or the owner has not left its call for seconds.
 */
bool loam_frame_stop_owner(struct loam_frame *frame, struct loam_frame_cache *cache);

/* The same of the cache that owns the chunk, if one does. */
bool loam_frame_stop_chunk(struct loam_frame *frame, const struct frame_spot *spot);

/* The same of all caches, by one barrier. */
bool loam_frame_stop_all(struct loam_frame *frame);

/* The same, and what is ready stays so: for who will look at it before he believes it, and settle it then. */
bool loam_frame_stop_hold_all(struct loam_frame *frame);
void loam_frame_stop_settle(struct loam_frame *frame, struct loam_frame_cache *cache);

/* Why an owner could not be stopped: LOAM_ERROR_UNINITIALISED, LOAM_ERROR_BUSY. */
enum loam_error loam_frame_stop_error(void);

/* Let all go on that were stopped. */
void loam_frame_stop_resume(struct loam_frame *frame);

/*
 * Whether one of the frames at mask, in the word of a bitmap that holds start, in a chunk that has an owner, is ready
 * or back: free, though marked as allocated.
 */
bool loam_frame_stop_ready(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                           uint64_t mask);

/* Frames of a zone that are ready or back, as of a moment. */
uint64_t loam_frame_stop_ready_frames(const struct loam_frame_cache *cache, enum loam_frame_zone zone);

#endif
