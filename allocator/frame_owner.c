// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_owner.h"

#include "allocator/frame_buddy.h"
#include "allocator/frame_chunk.h"
#include "allocator/frame_find.h"
#include "allocator/frame_lists.h"
#include "allocator/frame_lock.h"

#include <string.h>

static _Atomic(void (*)(void)) process_barrier;

void loam_frame_set_barrier(void (*barrier)(void))
{
    /* Release, acquire at the load: whatever the barrier needs is ready. */
    atomic_store_explicit(&process_barrier, barrier, memory_order_release);
}

bool loam_frame_owner_barrier_set(void)
{
    return atomic_load_explicit(&process_barrier, memory_order_acquire) != NULL;
}

/* --- What is ready --------------------------------------------------------------------------------------------- */

/* What is ready or back in the current chunk of an order is free in its bitmaps again. The cache stands still. */
static void settle_window(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t zone, uint32_t order)
{
    const struct frame_current *current = &cache->current[zone][order];
    struct frame_window *window = &cache->window[order][zone];
    uint64_t starts = window->ready | window->back, word = (window->base - current->base) / 64, frames;
    struct frame_section *section;
    struct frame_chunk *chunk;
    struct frame_map *map;

    if (memcmp(window, &frame_window_none, sizeof *window) == 0) {
        return;
    }
    chunk = loam_frame_chunk_from_link(frame, current->link, &section);
    if (section == NULL || window->ready_check != frame_window_check(window, window->ready) ||
        window->back_check != frame_window_check(window, window->back) || word >= FRAME_MAP_WORDS ||
        (starts & ~window->made) != 0 || (window->ready & window->back) != 0 ||
        current->seal != frame_current_seal(current) || chunk->owner != cache->owner ||
        chunk->list != FRAME_LIST_CURRENT || chunk->order != order) {
        loam_frame_damage(frame);
        return;
    }
    map = frame_map(frame, section, (uint32_t)current->link);
    frames = frame_spread(starts, order);
    if ((frame_bits_word(map, FRAME_BITS_USED, (uint32_t)word) & frames) != frames) {
        loam_frame_damage(frame);
        return;
    }
    chunk->sum ^= frame_bits_clear(map, (uint32_t)word, frames);
    frame_write(chunk->free_frames, (uint16_t)(chunk->free_frames + __builtin_popcountll(frames)));
    frame_write(cache->free_frames[zone], cache->free_frames[zone] + (uint64_t)__builtin_popcountll(frames));
    frame_write(window->ready, 0);
    frame_write(window->back, 0);
    frame_write(window->made, 0);
    frame_write(window->base, 0);
    *window = frame_window_none;
}

static bool settle(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    for (uint32_t order = 0; order < FRAME_WINDOWS && cache->forbidden != FRAME_UNUSED; order++) {
        settle_window(frame, cache, LOAM_FRAME_ZONE_DMA32, order);
        settle_window(frame, cache, LOAM_FRAME_ZONE_NORMAL, order);
    }
    return !frame_read(frame->damaged);
}

/* Frames of a zone that are ready, as of a moment. */
static uint64_t ready_frames(const struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    uint64_t sum = 0;

    for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
        const struct frame_window *window = &cache->window[order][zone];

        sum += (uint64_t)__builtin_popcountll(frame_read(window->ready) | frame_read(window->back)) << order;
    }
    return sum;
}

/* --- Stopping -------------------------------------------------------------------------------------------------- */

/* Whether the caller has the cache's chunks to itself already. */
static bool stands_still(const struct loam_frame *frame, const struct loam_frame_cache *cache)
{
    return cache->forbidden != FRAME_RUNNING || frame->holder == cache->id + 1;
}

/* Wait until the owner is out of the call under way. False: there is no telling. */
static bool wait_for(struct loam_frame *frame, const struct loam_frame_cache *cache)
{
    uint32_t busy;

    /* Acquire: pairs with the release with which the owner leaves. */
    while ((busy = __atomic_load_n(&cache->busy, __ATOMIC_ACQUIRE)) != 0) {
        if (busy != 1) {
            loam_frame_damage(frame);
            return false;
        }
        frame_pause();
    }
    return true;
}

