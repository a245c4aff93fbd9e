// SPDX-License-Identifier: Apache-2.0
/*
 * The cache behind plain calls. Private to frame*.c; the allocator's lock is held.
 *
 * A plain call of ordinary shape (2^order frames at their natural alignment, without a limit or with one at 4 GiB) is
 * served from a window, as a thread's cache serves its owner: of one word of a partly used chunk, all free blocks of the
 * order are marked as allocated at once; they are made. Those still to be had are ready; those that came back wait until
 * nothing else is ready. Chunks of one block that come back are kept in the same way, as whole chunks.
 *
 * Only those calls know of it. Whoever else takes the lock flushes it first: what is ready or back is free in the
 * bitmaps again, and the world looks as if there were no front. `live` says what there is to flush.
 *
 * The zones' free frames, and with them the reserve and the pressure, are exact at every moment: they are counted as
 * blocks are taken and given. A section's free frames leave out what is made, until it is flushed.
 *
 * A block in made that is neither ready nor back is allocated, and no other proof is needed to free it. Any other block
 * is freed by its bitmaps, whatever the windows hold: in the bitmaps all of made is allocated.
 */
#ifndef LOAM_FRAME_FRONT_H
#define LOAM_FRAME_FRONT_H

#include "allocator/frame/frame_spot.h"

/* Free again what is ready or back. */
void loam_frame_front_flush(struct loam_frame *frame);

/* A block that is ready, or is made so. False: the lists of the zone have no block of the order. */
bool loam_frame_front_fill(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order, uint64_t *start);

/* A chunk that is one block comes back. LOAM_ERROR_NOT_FOUND: it does not stand there, or there is no room for it. */
enum loam_error loam_frame_front_give_chunk(struct loam_frame *frame, uint64_t start);

/* Count frames of a zone that are taken, or come back. */
FRAME_HOT void frame_front_count_taken(struct loam_frame *frame, enum loam_frame_zone zone, uint64_t count)
{
    frame->free_frames[zone] -= count;
    if (UNLIKELY(frame->free_frames[zone] < frame->watermarks[zone].low_frames)) {
        shared_store(frame->pressure[zone], 1);
    }
}

FRAME_HOT void frame_front_count_given(struct loam_frame *frame, enum loam_frame_zone zone, uint64_t count)
{
    frame->free_frames[zone] += count;
    if (LIKELY(frame->free_frames[zone] >= frame->watermarks[zone].high_frames)) {
        shared_store(frame->pressure[zone], 0);
    }
}

/* The highest zone that the limit allows, if the front may serve from it; else FRAME_ZONE_NONE. */
FRAME_HOT uint32_t frame_front_zone(const struct loam_frame *frame, uint64_t count, uint64_t limit)
{
    if (LIKELY(limit == 0)) {
        return LIKELY(frame->top_zone == LOAM_FRAME_ZONE_NORMAL) ? LOAM_FRAME_ZONE_NORMAL
               : loam_fits(count, frame->dma32_reserve_frames, frame->free_frames[LOAM_FRAME_ZONE_DMA32])
                   ? LOAM_FRAME_ZONE_DMA32
                   : FRAME_ZONE_NONE;
    }
    return limit == frame->zone_end ? LOAM_FRAME_ZONE_DMA32 : FRAME_ZONE_NONE;
}

/* A chunk that came back as one block. */
FRAME_HOT bool frame_front_take_chunk(struct loam_frame *frame, enum loam_frame_zone zone, uint64_t *start)
{
    const struct frame_kept *kept;
    struct frame_chunk *chunk;

    if (frame->front.chunk_count[zone] == 0) {
        return false;
    }
    kept = &frame->front.chunk[zone][--frame->front.chunk_count[zone]];
    chunk = frame_address(frame, kept->chunk_offset_bytes);
    chunk->list = FRAME_LIST_NONE;
    *start = kept->start;
    frame_front_count_taken(frame, zone, LOAM_FRAME_CHUNK_FRAMES);
    return true;
}

/* A block of 2^order frames that is ready. */
FRAME_HOT bool frame_front_take_ready(struct loam_frame *frame, uint32_t order, uint64_t limit, uint64_t *start)
{
    uint32_t zone = order > FRAME_CHUNK_ORDER ? FRAME_ZONE_NONE : frame_front_zone(frame, UINT64_C(1) << order, limit);
    struct frame_window *window;
    uint64_t ready;

    if (UNLIKELY(zone == FRAME_ZONE_NONE)) {
        return false;
    }
    if (UNLIKELY(order >= FRAME_WINDOWS)) {
        return order == FRAME_CHUNK_ORDER && frame_front_take_chunk(frame, zone, start);
    }
    window = &frame->front.window[order][zone];
    ready = window->ready;
    if (UNLIKELY(ready == 0)) {
        return false;
    }
    *start = window->base + (uint64_t)(unsigned)__builtin_ctzll(ready);
    window->ready = ready & (ready - 1);
    frame_front_count_taken(frame, zone, UINT64_C(1) << order);
    return true;
}

/* A block of any order that the lists of its zone have. False: ask in the general way, once the front is flushed. */
static inline bool frame_front_take(struct loam_frame *frame, uint32_t order, uint64_t limit, uint64_t *start)
{
    uint32_t zone =
        order > LOAM_FRAME_ORDER_MAX ? FRAME_ZONE_NONE : frame_front_zone(frame, UINT64_C(1) << order, limit);

    return zone != FRAME_ZONE_NONE && loam_frame_front_fill(frame, zone, order, start);
}

/* Free a block of 2^order frames, order 0 to 6, that was made and handed out. False: it is no such block. */
FRAME_HOT bool frame_front_give_made(struct loam_frame *frame, uint64_t start, uint64_t order)
{
    enum loam_frame_zone zone = frame_zone(frame, start);
    struct frame_window *window = &frame->front.window[order][zone];
    uint64_t bit = start - window->base;

    if (bit >= 64 || ((window->made & ~(window->ready | window->back)) >> bit & 1) == 0) {
        return false;
    }
    window->back |= UINT64_C(1) << bit;
    frame_front_count_given(frame, zone, UINT64_C(1) << order);
    return true;
}

/*
 * Free a block of 2^order frames that the front knows. LOAM_ERROR_INVALID: it is free already. LOAM_ERROR_NOT_FOUND: its
 * bitmaps decide.
 */
static inline enum loam_error frame_front_give(struct loam_frame *frame, uint64_t start, uint32_t order)
{
    const struct frame_window *window;
    uint64_t bit;

    if (order >= FRAME_WINDOWS) {
        return order == FRAME_CHUNK_ORDER ? loam_frame_front_give_chunk(frame, start) : LOAM_ERROR_NOT_FOUND;
    }
    if (frame_front_give_made(frame, start, order)) {
        return LOAM_OK;
    }
    window = &frame->front.window[order][frame_zone(frame, start)];
    bit = start - window->base;
    return bit < 64 && (window->made >> bit & 1) != 0 ? LOAM_ERROR_INVALID : LOAM_ERROR_NOT_FOUND;
}

#endif
