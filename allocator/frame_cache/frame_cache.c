// SPDX-License-Identifier: Apache-2.0
/* The public functions on caches, but for batches (frame_cache_batch.c). */
#include "allocator/frame_cache/frame_cache.h"

#include "allocator/frame/frame_block.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lock.h"
#include "allocator/frame/frame_search.h"
#include "allocator/frame_cache/frame_loan.h"
#include "allocator/frame_cache/frame_loan_free.h"
#include "allocator/frame_cache/frame_stop.h"

struct loam_frame *loam_frame_cache_lock(struct loam_frame_cache *cache, enum loam_error *error)
{
    struct loam_frame *frame;

    *error = LOAM_ERROR_UNINITIALISED;
    if (shared_load(cache->forbidden) == FRAME_UNUSED) {
        return NULL;
    }
    frame = frame_of_cache(cache);
    if (!frame_lock_to_change(frame)) {
        *error = LOAM_ERROR_CORRUPT;
        return NULL;
    }
    if (cache->forbidden == FRAME_UNUSED) {
        frame_unlock(frame, LOAM_OK);
        return NULL;
    }
    *error = LOAM_OK;
    return frame;
}

/* --- Taking without the lock ----------------------------------------------------------------------------------- */

/* Of a word of the window's chunk, which is locked, the free blocks that start there are made. */
static void make_word(struct loam_frame_cache *cache, struct frame_window *window, uint32_t order, uint32_t word,
                      uint64_t starts)
{
    struct loam_frame *frame = frame_of_cache(cache);
    struct frame_chunk *chunk = frame_address(frame, window->chunk_offset_bytes);
    uint64_t count = (uint64_t)__builtin_popcountll(starts) << order;

    frame_bits_set(frame_address(frame, window->map_offset_bytes), word, frame_spread(starts, order),
                   frame_ends(starts, order));
    frame_count(chunk, (uint32_t)(count >> order) * FRAME_COUNT_BLOCK - (uint32_t)count * FRAME_COUNT_FREE);
    shared_store(chunk->order, FRAME_TAKING(order, word));
    frame_cache_count(cache, window->chunk_base, -count);
    shared_store(window->base, window->chunk_base + word * UINT64_C(64));
    shared_store(window->made, starts);
    shared_store(window->ready, starts);
}

/* The next word that has free blocks of the order, from the one where the window was: those before were looked through. */
static void make_next_word(struct loam_frame_cache *cache, struct frame_window *window, uint32_t order)
{
    const struct frame_map *map = frame_address(frame_of_cache(cache), window->map_offset_bytes);

    for (uint32_t n = 0, first = frame_offset(window->base) / 64; n < FRAME_MAP_WORDS; n++) {
        uint32_t word = (first + n) % FRAME_MAP_WORDS;
        uint64_t starts = frame_bits_starts(frame_bits_word(map, FRAME_BITS_FREE, word), order);

        if (starts != 0) {
            make_word(cache, window, order, word, starts);
            return;
        }
    }
}

bool loam_frame_cache_make_ready(struct loam_frame_cache *cache, uint64_t set, uint32_t order)
{
    struct frame_window *window = &cache->window[order][set];
    struct frame_chunk *chunk = frame_address(frame_of_cache(cache), window->chunk_offset_bytes);

    if (window->link == FRAME_LINK_NONE || !frame_lend_hold(chunk)) {
        return false;
    }
    /* What others freed at the same moment is in made no more. */
    shared_store(window->ready, window->back & window->made);
    shared_store(window->back, 0);
    if (window->ready == 0 && frame_free_frames(chunk) >= 1u << order) {
        make_next_word(cache, window, order);
    }
    frame_lend_unlock(chunk);
    return window->ready != 0;
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
    struct frame_chunk *chunk = frame_address(frame, window->chunk_offset_bytes);
    struct frame_map *map = frame_address(frame, window->map_offset_bytes);
    uint32_t found;

    if (window->link == FRAME_LINK_NONE || !frame_lend_hold(chunk)) {
        return false;
    }
    found = frame_bits_find_order(map, order);
    if (found < LOAM_FRAME_CHUNK_FRAMES) {
        frame_count(chunk, frame_bits_take(map, found, 1u << order, true));
        frame_cache_count(cache, window->chunk_base, -(UINT64_C(1) << order));
        *start = window->chunk_base + found;
    }
    frame_lend_unlock(chunk);
    return found < LOAM_FRAME_CHUNK_FRAMES;
}