static void forbid(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    frame->stopped++;
    __atomic_store_n(&cache->forbidden, FRAME_STOPPED, __ATOMIC_SEQ_CST);
}

bool loam_frame_owner_stop(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    void (*barrier)(void) = atomic_load_explicit(&process_barrier, memory_order_acquire);

    if (stands_still(frame, cache)) {
        return settle(frame, cache);
    }
    if (barrier == NULL) {
        return false;
    }
    forbid(frame, cache);
    barrier();
    return wait_for(frame, cache) && settle(frame, cache);
}

bool loam_frame_owner_stop_all(struct loam_frame *frame)
{
    void (*barrier)(void) = atomic_load_explicit(&process_barrier, memory_order_acquire);
    bool any = false, all = true;

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (!stands_still(frame, cache)) {
            if (barrier == NULL) {
                return false;
            }
            forbid(frame, cache);
            any = true;
        }
    }
    if (any) {
        barrier();
    }
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden != FRAME_UNUSED) {
            all = (frame->holder == id + 1 || wait_for(frame, cache)) && settle(frame, cache) && all;
        }
    }
    return all;
}

void loam_frame_owner_resume(struct loam_frame *frame)
{
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden == FRAME_STOPPED) {
            /* Release: pairs with the owner's acquire. */
            __atomic_store_n(&cache->forbidden, FRAME_RUNNING, __ATOMIC_RELEASE);
        }
    }
    frame->stopped = 0;
}

/* --- One chunk ------------------------------------------------------------------------------------------------- */

static struct loam_frame_cache *owner_of(const struct loam_frame *frame, const struct frame_chunk *chunk)
{
    uint32_t owner = frame_read(chunk->owner);

    if (owner == 0 || owner > frame->cache_top) {
        loam_frame_damage(frame);
        return NULL;
    }
    return &frame_caches(frame)[owner - 1];
}

bool loam_frame_owner_stop_chunk(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache = frame_read(this->owner) == 0 ? NULL : owner_of(frame, this);

    return cache == NULL || loam_frame_owner_stop(frame, cache);
}

static enum loam_frame_zone zone_of(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    return frame_zone(frame, frame_chunk_start(section, chunk));
}

/* Frames that are free in the chunk leave the cache for the allocator, or (taken) the other way. */
static void move_free(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                      uint64_t chunk, uint64_t count, bool taken)
{
    uint64_t *cached = &cache->free_frames[zone_of(frame, section, chunk)];
    uint64_t end = frame_min(frame_chunk_start(section, chunk + 1), section->end);

    frame_write(*cached, taken ? *cached + count : *cached - count);
    if (count != 0) {
        /* As if the chunk's uppermost: the chunk lies in one zone, and it is free_top that counts. */
        loam_frame_chunk_count(frame, section, end - count, count, !taken);
    }
}

/*
 * A chunk that is wholly free, on no list, and counted among the cache's free frames: its owner keeps it, if there is
 * room; who else found it gives it back.
 */
static void keep_or_give(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                         uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    enum loam_frame_zone zone = zone_of(frame, section, chunk);

    this->released = 0;
    this->order = FRAME_ORDER_OWNED;
    this->list = FRAME_LIST_NONE;
    if (cache->spare_count[zone] < FRAME_SPARE_CHUNKS && frame->holder == cache->owner) {
        frame_write(this->state, FRAME_CHUNK_FREE);
        cache->spare[zone][cache->spare_count[zone]++] = frame_chunk_start(section, chunk);
        return;
    }
    frame_write(this->owner, 0);
    move_free(frame, cache, section, chunk, LOAM_FRAME_CHUNK_FRAMES, false);
    loam_frame_buddy_give(frame, section, chunk, FRAME_CHUNK_ORDER);
}

