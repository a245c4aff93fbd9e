// SPDX-License-Identifier: Apache-2.0
/*
 * The allocator's public face, but for sections (frame_section.c), caches (frame_cache.c, frame_batch.c) and questions
 * (frame_query.c). Below it, each using only those before:
 *     frame_bits      the two bitmaps of a chunk
 *     frame_layout    what lies where in the metadata
 *     frame_spot      from frames, links and ids to records
 *     frame_lists     lists of chunks
 *     frame_buddy     whole chunks
 *     frame_chunk     partly used chunks, blocks
 *     frame_walk      from frame to frame
 *     frame_stop      how owners of caches are stopped; frame_lock
 *     frame_owner     chunks that caches own
 *     frame_return    blocks in them that others free
 *     frame_claim     chunks and frames taken back from caches
 *     frame_search    where a request can be served
 *     frame_block     requests and frees
 *     frame_front     the cache behind plain calls
 *     frame_validate  everything recounted
 */
#include "loam/frame.h"

#include "allocator/check.h"
#include "allocator/frame/frame_block.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_front.h"
#include "allocator/frame/frame_lend.h"
#include "allocator/frame/frame_lists.h"
#include "allocator/frame/frame_lock.h"
#include "allocator/frame/frame_validate.h"
#include "allocator/frame/frame_walk.h"

#include <inttypes.h>
#include <string.h>

#define ID_NONE UINT32_MAX

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/* A high mark alone would have no effect. */
static bool watermarks_valid(const struct loam_frame_watermarks *watermarks)
{
    return watermarks->low_frames == 0 ? watermarks->high_frames == 0
                                       : watermarks->low_frames <= watermarks->high_frames;
}

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
    if (config->cache_capacity == 0) {
        config->cache_capacity = 4;
    }
    return (config->frame_shift == 12 || config->frame_shift == 14 || config->frame_shift == 16) &&
           config->section_capacity <= LOAM_FRAME_SECTION_MAX && config->cache_capacity <= LOAM_FRAME_CACHE_MAX &&
           watermarks_valid(&config->watermarks[0]) && watermarks_valid(&config->watermarks[1]);
}

size_t loam_frame_bytes(const struct loam_frame_config *given)
{
    struct loam_frame_config config;

    if (!normalise_config(given, &config)) {
        return 0;
    }
    return sizeof(struct loam_frame) + config.cache_capacity * (size_t)FRAME_LENDER_BYTES +
           config.section_capacity * (sizeof(struct frame_section) + sizeof(struct frame_index));
}

static void init_constants(struct loam_frame *frame, const struct loam_frame_config *config)
{
    frame->magic = FRAME_MAGIC;
    frame->version = FRAME_VERSION;
    frame->zone_end = LOAM_DMA32_END_BYTES >> config->frame_shift;
    frame->pfn_end = LOAM_GPA_END >> config->frame_shift;
    frame->dma32_reserve_frames = config->dma32_reserve_frames;
    memcpy(frame->watermarks, config->watermarks, sizeof frame->watermarks);
    frame->metadata_bytes = loam_frame_bytes(config);
    frame->frame_shift = config->frame_shift;
    frame->section_capacity = config->section_capacity;
    frame->cache_capacity = config->cache_capacity;
    frame->seal = frame_seal_of_allocator(frame);
}

/* Nobody has them. Fresh memory is only read: it costs nothing before somebody comes. */
static void clear_lender_rooms(struct loam_frame *frame)
{
    for (uint32_t id = 0; id < frame->cache_capacity; id++) {
        uint64_t *first = (uint64_t *)frame_lender_room(frame, id);

        if (*first != 0) {
            *first = 0;
        }
    }
}

