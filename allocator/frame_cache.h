// SPDX-License-Identifier: Apache-2.0
/*
 * A cache from its owner's side: what it does without the lock. Private to frame_cache*.c; the other side, and why the
 * two never meet, is in frame_owner.h.
 *
 * A call is tried on the cache's own chunks first, between frame_enter and frame_leave. Whatever does not fit there (no
 * room, a block of somebody else's chunk, misuse, a sum that is wrong) changes nothing and takes the lock, where the same
 * question is asked again with everything at hand; so every error is found under the lock.
 *
 * These functions are the library's hottest: each is inlined where it is called, and reads as few lines of the cache and
 * of the chunk as will do.
 */
#ifndef LOAM_FRAME_CACHE_H
#define LOAM_FRAME_CACHE_H

#include "allocator/frame_chunk.h"
#include "allocator/frame_layout.h"
#include "allocator/frame_lists.h"

#include <string.h>

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define FRAME_HOT           static inline __attribute__((always_inline))
#define FRAME_COLD          __attribute__((noinline, cold))

#define FRAME_ZONE_NONE LOAM_FRAME_ZONE_COUNT

/* With the lock, as the cache's owner: the allocator has been asked for nothing yet. Errors as the public call's. */
enum loam_error loam_frame_cache_alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                              loam_pfn limit, uint64_t *start);

/* The lock, as the cache's owner. NULL and *error: refused. */
struct loam_frame *loam_frame_cache_lock(struct loam_frame_cache *cache, enum loam_error *error);

/* With the lock: the section in which pfn lies is where the owner works. */
void loam_frame_cache_remember(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t pfn);

/* Free a block in a partly used chunk of the cache that is not current; filed anew. False: not without the lock. */
bool loam_frame_cache_give_aside(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_chunk *chunk,
                                 uint64_t start, uint32_t count, uint32_t zone);

/* --- In and out ------------------------------------------------------------------------------------------------ */

FRAME_HOT struct loam_frame *frame_of_cache(const struct loam_frame_cache *cache)
{
    return (struct loam_frame *)((uintptr_t)cache - cache->offset_bytes);
}

/* Whether the owner may go on without the lock. */
FRAME_HOT bool frame_enter(struct loam_frame_cache *cache)
{
    frame_write(cache->busy, 1);
    /* The compiler keeps the order; the processor is made to by the barrier of whoever writes forbidden. */
    atomic_signal_fence(memory_order_seq_cst);
    /* Acquire: pairs with the release in loam_frame_owner_resume. */
    if (LIKELY(__atomic_load_n(&cache->forbidden, __ATOMIC_ACQUIRE) == FRAME_RUNNING) &&
        LIKELY(cache->seal == frame_cache_seal(cache->offset_bytes))) {
        return true;
    }
    frame_write(cache->busy, 0);
    return false;
}

FRAME_HOT void frame_leave(struct loam_frame_cache *cache)
{
    /* Release: pairs with the acquire in frame_owner.c's wait_for. */
    __atomic_store_n(&cache->busy, 0, __ATOMIC_RELEASE);
}

/* Whose chunks serve a request: those of the highest zone that the limit allows. NONE: the allocator decides. */
FRAME_HOT uint32_t frame_zone_for(const struct loam_frame *frame, loam_pfn limit)
{
    if (LIKELY(limit.value == 0) && LIKELY(frame_read(frame->top_zone) == LOAM_FRAME_ZONE_NORMAL)) {
        return LOAM_FRAME_ZONE_NORMAL;
    }
    if (limit.value == frame->zone_end) {
        return LOAM_FRAME_ZONE_DMA32;
    }
    if (limit.value != 0 && limit.value < frame->pfn_end) {
        return FRAME_ZONE_NONE;
    }
    if (frame_read(frame->top_zone) == LOAM_FRAME_ZONE_NORMAL) {
        return LOAM_FRAME_ZONE_NORMAL;
    }
    return frame->dma32_reserve_frames == 0 ? (uint32_t)LOAM_FRAME_ZONE_DMA32 : FRAME_ZONE_NONE;
}

/* --- Taking ---------------------------------------------------------------------------------------------------- */

/* Count frames that came to a chunk of the cache; sum changes by change. */
FRAME_HOT void frame_count_own(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint32_t zone,
                               uint64_t change, uint64_t freed)
{
    chunk->sum ^= change;
    frame_write(chunk->free_frames, (uint16_t)(chunk->free_frames + freed));
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + freed);
}

