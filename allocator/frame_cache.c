// SPDX-License-Identifier: Apache-2.0
/* The public functions on caches, but for batches (frame_batch.c), and what they do with the lock. */
#include "allocator/frame_cache.h"

#include "allocator/check.h"
#include "allocator/frame_block.h"
#include "allocator/frame_buddy.h"
#include "allocator/frame_claim.h"
#include "allocator/frame_lock.h"
#include "allocator/frame_owner.h"
#include "allocator/frame_return.h"
#include "allocator/frame_search.h"
#include "allocator/frame_stop.h"
#include "loam/frame.h"

struct loam_frame *loam_frame_cache_lock(struct loam_frame_cache *cache, enum loam_error *error)
{
    struct loam_frame *frame = frame_of_cache(cache);

    if (!frame_lock_to_change(frame)) {
        *error = LOAM_ERROR_CORRUPT;
        return NULL;
    }
    if (cache->forbidden == FRAME_UNUSED) {
        *error = frame_unlock(frame, LOAM_ERROR_UNINITIALISED);
        return NULL;
    }
    frame_write(frame->holder, (uint32_t)cache->owner);
    /* It stands still already; what is ready goes back to the bitmaps. */
    loam_frame_stop_settle(frame, cache);
    *error = LOAM_OK;
    return frame;
}

/* --- Taking without the lock ----------------------------------------------------------------------------------- */

bool loam_frame_cache_make_ready(struct loam_frame_cache *cache, uint64_t set, uint32_t order)
{
    struct frame_window *window = &cache->window[order][set];
    struct loam_frame *frame = frame_of_cache(cache);
    struct frame_map *map = frame_address(frame, window->map_offset_bytes);
    uint32_t first;

    if (window->back != 0) {
        frame_write(window->ready, window->back);
        frame_write(window->back, 0);
        return true;
    }
    if (window->link == FRAME_LINK_NONE) {
        return false;
    }
    /* From the word where it was: those before it were looked through already. */
    first = frame_offset(window->base) / 64;
    for (uint32_t n = 0; n < FRAME_MAP_WORDS; n++) {
        uint32_t word = (first + n) % FRAME_MAP_WORDS;
        uint64_t starts = frame_bits_starts(frame_bits_word(map, FRAME_BITS_FREE, word), order);
        uint64_t count = (uint64_t)__builtin_popcountll(starts) << order;

        if (starts == 0) {
            continue;
        }
        frame_bits_set(map, word, frame_spread(starts, order), frame_ends(starts, order));
        frame_count_own(cache, frame_address(frame, window->chunk_offset_bytes), window->chunk_base,
                        (uint32_t)(count >> order) * FRAME_COUNT_BLOCK - (uint32_t)count * FRAME_COUNT_FREE, -count);
        frame_write(window->base, window->chunk_base + word * UINT64_C(64));
        frame_write(window->made, starts);
        frame_write(window->back, 0);
        frame_write(window->ready, starts);
        return true;
    }
    return false;
}

/* A block of order 0 to 6 out of the current chunk. */
static bool take_small(struct loam_frame_cache *cache, uint64_t set, uint32_t order, uint64_t *start)
{
    return frame_take_ready(cache, set, order, start) ||
           (loam_frame_cache_make_ready(cache, set, order) && frame_take_ready(cache, set, order, start));
}

/* A block of order 7 or 8 out of the current chunk. */
static bool take_large(struct loam_frame_cache *cache, uint64_t set, uint32_t order, uint64_t *start)
{
    const struct frame_window *window = &cache->window[order][set];
    struct loam_frame *frame = frame_of_cache(cache);
    struct frame_map *map = frame_address(frame, window->map_offset_bytes);
    uint32_t found;

    if (window->link == FRAME_LINK_NONE) {
        return false;
    }
    found = frame_bits_find_order(map, order);
    if (found == LOAM_FRAME_CHUNK_FRAMES) {
        return false;
    }
    frame_count_own(cache, frame_address(frame, window->chunk_offset_bytes), window->chunk_base,
                    frame_bits_take(map, found, 1u << order, true), -(uint64_t)(1u << order));
    *start = window->chunk_base + found;
    return true;
}

