// SPDX-License-Identifier: Apache-2.0
/*
 * A chunk that is managed whole is in the buddy as soon as all its frames are free, and out of the buddy as soon as one
 * is taken. A chunk at a ragged end of a section is PARTIAL for ever: the frames beyond the end are marked as used. So
 * a block of three chunks or more has WHOLE pieces in all but its first and last chunk, and each of them knows the
 * whole block.
 */
#include "allocator/frame/frame_chunk.h"

#include "allocator/frame/frame_buddy.h"
#include "allocator/frame/frame_lists.h"

#include <string.h>

/* --- One chunk ------------------------------------------------------------------------------------------------- */

void loam_frame_chunk_cap_fit(struct frame_chunk *chunk)
{
    uint32_t free_frames = frame_free_frames(chunk), cap = free_frames == 0 ? 0 : frame_log2_floor(free_frames);

    if (chunk->fit > cap) {
        chunk->fit = (uint8_t)cap;
    }
}

void loam_frame_chunk_make_partial(const struct frame_spot *spot)
{
    frame_bits_zero(spot->map);
    spot->chunk->fit = FRAME_FITS - 1;
    shared_store(spot->chunk->list, FRAME_LIST_NONE);
    shared_store(spot->chunk->count, LOAM_FRAME_CHUNK_FRAMES * FRAME_COUNT_FREE);
    shared_store(spot->chunk->state, FRAME_CHUNK_PARTIAL);
}

/* Take count frames, fewer than the whole, from offset on. ends: the block's last frame is among them. */
static bool take_part(struct loam_frame *frame, const struct frame_spot *spot, uint32_t offset, uint32_t count,
                      bool ends)
{
    if (spot->chunk->state != FRAME_CHUNK_PARTIAL) {
        loam_frame_buddy_take_one(frame, spot);
        loam_frame_chunk_make_partial(spot);
    }
    frame_count(spot->chunk, frame_bits_take(spot->map, offset, count, ends));
    loam_frame_chunk_cap_fit(spot->chunk);
    loam_frame_lists_file(frame, frame_lists_of(frame, spot), spot);
    return spot->chunk->released;
}

uint32_t loam_frame_chunk_freed_fit_slowly(const struct frame_map *map, uint32_t offset, uint32_t count)
{
    uint32_t order;

    if (!loam_is_power_of_two(count) || !loam_is_aligned(offset, count)) {
        return FRAME_FITS - 1;
    }
    order = (uint32_t)frame_max(6, frame_log2_floor(count));
    while (order < FRAME_FITS - 1 && frame_bits_all_free(map, offset & ~((2u << order) - 1), 2u << order)) {
        order++;
    }
    return order;
}

/* Free a block, or the part of one that lies in the chunk, and file the chunk anew. */
static void release_part(struct loam_frame *frame, const struct frame_spot *spot, uint32_t offset, uint32_t count)
{
    struct frame_chunk *this = spot->chunk;
    uint32_t free_frames;

    frame_count(this, frame_bits_release(spot->map, offset, count));
    free_frames = frame_free_frames(this);
    if (free_frames == LOAM_FRAME_CHUNK_FRAMES) {
        if (this->list != FRAME_LIST_NONE) {
            loam_frame_lists_remove(frame, frame_lists_of(frame, spot), spot);
        }
        loam_frame_buddy_give(frame, spot, FRAME_CHUNK_ORDER);
        return;
    }
    this->fit =
        (uint8_t)frame_max(free_frames == count ? 0 : this->fit, loam_frame_chunk_freed_fit(spot->map, offset, count));
    loam_frame_chunk_cap_fit(this);
    loam_frame_lists_file(frame, frame_lists_of(frame, spot), spot);
}

/* --- Blocks ---------------------------------------------------------------------------------------------------- */

/*
 * A block, cut at the borders of chunks: frames of its first chunk, whole chunks, frames of its last chunk. Head and
 * tail are empty where the block starts and ends at borders; a block inside one chunk is all head.
 */
struct cut {
    uint64_t head; /* the chunk */
    uint32_t head_offset;
    uint32_t head_frames;
    uint64_t from; /* whole chunks [from, to) */
    uint64_t to;   /* the chunk of the tail */
    uint32_t tail_frames;
};

