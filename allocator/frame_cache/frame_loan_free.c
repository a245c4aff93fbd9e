// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_cache/frame_loan_free.h"

#include "allocator/frame/frame_chunk.h"

/* A chunk, as who frees in it knows it. */
struct frame_loan {
    struct frame_chunk *chunk;
    struct frame_map *map;
    uint64_t link;
};

/* --- Freeing, with the chunk's lock ---------------------------------------------------------------------------- */

/* The window in whose word the frame lies, or NULL. */
FRAME_HOT struct frame_window *window_at(const struct loam_frame *frame, const struct frame_chunk *chunk, uint64_t pfn)
{
    uint32_t taking = shared_load(chunk->order);

    return UNLIKELY(shared_load(chunk->list) == FRAME_LIST_CURRENT) &&
                   FRAME_TAKING_WORD(taking) == frame_offset(pfn) / 64
               ? &frame_borrower(frame, chunk)->window[FRAME_TAKING_ORDER(taking)][shared_load(chunk->set)]
               : NULL;
}

/* Of blocks that start at the bits of mask, from start on: those in made leave it. False: one is free already. */
FRAME_HOT bool unmake(const struct loam_frame *frame, const struct frame_chunk *chunk, uint64_t start, uint64_t mask)
{
    struct frame_window *window = window_at(frame, chunk, start);
    uint64_t bit, made;

    if (LIKELY(window == NULL)) {
        return true;
    }
    bit = start - shared_load(window->base);
    made = bit < 64 ? shared_load(window->made) & mask << bit : 0;
    if (made == 0) {
        return true;
    }
    if (((shared_load(window->ready) | shared_load(window->back)) & made) != 0) {
        return false;
    }
    shared_store(window->made, shared_load(window->made) & ~made);
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
    shared_store(word->allocated, old.allocated & ~mask);
    shared_store_release(word->last, old.last & ~mask);
    frame_count(loan->chunk, (uint32_t)count * FRAME_COUNT_FREE - FRAME_COUNT_BLOCK -
                                 ((old.allocated & end) == 0 ? FRAME_COUNT_TAG : 0));
    return true;
}