/* Free a block in a chunk of a cache that stands still. */
static void release_owned(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                          uint64_t chunk, uint32_t offset, uint32_t count)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint64_t *cached = &cache->free_frames[zone_of(frame, section, chunk)];

    frame_write(*cached, *cached + count);
    if (this->state == FRAME_CHUNK_WHOLE) {
        keep_or_give(frame, cache, section, chunk);
    } else if (loam_frame_chunk_release_part(frame, section, chunk, offset, count)) {
        keep_or_give(frame, cache, section, chunk);
    }
}

static bool drop_spare(struct loam_frame_cache *cache, enum loam_frame_zone zone, uint64_t start)
{
    for (uint64_t n = 0; n < cache->spare_count[zone] && n < FRAME_SPARE_CHUNKS; n++) {
        if (cache->spare[zone][n] == start) {
            cache->spare[zone][n] = cache->spare[zone][--cache->spare_count[zone]];
            return true;
        }
    }
    return false;
}

static void drop_current(struct loam_frame_cache *cache, enum loam_frame_zone zone, uint64_t link)
{
    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        if (cache->current[zone][order].link == link) {
            cache->current[zone][order] = frame_current_none;
            if (order < FRAME_WINDOWS) {
                cache->window[order][zone] = frame_window_none;
            }
        }
    }
}

void loam_frame_owner_put_aside(struct loam_frame *frame, struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache = owner_of(frame, this);

    if (cache == NULL || this->state != FRAME_CHUNK_PARTIAL || this->list != FRAME_LIST_CURRENT) {
        loam_frame_damage(frame);
        return;
    }
    drop_current(cache, zone_of(frame, section, chunk), frame_link(section, chunk));
    this->list = FRAME_LIST_NONE;
    if (this->free_frames == LOAM_FRAME_CHUNK_FRAMES) {
        keep_or_give(frame, cache, section, chunk);
        return;
    }
    this->fit = FRAME_FITS - 1;
    loam_frame_chunk_cap_fit(this);
    loam_frame_lists_file(frame, section, chunk);
}

/* The chunk has no owner any more. Its cache stands still, and nothing in the chunk is marked as returned. */
static void disown(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                   uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    enum loam_frame_zone zone = zone_of(frame, section, chunk);
    uint64_t start = frame_chunk_start(section, chunk);

    if (this->state == FRAME_CHUNK_PARTIAL) {
        if (this->list == FRAME_LIST_CURRENT) {
            drop_current(cache, zone, frame_link(section, chunk));
            this->list = FRAME_LIST_NONE;
            this->fit = FRAME_FITS - 1;
            loam_frame_chunk_cap_fit(this);
        } else {
            loam_frame_lists_remove(frame, section, chunk);
        }
        frame_write(this->owner, 0);
        move_free(frame, cache, section, chunk, this->free_frames, false);
        if (this->free_frames == LOAM_FRAME_CHUNK_FRAMES) {
            loam_frame_buddy_give(frame, section, chunk, FRAME_CHUNK_ORDER);
        } else {
            loam_frame_lists_file(frame, section, chunk);
        }
    } else if (this->state == FRAME_CHUNK_FREE && drop_spare(cache, zone, start)) {
        frame_write(this->owner, 0);
        move_free(frame, cache, section, chunk, LOAM_FRAME_CHUNK_FRAMES, false);
        loam_frame_buddy_give(frame, section, chunk, FRAME_CHUNK_ORDER);
    } else if (this->state == FRAME_CHUNK_WHOLE) {
        frame_write(this->owner, 0);
        this->before_frames = 0;
        this->block_frames = LOAM_FRAME_CHUNK_FRAMES;
        this->order = FRAME_CHUNK_ORDER;
        this->list = FRAME_LIST_NONE;
        this->tag = 0;
        this->released = 0;
    } else {
        loam_frame_damage(frame);
    }
}

/* --- Blocks that others freed ---------------------------------------------------------------------------------- */

static struct frame_returned *slot_of(const struct loam_frame_cache *cache, const struct frame_chunk *chunk)
{
    uint32_t slot = frame_read(chunk->slot);

