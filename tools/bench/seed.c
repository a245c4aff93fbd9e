// SPDX-License-Identifier: Apache-2.0
/*
 * A free block is a record marked SEED_FREE on the list of its order; an allocated one is a record marked
 * SEED_ALLOCATED on none. Records inside a block are stale, and are written before they are a block's first again.
 */
#include "tools/bench/seed.h"

#include "loam/types.h"

#include <stdbool.h>
#include <string.h>

/* --- Free lists ------------------------------------------------------------------------------------------------ */

static inline void push_free(struct seed_section *section, uint64_t frame, uint32_t order)
{
    struct seed_record *record = &section->records[frame];
    uint32_t first = section->free_lists[order];

    record->flags = SEED_FREE;
    record->order = (uint8_t)order;
    record->previous = SEED_NONE;
    record->next = first;
    if (first != SEED_NONE) {
        section->records[first].previous = (uint32_t)frame;
    }
    section->free_lists[order] = (uint32_t)frame;
}

static inline void remove_free(struct seed_section *section, uint64_t frame, uint32_t order)
{
    const struct seed_record *record = &section->records[frame];

    if (record->previous != SEED_NONE) {
        section->records[record->previous].next = record->next;
    } else {
        section->free_lists[order] = record->next;
    }
    if (record->next != SEED_NONE) {
        section->records[record->next].previous = record->previous;
    }
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

void seed_init(struct seed *seed)
{
    *seed = (struct seed){0};
}

size_t seed_record_bytes(uint64_t heap_bytes)
{
    return heap_bytes / SEED_FRAME_BYTES * sizeof(struct seed_record);
}

/* Where the heap of frames frames begins, behind its metadata. */
static uint64_t heap_start_in_prefix(uint64_t region_start, uint64_t frames)
{
    uint64_t metadata_bytes = sizeof(struct seed_section) + frames * sizeof(struct seed_record);

    return loam_align_up(region_start + metadata_bytes, SEED_FRAME_BYTES);
}

enum loam_error seed_layout_in_prefix(uint64_t region_start, uint64_t region_bytes, struct seed_layout *layout)
{
    uint64_t end, low = 0, high;

    *layout = (struct seed_layout){0};
    if (__builtin_add_overflow(region_start, region_bytes, &end) || end > LOAM_GPA_END) {
        return LOAM_ERROR_INVALID;
    }
    region_start = loam_align_up(region_start, SEED_FRAME_BYTES);
    end = loam_align_down(end, SEED_FRAME_BYTES);
    high = end > region_start ? (end - region_start) / SEED_FRAME_BYTES : 0;
    while (low < high) {
        uint64_t middle = high - (high - low) / 2;
        uint64_t heap_start = heap_start_in_prefix(region_start, middle);

        if (heap_start <= end && (end - heap_start) / SEED_FRAME_BYTES >= middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    if (low == 0) {
        return LOAM_ERROR_INVALID;
    }
    *layout = (struct seed_layout){region_start, end - region_start, heap_start_in_prefix(region_start, low),
                                   low * SEED_FRAME_BYTES};
    return LOAM_OK;
}

struct seed_layout seed_layout_out_of_band(uint64_t start, uint64_t bytes)
{
    return (struct seed_layout){start, bytes, start, bytes};
}

static enum loam_error check_layout(const struct seed *seed, const struct seed_layout *layout, size_t records_bytes)
{
    uint64_t region_end, heap_end;

    if (__builtin_add_overflow(layout->region_start, layout->region_bytes, &region_end) ||
        __builtin_add_overflow(layout->heap_start, layout->heap_bytes, &heap_end) || heap_end > region_end) {
        return LOAM_ERROR_INVALID;
    }
    for (const struct seed_section *other = seed->first; other != NULL; other = other->next) {
        if (layout->region_start < other->region_start + other->region_bytes && other->region_start < region_end) {
            return LOAM_ERROR_OVERLAP;
        }
    }
    if (!loam_is_aligned(layout->heap_start, SEED_FRAME_BYTES) || layout->heap_bytes == 0 ||
        records_bytes < seed_record_bytes(layout->heap_bytes)) {
        return LOAM_ERROR_INVALID;
    }
    return LOAM_OK;
}

/* The largest blocks, aligned to their size within the heap, in ascending order: the highest leads its list. */
static void free_all(struct seed_section *section)
{
    uint64_t frame = 0;

    while (frame < section->managed_frames) {
        uint32_t order = SEED_ORDER_MAX;

        while ((UINT64_C(1) << order) > section->managed_frames - frame ||
               !loam_is_aligned(frame, UINT64_C(1) << order)) {
            order--;
        }
        push_free(section, frame, order);
        frame += UINT64_C(1) << order;
    }
    section->free_frames = section->managed_frames;
}

enum loam_error seed_section_add(struct seed *seed, struct seed_section *section, const struct seed_layout *layout,
                                 struct seed_record *records, size_t records_bytes)
{
    enum loam_error error = check_layout(seed, layout, records_bytes);
    uint64_t frames = layout->heap_bytes / SEED_FRAME_BYTES;

    if (error != LOAM_OK) {
        return error;
    }
    for (uint64_t frame = 0; frame < frames; frame++) {
        records[frame] = (struct seed_record){SEED_NONE, SEED_NONE, SEED_ALLOCATED, 0, {0}};
    }
    *section = (struct seed_section){.region_start = layout->region_start,
                                     .region_bytes = layout->region_bytes,
                                     .records = records,
                                     .record_count = frames,
                                     .heap_start = layout->heap_start,
                                     .heap_bytes = layout->heap_bytes,
                                     .managed_frames = frames};
    memset(section->free_lists, 0xFF, sizeof section->free_lists);
    free_all(section);
    *(seed->first == NULL ? &seed->first : &seed->last->next) = section;
    seed->last = section;
    seed->section_count++;
    return LOAM_OK;
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

/* The first frame of a block of order at align_bytes within the free block at frame; false: there is none. */
static inline bool find_aligned(const struct seed_section *section, uint64_t frame, uint32_t free_order, uint32_t order,
                                uint64_t align_bytes, uint64_t *target)
{
    uint64_t part_frames = UINT64_C(1) << order;
    uint64_t align_frames = align_bytes / SEED_FRAME_BYTES;
    uint64_t candidate = frame;

    if (align_frames <= part_frames) {
        if (!loam_is_aligned(section->heap_start, align_bytes)) {
            return false;
        }
    } else {
        uint64_t offset = -(section->heap_start / SEED_FRAME_BYTES) & (align_frames - 1);

        if (!loam_is_aligned(offset, part_frames)) {
            return false;
        }
        candidate += (offset - frame) & (align_frames - 1);
    }
    *target = candidate;
    return candidate <= frame + (UINT64_C(1) << free_order) - part_frames;
}

/* Halve the block at frame until target is one of its own; the other halves stay free. */
static inline void split(struct seed_section *section, uint64_t frame, uint32_t free_order, uint32_t order,
                         uint64_t target)
{
    remove_free(section, frame, free_order);
    while (free_order > order) {
        uint64_t half = UINT64_C(1) << --free_order;

        if (target >= frame + half) {
            push_free(section, frame, free_order);
            frame += half;
        } else {
            push_free(section, frame + half, free_order);
        }
    }
    section->records[frame].flags = SEED_ALLOCATED;
    section->records[frame].order = (uint8_t)order;
    section->free_frames -= UINT64_C(1) << order;
}

/* end is a constant in both callers: an allocation without a limit is compiled without the comparison. */
static inline __attribute__((always_inline)) bool
alloc_in_section(struct seed_section *section, uint32_t order, uint64_t align_bytes, uint64_t end, uint64_t *address)
{
    for (uint32_t free_order = order; free_order <= SEED_ORDER_MAX; free_order++) {
        for (uint32_t frame = section->free_lists[free_order]; frame != SEED_NONE;
             frame = section->records[frame].next) {
            uint64_t target;

            if (!find_aligned(section, frame, free_order, order, align_bytes, &target)) {
                continue;
            }
            uint64_t found = section->heap_start + target * SEED_FRAME_BYTES;
            if (end == UINT64_MAX || found + (SEED_FRAME_BYTES << order) <= end) {
                split(section, frame, free_order, order, target);
                *address = found;
                return true;
            }
        }
    }
    return false;
}

static inline __attribute__((always_inline)) enum loam_error
alloc_below(struct seed *seed, uint64_t count_frames, uint64_t align_bytes, uint64_t end, uint64_t *address)
{
    uint32_t order = count_frames <= 1 ? 0 : 64 - (uint32_t)__builtin_clzll(count_frames - 1);

    *address = 0;
    align_bytes = align_bytes == 0 ? SEED_FRAME_BYTES : align_bytes;
    if (count_frames == 0 || order > SEED_ORDER_MAX || !loam_is_power_of_two(align_bytes) ||
        align_bytes < SEED_FRAME_BYTES) {
        return LOAM_ERROR_INVALID;
    }
    for (struct seed_section *section = seed->first; section != NULL; section = section->next) {
        if (alloc_in_section(section, order, align_bytes, end, address)) {
            return LOAM_OK;
        }
    }
    return LOAM_ERROR_EXHAUSTED;
}

enum loam_error seed_alloc(struct seed *seed, uint64_t count_frames, uint64_t align_bytes, uint64_t *address)
{
    return alloc_below(seed, count_frames, align_bytes, UINT64_MAX, address);
}

enum loam_error seed_alloc_low(struct seed *seed, uint64_t count_frames, uint64_t align_bytes, uint64_t *address)
{
    return alloc_below(seed, count_frames, align_bytes, SEED_LOW_END, address);
}

/* --- Free ------------------------------------------------------------------------------------------------------ */

static struct seed_section *find_section(const struct seed *seed, uint64_t address)
{
    struct seed_section *section = seed->first;

    while (section != NULL && address - section->heap_start >= section->heap_bytes) {
        section = section->next;
    }
    return section;
}

void seed_free(struct seed *seed, uint64_t address, uint64_t count_frames)
{
    struct seed_section *section = find_section(seed, address);

    (void)count_frames;
    if (section == NULL) {
        return;
    }
    uint64_t frame = (address - section->heap_start) / SEED_FRAME_BYTES;
    uint32_t order = section->records[frame].order;

    section->free_frames += UINT64_C(1) << order;
    while (order < SEED_ORDER_MAX) {
        uint64_t buddy = frame ^ UINT64_C(1) << order;

        if (buddy >= section->record_count || section->records[buddy].flags != SEED_FREE ||
            section->records[buddy].order != order) {
            break;
        }
        remove_free(section, buddy, order);
        frame &= buddy;
        order++;
    }
    push_free(section, frame, order);
}

/* --- Queries --------------------------------------------------------------------------------------------------- */

uint64_t seed_free_frames(const struct seed *seed)
{
    uint64_t frames = 0;

    for (const struct seed_section *section = seed->first; section != NULL; section = section->next) {
        frames += section->free_frames;
    }
    return frames;
}

uint64_t seed_managed_frames(const struct seed *seed)
{
    uint64_t frames = 0;

    for (const struct seed_section *section = seed->first; section != NULL; section = section->next) {
        frames += section->managed_frames;
    }
    return frames;
}

uint64_t seed_usable_frames(const struct seed *seed, uint32_t order)
{
    uint64_t frames = 0;

    for (const struct seed_section *section = seed->first; section != NULL; section = section->next) {
        for (uint32_t free_order = order; free_order <= SEED_ORDER_MAX; free_order++) {
            for (uint32_t frame = section->free_lists[free_order]; frame != SEED_NONE;
                 frame = section->records[frame].next) {
                frames += UINT64_C(1) << free_order;
            }
        }
    }
    return frames;
}

enum loam_error seed_find(const struct seed *seed, uint64_t address, struct seed_block *block)
{
    const struct seed_section *section = find_section(seed, address);
    uint64_t frame = 0;

    *block = (struct seed_block){0};
    if (section == NULL || (address - section->heap_start) / SEED_FRAME_BYTES >= section->record_count) {
        return LOAM_ERROR_NOT_FOUND;
    }
    uint64_t wanted = (address - section->heap_start) / SEED_FRAME_BYTES;
    while (frame + (UINT64_C(1) << section->records[frame].order) <= wanted) {
        frame += UINT64_C(1) << section->records[frame].order;
    }
    *block = (struct seed_block){section->heap_start + frame * SEED_FRAME_BYTES, section->records[frame].order,
                                 section->records[frame].flags};
    return LOAM_OK;
}
