// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_buddy.h"

#include "allocator/frame_lists.h"

uint64_t loam_frame_buddy_head(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    const struct frame_chunk *chunks = frame_chunks(frame, section);
    uint64_t number = section->first_chunk + chunk, head = chunk;

    for (uint32_t step = 1; frame_read(chunks[head].state) == FRAME_CHUNK_INNER; step++) {
        head = loam_align_down(number, UINT64_C(1) << step) - section->first_chunk;
    }
    return head;
}

uint64_t loam_frame_buddy_chunks(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    return frame_read(this->state) == FRAME_CHUNK_PARTIAL || frame_read(this->owner) != 0
               ? 1
               : frame_piece_chunks(this->order);
}

/* The largest order of a piece that may start at chunk: aligned, within count_chunks, and in one zone. */
static uint32_t piece_order(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk,
                            uint64_t count_chunks)
{
    uint64_t number = section->first_chunk + chunk;
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

static void set_free(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t order)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    frame->free_chunks += frame_piece_chunks(order);
    frame->released_chunks += this->released ? frame_piece_chunks(order) : 0;
    frame_write(this->state, FRAME_CHUNK_FREE);
    this->order = (uint8_t)order;
    loam_frame_lists_push(frame, section, chunk, FRAME_LIST_FREE + order - FRAME_CHUNK_ORDER);
}

/* Take a free piece off its list. */
static void unset_free(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint64_t size_chunks = loam_frame_buddy_chunks(frame, section, chunk);

    loam_frame_lists_remove(frame, section, chunk);
    frame->free_chunks -= size_chunks;
    frame->released_chunks -= this->released ? size_chunks : 0;
    frame_write(this->state, FRAME_CHUNK_INNER);
    if (frame->spare[zone] == frame_link(section, chunk)) {
        frame->spare[zone] = FRAME_LINK_NONE;
    }
}

static void add_pieces(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to,
                       uint8_t released)
{
    while (from < to) {
        uint32_t order = piece_order(frame, section, from, to - from);

        frame_chunks(frame, section)[from].released = released;
        set_free(frame, section, from, order);
        from += frame_piece_chunks(order);
    }
}

void loam_frame_buddy_add(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to)
{
    add_pieces(frame, section, from, to, 0);
}

void loam_frame_buddy_remove(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    unset_free(frame, section, chunk);
}

static void set_whole(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to,
                      struct frame_span block, uint8_t released)
{
    while (from < to) {
        struct frame_chunk *this = &frame_chunks(frame, section)[from];
        uint32_t order = piece_order(frame, section, from, to - from);

        this->before_frames = (uint32_t)(frame_chunk_start(section, from) - block.start);
        this->block_frames = (uint32_t)block.count;
        this->order = (uint8_t)order;
        this->tag = 0;
        this->list = FRAME_LIST_NONE;
        this->released = released;
        frame_write(this->state, FRAME_CHUNK_WHOLE);
        from += frame_piece_chunks(order);
    }
}

/* Take [from, to) out of the free pieces that hold it, one after the other; block.count 0: to be used as chunks. */
static bool take_pieces(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to,
                        struct frame_span block)
{
    bool any_released = false;

    while (from < to) {
        uint64_t head = loam_frame_buddy_head(frame, section, from);
        uint64_t end = head + loam_frame_buddy_chunks(frame, section, head);
        uint64_t stop = frame_min(end, to);
        uint8_t released = frame_chunks(frame, section)[head].released;

        unset_free(frame, section, head);
        add_pieces(frame, section, head, from, released);
        add_pieces(frame, section, stop, end, released);
        if (block.count != 0) {
            set_whole(frame, section, from, stop, block, released);
        } else {
            frame_chunks(frame, section)[from].released = released;
        }
        any_released |= released;
        from = stop;
    }
    return any_released;
}

void loam_frame_buddy_take_one(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    take_pieces(frame, section, chunk, chunk + 1, (struct frame_span){0, 0});
}

bool loam_frame_buddy_take(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to,
                           struct frame_span block)
{
    return take_pieces(frame, section, from, to, block);
}

/* Whether the buddy of the piece at chunk is a free piece of the same order, zone and kind; its index in *buddy. */
static bool buddy_is_free(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk,
                          uint32_t order, uint64_t *buddy)
{
    uint64_t size_chunks = frame_piece_chunks(order);
    uint64_t number = (section->first_chunk + chunk) ^ size_chunks;
    const struct frame_chunk *chunks = frame_chunks(frame, section);

    *buddy = number - section->first_chunk;
    return number >= section->first_chunk && loam_fits(*buddy, size_chunks, section->chunk_count) &&
           frame_zone(frame, frame_chunk_start(section, chunk)) ==
               frame_zone(frame, frame_chunk_start(section, *buddy)) &&
           frame_read(chunks[*buddy].state) == FRAME_CHUNK_FREE && frame_read(chunks[*buddy].owner) == 0 &&
           chunks[*buddy].order == order && chunks[*buddy].released == chunks[chunk].released;
}

/* List a piece, merged with its buddies as far as they are free. */
static void merge_piece(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t order)
{
    uint64_t buddy;

    while (order < LOAM_FRAME_ORDER_MAX && buddy_is_free(frame, section, chunk, order, &buddy)) {
        uint8_t released = frame_chunks(frame, section)[chunk].released;

        unset_free(frame, section, buddy);
        frame_write(frame_chunks(frame, section)[chunk].state, FRAME_CHUNK_INNER);
        chunk = frame_min(chunk, buddy);
        frame_chunks(frame, section)[chunk].released = released;
        order++;
    }
    set_free(frame, section, chunk, order);
}

bool loam_frame_buddy_merge_spare(struct loam_frame *frame, enum loam_frame_zone zone)
{
    uint64_t link = frame->spare[zone];
    const struct frame_section *section;
    uint32_t order;

    if (link == FRAME_LINK_NONE) {
        return false;
    }
    section = frame_section_from_link(frame, link);
    order = frame_chunk_from_link(frame, link)->order;
    unset_free(frame, section, (uint32_t)link);
    merge_piece(frame, section, (uint32_t)link, order);
    return true;
}

/*
 * It stands by unmerged until the next one comes or somebody asks for more than there seems to be: who frees and
 * allocates in turn does not split and merge eleven times a turn.
 */
void loam_frame_buddy_give(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk,
                           uint32_t order)
{
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));

    frame_chunks(frame, section)[chunk].list = FRAME_LIST_NONE;
    /* Not FREE before it is listed: the one that merges now may be its buddy. */
    frame_write(frame_chunks(frame, section)[chunk].state, FRAME_CHUNK_INNER);
    loam_frame_buddy_merge_spare(frame, zone);
    set_free(frame, section, chunk, order);
    frame->spare[zone] = frame_link(section, chunk);
}
