// SPDX-License-Identifier: Apache-2.0
/*
 * A chunk that is managed whole is in the buddy as soon as all its frames are free, and out of the buddy as soon as one
 * is taken. A chunk at a ragged end of a section is PARTIAL for ever: the frames beyond the end are marked as used. So
 * a block of three chunks or more has WHOLE pieces in all but its first and last chunk, and each of them knows the
 * whole block.
 */
#include "allocator/frame_chunk.h"

#include "allocator/check.h"

#include <string.h>

/* --- Lists ----------------------------------------------------------------------------------------------------- */

static struct frame_chunk *chunk_from_link(const struct loam_frame *frame, uint64_t link)
{
    return &frame_chunks(frame, &frame_sections(frame)[link >> 32])[(uint32_t)link];
}

static void list_push(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t list)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));
    uint64_t *head = &frame->list[zone][list];
    uint64_t link = frame_link(section, chunk);

    this->previous = FRAME_LINK_NONE;
    this->next = *head;
    this->list = (uint8_t)list;
    if (*head != FRAME_LINK_NONE) {
        chunk_from_link(frame, *head)->previous = link;
    }
    *head = link;
    frame->list_mask[zone][list / 64] |= UINT64_C(1) << (list % 64);
}

static void list_remove(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));
    uint32_t list = this->list;

    if (this->next != FRAME_LINK_NONE) {
        chunk_from_link(frame, this->next)->previous = this->previous;
    }
    if (this->previous != FRAME_LINK_NONE) {
        chunk_from_link(frame, this->previous)->next = this->next;
    } else {
        frame->list[zone][list] = this->next;
        if (this->next == FRAME_LINK_NONE) {
            frame->list_mask[zone][list / 64] &= ~(UINT64_C(1) << (list % 64));
        }
    }
    this->list = FRAME_LIST_NONE;
}

/* Put a partly used chunk on the list that its free_frames and fit ask for. */
static void file_partial(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint32_t list = this->free_frames > 0 ? frame_partial_list(this) : FRAME_LIST_NONE;

    if (list == this->list) {
        return;
    }
    if (this->list != FRAME_LIST_NONE) {
        list_remove(frame, section, chunk);
    }
    if (list != FRAME_LIST_NONE) {
        list_push(frame, section, chunk, list);
    }
}

/* No block is larger than the free frames allow. */
static void cap_fit(struct frame_chunk *chunk)
{
    uint32_t cap = chunk->free_frames == 0 ? 0 : frame_log2_floor(chunk->free_frames);

    if (chunk->fit > cap) {
        chunk->fit = (uint8_t)cap;
    }
}

/* --- The buddy of whole chunks --------------------------------------------------------------------------------- */

uint64_t loam_frame_chunk_head(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    const struct frame_chunk *chunks = frame_chunks(frame, section);
    uint64_t number = section->first_chunk + chunk;

    for (uint32_t step = 1; chunks[chunk].state == FRAME_CHUNK_INNER; step++) {
        uint64_t head = loam_align_down(number, UINT64_C(1) << step);

        CHECK(step < FRAME_BIG_ORDERS && head >= section->first_chunk);
        chunk = head - section->first_chunk;
    }
    return chunk;
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

    this->state = FRAME_CHUNK_FREE;
    this->order = (uint8_t)order;
    list_push(frame, section, chunk, FRAME_LIST_FREE + order - FRAME_CHUNK_ORDER);
}

/* Make free blocks of the chunks [from, to), none of which has a free buddy outside. */
static void set_free_range(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint32_t order = piece_order(frame, section, from, to - from);

        set_free(frame, section, from, order);
        from += frame_piece_chunks(order);
    }
}

static void set_whole_range(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to,
                            struct frame_span block)
{
    while (from < to) {
        struct frame_chunk *this = &frame_chunks(frame, section)[from];
        uint32_t order = piece_order(frame, section, from, to - from);

        this->block_start = block.start;
        this->block_frames = block.count;
        this->state = FRAME_CHUNK_WHOLE;
        this->order = (uint8_t)order;
        this->tag = LOAM_FRAME_TAG_NONE;
        this->list = FRAME_LIST_NONE;
        from += frame_piece_chunks(order);
    }
}

