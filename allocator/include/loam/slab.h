// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Small objects for devices: 8 to 2,048 bytes in nine classes, on frames of a chosen zone, GPA and HVA together.
 *
 * A slab is 64 KiB of frames, taken from the frame allocator and divided into objects of one class. What is known of an
 * object lies out of band, in memory that the caller supplies: the objects are the guest's to write, so nothing is ever
 * stored in them, read from them or believed of them. The allocator calls neither malloc nor the system.
 *
 * The metadata holds indexes and offsets, so that processes may share it at different addresses; what belongs to one
 * process (where guest memory is mapped, where the frame allocator lies) is in struct loam_slab and in the caches that
 * the process made.
 *
 * Threads: each thread allocates and frees through a cache of its own. A free of what the same cache handed out, and
 * an allocation while a slab is at hand, take no lock and make no atomic read-modify-write. An object of another cache
 * is freed with one or two atomic operations and no lock. A lock is taken to fetch or return a slab, and to free what a
 * drained cache has left. The calls on a struct loam_slab may come from any thread at any time, unless they say
 * otherwise.
 *
 * An object's HVA is its window's, in the process that made the cache, and good until the object is freed or the
 * window's memory is unmapped; the next owner of the object may be another device at once. Teardown: free the objects,
 * destroy the caches (any thread, once their owners are in no call), loam_slab_destroy, then the frame allocator and
 * the windows' memory.
 *
 * NULL where an object or an output is wanted is LOAM_ERROR_INVALID; a handle of zeros is LOAM_ERROR_UNINITIALISED.
 * Misuse (double free, free inside an object, foreign address, wrong size, free of what was never handed out) is
 * refused with an error, the state unchanged; loam_slab_check says in a line what was found. Where two threads free one
 * object at the same moment, which is misuse too, the later one may be taken for a free of the object's next life.
 */
#ifndef LOAM_SLAB_H
#define LOAM_SLAB_H

#include "loam/error.h"
#include "loam/frame.h"
#include "loam/types.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOAM_SLAB_OBJECT_MIN     8         /**< bytes */
#define LOAM_SLAB_OBJECT_MAX     2048      /**< bytes */
#define LOAM_SLAB_CLASS_COUNT    9         /**< 8, 16, 32, ... 2,048 bytes */
#define LOAM_SLAB_BYTES          65536     /**< of one slab, at its natural alignment */
#define LOAM_SLAB_WINDOW_MAX     16        /**< windows in a configuration */
#define LOAM_SLAB_CACHE_MAX      1024      /**< caches at once */
#define LOAM_SLAB_CAPACITY_MAX   16777216u /**< slabs */
#define LOAM_SLAB_METADATA_ALIGN 64        /**< bytes */

/** Opaque; lies in the metadata memory given to loam_slab_init. */
struct loam_slab_cache;

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/** Guest-physical memory that is mapped in one piece; hva is where, in this process. */
struct loam_slab_window {
    loam_gpa start;
    uint64_t bytes;
    void *hva;
};

/** What a slab allocator may hand out, and how much of it; zero members mean what their comment says. */
struct loam_slab_config {
    loam_gpa limit;          /**< slabs end at or below it: LOAM_DMA32_END_BYTES for 32-bit devices; 0: no limit */
    uint32_t slab_capacity;  /**< slabs there can ever be; one of 32, 16 or 8 bytes counts as 2, 4 or 8; 0: 1,024 */
    uint32_t cache_capacity; /**< caches there can ever be at once, 1 to LOAM_SLAB_CACHE_MAX; 0: 4 */
    uint32_t window_count;   /**< 1 to LOAM_SLAB_WINDOW_MAX */
    struct loam_slab_window windows[LOAM_SLAB_WINDOW_MAX]; /**< no two overlap; all that lies below limit; the rest 0 */
};

/**
 * A process's handle on a slab allocator, in memory of the caller's that stays where it is while caches made with it
 * are used. Its members are the module's own.
 */
struct loam_slab {
    struct loam_slab_shared *shared;
    struct loam_frame *frame;
    uint32_t frame_shift;
    uint32_t window_count;
    /** A window, as this process sees it. */
    struct loam_slab_view {
        uint64_t start; /**< GPA of the first whole slab */
        uint64_t bytes; /**< of whole slabs */
        uintptr_t hva;
        uint64_t first; /**< index of the first slab's entry in the table */
    } windows[LOAM_SLAB_WINDOW_MAX];
};

