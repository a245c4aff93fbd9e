// SPDX-License-Identifier: Apache-2.0
/*
 * Sections come and go: the public functions of loam/frame.h. A section's metadata is written before the lock is taken,
 * so that adding one holds nobody up for longer than it takes to list its largest pieces.
 */
#include "allocator/frame/frame_buddy.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_lists.h"
#include "allocator/frame/frame_lock.h"
#include "allocator/frame/frame_walk.h"
#include "loam/frame.h"

#include <string.h>

#define ID_NONE UINT32_MAX

static bool range_valid(const struct loam_frame *frame, uint64_t start, uint64_t count)
{
    return frame != NULL && count > 0 && loam_fits(start, count, frame->pfn_end);
}

static uint64_t chunk_count(uint64_t start, uint64_t count)
{
    return ((start + count - 1) >> FRAME_CHUNK_ORDER) - (start >> FRAME_CHUNK_ORDER) + 1;
}

size_t loam_frame_section_bytes(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames)
{
    uint64_t chunks;

    if (!range_valid(frame, start.value, count_frames)) {
        return 0;
    }
    chunks = chunk_count(start.value, count_frames);
    return frame_chunks_bytes(chunks) + chunks * sizeof(struct frame_map);
}

/* Whether a section [start, end) can be added; *at receives its place in the index. */
static enum loam_error find_gap(const struct loam_frame *frame, uint64_t start, uint64_t end, uint32_t *at)
{
    int64_t n = loam_frame_spot_index(frame, start);
    const struct frame_section *below = n < 0 ? NULL : frame_spot_indexed(frame, (uint64_t)n);

    *at = (uint32_t)(n + 1);
    if ((below != NULL && below->end > start) ||
        (*at < frame->section_count && frame_indexes(frame)[*at].start < end)) {
        return LOAM_ERROR_OVERLAP;
    }
    return frame->section_count == frame->section_capacity ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
}

/* The same for who does not hold the lock: it may be otherwise a moment later. */
static enum loam_error check_gap(struct loam_frame *frame, uint64_t start, uint64_t end)
{
    uint32_t at;

    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    return frame_unlock(frame, find_gap(frame, start, end, &at));
}

static uint32_t take_id(struct loam_frame *frame)
{
    uint32_t id = frame->unused_id;

    if (id == ID_NONE) {
        id = frame->id_top;
        frame->id_top = id + 1;
        return id;
    }
    frame->unused_id = frame_sections(frame)[id].next_unused;
    return id;
}

/*
 * How far open sections reach, and whether above 4 GiB; if that is news, lenders begin anew: their chunks were for other
 * requests.
 */
static void set_open_end(struct loam_frame *frame)
{
    uint32_t n = frame->section_count, zone;

    while (n > 0 && frame_spot_indexed(frame, n - 1)->use != FRAME_OPEN) {
        n--;
    }
    frame->open_end = n > 0 ? frame_spot_indexed(frame, n - 1)->end : 0;
    zone = frame->open_end > frame->zone_end ? LOAM_FRAME_ZONE_NORMAL : LOAM_FRAME_ZONE_DMA32;
    if (zone == frame->top_zone) {
        return;
    }
    frame->top_zone = zone;
    loam_frame_lend_recall_all(frame);
}

/* Commit: everything is checked, and the metadata is prepared. */
static uint32_t insert_section(struct loam_frame *frame, const struct frame_section *given, uint32_t at)
{
    uint32_t id = take_id(frame);
    struct frame_section *section = &frame_sections(frame)[id];
    struct frame_index *index = frame_indexes(frame);

    *section = *given;
    section->id = id;
    section->used = 1;
    memmove(&index[at + 1], &index[at], (frame->section_count - at) * sizeof *index);
    index[at] = (struct frame_index){.start = section->range_start, .id = id};
    frame->section_count++;
    loam_frame_chunk_add(frame, section);
    set_open_end(frame);
    return id;
}

/* Add the frames [range_start, end), those from start on managed. *id receives the id, or 0. */
static enum loam_error add_section(struct loam_frame *frame, uint64_t range_start, uint64_t start, uint64_t end,
                                   void *metadata, uint32_t use, uint32_t *id)
{
    struct frame_section given = {
        .use = use,
        .range_start = range_start,
        .start = start,
        .end = end,
        .first_chunk = start >> FRAME_CHUNK_ORDER,
        .chunk_count = chunk_count(start, end - start),
        .metadata_offset_bytes = (uintptr_t)metadata - (uintptr_t)frame,
        .metadata_bytes = loam_frame_section_bytes(frame, loam_pfn_from_u64(start), end - start),
    };
    enum loam_error error = LOAM_OK;
    uint32_t at;

    given.seal = frame_seal_of_section(&given);
    error = check_gap(frame, range_start, end);
    if (error != LOAM_OK) {
        return error;
    }
    loam_frame_chunk_prepare(frame, &given);
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    error = find_gap(frame, range_start, end, &at);
    if (error == LOAM_OK) {
        *id = insert_section(frame, &given, at);
    }
    return frame_unlock(frame, error);
}