/* Of order 9: a chunk that lies ready, in the section where the owner freed last. */
static bool take_spare(struct loam_frame_cache *cache, uint64_t set, uint64_t *start)
{
    uint64_t count = cache->spare_count[set], zone;
    struct frame_chunk *chunk;
    struct frame_map *map;

    if (count == 0) {
        return false;
    }
    *start = cache->spare[set][count - 1];
    chunk = frame_own_chunk(cache, *start, &map);
    if (chunk == NULL) {
        return false;
    }
    cache->spare_count[set] = count - 1;
    frame_write(chunk->state, FRAME_CHUNK_WHOLE);
    zone = frame_zone_of(cache, *start);
    frame_write(cache->free_frames[zone], cache->free_frames[zone] - LOAM_FRAME_CHUNK_FRAMES);
    return true;
}

bool loam_frame_cache_take_own(struct loam_frame_cache *cache, uint64_t set, uint32_t order, uint64_t *start)
{
    if (set >= FRAME_SETS || order >= LOAM_FRAME_CACHE_ORDERS) {
        return false;
    }
    return order <= 6                  ? take_small(cache, set, order, start)
           : order < FRAME_CHUNK_ORDER ? take_large(cache, set, order, start)
                                       : take_spare(cache, set, start);
}

/* --- A new current chunk, with the lock ------------------------------------------------------------------------ */

static void make_current(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                         uint32_t order)
{
    const struct frame_window window = {
        .chunk_base = spot->start,
        .chunk_offset_bytes = (uintptr_t)spot->chunk - (uintptr_t)frame,
        .map_offset_bytes = (uintptr_t)spot->map - (uintptr_t)frame,
        .link = frame_spot_link(spot),
    };

    if (spot->chunk->list != FRAME_LIST_NONE) {
        loam_frame_lists_remove(frame, spot);
    }
    spot->chunk->list = FRAME_LIST_CURRENT;
    spot->chunk->order = (uint8_t)order;
    frame_window_move(&cache->window[order][spot->chunk->set], &window);
}

/* The current chunk has no block of the order: it goes among the others. */
static void put_current_aside(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, uint32_t order)
{
    uint64_t link = cache->window[order][set].link;

    if (link != FRAME_LINK_NONE) {
        struct frame_spot spot = frame_spot_from_link(frame, link);

        loam_frame_owner_put_aside(frame, &spot);
    }
}

/* How many whole chunks of a zone the allocator can lend to a set. */
static uint64_t chunks_to_lend(const struct loam_frame *frame, enum frame_set set, enum loam_frame_zone zone)
{
    return set == FRAME_SET_ANY && zone == LOAM_FRAME_ZONE_DMA32
               ? loam_frame_block_budget(frame) / LOAM_FRAME_CHUNK_FRAMES
               : UINT64_MAX;
}

/*
 * Free chunks out of the buddy lie spare in the cache from now on: two that share a line of descriptors, if they can be
 * had, so that two owners do not write the same line.
 */
static bool adopt_piece(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set,
                        enum loam_frame_zone zone)
{
    uint64_t count = frame_min(2, chunks_to_lend(frame, set, zone));
    struct frame_spot first, spot;

    if (count == 0 || !loam_frame_search_piece(frame, zone, &first)) {
        return false;
    }
    count = frame_min(count, frame_spot_chunks(&first));
    while (count-- > 0) {
        spot = frame_spot_at(frame, first.section, first.index + count);
        loam_frame_buddy_take_one(frame, &spot);
        loam_frame_owner_adopt(frame, cache, &spot, set);
    }
    return true;
}

/*
 * The place of a spare chunk. Without the lock only one in the memo's section can be told: the index may be changing,
 * but a section stays while a chunk of it is the cache's. False: take the lock.
 */
