// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_cache/frame_loan.h"

#include "allocator/frame/frame_chunk.h"
#include "allocator/frame_cache/frame_cache_validate.h"
#include "allocator/frame_cache/frame_stop.h"

/* A chunk, as who frees in it knows it. */
struct frame_loan {
    struct frame_chunk *chunk;
    struct frame_map *map;
    uint64_t link;
};

/* The cache that a lent chunk is with. */
static struct loam_frame_cache *borrower(const struct loam_frame *frame, const struct frame_chunk *chunk)
{
    return frame_cache_at(frame, frame_read(chunk->owner) - 1u);
}

/* --- Freeing, with the chunk's lock ---------------------------------------------------------------------------- */

/* The window that is in the chunk, or NULL. */
FRAME_HOT struct frame_window *window_in(const struct loam_frame *frame, const struct frame_chunk *chunk)
{
    uint32_t order = frame_read(chunk->order);

    return UNLIKELY(frame_read(chunk->list) == FRAME_LIST_CURRENT) && order < FRAME_WINDOWS
               ? &borrower(frame, chunk)->window[order][frame_read(chunk->set)]
               : NULL;
}

/* Of blocks that start at the bits of mask, from start on: those in made leave it. False: one is free already. */
FRAME_HOT bool unmake(const struct loam_frame *frame, const struct frame_chunk *chunk, uint64_t start, uint64_t mask)
{
    struct frame_window *window = window_in(frame, chunk);
    uint64_t bit, made;

    if (LIKELY(window == NULL)) {
        return true;
    }
    bit = start - frame_read(window->base);
    made = bit < 64 ? frame_read(window->made) & mask << bit : 0;
    if (made == 0) {
        return true;
    }
    if (((frame_read(window->ready) | frame_read(window->back)) & made) != 0) {
        return false;
    }
    frame_write(window->made, frame_read(window->made) & ~made);
    return true;
}

/* The frame before offset is no part of a block that goes on. Without branches: orders come in any order. */
FRAME_HOT bool begins(const struct frame_loan *loan, uint32_t offset)
{
    uint32_t before = offset - (offset != 0);
    bool ends = frame_bits_at(loan->map, FRAME_BITS_ENDS, before), outside = (loan->chunk->crossed & 1) == 0;

    return offset == 0 ? outside : ends;
}

/* Exactly [start, start + count), within one word. */
FRAME_HOT bool free_in_word(const struct loam_frame *frame, const struct frame_loan *loan, uint64_t start,
                            uint64_t count)
{
    uint32_t offset = frame_offset(start), bit = offset % 64;
    struct frame_word *word = &loan->map->word[offset / 64], old = frame_bits_read(loan->map, offset / 64);
    uint64_t mask = UINT64_MAX >> (-count % 64) << bit, end = UINT64_C(1) << ((bit + count - 1) % 64);

    if (UNLIKELY((old.last & mask) != end) || UNLIKELY(((old.allocated | end) & mask) != mask) ||
        UNLIKELY(!begins(loan, offset)) || UNLIKELY(!unmake(frame, loan->chunk, start, 1))) {
        return false;
    }
    frame_write(word->allocated, old.allocated & ~mask);
    __atomic_store_n(&word->last, old.last & ~mask, __ATOMIC_RELEASE);
    frame_count(loan->chunk, (uint32_t)count * FRAME_COUNT_FREE - FRAME_COUNT_BLOCK -
                                 ((old.allocated & end) == 0 ? FRAME_COUNT_TAG : 0));
    return true;
}

