// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: each entry of the ledger is one allocated block of the frame allocator:
 *     start == gpa >> frame shift, count_frames == bytes >> frame shift
 *
 * A buffer's frames are allocated before it is entered, and its entry is held from before they are freed until it is struck
 * out: what the ledger shows is allocated, whenever one looks.
 *
 * Locks: the ledger's, then the frame allocator's own. The map's views are taken with or without it.
 */
#include "loam/dma.h"

#include "allocator/dma_ledger.h"
#include "allocator/dma_ranges.h"
#include "allocator/dma_request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct loam_dma {
    struct loam_frame *frame;
    struct loam_gpa_map *map;
    struct loam_dma_supply supply; /* populate is NULL: none */
    uint64_t serial;               /* no other ledger of the process has it, or had it; not 0 */
    uint32_t frame_shift;
    struct dma_ledger ledger;
};

/* The ledger is const to those who only look; its locks never are. */
static struct dma_ledger *ledger_of(const struct loam_dma *dma)
{
    return &((struct loam_dma *)(uintptr_t)dma)->ledger;
}

/* --- Refusals ----------------------------------------------------------------------------------------------------- */

/* Who has what LOAM_DMA_AT asked for; cut at size. */
static void describe_holder(const struct loam_dma *dma, const struct loam_dma_request *request, char *text, size_t size)
{
    struct loam_dma_entry holder;

    if (loam_dma_next(dma, request->at, &holder) == LOAM_OK &&
        holder.buffer.gpa.value < request->at.value + request->bytes) {
        snprintf(text, size, "taken by \"%s\" at GPA %#" PRIx64 ": release it or choose another place", holder.owner,
                 holder.buffer.gpa.value);
    } else {
        snprintf(text, size, "taken by a block outside the ledger: choose another place");
    }
}

/* Why a request without fault was refused; cause: what the supply said, NULL: it was not asked. */
static enum loam_error refuse(struct loam_dma *dma, const struct loam_dma_request *request, enum loam_error error,
                              const struct loam_diag *cause, struct loam_diag *diag)
{
    char wanted[256], reason[160] = "";
    bool suspect;

    if (cause != NULL) {
        loam_dma_request_describe(request, wanted, sizeof wanted);
        if (diag != NULL) {
            *diag = *cause;
            snprintf(diag->text, sizeof diag->text, "dma buffer %s: %.240s", wanted, cause->text);
        }
        return error;
    }
    switch (error) {
    case LOAM_ERROR_INVALID:
        snprintf(reason, sizeof reason, "the place contradicts the alignment, the boundary or the limit");
        break;
    case LOAM_ERROR_NOT_FOUND:
        snprintf(reason, sizeof reason, "not all of that is RAM in one piece");
        break;
    case LOAM_ERROR_BUSY:
        describe_holder(dma, request, reason, sizeof reason);
        break;
    case LOAM_ERROR_EXHAUSTED:
        snprintf(reason, sizeof reason, "no free range fits: release buffers, ask for less or give the guest more RAM");
        break;
    case LOAM_ERROR_NOT_PERMITTED:
        snprintf(reason, sizeof reason,
                 "the frames found are not writable memory in one region of the GPA map, or are closed to buffers");
        break;
    case LOAM_ERROR_SYSTEM:
        snprintf(reason, sizeof reason, "heap memory for the ledger wanted");
        errno = ENOMEM; /* whatever has happened to it since */
        break;
    default:
        suspect = loam_dma_ledger_suspect(&dma->ledger);
        snprintf(reason, sizeof reason, "the %s says %s: loam_%s_validate knows more",
                 suspect ? "ledger" : "frame allocator", loam_error_name(error), suspect ? "dma" : "frame");
        break;
    }
    loam_dma_request_describe(request, wanted, sizeof wanted);
    return loam_fail(diag, error, "dma buffer %s: %s", wanted, reason);
}

