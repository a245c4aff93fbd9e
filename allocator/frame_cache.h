// SPDX-License-Identifier: Apache-2.0
/*
 * A cache from its owner's side: what it does without the lock. Private to frame_cache*.c; the other side, and why the
 * two never meet, is in frame_stop.h.
 *
 * A call is tried on the cache's own chunks first, between frame_enter and frame_leave. Whatever does not fit there (no
 * room, a block of somebody else's chunk, misuse) changes nothing and takes the lock, where the
 * same question is asked again with everything at hand; so every error is found under the lock.
 *
 * These functions are the library's hottest: each is inlined where it is called, and reads as few lines of the cache
 * and of the chunk as will do.
 */
#ifndef LOAM_FRAME_CACHE_H
#define LOAM_FRAME_CACHE_H

#include "allocator/frame_chunk.h"
#include "allocator/frame_layout.h"
#include "allocator/frame_lists.h"

#include <string.h>

/* With the lock, as the cache's owner: the allocator has been asked for nothing yet. Errors as the public call's. */
enum loam_error loam_frame_cache_alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                              loam_pfn limit, uint64_t *start);

/* The lock, as the cache's owner. NULL and *error: refused. */
struct loam_frame *loam_frame_cache_lock(struct loam_frame_cache *cache, enum loam_error *error);

/* With the lock: the section in which pfn lies is where the owner works. */
void loam_frame_cache_remember(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t pfn);

/* --- In and out ------------------------------------------------------------------------------------------------ */

/* Whether the owner may go on without the lock. */
FRAME_HOT bool frame_enter(struct loam_frame_cache *cache)
{
    frame_write(cache->busy, 1);
    /* The compiler keeps the order; the processor is made to by the barrier of whoever writes forbidden. */
    atomic_signal_fence(memory_order_seq_cst);
    /* Acquire: pairs with the release in loam_frame_stop_resume. */
    if (LIKELY(__atomic_load_n(&cache->forbidden, __ATOMIC_ACQUIRE) == FRAME_RUNNING)) {
        return true;
    }
    frame_write(cache->busy, 0);
    return false;
}

FRAME_HOT void frame_leave(struct loam_frame_cache *cache)
{
    /* Release: pairs with the acquire in frame_stop.c's wait_for. */
    __atomic_store_n(&cache->busy, 0, __ATOMIC_RELEASE);
}

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

/* In the zone of pfn a cache counts. */
FRAME_HOT uint64_t frame_zone_of(const struct loam_frame_cache *cache, uint64_t pfn)
{
    return pfn >= cache->zone_end;
}

FRAME_HOT struct loam_frame *frame_of_cache(const struct loam_frame_cache *cache)
{
    return (struct loam_frame *)((uintptr_t)cache - cache->offset_bytes);
}

/* --- Taking ---------------------------------------------------------------------------------------------------- */

/* Count frames at pfn that came to a chunk of the cache, whose own count changes by change. */
FRAME_HOT void frame_count_own(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t pfn, uint32_t change,
                               uint64_t freed)
{
    uint64_t *cached = &cache->free_frames[frame_zone_of(cache, pfn)];

    frame_count(chunk, change);
    frame_write(*cached, *cached + freed);
}

/*
 * Make what is free in a word of the current chunk ready. False: no block of the order, 0 to 6, is free in the chunk.
 */
bool loam_frame_cache_make_ready(struct loam_frame_cache *cache, uint64_t set, uint32_t order);

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
    frame_write(window->ready, ready & (ready - 1));
    return true;
}

/* A block of order 0 to 9. */
bool loam_frame_cache_take_own(struct loam_frame_cache *cache, uint64_t set, uint32_t order, uint64_t *start);

/* --- Giving back ----------------------------------------------------------------------------------------------- */

/* The chunk of pfn, if it is the cache's own and in the section of the memo; NULL: not here. */
FRAME_HOT struct frame_chunk *frame_own_chunk(const struct loam_frame_cache *cache, uint64_t pfn,
                                              struct frame_map **map)
{
    const struct frame_memo *memo = &cache->memo;
    uintptr_t number = pfn / LOAM_FRAME_CHUNK_FRAMES, base = (uintptr_t)cache;
    struct frame_chunk *chunk = (struct frame_chunk *)(base + memo->chunks_offset_bytes + number * sizeof *chunk);

    *map = (struct frame_map *)(base + memo->maps_offset_bytes + number * sizeof **map);
    return LIKELY(pfn - memo->start < memo->count) && LIKELY(frame_read(chunk->owner) == cache->owner) ? chunk : NULL;
}