static enum loam_error add_out_of_band(struct loam_frame *frame, loam_pfn start, uint64_t count_frames, void *metadata,
                                       size_t metadata_bytes, uint32_t use, uint32_t *section)
{
    uint32_t unwanted;
    uint32_t *id = section == NULL ? &unwanted : section;

    *id = 0;
    if (!range_valid(frame, start.value, count_frames) || metadata == NULL ||
        (uintptr_t)metadata % LOAM_FRAME_METADATA_ALIGN != 0 ||
        metadata_bytes < loam_frame_section_bytes(frame, start, count_frames)) {
        return LOAM_ERROR_INVALID;
    }
    return add_section(frame, start.value, start.value, start.value + count_frames, metadata, use, id);
}

enum loam_error loam_frame_section_add(struct loam_frame *frame, loam_pfn start, uint64_t count_frames, void *metadata,
                                       size_t metadata_bytes, uint32_t *section)
{
    return add_out_of_band(frame, start, count_frames, metadata, metadata_bytes, FRAME_OPEN, section);
}

enum loam_error loam_frame_section_add_closed(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                              void *metadata, size_t metadata_bytes, uint32_t *section)
{
    return add_out_of_band(frame, start, count_frames, metadata, metadata_bytes, FRAME_CLOSED, section);
}

/* Whether the metadata of all frames but the first prefix_frames fits into those. */
static bool prefix_holds(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames, uint64_t prefix_frames)
{
    loam_pfn managed = loam_pfn_from_u64(start.value + prefix_frames);

    return loam_frame_section_bytes(frame, managed, count_frames - prefix_frames) <= prefix_frames
                                                                                         << frame->frame_shift;
}

