// SPDX-License-Identifier: Apache-2.0
/*
 * The allocator's public face: configuration, sections, requests, questions. Below it, each using only those before:
 *     frame_bits      the two bitmaps of a chunk
 *     frame_layout    what lies where in the metadata
 *     frame_chunk     the buddy of whole chunks, partly used chunks, blocks
 *     frame_search    where a request can be served
 *     frame_validate  everything recounted
 *
 * One lock, held for the length of a public call; no other order to keep.
 */
#include "loam/frame.h"

#include "allocator/check.h"
#include "allocator/frame_chunk.h"
#include "allocator/frame_search.h"
#include "allocator/frame_validate.h"

#include <stdio.h>
#include <string.h>

#define ID_NONE UINT32_MAX

/* --- The lock -------------------------------------------------------------------------------------------------- */

/* Questions take it too, so the allocator is not const to them here. */
static struct loam_frame *lock(const struct loam_frame *frame)
{
    struct loam_frame *locked = (struct loam_frame *)(uintptr_t)frame;

    /* Acquire: pairs with the release in unlock, so that what the last holder wrote is seen. */
    while (atomic_exchange_explicit(&locked->lock, 1, memory_order_acquire) != 0) {
        /* Relaxed: only a hint of when to try again; the exchange above decides. */
        while (atomic_load_explicit(&locked->lock, memory_order_relaxed) != 0) {
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
    }
    return locked;
}

static void unlock(struct loam_frame *frame)
{
    /* Release: pairs with the acquire in lock. */
    atomic_store_explicit(&frame->lock, 0, memory_order_release);
}

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/* Replace zeros by what they mean; false: a member is out of its range. */
static bool normalise_config(const struct loam_frame_config *given, struct loam_frame_config *config)
{
    *config = given == NULL ? (struct loam_frame_config){0} : *given;
    if (config->frame_shift == 0) {
        config->frame_shift = LOAM_FRAME_SHIFT;
    }
    if (config->section_capacity == 0) {
        config->section_capacity = 16;
    }
    return (config->frame_shift == 12 || config->frame_shift == 14 || config->frame_shift == 16) &&
           config->section_capacity <= LOAM_FRAME_SECTION_MAX;
}

size_t loam_frame_bytes(const struct loam_frame_config *given)
{
    struct loam_frame_config config;

    if (!normalise_config(given, &config)) {
        return 0;
    }
    return sizeof(struct loam_frame) +
           config.section_capacity * (sizeof(struct frame_section) + sizeof(struct frame_index));
}

enum loam_error loam_frame_init(void *memory, size_t bytes, const struct loam_frame_config *given,
                                struct loam_frame **frame)
{
    struct loam_frame *made = memory;
    struct loam_frame_config config;