/* Take a free piece off its list. */
static void unset_free(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));

    list_remove(frame, section, chunk);
    frame_chunks(frame, section)[chunk].state = FRAME_CHUNK_INNER;
    if (frame->spare[zone] == frame_link(section, chunk)) {
        frame->spare[zone] = FRAME_LINK_NONE;
    }
}

/* Take the chunks [from, to), which are free, out of the buddy; all are INNER then. */
static void buddy_take(struct loam_frame *frame, const struct frame_section *section, uint64_t from, uint64_t to)
{
    struct frame_chunk *chunks = frame_chunks(frame, section);

    frame->free_chunks -= to - from;
    while (from < to) {
        uint64_t head = loam_frame_chunk_head(frame, section, from);
        uint64_t end = head + frame_piece_chunks(chunks[head].order);

        CHECK(chunks[head].state == FRAME_CHUNK_FREE);
        unset_free(frame, section, head);
        set_free_range(frame, section, head, from);
        if (end > to) {
            set_free_range(frame, section, to, end);
        }
        from = end;
    }
}

/* Whether the buddy of the piece at chunk is a free piece of the same order and zone; its index in *buddy. */
static bool buddy_is_free(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk,
                          uint32_t order, uint64_t *buddy)
{
    uint64_t size_chunks = frame_piece_chunks(order);
    uint64_t number = (section->first_chunk + chunk) ^ size_chunks;
    const struct frame_chunk *other;

    *buddy = number - section->first_chunk;
    if (number < section->first_chunk || !loam_fits(*buddy, size_chunks, section->chunk_count) ||
        frame_zone(frame, frame_chunk_start(section, chunk)) != frame_zone(frame, frame_chunk_start(section, *buddy))) {
        return false;
    }
    other = &frame_chunks(frame, section)[*buddy];
    return other->state == FRAME_CHUNK_FREE && other->order == order;
}

/* List a piece, merged with its buddies as far as they are free. */
static void merge_piece(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t order)
{
    uint64_t buddy;

    while (order < LOAM_FRAME_ORDER_MAX && buddy_is_free(frame, section, chunk, order, &buddy)) {
        unset_free(frame, section, buddy);
        frame_chunks(frame, section)[chunk].state = FRAME_CHUNK_INNER;
        chunk = frame_min(chunk, buddy);
        order++;
    }
    set_free(frame, section, chunk, order);
}

bool loam_frame_chunk_merge_spare(struct loam_frame *frame, enum loam_frame_zone zone)
{
    uint64_t link = frame->spare[zone];
    const struct frame_section *section;
    uint32_t order;

    if (link == FRAME_LINK_NONE) {
        return false;
    }
    section = &frame_sections(frame)[link >> 32];
    order = chunk_from_link(frame, link)->order;
    unset_free(frame, section, (uint32_t)link);
    merge_piece(frame, section, (uint32_t)link, order);
    return true;
}

/*
 * Put a piece of chunks into the buddy. It stands by unmerged until the next one comes or somebody asks for more than
 * there seems to be: who frees and allocates in turn does not split and merge eleven times a turn.
 */
static void buddy_give(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t order)
{
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));

    frame->free_chunks += frame_piece_chunks(order);
    loam_frame_chunk_merge_spare(frame, zone);
    set_free(frame, section, chunk, order);
    frame->spare[zone] = frame_link(section, chunk);
}

/* --- Inside a chunk -------------------------------------------------------------------------------------------- */

static void make_partial(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    memset(frame_map(frame, section, chunk), 0, sizeof(struct frame_map));
    this->state = FRAME_CHUNK_PARTIAL;
    this->free_frames = LOAM_FRAME_CHUNK_FRAMES;
    this->fit = FRAME_FITS - 1;
    this->list = FRAME_LIST_NONE;
}