enum loam_error loam_frame_init(void *memory, size_t bytes, const struct loam_frame_config *given,
                                struct loam_frame **frame)
{
    struct loam_frame *made = memory;
    struct loam_frame_config config;

    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *frame = NULL;
    if (!normalise_config(given, &config) || memory == NULL || (uintptr_t)memory % LOAM_FRAME_METADATA_ALIGN != 0 ||
        bytes < loam_frame_bytes(given)) {
        return LOAM_ERROR_INVALID;
    }
    memset(made, 0, sizeof *made);
    init_constants(made, &config);
    made->unused_id = ID_NONE;
    memset(made->spare, 0xff, sizeof made->spare); /* FRAME_LINK_NONE */
    for (uint32_t zone = 0; zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        for (uint32_t lists = 0; lists < FRAME_LISTS_COUNT; lists++) {
            loam_frame_lists_init(&made->lists[zone][lists]);
        }
        for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
            made->front.window[order][zone] = frame_window_none;
        }
    }
    clear_lender_rooms(made);
    loam_frame_chunk_mark_pressure(made);
    *frame = made;
    return LOAM_OK;
}

enum loam_error loam_frame_attach(void *memory, size_t bytes, struct loam_frame **frame, struct loam_diag *diag)
{
    const struct loam_frame *found = memory;

    if (frame != NULL) {
        *frame = NULL;
    }
    if (memory == NULL || frame == NULL || (uintptr_t)memory % LOAM_FRAME_METADATA_ALIGN != 0 ||
        bytes < sizeof *found) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "frame allocator: %zu bytes given, at least %zu aligned to %d wanted: map all of its metadata",
                         bytes, sizeof *found, LOAM_FRAME_METADATA_ALIGN);
    }
    if (found->magic != FRAME_MAGIC) {
        return loam_fail(diag, LOAM_ERROR_UNINITIALISED,
                         "frame allocator: none here: magic 0x%" PRIx64 " found, 0x%" PRIx64 " wanted", found->magic,
                         FRAME_MAGIC);
    }
    if (found->version != FRAME_VERSION) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "frame allocator: layout version %u found, %u known: use the library that made it",
                         found->version, FRAME_VERSION);
    }
    if (found->seal != frame_seal_of_allocator(found)) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT, "frame allocator: its constants were changed");
    }
    if (bytes < found->metadata_bytes) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "frame allocator: %zu bytes given, it has %" PRIu64 ": map them all",
                         bytes, found->metadata_bytes);
    }
    *frame = memory;
    return LOAM_OK;
}

uint32_t loam_frame_shift(const struct loam_frame *frame)
{
    return frame != NULL ? frame->frame_shift : 0;
}