    *frame = NULL;
    if (!normalise_config(given, &config) || memory == NULL || (uintptr_t)memory % LOAM_FRAME_METADATA_ALIGN != 0 ||
        bytes < loam_frame_bytes(given)) {
        return LOAM_ERROR_INVALID;
    }
    memset(made, 0, sizeof *made);
    atomic_init(&made->lock, 0);
    made->magic = FRAME_MAGIC;
    made->zone_end = LOAM_DMA32_END_BYTES >> config.frame_shift;
    made->pfn_end = LOAM_GPA_END >> config.frame_shift;
    made->dma32_reserve_frames = config.dma32_reserve_frames;
    made->metadata_bytes = loam_frame_bytes(given);
    made->frame_shift = config.frame_shift;
    made->section_capacity = config.section_capacity;
    made->seal = frame_seal_of_allocator(made);
    made->unused_id = ID_NONE;
    memset(made->spare, 0xff, sizeof made->spare); /* FRAME_LINK_NONE */
    memset(made->list, 0xff, sizeof made->list);   /* FRAME_LINK_NONE */
    *frame = made;
    return LOAM_OK;
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

static bool range_valid(const struct loam_frame *frame, uint64_t start, uint64_t count)
{
    return count > 0 && loam_fits(start, count, frame->pfn_end);
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

/* The section that manages pfn, or NULL. */
static struct frame_section *find_section(const struct loam_frame *frame, uint64_t pfn)
{
    int64_t n = loam_frame_index_of(frame, pfn);
    struct frame_section *section;

    if (n < 0) {
        return NULL;
    }
    section = &frame_sections(frame)[frame_indexes(frame)[n].id];
    return pfn >= section->start && pfn < section->end ? section : NULL;
}

static struct frame_section *section_from_id(const struct loam_frame *frame, uint32_t id)
{
    return id < frame->id_top && frame_sections(frame)[id].used ? &frame_sections(frame)[id] : NULL;
}

/* Whether [start, end) meets no section; *at receives its place in the index. */
static bool find_gap(const struct loam_frame *frame, uint64_t start, uint64_t end, uint32_t *at)
{
    int64_t n = loam_frame_index_of(frame, start);
    const struct frame_index *index = frame_indexes(frame);

    *at = (uint32_t)(n + 1);
    return (n < 0 || frame_sections(frame)[index[n].id].end <= start) &&
           (*at == frame->section_count || index[*at].start >= end);
}

static uint32_t take_id(struct loam_frame *frame)
{
    uint32_t id = frame->unused_id;

    if (id == ID_NONE) {
        return frame->id_top++;
    }
    frame->unused_id = frame_sections(frame)[id].next_unused;
    return id;
}

/* Commit: everything is checked. The members of given that callers choose are set. */
static uint32_t insert_section(struct loam_frame *frame, const struct frame_section *given, uint32_t at)
{
    uint32_t id = take_id(frame);
    struct frame_section *section = &frame_sections(frame)[id];
    struct frame_index *index = frame_indexes(frame);

    *section = *given;
    section->first_chunk = given->start >> FRAME_CHUNK_ORDER;
    section->chunk_count = chunk_count(given->start, given->end - given->start);
    section->seal = frame_seal_of_section(section);
    section->id = id;
    section->used = 1;
    memmove(&index[at + 1], &index[at], (frame->section_count - at) * sizeof *index);
    index[at] = (struct frame_index){.start = section->range_start, .id = id};
    frame->section_count++;
    loam_frame_chunk_init(frame, section);
    return id;
}

/* Add the frames [range_start, end), those from start on managed. *id receives the id, or 0. */
static enum loam_error add_section(struct loam_frame *frame, uint64_t range_start, uint64_t start, uint64_t end,
                                   void *metadata, uint32_t *id)
{
    struct frame_section given = {
        .range_start = range_start,
        .start = start,
        .end = end,
        .metadata_offset_bytes = (int64_t)((uintptr_t)metadata - (uintptr_t)frame),
        .metadata_bytes = loam_frame_section_bytes(frame, loam_pfn_from_u64(start), end - start),
    };
    enum loam_error error = LOAM_OK;
    uint32_t at;

    lock(frame);
    if (!find_gap(frame, range_start, end, &at)) {
        error = LOAM_ERROR_OVERLAP;
    } else if (frame->section_count == frame->section_capacity) {
        error = LOAM_ERROR_EXHAUSTED;
    } else {
        *id = insert_section(frame, &given, at);
    }
    unlock(frame);
    return error;
}

enum loam_error loam_frame_section_add(struct loam_frame *frame, loam_pfn start, uint64_t count_frames, void *metadata,
                                       size_t metadata_bytes, uint32_t *section)
{
    uint32_t unwanted;
    uint32_t *id = section == NULL ? &unwanted : section;

    *id = 0;
    if (!range_valid(frame, start.value, count_frames) || metadata == NULL ||
        (uintptr_t)metadata % LOAM_FRAME_METADATA_ALIGN != 0 ||
        metadata_bytes < loam_frame_section_bytes(frame, start, count_frames)) {
        return LOAM_ERROR_INVALID;
    }
    return add_section(frame, start.value, start.value, start.value + count_frames, metadata, id);
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
    return add_section(frame, start.value, start.value + prefix, start.value + count_frames, region, id);
}

/* Commit: the section is wholly free. */
static void delete_section(struct loam_frame *frame, struct frame_section *section)
{
    struct frame_index *index = frame_indexes(frame);
    uint32_t at = (uint32_t)loam_frame_index_of(frame, section->start);
    uint32_t id = section->id;

    loam_frame_chunk_retire(frame, section);
    frame->section_count--;
    memmove(&index[at], &index[at + 1], (frame->section_count - at) * sizeof *index);
    *section = (struct frame_section){.id = id, .next_unused = frame->unused_id};
    frame->unused_id = id;
}

enum loam_error loam_frame_section_remove(struct loam_frame *frame, uint32_t section, loam_pfn *blocker)
{
    enum loam_error error = LOAM_OK;
    struct frame_section *found;
    uint64_t used = 0;

    lock(frame);
    found = section_from_id(frame, section);
    if (found == NULL) {
        error = LOAM_ERROR_NOT_FOUND;
    } else if (found->free_frames != found->end - found->start) {
        used = loam_frame_chunk_next_used(frame, found, found->start);
        error = LOAM_ERROR_BUSY;
    } else {
        delete_section(frame, found);
    }
    unlock(frame);
    if (blocker != NULL) {
        *blocker = loam_pfn_from_u64(used);
    }
    return error;
}

uint32_t loam_frame_section_count(const struct loam_frame *frame)
{
    struct loam_frame *locked = lock(frame);
    uint32_t count = frame->section_count;

    unlock(locked);
    return count;
}

static struct loam_frame_section section_summary(const struct frame_section *section)
{
    return (struct loam_frame_section){
        .id = section->id,
        .start = loam_pfn_from_u64(section->start),
        .managed_frames = section->end - section->start,
        .total_frames = section->end - section->range_start,
        .free_frames = section->free_frames,
        .metadata_bytes = section->metadata_bytes,
    };
}

enum loam_error loam_frame_section_at(const struct loam_frame *frame, uint32_t index,
                                      struct loam_frame_section *section)
{
    struct loam_frame *locked = lock(frame);
    enum loam_error error = LOAM_ERROR_NOT_FOUND;

    *section = (struct loam_frame_section){0};
    if (index < frame->section_count) {
        *section = section_summary(&frame_sections(frame)[frame_indexes(frame)[index].id]);
        error = LOAM_OK;
    }
    unlock(locked);
    return error;
}

enum loam_error loam_frame_section_find(const struct loam_frame *frame, loam_pfn pfn,
                                        struct loam_frame_section *section)
{
    struct loam_frame *locked = lock(frame);
    const struct frame_section *found = find_section(frame, pfn.value);

    *section = found == NULL ? (struct loam_frame_section){0} : section_summary(found);
    unlock(locked);
    return found == NULL ? LOAM_ERROR_NOT_FOUND : LOAM_OK;
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

/*
 * The lowest frame that a request which may not enter the DMA32 reserve may start at; 0: any. Of a block that starts at
 * s below 4 GiB, min(zone_end - s, count) frames count, and no more than budget of them may.
 */
static uint64_t reserve_floor(const struct loam_frame *frame, uint64_t count)
{
    uint64_t free_frames = frame->free_frames[LOAM_FRAME_ZONE_DMA32];
    uint64_t budget = free_frames > frame->dma32_reserve_frames ? free_frames - frame->dma32_reserve_frames : 0;

    return budget >= count ? 0 : frame->zone_end - frame_min(budget, frame->zone_end);
}

static bool request_valid(const struct loam_frame *frame, const struct loam_frame_request *request)
{
    uint64_t count = request->count_frames, align = request->align_frames, boundary = request->boundary_frames;
    uint64_t at = request->at.value;

    if (count == 0 || count > LOAM_FRAME_COUNT_MAX ||
        (align != 0 && (!loam_is_power_of_two(align) || align > LOAM_FRAME_ALIGN_MAX)) ||
        (boundary != 0 && (!loam_is_power_of_two(boundary) || boundary < count)) ||
        (request->flags & ~(uint32_t)(LOAM_FRAME_AT | LOAM_FRAME_IN_SECTION)) != 0) {
        return false;
    }
    if ((request->flags & LOAM_FRAME_AT) == 0) {
        return true;
    }
    return loam_fits(at, count, frame->pfn_end) && (align == 0 || loam_is_aligned(at, align)) &&
           (boundary == 0 || loam_align_down(at, boundary) == loam_align_down(at + count - 1, boundary)) &&
           (request->limit.value == 0 || loam_fits(at, count, request->limit.value));
}

/* LOAM_FRAME_AT: the one place, if it is free. */
static enum loam_error check_at(const struct loam_frame *frame, const struct loam_frame_request *request,
                                struct frame_section **section)
{
    uint64_t at = request->at.value;

    *section = find_section(frame, at);
    if (*section == NULL || !loam_fits(at, request->count_frames, (*section)->end)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) != 0 && (*section)->id != request->section) {
        return LOAM_ERROR_INVALID;
    }
    if (loam_frame_chunk_next_used(frame, *section, at) < at + request->count_frames) {
        return LOAM_ERROR_BUSY;
    }
    return LOAM_OK;
}

/* Where the request can be served. The request is valid. */
static enum loam_error find_place(struct loam_frame *frame, const struct loam_frame_request *request,
                                  struct frame_section **section, uint64_t *start)
{
    uint64_t limit = request->limit.value;
    struct frame_want want = {
        .count = request->count_frames,
        .align = request->align_frames == 0 ? 1 : request->align_frames,
        .boundary = request->boundary_frames,
        .ceiling = limit == 0 ? frame->pfn_end : frame_min(limit, frame->pfn_end),
    };
    bool found;

    if ((request->flags & LOAM_FRAME_IN_SECTION) != 0 && section_from_id(frame, request->section) == NULL) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if ((request->flags & LOAM_FRAME_AT) != 0) {
        *start = request->at.value;
        return check_at(frame, request, section);
    }
    if (limit == 0 || limit > frame->zone_end) {
        want.floor = reserve_floor(frame, want.count);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) != 0) {
        *section = section_from_id(frame, request->section);
        found = loam_frame_search_section(frame, *section, &want, start);
    } else {
        found = loam_frame_search(frame, &want, section, start);
    }
    return found ? LOAM_OK : LOAM_ERROR_EXHAUSTED;
}

enum loam_error loam_frame_alloc(struct loam_frame *frame, const struct loam_frame_request *request,
                                 struct loam_frame_block *block)
{
    struct frame_section *section = NULL;
    enum loam_error error;
    uint64_t start;