/* Set bits of one word, which reads old, as frame_bits_set does. */
FRAME_HOT uint64_t frame_set_own(struct frame_map *map, uint32_t word, struct frame_word old, uint64_t mask,
                                 uint64_t last)
{
    frame_write(map->word[word].last, old.last | last);
    __atomic_store_n(&map->word[word].allocated, old.allocated | mask, __ATOMIC_RELEASE);
    return frame_bits_share(word, mask, last);
}

/* Make what is free in a word of the current chunk ready. False: no block of the order, 0 to 6, is free in the chunk. */
__attribute__((noinline)) static bool frame_make_ready(struct loam_frame *frame, struct loam_frame_cache *cache,
                                                       uint32_t zone, uint32_t order)
{
    struct frame_current *current = &cache->current[zone][order];
    struct frame_map *map = frame_address(frame, current->map_offset_bytes);

    if (current->seal != frame_current_seal(current) || current->ready != 0 ||
        current->ready_check != frame_ready_check(0, current->ready_base)) {
        return false;
    }
    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        struct frame_word bits = frame_bits_read(map, word);
        uint64_t starts = frame_bits_starts(frame_bits_of(bits, FRAME_BITS_FREE), order);

        if (starts != 0) {
            uint64_t count = (uint64_t)__builtin_popcountll(starts) << order;

            frame_count_own(cache, frame_address(frame, current->chunk_offset_bytes), zone,
                            frame_set_own(map, word, bits, frame_spread(starts, order), frame_ends(starts, order)),
                            -count);
            frame_write(current->ready_base, current->base + word * 64);
            current->ready_check = frame_ready_check(starts, current->ready_base);
            frame_write(current->ready, starts);
            return true;
        }
    }
    return false;
}

/* A block of order 0 to 6 out of the current chunk. */
FRAME_HOT bool frame_take_small(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order,
                                uint64_t *start)
{
    struct frame_current *current = &cache->current[zone][order];
    uint64_t ready = current->ready;

    if (UNLIKELY(ready == 0)) {
        if (!frame_make_ready(frame, cache, zone, order)) {
            return false;
        }
        ready = current->ready;
    }
    if (UNLIKELY(current->ready_check != frame_ready_check(ready, current->ready_base))) {
        return false;
    }
    *start = current->ready_base + (uint32_t)__builtin_ctzll(ready);
    ready &= ready - 1;
    current->ready_check = frame_ready_check(ready, current->ready_base);
    frame_write(current->ready, ready);
    return true;
}

/* A block of order 7 or 8 out of the current chunk. */
static inline bool frame_take_large(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone,
                                    uint32_t order, uint64_t *start)
{
    struct frame_current *current = &cache->current[zone][order];
    struct frame_map *map = frame_address(frame, current->map_offset_bytes);
    uint32_t found;

    if (current->seal != frame_current_seal(current)) {
        return false;
    }
    found = frame_bits_find_order(map, order);
    if (found == LOAM_FRAME_CHUNK_FRAMES) {
        return false;
    }
    frame_count_own(cache, frame_address(frame, current->chunk_offset_bytes), zone,
                    frame_bits_take(map, found, 1u << order, true), -(uint64_t)(1u << order));
    *start = current->base + found;
    return true;
}

/* Of order 9: a chunk that lies ready, in the section where the owner freed last. */
static inline bool frame_take_spare(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone,
                                    uint64_t *start)
{
    const struct frame_memo *memo = &cache->memo;
    uint64_t count = cache->spare_count[zone];
    struct frame_chunk *chunk;
    uint64_t at;

    if (count == 0 || count > FRAME_SPARE_CHUNKS || memo->seal != frame_memo_seal(memo)) {
        return false;
    }
    at = cache->spare[zone][count - 1];
    if (at - memo->start >= memo->count) {
        return false;
    }
    chunk = frame_address(frame, memo->chunks_offset_bytes + at / LOAM_FRAME_CHUNK_FRAMES * sizeof *chunk);
    if (chunk->owner != cache->owner || chunk->state != FRAME_CHUNK_FREE) {
        return false;
    }
    cache->spare_count[zone] = count - 1;
    frame_write(chunk->state, FRAME_CHUNK_WHOLE);
    frame_write(cache->free_frames[zone], cache->free_frames[zone] - LOAM_FRAME_CHUNK_FRAMES);
    *start = at;
    return true;
}