/* Any block but one within a word of a partly used chunk. */
__attribute__((noinline)) static bool free_other(const struct loam_frame *frame, const struct frame_loan *loan,
                                                 uint64_t start, uint64_t count)
{
    uint32_t offset = frame_offset(start);

    if (frame_read(loan->chunk->state) == FRAME_CHUNK_WHOLE && offset == 0 && count == LOAM_FRAME_CHUNK_FRAMES) {
        frame_write(loan->chunk->state, FRAME_CHUNK_FREE);
        return true;
    }
    if (frame_read(loan->chunk->state) != FRAME_CHUNK_PARTIAL || count - 1 >= LOAM_FRAME_CHUNK_FRAMES - offset ||
        !frame_bits_is_block(loan->map, offset, (uint32_t)count, (loan->chunk->crossed & 1) != 0) ||
        !unmake(frame, loan->chunk, start, 1)) {
        return false;
    }
    frame_count(loan->chunk, frame_bits_release(loan->map, offset, (uint32_t)count));
    return true;
}

/* Blocks of one frame, untagged; and the first is no tail of a longer one. */
static bool free_singles(const struct loam_frame *frame, const struct frame_loan *loan, uint64_t start, uint32_t count)
{
    uint32_t offset = frame_offset(start);
    uint64_t mask = UINT64_MAX >> (64 - count);
    struct frame_word bits = frame_bits_read(loan->map, offset / 64);

    if (frame_read(loan->chunk->state) != FRAME_CHUNK_PARTIAL ||
        (bits.allocated & bits.last & mask << offset % 64) != mask << offset % 64 || !begins(loan, offset) ||
        !unmake(frame, loan->chunk, start, mask)) {
        return false;
    }
    frame_bits_clear(loan->map, offset / 64, mask << offset % 64);
    frame_count(loan->chunk, count * FRAME_COUNT_FREE - count * FRAME_COUNT_BLOCK);
    return true;
}

