// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_cache/frame_loan.h"

#include "allocator/frame/frame_chunk.h"
#include "allocator/frame_cache/frame_loan_free.h"

/* --- Coming and going ------------------------------------------------------------------------------------------ */

bool loam_frame_loan_keep(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    uint32_t *count = &cache->kept_count[spot->chunk->set];

    if (*count == FRAME_KEPT_CHUNKS) {
        return false;
    }
    cache->kept[spot->chunk->set][(*count)++] =
        (struct frame_kept){.start = spot->start,
                            .chunk_offset_bytes = (uintptr_t)spot->chunk - (uintptr_t)frame,
                            .link = frame_spot_link(spot)};
    shared_store(spot->chunk->order, FRAME_ORDER_LENT);
    shared_store(spot->chunk->list, FRAME_LIST_KEPT);
    shared_store(spot->chunk->state, FRAME_CHUNK_FREE);
    return true;
}

void loam_frame_loan_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                           enum frame_set set)
{
    struct frame_chunk *this = spot->chunk;
    bool partial = this->state == FRAME_CHUNK_PARTIAL;

    shared_store(this->set, (uint8_t)set);
    this->freed_chunk = 0;
    /* Who freed here when it was on loan before may still be about to find that it is not. */
    if (!frame->sharing && frame_lend_lock(this)) {
        shared_store(this->lock, FRAME_LOCK_OWNERS);
    }
    cache->free_frames[spot->zone] += partial ? frame_free_frames(this) : LOAM_FRAME_CHUNK_FRAMES;
    if (!partial && !loam_frame_loan_keep(frame, cache, spot)) {
        loam_frame_chunk_make_partial(spot);
    }
    /* Release: pairs with the acquire in lock_near. */
    shared_store_release(this->owner, (uint16_t)cache->owner);
}

/* Part with a chunk that is locked and on no list. */
static void give_back(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    struct frame_chunk *this = spot->chunk;

    cache->free_frames[spot->zone] -=
        this->state == FRAME_CHUNK_FREE ? LOAM_FRAME_CHUNK_FRAMES : frame_free_frames(this);
    shared_store(this->owner, 0);
    shared_store_release(this->lock, FRAME_LOCK_FREE);
    loam_frame_lend_give(frame, spot);
}

/* The chunk is locked, and wholly free; unlocks it. */
static void file_free(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                      bool locked)
{
    struct frame_lists *lists = &cache->lists[spot->chunk->set];
    bool listed = spot->chunk->list <= FRAME_LIST_FULL;

    if (listed) {
        loam_frame_lists_remove(frame, lists, spot);
    }
    if (!loam_frame_loan_keep(frame, cache, spot)) {
        if (locked) {
            give_back(frame, cache, spot);
            return;
        }
        loam_frame_chunk_make_partial(spot);
        loam_frame_lists_file(frame, lists, spot);
    }
    frame_lend_unlock(spot->chunk);
}

static void collect_chunk(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                          bool locked)
{
    struct frame_chunk *this = spot->chunk;
    uint8_t state = shared_load(this->state);

    this->freed_chunk = 0;
    cache->whole_count -= state == FRAME_CHUNK_FREE;
    if (state == FRAME_CHUNK_FREE ||
        (frame_free_frames(this) == LOAM_FRAME_CHUNK_FRAMES && this->list != FRAME_LIST_CURRENT)) {
        file_free(frame, cache, spot, locked);
        return;
    }
    if (this->list != FRAME_LIST_CURRENT) {
        loam_frame_lists_file(frame, &cache->lists[this->set], spot);
    }
    frame_lend_unlock(this);
}

bool loam_frame_loan_surplus(const struct loam_frame *frame, const struct loam_frame_cache *cache, uint32_t set,
                             struct frame_spot *spot)
{
    uint64_t link = cache->lists[set].head[FRAME_LIST_WHOLE];

    if (link == FRAME_LINK_NONE) {
        return false;
    }
    *spot = frame_spot_from_link(frame, link);
    return frame_free_frames(spot->chunk) == LOAM_FRAME_CHUNK_FRAMES;
}