/* Any block but one within a word of a partly used chunk. */
__attribute__((noinline)) static bool free_other(const struct loam_frame *frame, const struct frame_loan *loan,
                                                 uint64_t start, uint64_t count)
{
    uint32_t offset = frame_offset(start);

    if (shared_load(loan->chunk->state) == FRAME_CHUNK_WHOLE && offset == 0 && count == LOAM_FRAME_CHUNK_FRAMES) {
        shared_store(loan->chunk->state, FRAME_CHUNK_FREE);
        return true;
    }
    if (shared_load(loan->chunk->state) != FRAME_CHUNK_PARTIAL || count - 1 >= LOAM_FRAME_CHUNK_FRAMES - offset ||
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

    if (shared_load(loan->chunk->state) != FRAME_CHUNK_PARTIAL ||
        (bits.allocated & bits.last & mask << offset % 64) != mask << offset % 64 || !begins(loan, offset) ||
        !unmake(frame, loan->chunk, start, mask)) {
        return false;
    }
    frame_bits_clear(loan->map, offset / 64, mask << offset % 64);
    frame_count(loan->chunk, count * FRAME_COUNT_FREE - count * FRAME_COUNT_BLOCK);
    return true;
}

/* Put a chunk on its borrower's list of those in which blocks were freed. */
void loam_frame_loan_note(struct loam_frame_cache *cache, struct frame_chunk *chunk, uint64_t link)
{
    uint64_t head = shared_load(cache->freed);

    do {
        chunk->freed_section = (uint16_t)(head >> 32);
        chunk->freed_chunk = head == 0 ? FRAME_FREED_LAST : (uint32_t)head;
        /* Release: pairs with the acquire in frame_loan.c's collect. */
    } while (!shared_swap_release(cache->freed, &head, link + 2));
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
    if (own == NULL || shared_load(this->state) != FRAME_CHUNK_PARTIAL ||
        frame_free_frames(this) == LOAM_FRAME_CHUNK_FRAMES) {
        loam_frame_loan_note(frame_borrower(frame, this), this, loan->link);
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
    uint32_t free_frames = frame_free_frames(this), list = shared_load(this->list), fit;

    if (list == FRAME_LIST_CURRENT) {
        return;
    }
    fit = loam_frame_chunk_freed_fit(loan->map, frame_offset(start), (uint32_t)count);
    if (fit > this->fit) {
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
    if (LIKELY(count - 1 < 64 - start % 64) && LIKELY(shared_load(loan->chunk->state) == FRAME_CHUNK_PARTIAL)
            ? UNLIKELY(!free_in_word(frame, loan, start, count))
            : !free_other(frame, loan, start, count)) {
        return false;
    }
    file(frame, loan, start, count, own);
    return true;
}

/* --- By anybody, with the allocator's lock --------------------------------------------------------------------- */

bool loam_frame_loan_holds(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start)
{
    const struct frame_window *window = window_at(frame, spot->chunk, start);
    uint64_t bit = window == NULL ? 64 : start - shared_load(window->base);

    return bit < 64 && (frame_window_free(window) >> bit & 1) != 0;
}

enum loam_error loam_frame_loan_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                     uint64_t count)
{
    const struct frame_loan loan = {.chunk = spot->chunk, .map = spot->map, .link = frame_spot_link(spot)};
    bool given;

    if (!frame_lend_lock(spot->chunk)) {
        return LOAM_ERROR_BUSY;
    }
    given = free_lent(frame, &loan, start, count, NULL);
    frame_lend_unlock(spot->chunk);
    frame->lent_frames[spot->zone] += given ? count : 0;
    return given ? LOAM_OK : LOAM_ERROR_INVALID;
}

/* --- By the owner of a cache ----------------------------------------------------------------------------------- */

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
    if (LIKELY(shared_load(loan->chunk->owner) == cache->owner)) {
        *own = cache;
        return frame_lend_hold(loan->chunk);
    }
    *own = NULL;
    if (shared_load(loan->chunk->owner) == 0 || !frame_lend_lock(loan->chunk)) {
        return false;
    }
    /* Acquire: pairs with the release in loam_frame_loan_adopt. */
    if (UNLIKELY(shared_load_acquire(loan->chunk->owner) == 0)) {
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

    if (count != LOAM_FRAME_CHUNK_FRAMES || frame_offset(start) != 0 || shared_load(this->state) != FRAME_CHUNK_WHOLE ||
        *kept_count == FRAME_KEPT_CHUNKS) {
        return false;
    }
    cache->kept[this->set][(*kept_count)++] = (struct frame_kept){
        .start = start, .chunk_offset_bytes = (uintptr_t)this - (uintptr_t)frame_of_cache(cache), .link = loan->link};
    shared_store(this->list, FRAME_LIST_KEPT);
    shared_store(this->state, FRAME_CHUNK_FREE);
    cache->whole_count--;
    return true;
}

bool loam_frame_loan_give_whole(struct loam_frame_cache *cache, uint64_t start, uint64_t count)
{
    struct loam_frame_cache *own;
    struct frame_loan loan;
    bool given;

    if (!lock_near(cache, start, &loan, &own)) {
        return false;
    }
    given = own != NULL && keep_whole(cache, &loan, start, count);
    frame_lend_unlock(loan.chunk);
    if (given) {
        frame_cache_count(cache, start, LOAM_FRAME_CHUNK_FRAMES);
    }
    return given;
}

enum loam_error loam_frame_loan_give(struct loam_frame_cache *cache, uint64_t start, uint64_t count)
{
    struct loam_frame_cache *own;
    struct frame_loan loan;
    bool given;

    /* A block that leaves its chunk is not for the chunk to tell. */
    if (UNLIKELY(count > LOAM_FRAME_CHUNK_FRAMES - frame_offset(start)) ||
        UNLIKELY(!lock_near(cache, start, &loan, &own))) {
        return LOAM_ERROR_NOT_FOUND;
    }
    given = free_lent(frame_of_cache(cache), &loan, start, count, own);
    frame_lend_unlock(loan.chunk);
    if (UNLIKELY(!given)) {
        return LOAM_ERROR_INVALID;
    }
    frame_cache_count(cache, start, count);
    return LOAM_OK;
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
        frame_cache_count(cache, start, count);
    }
    frame_lend_unlock(loan.chunk);
    return given;
}
