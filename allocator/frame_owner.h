// SPDX-License-Identifier: Apache-2.0
/*
 * Chunks that caches own, seen from the side of the lock. Private to frame*.c; the allocator's lock is held.
 *
 *     owner, without the lock                    whoever holds the lock
 *     busy = 1                                   forbidden = STOPPED
 *     (the compiler keeps the order)             barrier in all threads
 *     forbidden == RUNNING ? work : take lock    wait until busy == 0
 *     busy = 0 (release)                         (acquire)  work, then forbidden = RUNNING (release)
 *
 * The barrier stands in for the one that the owner leaves out: after it either the owner's busy is seen here, or the
 * owner sees forbidden. So never do both work. Whatever the owner wrote is seen through the pair busy = 0 and wait;
 * whatever was written here is seen by the owner through forbidden = RUNNING, or through the lock.
 *
 * The owner itself holds the lock now and then; it is `holder` then, and counts as stopped.
 */
#ifndef LOAM_FRAME_OWNER_H
#define LOAM_FRAME_OWNER_H

#include "allocator/frame_layout.h"

/* Whether this process has set a barrier. */
bool loam_frame_owner_barrier_set(void);

/* Has the cache to itself until the lock is given up; nothing is ready in it. False: its process has set no barrier. */
bool loam_frame_owner_stop(struct loam_frame *frame, struct loam_frame_cache *cache);

/* The same of the cache that owns the chunk, if one does. */
bool loam_frame_owner_stop_chunk(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk);

/* The same of all caches, by one barrier. */
bool loam_frame_owner_stop_all(struct loam_frame *frame);

/* Let all go on that were stopped. */
void loam_frame_owner_resume(struct loam_frame *frame);

/* No chunk that the managed range touches has an owner any more. False: an owner cannot be stopped. */
bool loam_frame_owner_claim(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count);

/* A backed PARTIAL chunk without an owner, or one just made, on no list (state INNER becomes FREE), gets this owner. */
void loam_frame_owner_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                            uint64_t chunk);

/*
 * Free a block in a chunk that has an owner. If the owner runs, the block is marked as returned.
 * LOAM_ERROR_INVALID: it is not exactly one block, or returned already. LOAM_ERROR_UNINITIALISED: no barrier.
 */
enum loam_error loam_frame_owner_free(struct loam_frame *frame, struct frame_section *section, uint64_t start,
                                      uint64_t count);

/*
 * Mark count blocks of one frame from start on, within a word and managed, in a chunk of an owner who runs, as returned.
 * False: not all at once; nothing is changed.
 */
bool loam_frame_owner_free_run(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint32_t count);

/* Whether the block that starts at start, in a chunk that has an owner, is marked as returned. */
bool loam_frame_owner_returned(const struct loam_frame *frame, const struct frame_section *section, uint64_t start);

/* Whether the block that starts at start, in a chunk that has an owner, is ready: free, though marked as allocated. */
bool loam_frame_owner_ready(const struct loam_frame *frame, const struct frame_section *section, uint64_t start);

/* Free for good what is marked as returned. The cache's owner holds the lock or is stopped. */
void loam_frame_owner_collect(struct loam_frame *frame, struct loam_frame_cache *cache);

/* The same in all caches, if their owners can be stopped: what is returned or ready is free in the bitmaps then. */
void loam_frame_owner_collect_all(struct loam_frame *frame);

/* Give back all chunks of the cache that it can name; those WHOLE stay until their block is freed. */
bool loam_frame_owner_drain(struct loam_frame *frame, struct loam_frame_cache *cache);

/* Drain all caches that hold free frames. False: there was none, or none that could be stopped. */
bool loam_frame_owner_fetch_back(struct loam_frame *frame);

/* Free frames in all caches, blocks returned included. */
uint64_t loam_frame_owner_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone);

/* Stop a chunk from being current, and file it. */
void loam_frame_owner_put_aside(struct loam_frame *frame, struct frame_section *section, uint64_t chunk);

/* Forget every cache's memo of the section, and any other; all owners are stopped. False: one cannot be. */
bool loam_frame_owner_forget(struct loam_frame *frame);

#endif
