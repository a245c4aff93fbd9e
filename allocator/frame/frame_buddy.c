// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_buddy.h"

#include "allocator/frame/frame_lists.h"

/* The largest order of a piece that may start at chunk: aligned, within count_chunks, and in one zone. */
static uint32_t piece_order(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t count_chunks)
{
    uint64_t number = spot->start >> FRAME_CHUNK_ORDER;
    uint64_t zone_end = frame->zone_end >> FRAME_CHUNK_ORDER;
    uint32_t order = FRAME_BIG_ORDERS - 1;

    if (number < zone_end) {
        count_chunks = frame_min(count_chunks, zone_end - number);
    }
    if (number != 0) {
        order = (uint32_t)frame_min(order, (uint64_t)__builtin_ctzll(number));
    }
    return FRAME_CHUNK_ORDER + (uint32_t)frame_min(order, frame_log2_floor(count_chunks));
}

static void set_free(struct loam_frame *frame, const struct frame_spot *spot, uint32_t order)
{
    frame->free_chunks += frame_piece_chunks(order);
    frame->released_chunks += spot->chunk->released ? frame_piece_chunks(order) : 0;
    shared_store(spot->chunk->state, FRAME_CHUNK_FREE);
    spot->chunk->order = (uint8_t)order;
    loam_frame_lists_push(frame, frame_lists_of(frame, spot), spot, FRAME_LIST_FREE + order - FRAME_CHUNK_ORDER);
}

/* Take a free piece off its list. */
static void unset_free(struct loam_frame *frame, const struct frame_spot *spot)
{
    uint64_t size_chunks = frame_spot_chunks(spot);

    loam_frame_lists_remove(frame, frame_lists_of(frame, spot), spot);
    frame->free_chunks -= size_chunks;
    frame->released_chunks -= spot->chunk->released ? size_chunks : 0;
    shared_store(spot->chunk->state, FRAME_CHUNK_INNER);
    if (frame->spare[spot->zone] == frame_spot_link(spot)) {
        frame->spare[spot->zone] = FRAME_LINK_NONE;
    }
}

static void add_pieces(struct loam_frame *frame, struct frame_section *section, uint64_t from, uint64_t to,
                       uint8_t released)
{
    while (from < to) {
        struct frame_spot spot = frame_spot_at(frame, section, from);
        uint32_t order = piece_order(frame, &spot, to - from);

        spot.chunk->released = released;
        set_free(frame, &spot, order);
        from += frame_piece_chunks(order);
    }
}

void loam_frame_buddy_add(struct loam_frame *frame, struct frame_section *section, uint64_t from, uint64_t to)
{
    add_pieces(frame, section, from, to, 0);
}

void loam_frame_buddy_remove(struct loam_frame *frame, const struct frame_spot *spot)
{
    unset_free(frame, spot);
}

static void set_whole(struct loam_frame *frame, struct frame_section *section, uint64_t from, uint64_t to,
                      struct frame_span block, uint8_t released)
{
    while (from < to) {
        struct frame_spot spot = frame_spot_at(frame, section, from);
        uint32_t order = piece_order(frame, &spot, to - from);

        spot.chunk->before_frames = (uint32_t)(spot.start - block.start);
        spot.chunk->block_frames = (uint32_t)block.count;
        spot.chunk->order = (uint8_t)order;
        spot.chunk->tag = 0;
        spot.chunk->list = FRAME_LIST_NONE;
        spot.chunk->released = released;
        shared_store(spot.chunk->state, FRAME_CHUNK_WHOLE);
        from += frame_piece_chunks(order);
    }
}

/* Take [from, to) out of the free piece that holds it. */
static void carve(struct loam_frame *frame, const struct frame_spot *piece, uint64_t from, uint64_t to)
{
    uint64_t end = piece->index + frame_spot_chunks(piece);
    uint8_t released = piece->chunk->released;

    unset_free(frame, piece);
    add_pieces(frame, piece->section, piece->index, from, released);
    add_pieces(frame, piece->section, to, end, released);
}

void loam_frame_buddy_take_one(struct loam_frame *frame, const struct frame_spot *spot)
{
    struct frame_spot piece = loam_frame_spot_head(frame, spot->section, spot->index);
    uint8_t released = piece.chunk->released;

    carve(frame, &piece, spot->index, spot->index + 1);
    spot->chunk->released = released;
}

bool loam_frame_buddy_take(struct loam_frame *frame, struct frame_section *section, uint64_t from, uint64_t to,
                           struct frame_span block)
{
    bool any_released = false;

    while (from < to) {
        struct frame_spot piece = loam_frame_spot_head(frame, section, from);
        uint64_t stop = frame_min(piece.index + frame_spot_chunks(&piece), to);
        uint8_t released = piece.chunk->released;

        carve(frame, &piece, from, stop);
        set_whole(frame, section, from, stop, block, released);
        any_released |= released;
        from = stop;
    }
    return any_released;
}

/* Whether the buddy of the piece is a free piece of the same order, zone and kind; *buddy receives it. */
static bool buddy_is_free(const struct loam_frame *frame, const struct frame_spot *spot, uint32_t order,
                          struct frame_spot *buddy)
{
    uint64_t size_chunks = frame_piece_chunks(order);
    uint64_t index = ((spot->section->first_chunk + spot->index) ^ size_chunks) - spot->section->first_chunk;

    /* An index below the section wraps, and is out of range like one above it. */
    if (!loam_fits(index, size_chunks, spot->section->chunk_count)) {
        return false;
    }
    *buddy = frame_spot_at(frame, spot->section, index);
    return buddy->zone == spot->zone && shared_load(buddy->chunk->state) == FRAME_CHUNK_FREE &&
           shared_load(buddy->chunk->owner) == 0 && buddy->chunk->order == order &&
           buddy->chunk->released == spot->chunk->released;
}

/* List a piece, merged with its buddies as far as they are free. */
static void merge_piece(struct loam_frame *frame, struct frame_spot spot, uint32_t order)
{
    struct frame_spot buddy;

    while (order < LOAM_FRAME_ORDER_MAX && buddy_is_free(frame, &spot, order, &buddy)) {
        uint8_t released = spot.chunk->released;

        unset_free(frame, &buddy);
        shared_store(spot.chunk->state, FRAME_CHUNK_INNER);
        spot = buddy.index < spot.index ? buddy : spot;
        spot.chunk->released = released;
        order++;
    }
    set_free(frame, &spot, order);
}

bool loam_frame_buddy_merge_spare(struct loam_frame *frame, enum loam_frame_zone zone)
{
    struct frame_spot spot;

    if (frame->spare[zone] == FRAME_LINK_NONE) {
        return false;
    }
    spot = frame_spot_from_link(frame, frame->spare[zone]);
    unset_free(frame, &spot);
    merge_piece(frame, spot, spot.chunk->order);
    return true;
}

/*
 * It stands by unmerged until the next one comes or somebody asks for more than there seems to be: who frees and
 * allocates in turn does not split and merge eleven times a turn.
 */
void loam_frame_buddy_give(struct loam_frame *frame, const struct frame_spot *spot, uint32_t order)
{
    spot->chunk->list = FRAME_LIST_NONE;
    /* Not FREE before it is listed: the one that merges now may be its buddy. */
    shared_store(spot->chunk->state, FRAME_CHUNK_INNER);
    loam_frame_buddy_merge_spare(frame, spot->zone);
    set_free(frame, spot, order);
    frame->spare[spot->zone] = frame_spot_link(spot);
}