    return slot == 0 || slot > FRAME_RETURNED ? NULL : (struct frame_returned *)&cache->returned[slot - 1];
}

/* Free the block that starts at offset, if it is one still: its owner may have freed it as well, at the same moment. */
static void collect_block(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                          uint64_t chunk, uint32_t offset)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    const struct frame_map *map = frame_map(frame, section, chunk);
    uint32_t last = LOAM_FRAME_CHUNK_FRAMES - 1;

    if (this->state == FRAME_CHUNK_PARTIAL) {
        last = frame_bits_next(map, FRAME_BITS_LAST, offset);
        if (last == LOAM_FRAME_CHUNK_FRAMES ||
            !frame_bits_is_block(map, offset, last - offset + 1, (this->crossed & 1) != 0)) {
            return;
        }
    } else if (this->state != FRAME_CHUNK_WHOLE || offset != 0) {
        return;
    }
    release_owned(frame, cache, section, chunk, offset, last - offset + 1);
}

/*
 * Free the single frames of a word that are marked, all at once, as far as the chunk keeps a used frame; returns the
 * marks that are left. The chunk is filed anew by whoever frees the rest.
 */
static uint64_t collect_singles(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                                uint64_t chunk, uint32_t word, uint64_t marks)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct frame_map *map = frame_map(frame, section, chunk);
    struct frame_word bits = frame_bits_read(map, word);
    /* Untagged, last of their block, and behind a frame that ends one: blocks of one frame. */
    uint64_t begin = (~bits.allocated | bits.last) << 1;
    uint64_t singles = marks & bits.allocated & bits.last & begin;
    uint32_t count = (uint32_t)__builtin_popcountll(singles);
    uint64_t *cached = &cache->free_frames[zone_of(frame, section, chunk)];

    if (this->state != FRAME_CHUNK_PARTIAL || this->list != FRAME_LIST_CURRENT) {
        return marks;
    }
    this->sum ^= frame_bits_clear(map, word, singles);
    frame_write(this->free_frames, (uint16_t)(this->free_frames + count));
    frame_write(*cached, *cached + count);
    return marks & ~singles;
}

/* Free what is marked in one slot, and leave the slot unused. */
static void collect_slot(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_returned *returned)
{
    struct frame_section *section;
    uint64_t link = returned->link;
    struct frame_chunk *this = loam_frame_chunk_from_link(frame, link, &section);

    returned->link = FRAME_LINK_NONE;
    if (section == NULL || this->owner != cache->owner || slot_of(cache, this) != returned) {
        loam_frame_damage(frame);
        return;
    }
    frame_write(this->slot, 0);
    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        uint64_t marks = frame_read(returned->starts[word]);

        marks = marks == 0 ? 0 : collect_singles(frame, cache, section, (uint32_t)link, word, marks);
        for (; marks != 0 && !frame_read(frame->damaged); marks &= marks - 1) {
            collect_block(frame, cache, section, (uint32_t)link, word * 64 + (uint32_t)__builtin_ctzll(marks));
        }
    }
    memset(returned->starts, 0, sizeof returned->starts);
}

void loam_frame_owner_collect(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    if ((cache->returned_frames[0] | cache->returned_frames[1]) == 0) {
        return;
    }
    for (uint32_t n = 0; n < FRAME_RETURNED; n++) {
        if (cache->returned[n].link != FRAME_LINK_NONE) {
            collect_slot(frame, cache, &cache->returned[n]);
        }
    }
    memset(cache->returned_frames, 0, sizeof cache->returned_frames);
    frame_write(cache->returned_any, 0);
}

void loam_frame_owner_collect_all(struct loam_frame *frame)
{
    uint64_t unseen = 0;

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        const struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden != FRAME_UNUSED) {
            unseen |= cache->returned_frames[0] | cache->returned_frames[1] |
                      ready_frames(cache, LOAM_FRAME_ZONE_DMA32) | ready_frames(cache, LOAM_FRAME_ZONE_NORMAL);
        }
    }
    if (unseen == 0 || !loam_frame_owner_stop_all(frame)) {
        return;
    }
    for (uint32_t id = 0; id < frame->cache_top && !frame_read(frame->damaged); id++) {
        if (frame_caches(frame)[id].forbidden != FRAME_UNUSED) {
            loam_frame_owner_collect(frame, &frame_caches(frame)[id]);
        }
    }
}

