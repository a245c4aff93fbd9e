// SPDX-License-Identifier: Apache-2.0
/* The public functions on caches, but for batches (frame_batch.c), and what they do with the lock. */
#include "allocator/frame_cache.h"

#include "allocator/frame_block.h"
#include "allocator/frame_buddy.h"
#include "allocator/frame_find.h"
#include "allocator/frame_lock.h"
#include "allocator/frame_owner.h"
#include "allocator/frame_search.h"
#include "loam/frame.h"

struct loam_frame *loam_frame_cache_lock(struct loam_frame_cache *cache, enum loam_error *error)
{
    struct loam_frame *frame = NULL;

    *error = LOAM_ERROR_UNINITIALISED;
    if (cache->seal == frame_cache_seal(cache->offset_bytes)) {
        frame = frame_lock_to_change(frame_of_cache(cache));
        *error = frame == NULL ? LOAM_ERROR_CORRUPT : LOAM_OK;
    }
    if (frame != NULL && cache->forbidden == FRAME_UNUSED) {
        *error = frame_unlock(frame, LOAM_ERROR_UNINITIALISED);
        return NULL;
    }
    if (frame != NULL) {
        frame->holder = (uint32_t)cache->id + 1;
    }
    return frame;
}

/* --- A new current chunk, with the lock ------------------------------------------------------------------------ */

static void make_current(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                         uint64_t chunk, uint32_t zone, uint32_t order)
{
    struct frame_current *current = &cache->current[zone][order];
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    if (this->list != FRAME_LIST_NONE) {
        loam_frame_lists_remove(frame, section, chunk);
    }
    this->list = FRAME_LIST_CURRENT;
    this->order = (uint8_t)order;
    *current = (struct frame_current){
        .ready_check = UINT64_MAX,
        .base = frame_chunk_start(section, chunk),
        .chunk_offset_bytes = (uintptr_t)this - (uintptr_t)frame,
        .map_offset_bytes = (uintptr_t)frame_map(frame, section, chunk) - (uintptr_t)frame,
        .link = frame_link(section, chunk),
    };
    current->seal = frame_current_seal(current);
}

/* The current chunk has no block of the order: it goes among the others. */
static void put_current_aside(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order)
{
    uint64_t link = cache->current[zone][order].link;
    struct frame_section *section;

    if (cache->current[zone][order].seal != frame_current_seal(&cache->current[zone][order])) {
        return;
    }
    loam_frame_chunk_from_link(frame, link, &section);
    if (section != NULL) {
        loam_frame_owner_put_aside(frame, section, (uint32_t)link);
    }
}

/* A chunk out of the buddy, the cache's from now on: partly used if it is to be, else spare. */
static bool adopt_piece(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, bool partial,
                        struct frame_section **section, uint64_t *chunk)
{
    if (!loam_frame_search_piece(frame, zone, section, chunk)) {
        return false;
    }
    loam_frame_buddy_take_one(frame, *section, *chunk);
    if (frame_read(frame->damaged)) {
        return false;
    }
    if (partial) {
        loam_frame_chunk_make_partial(frame, *section, *chunk);
    }
    loam_frame_owner_adopt(frame, cache, *section, *chunk);
    return !frame_read(frame->damaged);
}

/* A spare chunk of the cache becomes partly used. */
static bool open_spare(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone,
                       struct frame_section **section, uint64_t *chunk)
{
    uint64_t start;

    if (cache->spare_count[zone] == 0 || cache->spare_count[zone] > FRAME_SPARE_CHUNKS) {
        return false;
    }
    start = cache->spare[zone][--cache->spare_count[zone]];
    *section = loam_frame_section_from_pfn(frame, start);
    if (*section == NULL) {
        loam_frame_damage(frame);
        return false;
    }
    *chunk = frame_chunk_index(*section, start);
    loam_frame_chunk_make_partial(frame, *section, *chunk);
    frame_chunks(frame, *section)[*chunk].entered = 0;
    return true;
}

/*
 * Have a block of the order in the current chunk: the fullest that will do of the cache's own, then of the allocator's,
 * then a chunk that is wholly free.
 */