/* Of order 9: a chunk that is kept. */
FRAME_HOT bool take_kept(struct loam_frame_cache *cache, uint64_t set, uint64_t *start)
{
    const struct frame_kept *kept;
    struct frame_chunk *chunk;

    if (cache->kept_count[set] == 0) {
        return false;
    }
    kept = &cache->kept[set][--cache->kept_count[set]];
    chunk = frame_address(frame_of_cache(cache), kept->chunk_offset_bytes);
    shared_store(chunk->list, FRAME_LIST_NONE);
    shared_store(chunk->state, FRAME_CHUNK_WHOLE);
    cache->whole_count++;
    *start = kept->start;
    frame_cache_count(cache, *start, -UINT64_C(512));
    return true;
}

bool loam_frame_cache_take_own(struct loam_frame_cache *cache, uint64_t set, uint32_t order, uint64_t *start)
{
    if (set >= FRAME_SETS || order >= LOAM_FRAME_CACHE_ORDERS) {
        return false;
    }
    return order < FRAME_WINDOWS       ? take_small(cache, set, order, start)
           : order < FRAME_CHUNK_ORDER ? take_large(cache, set, order, start)
                                       : take_kept(cache, set, start);
}

/* --- A new current chunk --------------------------------------------------------------------------------------- */

/* The window, which is in no chunk, takes from this one, which is on no list. */
static bool enter_chunk(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                        uint32_t order)
{
    struct frame_window *window = &cache->window[order][spot->chunk->set];

    if (!frame_lend_hold(spot->chunk)) {
        loam_frame_lists_file(frame, &cache->lists[spot->chunk->set], spot);
        return false;
    }
    window->chunk_base = spot->start;
    window->chunk_offset_bytes = (uintptr_t)spot->chunk - (uintptr_t)frame;
    window->map_offset_bytes = (uintptr_t)spot->map - (uintptr_t)frame;
    shared_store(window->link, frame_spot_link(spot));
    shared_store(spot->chunk->order, FRAME_TAKING(order, FRAME_TAKING_NO_WORD));
    shared_store(spot->chunk->list, FRAME_LIST_CURRENT);
    frame_lend_unlock(spot->chunk);
    return true;
}

/* The window's chunk has no block of the order: it goes among the others. */
static bool put_aside(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, uint32_t order)
{
    struct frame_window *window = &cache->window[order][set];
    struct frame_spot spot;

    if (window->link == FRAME_LINK_NONE) {
        return true;
    }
    spot = frame_spot_from_link(frame, window->link);
    return loam_frame_loan_leave_window(frame, window, &spot, &cache->lists[set]);
}

/* A chunk of the cache's in which a block of the order is free, on no list any more: the fullest, or one that is kept. */
static bool find_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, uint32_t order,
                     struct frame_spot *spot)
{
    if (loam_frame_search_lists(frame, &cache->lists[set], order, spot)) {
        loam_frame_lists_remove(frame, &cache->lists[set], spot);
        return true;
    }
    if (cache->kept_count[set] == 0) {
        return false;
    }
    *spot = frame_spot_from_link(frame, cache->kept[set][--cache->kept_count[set]].link);
    loam_frame_chunk_make_partial(spot);
    return true;
}

/* Have a block of the order, 0 to 8, in the current chunk, out of what the cache has. Needs no lock. */
static bool refill_own(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, uint32_t order)
{
    struct frame_spot spot;

    return put_aside(frame, cache, set, order) && find_own(frame, cache, set, order, &spot) &&
           enter_chunk(frame, cache, &spot, order);
}

/*
 * Free chunks out of the allocator are kept: two that share a line of descriptors, if they can be had, so that two
 * owners do not write the same line.
 */
static bool borrow_free(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set,
                        enum loam_frame_zone zone)
{
    uint64_t room = loam_frame_lend_room(frame, zone, set == FRAME_SET_ANY);
    struct frame_spot first, spot;
    uint64_t count = loam_frame_lend_take_free(frame, zone, frame_min(2, room), &first);

    for (uint64_t n = count; n-- > 0;) {
        spot = frame_spot_at(frame, first.section, first.index + n);
        loam_frame_loan_adopt(frame, cache, &spot, set);
    }
    return count > 0;
}

/* Out of what the allocator has in a zone: the fullest chunk that will do, or wholly free ones. */
static bool refill_from(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set,
                        enum loam_frame_zone zone, uint32_t order)
{
    struct frame_spot spot;