bool loam_frame_owner_returned(const struct loam_frame *frame, const struct frame_section *section, uint64_t start)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[frame_chunk_index(section, start)];
    const struct loam_frame_cache *cache = owner_of(frame, this);
    const struct frame_returned *returned = cache == NULL ? NULL : slot_of(cache, this);
    uint32_t offset = frame_offset(start);

    return returned != NULL && ((frame_read(returned->starts[offset / 64]) >> (offset % 64)) & 1) != 0;
}

bool loam_frame_owner_ready(const struct loam_frame *frame, const struct frame_section *section, uint64_t start)
{
    uint64_t chunk = frame_chunk_index(section, start);
    const struct loam_frame_cache *cache = owner_of(frame, &frame_chunks(frame, section)[chunk]);
    enum loam_frame_zone zone = zone_of(frame, section, chunk);

    for (uint32_t order = 0; order < FRAME_WINDOWS && cache != NULL; order++) {
        const struct frame_window *window = &cache->window[order][zone];
        uint64_t bit = start - frame_read(window->base);

        if (frame_read(cache->current[zone][order].link) == frame_link(section, chunk) && bit < 64 &&
            ((frame_read(window->ready) | frame_read(window->back)) >> bit & 1) != 0) {
            return true;
        }
    }
    return false;
}

/* A slot for the chunk; NULL: all are used. */
static struct frame_returned *take_slot(struct loam_frame_cache *cache, const struct frame_section *section,
                                        uint64_t chunk, struct frame_chunk *this)
{
    struct frame_returned *returned = slot_of(cache, this);

    for (uint32_t n = 0; returned == NULL && n < FRAME_RETURNED; n++) {
        if (cache->returned[n].link == FRAME_LINK_NONE) {
            returned = &cache->returned[n];
            returned->link = frame_link(section, chunk);
            frame_write(this->slot, (uint8_t)(n + 1));
        }
    }
    return returned;
}

static bool is_block(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk,
                     uint64_t start, uint64_t count)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint8_t state = frame_read(this->state);

    if (state == FRAME_CHUNK_WHOLE) {
        return frame_offset(start) == 0 && count == LOAM_FRAME_CHUNK_FRAMES;
    }
    return state == FRAME_CHUNK_PARTIAL && frame_bits_is_block(frame_map(frame, section, chunk), frame_offset(start),
                                                               (uint32_t)count, (this->crossed & 1) != 0);
}

/* The same, and neither returned nor ready. */
static bool is_whole_block(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk,
                           uint64_t start, uint64_t count)
{
    return is_block(frame, section, chunk, start, count) && !loam_frame_owner_returned(frame, section, start) &&
           !loam_frame_owner_ready(frame, section, start);
}

enum loam_error loam_frame_owner_free(struct loam_frame *frame, struct frame_section *section, uint64_t start,
                                      uint64_t count)
{
    uint64_t chunk = frame_chunk_index(section, start);
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache = owner_of(frame, this);
    uint32_t offset = frame_offset(start);
    struct frame_returned *returned;
    uint64_t *marks;

    if (cache == NULL || count == 0 || count > LOAM_FRAME_CHUNK_FRAMES - offset) {
        return LOAM_ERROR_INVALID;
    }
    if (!is_whole_block(frame, section, chunk, start, count)) {
        /* Its owner may have been writing next to it: only when it stands still is what is seen all there is. */
        if (!loam_frame_owner_stop(frame, cache)) {
            return LOAM_ERROR_UNINITIALISED;
        }
        loam_frame_owner_collect(frame, cache);
        if (frame_read(this->owner) != cache->owner || !is_whole_block(frame, section, chunk, start, count)) {
            return LOAM_ERROR_INVALID;
        }
    }
    returned = stands_still(frame, cache) ? NULL : take_slot(cache, section, chunk, this);
    if (returned == NULL) {
        if (!loam_frame_owner_stop(frame, cache)) {
            return LOAM_ERROR_UNINITIALISED;
        }
        loam_frame_owner_collect(frame, cache);
        /* Its owner may have freed it a moment ago, and the chunk may have gone with it. */
        if (frame_read(this->owner) != cache->id + 1 || !is_block(frame, section, chunk, start, count)) {
            return LOAM_ERROR_INVALID;
        }
        release_owned(frame, cache, section, chunk, offset, (uint32_t)count);
        return LOAM_OK;
    }
    marks = &returned->starts[offset / 64];
    frame_write(*marks, *marks | UINT64_C(1) << (offset % 64));
    cache->returned_frames[zone_of(frame, section, chunk)] += count;
    frame_write(cache->returned_any, 1);
    return LOAM_OK;
}

