// SPDX-License-Identifier: Apache-2.0
/*
 * What stands where: the public questions of loam/frame.h. Those that may look at every chunk give the lock up after
 * STEP_FRAMES, so that nobody waits long for it; what they say is put together from several moments then.
 */
#include "allocator/frame/frame_block.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_lock.h"
#include "allocator/frame/frame_walk.h"
#include "loam/frame.h"

#include <inttypes.h>
#include <stdio.h>

#define STEP_FRAMES (UINT64_C(2048) * LOAM_FRAME_CHUNK_FRAMES)

/* --- One frame ------------------------------------------------------------------------------------------------- */

/* Of a frame in the piece at its head. */
static struct loam_frame_info info_of(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t pfn)
{
    bool owned = shared_load(spot->chunk->owner) != 0;
    struct loam_frame_info info = {.state = LOAM_FRAME_FREE, .section = spot->section->id};
    struct frame_span block;

    info.released = !owned && spot->chunk->released != 0;
    if (!loam_frame_block_at(frame, spot, pfn, &block)) {
        info.cached = owned;
        return info;
    }
    info.state = LOAM_FRAME_ALLOCATED;
    info.tag = loam_frame_chunk_tag(frame, spot->section, block);
    info.block.start = loam_pfn_from_u64(block.start);
    info.block.count_frames = block.count;
    info.block.section = spot->section->id;
    if (loam_frame_walk_released(frame, spot->section, block.start, block.count)) {
        info.block.flags = LOAM_FRAME_BLOCK_RELEASED;
    }
    return info;
}

/* The same; a lent chunk stands still meanwhile, lest a block be seen while it is half made. */
static struct loam_frame_info info_of_still(struct loam_frame *frame, const struct frame_spot *spot, uint64_t pfn)
{
    bool held = shared_load(spot->chunk->owner) != 0 && loam_frame_lend_lock(frame, spot);
    struct loam_frame_info info = info_of(frame, spot, pfn);

    if (held) {
        frame_lend_unlock(spot->chunk);
    }
    return info;
}

struct loam_frame_info loam_frame_query(const struct loam_frame *frame, loam_pfn pfn)
{
    struct loam_frame_info info = {.state = LOAM_FRAME_UNMANAGED};
    struct loam_frame *locked;
    struct frame_spot spot;

    if (frame == NULL) {
        return info;
    }
    locked = frame_lock(frame);
    if (frame_spot_find(frame, pfn.value, &spot)) {
        spot = loam_frame_spot_head(frame, spot.section, spot.index);
        info = info_of_still(locked, &spot, pfn.value);
    }
    frame_unlock(locked, LOAM_OK);
    return info;
}

/* A frame that no section manages: in a section's prefix, or nowhere. */
static int describe_unmanaged(const struct loam_frame *frame, uint64_t pfn, char *text, size_t bytes)
{
    const struct frame_section *section;
    bool in_prefix = false;
    uint32_t id = 0;
    int64_t n;

    if (frame == NULL) {
        return snprintf(text, bytes, "frame 0x%llx: no allocator is given", (unsigned long long)pfn);
    }
    frame_lock(frame);
    n = loam_frame_spot_index(frame, pfn);
    if (n >= 0) {
        section = frame_spot_indexed(frame, (uint64_t)n);
        in_prefix = pfn < section->start;
        id = section->id;
    }
    frame_unlock((struct loam_frame *)(uintptr_t)frame, LOAM_OK);
    if (in_prefix) {
        return snprintf(text, bytes, "frame 0x%llx holds the metadata of section %u", (unsigned long long)pfn, id);
    }
    return snprintf(text, bytes, "frame 0x%llx is in no section", (unsigned long long)pfn);
}

size_t loam_frame_describe(const struct loam_frame *frame, loam_pfn pfn, char *text, size_t bytes)
{
    struct loam_frame_info info = loam_frame_query(frame, pfn);
    unsigned long long at = pfn.value, start = info.block.start.value;
    const char *released = info.released ? ", without backing" : "";
    int length;

    bytes = text != NULL ? bytes : 0;
    if (info.state == LOAM_FRAME_UNMANAGED) {
        length = describe_unmanaged(frame, pfn.value, text, bytes);
    } else if (info.state == LOAM_FRAME_FREE) {
        length = snprintf(text, bytes, "frame 0x%llx is free in %ssection %u%s", at, info.cached ? "a cache, in " : "",
                          info.section, released);
    } else {
        length =
            snprintf(text, bytes, "frame 0x%llx %s the allocated block [0x%llx, 0x%llx) of section %u%s%s", at,
                     at == start ? "starts" : "is inside", start, start + (unsigned long long)info.block.count_frames,
                     info.section, info.tag == LOAM_FRAME_TAG_SLAB ? ", tagged slab" : "", released);
    }
    return length < 0 ? 0 : (size_t)length;
}

