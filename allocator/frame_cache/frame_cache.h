// SPDX-License-Identifier: Apache-2.0
/*
 * What a cache is, and what its owner does without the allocator's lock. Private to allocator/frame_cache.
 *
 * Two sides meet here, and each has its own rule:
 *   - lists, windows and chunks that lie ready are the owner's alone, between frame_enter and frame_leave; whoever else
 *     wants them stops him first (frame_stop.h);
 *   - what stands in a chunk, which is its bitmaps, count and the `made` of a window there, is changed with the chunk's
 *     lock, by the owner as by everybody. So who frees in another's chunk touches that chunk and nothing else.
 *
 * A call is tried in this way first. Whatever does not fit (no room, misuse, a chunk that is not lent) changes nothing,
 * takes the allocator's lock and asks the same question again; so every error is found there.
 *
 * Frames are counted by who takes and frees them, not by whose chunk they lie in: the counters of all caches and the
 * allocator's lent_frames have a meaning as a sum alone.
 */
#ifndef LOAM_FRAME_CACHE_PRIVATE_H
#define LOAM_FRAME_CACHE_PRIVATE_H

#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_lists.h"
#include "loam/frame_cache.h"

#include <string.h>

/*
 * A cache's chunks are in two sets, by whose requests they serve: those without a limit must leave the DMA32 reserve, and
 * what is lent to them has left its account; those with a limit at 4 GiB may enter it.
 */
enum frame_set {
    FRAME_SET_LOW, /* chunks below 4 GiB, for requests with a limit there */
    FRAME_SET_ANY, /* for requests without a limit: above 4 GiB, or below it what the reserve can spare */
    FRAME_SETS     /* as a set: none, the allocator decides */
};

/* What forbidden may be; no two are few bits apart. */
#define FRAME_UNUSED   0u /* no cache is here */
#define FRAME_RUNNING  0xa5a5a5a5u
#define FRAME_STOPPING 0x3c3c3c3cu /* whoever holds the lock is about to stop its owner */
#define FRAME_STOPPED  0x5a5a5a5au

/* The section in which a cache's owner freed last; count == 0: none. */
struct frame_memo {
    uint64_t start;
    uint64_t count;
    uint64_t chunks_offset_bytes; /* from the cache, of the descriptor that chunk number 0 would have; wraps */
    uint64_t maps_offset_bytes;
    uint64_t id;
};

/* A PARTIAL chunk of it is current or on one of its lists; a FREE one is kept, or others freed it of late. */
struct loam_frame_cache {
    /* What is read all the time, by others too, and seldom written. */
    alignas(64) uint32_t forbidden; /* with the lock held; not RUNNING: the owner takes the lock (shared) */
    uint32_t owner;                 /* its index + 1 */
    uint64_t zone_end;              /* as the allocator's */
    uint64_t offset_bytes;          /* from the allocator */
    /* What others write who free in its chunks: the last one, as link + 2; 0: there is none. */
    alignas(64) uint64_t freed;
    /* What the owner writes all the time. */
    alignas(64) uint32_t busy; /* 1: its owner is in a call that takes no lock */
    uint32_t zero;
    struct frame_memo memo;
    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT]; /* see above; what is ready is not among them; wraps (shared) */
    struct frame_window window[FRAME_CHUNK_ORDER][FRAME_SETS]; /* orders 7 and 8: of chunks alone */
    struct frame_kept kept[FRAME_SETS][FRAME_KEPT_CHUNKS];
    uint32_t kept_count[FRAME_SETS];
    uint32_t whole_count; /* chunks that were handed out whole */
    uint32_t zero_too;
    struct frame_lists lists[FRAME_SETS];
};

/*
 * What a current chunk's `order` says: the order that is taken from it, and the word in which blocks of it were made. So
 * who frees elsewhere in the chunk need not look at the window, a line that the owner writes all the time.
 */
#define FRAME_TAKING(order, word)  ((uint8_t)((order) | (word) << 4))
#define FRAME_TAKING_ORDER(taking) ((taking)&15u)
#define FRAME_TAKING_WORD(taking)  ((taking) >> 4)
#define FRAME_TAKING_NO_WORD       8u

static_assert(sizeof(struct loam_frame_cache) <= FRAME_LENDER_BYTES, "it fits the room");
static_assert(offsetof(struct loam_frame_cache, forbidden) == 0, "the room's first word says that nobody is there");
static_assert(sizeof(struct frame_window) == 64, "a line each");

/* The n-th cache there may be. */
FRAME_HOT struct loam_frame_cache *frame_cache_at(const struct loam_frame *frame, uint64_t n)
{
    return frame_lender_room(frame, n);
}

/* The cache that a lent chunk is with. */
FRAME_HOT struct loam_frame_cache *frame_borrower(const struct loam_frame *frame, const struct frame_chunk *chunk)
{
    return frame_cache_at(frame, shared_load(chunk->owner) - 1u);
}

FRAME_HOT struct loam_frame *frame_of_cache(const struct loam_frame_cache *cache)
{
    return (struct loam_frame *)((uintptr_t)cache - cache->offset_bytes);
}

