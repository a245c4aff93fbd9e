// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_owner.h"

#include "allocator/frame_buddy.h"
#include "allocator/frame_chunk.h"
#include "allocator/frame_lists.h"
#include "allocator/frame_stop.h"

/* Frames that are free in the chunk leave the cache for the allocator, or (taken) the other way. */
static void move_free(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                      uint64_t count, bool taken)
{
    uint64_t *cached = &cache->free_frames[spot->zone];
    uint64_t end = frame_min(spot->start + LOAM_FRAME_CHUNK_FRAMES, spot->section->end);

    frame_write(*cached, taken ? *cached + count : *cached - count);
    if (count != 0) {
        /* As if the chunk's uppermost: the chunk lies in one zone, and it is free_top that counts. */
        loam_frame_chunk_count(frame, spot->section, end - count, count, !taken);
    }
}

/* A chunk that is wholly free and on no list goes back to the buddy. */
static void give_back(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    frame_write(spot->chunk->owner, 0);
    move_free(frame, cache, spot, LOAM_FRAME_CHUNK_FRAMES, false);
    loam_frame_buddy_give(frame, spot, FRAME_CHUNK_ORDER);
}

/*
 * A chunk that is wholly free, on no list, and counted among the cache's free frames: its owner keeps it, if there is
 * room; who else found it gives it back.
 */
static void keep_or_give(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    uint64_t *spare_count = &cache->spare_count[spot->chunk->set];

    spot->chunk->released = 0;
    spot->chunk->order = FRAME_ORDER_OWNED;
    spot->chunk->list = FRAME_LIST_NONE;
    if (*spare_count < FRAME_SPARE_CHUNKS && frame->holder == cache->owner) {
        frame_write(spot->chunk->state, FRAME_CHUNK_FREE);
        cache->spare[spot->chunk->set][(*spare_count)++] = spot->start;
        return;
    }
    give_back(frame, cache, spot);
}

void loam_frame_owner_release(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                              uint32_t offset, uint32_t count)
{
    uint64_t *cached = &cache->free_frames[spot->zone];

    frame_write(*cached, *cached + count);
    if (spot->chunk->state == FRAME_CHUNK_WHOLE || loam_frame_chunk_release_part(frame, spot, offset, count)) {
        keep_or_give(frame, cache, spot);
    }
}

static void drop_spare(struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    uint64_t *spare = cache->spare[spot->chunk->set], n = 0;

    while (spare[n] != spot->start) {
        n++;
    }
    spare[n] = spare[--cache->spare_count[spot->chunk->set]];
}

/* The chunk, which is current, is no longer; it is on no list. */
static void drop_current(struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    frame_window_move(&cache->window[spot->chunk->order][spot->chunk->set], &frame_window_none);
    spot->chunk->list = FRAME_LIST_NONE;
    spot->chunk->fit = FRAME_FITS - 1;
    loam_frame_chunk_cap_fit(spot->chunk);
}

void loam_frame_owner_put_aside(struct loam_frame *frame, const struct frame_spot *spot)
{
    drop_current(frame_owner_of(frame, spot->chunk), spot);
    loam_frame_lists_file(frame, spot);
}

static void disown_partial(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    uint32_t free_frames = frame_free_frames(spot->chunk);

    if (spot->chunk->list == FRAME_LIST_CURRENT) {
        drop_current(cache, spot);
    } else {
        loam_frame_lists_remove(frame, spot);
    }
    if (free_frames == LOAM_FRAME_CHUNK_FRAMES) {
        give_back(frame, cache, spot);
        return;
    }
    frame_write(spot->chunk->owner, 0);
    move_free(frame, cache, spot, free_frames, false);
    loam_frame_lists_file(frame, spot);
}

void loam_frame_owner_disown(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot)
{
    struct frame_chunk *this = spot->chunk;

    if (this->state == FRAME_CHUNK_PARTIAL) {
        disown_partial(frame, cache, spot);
    } else if (this->state == FRAME_CHUNK_FREE) {
        drop_spare(cache, spot);
        give_back(frame, cache, spot);
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

void loam_frame_owner_adopt(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_spot *spot,
                            enum frame_set set)
{
    bool partial = spot->chunk->state == FRAME_CHUNK_PARTIAL;

    if (partial) {
        if (spot->chunk->list != FRAME_LIST_NONE) {
            loam_frame_lists_remove(frame, spot);
        }
        frame_write(spot->chunk->crossed, loam_frame_chunk_crossed(frame, spot));
    }
    frame_write(spot->chunk->slot, 0);
    frame_write(spot->chunk->set, (uint8_t)set);
    frame_write(spot->chunk->owner, (uint16_t)(cache->id + 1));
    move_free(frame, cache, spot, partial ? frame_free_frames(spot->chunk) : LOAM_FRAME_CHUNK_FRAMES, true);
    if (!partial) {
        keep_or_give(frame, cache, spot);
    }
}