/** Bytes of metadata memory that loam_slab_init wants; 0 if config is invalid. */
size_t loam_slab_bytes(const struct loam_slab_config *config);

/**
 * Make a slab allocator without slabs in memory, which is aligned to LOAM_SLAB_METADATA_ALIGN, out of a guest's reach,
 * and the caller's, until loam_slab_destroy. frame must outlive it. *slab is all zero on failure.
 * LOAM_ERROR_INVALID: config (no window, windows that overlap or hold no whole slab); alignment; bytes below
 * loam_slab_bytes(config).
 */
LOAM_MUST_USE enum loam_error loam_slab_init(void *memory, size_t bytes, const struct loam_slab_config *config,
                                             struct loam_frame *frame, struct loam_slab *slab);

/**
 * Use, in another process or at another address, what loam_slab_init made: config's windows are those of init, with
 * this process's HVAs, and frame is its handle on the same frame allocator. *slab is all zero on failure.
 * LOAM_ERROR_INVALID: alignment; fewer bytes than it has; another version of the layout; another config.
 * LOAM_ERROR_UNINITIALISED: there is no slab allocator. LOAM_ERROR_CORRUPT: its constants are damaged.
 */
LOAM_MUST_USE enum loam_error loam_slab_attach(void *memory, size_t bytes, const struct loam_slab_config *config,
                                               struct loam_frame *frame, struct loam_slab *slab,
                                               struct loam_diag *diag);

/**
 * Give all frames back; the memory is the caller's again, and no other call may be under way. LOAM_ERROR_BUSY: a cache
 * is there, or an object is live: blocker (NULL: not wanted) receives the lowest one's GPA, 0 for a cache.
 */
LOAM_MUST_USE enum loam_error loam_slab_destroy(struct loam_slab *slab, loam_gpa *blocker);

/** Give the frames of empty slabs that no cache owns back: the one kept for each class too. */
LOAM_MUST_USE enum loam_error loam_slab_trim(struct loam_slab *slab);

/* --- Caches ---------------------------------------------------------------------------------------------------- */

/**
 * Make a cache for the calling thread; slab is the handle of the cache's process. O(cache_capacity). *cache is NULL on
 * failure. LOAM_ERROR_EXHAUSTED: cache_capacity caches are there.
 */
LOAM_MUST_USE enum loam_error loam_slab_cache_make(struct loam_slab *slab, struct loam_slab_cache **cache);

/**
 * Give up all slabs of the cache: the empty ones to the frame allocator, the rest to all caches. Objects stay live, and
 * the cache may be used on. slab is the handle of the calling process. The owner, or any thread while the owner is in
 * no call on the cache, such as when it has died. Waits for remote frees under way. O(slab_capacity).
 * LOAM_ERROR_UNINITIALISED: no cache is there. LOAM_ERROR_BUSY: a remote free has been under way for seconds, its thread
 * is stopped or died in it; the slab in question is left with the cache, and the call may be made again.
 */
LOAM_MUST_USE enum loam_error loam_slab_cache_drain(struct loam_slab *slab, struct loam_slab_cache *cache);

/** Drain the cache and end it, as above. */
LOAM_MUST_USE enum loam_error loam_slab_cache_destroy(struct loam_slab *slab, struct loam_slab_cache *cache);

/* --- Objects: by the cache's owner only ------------------------------------------------------------------------ */

/** An object, on both sides. */
struct loam_slab_object {
    loam_gpa gpa;
    void *hva;
};

/**
 * An object of at least bytes, aligned to its class: the power of two from bytes up. What it holds is undefined: it may
 * have been another device's. {0, NULL} on failure. LOAM_ERROR_INVALID: bytes is 0 or above LOAM_SLAB_OBJECT_MAX.
 * LOAM_ERROR_EXHAUSTED: no frames below the limit, or slab_capacity is used up. LOAM_ERROR_NOT_FOUND: the frames that
 * the frame allocator gave lie in no window. LOAM_ERROR_UNINITIALISED: the cache was destroyed. LOAM_ERROR_CORRUPT: the
 * metadata is damaged, or a thread died in a call that held the lock: loam_slab_validate says, and clears, which.
 */