/* The last eight bytes of a chunk's descriptor at once, state lowest; others may write slot meanwhile. */
FRAME_HOT uint64_t frame_marks(const struct frame_chunk *chunk)
{
    typedef uint64_t __attribute__((may_alias)) marks;

    static_assert(offsetof(struct frame_chunk, state) == 24, "the eight marks are one word");
    return frame_read(*(const marks *)(const void *)&chunk->state);
}

/* Partly used, and others returned nothing in it: state and slot; current as well: and list. */
#define FRAME_MARKS_PLAIN   UINT64_C(0xff000000000000ff)
#define FRAME_MARKS_CURRENT UINT64_C(0xff000000ff0000ff)
#define FRAME_IS_PLAIN      ((uint64_t)FRAME_CHUNK_PARTIAL)
#define FRAME_IS_CURRENT    ((uint64_t)FRAME_LIST_CURRENT << 24 | FRAME_CHUNK_PARTIAL)

/* The frame before offset is no part of a block that goes on. Without branches: orders come in any order. */
FRAME_HOT bool frame_begins(const struct frame_map *map, const struct frame_chunk *chunk, uint32_t offset)
{
    uint32_t before = offset - (offset != 0);
    bool ends = frame_bits_at(map, FRAME_BITS_ENDS, before), outside = (chunk->crossed & 1) == 0;

    return offset == 0 ? outside : ends;
}

/*
 * Free blocks of one order, 0 to 6, that were made ready and handed out; mask: a bit for the first frame of each, from
 * start on. That they are in made, and neither in ready nor in back, is proof that exactly they are allocated, unless
 * others returned blocks.
 */
FRAME_HOT bool frame_give_back(struct loam_frame_cache *cache, struct frame_window *window, uint64_t start,
                               uint64_t mask)
{
    uint64_t bit = start - window->base, back = window->back;

    mask <<= bit % 64;
    if (bit >= 64 || (~(window->made & ~(window->ready | back)) & mask) != 0 ||
        UNLIKELY(frame_read(cache->returned_any) != 0)) {
        return false;
    }
    frame_write(window->back, back | mask);
    return true;
}

/* The same in whichever set they lie. */
FRAME_HOT bool frame_give_made(struct loam_frame_cache *cache, uint64_t start, uint64_t order, uint64_t mask)
{
    return LIKELY(frame_give_back(cache, frame_window_of(cache, FRAME_SET_ANY, order), start, mask)) ||
           frame_give_back(cache, frame_window_of(cache, FRAME_SET_LOW, order), start, mask);
}

/*
 * The frames at mask, in a word of a current chunk, are in no block that was made ready and is still handled by that.
 */
FRAME_HOT bool frame_not_made(const struct loam_frame_cache *cache, const struct frame_chunk *chunk, uint64_t start,
                              uint64_t mask)
{
    const struct frame_window *window = &cache->window[chunk->order][chunk->set];

    return (window->made & mask) == 0 || window->base != loam_align_down(start, 64);
}

/* The bits of one block within a word. */
struct frame_block_bits {
    struct frame_word *word;
    struct frame_word old;
    uint64_t mask;
    uint64_t end;
};

/* Whether [start, start + count) is exactly one block, within one word. */
FRAME_HOT bool frame_block_in_word(const struct frame_chunk *chunk, struct frame_map *map, uint64_t start,
                                   uint64_t count, struct frame_block_bits *bits)
{
    uint32_t offset = frame_offset(start), bit = offset % 64;

    bits->word = &map->word[offset / 64];
    bits->old = frame_bits_read(map, offset / 64);
    bits->mask = UINT64_MAX >> (-count % 64) << bit;
    bits->end = UINT64_C(1) << ((bit + count - 1) % 64);
    return LIKELY(count - 1 < 64 - bit) && LIKELY((bits->old.last & bits->mask) == bits->end) &&
           LIKELY(((bits->old.allocated | bits->end) & bits->mask) == bits->mask) &&
           LIKELY(frame_begins(map, chunk, offset));
}

/* Free it. */
FRAME_HOT void frame_clear_block(struct loam_frame_cache *cache, struct frame_chunk *chunk,
                                 const struct frame_block_bits *bits, uint64_t start, uint64_t count)
{
    frame_write(bits->word->allocated, bits->old.allocated & ~bits->mask);
    __atomic_store_n(&bits->word->last, bits->old.last & ~bits->mask, __ATOMIC_RELEASE);
    frame_count_own(cache, chunk, start,
                    (uint32_t)count * FRAME_COUNT_FREE - FRAME_COUNT_BLOCK -
                        ((bits->old.allocated & bits->end) == 0 ? FRAME_COUNT_TAG : 0),
                    count);
}

/* Free any block of the cache's own. */
bool loam_frame_cache_give_own(struct loam_frame_cache *cache, uint64_t start, uint64_t count);

#endif