static bool refill(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order)
{
    struct frame_section *section;
    uint64_t chunk;

    put_current_aside(frame, cache, zone, order);
    if (loam_frame_search_lists(frame, &cache->lists[zone], order, &section, &chunk)) {
        make_current(frame, cache, section, chunk, zone, order);
    } else if (loam_frame_search_chunk(frame, zone, order, &section, &chunk)) {
        loam_frame_owner_adopt(frame, cache, section, chunk);
        if (!frame_read(frame->damaged)) {
            make_current(frame, cache, section, chunk, zone, order);
        }
    } else if (open_spare(frame, cache, zone, &section, &chunk) ||
               adopt_piece(frame, cache, zone, true, &section, &chunk)) {
        make_current(frame, cache, section, chunk, zone, order);
    } else {
        return false;
    }
    return !frame_read(frame->damaged);
}

void loam_frame_cache_remember(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t pfn)
{
    const struct frame_section *section = loam_frame_section_from_pfn(frame, pfn);
    struct frame_memo *memo = &cache->memo;

    if (section == NULL) {
        return;
    }
    *memo = (struct frame_memo){
        .start = section->start,
        .count = section->end - section->start,
        .chunks_offset_bytes = section->metadata_offset_bytes - section->first_chunk * sizeof(struct frame_chunk),
        .maps_offset_bytes = section->metadata_offset_bytes + frame_chunks_bytes(section->chunk_count) -
                             section->first_chunk * sizeof(struct frame_map),
        .id = section->id,
    };
    memo->seal = frame_memo_seal(memo);
}

/* Refill and take, or ask the allocator. */
enum loam_error loam_frame_cache_alloc_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                              loam_pfn limit, uint64_t *start)
{
    struct loam_frame_request request = frame_request_of_order(order, limit);
    uint32_t zone = frame_zone_for(frame, limit);
    struct frame_section *section;
    struct loam_frame_block block;
    enum loam_error error;
    uint64_t chunk;

    if (zone < FRAME_ZONE_NONE && order < LOAM_FRAME_CACHE_ORDERS) {
        loam_frame_owner_collect(frame, cache);
        if (order < FRAME_CHUNK_ORDER
                ? refill(frame, cache, zone, order)
                : cache->spare_count[zone] > 0 || adopt_piece(frame, cache, zone, false, &section, &chunk)) {
            if (order == FRAME_CHUNK_ORDER) {
                loam_frame_cache_remember(frame, cache,
                                          cache->spare[zone][(cache->spare_count[zone] - 1) % FRAME_SPARE_CHUNKS]);
            }
            if (frame_take_own(frame, cache, zone, order, start)) {
                return LOAM_OK;
            }
            loam_frame_damage(frame);
            return LOAM_ERROR_CORRUPT;
        }
    }
    error = loam_frame_block_alloc(frame, &request, &block);
    *start = block.start.value;
    return error;
}

/* What the hot path could not: a large block, or with the lock. */
FRAME_COLD static enum loam_error alloc_slowly(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit,
                                               loam_pfn *start)
{
    struct loam_frame *frame;
    enum loam_error error;
    uint64_t at = 0;

    *start = loam_pfn_from_u64(0);
    if (order > 6 && order < LOAM_FRAME_CACHE_ORDERS && frame_enter(cache)) {
        bool taken;

        frame = frame_of_cache(cache);
        taken = frame_take_own(frame, cache, frame_zone_for(frame, limit), order, &at);
        frame_leave(cache);
        if (taken) {
            *start = loam_pfn_from_u64(at);
            return LOAM_OK;
        }
    }
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
    if (LIKELY(order <= 6) && LIKELY(frame_enter(cache))) {
        struct loam_frame *frame = frame_of_cache(cache);
        uint32_t zone = frame_zone_for(frame, limit);
        bool taken = LIKELY(zone < FRAME_ZONE_NONE) && frame_take_small(frame, cache, zone, order, &start->value);

        frame_leave(cache);
        if (LIKELY(taken)) {
            return LOAM_OK;
        }
    }
    return alloc_slowly(cache, order, limit, start);
}

/* --- Giving back ----------------------------------------------------------------------------------------------- */