/* Take count frames, fewer than the whole, from offset on. ends: the block's last frame is among them. */
static void take_part(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t offset,
                      uint32_t count, bool ends)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    if (this->state != FRAME_CHUNK_PARTIAL) {
        buddy_take(frame, section, chunk, chunk + 1);
        make_partial(frame, section, chunk);
    }
    frame_bits_take(frame_map(frame, section, chunk), offset, count, ends);
    this->free_frames = (uint16_t)(this->free_frames - count);
    cap_fit(this);
    file_partial(frame, section, chunk);
}

/* The order of the largest naturally aligned free block that the frames just freed are part of, or a bound on it. */
static uint32_t freed_fit(const struct frame_map *map, uint32_t offset, uint32_t count)
{
    uint32_t order;

    if (!loam_is_power_of_two(count) || !loam_is_aligned(offset, count)) {
        return FRAME_FITS - 1;
    }
    for (order = frame_log2_floor(count); order < FRAME_FITS - 1; order++) {
        uint32_t size = 2u << order;

        if (!frame_bits_all_free(map, offset & ~(size - 1), size)) {
            break;
        }
    }
    return order;
}

static void release_part(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t offset,
                         uint32_t count)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct frame_map *map = frame_map(frame, section, chunk);

    frame_bits_release(map, offset, count);
    this->fit = (uint8_t)frame_max(this->free_frames == 0 ? 0 : this->fit, freed_fit(map, offset, count));
    this->free_frames = (uint16_t)(this->free_frames + count);
    if (this->free_frames == LOAM_FRAME_CHUNK_FRAMES) {
        if (this->list != FRAME_LIST_NONE) {
            list_remove(frame, section, chunk);
        }
        buddy_give(frame, section, chunk, FRAME_CHUNK_ORDER);
        return;
    }
    cap_fit(this);
    file_partial(frame, section, chunk);
}

