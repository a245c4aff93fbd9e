// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_owner.h"

#include "allocator/frame_buddy.h"
#include "allocator/frame_chunk.h"
#include "allocator/frame_find.h"
#include "allocator/frame_lists.h"
#include "allocator/frame_stop.h"

/* Frames that are free in the chunk leave the cache for the allocator, or (taken) the other way. */
static void move_free(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                      uint64_t chunk, uint64_t count, bool taken)
{
    uint64_t *cached = &cache->free_frames[frame_zone_of_chunk(frame, section, chunk)];
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
    enum loam_frame_zone zone = frame_zone_of_chunk(frame, section, chunk);

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
void loam_frame_owner_release(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                              uint64_t chunk, uint32_t offset, uint32_t count)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint64_t *cached = &cache->free_frames[frame_zone_of_chunk(frame, section, chunk)];

    frame_write(*cached, *cached + count);
    if (this->state == FRAME_CHUNK_WHOLE || loam_frame_chunk_release_part(frame, section, chunk, offset, count)) {
        keep_or_give(frame, cache, section, chunk);
    }
}

static void drop_spare(struct loam_frame_cache *cache, enum loam_frame_zone zone, uint64_t start)
{
    uint64_t n = 0;

    while (cache->spare[zone][n] != start) {
        n++;
    }
    cache->spare[zone][n] = cache->spare[zone][--cache->spare_count[zone]];
}

/* The chunk, which is current, is no longer; it is on no list. */
static void drop_current(struct loam_frame_cache *cache, struct frame_chunk *chunk, enum loam_frame_zone zone)
{
    frame_window_move(&cache->window[chunk->order][zone], &frame_window_none);
    chunk->list = FRAME_LIST_NONE;
    chunk->fit = FRAME_FITS - 1;
    loam_frame_chunk_cap_fit(chunk);
}

void loam_frame_owner_put_aside(struct loam_frame *frame, struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    drop_current(frame_owner_of(frame, this), this, frame_zone_of_chunk(frame, section, chunk));
    loam_frame_lists_file(frame, section, chunk);
}

/* The chunk has no owner any more. Its cache stands still, and nothing in the chunk is marked as returned. */
void loam_frame_owner_disown(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                             uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    enum loam_frame_zone zone = frame_zone_of_chunk(frame, section, chunk);

    if (this->state == FRAME_CHUNK_PARTIAL) {
        if (this->list == FRAME_LIST_CURRENT) {
            drop_current(cache, this, zone);
        } else {
            loam_frame_lists_remove(frame, section, chunk);
        }
        frame_write(this->owner, 0);
        move_free(frame, cache, section, chunk, frame_free_frames(this), false);
        if (frame_free_frames(this) == LOAM_FRAME_CHUNK_FRAMES) {
            loam_frame_buddy_give(frame, section, chunk, FRAME_CHUNK_ORDER);
        } else {
            loam_frame_lists_file(frame, section, chunk);
        }
    } else if (this->state == FRAME_CHUNK_FREE) {
        drop_spare(cache, zone, frame_chunk_start(section, chunk));
        frame_write(this->owner, 0);
        move_free(frame, cache, section, chunk, LOAM_FRAME_CHUNK_FRAMES, false);
        loam_frame_buddy_give(frame, section, chunk, FRAME_CHUNK_ORDER);
    } else {
        frame_write(this->owner, 0);
        this->before_frames = 0;
        this->block_frames = LOAM_FRAME_CHUNK_FRAMES;
        this->order = FRAME_CHUNK_ORDER;
        this->list = FRAME_LIST_NONE;
        this->tag = 0;
        this->released = 0;
    }
}

void loam_frame_owner_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                            uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint64_t free_frames = LOAM_FRAME_CHUNK_FRAMES;

    if (this->state == FRAME_CHUNK_PARTIAL) {
        free_frames = frame_free_frames(this);
        if (this->list != FRAME_LIST_NONE) {
            loam_frame_lists_remove(frame, section, chunk);
        }
        frame_write(this->crossed, loam_frame_chunk_crossed(frame, section, chunk));
    }
    frame_write(this->slot, 0);
    frame_write(this->owner, (uint16_t)(cache->id + 1));
    move_free(frame, cache, section, chunk, free_frames, true);
    if (this->state != FRAME_CHUNK_PARTIAL) {
        keep_or_give(frame, cache, section, chunk);
    }
}
