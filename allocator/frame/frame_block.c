// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_block.h"

#include "allocator/check.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_search.h"

/* --- Requests -------------------------------------------------------------------------------------------------- */

uint64_t loam_frame_block_budget(const struct loam_frame *frame)
{
    uint64_t free_frames = frame->free_frames[LOAM_FRAME_ZONE_DMA32];

    return free_frames > frame->dma32_reserve_frames ? free_frames - frame->dma32_reserve_frames : 0;
}

/*
 * The lowest frame that a request which may not enter the DMA32 reserve may start at; 0: any. Of a block that starts at
 * s below 4 GiB, min(zone_end - s, count) frames count, and no more than the budget of them may.
 */
static uint64_t reserve_floor(const struct loam_frame *frame, uint64_t count)
{
    uint64_t budget = loam_frame_block_budget(frame);

    return frame->dma32_reserve_frames == 0 || budget >= count ? 0
                                                               : frame->zone_end - frame_min(budget, frame->zone_end);
}

static bool request_valid(const struct loam_frame *frame, const struct loam_frame_request *request)
{
    const uint32_t kinds = LOAM_FRAME_BACKED | LOAM_FRAME_RELEASED;
    uint64_t count = request->count_frames, align = request->align_frames, boundary = request->boundary_frames;
    uint64_t at = request->at.value;

    if (count == 0 || count > LOAM_FRAME_COUNT_MAX ||
        (align != 0 && (!loam_is_power_of_two(align) || align > LOAM_FRAME_ALIGN_MAX)) ||
        (boundary != 0 && (!loam_is_power_of_two(boundary) || boundary < count)) ||
        (request->flags & ~(LOAM_FRAME_AT | LOAM_FRAME_IN_SECTION | kinds)) != 0 || (request->flags & kinds) == kinds) {
        return false;
    }
    /* What would have no effect. */
    if (((request->flags & LOAM_FRAME_AT) == 0 && at != 0) ||
        ((request->flags & LOAM_FRAME_IN_SECTION) == 0 && request->section != 0)) {
        return false;
    }
    if ((request->flags & LOAM_FRAME_AT) == 0) {
        return true;
    }
    return loam_fits(at, count, frame->pfn_end) && (align == 0 || loam_is_aligned(at, align)) &&
           (boundary == 0 || loam_align_down(at, boundary) == loam_align_down(at + count - 1, boundary)) &&
           (request->limit.value == 0 || loam_fits(at, count, request->limit.value));
}

static uint32_t request_view(const struct loam_frame_request *request)
{
    return (request->flags & LOAM_FRAME_BACKED) != 0     ? FRAME_VIEW_BACKED
           : (request->flags & LOAM_FRAME_RELEASED) != 0 ? FRAME_VIEW_RELEASED
                                                         : FRAME_VIEW_SHARED;
}

/* LOAM_FRAME_AT: the one place, if it is free. */
static enum loam_error check_at(struct loam_frame *frame, const struct loam_frame_request *request,
                                struct frame_section **section)
{
    uint64_t at = request->at.value, end = at + request->count_frames;
    struct frame_spot spot;

    if (!frame_spot_find(frame, at, &spot) || end > spot.section->end) {
        return LOAM_ERROR_NOT_FOUND;
    }
    *section = spot.section;
    if ((request->flags & LOAM_FRAME_IN_SECTION) != 0 && (*section)->id != request->section) {
        return LOAM_ERROR_INVALID;
    }
    if ((*section)->use == FRAME_CLOSED) {
        return LOAM_ERROR_NOT_PERMITTED;
    }
    if (loam_frame_lend_recall(frame, *section, at, request->count_frames) != LOAM_OK ||
        loam_frame_walk_used(frame, *section, at, end, FRAME_VIEW_SHARED) < end) {
        return LOAM_ERROR_BUSY;
    }
    return loam_frame_walk_used(frame, *section, at, end, request_view(request)) < end ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

/* Where the request, which is valid, can be served. */
static enum loam_error find_place(struct loam_frame *frame, const struct loam_frame_request *request,
                                  struct frame_section **section, uint64_t *start)
{
    uint64_t limit = request->limit.value;
    struct frame_want want = {
        .count = request->count_frames,
        .align = request->align_frames == 0 ? 1 : request->align_frames,
        .boundary = request->boundary_frames,
        .ceiling = limit == 0 ? frame->pfn_end : frame_min(limit, frame->pfn_end),
        .view = request_view(request),
    };
    bool found;