    *block = (struct loam_frame_block){0};
    if (!request_valid(frame, request)) {
        return LOAM_ERROR_INVALID;
    }
    lock(frame);
    error = find_place(frame, request, &section, &start);
    if (error == LOAM_OK) {
        loam_frame_chunk_take(frame, section, start, request->count_frames);
        block->start = loam_pfn_from_u64(start);
        block->count_frames = request->count_frames;
        block->section = section->id;
    }
    unlock(frame);
    return error;
}

enum loam_error loam_frame_alloc_order(struct loam_frame *frame, uint32_t order, loam_pfn *start)
{
    return loam_frame_alloc_order_below(frame, order, loam_pfn_from_u64(0), start);
}

enum loam_error loam_frame_alloc_order_below(struct loam_frame *frame, uint32_t order, loam_pfn limit, loam_pfn *start)
{
    uint64_t count = order <= LOAM_FRAME_ORDER_MAX ? UINT64_C(1) << order : 0; /* 0 is refused */
    struct loam_frame_request request = {.count_frames = count, .align_frames = count, .limit = limit};
    struct loam_frame_block block;
    enum loam_error error = loam_frame_alloc(frame, &request, &block);

    *start = block.start;
    return error;
}

enum loam_error loam_frame_free(struct loam_frame *frame, loam_pfn start, uint64_t count_frames)
{
    enum loam_error error = LOAM_OK;
    struct frame_section *section;
    struct frame_span block;