static bool find_spare(const struct loam_frame *frame, const struct loam_frame_cache *cache, uint64_t start,
                       struct frame_spot *spot)
{
    if (start - cache->memo.start < cache->memo.count) {
        *spot = frame_spot_of(frame, &frame_sections(frame)[cache->memo.id], start);
        return true;
    }
    return frame_read(frame->holder) == cache->owner && loam_frame_spot_find(frame, start, spot);
}

/* A spare chunk of the cache becomes partly used. */
static bool open_spare(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, struct frame_spot *spot)
{
    uint64_t count = cache->spare_count[set];

    if (count == 0 || !find_spare(frame, cache, cache->spare[set][count - 1], spot)) {
        return false;
    }
    cache->spare_count[set] = count - 1;
    loam_frame_chunk_make_partial(spot);
    frame_write(spot->chunk->crossed, 0);
    return true;
}

/*
 * Have a block of the order in the current chunk, out of what the cache owns: the fullest chunk that will do, or a
 * spare one. Needs no lock.
 */
static bool refill_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, uint32_t order)
{
    struct frame_spot spot;

    put_current_aside(frame, cache, set, order);
    if (!loam_frame_search_lists(frame, &cache->lists[set], order, &spot) && !open_spare(frame, cache, set, &spot)) {
        return false;
    }
    make_current(frame, cache, &spot, order);
    return true;
}

/* Out of what the allocator has in a zone: the fullest chunk that will do, or wholly free ones. */
static bool refill_from(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set,
                        enum loam_frame_zone zone, uint32_t order)
{
    struct frame_spot spot;

    if (order < FRAME_CHUNK_ORDER && chunks_to_lend(frame, set, zone) > 0 &&
        loam_frame_search_chunk(frame, zone, order, &spot)) {
        loam_frame_owner_adopt(frame, cache, &spot, set);
        make_current(frame, cache, &spot, order);
        return true;
    }
    return adopt_piece(frame, cache, set, zone) && (order == FRAME_CHUNK_ORDER || refill_own(frame, cache, set, order));
}

/* Have a block of the order, 0 to 9, at hand, out of what the cache has, or else the allocator: the highest zone first. */
static bool refill(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set, uint32_t order)
{
    return (order < FRAME_CHUNK_ORDER ? refill_own(frame, cache, set, order) : cache->spare_count[set] > 0) ||
           (set == FRAME_SET_ANY && refill_from(frame, cache, set, LOAM_FRAME_ZONE_NORMAL, order)) ||
           refill_from(frame, cache, set, LOAM_FRAME_ZONE_DMA32, order);
}

void loam_frame_cache_remember(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t pfn)
{
    struct frame_spot spot;

    if (loam_frame_spot_find(frame, pfn, &spot)) {
        cache->memo = frame_memo_of(frame, cache, spot.section);
    }
}

/* Refill and take, or ask the allocator. */
enum loam_error loam_frame_cache_alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                              loam_pfn limit, uint64_t *start)
{
    struct loam_frame_request request = frame_request_of_order(order, limit);
    uint32_t set = (uint32_t)frame_set_for(cache, limit);
    struct loam_frame_block block;
    enum loam_error error;

    if (set < FRAME_SETS && order < LOAM_FRAME_CACHE_ORDERS) {
        loam_frame_return_collect(frame, cache);
        if (loam_frame_cache_take_own(cache, set, order, start)) {
            return LOAM_OK;
        }
        if (refill(frame, cache, set, order)) {
            if (order == FRAME_CHUNK_ORDER) {
                loam_frame_cache_remember(frame, cache, cache->spare[set][cache->spare_count[set] - 1]);
            }
            CHECK(loam_frame_cache_take_own(cache, set, order, start));
            return LOAM_OK;
        }
    }
    error = loam_frame_block_alloc(frame, &request, &block);
    *start = block.start.value;
    return error;
}

/* Out of the current chunk, or another of the cache's own, without the lock. */
static bool alloc_own(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit, loam_pfn *start)
{
    struct loam_frame *frame = frame_of_cache(cache);
    uint64_t set = frame_set_for(cache, limit);
    bool taken;

    if (set >= FRAME_SETS || !frame_enter(cache)) {
        return false;
    }
    taken = loam_frame_cache_take_own(cache, set, order, &start->value);
    if (!taken && order < FRAME_CHUNK_ORDER) {
        taken = refill_own(frame, cache, (uint32_t)set, order) &&
                loam_frame_cache_take_own(cache, set, order, &start->value);
    }
    frame_leave(cache);
    return taken;
}

