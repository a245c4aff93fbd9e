// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_front.h"

#include "allocator/frame/frame_buddy.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lists.h"
#include "allocator/frame/frame_search.h"

/* The bits of `live`: one a window, and one a zone whose chunks are kept. */
static uint32_t live_window(uint32_t order, uint32_t zone)
{
    return 1u << (order * LOAM_FRAME_ZONE_COUNT + zone);
}

static uint32_t live_chunks(uint32_t zone)
{
    return live_window(FRAME_WINDOWS, zone);
}

/* --- Flushing -------------------------------------------------------------------------------------------------- */

/* The chunk has count more free frames than it is filed under. */
static void file_freed(struct loam_frame *frame, const struct frame_spot *spot)
{
    if (frame_free_frames(spot->chunk) == LOAM_FRAME_CHUNK_FRAMES) {
        if (spot->chunk->list != FRAME_LIST_NONE) {
            loam_frame_lists_remove(frame, frame_lists_of(frame, spot), spot);
        }
        loam_frame_buddy_give(frame, spot, FRAME_CHUNK_ORDER);
        return;
    }
    spot->chunk->fit = FRAME_FITS - 1;
    loam_frame_chunk_cap_fit(spot->chunk);
    loam_frame_lists_file(frame, frame_lists_of(frame, spot), spot);
}

/* Whether that set anything free. */
static bool flush_window(struct loam_frame *frame, struct frame_window *window, uint32_t order)
{
    uint64_t starts = window->ready | window->back;
    uint32_t blocks = (uint32_t)__builtin_popcountll(starts);
    struct frame_spot spot = frame_spot_from_link(frame, window->link);

    if (starts != 0) {
        frame_bits_clear(spot.map, frame_offset(window->base) / 64, frame_spread(starts, order));
        frame_count(spot.chunk, (blocks << order) * FRAME_COUNT_FREE - blocks * FRAME_COUNT_BLOCK);
        spot.section->free_frames += blocks << order;
        /* Nobody saw them free meanwhile. */
        spot.section->free_top = frame_max(spot.section->free_top, frame_min(window->base + 64, spot.section->end));
        file_freed(frame, &spot);
    }
    *window = frame_window_none;
    return starts != 0;
}

/* All windows of a zone. */
static bool flush_windows(struct loam_frame *frame, uint32_t zone)
{
    bool any = false;

    for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
        if ((frame->front.live & live_window(order, zone)) != 0) {
            any |= flush_window(frame, &frame->front.window[order][zone], order);
            frame->front.live &= ~live_window(order, zone);
        }
    }
    return any;
}

static void flush_chunks(struct loam_frame *frame, uint32_t zone)
{
    while (frame->front.chunk_count[zone] > 0) {
        struct frame_spot spot =
            frame_spot_from_link(frame, frame->front.chunk[zone][--frame->front.chunk_count[zone]].link);

        spot.section->free_frames += LOAM_FRAME_CHUNK_FRAMES;
        spot.section->free_top = frame_max(spot.section->free_top, spot.start + LOAM_FRAME_CHUNK_FRAMES);
        loam_frame_buddy_give(frame, &spot, FRAME_CHUNK_ORDER);
    }
}

void loam_frame_front_flush(struct loam_frame *frame)
{
    for (uint32_t zone = 0; zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        flush_windows(frame, zone);
        flush_chunks(frame, zone);
    }
    frame->front.live = 0;
}

/* --- Whole chunks ---------------------------------------------------------------------------------------------- */

enum loam_error loam_frame_front_give_chunk(struct loam_frame *frame, uint64_t start)
{
    struct frame_chunk *this;
    struct frame_spot spot;