/* --- Carving ----------------------------------------------------------------------------------------------------- */

/* The region that the thread carved from last, as the map had it then. */
static _Thread_local struct {
    uint64_t serial; /* the ledger's; 0: none */
    uint64_t generation;
    struct loam_region region;
} seen __attribute__((tls_model("initial-exec")));

/*
 * Whether the buffer lies in the region that was seen last, and the map has not changed since: then it lies where that
 * says. Threads that carve at once would wait for each other's views: a view is counted up and down in one place.
 */
static bool place_as_seen(const struct loam_dma *dma, struct loam_dma_buffer *buffer)
{
    uint64_t offset_bytes = buffer->gpa.value - seen.region.start.value;

    if (seen.serial != dma->serial || seen.generation != loam_gpa_map_generation(dma->map) ||
        !loam_fits(offset_bytes, buffer->bytes, seen.region.bytes)) {
        return false;
    }
    buffer->hva = (char *)seen.region.hva + offset_bytes;
    return true;
}

/* The buffer lies in a region that may be written. */
static void see(const struct loam_dma *dma, const struct loam_gpa_view *view, loam_gpa gpa)
{
    seen.serial = loam_gpa_view_find(view, gpa, &seen.region) == LOAM_OK ? dma->serial : 0;
    seen.generation = loam_gpa_view_generation(view);
}

/* Where the map has the buffer, zeroed on the way if wanted: the view is held until the last byte is written. */
static enum loam_error place(struct loam_dma *dma, struct loam_dma_buffer *buffer, bool zero)
{
    const struct loam_gpa_view *view;
    enum loam_error error;

    if (!zero && place_as_seen(dma, buffer)) {
        return LOAM_OK;
    }
    view = loam_gpa_map_acquire(dma->map);
    error = loam_gpa_view_translate(view, buffer->gpa, buffer->bytes, LOAM_ACCESS_WRITE, &buffer->hva);
    if (error == LOAM_OK && zero) {
        memset(buffer->hva, 0, buffer->bytes);
    } else if (error == LOAM_OK) {
        see(dma, view, buffer->gpa);
    }
    loam_gpa_map_release(dma->map, view);
    return error == LOAM_OK ? LOAM_OK : LOAM_ERROR_NOT_PERMITTED;
}

/* Through the cache, if there is one. */
static enum loam_error free_frames(struct loam_dma *dma, struct loam_frame_cache *cache,
                                   const struct loam_dma_buffer *buffer)
{
    loam_pfn start = loam_pfn_from_gpa(buffer->gpa, dma->frame_shift);
    uint64_t count_frames = buffer->bytes >> dma->frame_shift;

    return cache != NULL ? loam_frame_cache_free(cache, start, count_frames)
                         : loam_frame_free(dma->frame, start, count_frames);
}

/* Out of the request's cache, which has blocks of 2^n frames, aligned to their size. False: it does not serve it. */
static bool take_cached(const struct loam_dma *dma, const struct loam_dma_request *request,
                        struct loam_frame_block *block)
{
    uint64_t count_frames = dma_request_count_frames(request, dma->frame_shift);
    loam_pfn limit = loam_pfn_from_gpa(request->limit, dma->frame_shift);

    if (request->cache == NULL || !loam_is_power_of_two(count_frames) ||
        request->align_bytes >> dma->frame_shift > count_frames ||
        (request->flags & (LOAM_DMA_AT | LOAM_DMA_IN)) != 0 ||
        (request->limit.value != 0 && limit.value < count_frames)) {
        return false;
    }
    block->count_frames = count_frames;
    block->flags = 0;
    return loam_frame_cache_alloc(request->cache, (uint32_t)__builtin_ctzll(count_frames), limit, &block->start) ==
           LOAM_OK;
}

/* If it fails, somebody has freed the frames past the ledger: there is nothing left to undo. */
static void give_frames_back(struct loam_dma *dma, const struct loam_dma_buffer *buffer)
{
    enum loam_error ignored = free_frames(dma, NULL, buffer);

    (void)ignored;
}