    lock(frame);
    section = find_section(frame, start.value);
    if (section == NULL) {
        error = LOAM_ERROR_NOT_FOUND;
    } else if (!loam_frame_chunk_block(frame, section, start.value, &block) || block.start != start.value ||
               block.count != count_frames) {
        error = LOAM_ERROR_INVALID;
    } else {
        loam_frame_chunk_release(frame, section, start.value, count_frames);
    }
    unlock(frame);
    return error;
}

/* --- What stands where ----------------------------------------------------------------------------------------- */

struct loam_frame_info loam_frame_query(const struct loam_frame *frame, loam_pfn pfn)
{
    struct loam_frame *locked = lock(frame);
    const struct frame_section *section = find_section(frame, pfn.value);
    struct loam_frame_info info = {.state = LOAM_FRAME_UNMANAGED};
    struct frame_span block;

    if (section != NULL) {
        info.state = LOAM_FRAME_FREE;
        info.section = section->id;
        if (loam_frame_chunk_block(frame, section, pfn.value, &block)) {
            info.state = LOAM_FRAME_ALLOCATED;
            info.tag = loam_frame_chunk_tag(frame, section, block);
            info.block.start = loam_pfn_from_u64(block.start);
            info.block.count_frames = block.count;
            info.block.section = section->id;
        }
    }
    unlock(locked);
    return info;
}

enum loam_error loam_frame_tag_set(struct loam_frame *frame, loam_pfn start, enum loam_frame_tag tag)
{
    enum loam_error error = LOAM_ERROR_INVALID;
    struct frame_section *section;
    struct frame_span block;