    if (limit == 0 || limit > frame->zone_end) {
        want.floor = reserve_floor(frame, want.count);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) != 0) {
        *section = loam_frame_spot_section(frame, request->section);
        if (*section == NULL) {
            return LOAM_ERROR_NOT_FOUND;
        }
        if ((*section)->use == FRAME_CLOSED) {
            return LOAM_ERROR_NOT_PERMITTED;
        }
        want.floor = (*section)->use == FRAME_OPEN ? want.floor : 0; /* the reserve lies in open sections */
        found = loam_frame_search_section(frame, *section, &want, start);
    } else {
        found = loam_frame_search(frame, &want, section, start);
    }
    return found ? LOAM_OK : LOAM_ERROR_EXHAUSTED;
}

uint32_t loam_frame_block_flags(const struct loam_frame *frame, uint64_t start, bool released)
{
    return (released ? (uint32_t)LOAM_FRAME_BLOCK_RELEASED : 0) |
           (frame->pressure[frame_zone(frame, start)] ? (uint32_t)LOAM_FRAME_BLOCK_PRESSURE : 0);
}

static enum loam_error find_anywhere(struct loam_frame *frame, const struct loam_frame_request *request,
                                     struct frame_section **section, uint64_t *start)
{
    enum loam_error error;

    if ((request->flags & LOAM_FRAME_AT) != 0) {
        *start = request->at.value;
        if ((request->flags & LOAM_FRAME_IN_SECTION) != 0 && loam_frame_spot_section(frame, request->section) == NULL) {
            return LOAM_ERROR_NOT_FOUND;
        }
        return check_at(frame, request, section);
    }
    error = find_place(frame, request, section, start);
    if (error == LOAM_ERROR_EXHAUSTED && loam_frame_lend_recall_all(frame)) {
        error = find_place(frame, request, section, start);
    }
    return error;
}

enum loam_error loam_frame_block_alloc(struct loam_frame *frame, const struct loam_frame_request *request,
                                       struct loam_frame_block *block)
{
    struct frame_section *section = NULL;
    enum loam_error error;
    uint64_t start = 0;
    bool released;

    *block = (struct loam_frame_block){0};
    if (!request_valid(frame, request)) {
        return LOAM_ERROR_INVALID;
    }
    error = find_anywhere(frame, request, &section, &start);
    if (error != LOAM_OK) {
        return error;
    }
    released = loam_frame_chunk_take(frame, section, start, request->count_frames);
    block->start = loam_pfn_from_u64(start);
    block->count_frames = request->count_frames;
    block->section = section->id;
    block->flags = loam_frame_block_flags(frame, start, released);
    return LOAM_OK;
}

/* --- Blocks that are there ------------------------------------------------------------------------------------- */

bool loam_frame_block_at(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t pfn,
                         struct frame_span *block)
{
    const struct frame_section *section = spot->section;
    struct frame_spot first;

    if (!loam_frame_chunk_block(frame, spot, pfn, block) ||
        !loam_fits(block->start - section->start, block->count, section->end - section->start)) {
        return false;
    }
    first = loam_frame_spot_head(frame, spot->section, frame_chunk_index(section, block->start));
    return shared_load(first.chunk->owner) == 0 || !loam_frame_lend_holds(frame, &first, block->start);
}

/* Whether exactly [start, start + count) is an allocated block. */
static bool is_block(const struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    struct frame_spot head = loam_frame_spot_head(frame, section, frame_chunk_index(section, start));
    struct frame_span block;

    return loam_frame_block_at(frame, &head, start, &block) && block.start == start && block.count == count;
}