bool loam_frame_pressure(const struct loam_frame *frame, enum loam_frame_zone zone)
{
    return frame != NULL && (unsigned)zone < LOAM_FRAME_ZONE_COUNT && shared_load(frame->pressure[zone]) != 0;
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

/* The order of a request of ordinary shape, which the front may serve; above LOAM_FRAME_ORDER_MAX: it has another. */
static uint32_t plain_order(const struct loam_frame_request *request)
{
    uint64_t count = request->count_frames, align = request->align_frames;

    return (request->flags & ~(uint32_t)LOAM_FRAME_BACKED) == 0 && loam_is_power_of_two(count) &&
                   (align == 0 || (loam_is_power_of_two(align) && align <= count)) &&
                   (request->boundary_frames | request->section | request->at.value) == 0
               ? (uint32_t)__builtin_ctzll(count)
               : UINT32_MAX;
}

/* With the lock, taken plainly: out of what is left once the front is flushed. */
static enum loam_error alloc_flushed(struct loam_frame *frame, const struct loam_frame_request *request,
                                     struct loam_frame_block *block)
{
    loam_frame_front_flush(frame);
    return loam_frame_block_alloc(frame, request, block);
}

enum loam_error loam_frame_alloc(struct loam_frame *frame, const struct loam_frame_request *request,
                                 struct loam_frame_block *block)
{
    struct frame_spot spot;
    uint64_t start;

    if (block == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *block = (struct loam_frame_block){0};
    if (frame == NULL || request == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_plainly(frame, false)) {
        return LOAM_ERROR_CORRUPT;
    }
    if (!frame_front_take(frame, plain_order(request), request->limit.value, &start)) {
        return frame_unlock(frame, alloc_flushed(frame, request, block));
    }
    CHECK(frame_spot_find(frame, start, &spot));
    *block = (struct loam_frame_block){.start = loam_pfn_from_u64(start),
                                       .count_frames = request->count_frames,
                                       .section = spot.section->id,
                                       .flags = loam_frame_block_flags(frame, start, false)};
    return frame_unlock(frame, LOAM_OK);
}

enum loam_error loam_frame_alloc_order(struct loam_frame *frame, uint32_t order, loam_pfn *start)
{
    return loam_frame_alloc_order_below(frame, order, loam_pfn_from_u64(0), start);
}

/* With the lock, which is given up: what the front does not have. */
__attribute__((noinline)) static enum loam_error alloc_order_flushed(struct loam_frame *frame, uint32_t order,
                                                                     loam_pfn limit, loam_pfn *start)
{
    struct loam_frame_request request = frame_request_of_order(order, limit);
    struct loam_frame_block block;
    enum loam_error error = alloc_flushed(frame, &request, &block);

    *start = block.start;
    return frame_unlock(frame, error);
}

/* Where nothing is ready, or the lock is not free. */
__attribute__((noinline)) static enum loam_error alloc_order_slowly(struct loam_frame *frame, uint32_t order,
                                                                    loam_pfn limit, loam_pfn *start, bool locked)
{
    if (!frame_lock_plainly(frame, locked)) {
        *start = loam_pfn_from_u64(0);
        return LOAM_ERROR_CORRUPT;
    }
    return frame_front_take(frame, order, limit.value, &start->value) ? frame_unlock(frame, LOAM_OK)
                                                                      : alloc_order_flushed(frame, order, limit, start);
}

enum loam_error loam_frame_alloc_order_below(struct loam_frame *frame, uint32_t order, loam_pfn limit, loam_pfn *start)
{
    if (UNLIKELY(start == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    if (UNLIKELY(frame == NULL)) {
        *start = loam_pfn_from_u64(0);
        return LOAM_ERROR_INVALID;
    }
    if (UNLIKELY(!loam_lock_try(&frame->lock))) {
        return alloc_order_slowly(frame, order, limit, start, false);
    }
    if (UNLIKELY(frame->suspect != 0) || UNLIKELY(!frame_front_take_ready(frame, order, limit.value, &start->value))) {
        return alloc_order_slowly(frame, order, limit, start, true);
    }
    loam_lock_give(&frame->lock);
    return LOAM_OK;
}

/* Where the block is not one that was made and handed out, or the lock is not free. */
__attribute__((noinline)) static enum loam_error free_slowly(struct loam_frame *frame, uint64_t start, uint64_t count,
                                                             bool locked)
{
    enum loam_error error = LOAM_ERROR_NOT_FOUND;

    if (!frame_lock_plainly(frame, locked)) {
        return LOAM_ERROR_CORRUPT;
    }
    if (loam_is_power_of_two(count)) {
        error = frame_front_give(frame, start, (uint32_t)__builtin_ctzll(count));
    }
    if (error == LOAM_ERROR_NOT_FOUND) {
        error = loam_frame_block_free(frame, start, count);
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_free(struct loam_frame *frame, loam_pfn start, uint64_t count_frames)
{
    uint64_t order = (uint64_t)(unsigned)__builtin_ctzll(count_frames | UINT64_C(1) << 63);

    if (UNLIKELY(frame == NULL)) {
        return LOAM_ERROR_INVALID;
    }
    if (UNLIKELY(!loam_lock_try(&frame->lock))) {
        return free_slowly(frame, start.value, count_frames, false);
    }
    if (UNLIKELY(frame->suspect != 0) || UNLIKELY(order >= FRAME_WINDOWS) ||
        UNLIKELY((count_frames & (count_frames - 1)) != 0) ||
        UNLIKELY(!frame_front_give_made(frame, start.value, order))) {
        return free_slowly(frame, start.value, count_frames, true);
    }
    loam_lock_give(&frame->lock);
    return LOAM_OK;
}

enum loam_error loam_frame_alloc_batch(struct loam_frame *frame, uint32_t order, loam_pfn limit, loam_pfn *starts,
                                       size_t count)
{
    struct loam_frame_request request = frame_request_of_order(order, limit);
    enum loam_error error = request.count_frames == 0 ? LOAM_ERROR_INVALID : LOAM_OK;
    struct frame_pressure pressure;
    struct loam_frame_block block;
    size_t done = 0;

    if (frame == NULL || (starts == NULL && count > 0)) {
        return LOAM_ERROR_INVALID;
    }
    for (size_t n = 0; n < count; n++) {
        starts[n] = loam_pfn_from_u64(0);
    }
    if (!frame_lock_plainly(frame, false)) {
        return LOAM_ERROR_CORRUPT;
    }
    pressure = loam_frame_chunk_pressure(frame);
    while (error == LOAM_OK && done < count) {
        if (!frame_front_take(frame, order, limit.value, &starts[done].value)) {
            error = alloc_flushed(frame, &request, &block);
            starts[done] = block.start;
        }
        done += error == LOAM_OK;
    }
    if (error != LOAM_OK) {
        loam_frame_block_free_again(frame, order, starts, done);
        loam_frame_chunk_reset_pressure(frame, pressure);
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_free_batch(struct loam_frame *frame, uint32_t order, const loam_pfn *starts, size_t count,
                                      size_t *done_count)
{
    if (done_count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *done_count = 0;
    if (frame == NULL || (starts == NULL && count > 0)) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    return frame_unlock(frame, loam_frame_block_free_many(frame, order, starts, count, done_count));
}

/* --- Blocks that change ---------------------------------------------------------------------------------------- */

/* Whether the frames [start + count, start + new_count) can come to the block. */
static enum loam_error check_growth(struct loam_frame *frame, struct frame_section *section, uint64_t start,
                                    uint64_t count, uint64_t new_count)
{
    uint64_t from = start + count, to = start + new_count;

    if (to > section->end) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if (section->use == FRAME_CLOSED) {
        return LOAM_ERROR_NOT_PERMITTED;
    }
    if (loam_frame_lend_recall(frame, section, from, to - from) != LOAM_OK ||
        loam_frame_walk_used(frame, section, from, to, FRAME_VIEW_SHARED) < to) {
        return LOAM_ERROR_BUSY;
    }
    if (section->use == FRAME_OPEN && to > frame->zone_end &&
        frame_dma32_part(frame, from, to - from) > loam_frame_block_budget(frame)) {
        return LOAM_ERROR_EXHAUSTED;
    }
    return LOAM_OK;
}

enum loam_error loam_frame_grow(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                uint64_t new_count_frames, uint32_t *flags)
{
    struct frame_section *section;
    enum loam_error error;
    bool released;

    if (flags != NULL) {
        *flags = 0;
    }
    if (frame == NULL || new_count_frames <= count_frames || new_count_frames > LOAM_FRAME_COUNT_MAX) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    error = loam_frame_block_find(frame, start.value, count_frames, &section);
    if (error == LOAM_OK) {
        error = check_growth(frame, section, start.value, count_frames, new_count_frames);
    }
    if (error == LOAM_ERROR_EXHAUSTED && loam_frame_lend_recall_all(frame)) {
        error = check_growth(frame, section, start.value, count_frames, new_count_frames);
    }
    if (error == LOAM_OK) {
        loam_frame_block_reshape(frame, section, start.value, count_frames, new_count_frames, 0);
        released = loam_frame_walk_released(frame, section, start.value, new_count_frames);
        if (flags != NULL) {
            *flags = loam_frame_block_flags(frame, start.value, released);
        }
    }
    return frame_unlock(frame, error);
}

/* Cut a block at first: the rest becomes a block of its own, or free. */
static enum loam_error cut(struct loam_frame *frame, loam_pfn start, uint64_t count, uint64_t first, bool keep)
{
    struct frame_section *section;
    enum loam_error error;

    if (frame == NULL || first == 0 || first >= count) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    error = loam_frame_block_find(frame, start.value, count, &section);
    if (error == LOAM_OK) {
        loam_frame_block_reshape(frame, section, start.value, count, first, keep ? count - first : 0);
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_trim(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                uint64_t new_count_frames)
{
    return cut(frame, start, count_frames, new_count_frames, false);
}

enum loam_error loam_frame_split(struct loam_frame *frame, loam_pfn start, uint64_t count_frames, uint64_t first_frames)
{
    return cut(frame, start, count_frames, first_frames, true);
}

enum loam_error loam_frame_tag_set(struct loam_frame *frame, loam_pfn start, enum loam_frame_tag tag)
{
    enum loam_error error = LOAM_ERROR_INVALID;
    struct frame_section *section;
    struct frame_span block = {0};
    struct frame_spot spot;

    if (frame == NULL || (tag != LOAM_FRAME_TAG_NONE && tag != LOAM_FRAME_TAG_SLAB)) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    if (!frame_spot_find(frame, start.value, &spot)) {
        return frame_unlock(frame, LOAM_ERROR_INVALID);
    }
    spot = loam_frame_spot_head(frame, spot.section, spot.index);
    if (loam_frame_block_at(frame, &spot, start.value, &block) && block.start == start.value) {
        error = loam_frame_block_find(frame, block.start, block.count, &section);
    }
    if (error == LOAM_OK) {
        loam_frame_chunk_set_tag(frame, spot.section, block, tag);
    }
    return frame_unlock(frame, error);
}

/* --- Reclaim --------------------------------------------------------------------------------------------------- */

/* Every chunk that the block touches is released from now on, or backed. */
static void set_released(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count,
                         uint8_t released)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t index = frame_chunk_index(section, start);

    while (index < end) {
        struct frame_spot spot = frame_spot_at(frame, section, index);
        bool listed = spot.chunk->state == FRAME_CHUNK_PARTIAL && spot.chunk->list != FRAME_LIST_NONE;

        if (listed) {
            loam_frame_lists_remove(frame, frame_lists_of(frame, &spot), &spot);
        }
        spot.chunk->released = released;
        if (listed) {
            loam_frame_lists_file(frame, frame_lists_of(frame, &spot), &spot);
        }
        index += frame_spot_chunks(&spot);
    }
}

enum loam_error loam_frame_free_released(struct loam_frame *frame, loam_pfn start, uint64_t count_frames)
{
    struct frame_section *section;
    enum loam_error error;

    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    error = loam_frame_block_find(frame, start.value, count_frames, &section);
    if (error == LOAM_OK && (frame_offset(start.value) != 0 || frame_offset(count_frames) != 0)) {
        error = LOAM_ERROR_INVALID;
    }
    if (error == LOAM_OK) {
        frame->released_ever = 1;
        set_released(frame, section, start.value, count_frames, FRAME_YES);
        loam_frame_chunk_release(frame, section, start.value, count_frames);
    }
    return frame_unlock(frame, error);
}

enum loam_error loam_frame_set_backed(struct loam_frame *frame, loam_pfn start, uint64_t count_frames)
{
    struct frame_section *section;
    enum loam_error error;

    if (frame == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (!frame_lock_to_change(frame)) {
        return LOAM_ERROR_CORRUPT;
    }
    error = loam_frame_block_find(frame, start.value, count_frames, &section);
    if (error == LOAM_OK) {
        set_released(frame, section, start.value, count_frames, 0);
    }
    return frame_unlock(frame, error);
}

void loam_frame_freeze(struct loam_frame *frame)
{
    if (frame == NULL) {
        return;
    }
    frame_lock(frame);
    (void)loam_frame_lend_settle(frame, true);
}

void loam_frame_thaw(struct loam_frame *frame)
{
    if (frame == NULL) {
        return;
    }
    loam_frame_lend_resume(frame);
    loam_lock_give_after_fork(&frame->lock);
}

enum loam_error loam_frame_validate(const struct loam_frame *frame, struct loam_diag *diag)
{
    struct loam_frame *locked;
    enum loam_error error;

    if (frame == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "allocator: NULL given");
    }
    locked = frame_lock_bare(frame);
    error = loam_frame_validate_header(locked, diag);
    if (error != LOAM_OK) {
        /* Not even lenders are let go on: there is no telling where they are. */
        loam_lock_give(&locked->lock);
        return error;
    }
    error = loam_frame_validate_locked(locked, diag);
    if (error == LOAM_OK) {
        locked->suspect = 0;
    }
    locked->stopped = 1;
    return frame_unlock(locked, error);
}