    if (tag != LOAM_FRAME_TAG_NONE && tag != LOAM_FRAME_TAG_SLAB) {
        return LOAM_ERROR_INVALID;
    }
    lock(frame);
    section = find_section(frame, start.value);
    if (section != NULL && loam_frame_chunk_block(frame, section, start.value, &block) && block.start == start.value) {
        loam_frame_chunk_set_tag(frame, section, block, tag);
        error = LOAM_OK;
    }
    unlock(frame);
    return error;
}

/* A frame that no section manages: in a section's prefix, or nowhere. */
static int describe_unmanaged(const struct loam_frame *frame, uint64_t pfn, char *text, size_t bytes)
{
    struct loam_frame *locked = lock(frame);
    int64_t n = loam_frame_index_of(frame, pfn);
    uint32_t id = n < 0 ? 0 : frame_indexes(frame)[n].id;
    bool in_prefix = n >= 0 && pfn < frame_sections(frame)[id].start;

    unlock(locked);
    if (in_prefix) {
        return snprintf(text, bytes, "frame 0x%llx holds the metadata of section %u", (unsigned long long)pfn, id);
    }
    return snprintf(text, bytes, "frame 0x%llx is in no section", (unsigned long long)pfn);
}

size_t loam_frame_describe(const struct loam_frame *frame, loam_pfn pfn, char *text, size_t bytes)
{
    struct loam_frame_info info = loam_frame_query(frame, pfn);
    unsigned long long at = pfn.value, start = info.block.start.value;
    int length;

    if (info.state == LOAM_FRAME_UNMANAGED) {
        length = describe_unmanaged(frame, pfn.value, text, bytes);
    } else if (info.state == LOAM_FRAME_FREE) {
        length = snprintf(text, bytes, "frame 0x%llx is free in section %u", at, info.section);
    } else {
        length =
            snprintf(text, bytes, "frame 0x%llx %s the allocated block [0x%llx, 0x%llx) of section %u%s", at,
                     at == start ? "starts" : "is inside", start, start + (unsigned long long)info.block.count_frames,
                     info.section, info.tag == LOAM_FRAME_TAG_SLAB ? ", tagged slab" : "");
    }
    return length < 0 ? 0 : (size_t)length;
}

enum loam_error loam_frame_next_free(const struct loam_frame *frame, loam_pfn from, struct loam_frame_range *range)
{
    struct loam_frame *locked = lock(frame);
    enum loam_error error = LOAM_ERROR_NOT_FOUND;
    int64_t n = loam_frame_index_of(frame, from.value);

    *range = (struct loam_frame_range){0};
    for (n = n < 0 ? 0 : n; n < frame->section_count; n++) {
        const struct frame_section *section = &frame_sections(frame)[frame_indexes(frame)[n].id];
        uint64_t start = loam_frame_chunk_next_free(frame, section, frame_max(from.value, section->start));

        if (start < section->end) {
            range->start = loam_pfn_from_u64(start);
            range->count_frames = loam_frame_chunk_next_used(frame, section, start) - start;
            error = LOAM_OK;
            break;
        }
    }
    unlock(locked);
    return error;
}

struct loam_frame_stats loam_frame_stats(const struct loam_frame *frame)
{
    struct loam_frame *locked = lock(frame);
    struct loam_frame_stats stats = {
        .section_count = frame->section_count,
        .free_frames_in_zone = {frame->free_frames[LOAM_FRAME_ZONE_DMA32], frame->free_frames[LOAM_FRAME_ZONE_NORMAL]},
        .dma32_reserve_frames = frame->dma32_reserve_frames,
        .free_chunks = frame->free_chunks,
        .metadata_bytes = frame->metadata_bytes,
    };

    for (uint32_t n = 0; n < frame->section_count; n++) {
        const struct frame_section *section = &frame_sections(frame)[frame_indexes(frame)[n].id];

        stats.total_frames += section->end - section->range_start;
        stats.managed_frames += section->end - section->start;
        stats.free_frames += section->free_frames;
        stats.metadata_bytes += section->metadata_bytes;
    }
    stats.allocated_frames = stats.managed_frames - stats.free_frames;
    unlock(locked);
    return stats;
}

uint32_t loam_frame_shift(const struct loam_frame *frame)
{
    return frame->frame_shift;
}

enum loam_error loam_frame_validate(const struct loam_frame *frame, struct loam_diag *diag)
{
    struct loam_frame *locked = lock(frame);
    enum loam_error error = loam_frame_validate_locked(frame, diag);

    unlock(locked);
    return error;
}