/* A block of order 0 to 9. */
static inline bool frame_take_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone,
                                  uint32_t order, uint64_t *start)
{
    if (zone >= FRAME_ZONE_NONE) {
        return false;
    }
    return order <= 6                  ? frame_take_small(frame, cache, zone, order, start)
           : order < FRAME_CHUNK_ORDER ? frame_take_large(frame, cache, zone, order, start)
                                       : frame_take_spare(frame, cache, zone, start);
}

/* --- Giving back ----------------------------------------------------------------------------------------------- */

/* The chunk of pfn, if it is the cache's own and in the section of the memo; NULL: not here. */
FRAME_HOT struct frame_chunk *frame_own_chunk(struct loam_frame *frame, const struct loam_frame_cache *cache,
                                              uint64_t pfn, struct frame_map **map)
{
    const struct frame_memo *memo = &cache->memo;
    uint64_t number = pfn / LOAM_FRAME_CHUNK_FRAMES;
    struct frame_chunk *chunk = frame_address(frame, memo->chunks_offset_bytes + number * sizeof *chunk);

    if (UNLIKELY(memo->seal != frame_memo_seal(memo)) || UNLIKELY(pfn - memo->start >= memo->count)) {
        return NULL;
    }
    *map = frame_address(frame, memo->maps_offset_bytes + number * sizeof **map);
    return LIKELY(frame_read(chunk->owner) == cache->owner) ? chunk : NULL;
}

/* The chunk is partly used, and others returned nothing in it. */
FRAME_HOT bool frame_is_plain(const struct frame_chunk *chunk)
{
    return LIKELY(chunk->state == FRAME_CHUNK_PARTIAL) && LIKELY(frame_read(chunk->slot) == 0);
}

/* Whether others returned the block at offset already, as far as can be told here. */
FRAME_HOT bool frame_returned_here(const struct loam_frame_cache *cache, const struct frame_chunk *chunk,
                                   uint32_t offset)
{
    uint32_t slot = frame_read(chunk->slot);

    return slot != 0 && (slot > FRAME_RETURNED ||
                         ((frame_read(cache->returned[slot - 1].starts[offset / 64]) >> (offset % 64)) & 1) != 0);
}

/* The frame before offset is no part of a block that goes on. */
FRAME_HOT bool frame_begins(const struct frame_map *map, const struct frame_chunk *chunk, uint32_t offset,
                            struct frame_word bits)
{
    if (LIKELY(offset % 64 != 0)) {
        return ((~bits.allocated | bits.last) >> (offset % 64 - 1)) & 1;
    }
    return offset == 0 ? chunk->entered == 0 : frame_bits_at(map, FRAME_BITS_ENDS, offset - 1);
}

/* The order of the free, naturally aligned run of a word that holds bit; 6: all of the word is free. */
FRAME_HOT uint32_t frame_order_at(uint64_t free_bits, uint32_t bit)
{
    uint64_t ones = free_bits & free_bits >> 1, twos = ones & ones >> 2, threes = twos & twos >> 4;
    uint64_t fours = threes & threes >> 8, fives = fours & fours >> 16;

    /* A run of one order holds a run of each below, so that they can be counted instead of compared. */
    return (uint32_t)((ones >> (bit & 62) & 1) + (twos >> (bit & 60) & 1) + (threes >> (bit & 56) & 1) +
                      (fours >> (bit & 48) & 1) + (fives >> (bit & 32) & 1) + (free_bits == UINT64_MAX));
}

/* Of a chunk that is not current: whether it stays on its list when a block, 2^n frames aligned or not, is freed. */
FRAME_HOT bool frame_stays(const struct frame_chunk *chunk, struct frame_word bits, uint64_t mask, uint32_t bit,
                           uint32_t count)
{
    uint32_t order = frame_order_at(~(bits.allocated | bits.last) | mask, bit);
    uint32_t fit = order > chunk->fit ? order : chunk->fit;
    uint32_t free_frames = chunk->free_frames + count;

    /* A whole word, and what is no natural block, may be part of more than the word shows. */
    return order < 6 && (count & (count - 1)) == 0 && (bit & (count - 1)) == 0 && chunk->list < FRAME_LIST_FULL &&
           free_frames < LOAM_FRAME_CHUNK_FRAMES && frame_partial_list(free_frames, fit) == chunk->list;
}