    if (!frame_spot_find(frame, start, &spot)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    this = spot.chunk;
    if (spot.start != start || shared_load(this->state) != FRAME_CHUNK_WHOLE || shared_load(this->owner) != 0) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if (this->list == FRAME_LIST_KEPT) {
        return LOAM_ERROR_INVALID;
    }
    if (this->before_frames != 0 || this->block_frames != LOAM_FRAME_CHUNK_FRAMES || this->released ||
        frame->front.chunk_count[spot.zone] == FRAME_KEPT_CHUNKS) {
        return LOAM_ERROR_NOT_FOUND;
    }
    this->list = FRAME_LIST_KEPT;
    this->tag = 0;
    frame->front.chunk[spot.zone][frame->front.chunk_count[spot.zone]++] = (struct frame_kept){
        .start = start, .chunk_offset_bytes = (uintptr_t)this - (uintptr_t)frame, .link = frame_spot_link(&spot)};
    frame->front.live |= live_chunks(spot.zone);
    frame_front_count_given(frame, spot.zone, LOAM_FRAME_CHUNK_FRAMES);
    return LOAM_OK;
}

/* --- Filling --------------------------------------------------------------------------------------------------- */

/* Make what is free in a word of a chunk that has a free block of the order. */
static void make_window(struct loam_frame *frame, const struct frame_spot *spot, uint32_t order)
{
    uint32_t word = frame_bits_find_order(spot->map, order) / 64;
    uint64_t starts = frame_bits_starts(frame_bits_word(spot->map, FRAME_BITS_FREE, word), order);
    uint32_t blocks = (uint32_t)__builtin_popcountll(starts);

    frame_bits_set(spot->map, word, frame_spread(starts, order), frame_ends(starts, order));
    frame_count(spot->chunk, blocks * FRAME_COUNT_BLOCK - (blocks << order) * FRAME_COUNT_FREE);
    loam_frame_chunk_cap_fit(spot->chunk);
    loam_frame_lists_file(frame, frame_lists_of(frame, spot), spot);
    spot->section->free_frames -= blocks << order;
    frame->front.window[order][spot->zone] = (struct frame_window){
        .ready = starts, .made = starts, .base = spot->start + word * UINT64_C(64), .link = frame_spot_link(spot)};
    frame->front.live |= live_window(order, spot->zone);
}

/* Whether taking a block of the order in the chunk breaks a word that is wholly free. */
static bool breaks_word(const struct frame_spot *spot, uint32_t order)
{
    uint32_t word = frame_bits_find_order(spot->map, order) / 64;

    return order < 6 && frame_bits_word(spot->map, FRAME_BITS_USED, word) == 0;
}

/*
 * A chunk with a free block of the order: partly used, the fullest that will do, or one out of the buddy. Before a word
 * or a chunk is broken, what is ready for other orders is looked at, so that small blocks lie together.
 */
static bool find_chunk(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order, struct frame_spot *spot)
{
    bool found = loam_frame_search_chunk(frame, zone, order, spot);

    if ((!found || breaks_word(spot, order)) && flush_windows(frame, zone)) {
        found = loam_frame_search_chunk(frame, zone, order, spot);
    }
    if (!found && loam_frame_search_piece(frame, zone, spot)) {
        loam_frame_buddy_take_one(frame, spot);
        loam_frame_chunk_make_partial(spot);
        found = true;
    }
    return found;
}

/* A block that is larger than a word, straight from the lists. */
static bool take_large(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order, uint64_t *start)
{
    struct frame_section *section;

    if (order == FRAME_CHUNK_ORDER && frame_front_take_chunk(frame, zone, start)) {
        return true;
    }
    if (!loam_frame_search_order(frame, zone, order, &section, start)) {
        return false;
    }
    loam_frame_chunk_take(frame, section, *start, UINT64_C(1) << order);
    return true;
}

/* Something is ready in the window: what came back, or what a chunk has. */
static bool make_ready(struct loam_frame *frame, struct frame_window *window, enum loam_frame_zone zone, uint32_t order)
{
    struct frame_spot spot;

    if (window->back != 0) {
        window->ready = window->back;
        window->back = 0;
        return true;
    }
    if (!find_chunk(frame, zone, order, &spot)) {
        return false;
    }
    make_window(frame, &spot, order);
    return true;
}

bool loam_frame_front_fill(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order, uint64_t *start)
{
    struct frame_window *window;

    if (order >= FRAME_WINDOWS) {
        return take_large(frame, zone, order, start);
    }
    window = &frame->front.window[order][zone];
    if (window->ready == 0 && !make_ready(frame, window, zone, order)) {
        return false;
    }
    *start = window->base + (uint64_t)(unsigned)__builtin_ctzll(window->ready);
    window->ready &= window->ready - 1;
    frame_front_count_taken(frame, zone, UINT64_C(1) << order);
    return true;
}