LOAM_MUST_USE enum loam_error loam_slab_alloc(struct loam_slab_cache *cache, size_t bytes,
                                              struct loam_slab_object *object);

/**
 * Free an object that any cache handed out. bytes is what was asked for, or any other number of the same class.
 * LOAM_ERROR_NOT_FOUND: no slab stands at gpa. LOAM_ERROR_INVALID: gpa lies inside an object; the object is of another
 * class; it is free, also if a cache holds it. LOAM_ERROR_CORRUPT: the table leads nowhere. Nothing has changed then;
 * loam_slab_check says more. LOAM_ERROR_UNINITIALISED: the cache was destroyed.
 */
LOAM_MUST_USE enum loam_error loam_slab_free(struct loam_slab_cache *cache, loam_gpa gpa, size_t bytes);

/** The same, for who kept the HVA. */
LOAM_MUST_USE enum loam_error loam_slab_free_hva(struct loam_slab_cache *cache, const void *hva, size_t bytes);

/* --- What stands where ----------------------------------------------------------------------------------------- */

/** Of one class. slab_count * objects of a slab == live_count + free_count. */
struct loam_slab_class_stats {
    uint32_t object_bytes;
    uint32_t slab_count;
    uint32_t kept_count;        /**< empty slabs kept for all caches: 0 or 1 */
    uint32_t unowned_count;     /**< slabs that drained caches left and nobody has taken up */
    uint64_t live_count;        /**< objects */
    uint64_t free_count;        /**< objects, those of kept slabs and in caches included */
    uint64_t held_count;        /**< free objects that caches have in their hands */
    uint64_t uncollected_count; /**< free objects that another freed and the owner has not yet taken back */
    uint64_t remote_free_count; /**< objects that others than their owners ever freed */
    uint64_t frame_bytes;       /**< slab_count * LOAM_SLAB_BYTES */
};

/**
 * The figures of one moment, but that owners of caches go on meanwhile. O(slabs); takes the lock.
 * LOAM_ERROR_INVALID: class_index >= LOAM_SLAB_CLASS_COUNT; *stats is all zero.
 */
LOAM_MUST_USE enum loam_error loam_slab_stats(const struct loam_slab *slab, uint32_t class_index,
                                              struct loam_slab_class_stats *stats);

/**
 * Whether a live object of bytes starts at gpa, so that it could be freed; diag says what is wrong otherwise, such as
 * "0x10040, 64 bytes: the object is free". Errors as loam_slab_free.
 */
LOAM_MUST_USE enum loam_error loam_slab_check(const struct loam_slab *slab, loam_gpa gpa, size_t bytes,
                                              struct loam_diag *diag);

/**
 * Write into text a line (no newline; cut at bytes) on what stands at gpa, such as
 * "0x10040 starts a live object of 64 bytes in the slab at 0x10000 of cache 1". Returns the line's whole length.
 */
size_t loam_slab_describe(const struct loam_slab *slab, loam_gpa gpa, char *text, size_t bytes);

/**
 * Recount everything from the bitmaps up and hold it against counters, lists, table and the frame allocator.
 * LOAM_ERROR_CORRUPT: they disagree, and diag says where first. O(metadata). No owner may be in a call: for tests and
 * for suspicion.
 */
LOAM_MUST_USE enum loam_error loam_slab_validate(const struct loam_slab *slab, struct loam_diag *diag);

/* --- fork(2) ---------------------------------------------------------------------------------------------------- */

/**
 * For who forks with a slab allocator in private memory: freeze before fork(2), thaw after it, in the parent and in the
 * child, so that the child meets no lock whose holder is not there. The slab allocator before its frame allocator, and
 * the other way round when they thaw. Owners of caches are not stopped: a cache whose owner was in a call is not to be
 * used, drained or destroyed in the child.
 * @{
 */
void loam_slab_freeze(struct loam_slab *slab);
void loam_slab_thaw(struct loam_slab *slab);
/** @} */

#ifdef __cplusplus
}
#endif

#endif