static struct cut cut_block(const struct frame_section *section, uint64_t start, uint64_t count)
{
    struct cut cut = {.head = frame_chunk_index(section, start), .head_offset = frame_offset(start)};
    uint64_t room = LOAM_FRAME_CHUNK_FRAMES - cut.head_offset;

    if (cut.head_offset != 0 || count < room) {
        cut.head_frames = (uint32_t)frame_min(room, count);
    }
    count -= cut.head_frames;
    cut.from = cut.head + (cut.head_frames != 0);
    cut.to = cut.from + count / LOAM_FRAME_CHUNK_FRAMES;
    cut.tail_frames = (uint32_t)(count % LOAM_FRAME_CHUNK_FRAMES);
    return cut;
}

void loam_frame_chunk_mark_pressure(struct loam_frame *frame)
{
    for (uint32_t zone = 0; zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        uint64_t free_frames = frame->free_frames[zone];

        if (free_frames < frame->watermarks[zone].low_frames) {
            shared_store(frame->pressure[zone], 1);
        } else if (free_frames >= frame->watermarks[zone].high_frames) {
            shared_store(frame->pressure[zone], 0);
        }
    }
}

struct frame_pressure loam_frame_chunk_pressure(const struct loam_frame *frame)
{
    return (struct frame_pressure){{frame->pressure[0], frame->pressure[1]}};
}

void loam_frame_chunk_reset_pressure(struct loam_frame *frame, struct frame_pressure pressure)
{
    shared_store(frame->pressure[0], pressure.zone[0]);
    shared_store(frame->pressure[1], pressure.zone[1]);
    loam_frame_chunk_mark_pressure(frame);
}

void loam_frame_chunk_count(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count,
                            bool freed)
{
    uint64_t low = frame_dma32_part(frame, start, count);
    uint64_t sign = freed ? 1 : UINT64_MAX;
    uint64_t *free_frames = section->use == FRAME_OPEN ? frame->free_frames : frame->withheld_frames;

    section->free_frames += sign * count;
    free_frames[LOAM_FRAME_ZONE_DMA32] += sign * low;
    free_frames[LOAM_FRAME_ZONE_NORMAL] += sign * (count - low);
    loam_frame_chunk_mark_pressure(frame);
    if (freed) {
        section->free_top = frame_max(section->free_top, start + count);
    }
}

bool loam_frame_chunk_take(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    struct cut cut = cut_block(section, start, count);
    struct frame_spot spot;
    bool released = false;

    if (cut.head_frames != 0) {
        spot = frame_spot_at(frame, section, cut.head);
        released |= take_part(frame, &spot, cut.head_offset, cut.head_frames, cut.head_frames == count);
    }
    if (cut.from < cut.to) {
        released |= loam_frame_buddy_take(frame, section, cut.from, cut.to, (struct frame_span){start, count});
    }
    if (cut.tail_frames != 0) {
        spot = frame_spot_at(frame, section, cut.to);
        released |= take_part(frame, &spot, 0, cut.tail_frames, true);
    }
    loam_frame_chunk_count(frame, section, start, count, false);
    return released;
}

void loam_frame_chunk_release(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    struct cut cut = cut_block(section, start, count);
    struct frame_spot spot;

    if (cut.head_frames != 0) {
        spot = frame_spot_at(frame, section, cut.head);
        release_part(frame, &spot, cut.head_offset, cut.head_frames);
    }
    while (cut.from < cut.to) {
        uint64_t size_chunks;

        spot = frame_spot_at(frame, section, cut.from);
        size_chunks = frame_spot_chunks(&spot);
        loam_frame_buddy_give(frame, &spot, FRAME_CHUNK_ORDER + frame_log2_floor(size_chunks));
        cut.from += size_chunks;
    }
    if (cut.tail_frames != 0) {
        spot = frame_spot_at(frame, section, cut.to);
        release_part(frame, &spot, 0, cut.tail_frames);
    }
    loam_frame_chunk_count(frame, section, start, count, true);
}

void loam_frame_chunk_release_within(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                     uint32_t count)
{
    release_part(frame, spot, frame_offset(start), count);
    loam_frame_chunk_count(frame, spot->section, start, count, true);
}

/* --- Which block holds a frame --------------------------------------------------------------------------------- */