/* --- In and out ------------------------------------------------------------------------------------------------ */

/* Whether the owner may go on without the lock. */
FRAME_HOT bool frame_enter(struct loam_frame_cache *cache)
{
    shared_store(cache->busy, 1);
    /* The compiler keeps the order; the processor is made to by the barrier of whoever writes forbidden. */
    atomic_signal_fence(memory_order_seq_cst);
    /* Acquire: pairs with the release in loam_frame_stop_resume. */
    if (LIKELY(shared_load_acquire(cache->forbidden) == FRAME_RUNNING)) {
        return true;
    }
    shared_store(cache->busy, 0);
    return false;
}

FRAME_HOT void frame_leave(struct loam_frame_cache *cache)
{
    /* Release: pairs with the acquire in frame_stop.c's wait_for. */
    shared_store_release(cache->busy, 0);
}

/* Count frames at pfn that came to the cache, or left it: count wraps. */
FRAME_HOT void frame_cache_count(struct loam_frame_cache *cache, uint64_t pfn, uint64_t count)
{
    uint64_t *counter = &cache->free_frames[pfn >= cache->zone_end];

    shared_store(*counter, *counter + count);
}

/* --- Windows --------------------------------------------------------------------------------------------------- */

/* Which chunks serve a request. */
FRAME_HOT uint64_t frame_set_for(const struct loam_frame_cache *cache, loam_pfn limit)
{
    if (LIKELY(limit.value == 0)) {
        return FRAME_SET_ANY;
    }
    if (LIKELY(limit.value == cache->zone_end)) {
        return FRAME_SET_LOW;
    }
    /* There is no frame at 2^52 bytes or above. */
    return limit.value >= cache->zone_end << (LOAM_GPA_BITS - 32) ? FRAME_SET_ANY : FRAME_SETS;
}

FRAME_HOT struct frame_window *frame_window_of(struct loam_frame_cache *cache, uint64_t set, uint64_t order)
{
    return &cache->window[0][0] + (order * FRAME_SETS + set);
}

/* A block that is ready, of order 0 to 6. */
FRAME_HOT bool frame_take_ready(struct loam_frame_cache *cache, uint64_t set, uint64_t order, uint64_t *start)
{
    struct frame_window *window = frame_window_of(cache, set, order);
    uint64_t ready = window->ready;

    if (UNLIKELY(ready == 0)) {
        return false;
    }
    *start = window->base + (uint64_t)(unsigned)__builtin_ctzll(ready);
    shared_store(window->ready, ready & (ready - 1));
    return true;
}

/*
 * Free blocks of one order, 0 to 6, that were made ready and handed out; mask: a bit for the first frame of each, from
 * start on. That they are in made, and neither in ready nor in back, is proof that exactly they are allocated.
 */
FRAME_HOT bool frame_give_back(struct frame_window *window, uint64_t start, uint64_t mask)
{
    uint64_t bit = start - window->base, back = window->back;

    mask <<= bit % 64;
    if (bit >= 64 || (~(shared_load(window->made) & ~(window->ready | back)) & mask) != 0) {
        return false;
    }
    shared_store(window->back, back | mask);
    return true;
}

/* The same in whichever set they lie. */
FRAME_HOT bool frame_give_made(struct loam_frame_cache *cache, uint64_t start, uint64_t order, uint64_t mask)
{
    return LIKELY(frame_give_back(frame_window_of(cache, FRAME_SET_ANY, order), start, mask)) ||
           frame_give_back(frame_window_of(cache, FRAME_SET_LOW, order), start, mask);
}

/* What is ready or back; what others freed meanwhile is in made no more. */
static inline uint64_t frame_window_free(const struct frame_window *window)
{
    return (shared_load(window->ready) | shared_load(window->back)) & shared_load(window->made);
}

/* --- With the lock --------------------------------------------------------------------------------------------- */

/* As the cache's owner. NULL and *error: refused. */
struct loam_frame *loam_frame_cache_lock(struct loam_frame_cache *cache, enum loam_error *error);

/* As loam_frame_cache_free; the section in which the block lies is where the owner works from now on. */
enum loam_error loam_frame_cache_free_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t start,
                                             uint64_t count);

struct frame_memo loam_frame_cache_memo(const struct loam_frame *frame, const struct loam_frame_cache *cache,
                                        const struct frame_section *section);

/* The allocator has been asked for nothing yet. Errors as the public call's. */
enum loam_error loam_frame_cache_alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                              loam_pfn limit, uint64_t *start);

/* --- Without the lock, entered --------------------------------------------------------------------------------- */

/* Make what is free in a word of the current chunk ready, order 0 to 6. False: it has no block of the order. */
bool loam_frame_cache_make_ready(struct loam_frame_cache *cache, uint64_t set, uint32_t order);

/* A block of order 0 to 9, of what the current chunk has or what is kept. */
bool loam_frame_cache_take_own(struct loam_frame_cache *cache, uint64_t set, uint32_t order, uint64_t *start);

#endif
