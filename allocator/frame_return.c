// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_return.h"

#include "allocator/frame_owner.h"
#include "allocator/frame_stop.h"

#include <string.h>

/* The blocks marked as returned in a word of the chunk. */
static uint64_t marks_in(const struct loam_frame_cache *cache, const struct frame_chunk *chunk, uint32_t word)
{
    uint32_t slot = frame_read(chunk->slot);

    return slot == 0 ? 0 : frame_read(cache->returned[slot - 1].starts[word]);
}

/* Free the block that starts at offset, if it is one still: its owner may have freed it as well, at the same moment. */
static void collect_block(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                          uint32_t offset)
{
    const struct frame_chunk *this = spot->chunk;
    uint32_t last = LOAM_FRAME_CHUNK_FRAMES - 1;

    if (this->state == FRAME_CHUNK_PARTIAL) {
        last = frame_bits_next(spot->map, FRAME_BITS_LAST, offset);
        if (last == LOAM_FRAME_CHUNK_FRAMES ||
            !frame_bits_is_block(spot->map, offset, last - offset + 1, (frame_read(this->crossed) & 1) != 0)) {
            return;
        }
    } else if (this->state != FRAME_CHUNK_WHOLE || offset != 0) {
        return;
    }
    loam_frame_owner_release(frame, cache, spot, offset, last - offset + 1);
}

/*
 * Free the single frames of a word that are marked, all at once, as far as the chunk keeps a used frame; returns the
 * marks that are left. The chunk is filed anew by whoever frees the rest.
 */
static uint64_t collect_singles(struct loam_frame_cache *cache, const struct frame_spot *spot, uint32_t word,
                                uint64_t marks)
{
    struct frame_word bits = frame_bits_read(spot->map, word);
    /* Untagged, last of their block, and behind a frame that ends one: blocks of one frame. */
    uint64_t begin = (~bits.allocated | bits.last) << 1;
    uint64_t singles = marks & bits.allocated & bits.last & begin;
    uint32_t count = (uint32_t)__builtin_popcountll(singles);
    uint64_t *cached = &cache->free_frames[spot->zone];

    if (spot->chunk->state != FRAME_CHUNK_PARTIAL || spot->chunk->list != FRAME_LIST_CURRENT) {
        return marks;
    }
    frame_bits_clear(spot->map, word, singles);
    frame_count(spot->chunk, count * FRAME_COUNT_FREE - count * FRAME_COUNT_BLOCK);
    frame_write(*cached, *cached + count);
    return marks & ~singles;
}

/* Free what is marked in one slot, and leave the slot unused. */
static void collect_slot(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_returned *returned)
{
    struct frame_spot spot = frame_spot_from_link(frame, returned->link);

    returned->link = FRAME_LINK_NONE;
    frame_write(spot.chunk->slot, 0);
    for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
        uint64_t marks = frame_read(returned->starts[word]);

        marks = marks == 0 ? 0 : collect_singles(cache, &spot, word, marks);
        for (; marks != 0; marks &= marks - 1) {
            collect_block(frame, cache, &spot, word * 64 + (uint32_t)__builtin_ctzll(marks));
        }
    }
    memset(returned->starts, 0, sizeof returned->starts);
}

void loam_frame_return_collect(struct loam_frame *frame, struct loam_frame_cache *cache)
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

void loam_frame_return_collect_all(struct loam_frame *frame)
{
    uint64_t unseen = 0;

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        const struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden != FRAME_UNUSED) {
            unseen |= cache->returned_frames[0] | cache->returned_frames[1] |
                      loam_frame_stop_ready_frames(cache, LOAM_FRAME_ZONE_DMA32) |
                      loam_frame_stop_ready_frames(cache, LOAM_FRAME_ZONE_NORMAL);
        }
    }
    if (unseen == 0 || !loam_frame_stop_all(frame)) {
        return;
    }
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        if (frame_caches(frame)[id].forbidden != FRAME_UNUSED) {
            loam_frame_return_collect(frame, &frame_caches(frame)[id]);
        }
    }
}

bool loam_frame_return_marked(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start)
{
    uint32_t offset = frame_offset(start);

    return (marks_in(frame_owner_of(frame, spot->chunk), spot->chunk, offset / 64) >> offset % 64 & 1) != 0;
}

/* The owner reads it at every free, so it is not written for nothing. */
static void note_returned(struct loam_frame_cache *cache)
{
    if (frame_read(cache->returned_any) == 0) {
        frame_write(cache->returned_any, 1);
    }
}