/* The blocks at mask, in a word of a current chunk, are not ready to be taken. */
FRAME_HOT bool frame_not_ready(const struct loam_frame_cache *cache, const struct frame_chunk *chunk, uint32_t zone,
                               uint64_t start, uint64_t mask)
{
    const struct frame_current *current = &cache->current[zone][chunk->order % FRAME_CHUNK_ORDER];

    return (current->ready & mask) == 0 || current->ready_base != loam_align_down(start, 64);
}

/* Free a block within one word of a partly used chunk of the cache, if the chunk need not be filed anew for it. */
FRAME_HOT bool frame_give_small(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t start,
                                uint64_t count)
{
    struct frame_map *map = NULL;
    struct frame_chunk *chunk = frame_own_chunk(frame, cache, start, &map);
    uint32_t offset = frame_offset(start), word = offset / 64, zone = frame_zone(frame, start);
    struct frame_word bits;
    uint64_t mask, end;

    if (UNLIKELY(chunk == NULL) || UNLIKELY(count - 1 >= 64 - offset % 64) || UNLIKELY(!frame_is_plain(chunk))) {
        return false;
    }
    bits = frame_bits_read(map, word);
    mask = UINT64_MAX >> (64 - count) << (offset % 64);
    end = UINT64_C(1) << ((offset + count - 1) % 64);
    if (UNLIKELY((bits.last & mask) != end) || UNLIKELY(((bits.allocated | end) & mask) != mask) ||
        UNLIKELY(!frame_begins(map, chunk, offset, bits))) {
        return false;
    }
    if (chunk->list == FRAME_LIST_CURRENT ? UNLIKELY(!frame_not_ready(cache, chunk, zone, start, mask))
                                          : UNLIKELY(!frame_stays(chunk, bits, mask, offset % 64, (uint32_t)count))) {
        return false;
    }
    frame_write(map->word[word].allocated, bits.allocated & ~mask);
    __atomic_store_n(&map->word[word].last, bits.last & ~mask, __ATOMIC_RELEASE);
    frame_count_own(cache, chunk, zone, frame_bits_share(word, bits.allocated & mask, end), count);
    return true;
}

/* A chunk that is one block becomes spare. */
static inline bool frame_give_whole(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t start,
                                    uint64_t count, uint32_t zone)
{
    if (chunk->state != FRAME_CHUNK_WHOLE || frame_offset(start) != 0 || count != LOAM_FRAME_CHUNK_FRAMES ||
        cache->spare_count[zone] >= FRAME_SPARE_CHUNKS || frame_returned_here(cache, chunk, 0)) {
        return false;
    }
    frame_write(chunk->state, FRAME_CHUNK_FREE);
    cache->spare[zone][cache->spare_count[zone]++] = start;
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + count);
    return true;
}

/* Free any block of the cache's own. */
static inline bool frame_give_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t start,
                                  uint64_t count)
{
    struct frame_map *map = NULL;
    struct frame_chunk *chunk = frame_own_chunk(frame, cache, start, &map);
    uint32_t offset = frame_offset(start), zone = frame_zone(frame, start);

    if (chunk == NULL || count - 1 >= LOAM_FRAME_CHUNK_FRAMES - offset) {
        return false;
    }
    if (chunk->state != FRAME_CHUNK_PARTIAL) {
        return frame_give_whole(cache, chunk, start, count, zone);
    }
    if (!frame_bits_is_block(map, offset, (uint32_t)count, chunk->entered != 0) ||
        frame_returned_here(cache, chunk, offset)) {
        return false;
    }
    if (chunk->list == FRAME_LIST_CURRENT) {
        /* Blocks that are ready lie within a word, as this one does if it is none of them. */
        if (count <= 64 - offset % 64 &&
            !frame_not_ready(cache, chunk, zone, start, frame_bits_mask(offset / 64, offset, (uint32_t)count))) {
            return false;
        }
        frame_count_own(cache, chunk, zone, frame_bits_release(map, offset, (uint32_t)count), count);
        return true;
    }
    return loam_frame_cache_give_aside(frame, cache, chunk, start, (uint32_t)count, zone);
}

#endif