/* Memory behind all of the block, which is the caller's. */
static enum loam_error supply(struct loam_dma *dma, const struct loam_frame_block *block, struct loam_diag *cause)
{
    loam_gpa start = loam_gpa_from_pfn(block->start, dma->frame_shift);
    enum loam_error error =
        dma->supply.populate(dma->supply.self, start, block->count_frames << dma->frame_shift, cause);

    return error == LOAM_OK ? loam_frame_set_backed(dma->frame, block->start, block->count_frames) : error;
}

/* In the section that has request->at; if another has its id meanwhile, in none. */
static enum loam_error take_in_section(const struct loam_dma *dma, const struct loam_dma_request *request,
                                       struct loam_frame_request *frames, struct loam_frame_block *block)
{
    struct loam_frame_section section;
    enum loam_error error =
        loam_frame_section_find(dma->frame, loam_pfn_from_gpa(request->at, dma->frame_shift), &section);

    if (error != LOAM_OK) {
        return error;
    }
    frames->flags |= LOAM_FRAME_IN_SECTION;
    frames->section = section.id;
    error = loam_frame_alloc(dma->frame, frames, block);
    if (error == LOAM_OK && block->start.value - section.start.value >= section.managed_frames) {
        enum loam_error ignored = loam_frame_free(dma->frame, block->start, block->count_frames);

        (void)ignored;
        error = LOAM_ERROR_NOT_FOUND;
    }
    return error;
}

/* One block for the request, which has no fault, out of the allocator. */
static enum loam_error take_frames(const struct loam_dma *dma, const struct loam_dma_request *request,
                                   struct loam_frame_block *block)
{
    struct loam_frame_request frames = loam_dma_request_frames(request, dma->frame_shift);

    /* Rounded down, a limit may leave no room; it must not become the 0 that means none. */
    if (request->limit.value != 0 && frames.limit.value < frames.count_frames) {
        return (request->flags & LOAM_DMA_AT) != 0 ? LOAM_ERROR_INVALID : LOAM_ERROR_EXHAUSTED;
    }
    frames.flags |= dma->supply.populate == NULL ? (uint32_t)LOAM_FRAME_BACKED : 0;
    return (request->flags & LOAM_DMA_IN) != 0 ? take_in_section(dma, request, &frames, block)
                                               : loam_frame_alloc(dma->frame, &frames, block);
}

/* What the map has the buffer's memory as from now on. */
static enum loam_error set_type(struct loam_dma *dma, const struct loam_dma_buffer *buffer, enum loam_region_type type)
{
    struct loam_gpa_change change = {LOAM_CHANGE_RETYPE, {.start = buffer->gpa, .bytes = buffer->bytes, .type = type}};

    return loam_gpa_map_change(dma->map, &change, 1, NULL);
}

/*
 * Have the map say that an entered buffer is reserved. On failure it is struck out, and its frames are the caller's;
 * where it is gone already, another thread has released what it saw in the ledger, and that is its own affair.
 */
static enum loam_error reserve(struct loam_dma *dma, const struct loam_dma_buffer *buffer, struct loam_diag *cause)
{
    enum loam_error error = set_type(dma, buffer, LOAM_REGION_RESERVED);
    struct loam_dma_entry *entry;

    if (error == LOAM_OK || loam_dma_ledger_take(&dma->ledger, buffer->id, &entry) != LOAM_OK) {
        return LOAM_OK;
    }
    loam_dma_ledger_strike(&dma->ledger, entry);
    return loam_fail(
        cause, error, "%s",
        error == LOAM_ERROR_BUSY
            ? "readers hold every other table of the GPA map, which has to say that it is reserved: try again"
            : "the GPA map has no room for the rows that say that it is reserved: give it more regions");
}