/* Of the frames at mask, in a word of a chunk of the cache, some are ready or back. */
static bool any_ready(const struct loam_frame *frame, const struct loam_frame_cache *cache, uint64_t base,
                      uint64_t mask)
{
    for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
        const struct frame_window *window = &cache->window[order][frame_zone(frame, base)];

        if (frame_read(window->base) == base &&
            (frame_spread(frame_read(window->ready) | frame_read(window->back), order) & mask) != 0) {
            return true;
        }
    }
    return false;
}

bool loam_frame_owner_free_run(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint32_t count)
{
    uint64_t chunk = frame_chunk_index(section, start), *marks;
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache = owner_of(frame, this);
    uint32_t offset = frame_offset(start), word = offset / 64;
    uint64_t mask = UINT64_MAX >> (64 - count) << (offset % 64);
    struct frame_returned *returned;
    struct frame_word bits;

    if (cache == NULL || stands_still(frame, cache) || frame_read(this->state) != FRAME_CHUNK_PARTIAL) {
        return false;
    }
    bits = frame_bits_read(frame_map(frame, section, chunk), word);
    if ((bits.allocated & bits.last & mask) != mask || !is_block(frame, section, chunk, start, 1) ||
        any_ready(frame, cache, start - offset % 64, mask)) {
        return false;
    }
    returned = slot_of(cache, this);
    if (returned != NULL && (frame_read(returned->starts[word]) & mask) != 0) {
        return false;
    }
    returned = take_slot(cache, section, chunk, this);
    if (returned == NULL) {
        return false;
    }
    marks = &returned->starts[word];
    frame_write(*marks, *marks | mask);
    cache->returned_frames[zone_of(frame, section, chunk)] += count;
    frame_write(cache->returned_any, 1);
    return true;
}

/* --- Giving and taking chunks ---------------------------------------------------------------------------------- */

void loam_frame_owner_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                            uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint64_t free_frames = LOAM_FRAME_CHUNK_FRAMES;

    if (this->state == FRAME_CHUNK_PARTIAL) {
        free_frames = this->free_frames;
        if (this->sum != frame_bits_sum(frame_map(frame, section, chunk))) {
            loam_frame_damage(frame);
            return;
        }
        if (this->list != FRAME_LIST_NONE) {
            loam_frame_lists_remove(frame, section, chunk);
        }
        this->crossed = loam_frame_chunk_crossed(frame, section, chunk);
    }
    frame_write(this->slot, 0);
    frame_write(this->owner, (uint16_t)(cache->id + 1));
    move_free(frame, cache, section, chunk, free_frames, true);
    if (this->state != FRAME_CHUNK_PARTIAL) {
        keep_or_give(frame, cache, section, chunk);
    }
}

/* No chunk here but by way of its head: every other chunk of a piece has no owner. */
static bool claim_chunk(struct loam_frame *frame, struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache;

    if (frame_read(this->owner) == 0) {
        return true;
    }
    cache = owner_of(frame, this);
    if (cache == NULL || !loam_frame_owner_stop(frame, cache)) {
        return false;
    }
    loam_frame_owner_collect(frame, cache);
    if (frame_read(this->owner) != 0) {
        disown(frame, cache, section, chunk);
    }
    return true;
}