void loam_frame_chunk_lower_fit(struct loam_frame *frame, struct frame_section *section, uint64_t chunk, uint32_t order)
{
    CHECK(order > 0);
    frame_chunks(frame, section)[chunk].fit = (uint8_t)(order - 1);
    file_partial(frame, section, chunk);
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

static void count_free(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count,
                       bool freed)
{
    uint64_t low = frame_dma32_part(frame, start, count);
    uint64_t sign = freed ? 1 : UINT64_MAX;

    section->free_frames += sign * count;
    frame->free_frames[LOAM_FRAME_ZONE_DMA32] += sign * low;
    frame->free_frames[LOAM_FRAME_ZONE_NORMAL] += sign * (count - low);
}

void loam_frame_chunk_take(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    struct cut cut = cut_block(section, start, count);

    if (cut.head_frames != 0) {
        take_part(frame, section, cut.head, cut.head_offset, cut.head_frames, cut.head_frames == count);
    }
    if (cut.from < cut.to) {
        buddy_take(frame, section, cut.from, cut.to);
        set_whole_range(frame, section, cut.from, cut.to, (struct frame_span){start, count});
    }
    if (cut.tail_frames != 0) {
        take_part(frame, section, cut.to, 0, cut.tail_frames, true);
    }
    count_free(frame, section, start, count, false);
}

void loam_frame_chunk_release(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    struct cut cut = cut_block(section, start, count);

    if (cut.head_frames != 0) {
        release_part(frame, section, cut.head, cut.head_offset, cut.head_frames);
    }
    while (cut.from < cut.to) {
        uint32_t order = frame_chunks(frame, section)[cut.from].order;

        buddy_give(frame, section, cut.from, order);
        cut.from += frame_piece_chunks(order);
    }
    if (cut.tail_frames != 0) {
        release_part(frame, section, cut.to, 0, cut.tail_frames);
    }
    section->free_top = frame_max(section->free_top, start + count);
    count_free(frame, section, start, count, true);
}

/* Where the block that holds the first frame of chunk begins, which is a frame of the chunk before, or that frame. */
static uint64_t start_before(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    uint64_t border = frame_chunk_start(section, chunk);
    const struct frame_chunk *before;
    uint64_t head;

    if (chunk == 0) {
        return border;
    }
    head = loam_frame_chunk_head(frame, section, chunk - 1);
    before = &frame_chunks(frame, section)[head];
    if (before->state == FRAME_CHUNK_WHOLE && before->block_start + before->block_frames > border) {
        return before->block_start;
    }
    if (before->state == FRAME_CHUNK_PARTIAL) {
        return frame_chunk_start(section, head) +
               frame_bits_previous_end(frame_map(frame, section, head), FRAME_BITS_ENDS, LOAM_FRAME_CHUNK_FRAMES);
    }
    return border;
}

/* Where the block that goes on into chunk ends. */
static uint64_t end_behind(const struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

    CHECK(chunk < section->chunk_count);
    if (this->state == FRAME_CHUNK_WHOLE) {
        return this->block_start + this->block_frames;
    }
    return frame_chunk_start(section, chunk) + frame_bits_next(frame_map(frame, section, chunk), FRAME_BITS_LAST, 0) +
           1;
}

bool loam_frame_chunk_block(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn,
                            struct frame_span *block)
{
    uint64_t chunk = loam_frame_chunk_head(frame, section, frame_chunk_index(section, pfn));
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    const struct frame_map *map = frame_map(frame, section, chunk);
    uint64_t base = frame_chunk_start(section, chunk);
    uint32_t first, last;

    if (this->state == FRAME_CHUNK_WHOLE) {
        *block = (struct frame_span){this->block_start, this->block_frames};
        return true;
    }
    if (this->state == FRAME_CHUNK_FREE || frame_bits_at(map, FRAME_BITS_FREE, frame_offset(pfn))) {
        *block = (struct frame_span){0, 0};
        return false;
    }
    first = frame_bits_previous_end(map, FRAME_BITS_ENDS, frame_offset(pfn));
    last = frame_bits_next(map, FRAME_BITS_LAST, frame_offset(pfn));
    block->start = first == 0 ? start_before(frame, section, chunk) : base + first;
    block->count =
        (last < LOAM_FRAME_CHUNK_FRAMES ? base + last + 1 : end_behind(frame, section, chunk + 1)) - block->start;
    return true;
}

enum loam_frame_tag loam_frame_chunk_tag(const struct loam_frame *frame, const struct frame_section *section,
                                         struct frame_span block)
{
    uint64_t last = block.start + block.count - 1;
    uint64_t chunk = loam_frame_chunk_head(frame, section, frame_chunk_index(section, last));
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint32_t offset = frame_offset(last);

    if (this->state == FRAME_CHUNK_WHOLE) {
        return (enum loam_frame_tag)this->tag;
    }
    return (frame_map(frame, section, chunk)->allocated[offset / 64] >> (offset % 64)) & 1 ? LOAM_FRAME_TAG_NONE
                                                                                           : LOAM_FRAME_TAG_SLAB;
}

void loam_frame_chunk_set_tag(struct loam_frame *frame, const struct frame_section *section, struct frame_span block,
                              enum loam_frame_tag tag)
{
    uint64_t last = block.start + block.count - 1;
    uint64_t chunk = loam_frame_chunk_head(frame, section, frame_chunk_index(section, last));
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint64_t *word = &frame_map(frame, section, chunk)->allocated[frame_offset(last) / 64];
    uint64_t bit = UINT64_C(1) << (frame_offset(last) % 64);

    if (this->state == FRAME_CHUNK_WHOLE) {
        this->tag = (uint8_t)tag;
    } else {
        *word = tag == LOAM_FRAME_TAG_SLAB ? *word & ~bit : *word | bit;
    }
}

/* --- Walks ----------------------------------------------------------------------------------------------------- */

static uint64_t walk_up(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn,
                        enum frame_bits_kind kind)
{
    uint8_t whole = kind == FRAME_BITS_FREE ? FRAME_CHUNK_FREE : FRAME_CHUNK_WHOLE;

    while (pfn < section->end) {
        uint64_t chunk = loam_frame_chunk_head(frame, section, frame_chunk_index(section, pfn));
        const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

        if (this->state == whole) {
            return pfn;
        }
        if (this->state == FRAME_CHUNK_PARTIAL) {
            uint32_t offset = frame_bits_next(frame_map(frame, section, chunk), kind, frame_offset(pfn));

            pfn = frame_chunk_start(section, chunk) + offset;
            if (offset < LOAM_FRAME_CHUNK_FRAMES) {
                break;
            }
        } else {
            pfn = frame_chunk_start(section, chunk + frame_piece_chunks(this->order));
        }
    }
    /* Frames beyond the end are marked as used. */
    return frame_min(pfn, section->end);
}

static uint64_t walk_down(const struct loam_frame *frame, const struct frame_section *section, uint64_t end,
                          enum frame_bits_kind kind)
{
    uint8_t whole = kind == FRAME_BITS_FREE ? FRAME_CHUNK_FREE : FRAME_CHUNK_WHOLE;

    while (end > section->start) {
        uint64_t chunk = loam_frame_chunk_head(frame, section, frame_chunk_index(section, end - 1));
        const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
        uint64_t base = frame_chunk_start(section, chunk);

        if (this->state == whole) {
            return end;
        }
        if (this->state == FRAME_CHUNK_PARTIAL && (kind == FRAME_BITS_USED || this->free_frames > 0)) {
            uint32_t offset = frame_bits_previous_end(frame_map(frame, section, chunk), kind, (uint32_t)(end - base));

            end = base + offset;
            if (offset > 0) {
                break;
            }
        } else {
            end = base;
        }
    }
    /* Frames below the start are marked as used. */
    return frame_max(end, section->start);
}

uint64_t loam_frame_chunk_next_free(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn)
{
    return walk_up(frame, section, pfn, FRAME_BITS_FREE);
}

uint64_t loam_frame_chunk_next_used(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn)
{
    return walk_up(frame, section, pfn, FRAME_BITS_USED);
}

uint64_t loam_frame_chunk_previous_free_end(const struct loam_frame *frame, const struct frame_section *section,
                                            uint64_t end)
{
    return walk_down(frame, section, end, FRAME_BITS_FREE);
}

uint64_t loam_frame_chunk_previous_used_end(const struct loam_frame *frame, const struct frame_section *section,
                                            uint64_t end)
{
    return walk_down(frame, section, end, FRAME_BITS_USED);
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

/* A chunk at a ragged end: the frames outside [start, end) are used for ever, each a block of its own. */
static void init_edge(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct frame_map *map = frame_map(frame, section, chunk);
    uint64_t base = frame_chunk_start(section, chunk);
    uint32_t from = (uint32_t)(frame_max(section->start, base) - base);
    uint32_t to = (uint32_t)(frame_min(section->end, base + LOAM_FRAME_CHUNK_FRAMES) - base);

    memset(map, 0xff, sizeof *map);
    frame_bits_release(map, from, to - from);
    this->state = FRAME_CHUNK_PARTIAL;
    this->free_frames = (uint16_t)(to - from);
    this->fit = FRAME_FITS - 1;
    this->list = FRAME_LIST_NONE;
    cap_fit(this);
    file_partial(frame, section, chunk);
}

void loam_frame_chunk_init(struct loam_frame *frame, struct frame_section *section)
{
    uint64_t from = 0, to = section->chunk_count;

    memset(frame_chunks(frame, section), 0, section->chunk_count * sizeof(struct frame_chunk));
    section->free_frames = 0;
    section->free_top = section->end;
    count_free(frame, section, section->start, section->end - section->start, true);
    if (frame_offset(section->start) != 0) {
        init_edge(frame, section, from++);
    }
    if (frame_offset(section->end) != 0 && from < to) {
        init_edge(frame, section, --to);
    }
    frame->free_chunks += to - from;
    set_free_range(frame, section, from, to);
}

void loam_frame_chunk_retire(struct loam_frame *frame, struct frame_section *section)
{
    struct frame_chunk *chunks = frame_chunks(frame, section);
    uint64_t chunk = 0;

    count_free(frame, section, section->start, section->end - section->start, false);
    while (chunk < section->chunk_count) {
        bool piece = chunks[chunk].state == FRAME_CHUNK_FREE;
        uint64_t size_chunks = piece ? frame_piece_chunks(chunks[chunk].order) : 1;

        if (piece) {
            unset_free(frame, section, chunk);
            frame->free_chunks -= size_chunks;
        } else {
            list_remove(frame, section, chunk);
        }
        chunk += size_chunks;
    }
}