/* A buffer for the request, with memory behind it, entered. On failure no frames are taken. */
static enum loam_error carve(struct loam_dma *dma, const struct loam_dma_request *request, size_t owner_length,
                             struct loam_dma_buffer *buffer, struct loam_diag *cause)
{
    struct loam_frame_block block;
    /* A cache's blocks are aligned to their size: where none is left, an odd place may do. */
    enum loam_error error = take_cached(dma, request, &block) ? LOAM_OK : take_frames(dma, request, &block);

    if (error != LOAM_OK) {
        return error;
    }
    buffer->gpa = loam_gpa_from_pfn(block.start, dma->frame_shift);
    buffer->bytes = block.count_frames << dma->frame_shift;
    if ((block.flags & LOAM_FRAME_BLOCK_RELEASED) != 0) {
        error = supply(dma, &block, cause);
    }
    if (error == LOAM_OK) {
        error = place(dma, buffer, (request->flags & LOAM_DMA_NO_ZERO) == 0);
    }
    if (error == LOAM_OK) {
        error = loam_dma_ledger_enter(&dma->ledger, buffer, request->owner, owner_length, request->flags);
    }
    if (error == LOAM_OK && (request->flags & LOAM_DMA_RESERVED) != 0) {
        error = reserve(dma, buffer, cause);
    }
    if (error != LOAM_OK) {
        give_frames_back(dma, buffer);
    }
    return error;
}

/* As set_type, for an entry that is reserved; of others the map has nothing to say. */
static enum loam_error set_type_of_reserved(struct loam_dma *dma, const struct loam_dma_entry *entry,
                                            enum loam_region_type type)
{
    return entry->reserved ? set_type(dma, &entry->buffer, type) : LOAM_OK;
}

/* An entry's frames, which are RAM again before they are another's. On failure all is as it was. */
static enum loam_error free_entry(struct loam_dma *dma, struct loam_frame_cache *cache,
                                  const struct loam_dma_entry *entry)
{
    enum loam_error error = set_type_of_reserved(dma, entry, LOAM_REGION_RAM);

    if (error != LOAM_OK) {
        return error;
    }
    error = free_frames(dma, cache, &entry->buffer);
    if (error != LOAM_OK) {
        enum loam_error ignored = set_type_of_reserved(dma, entry, LOAM_REGION_RESERVED);

        (void)ignored;
        error = error == LOAM_ERROR_BUSY ? LOAM_ERROR_BUSY : LOAM_ERROR_CORRUPT;
    }
    return error;
}

/* --- Lifecycle --------------------------------------------------------------------------------------------------- */

enum loam_error loam_dma_create(struct loam_frame *frame, struct loam_gpa_map *map, struct loam_dma **dma)
{
    static _Atomic uint64_t serial;
    struct loam_dma *made;

    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *dma = NULL;
    if (frame == NULL || map == NULL) {
        return LOAM_ERROR_INVALID;
    }
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        return LOAM_ERROR_SYSTEM;
    }
    made->frame = frame;
    made->map = map;
    made->serial = shared_add(serial, 1) + 1;
    made->frame_shift = loam_frame_shift(frame);
    *dma = made;
    return LOAM_OK;
}

void loam_dma_set_supply(struct loam_dma *dma, struct loam_dma_supply supply)
{
    if (dma != NULL) {
        dma->supply = supply;
    }
}

uint32_t loam_dma_destroy(struct loam_dma *dma)
{
    const struct loam_dma_entry *entry;
    uint32_t count = 0;

    if (dma == NULL) {
        return 0;
    }
    for (loam_gpa at = {0}; (entry = loam_dma_ledger_held_next(&dma->ledger, at)) != NULL;
         at = loam_dma_entry_end(entry)) {
        enum loam_error ignored = set_type_of_reserved(dma, entry, LOAM_REGION_RAM);

        (void)ignored;
        give_frames_back(dma, &entry->buffer);
        count++;
    }
    loam_dma_ledger_clear(&dma->ledger);
    free(dma);
    return count;
}