enum loam_error loam_frame_check(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                 struct loam_diag *diag)
{
    struct loam_frame_info info = loam_frame_query(frame, start);
    char text[256];

    if (frame == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "allocator: NULL given");
    }
    if (info.state == LOAM_FRAME_ALLOCATED && info.block.start.value == start.value &&
        info.block.count_frames == count_frames) {
        return LOAM_OK;
    }
    loam_frame_describe(frame, start, text, sizeof text);
    return loam_fail(diag, info.state == LOAM_FRAME_UNMANAGED ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_INVALID,
                     "block [0x%" PRIx64 ", 0x%" PRIx64 "): %s", start.value, start.value + count_frames, text);
}

/* --- Free ranges ----------------------------------------------------------------------------------------------- */

/* The section that holds pfn, or the next above. LOAM_ERROR_NOT_FOUND: there is none. */
static enum loam_error section_from(const struct loam_frame *frame, uint64_t pfn, struct frame_section **section)
{
    int64_t n = loam_frame_spot_index(frame, pfn);

    *section = n < 0 ? NULL : frame_spot_indexed(frame, (uint64_t)n);
    if (*section != NULL && pfn < (*section)->end) {
        return LOAM_OK;
    }
    if (n + 1 >= frame->section_count) {
        return LOAM_ERROR_NOT_FOUND;
    }
    *section = frame_spot_indexed(frame, (uint64_t)(n + 1));
    return LOAM_OK;
}

/*
 * Look for a free frame from *from on, for no more than a step: range receives the free range there, or *from where to
 * go on. LOAM_ERROR_NOT_FOUND: there is nothing above.
 */
static enum loam_error step_free(const struct loam_frame *frame, uint64_t *from, struct loam_frame_range *range)
{
    struct frame_section *section;
    enum loam_error error = section_from(frame, *from, &section);
    uint64_t start, stop, end;

    if (error != LOAM_OK) {
        return error;
    }
    start = frame_max(*from, section->start);
    stop = frame_min(start + STEP_FRAMES, section->end);
    start = loam_frame_walk_free(frame, section, start, stop, FRAME_VIEW_ALL);
    end = start < stop ? loam_frame_walk_used(frame, section, start, section->end, FRAME_VIEW_ALL) : start;
    if (end > start) {
        range->start = loam_pfn_from_u64(start);
        range->count_frames = end - start;
    }
    /* An owner may have taken the frame between the two looks; then it goes on behind it. */
    *from = start < stop ? frame_max(end, start + 1) : stop;
    return LOAM_OK;
}

enum loam_error loam_frame_next_free(const struct loam_frame *frame, loam_pfn from, struct loam_frame_range *range)
{
    enum loam_error error = LOAM_OK;
    uint64_t at = from.value;

    if (range == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *range = (struct loam_frame_range){0};
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    while (error == LOAM_OK && range->count_frames == 0) {
        struct loam_frame *locked = frame_lock(frame);

        loam_frame_lend_settle(locked, false);
        error = frame_unlock(locked, step_free(locked, &at, range));
    }
    return error;
}

/* As step_free, for wholly free chunks in the buddy. */
static enum loam_error step_chunks(const struct loam_frame *frame, uint64_t *from, struct loam_frame_range *range,
                                   bool *released)
{
    struct frame_section *section;
    enum loam_error error = section_from(frame, *from, &section);
    uint64_t chunk, stop;

    if (error != LOAM_OK) {
        return error;
    }
    chunk = frame_chunk_index(section, frame_max(*from, section->start));
    stop = frame_min(chunk + STEP_FRAMES / LOAM_FRAME_CHUNK_FRAMES, section->chunk_count);
    for (uint64_t next; chunk < section->chunk_count && (chunk < stop || range->count_frames != 0); chunk = next) {
        struct frame_spot head = loam_frame_spot_head(frame, section, chunk);
        bool is_free = shared_load(head.chunk->owner) == 0 && shared_load(head.chunk->state) == FRAME_CHUNK_FREE;

        next = head.index + frame_spot_chunks(&head);
        if (range->count_frames != 0 && (!is_free || (head.chunk->released != 0) != *released)) {
            break;
        }
        if (is_free && range->count_frames == 0) {
            range->start = loam_pfn_from_u64(frame_chunk_start(section, chunk));
            *released = head.chunk->released != 0;
        }
        range->count_frames += is_free ? (next - chunk) << FRAME_CHUNK_ORDER : 0;
    }
    *from = frame_min(frame_chunk_start(section, chunk), section->end);
    return LOAM_OK;
}

enum loam_error loam_frame_next_free_chunks(const struct loam_frame *frame, loam_pfn from,
                                            struct loam_frame_range *range, bool *released)
{
    enum loam_error error = LOAM_OK;
    uint64_t at = from.value;