bool loam_frame_owner_claim(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t chunk = loam_frame_buddy_head(frame, section, frame_chunk_index(section, start));

    while (chunk < end && !frame_read(frame->damaged)) {
        /* The chunk may become part of a larger piece, so the next one is looked up anew. */
        if (!claim_chunk(frame, section, chunk)) {
            return false;
        }
        chunk = loam_frame_buddy_head(frame, section, chunk);
        chunk += loam_frame_buddy_chunks(frame, section, chunk);
    }
    return true;
}

/* Disown the first chunk of every list, until there is none. */
static void drain_lists(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_lists *lists)
{
    while (lists->mask[0] != 0 && !frame_read(frame->damaged)) {
        uint32_t list = (uint32_t)__builtin_ctzll(lists->mask[0]);
        uint64_t link = lists->head[list];
        struct frame_section *section;
        struct frame_chunk *this = loam_frame_chunk_from_link(frame, link, &section);

        if (section == NULL || this->owner != cache->id + 1 || this->list != list) {
            loam_frame_damage(frame);
            return;
        }
        disown(frame, cache, section, (uint32_t)link);
    }
}

/* Disown a chunk that the cache names; section NULL: it names none. */
static void drain_chunk(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                        uint64_t chunk)
{
    if (section == NULL || frame_chunks(frame, section)[chunk].owner != cache->id + 1) {
        loam_frame_damage(frame);
        return;
    }
    disown(frame, cache, section, chunk);
}

static void drain_zone(struct loam_frame *frame, struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    struct frame_section *section;

    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        const struct frame_current *current = &cache->current[zone][order];

        if (memcmp(current, &frame_current_none, sizeof *current) != 0) {
            if (current->seal != frame_current_seal(current)) {
                loam_frame_damage(frame);
                return;
            }
            loam_frame_chunk_from_link(frame, current->link, &section);
            drain_chunk(frame, cache, section, (uint32_t)current->link);
        }
    }
    while (cache->spare_count[zone] > 0 && !frame_read(frame->damaged)) {
        uint64_t start = cache->spare[zone][(cache->spare_count[zone] - 1) % FRAME_SPARE_CHUNKS];

        section = loam_frame_section_from_pfn(frame, start);
        drain_chunk(frame, cache, section, section == NULL ? 0 : frame_chunk_index(section, start));
    }
    drain_lists(frame, cache, &cache->lists[zone]);
}

bool loam_frame_owner_drain(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    if (!loam_frame_owner_stop(frame, cache)) {
        return false;
    }
    loam_frame_owner_collect(frame, cache);
    drain_zone(frame, cache, LOAM_FRAME_ZONE_DMA32);
    drain_zone(frame, cache, LOAM_FRAME_ZONE_NORMAL);
    return !frame_read(frame->damaged);
}

/*
 * All owners are stopped before the first cache is looked at: a frame could go from one that is still to be looked at to
 * one that has been, and be missed.
 */
bool loam_frame_owner_fetch_back(struct loam_frame *frame)
{
    bool any = false;

    if (!loam_frame_owner_stop_all(frame)) {
        return false;
    }
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden != FRAME_UNUSED && (cache->free_frames[0] | cache->free_frames[1] |
                                                 cache->returned_frames[0] | cache->returned_frames[1]) != 0) {
            any |= loam_frame_owner_drain(frame, cache);
        }
    }
    return any;
}

uint64_t loam_frame_owner_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone)
{
    uint64_t sum = 0;

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        const struct loam_frame_cache *cache = &frame_caches(frame)[id];

        sum += frame_read(cache->free_frames[zone]) + cache->returned_frames[zone] + ready_frames(cache, zone);
    }
    return sum;
}

bool loam_frame_owner_forget(struct loam_frame *frame)
{
    if (!loam_frame_owner_stop_all(frame)) {
        return false;
    }
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        frame_caches(frame)[id].memo = frame_memo_none;
    }
    return true;
}
