// SPDX-License-Identifier: Apache-2.0
/*
 * How owners of caches are stopped. Private to allocator/frame_cache; the allocator's lock is held.
 *
 *     owner, without the lock                    whoever holds the lock
 *     busy = 1                                   forbidden = STOPPING
 *     (the compiler keeps the order)             barrier in all threads
 *     forbidden == RUNNING ? work : take lock    wait until busy == 0
 *     busy = 0 (release)                         (acquire)  forbidden = STOPPED, work, then RUNNING (release)
 *
 * The barrier stands in for the one that the owner leaves out: after it either the owner's busy is seen here, or the
 * owner sees forbidden. So never do both work. Whatever the owner wrote is seen through the pair busy = 0 and wait;
 * whatever was written here is seen by the owner through forbidden = RUNNING, or through the lock. An owner who holds
 * the lock himself is in no such call, so he need not be told apart.
 *
 * The barrier may be refused, and an owner may have died in a call, or be stopped in one. Then forbidden is RUNNING
 * again at once, and what the cache has is left to it.
 */
#ifndef LOAM_FRAME_STOP_H
#define LOAM_FRAME_STOP_H

#include "allocator/frame_cache/frame_cache.h"

/* As loam_frame_set_barrier. Whether this process has set one. */
void loam_frame_stop_set_barrier(bool (*barrier)(void));
bool loam_frame_stop_barrier_set(void);

/* Has the cache to itself until the lock is given up. Errors as struct frame_lender says. */
enum loam_error loam_frame_stop_owner(struct loam_frame *frame, struct loam_frame_cache *cache);

/* The same of all caches, by one barrier. */
enum loam_error loam_frame_stop_all(struct loam_frame *frame);

/* Let all go on that were stopped. */
void loam_frame_stop_resume(struct loam_frame *frame);

#endif