    if (range == NULL || released == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *range = (struct loam_frame_range){0};
    *released = false;
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    while (error == LOAM_OK && range->count_frames == 0) {
        struct loam_frame *locked = frame_lock(frame);

        error = frame_unlock(locked, step_chunks(locked, &at, range, released));
    }
    return error;
}

enum loam_error loam_frame_largest_free(const struct loam_frame *frame, loam_pfn limit, struct loam_frame_range *range)
{
    uint64_t end = limit.value == 0 ? UINT64_MAX : limit.value;
    struct loam_frame_range found;
    enum loam_error error = LOAM_OK;

    if (range == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *range = (struct loam_frame_range){0};
    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    for (uint64_t from = 0; error == LOAM_OK && from < end; from = found.start.value + found.count_frames) {
        error = loam_frame_next_free(frame, loam_pfn_from_u64(from), &found);
        if (error != LOAM_OK || found.start.value >= end) {
            break;
        }
        found.count_frames = frame_min(found.count_frames, end - found.start.value);
        if (found.count_frames > range->count_frames) {
            *range = found;
        }
    }
    return range->count_frames == 0 ? LOAM_ERROR_NOT_FOUND : LOAM_OK;
}

/* Add a maximal free range: how much of it lies in aligned blocks of each order. */
static void add_usable(struct loam_frame_fragmentation *sum, uint64_t start, uint64_t end)
{
    sum->free_frames += end - start;
    for (uint32_t order = 0; order <= LOAM_FRAME_ORDER_MAX; order++) {
        uint64_t size = UINT64_C(1) << order;
        uint64_t from = loam_align_up(start, size), to = loam_align_down(end, size);

        if (from >= to) {
            return;
        }
        sum->usable_frames[order] += to - from;
    }
}

/* Add the free ranges that start in a step from *from on. LOAM_ERROR_NOT_FOUND: there is nothing above. */
static enum loam_error step_fragmentation(const struct loam_frame *frame, uint64_t *from,
                                          struct loam_frame_fragmentation *sum)
{
    struct frame_section *section;
    enum loam_error error = section_from(frame, *from, &section);
    uint64_t at, stop;

    if (error != LOAM_OK) {
        return error;
    }
    at = frame_max(*from, section->start);
    stop = frame_min(at + STEP_FRAMES, section->end);
    while (at < stop) {
        uint64_t start = loam_frame_walk_free(frame, section, at, stop, FRAME_VIEW_ALL);

        if (start >= stop) {
            break;
        }
        at = loam_frame_walk_used(frame, section, start, section->end, FRAME_VIEW_ALL);
        if (at > start) {
            add_usable(sum, start, at);
        } else {
            at = start + 1;
        }
    }
    *from = frame_max(at, stop);
    return LOAM_OK;
}

struct loam_frame_fragmentation loam_frame_get_fragmentation(const struct loam_frame *frame)
{
    struct loam_frame_fragmentation sum = {0};
    enum loam_error error = frame != NULL ? LOAM_OK : LOAM_ERROR_INVALID;
    uint64_t from = 0;

    while (error == LOAM_OK) {
        struct loam_frame *locked = frame_lock(frame);

        loam_frame_lend_settle(locked, false);
        error = frame_unlock(locked, step_fragmentation(locked, &from, &sum));
    }
    return sum;
}

/* --- Figures --------------------------------------------------------------------------------------------------- */

static void count_caches(const struct loam_frame *frame, struct loam_frame_stats *stats)
{
    stats->cache_count = loam_frame_lend_count(frame);
    for (enum loam_frame_zone zone = 0; zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        uint64_t cached = loam_frame_lend_free_frames(frame, zone);

        stats->cached_frames += cached;
        stats->withheld_frames += frame->withheld_frames[zone];
        stats->free_frames_in_zone[zone] = frame->free_frames[zone] + cached;
    }
    /* Owners go on meanwhile: what one took and another freed may be seen twice. */
    stats->cached_frames = frame_min(stats->cached_frames, stats->managed_frames - stats->free_frames);
}

struct loam_frame_stats loam_frame_get_stats(const struct loam_frame *frame)
{
    struct loam_frame *locked = frame != NULL ? frame_lock(frame) : NULL;
    struct loam_frame_stats stats = {0};

    if (locked == NULL) {
        return stats;
    }
    stats.section_count = frame->section_count;
    stats.dma32_reserve_frames = frame->dma32_reserve_frames;
    stats.free_chunks = frame->free_chunks;
    stats.released_chunks = frame->released_chunks;
    stats.metadata_bytes = frame->metadata_bytes;
    for (uint32_t n = 0; n < frame->section_count; n++) {
        const struct frame_section *section = frame_spot_indexed(frame, n);

        stats.total_frames += section->end - section->range_start;
        stats.managed_frames += section->end - section->start;
        stats.free_frames += section->free_frames;
        stats.metadata_bytes += section->metadata_bytes;
    }
    count_caches(frame, &stats);
    stats.free_frames += stats.cached_frames;
    stats.allocated_frames = stats.managed_frames - stats.free_frames;
    frame_unlock(locked, LOAM_OK);
    return stats;
}