static void collect(struct loam_frame *frame, struct loam_frame_cache *cache, bool locked)
{
    /* Acquire: pairs with the release in loam_frame_loan_note. */
    uint64_t head = shared_load(cache->freed) == 0 ? 0 : shared_exchange_acquire(cache->freed, 0);

    while (head != 0) {
        struct frame_spot spot = frame_spot_from_link(frame, head - 2);
        struct frame_chunk *this = spot.chunk;

        head = this->freed_chunk == FRAME_FREED_LAST ? 0 : (uint64_t)this->freed_section << 32 | this->freed_chunk;
        if (frame_lend_hold(this)) {
            collect_chunk(frame, cache, &spot, locked);
        } else {
            loam_frame_loan_note(cache, this, frame_spot_link(&spot));
        }
    }
}

void loam_frame_loan_collect(struct loam_frame *frame, struct loam_frame_cache *cache, bool locked)
{
    struct frame_spot spot;

    collect(frame, cache, locked);
    for (uint32_t set = 0; locked && set < FRAME_SETS; set++) {
        while (loam_frame_loan_surplus(frame, cache, set, &spot) && loam_frame_loan_part_with(frame, cache, &spot)) {
        }
    }
}

/* --- Windows --------------------------------------------------------------------------------------------------- */

static void settle_window(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_window *window,
                          uint32_t order)
{
    struct frame_chunk *chunk = frame_address(frame, window->chunk_offset_bytes);
    uint64_t starts, frames;

    if (window->link == FRAME_LINK_NONE || !frame_lend_hold(chunk)) {
        return;
    }
    starts = frame_window_free(window);
    frames = (uint64_t)__builtin_popcountll(starts) << order;
    frame_bits_clear(frame_address(frame, window->map_offset_bytes), frame_offset(window->base) / 64,
                     frame_spread(starts, order));
    frame_count(chunk, (uint32_t)frames * FRAME_COUNT_FREE - (uint32_t)(frames >> order) * FRAME_COUNT_BLOCK);
    cache->free_frames[frame_zone(frame, window->base)] += frames;
    frame_window_reset(window);
    shared_store(chunk->order, FRAME_TAKING(order, FRAME_TAKING_NO_WORD));
    frame_lend_unlock(chunk);
}

void loam_frame_loan_settle(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
        settle_window(frame, cache, &cache->window[order][FRAME_SET_LOW], order);
        settle_window(frame, cache, &cache->window[order][FRAME_SET_ANY], order);
    }
}

bool loam_frame_loan_leave_window(struct loam_frame *frame, struct frame_window *window, const struct frame_spot *spot,
                                  struct frame_lists *lists)
{
    if (!frame_lend_hold(spot->chunk)) {
        return false;
    }
    frame_window_reset(window);
    shared_store(window->link, FRAME_LINK_NONE);
    window->chunk_base = 0;
    window->chunk_offset_bytes = 0;
    window->map_offset_bytes = 0;
    shared_store(spot->chunk->order, FRAME_ORDER_LENT);
    shared_store(spot->chunk->list, FRAME_LIST_NONE);
    spot->chunk->fit = FRAME_FITS - 1;
    loam_frame_chunk_cap_fit(spot->chunk);
    loam_frame_lists_file(frame, lists, spot);
    frame_lend_unlock(spot->chunk);
    return true;
}

/* --- Giving back ----------------------------------------------------------------------------------------------- */

static void drop_kept(struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    struct frame_kept *kept = cache->kept[spot->chunk->set];
    uint32_t n = 0;

    while (kept[n].start != spot->start) {
        n++;
    }
    kept[n] = kept[--cache->kept_count[spot->chunk->set]];
    shared_store(spot->chunk->list, FRAME_LIST_NONE);
}

/* It is the allocator's block from now on. */
static void leave_whole(struct loam_frame_cache *cache, struct frame_chunk *this)
{
    this->before_frames = 0;
    this->block_frames = LOAM_FRAME_CHUNK_FRAMES;
    shared_store(this->order, FRAME_CHUNK_ORDER);
    shared_store(this->list, FRAME_LIST_NONE);
    this->tag = 0;
    this->released = 0;
    cache->whole_count--;
    shared_store(this->owner, 0);
    shared_store_release(this->lock, FRAME_LOCK_FREE);
}