/* The number of the chunk's slot, which it is given if it has none; 0: all are used. */
static uint32_t take_slot(struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    uint32_t slot = frame_read(spot->chunk->slot);

    for (uint32_t n = 0; slot == 0 && n < FRAME_RETURNED; n++) {
        if (cache->returned[n].link == FRAME_LINK_NONE) {
            cache->returned[n].link = frame_spot_link(spot);
            slot = n + 1;
            frame_write(spot->chunk->slot, (uint8_t)slot);
        }
    }
    return slot;
}

/* Note the blocks at mask, of count frames together, in the word that holds start. */
static void note(struct loam_frame_cache *cache, uint32_t slot, const struct frame_spot *spot, uint64_t start,
                 uint64_t mask, uint64_t count)
{
    uint64_t *marks = &cache->returned[slot - 1].starts[frame_offset(start) / 64];

    frame_write(*marks, *marks | mask);
    cache->returned_frames[spot->zone] += count;
    note_returned(cache);
}

static bool is_block(const struct frame_spot *spot, uint64_t start, uint64_t count)
{
    uint8_t state = frame_read(spot->chunk->state);

    if (state == FRAME_CHUNK_WHOLE) {
        return frame_offset(start) == 0 && count == LOAM_FRAME_CHUNK_FRAMES;
    }
    return state == FRAME_CHUNK_PARTIAL && frame_bits_is_block(spot->map, frame_offset(start), (uint32_t)count,
                                                               (frame_read(spot->chunk->crossed) & 1) != 0);
}

/* The same, and neither returned nor ready. */
static bool is_whole_block(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                           uint64_t count)
{
    return is_block(spot, start, count) && !loam_frame_return_marked(frame, spot, start) &&
           !loam_frame_stop_ready(frame, spot, start, UINT64_C(1) << (start % 64));
}

/* Free a block of an owner who stands still, unless he freed it himself a moment ago. */
static enum loam_error free_stopped(struct loam_frame *frame, struct loam_frame_cache *cache,
                                    const struct frame_spot *spot, uint64_t start, uint64_t count)
{
    if (!loam_frame_stop_owner(frame, cache)) {
        return loam_frame_stop_error();
    }
    loam_frame_return_collect(frame, cache);
    /* The chunk may have gone with it. */
    if (frame_read(spot->chunk->owner) != cache->owner || !is_block(spot, start, count)) {
        return LOAM_ERROR_INVALID;
    }
    loam_frame_owner_release(frame, cache, spot, frame_offset(start), (uint32_t)count);
    return LOAM_OK;
}

enum loam_error loam_frame_return_block(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                        uint64_t count)
{
    struct loam_frame_cache *cache = frame_owner_of(frame, spot->chunk);
    uint32_t slot;

    if (count == 0 || count > LOAM_FRAME_CHUNK_FRAMES - frame_offset(start)) {
        return LOAM_ERROR_INVALID;
    }
    /* Its owner may have been writing next to it: only when it stands still is what is seen all there is. */
    if (loam_frame_stop_still(frame, cache) || !is_whole_block(frame, spot, start, count)) {
        return free_stopped(frame, cache, spot, start, count);
    }
    slot = take_slot(cache, spot);
    if (slot == 0) {
        return free_stopped(frame, cache, spot, start, count);
    }
    note(cache, slot, spot, start, UINT64_C(1) << start % 64, count);
    return LOAM_OK;
}

bool loam_frame_return_run(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start, uint32_t count)
{
    struct loam_frame_cache *cache = frame_owner_of(frame, spot->chunk);
    uint32_t word = frame_offset(start) / 64;
    uint64_t mask = UINT64_MAX >> (64 - count) << (start % 64);
    struct frame_word bits;
    uint32_t slot;

    if (loam_frame_stop_still(frame, cache) || frame_read(spot->chunk->state) != FRAME_CHUNK_PARTIAL) {
        return false;
    }
    bits = frame_bits_read(spot->map, word);
    if ((bits.allocated & bits.last & mask) != mask || !is_block(spot, start, 1) ||
        loam_frame_stop_ready(frame, spot, start, mask) || (marks_in(cache, spot->chunk, word) & mask) != 0) {
        return false;
    }
    slot = take_slot(cache, spot);
    if (slot == 0) {
        return false;
    }
    note(cache, slot, spot, start, mask, count);
    return true;
}