/* The block of a WHOLE piece. */
static struct frame_span whole_block(const struct frame_spot *spot)
{
    if (shared_load(spot->chunk->owner) != 0) {
        return (struct frame_span){spot->start, LOAM_FRAME_CHUNK_FRAMES};
    }
    return (struct frame_span){spot->start - spot->chunk->before_frames, spot->chunk->block_frames};
}

/* Where the block that holds the first frame of the chunk begins: that frame, or one of the chunks before. */
static uint64_t start_before(const struct loam_frame *frame, const struct frame_spot *spot)
{
    uint64_t border = spot->start;
    struct frame_spot head;
    uint8_t state;

    if (spot->index == 0) {
        return border;
    }
    head = loam_frame_spot_head(frame, spot->section, spot->index - 1);
    state = shared_load(head.chunk->state);
    if (state == FRAME_CHUNK_WHOLE) {
        struct frame_span block = whole_block(&head);

        return block.start + block.count > border ? block.start : border;
    }
    if (shared_load(head.chunk->owner) != 0 && (shared_load(head.chunk->crossed) & FRAME_LEFT) != FRAME_LEFT) {
        /* Its owner may be writing the bits there; no block comes out of it, whatever they look like. */
        return border;
    }
    return state == FRAME_CHUNK_PARTIAL
               ? head.start + frame_bits_previous_end(head.map, FRAME_BITS_ENDS, LOAM_FRAME_CHUNK_FRAMES)
               : border;
}

uint8_t loam_frame_chunk_crossed(const struct loam_frame *frame, const struct frame_spot *spot)
{
    struct frame_word top = frame_bits_read(spot->map, FRAME_MAP_WORDS - 1);
    bool entered = start_before(frame, spot) != spot->start;
    bool left = (top.allocated & ~top.last) >> 63;

    return (uint8_t)((entered ? FRAME_ENTERED : 0) | (left ? FRAME_LEFT : 0));
}

/* Where the block that goes on behind the chunk ends. */
static uint64_t end_behind(const struct loam_frame *frame, const struct frame_spot *spot)
{
    struct frame_spot next;

    if (spot->index + 1 == spot->section->chunk_count) {
        /* Only where an owner freed the block in between: it could not be stopped. */
        return spot->start + LOAM_FRAME_CHUNK_FRAMES;
    }
    next = frame_spot_at(frame, spot->section, spot->index + 1);
    if (shared_load(next.chunk->state) == FRAME_CHUNK_WHOLE) {
        struct frame_span block = whole_block(&next);

        return block.start + block.count;
    }
    return next.start + frame_bits_next(next.map, FRAME_BITS_LAST, 0) + 1;
}

bool loam_frame_chunk_block(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t pfn,
                            struct frame_span *block)
{
    uint8_t state = shared_load(spot->chunk->state);
    uint32_t first, last, offset = frame_offset(pfn);

    *block = (struct frame_span){0, 0};
    if (state == FRAME_CHUNK_WHOLE) {
        *block = whole_block(spot);
        return true;
    }
    if (state != FRAME_CHUNK_PARTIAL || frame_bits_at(spot->map, FRAME_BITS_FREE, offset)) {
        return false;
    }
    first = frame_bits_previous_end(spot->map, FRAME_BITS_ENDS, offset);
    last = frame_bits_next(spot->map, FRAME_BITS_LAST, offset);
    block->start = first == 0 ? start_before(frame, spot) : spot->start + first;
    block->count = (last < LOAM_FRAME_CHUNK_FRAMES ? spot->start + last + 1 : end_behind(frame, spot)) - block->start;
    return true;
}

/* --- Tags ------------------------------------------------------------------------------------------------------ */

/* The piece that holds the last frame of the block. */
static struct frame_spot end_of(const struct loam_frame *frame, struct frame_section *section, struct frame_span block)
{
    return loam_frame_spot_head(frame, section, frame_chunk_index(section, block.start + block.count - 1));
}

enum loam_frame_tag loam_frame_chunk_tag(const struct loam_frame *frame, struct frame_section *section,
                                         struct frame_span block)
{
    struct frame_spot spot = end_of(frame, section, block);
    uint32_t offset = frame_offset(block.start + block.count - 1);

    if (shared_load(spot.chunk->state) == FRAME_CHUNK_WHOLE) {
        return shared_load(spot.chunk->owner) == 0 && spot.chunk->tag != 0 ? LOAM_FRAME_TAG_SLAB : LOAM_FRAME_TAG_NONE;
    }
    return (frame_bits_read(spot.map, offset / 64).allocated >> (offset % 64)) & 1 ? LOAM_FRAME_TAG_NONE
                                                                                   : LOAM_FRAME_TAG_SLAB;
}