    if (order < FRAME_CHUNK_ORDER && loam_frame_lend_room(frame, zone, set == FRAME_SET_ANY) > 0 &&
        loam_frame_lend_take_partial(frame, zone, order, &spot)) {
        loam_frame_loan_adopt(frame, cache, &spot, set);
        return enter_chunk(frame, cache, &spot, order);
    }
    return borrow_free(frame, cache, set, zone) && (order == FRAME_CHUNK_ORDER || refill_own(frame, cache, set, order));
}

/* Have a block of the order, 0 to 9, at hand, out of what the cache has, or else the allocator: the highest zone first. */
static bool refill(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set, uint32_t order)
{
    return (order < FRAME_CHUNK_ORDER ? refill_own(frame, cache, set, order) : cache->kept_count[set] > 0) ||
           (set == FRAME_SET_ANY && refill_from(frame, cache, set, LOAM_FRAME_ZONE_NORMAL, order)) ||
           refill_from(frame, cache, set, LOAM_FRAME_ZONE_DMA32, order);
}

enum loam_error loam_frame_cache_alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                              loam_pfn limit, uint64_t *start)
{
    struct loam_frame_request request = frame_request_of_order(order, limit);
    uint32_t set = (uint32_t)frame_set_for(cache, limit);
    struct loam_frame_block block;
    enum loam_error error;

    if (set < FRAME_SETS && order < LOAM_FRAME_CACHE_ORDERS) {
        loam_frame_loan_collect(frame, cache, true);
        if (loam_frame_cache_take_own(cache, set, order, start) ||
            (refill(frame, cache, set, order) && loam_frame_cache_take_own(cache, set, order, start))) {
            return LOAM_OK;
        }
    }
    error = loam_frame_block_alloc(frame, &request, &block);
    *start = block.start.value;
    return error;
}

/* Out of what the cache has, without the lock. */
static bool alloc_own(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit, loam_pfn *start)
{
    struct loam_frame *frame;
    struct frame_spot spot;
    uint64_t set;
    bool taken;

    if (!frame_enter(cache)) {
        return false;
    }
    frame = frame_of_cache(cache);
    set = frame_set_for(cache, limit);
    taken = loam_frame_cache_take_own(cache, set, order, &start->value);
    if (!taken && set < FRAME_SETS && order < LOAM_FRAME_CACHE_ORDERS) {
        loam_frame_loan_collect(frame, cache, false);
        taken = !loam_frame_loan_surplus(frame, cache, (uint32_t)set, &spot) &&
                (order == FRAME_CHUNK_ORDER || refill_own(frame, cache, (uint32_t)set, order)) &&
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
    if ((LIKELY(order < FRAME_WINDOWS) || order == FRAME_CHUNK_ORDER) && LIKELY(frame_enter(cache))) {
        uint64_t set = frame_set_for(cache, limit);
        bool taken = LIKELY(set < FRAME_SETS) &&
                     (LIKELY(order < FRAME_WINDOWS) ? frame_take_ready(cache, set, order, &start->value)
                                                    : take_kept(cache, set, &start->value));

        frame_leave(cache);
        if (LIKELY(taken)) {
            return LOAM_OK;
        }
    }
    return alloc_slowly(cache, order, limit, start);
}

/* --- Giving back ----------------------------------------------------------------------------------------------- */

struct frame_memo loam_frame_cache_memo(const struct loam_frame *frame, const struct loam_frame_cache *cache,
                                        const struct frame_section *section)
{
    return (struct frame_memo){
        .start = section->start,
        .count = section->end - section->start,
        .chunks_offset_bytes = (uintptr_t)frame_chunks(frame, section) - (uintptr_t)cache -
                               section->first_chunk * sizeof(struct frame_chunk),
        .maps_offset_bytes = (uintptr_t)frame_map(frame, section, 0) - (uintptr_t)cache -
                             section->first_chunk * sizeof(struct frame_map),
        .id = section->id,
    };
}

/* The section in which pfn lies is where the owner works; of one that is closed he shall know nothing. */
static void remember(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t pfn)
{
    struct frame_spot spot;

    if (frame_spot_find(frame, pfn, &spot) && spot.section->use != FRAME_CLOSED) {
        cache->memo = loam_frame_cache_memo(frame, cache, spot.section);
    }
}

enum loam_error loam_frame_cache_free_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t start,
                                             uint64_t count)
{
    enum loam_error error;

    remember(frame, cache, start);
    error = loam_frame_loan_give(cache, start, count);
    return error == LOAM_ERROR_NOT_FOUND ? loam_frame_block_free(frame, start, count) : error;
}