/* The same as loam_frame_block_find, of a frame whose piece is found. */
static enum loam_error find_block(struct loam_frame *frame, const struct frame_spot *head, uint64_t start,
                                  uint64_t count)
{
    enum loam_error error;

    if (!is_block(frame, head->section, start, count)) {
        return LOAM_ERROR_INVALID;
    }
    error = loam_frame_lend_recall(frame, head->section, start, count);
    if (error != LOAM_OK) {
        return error;
    }
    /* It may have been freed just before the chunk came back. */
    return is_block(frame, head->section, start, count) ? LOAM_OK : LOAM_ERROR_INVALID;
}

enum loam_error loam_frame_block_find(struct loam_frame *frame, uint64_t start, uint64_t count,
                                      struct frame_section **section)
{
    struct frame_spot spot;

    if (!frame_spot_find(frame, start, &spot)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    *section = spot.section;
    spot = loam_frame_spot_head(frame, spot.section, spot.index);
    return find_block(frame, &spot, start, count);
}

/* Free a block within one partly used chunk that is not lent: its bitmaps alone decide whether it is one. */
static enum loam_error free_within(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                   uint32_t count)
{
    bool entered = start == spot->start && (loam_frame_chunk_crossed(frame, spot) & 1) != 0;

    if (!frame_bits_is_block(spot->map, frame_offset(start), count, entered)) {
        return LOAM_ERROR_INVALID;
    }
    loam_frame_chunk_release_within(frame, spot, start, count);
    return LOAM_OK;
}

enum loam_error loam_frame_block_free(struct loam_frame *frame, uint64_t start, uint64_t count)
{
    uint64_t room = LOAM_FRAME_CHUNK_FRAMES - frame_offset(start);
    struct frame_spot spot;
    enum loam_error error;

    if (!frame_spot_find(frame, start, &spot)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    spot = loam_frame_spot_head(frame, spot.section, spot.index);
    if (shared_load(spot.chunk->owner) != 0 && count <= room) {
        return loam_frame_lend_free(frame, &spot, start, count);
    }
    if (shared_load(spot.chunk->state) == FRAME_CHUNK_PARTIAL && count - 1 < room) {
        return free_within(frame, &spot, start, (uint32_t)count);
    }
    error = find_block(frame, &spot, start, count);
    if (error == LOAM_OK) {
        loam_frame_chunk_release(frame, spot.section, start, count);
    }
    return error;
}

enum loam_error loam_frame_block_free_many(struct loam_frame *frame, uint32_t order, const loam_pfn *starts,
                                           size_t count, size_t *done)
{
    enum loam_error error = order > LOAM_FRAME_ORDER_MAX ? LOAM_ERROR_INVALID : LOAM_OK;

    while (error == LOAM_OK && *done < count) {
        error = loam_frame_block_free(frame, starts[*done].value, UINT64_C(1) << order);
        *done += error == LOAM_OK;
    }
    return error;
}

void loam_frame_block_free_again(struct loam_frame *frame, uint32_t order, loam_pfn *starts, size_t done)
{
    while (done > 0) {
        done--;
        CHECK(loam_frame_block_free(frame, starts[done].value, UINT64_C(1) << order) == LOAM_OK);
        starts[done] = loam_pfn_from_u64(0);
    }
}

void loam_frame_block_reshape(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count,
                              uint64_t first, uint64_t second)
{
    enum loam_frame_tag tag = loam_frame_chunk_tag(frame, section, (struct frame_span){start, count});
    struct frame_pressure pressure = loam_frame_chunk_pressure(frame);

    loam_frame_chunk_release(frame, section, start, count);
    loam_frame_chunk_take(frame, section, start, first);
    loam_frame_chunk_set_tag(frame, section, (struct frame_span){start, first}, tag);
    if (second != 0) {
        loam_frame_chunk_take(frame, section, start + first, second);
        loam_frame_chunk_set_tag(frame, section, (struct frame_span){start + first, second}, tag);
    }
    /* In between there was more free than there is. */
    loam_frame_chunk_reset_pressure(frame, pressure);
}