/* The fewest frames that will do; the more there are, the less they have to hold. count_frames: none. */
static uint64_t prefix_frames(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames)
{
    uint64_t low = 1, high = count_frames;

    while (low < high) {
        uint64_t middle = low + (high - low) / 2;

        if (prefix_holds(frame, start, count_frames, middle)) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

enum loam_error loam_frame_section_add_in_prefix(struct loam_frame *frame, void *region, loam_pfn start,
                                                 uint64_t count_frames, uint32_t *section)
{
    uint32_t unwanted;
    uint32_t *id = section == NULL ? &unwanted : section;
    uint64_t prefix;

    *id = 0;
    if (!range_valid(frame, start.value, count_frames) || region == NULL ||
        (uintptr_t)region % LOAM_FRAME_METADATA_ALIGN != 0) {
        return LOAM_ERROR_INVALID;
    }
    prefix = prefix_frames(frame, start, count_frames);
    if (prefix >= count_frames) {
        return LOAM_ERROR_INVALID;
    }
    return add_section(frame, start.value, start.value + prefix, start.value + count_frames, region, FRAME_OPEN, id);
}

/* Commit: the section is wholly free, and no lender knows it: they stand still, or it is closed. */
static void delete_section(struct loam_frame *frame, struct frame_section *section)
{
    struct frame_index *index = frame_indexes(frame);
    uint32_t at = (uint32_t)loam_frame_spot_index(frame, section->start);
    uint32_t id = section->id;

    loam_frame_chunk_retire(frame, section);
    frame->section_count--;
    memmove(&index[at], &index[at + 1], (frame->section_count - at) * sizeof *index);
    *section = (struct frame_section){.id = id, .next_unused = frame->unused_id};
    frame->unused_id = id;
    set_open_end(frame);
}

/* LOAM_ERROR_BUSY: a block is allocated, the lowest at *used. */
static enum loam_error try_remove(struct loam_frame *frame, struct frame_section *section, uint64_t *used)
{
    uint64_t managed = section->end - section->start;

    if (section->free_frames != managed) {
        loam_frame_lend_recall_all(frame);
    }
    if (section->free_frames != managed) {
        *used = loam_frame_walk_used(frame, section, section->start, section->end, FRAME_VIEW_SHARED);
        return LOAM_ERROR_BUSY;
    }
    *used = section->start;
    if (section->use != FRAME_CLOSED && loam_frame_lend_forget(frame) != LOAM_OK) {
        return LOAM_ERROR_BUSY;
    }
    delete_section(frame, section);
    *used = 0;
    return LOAM_OK;
}

enum loam_error loam_frame_section_remove(struct loam_frame *frame, uint32_t section, loam_pfn *blocker)
{
    enum loam_error error = LOAM_ERROR_NOT_FOUND;
    struct frame_section *found;
    uint64_t used = 0;

    if (blocker != NULL) {
        *blocker = loam_pfn_from_u64(0);
    }
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    found = loam_frame_spot_section(frame, section);
    if (found != NULL) {
        error = try_remove(frame, found, &used);
    }
    if (blocker != NULL) {
        *blocker = loam_pfn_from_u64(used);
    }
    return frame_unlock(frame, error);
}

/* --- Who gets frames of it --------------------------------------------------------------------------------------- */

static uint32_t use_kept(enum loam_frame_use use)
{
    static const uint32_t kept[LOAM_FRAME_USE_COUNT] = {FRAME_OPEN, FRAME_APART, FRAME_CLOSED};

    return kept[use];
}

static enum loam_frame_use use_said(uint32_t kept)
{
    return kept == FRAME_OPEN    ? LOAM_FRAME_USE_OPEN
           : kept == FRAME_APART ? LOAM_FRAME_USE_APART
                                 : LOAM_FRAME_USE_CLOSED;
}

/* Free frames of a chunk or a piece that is on a list. */
static uint64_t listed_frames(const struct frame_spot *spot)
{
    return shared_load(spot->chunk->state) == FRAME_CHUNK_FREE ? frame_spot_chunks(spot) << FRAME_CHUNK_ORDER
                                                               : frame_free_frames(spot->chunk);
}

/* The section's free frames go to the lists and counters of another use. Nothing is in the front, and none of it lent. */
static void change_use(struct loam_frame *frame, struct frame_section *section, uint32_t use)
{
    uint64_t *from = section->use == FRAME_OPEN ? frame->free_frames : frame->withheld_frames;
    uint64_t *to = use == FRAME_OPEN ? frame->free_frames : frame->withheld_frames;
    uint64_t index = 0;

    while (index < section->chunk_count) {
        struct frame_spot spot = frame_spot_at(frame, section, index);
        uint32_t list = spot.chunk->list;

        index += frame_spot_chunks(&spot);
        if (shared_load(spot.chunk->state) == FRAME_CHUNK_WHOLE || list == FRAME_LIST_NONE) {
            continue;
        }
        loam_frame_lists_remove(frame, frame_lists_of(frame, &spot), &spot);
        loam_frame_lists_push(frame, frame_lists_for(frame, &spot, use), &spot, list);
        from[spot.zone] -= listed_frames(&spot);
        to[spot.zone] += listed_frames(&spot);
    }
    section->use = use;
    set_open_end(frame);
    loam_frame_chunk_mark_pressure(frame);
}

enum loam_error loam_frame_section_set_use(struct loam_frame *frame, uint32_t section, enum loam_frame_use use)
{
    enum loam_error error = LOAM_ERROR_NOT_FOUND;
    struct frame_section *found;

    if (frame == NULL || (unsigned)use >= LOAM_FRAME_USE_COUNT) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    found = loam_frame_spot_section(frame, section);
    if (found != NULL) {
        error = loam_frame_lend_recall(frame, found, found->start, found->end - found->start);
    }
    if (error == LOAM_OK && use == LOAM_FRAME_USE_CLOSED && found->use != FRAME_CLOSED) {
        error = loam_frame_lend_forget(frame);
    }
    if (error == LOAM_OK && use_kept(use) != found->use) {
        change_use(frame, found, use_kept(use));
    }
    return frame_unlock(frame, error == LOAM_ERROR_UNINITIALISED ? LOAM_ERROR_BUSY : error);
}

/* --- Which there are --------------------------------------------------------------------------------------------- */

uint32_t loam_frame_section_count(const struct loam_frame *frame)
{
    struct loam_frame *locked = frame != NULL ? frame_lock(frame) : NULL;
    uint32_t count = locked == NULL ? 0 : frame->section_count;

    if (locked != NULL) {
        frame_unlock(locked, LOAM_OK);
    }
    return count;
}

static enum loam_error summarise(const struct frame_section *found, struct loam_frame_section *section)
{
    if (found == NULL) {
        return LOAM_ERROR_NOT_FOUND;
    }
    *section = (struct loam_frame_section){
        .id = found->id,
        .start = loam_pfn_from_u64(found->start),
        .managed_frames = found->end - found->start,
        .total_frames = found->end - found->range_start,
        .free_frames = found->free_frames,
        .metadata_bytes = found->metadata_bytes,
        .use = use_said(found->use),
    };
    return LOAM_OK;
}

enum loam_error loam_frame_section_at(const struct loam_frame *frame, uint32_t index,
                                      struct loam_frame_section *section)
{
    const struct frame_section *found;
    struct loam_frame *locked;

    if (section == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *section = (struct loam_frame_section){0};
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    locked = frame_lock(frame);
    found = index < frame->section_count ? frame_spot_indexed(frame, index) : NULL;
    return frame_unlock(locked, summarise(found, section));
}

enum loam_error loam_frame_section_find(const struct loam_frame *frame, loam_pfn pfn,
                                        struct loam_frame_section *section)
{
    struct loam_frame *locked;
    struct frame_spot spot;

    if (section == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *section = (struct loam_frame_section){0};
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    locked = frame_lock(frame);
    return frame_unlock(locked, summarise(frame_spot_find(frame, pfn.value, &spot) ? spot.section : NULL, section));
}