/* What cannot be freed without the lock. */
__attribute__((noinline)) static enum loam_error free_slowly(struct loam_frame_cache *cache, loam_pfn start,
                                                             uint64_t count_frames)
{
    enum loam_error error;
    struct loam_frame *frame = loam_frame_cache_lock(cache, &error);

    if (frame == NULL) {
        return error;
    }
    error = loam_frame_cache_free_locked(frame, cache, start.value, count_frames);
    loam_frame_loan_collect(frame, cache, true);
    return frame_unlock(frame, error);
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
    if ((LIKELY(order < FRAME_WINDOWS) && LIKELY((count_frames & (count_frames - 1)) == 0) &&
         frame_give_made(cache, start.value, order, 1)) ||
        (order == FRAME_CHUNK_ORDER && loam_frame_loan_give_whole(cache, start.value, count_frames)) ||
        LIKELY(loam_frame_loan_give(cache, start.value, count_frames) == LOAM_OK)) {
        frame_leave(cache);
        return LOAM_OK;
    }
    frame_leave(cache);
    return free_slowly(cache, start, count_frames);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

static void init_cache(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t n)
{
    memset(&cache->owner, 0, sizeof *cache - offsetof(struct loam_frame_cache, owner));
    cache->offset_bytes = (uint64_t)((uintptr_t)cache - (uintptr_t)frame);
    cache->zone_end = frame->zone_end;
    cache->owner = n + 1;
    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        cache->window[order][FRAME_SET_LOW] = frame_window_none;
        cache->window[order][FRAME_SET_ANY] = frame_window_none;
    }
    loam_frame_lists_init(&cache->lists[FRAME_SET_LOW]);
    loam_frame_lists_init(&cache->lists[FRAME_SET_ANY]);
    shared_store(cache->forbidden, FRAME_RUNNING);
}

enum loam_error loam_frame_cache_make(struct loam_frame *frame, struct loam_frame_cache **cache)
{
    uint32_t n = 0;

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
    while (n < frame->cache_capacity && frame_cache_at(frame, n)->forbidden != FRAME_UNUSED) {
        n++;
    }
    if (n == frame->cache_capacity) {
        return frame_unlock(frame, LOAM_ERROR_EXHAUSTED);
    }
    *cache = frame_cache_at(frame, n);
    init_cache(frame, *cache, n);
    frame->lender_top = (uint32_t)frame_max(frame->lender_top, n + 1);
    return frame_unlock(frame, LOAM_OK);
}

enum loam_error loam_frame_cache_drain(struct loam_frame_cache *cache)
{
    struct loam_frame *frame;
    enum loam_error error;

    if (cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    frame = loam_frame_cache_lock(cache, &error);
    if (frame == NULL) {
        return error;
    }
    error = loam_frame_stop_owner(frame, cache);
    if (error == LOAM_OK && !loam_frame_loan_drain(frame, cache, true)) {
        error = LOAM_ERROR_BUSY;
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_cache_destroy(struct loam_frame_cache *cache)
{
    struct loam_frame *frame;
    enum loam_error error;

    if (cache == NULL) {
        return LOAM_ERROR_INVALID;
    }
    frame = loam_frame_cache_lock(cache, &error);
    if (frame == NULL) {
        return error;
    }
    error = loam_frame_stop_owner(frame, cache);
    /* Who ends it uses it no more, or is its owner; if that cannot be made sure of, the caller is taken at his word. */
    if (error != LOAM_OK && shared_load_acquire(cache->busy) != 0) {
        return frame_unlock(frame, error);
    }
    if (!loam_frame_loan_end(frame, cache)) {
        return frame_unlock(frame, LOAM_ERROR_BUSY);
    }
    frame->lent_frames[LOAM_FRAME_ZONE_DMA32] += cache->free_frames[LOAM_FRAME_ZONE_DMA32];
    frame->lent_frames[LOAM_FRAME_ZONE_NORMAL] += cache->free_frames[LOAM_FRAME_ZONE_NORMAL];
    shared_store(cache->forbidden, FRAME_UNUSED);
    return frame_unlock(frame, LOAM_OK);
}