/* What is not ready. */
__attribute__((noinline)) static enum loam_error alloc_slowly(struct loam_frame_cache *cache, uint32_t order,
                                                              loam_pfn limit, loam_pfn *start)
{
    struct loam_frame *frame;
    enum loam_error error;
    uint64_t at = 0;

    if (alloc_own(cache, order, limit, start)) {
        return LOAM_OK;
    }
    *start = loam_pfn_from_u64(0);
    frame = loam_frame_cache_lock(cache, &error);
    if (frame == NULL) {
        return error;
    }
    error = frame_unlock(frame, loam_frame_cache_alloc_locked(frame, cache, order, limit, &at));
    *start = loam_pfn_from_u64(error == LOAM_OK ? at : 0);
    return error;
}

enum loam_error loam_frame_cache_alloc(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit, loam_pfn *start)
{
    if (UNLIKELY(cache == NULL || start == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    if (LIKELY(order < FRAME_WINDOWS) && LIKELY(frame_enter(cache))) {
        uint64_t set = frame_set_for(cache, limit);
        bool taken = LIKELY(set < FRAME_SETS) && frame_take_ready(cache, set, order, &start->value);

        frame_leave(cache);
        if (LIKELY(taken)) {
            return LOAM_OK;
        }
    }
    return alloc_slowly(cache, order, limit, start);
}

/* --- Giving back ----------------------------------------------------------------------------------------------- */

/* Of a chunk that is not current: whether it stays on its list when the block is freed. */
static inline bool stays(const struct frame_chunk *chunk, const struct frame_block_bits *bits, uint32_t bit,
                         uint32_t count)
{
    uint32_t order = frame_bits_order_at(~(bits->old.allocated | bits->old.last) | bits->mask, bit);
    uint32_t fit = order > chunk->fit ? order : chunk->fit;
    uint32_t free_frames = frame_free_frames(chunk) + count;

    /* A whole word, and what is no natural block, may be part of more than the word shows. */
    return order < 6 && (count & (count - 1)) == 0 && (bit & (count - 1)) == 0 && chunk->list < FRAME_LIST_FULL &&
           free_frames < LOAM_FRAME_CHUNK_FRAMES && frame_partial_list(free_frames, fit) == chunk->list;
}

/* Free a block in a partly used chunk of the cache that is not current, filed anew. False: not without the lock. */
static bool give_aside(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t start, uint32_t count)
{
    uint64_t *cached = &cache->free_frames[frame_zone_of(cache, start)];
    struct loam_frame *frame = frame_of_cache(cache);
    struct frame_spot spot = frame_spot_of(frame, &frame_sections(frame)[cache->memo.id], start);

    if (frame_free_frames(chunk) + count == LOAM_FRAME_CHUNK_FRAMES &&
        cache->spare_count[chunk->set] == FRAME_SPARE_CHUNKS) {
        return false;
    }
    if (loam_frame_chunk_release_part(frame, &spot, frame_offset(start), count)) {
        chunk->order = FRAME_ORDER_OWNED;
        frame_write(chunk->state, FRAME_CHUNK_FREE);
        cache->spare[chunk->set][cache->spare_count[chunk->set]++] = spot.start;
    }
    frame_write(*cached, *cached + count);
    return true;
}

/* Whether others returned the block at offset already, as far as can be told here. */
static bool returned_here(const struct loam_frame_cache *cache, const struct frame_chunk *chunk, uint32_t offset)
{
    uint32_t slot = frame_read(chunk->slot);

    return slot != 0 && ((frame_read(cache->returned[slot - 1].starts[offset / 64]) >> (offset % 64)) & 1) != 0;
}

/* A chunk that is one block becomes spare. */
static bool give_whole(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t start, uint64_t count)
{
    uint64_t *cached = &cache->free_frames[frame_zone_of(cache, start)];

    if (chunk->state != FRAME_CHUNK_WHOLE || frame_offset(start) != 0 || count != LOAM_FRAME_CHUNK_FRAMES ||
        cache->spare_count[chunk->set] >= FRAME_SPARE_CHUNKS || returned_here(cache, chunk, 0)) {
        return false;
    }
    frame_write(chunk->state, FRAME_CHUNK_FREE);
    cache->spare[chunk->set][cache->spare_count[chunk->set]++] = start;
    frame_write(*cached, *cached + count);
    return true;
}

bool loam_frame_cache_give_own(struct loam_frame_cache *cache, uint64_t start, uint64_t count)
{
    struct frame_map *map;
    struct frame_chunk *chunk = frame_own_chunk(cache, start, &map);
    uint32_t offset = frame_offset(start);

    if (chunk == NULL || count - 1 >= LOAM_FRAME_CHUNK_FRAMES - offset) {
        return false;
    }
    if (chunk->state != FRAME_CHUNK_PARTIAL) {
        return give_whole(cache, chunk, start, count);
    }
    if (!frame_bits_is_block(map, offset, (uint32_t)count, (chunk->crossed & 1) != 0) ||
        returned_here(cache, chunk, offset)) {
        return false;
    }
    if (chunk->list != FRAME_LIST_CURRENT) {
        return give_aside(cache, chunk, start, (uint32_t)count);
    }
    /* Blocks that are made lie within a word, and so does this one if it is one of them. */
    if (count <= 64 - offset % 64 &&
        !frame_not_made(cache, chunk, start, frame_bits_mask(offset / 64, offset, (uint32_t)count))) {
        return false;
    }
    frame_count_own(cache, chunk, start, frame_bits_release(map, offset, (uint32_t)count), count);
    return true;
}

__attribute__((noinline)) static enum loam_error free_slowly(struct loam_frame_cache *cache, loam_pfn start,
                                                             uint64_t count_frames)
{
    struct loam_frame *frame;
    enum loam_error error;

    if (frame_enter(cache)) {
        bool given = loam_frame_cache_give_own(cache, start.value, count_frames);

        frame_leave(cache);
        if (given) {
            return LOAM_OK;
        }
    }
    frame = loam_frame_cache_lock(cache, &error);
    if (frame == NULL) {
        return error;
    }
    loam_frame_return_collect(frame, cache);
    loam_frame_cache_remember(frame, cache, start.value);
    return frame_unlock(frame, loam_frame_block_free(frame, start.value, count_frames));
}

/* In a plain chunk that is current. Entered before, left here. */
__attribute__((noinline)) static enum loam_error free_current(struct loam_frame_cache *cache, struct frame_chunk *chunk,
                                                              struct frame_map *map, uint64_t start, uint64_t count)
{
    struct frame_block_bits bits;
    bool given = frame_block_in_word(chunk, map, start, count, &bits) && frame_not_made(cache, chunk, start, bits.mask);

    if (LIKELY(given)) {
        frame_clear_block(cache, chunk, &bits, start, count);
    }
    frame_leave(cache);
    return LIKELY(given) ? LOAM_OK : free_slowly(cache, loam_pfn_from_u64(start), count);
}

/* What is not made, by the bitmaps of its chunk. Entered before, left here. */
__attribute__((noinline)) static enum loam_error free_in_chunk(struct loam_frame_cache *cache, loam_pfn start,
                                                               uint64_t count)
{
    struct frame_map *map;
    struct frame_chunk *chunk = frame_own_chunk(cache, start.value, &map);
    uint64_t marks = chunk == NULL ? 0 : frame_marks(chunk);
    struct frame_block_bits bits;

    if ((marks & FRAME_MARKS_CURRENT) == FRAME_IS_CURRENT) {
        return free_current(cache, chunk, map, start.value, count);
    }
    if (LIKELY((marks & FRAME_MARKS_PLAIN) == FRAME_IS_PLAIN) &&
        LIKELY(frame_block_in_word(chunk, map, start.value, count, &bits)) &&
        LIKELY(stays(chunk, &bits, (uint32_t)(start.value % 64), (uint32_t)count))) {
        frame_clear_block(cache, chunk, &bits, start.value, count);
        frame_leave(cache);
        return LOAM_OK;
    }
    if (chunk != NULL && count == LOAM_FRAME_CHUNK_FRAMES && give_whole(cache, chunk, start.value, count)) {
        frame_leave(cache);
        return LOAM_OK;
    }
    frame_leave(cache);
    return free_slowly(cache, start, count);
}

enum loam_error loam_frame_cache_free(struct loam_frame_cache *cache, loam_pfn start, uint64_t count_frames)
{
    uint64_t order = (uint64_t)(unsigned)__builtin_ctzll(count_frames | UINT64_C(1) << 63);

    if (UNLIKELY(cache == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    if (UNLIKELY(!frame_enter(cache))) {
        return free_slowly(cache, start, count_frames);
    }
    if (LIKELY(order < FRAME_WINDOWS) && LIKELY((count_frames & (count_frames - 1)) == 0) &&
        frame_give_made(cache, start.value, order, 1)) {
        frame_leave(cache);
        return LOAM_OK;
    }
    return free_in_chunk(cache, start, count_frames);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

static void init_cache(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t id)
{
    memset(cache, 0, sizeof *cache);
    cache->id = id;
    cache->offset_bytes = (uint64_t)((uintptr_t)cache - (uintptr_t)frame);
    cache->zone_end = frame->zone_end;
    cache->owner = id + 1;
    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        cache->window[order][FRAME_SET_LOW] = frame_window_none;
        cache->window[order][FRAME_SET_ANY] = frame_window_none;
    }
    loam_frame_lists_init(&cache->lists[FRAME_SET_LOW]);
    loam_frame_lists_init(&cache->lists[FRAME_SET_ANY]);
    for (uint32_t n = 0; n < FRAME_RETURNED; n++) {
        cache->returned[n].link = FRAME_LINK_NONE;
    }
}

enum loam_error loam_frame_cache_make(struct loam_frame *frame, struct loam_frame_cache **cache)
{
    uint32_t id = 0;

    if (cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *cache = NULL;
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!loam_frame_stop_barrier_set()) {
        return LOAM_ERROR_UNINITIALISED;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    while (id < frame->cache_capacity && frame_caches(frame)[id].forbidden != FRAME_UNUSED) {
        id++;
    }
    if (id == frame->cache_capacity) {
        return frame_unlock(frame, LOAM_ERROR_EXHAUSTED);
    }
    *cache = &frame_caches(frame)[id];
    init_cache(frame, *cache, id);
    frame_write(frame->cache_top, (uint32_t)frame_max(frame->cache_top, id + 1));
    return frame_unlock(frame, LOAM_OK);
}

/* Drain, and end it if that is wanted. */
static enum loam_error drain(struct loam_frame_cache *cache, bool end)
{
    enum loam_error error = LOAM_ERROR_UNINITIALISED;
    struct loam_frame *frame;

    if (cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    frame = frame_of_cache(cache);
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    if (cache->forbidden == FRAME_UNUSED) {
        return frame_unlock(frame, error);
    }
    /* Who ends it uses it no more, or is its owner; if that cannot be made sure of, the caller is taken at his word. */
    if (end && !loam_frame_stop_owner(frame, cache) && __atomic_load_n(&cache->busy, __ATOMIC_ACQUIRE) == 0) {
        frame_write(frame->holder, (uint32_t)cache->owner);
    }
    error = loam_frame_stop_error();
    if (loam_frame_claim_drain(frame, cache)) {
        frame_write(cache->forbidden, end ? FRAME_UNUSED : cache->forbidden);
        error = LOAM_OK;
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_cache_drain(struct loam_frame_cache *cache)
{
    return drain(cache, false);
}

enum loam_error loam_frame_cache_destroy(struct loam_frame_cache *cache)
{
    return drain(cache, true);
}