/* Put a chunk on its borrower's list of those in which blocks were freed. */
static void note_freed(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t link)
{
    uint64_t head = frame_read(cache->freed);

    do {
        chunk->freed_section = (uint16_t)(head >> 32);
        chunk->freed_chunk = head == 0 ? FRAME_FREED_LAST : (uint32_t)head;
        /* Release: pairs with the acquire in collect. */
    } while (!__atomic_compare_exchange_n(&cache->freed, &head, link + 2, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

/* The chunk is filed where it does not belong any more: its owner files it anew, at once or when he comes for more. */
__attribute__((noinline)) static void refile(const struct loam_frame *frame, const struct frame_loan *loan,
                                             struct loam_frame_cache *own)
{
    struct frame_chunk *this = loan->chunk;
    struct frame_spot spot;

    if (this->freed_chunk != 0) {
        return;
    }
    if (own == NULL || frame_read(this->state) != FRAME_CHUNK_PARTIAL ||
        frame_free_frames(this) == LOAM_FRAME_CHUNK_FRAMES) {
        note_freed(borrower(frame, this), this, loan->link);
        return;
    }
    spot = frame_spot_from_link(frame, loan->link);
    loam_frame_lists_file(frame_of_cache(own), &own->lists[this->set], &spot);
}

/* After [start, start + count) became free. */
FRAME_HOT void file(const struct loam_frame *frame, const struct frame_loan *loan, uint64_t start, uint64_t count,
                    struct loam_frame_cache *own)
{
    struct frame_chunk *this = loan->chunk;
    uint32_t free_frames = frame_free_frames(this), list = frame_read(this->list), fit;

    if (list == FRAME_LIST_CURRENT) {
        return;
    }
    fit = loam_frame_chunk_freed_fit(loan->map, frame_offset(start), (uint32_t)count);
    if (free_frames == count || fit > this->fit) {
        this->fit = (uint8_t)fit;
    }
    if (list >= FRAME_LIST_FULL || free_frames == LOAM_FRAME_CHUNK_FRAMES ||
        frame_partial_list(free_frames, this->fit) != list) {
        refile(frame, loan, own);
    }
}

/* A block in a lent chunk whose lock is held; own: the cache of the caller, whose chunk it is, or NULL. */
FRAME_HOT bool free_lent(const struct loam_frame *frame, const struct frame_loan *loan, uint64_t start, uint64_t count,
                         struct loam_frame_cache *own)
{
    if (LIKELY(count - 1 < 64 - start % 64) && LIKELY(frame_read(loan->chunk->state) == FRAME_CHUNK_PARTIAL)
            ? UNLIKELY(!free_in_word(frame, loan, start, count))
            : !free_other(frame, loan, start, count)) {
        return false;
    }
    file(frame, loan, start, count, own);
    return true;
}

/* --- Freeing, by the owner of a cache -------------------------------------------------------------------------- */

/* Count frames at pfn that came to the cache. */
FRAME_HOT void add_frames(struct loam_frame_cache *cache, uint64_t pfn, uint64_t count)
{
    uint64_t *counter = &cache->free_frames[pfn >= cache->zone_end];

    frame_write(*counter, *counter + count);
}

/* The chunk of pfn in the section of the memo, locked; *own: the cache if it is its own. False: it is not at hand. */
FRAME_HOT bool lock_near(struct loam_frame_cache *cache, uint64_t pfn, struct frame_loan *loan,
                         struct loam_frame_cache **own)
{
    const struct frame_memo *memo = &cache->memo;
    uintptr_t number = pfn / LOAM_FRAME_CHUNK_FRAMES, base = (uintptr_t)cache;

    if (UNLIKELY(pfn - memo->start >= memo->count)) {
        return false;
    }
    loan->chunk = (struct frame_chunk *)(base + memo->chunks_offset_bytes + number * sizeof *loan->chunk);
    loan->map = (struct frame_map *)(base + memo->maps_offset_bytes + number * sizeof *loan->map);
    loan->link = memo->id << 32 | (number - memo->start / LOAM_FRAME_CHUNK_FRAMES);
    if (LIKELY(frame_read(loan->chunk->owner) == cache->owner)) {
        *own = cache;
        return frame_lend_hold(loan->chunk);
    }
    *own = NULL;
    if (frame_read(loan->chunk->owner) == 0 || !frame_lend_lock(loan->chunk)) {
        return false;
    }
    /* Acquire: pairs with the release in loam_frame_loan_adopt. */
    if (UNLIKELY(__atomic_load_n(&loan->chunk->owner, __ATOMIC_ACQUIRE) == 0)) {
        frame_lend_unlock(loan->chunk);
        return false;
    }
    return true;
}

/* A chunk of the cache's own that is one block is kept. */
FRAME_HOT bool keep_whole(struct loam_frame_cache *cache, const struct frame_loan *loan, uint64_t start, uint64_t count)
{
    struct frame_chunk *this = loan->chunk;
    uint32_t *kept_count = &cache->kept_count[this->set];

    if (count != LOAM_FRAME_CHUNK_FRAMES || frame_offset(start) != 0 || frame_read(this->state) != FRAME_CHUNK_WHOLE ||
        *kept_count == FRAME_KEPT_CHUNKS) {
        return false;
    }
    cache->kept[this->set][(*kept_count)++] = (struct frame_kept){
        .start = start, .chunk_offset_bytes = (uintptr_t)this - (uintptr_t)frame_of_cache(cache), .link = loan->link};
    frame_write(this->list, FRAME_LIST_KEPT);
    frame_write(this->state, FRAME_CHUNK_FREE);
    cache->whole_count--;
    return true;
}

bool loam_frame_loan_give(struct loam_frame_cache *cache, uint64_t start, uint64_t count)
{
    struct loam_frame_cache *own;
    struct frame_loan loan;
    bool given;

    if (UNLIKELY(!lock_near(cache, start, &loan, &own))) {
        return false;
    }
    given = (UNLIKELY(count == LOAM_FRAME_CHUNK_FRAMES) && own != NULL && keep_whole(cache, &loan, start, count)) ||
            free_lent(frame_of_cache(cache), &loan, start, count, own);
    frame_lend_unlock(loan.chunk);
    if (LIKELY(given)) {
        add_frames(cache, start, count);
    }
    return given;
}

bool loam_frame_loan_give_run(struct loam_frame_cache *cache, uint64_t start, uint32_t count)
{
    struct loam_frame_cache *own;
    struct frame_loan loan;
    bool given;

    if (count > cache->memo.count - (start - cache->memo.start) || !lock_near(cache, start, &loan, &own)) {
        return false;
    }
    given = free_singles(frame_of_cache(cache), &loan, start, count);
    if (given) {
        file(frame_of_cache(cache), &loan, start, count, own);
        add_frames(cache, start, count);
    }
    frame_lend_unlock(loan.chunk);
    return given;
}

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
    frame_write(spot->chunk->order, FRAME_ORDER_LENT);
    frame_write(spot->chunk->list, FRAME_LIST_KEPT);
    frame_write(spot->chunk->state, FRAME_CHUNK_FREE);
    return true;
}

void loam_frame_loan_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                           enum frame_set set)
{
    struct frame_chunk *this = spot->chunk;
    bool partial = this->state == FRAME_CHUNK_PARTIAL;

    frame_write(this->set, (uint8_t)set);
    this->freed_chunk = 0;
    /* Who freed here when it was on loan before may still be about to find that it is not. */
    if (!frame->sharing && frame_lend_lock(this)) {
        frame_write(this->lock, FRAME_LOCK_OWNERS);
    }
    cache->free_frames[spot->zone] += partial ? frame_free_frames(this) : LOAM_FRAME_CHUNK_FRAMES;
    if (!partial && !loam_frame_loan_keep(frame, cache, spot)) {
        loam_frame_chunk_make_partial(spot);
    }
    /* Release: pairs with the acquire in lock_lent. */
    __atomic_store_n(&this->owner, (uint16_t)cache->owner, __ATOMIC_RELEASE);
}

/* Part with a chunk that is locked and on no list. */
static void give_back(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    struct frame_chunk *this = spot->chunk;

    cache->free_frames[spot->zone] -=
        this->state == FRAME_CHUNK_FREE ? LOAM_FRAME_CHUNK_FRAMES : frame_free_frames(this);
    frame_write(this->owner, 0);
    __atomic_store_n(&this->lock, FRAME_LOCK_FREE, __ATOMIC_RELEASE);
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
    uint8_t state = frame_read(this->state);

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
    /* Acquire: pairs with the release in note_freed. */
    uint64_t head = frame_read(cache->freed) == 0 ? 0 : __atomic_exchange_n(&cache->freed, 0, __ATOMIC_ACQUIRE);

    while (head != 0) {
        struct frame_spot spot = frame_spot_from_link(frame, head - 2);
        struct frame_chunk *this = spot.chunk;

        head = this->freed_chunk == FRAME_FREED_LAST ? 0 : (uint64_t)this->freed_section << 32 | this->freed_chunk;
        if (frame_lend_hold(this)) {
            collect_chunk(frame, cache, &spot, locked);
        } else {
            note_freed(cache, this, frame_spot_link(&spot));
        }
    }
}

static bool part_with(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot);

void loam_frame_loan_collect(struct loam_frame *frame, struct loam_frame_cache *cache, bool locked)
{
    struct frame_spot spot;

    collect(frame, cache, locked);
    for (uint32_t set = 0; locked && set < FRAME_SETS; set++) {
        while (loam_frame_loan_surplus(frame, cache, set, &spot) && part_with(frame, cache, &spot)) {
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
    frame_write(window->link, FRAME_LINK_NONE);
    window->chunk_base = 0;
    window->chunk_offset_bytes = 0;
    window->map_offset_bytes = 0;
    frame_write(spot->chunk->list, FRAME_LIST_NONE);
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
    frame_write(spot->chunk->list, FRAME_LIST_NONE);
}

/* It is the allocator's block from now on. */
static void leave_whole(struct loam_frame_cache *cache, struct frame_chunk *this)
{
    this->before_frames = 0;
    this->block_frames = LOAM_FRAME_CHUNK_FRAMES;
    frame_write(this->order, FRAME_CHUNK_ORDER);
    frame_write(this->list, FRAME_LIST_NONE);
    this->tag = 0;
    this->released = 0;
    cache->whole_count--;
    frame_write(this->owner, 0);
    __atomic_store_n(&this->lock, FRAME_LOCK_FREE, __ATOMIC_RELEASE);
}

/* The lock of a chunk that nobody freed in since it was filed; it may have gone back with that, owner 0 then. */
static bool lock_filed(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    while (frame_lend_hold(spot->chunk)) {
        if (frame_read(spot->chunk->owner) == 0 || spot->chunk->freed_chunk == 0) {
            return true;
        }
        frame_lend_unlock(spot->chunk);
        collect(frame, cache, true);
    }
    return false;
}

/* The chunk goes back; nothing is ready in it. */
static bool part_with(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    struct frame_chunk *this = spot->chunk;

    if (this->list == FRAME_LIST_CURRENT &&
        !loam_frame_loan_leave_window(frame, &cache->window[this->order][this->set], spot, &cache->lists[this->set])) {
        return false;
    }
    if (!lock_filed(frame, cache, spot)) {
        return false;
    }
    if (frame_read(this->owner) == 0) {
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

    return part_with(frame, cache, &spot);
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
    } while (frame_read(cache->freed) != 0 || (cache->kept_count[0] | cache->kept_count[1]) != 0 ||
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

            if (frame_read(spot.chunk->owner) == cache->owner && spot.chunk->state == FRAME_CHUNK_WHOLE) {
                done = part_with(frame, cache, &spot) && done;
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
    } while (cache->whole_count > 0 || frame_read(cache->freed) != 0);
    return true;
}

/* --- The allocator's lender ------------------------------------------------------------------------------------ */

/* His owner is stopped once, for all that others will do there. */
static enum loam_error lender_share(struct loam_frame *frame, const struct frame_spot *spot)
{
    enum loam_error error = LOAM_OK;

    if (frame_read(spot->chunk->lock) == FRAME_LOCK_OWNERS) {
        error = loam_frame_stop_owner(frame, borrower(frame, spot->chunk));
        frame->sharing |= error != LOAM_OK;
    }
    if (error == LOAM_OK && frame_read(spot->chunk->lock) == FRAME_LOCK_OWNERS) {
        __atomic_store_n(&spot->chunk->lock, FRAME_LOCK_FREE, __ATOMIC_RELEASE);
    }
    return error;
}

static enum loam_error lender_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                   uint64_t count)
{
    const struct frame_loan loan = {.chunk = spot->chunk, .map = spot->map, .link = frame_spot_link(spot)};
    enum loam_error error = lender_share(frame, spot);

    if (error != LOAM_OK) {
        return error;
    }
    if (!frame_lend_lock(spot->chunk)) {
        return LOAM_ERROR_BUSY;
    }
    if (free_lent(frame, &loan, start, count, NULL)) {
        frame->lent_frames[spot->zone] += count;
    } else {
        error = LOAM_ERROR_INVALID;
    }
    frame_lend_unlock(spot->chunk);
    return error;
}

static bool lender_holds(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start)
{
    const struct frame_window *window = window_in(frame, spot->chunk);
    uint64_t bit = window == NULL ? 64 : start - frame_read(window->base);

    return bit < 64 && (frame_window_free(window) >> bit & 1) != 0;
}

static enum loam_error lender_recall(struct loam_frame *frame, const struct frame_spot *spot)
{
    struct loam_frame_cache *cache = borrower(frame, spot->chunk);
    enum loam_error error = loam_frame_stop_owner(frame, cache);

    if (error != LOAM_OK) {
        return error;
    }
    loam_frame_loan_settle(frame, cache);
    loam_frame_loan_collect(frame, cache, true);
    return frame_read(spot->chunk->owner) == 0 || part_with(frame, cache, spot) ? LOAM_OK : LOAM_ERROR_BUSY;
}

/*
 * All stand still before the first cache is looked at: a frame could go from one that is still to be looked at to one
 * that has been, and be missed.
 */
static enum loam_error lender_recall_all(struct loam_frame *frame)
{
    enum loam_error error = loam_frame_stop_all(frame);

    for (uint32_t n = 0; error == LOAM_OK && n < frame->lender_top; n++) {
        struct loam_frame_cache *cache = frame_cache_at(frame, n);

        if (cache->forbidden != FRAME_UNUSED && !loam_frame_loan_drain(frame, cache, false)) {
            error = LOAM_ERROR_BUSY;
        }
    }
    return error;
}

static bool anything_ready(const struct loam_frame *frame)
{
    uint64_t any = 0;

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        const struct loam_frame_cache *cache = frame_cache_at(frame, n);

        for (uint32_t w = 0; cache->forbidden != FRAME_UNUSED && w < FRAME_WINDOWS * FRAME_SETS; w++) {
            any |= frame_window_free(&cache->window[w / FRAME_SETS][w % FRAME_SETS]);
        }
    }
    return any != 0;
}

static bool lender_settle(struct loam_frame *frame, bool stop)
{
    bool all;

    if (!stop && !anything_ready(frame)) {
        return true;
    }
    all = loam_frame_stop_all(frame) == LOAM_OK;
    for (uint32_t n = 0; n < frame->lender_top; n++) {
        if (frame_cache_at(frame, n)->forbidden == FRAME_STOPPED) {
            loam_frame_loan_settle(frame, frame_cache_at(frame, n));
        }
    }
    return all;
}

static enum loam_error lender_forget(struct loam_frame *frame)
{
    enum loam_error error = loam_frame_stop_all(frame);

    for (uint32_t n = 0; error == LOAM_OK && n < frame->lender_top; n++) {
        frame_cache_at(frame, n)->memo.count = 0;
    }
    return error;
}

static uint64_t ready_frames(const struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    uint64_t sum = 0;

    for (uint32_t w = 0; w < FRAME_WINDOWS * FRAME_SETS; w++) {
        const struct frame_window *window = &cache->window[w / FRAME_SETS][w % FRAME_SETS];

        if ((frame_read(window->base) >= cache->zone_end) == (zone == LOAM_FRAME_ZONE_NORMAL)) {
            sum += (uint64_t)__builtin_popcountll(frame_window_free(window)) << w / FRAME_SETS;
        }
    }
    return sum;
}

/* Owners go on meanwhile: a frame may be missed, so that there seem to be less than none. */
static uint64_t lender_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone)
{
    uint64_t sum = frame->lent_frames[zone];

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        const struct loam_frame_cache *cache = frame_cache_at(frame, n);

        if (cache->forbidden != FRAME_UNUSED) {
            sum += frame_read(cache->free_frames[zone]) + ready_frames(cache, zone);
        }
    }
    return (int64_t)sum < 0 ? 0 : sum;
}

static uint32_t lender_count(const struct loam_frame *frame)
{
    uint32_t count = 0;

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        count += frame_cache_at(frame, n)->forbidden != FRAME_UNUSED;
    }
    return count;
}

const struct frame_lender loam_frame_lender = {
    .free = lender_free,
    .share = lender_share,
    .holds = lender_holds,
    .recall = lender_recall,
    .recall_all = lender_recall_all,
    .settle = lender_settle,
    .resume = loam_frame_stop_resume,
    .forget = lender_forget,
    .free_frames = lender_free_frames,
    .count = lender_count,
    .validate_records = loam_frame_cache_validate_records,
    .validate_hands = loam_frame_cache_validate_hands,
    .validate_chunks = loam_frame_cache_validate_chunks,
};