bool loam_frame_cache_give_aside(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_chunk *chunk,
                                 uint64_t start, uint32_t count, uint32_t zone)
{
    const struct frame_section *section = loam_frame_section_from_id(frame, cache->memo.id);
    uint64_t index;

    if (section == NULL || start - section->start >= section->end - section->start) {
        return false;
    }
    index = frame_chunk_index(section, start);
    if (&frame_chunks(frame, section)[index] != chunk || chunk->list >= FRAME_LISTS ||
        (chunk->free_frames + count >= LOAM_FRAME_CHUNK_FRAMES && cache->spare_count[zone] >= FRAME_SPARE_CHUNKS)) {
        return false;
    }
    if (loam_frame_chunk_release_part(frame, section, index, frame_offset(start), count)) {
        chunk->order = FRAME_ORDER_OWNED;
        frame_write(chunk->state, FRAME_CHUNK_FREE);
        cache->spare[zone][cache->spare_count[zone]++] = loam_align_down(start, LOAM_FRAME_CHUNK_FRAMES);
    }
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + count);
    return true;
}

FRAME_COLD static enum loam_error free_slowly(struct loam_frame_cache *cache, loam_pfn start, uint64_t count_frames)
{
    struct loam_frame *frame;
    enum loam_error error;

    if (frame_enter(cache)) {
        bool given = frame_give_own(frame_of_cache(cache), cache, start.value, count_frames);

        frame_leave(cache);
        if (given) {
            return LOAM_OK;
        }
    }
    frame = loam_frame_cache_lock(cache, &error);
    if (frame == NULL) {
        return error;
    }
    loam_frame_cache_remember(frame, cache, start.value);
    return frame_unlock(frame, loam_frame_block_free(frame, start.value, count_frames));
}

enum loam_error loam_frame_cache_free(struct loam_frame_cache *cache, loam_pfn start, uint64_t count_frames)
{
    if (LIKELY(frame_enter(cache))) {
        bool given = frame_give_small(frame_of_cache(cache), cache, start.value, count_frames);

        frame_leave(cache);
        if (LIKELY(given)) {
            return LOAM_OK;
        }
    }
    return free_slowly(cache, start, count_frames);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

static void init_cache(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t id)
{
    memset(cache, 0, sizeof *cache);
    cache->id = id;
    cache->offset_bytes = (uint64_t)((uintptr_t)cache - (uintptr_t)frame);
    cache->seal = frame_cache_seal(cache->offset_bytes);
    cache->owner = id + 1;
    cache->memo = frame_memo_none;
    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        cache->current[LOAM_FRAME_ZONE_DMA32][order] = frame_current_none;
        cache->current[LOAM_FRAME_ZONE_NORMAL][order] = frame_current_none;
    }
    loam_frame_lists_init(&cache->lists[LOAM_FRAME_ZONE_DMA32]);
    loam_frame_lists_init(&cache->lists[LOAM_FRAME_ZONE_NORMAL]);
    for (uint32_t n = 0; n < FRAME_RETURNED; n++) {
        cache->returned[n].link = FRAME_LINK_NONE;
    }
}

enum loam_error loam_frame_cache_make(struct loam_frame *frame, struct loam_frame_cache **cache)
{
    uint32_t id = 0;

    *cache = NULL;
    if (!loam_frame_owner_barrier_set()) {
        return LOAM_ERROR_UNINITIALISED;
    }
    if (frame_lock_to_change(frame) == NULL) {
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
    frame->cache_top = (uint32_t)frame_max(frame->cache_top, id + 1);
    return frame_unlock(frame, LOAM_OK);
}

enum loam_error loam_frame_cache_drain(struct loam_frame_cache *cache)
{
    struct loam_frame *frame;
    enum loam_error error = LOAM_ERROR_UNINITIALISED;

    if (cache->seal != frame_cache_seal(cache->offset_bytes)) {
        return error;
    }
    frame = frame_lock_to_change(frame_of_cache(cache));
    if (frame == NULL) {
        return LOAM_ERROR_CORRUPT;
    }
    if (cache->forbidden != FRAME_UNUSED && loam_frame_owner_drain(frame, cache)) {
        error = LOAM_OK;
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_cache_destroy(struct loam_frame_cache *cache)
{
    struct loam_frame *frame;
    enum loam_error error = LOAM_ERROR_UNINITIALISED;

    if (cache->seal != frame_cache_seal(cache->offset_bytes)) {
        return error;
    }
    frame = frame_lock_to_change(frame_of_cache(cache));
    if (frame == NULL) {
        return LOAM_ERROR_CORRUPT;
    }
    if (cache->forbidden != FRAME_UNUSED && loam_frame_owner_drain(frame, cache)) {
        frame_write(cache->forbidden, FRAME_UNUSED);
        error = LOAM_OK;
    }
    return frame_unlock(frame, error);
}
