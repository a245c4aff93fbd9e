// SPDX-License-Identifier: Apache-2.0
/*
 * A cache of a memory's frames for each thread that asks for one: made when it first asks, found again afterwards, given
 * back when the thread ends or the memory goes, whichever comes first. Private to memory.c. Any thread.
 *
 * In a child of fork(2), the thread that forked keeps its cache; those of the threads that the child lacks are nobody's,
 * and serve threads of the child that ask.
 */
#ifndef LOAM_MEMORY_THREAD_H
#define LOAM_MEMORY_THREAD_H

#include "loam/frame.h"
#include "loam/frame_cache.h"

#include <stdint.h>

#define MEMORY_THREAD_CACHE_MAX                                                                                        \
    LOAM_FRAME_CACHE_MAX /* threads with a cache of one memory at once, if it has room for so many */

/* One thread's cache. cache NULL: none is made; else thread NULL: it is nobody's. */
struct memory_thread_slot {
    const void *thread;
    struct loam_frame_cache *cache;
};

/* A memory's caches. */
struct memory_thread {
    struct loam_frame *frame; /* NULL: not added */
    uint64_t serial;          /* no other memory of the process has it, or had it; not 0 */
    struct memory_thread *previous;
    struct memory_thread *next;
    struct memory_thread_slot slots[MEMORY_THREAD_CACHE_MAX];
};

/* From now on threads may ask; until removed. threads is all zero. */
void loam_memory_thread_add(struct memory_thread *threads, struct loam_frame *frame);

/* Before the frame allocator goes, and with it the caches. What was not added is not removed. */
void loam_memory_thread_remove(struct memory_thread *threads);

/* The calling thread's cache. NULL: there are MEMORY_THREAD_CACHE_MAX, or as many as the allocator has room for; or the
 * system refuses what is wanted for one. */
struct loam_frame_cache *loam_memory_thread_find(struct memory_thread *threads);

#endif