void loam_dma_freeze(struct loam_dma *dma)
{
    if (dma != NULL) {
        loam_dma_ledger_take_all(&dma->ledger);
    }
}

void loam_dma_thaw(struct loam_dma *dma)
{
    if (dma != NULL) {
        loam_dma_ledger_give_all_after_fork(&dma->ledger);
    }
}

/* --- Buffers ----------------------------------------------------------------------------------------------------- */

enum loam_error loam_dma_alloc(struct loam_dma *dma, const struct loam_dma_request *request,
                               struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_diag cause; /* long, and seldom said: only its error begins as something */
    enum loam_error error;
    size_t owner_length;
    const char *fault;

    if (buffer != NULL) {
        *buffer = (struct loam_dma_buffer){0};
    }
    if (dma == NULL || request == NULL || buffer == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "dma buffer: NULL given where a ledger, a request and a place are wanted");
    }
    owner_length = loam_dma_owner_length(request->owner);
    fault = loam_dma_request_fault(request, owner_length, dma->frame_shift);
    if (fault != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "dma buffer \"%.63s\" of %" PRIu64 " bytes: %s",
                         owner_length != 0 ? request->owner : "?", request->bytes, fault);
    }
    cause.error = LOAM_OK;
    error = carve(dma, request, owner_length, buffer, &cause);
    if (error != LOAM_OK) {
        *buffer = (struct loam_dma_buffer){0};
        return refuse(dma, request, error, cause.error != LOAM_OK ? &cause : NULL, diag);
    }
    return LOAM_OK;
}

/* Buffers that no caller has seen, kept or not: if it fails, somebody has freed the frames past the ledger. */
static void take_back(struct loam_dma *dma, const struct loam_dma_buffer *buffers, uint32_t count)
{
    struct loam_dma_entry *entry;

    while (count-- > 0) {
        if (loam_dma_ledger_take(&dma->ledger, buffers[count].id, &entry) != LOAM_OK) {
            continue;
        }
        if (free_entry(dma, NULL, entry) == LOAM_OK) {
            loam_dma_ledger_strike(&dma->ledger, entry);
        } else {
            loam_dma_ledger_give(&dma->ledger, entry);
        }
    }
}

/* All runs, or none; the ranges have no fault, and there is room for as many runs as there are. */
static enum loam_error carve_runs(struct loam_dma *dma, const struct loam_dma_ranges *wanted,
                                  struct loam_dma_buffer *buffers, struct loam_diag *diag)
{
    struct loam_dma_request request = {.owner = wanted->owner, .flags = wanted->flags | LOAM_DMA_AT};
    enum loam_error error = LOAM_OK;
    struct loam_dma_range run;
    uint32_t count = 0;

    for (uint64_t from = 0; error == LOAM_OK && loam_dma_ranges_next_run(wanted, dma->frame_shift, from, &run);
         from = run.start.value + run.bytes) {
        request.at = run.start;
        request.bytes = run.bytes;
        error = loam_dma_alloc(dma, &request, &buffers[count], diag);
        count += error == LOAM_OK;
    }
    if (error != LOAM_OK) {
        take_back(dma, buffers, count);
    }
    return error;
}

static uint32_t count_runs(const struct loam_dma *dma, const struct loam_dma_ranges *wanted)
{
    struct loam_dma_range run;
    uint32_t count = 0;

    for (uint64_t from = 0; loam_dma_ranges_next_run(wanted, dma->frame_shift, from, &run);
         from = run.start.value + run.bytes) {
        count++;
    }
    return count;
}

static void clear(struct loam_dma_buffer *buffers, uint32_t count)
{
    for (uint32_t i = 0; buffers != NULL && i < count; i++) {
        buffers[i] = (struct loam_dma_buffer){0};
    }
}