/* The lock of a chunk that nobody freed in since it was filed; it may have gone back with that, owner 0 then. */
static bool lock_filed(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    while (frame_lend_hold(spot->chunk)) {
        if (shared_load(spot->chunk->owner) == 0 || spot->chunk->freed_chunk == 0) {
            return true;
        }
        frame_lend_unlock(spot->chunk);
        collect(frame, cache, true);
    }
    return false;
}

bool loam_frame_loan_part_with(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    struct frame_chunk *this = spot->chunk;

    if (this->list == FRAME_LIST_CURRENT &&
        !loam_frame_loan_leave_window(frame, &cache->window[FRAME_TAKING_ORDER(this->order)][this->set], spot,
                                      &cache->lists[this->set])) {
        return false;
    }
    if (!lock_filed(frame, cache, spot)) {
        return false;
    }
    if (shared_load(this->owner) == 0) {
        frame_lend_unlock(this);
    } else if (this->state == FRAME_CHUNK_WHOLE) {
        leave_whole(cache, this);
    } else {
        if (this->list == FRAME_LIST_KEPT) {
            drop_kept(cache, spot);
        } else if (this->list != FRAME_LIST_NONE) {
            loam_frame_lists_remove(frame, &cache->lists[this->set], spot);
        }
        give_back(frame, cache, spot);
    }
    return true;
}

static bool part_with_link(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t link)
{
    struct frame_spot spot = frame_spot_from_link(frame, link);

    return loam_frame_loan_part_with(frame, cache, &spot);
}

/* All chunks that the cache names in a set: those it takes from, those that it keeps, those on its lists. */
static bool drain_set(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set, uint64_t lists)
{
    const struct frame_lists *all = &cache->lists[set];
    bool done = true;

    for (uint32_t order = 0; done && order < FRAME_CHUNK_ORDER; order++) {
        if (cache->window[order][set].link != FRAME_LINK_NONE) {
            done = part_with_link(frame, cache, cache->window[order][set].link);
        }
    }
    while (done && cache->kept_count[set] > 0) {
        done = part_with_link(frame, cache, cache->kept[set][cache->kept_count[set] - 1].link);
    }
    while (done && (all->mask[0] & lists) != 0) {
        done = part_with_link(frame, cache, all->head[__builtin_ctzll(all->mask[0] & lists)]);
    }
    return done;
}

bool loam_frame_loan_drain(struct loam_frame *frame, struct loam_frame_cache *cache, bool all)
{
    uint64_t lists = all ? UINT64_MAX : UINT64_MAX >> 1; /* the last: full ones */

    loam_frame_loan_settle(frame, cache);
    /* Others free meanwhile. */
    do {
        loam_frame_loan_collect(frame, cache, true);
        if (!drain_set(frame, cache, FRAME_SET_LOW, lists) || !drain_set(frame, cache, FRAME_SET_ANY, lists)) {
            return false;
        }
    } while (shared_load(cache->freed) != 0 || (cache->kept_count[0] | cache->kept_count[1]) != 0 ||
             ((cache->lists[0].mask[0] | cache->lists[1].mask[0]) & lists) != 0);
    return true;
}

/* Those handed out whole go too: they are the allocator's blocks from now on. O(chunks) if there are any. */
static bool leave_all_whole(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    bool done = true;

    for (uint32_t n = 0; cache->whole_count > 0 && n < frame->section_count; n++) {
        struct frame_section *section = frame_spot_indexed(frame, n);

        for (uint64_t index = 0; cache->whole_count > 0 && index < section->chunk_count; index++) {
            struct frame_spot spot = frame_spot_at(frame, section, index);

            if (shared_load(spot.chunk->owner) == cache->owner && spot.chunk->state == FRAME_CHUNK_WHOLE) {
                done = loam_frame_loan_part_with(frame, cache, &spot) && done;
            }
        }
    }
    return done;
}

bool loam_frame_loan_end(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    /* A chunk that was handed out whole may be freed meanwhile. */
    do {
        if (!loam_frame_loan_drain(frame, cache, true) || !leave_all_whole(frame, cache)) {
            return false;
        }
    } while (cache->whole_count > 0 || shared_load(cache->freed) != 0);
    return true;
}
