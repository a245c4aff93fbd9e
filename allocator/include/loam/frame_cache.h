// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Caches of page frames, one a thread: loam/frame.h without its lock.
 *
 * A cache borrows chunks from the allocator and serves its owner out of them. Its owner's calls wait for nobody as long
 * as the cache has what is wanted; blocks are freed through any cache or none, whoever allocated them.
 */
#ifndef LOAM_FRAME_CACHE_H
#define LOAM_FRAME_CACHE_H

#include "loam/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LOAM_FRAME_CACHE_ORDERS 10 /**< a cache serves orders 0 to 9; larger blocks are few */

/** Opaque; lies in the allocator's metadata. */
struct loam_frame_cache;

/*
 * A cache holds chunks for one thread, its owner, and takes and returns frames there alone. Who needs what an idle
 * cache holds stops its owner first: it forbids the cache, passes a barrier in all threads, and waits until the owner
 * is out of the call under way. So the owner pays no atomic operation, and nobody starves while a cache holds free
 * frames. The first time that others free a block in one of its chunks, they stop its owner likewise; from then on that
 * chunk has a lock, for as long as it takes to free one block, which the owner takes too.
 *
 * Where an owner cannot be stopped, since the barrier is refused or since it has not left its call for seconds (it is
 * stopped, or died in it), nothing is assumed: its chunks are left to it, and who needs them gets LOAM_ERROR_BUSY or
 * LOAM_ERROR_EXHAUSTED. A cache whose owner is in no call can be drained or destroyed by others.
 */

/**
 * How this process passes a full memory barrier in every thread that owns a cache, in all processes that share the
 * allocator, before it returns true: membarrier(2), an inter-processor interrupt in a guest, or nothing at all where only
 * one thread calls. False: it could not be passed, such as when the program forbids itself the system call.
 * loam/memory.h sets one. For the process, once, before its first cache.
 */
void loam_frame_set_barrier(bool (*barrier)(void));

/**
 * Make a cache for the calling thread. O(cache_capacity). *cache is NULL on failure.
 * LOAM_ERROR_EXHAUSTED: cache_capacity caches are there. LOAM_ERROR_UNINITIALISED: the process has set no barrier.
 */
LOAM_MUST_USE enum loam_error loam_frame_cache_make(struct loam_frame *frame, struct loam_frame_cache **cache);

/**
 * Give all chunks of the cache back; blocks stay allocated, and the cache may be used on. Any thread, at any time until
 * the cache is destroyed. LOAM_ERROR_UNINITIALISED: no cache is there. LOAM_ERROR_BUSY: its owner cannot be stopped.
 */
LOAM_MUST_USE enum loam_error loam_frame_cache_drain(struct loam_frame_cache *cache);

/**
 * Drain the cache and end it. Its owner, or any thread once the owner uses it no more. Errors as drain; LOAM_ERROR_BUSY
 * only while a call on the cache is under way.
 */
LOAM_MUST_USE enum loam_error loam_frame_cache_destroy(struct loam_frame_cache *cache);

/**
 * As loam_frame_alloc_order_below, loam_frame_free and the batches, by the cache's owner. Orders up to
 * LOAM_FRAME_CACHE_ORDERS - 1 without limit or with one at 4 GiB are served from the cache's own chunks, anything else
 * by the allocator. Chunks below 4 GiB come to a cache for requests without a limit only if the allocator keeps the DMA32
 * reserve without them; such requests may have what lies there even if others enter the reserve later.
 * LOAM_ERROR_UNINITIALISED also: the cache was destroyed.
 * @{
 */
LOAM_MUST_USE enum loam_error loam_frame_cache_alloc(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit,
                                                     loam_pfn *start);
LOAM_MUST_USE enum loam_error loam_frame_cache_free(struct loam_frame_cache *cache, loam_pfn start,
                                                    uint64_t count_frames);
LOAM_MUST_USE enum loam_error loam_frame_cache_alloc_batch(struct loam_frame_cache *cache, uint32_t order,
                                                           loam_pfn limit, loam_pfn *starts, size_t count);
LOAM_MUST_USE enum loam_error loam_frame_cache_free_batch(struct loam_frame_cache *cache, uint32_t order,
                                                          const loam_pfn *starts, size_t count, size_t *done_count);
/** @} */

#ifdef __cplusplus
}
#endif

#endif