enum loam_error loam_dma_alloc_ranges(struct loam_dma *dma, const struct loam_dma_ranges *wanted,
                                      struct loam_dma_buffer *buffers, uint32_t capacity, uint32_t *count,
                                      struct loam_diag *diag)
{
    enum loam_error error;
    const char *fault;
    uint32_t index;

    if (count != NULL) {
        *count = 0;
    }
    clear(buffers, capacity);
    if (dma == NULL || wanted == NULL || count == NULL || (buffers == NULL && capacity > 0)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "dma ranges: NULL given where a ledger, ranges, buffers and their count are wanted");
    }
    fault = loam_dma_ranges_fault(wanted, &index);
    if (fault != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "dma ranges of \"%.63s\": number %" PRIu32 ": %s",
                         loam_dma_owner_length(wanted->owner) != 0 ? wanted->owner : "?", index, fault);
    }
    *count = count_runs(dma, wanted);
    if (*count > capacity) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                         "dma ranges of \"%.63s\": %" PRIu32 " runs of frames, and room for %" PRIu32 " buffers",
                         loam_dma_owner_length(wanted->owner) != 0 ? wanted->owner : "?", *count, capacity);
    }
    error = carve_runs(dma, wanted, buffers, diag);
    if (error != LOAM_OK) {
        clear(buffers, *count);
        *count = 0;
    }
    return error;
}

/* Why an entry cannot be released: pinned, or kept. */
static enum loam_error may_release(const struct loam_dma_entry *entry)
{
    if (entry->kept) {
        return LOAM_ERROR_NOT_PERMITTED;
    }
    return entry->pin_count != 0 ? LOAM_ERROR_BUSY : LOAM_OK;
}

enum loam_error loam_dma_release_into(struct loam_dma *dma, uint64_t id, struct loam_frame_cache *cache)
{
    struct loam_dma_entry *entry;
    enum loam_error error;

    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    error = loam_dma_ledger_take(&dma->ledger, id, &entry);
    if (error != LOAM_OK) {
        return error;
    }
    error = may_release(entry);
    if (error == LOAM_OK) {
        error = free_entry(dma, cache, entry);
    }
    if (error == LOAM_OK) {
        loam_dma_ledger_strike(&dma->ledger, entry);
    } else {
        loam_dma_ledger_give(&dma->ledger, entry);
    }
    return error;
}

enum loam_error loam_dma_release(struct loam_dma *dma, uint64_t id)
{
    return loam_dma_release_into(dma, id, NULL);
}

enum loam_error loam_dma_pin(struct loam_dma *dma, uint64_t id)
{
    struct loam_dma_entry *entry;
    enum loam_error error = dma != NULL ? loam_dma_ledger_take(&dma->ledger, id, &entry) : LOAM_ERROR_INVALID;

    if (error == LOAM_OK) {
        error = entry->pin_count == UINT32_MAX ? LOAM_ERROR_EXHAUSTED : LOAM_OK;
        entry->pin_count += error == LOAM_OK;
        loam_dma_ledger_give(&dma->ledger, entry);
    }
    return error;
}

enum loam_error loam_dma_unpin(struct loam_dma *dma, uint64_t id)
{
    struct loam_dma_entry *entry;
    enum loam_error error = dma != NULL ? loam_dma_ledger_take(&dma->ledger, id, &entry) : LOAM_ERROR_INVALID;

    if (error == LOAM_OK) {
        error = entry->pin_count == 0 ? LOAM_ERROR_INVALID : LOAM_OK;
        entry->pin_count -= error == LOAM_OK;
        loam_dma_ledger_give(&dma->ledger, entry);
    }
    return error;
}

/* --- The ledger -------------------------------------------------------------------------------------------------- */

uint32_t loam_dma_count(const struct loam_dma *dma)
{
    return dma != NULL ? loam_dma_ledger_count(ledger_of(dma)) : 0;
}