void loam_frame_chunk_set_tag(struct loam_frame *frame, struct frame_section *section, struct frame_span block,
                              enum loam_frame_tag tag)
{
    struct frame_spot spot = end_of(frame, section, block);
    uint32_t offset = frame_offset(block.start + block.count - 1);
    uint64_t *bits = &spot.map->word[offset / 64].allocated, bit = UINT64_C(1) << offset % 64;

    if (spot.chunk->state == FRAME_CHUNK_WHOLE) {
        spot.chunk->tag = tag == LOAM_FRAME_TAG_SLAB ? FRAME_YES : 0;
    } else if (((*bits & bit) == 0) != (tag == LOAM_FRAME_TAG_SLAB)) {
        shared_store(*bits, *bits ^ bit);
        frame_count(spot.chunk, tag == LOAM_FRAME_TAG_SLAB ? FRAME_COUNT_TAG : -FRAME_COUNT_TAG);
    }
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

/* A chunk at a ragged end: the frames outside [start, end) are used for ever, each a block of its own. */
static void prepare_edge(struct loam_frame *frame, struct frame_section *section, uint64_t index)
{
    struct frame_spot spot = frame_spot_at(frame, section, index);
    uint32_t from = (uint32_t)(frame_max(section->start, spot.start) - spot.start);
    uint32_t to = (uint32_t)(frame_min(section->end, spot.start + LOAM_FRAME_CHUNK_FRAMES) - spot.start);

    memset(spot.map, 0xff, sizeof *spot.map);
    frame_bits_release(spot.map, from, to - from);
    spot.chunk->count = frame_bits_count(spot.map);
    spot.chunk->state = FRAME_CHUNK_PARTIAL;
    spot.chunk->fit = FRAME_FITS - 1;
    spot.chunk->list = FRAME_LIST_NONE;
    loam_frame_chunk_cap_fit(spot.chunk);
}

/* The chunks [*from, *to) that are managed whole. */
static void whole_chunks(const struct frame_section *section, uint64_t *from, uint64_t *to)
{
    *from = frame_offset(section->start) != 0;
    *to = section->chunk_count;
    if (frame_offset(section->end) != 0 && *from < *to) {
        --*to;
    }
}

void loam_frame_chunk_prepare(struct loam_frame *frame, struct frame_section *section)
{
    uint64_t from, to;

    whole_chunks(section, &from, &to);
    memset(frame_chunks(frame, section), 0, section->chunk_count * sizeof(struct frame_chunk));
    if (from > 0) {
        prepare_edge(frame, section, 0);
    }
    if (to < section->chunk_count && section->chunk_count > from) {
        prepare_edge(frame, section, to);
    }
}

static void file_edge(struct loam_frame *frame, struct frame_section *section, uint64_t index)
{
    struct frame_spot spot = frame_spot_at(frame, section, index);

    loam_frame_lists_file(frame, frame_lists_of(frame, &spot), &spot);
}

void loam_frame_chunk_add(struct loam_frame *frame, struct frame_section *section)
{
    uint64_t from, to;

    whole_chunks(section, &from, &to);
    section->free_frames = 0;
    section->free_top = section->end;
    loam_frame_chunk_count(frame, section, section->start, section->end - section->start, true);
    if (from > 0) {
        file_edge(frame, section, 0);
    }
    if (to < section->chunk_count && section->chunk_count > from) {
        file_edge(frame, section, to);
    }
    loam_frame_buddy_add(frame, section, from, to);
}

void loam_frame_chunk_retire(struct loam_frame *frame, struct frame_section *section)
{
    uint64_t index = 0;

    loam_frame_chunk_count(frame, section, section->start, section->end - section->start, false);
    while (index < section->chunk_count) {
        struct frame_spot spot = frame_spot_at(frame, section, index);

        index += frame_spot_chunks(&spot);
        if (spot.chunk->state == FRAME_CHUNK_PARTIAL) {
            loam_frame_lists_remove(frame, frame_lists_of(frame, &spot), &spot);
        } else {
            loam_frame_buddy_remove(frame, &spot);
        }
    }
}