enum loam_error loam_dma_next(const struct loam_dma *dma, loam_gpa gpa, struct loam_dma_entry *entry)
{
    struct loam_frame_info info;

    if (entry == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *entry = (struct loam_dma_entry){0};
    if (dma == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (gpa.value >= LOAM_GPA_END) {
        return LOAM_ERROR_NOT_FOUND;
    }
    /* A buffer that holds gpa is filed where its block starts. */
    info = loam_frame_query(dma->frame, loam_pfn_from_gpa(gpa, dma->frame_shift));
    if (info.state == LOAM_FRAME_ALLOCATED) {
        gpa = loam_gpa_from_pfn(info.block.start, dma->frame_shift);
    }
    return loam_dma_ledger_next(ledger_of(dma), gpa, entry);
}

enum loam_error loam_dma_find(const struct loam_dma *dma, loam_gpa gpa, struct loam_dma_entry *entry)
{
    enum loam_error error = loam_dma_next(dma, gpa, entry);

    if (error == LOAM_OK && (gpa.value < entry->buffer.gpa.value ||
                             !loam_fits(gpa.value - entry->buffer.gpa.value, 1, entry->buffer.bytes))) {
        *entry = (struct loam_dma_entry){0};
        error = LOAM_ERROR_NOT_FOUND;
    }
    return error;
}

/* One entry against the allocator, and against the map as it is. */
static enum loam_error validate_entry(const struct loam_dma *dma, const struct loam_gpa_view *view,
                                      const struct loam_dma_entry *entry, struct loam_diag *diag)
{
    const struct loam_dma_buffer *buffer = &entry->buffer;
    loam_pfn start = loam_pfn_from_gpa(buffer->gpa, dma->frame_shift);
    struct loam_frame_info info = loam_frame_query(dma->frame, start);
    struct loam_piece piece = {0};
    char text[160];
    uint32_t count;

    if (info.state != LOAM_FRAME_ALLOCATED || info.block.start.value != start.value ||
        info.block.count_frames != buffer->bytes >> dma->frame_shift) {
        loam_frame_describe(dma->frame, start, text, sizeof text);
        return loam_fail(diag, LOAM_ERROR_CORRUPT,
                         "dma ledger: \"%s\" has %" PRIu64 " bytes at GPA %#" PRIx64 ", but %s", entry->owner,
                         buffer->bytes, buffer->gpa.value, text);
    }
    if (loam_gpa_view_pieces(view, buffer->gpa, buffer->bytes, LOAM_ACCESS_READ, &piece, 1, &count) != LOAM_OK ||
        piece.hva != buffer->hva) {
        return loam_fail(diag, LOAM_ERROR_CORRUPT,
                         "dma ledger: \"%s\" has %" PRIu64 " bytes at GPA %#" PRIx64
                         " and HVA %p, but the GPA map has them at %p, in %" PRIu32 " pieces",
                         entry->owner, buffer->bytes, buffer->gpa.value, buffer->hva, piece.hva, count);
    }
    return LOAM_OK;
}

enum loam_error loam_dma_validate(const struct loam_dma *dma, struct loam_diag *diag)
{
    const struct loam_dma_entry *entry;
    const struct loam_gpa_view *view;
    enum loam_error error;

    if (dma == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "dma ledger: NULL given where one is wanted");
    }
    loam_dma_ledger_take_all(ledger_of(dma));
    view = loam_gpa_map_acquire(dma->map);
    error = loam_dma_ledger_validate(&dma->ledger, diag);
    for (loam_gpa at = {0}; error == LOAM_OK && (entry = loam_dma_ledger_held_next(&dma->ledger, at)) != NULL;
         at = loam_dma_entry_end(entry)) {
        error = validate_entry(dma, view, entry, diag);
    }
    loam_gpa_map_release(dma->map, view);
    loam_dma_ledger_give_all(ledger_of(dma), error == LOAM_OK);
    return error;
}
