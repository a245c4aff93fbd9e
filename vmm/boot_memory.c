// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_memory.h"

#include "loam/dma.h"
#include "loam/frame.h"
#include "loam/gpa_map.h"
#include "loam/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* --- All or nothing ---------------------------------------------------------------------------------------------- */

void boot_memory_begin(struct boot_memory *carved, struct loam_memory *memory)
{
    carved->memory = memory;
    carved->buffer_count = 0;
}

void boot_memory_undo(struct boot_memory *carved)
{
    while (carved->buffer_count > 0) {
        uint64_t id = carved->ids[--carved->buffer_count];
        enum loam_error error = loam_dma_release(loam_memory_dma(carved->memory), id);

        /* Nobody else has seen the id: nobody can have pinned or released the buffer. */
        (void)error;
    }
}

/* --- Carving ----------------------------------------------------------------------------------------------------- */

/* What a refusal of the ledger means to a caller of boot_load. */
static enum loam_error error_from_dma(enum loam_error error)
{
    switch (error) {
    case LOAM_ERROR_NOT_FOUND:
    case LOAM_ERROR_NOT_PERMITTED:
        return LOAM_ERROR_INVALID;
    case LOAM_ERROR_BUSY:
        return LOAM_ERROR_EXHAUSTED;
    default:
        return error;
    }
}

static uint64_t whole_mib(uint64_t bytes)
{
    return bytes / LOAM_MIB + (bytes % LOAM_MIB != 0);
}

void boot_memory_advise(struct loam_memory *memory, uint64_t end, struct boot_memory_advice *advice)
{
    const struct loam_memory_request *request = &loam_memory_plan(memory)->request;
    uint64_t mib = whole_mib(end);

    if (end > LOAM_LOW_LIMIT_MAX_BYTES && end <= LOAM_DMA32_END_BYTES) {
        snprintf(advice->text, sizeof advice->text,
                 "from 3 to 4 GiB devices have their addresses, and there is no RAM");
    } else if (end <= LOAM_LOW_LIMIT_MAX_BYTES && end > request->low_limit_bytes) {
        snprintf(advice->text, sizeof advice->text,
                 "RAM below 4 GiB ends at %" PRIu64 " MiB: raise --low-limit to %" PRIu64 "M%s",
                 request->low_limit_bytes / LOAM_MIB, mib, end > request->bytes ? ", and --memory to as much" : "");
    } else if (end <= LOAM_LOW_LIMIT_MAX_BYTES && end > request->bytes) {
        snprintf(advice->text, sizeof advice->text, "the guest has %" PRIu64 " MiB: raise --memory to %" PRIu64 "M",
                 request->bytes / LOAM_MIB, mib);
    } else {
        snprintf(advice->text, sizeof advice->text, "give the guest more memory");
    }
}

static enum loam_error explain(const struct boot_memory *carved, const struct loam_dma_request *request,
                               enum loam_error error, const struct loam_diag *found, struct loam_diag *diag)
{
    uint64_t end = request->at.value + request->bytes; /* both were checked by who asks, if error is NOT_FOUND */
    struct boot_memory_advice advice;

    if (error == LOAM_ERROR_SYSTEM) {
        if (diag != NULL) {
            *diag = *found;
        }
        return error;
    }
    if (error == LOAM_ERROR_NOT_FOUND && (request->flags & LOAM_DMA_AT) != 0) {
        boot_memory_advise(carved->memory, end, &advice);
        return loam_fail(diag, error_from_dma(error),
                         "%s: guest memory [0x%" PRIx64 ", 0x%" PRIx64 ") wanted, and not all of that is RAM: %s",
                         request->owner, request->at.value, end, advice.text);
    }
    if ((request->flags & LOAM_DMA_AT) != 0) {
        return loam_fail(diag, error_from_dma(error),
                         "%s: guest memory [0x%" PRIx64 ", 0x%" PRIx64 ") wanted, but it cannot be had: %s",
                         request->owner, request->at.value, end, found->text);
    }
    return loam_fail(diag, error_from_dma(error), "%s: %" PRIu64 " bytes of guest memory wanted: %s", request->owner,
                     request->bytes, found->text);
}

enum loam_error boot_memory_carve(struct boot_memory *carved, const struct loam_dma_request *request,
                                  struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_diag found = {0};
    enum loam_error error;

    *buffer = (struct loam_dma_buffer){0};
    if (carved->buffer_count == BOOT_MEMORY_BUFFER_MAX) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "%s: more than %d separate ranges of guest memory wanted",
                         request->owner, BOOT_MEMORY_BUFFER_MAX);
    }
    error = loam_dma_alloc(loam_memory_dma(carved->memory), request, buffer, &found);
    if (error != LOAM_OK) {
        return explain(carved, request, error, &found, diag);
    }
    carved->ids[carved->buffer_count++] = buffer->id;
    return LOAM_OK;
}

/* --- As high as may be -------------------------------------------------------------------------------------------- */

/* Where the request ends up in the highest free range that has room for it; 0, which is never free: nowhere. */
static uint64_t find_high(const struct boot_memory *carved, const struct loam_dma_request *request)
{
    const struct loam_frame *frame = loam_memory_frame(carved->memory);
    uint32_t shift = loam_frame_shift(frame);
    uint64_t unit = UINT64_C(1) << shift, align = request->align_bytes > unit ? request->align_bytes : unit;
    uint64_t bytes = loam_align_up(request->bytes, unit), limit = loam_align_down(request->limit.value, unit);
    uint64_t from = 0, found = 0;
    struct loam_frame_range range;

    while (from < limit &&
           loam_frame_next_free(frame, loam_pfn_from_gpa(loam_gpa_from_u64(from), shift), &range) == LOAM_OK) {
        uint64_t start = range.start.value << shift, end = (range.start.value + range.count_frames) << shift;
        uint64_t top = end < limit ? end : limit;

        if (start < top && bytes <= top - start && loam_align_down(top - bytes, align) >= start) {
            found = loam_align_down(top - bytes, align);
        }
        from = end;
    }
    return found;
}

static enum loam_error explain_size(const struct boot_memory *carved, const struct loam_dma_request *request,
                                    struct loam_diag *diag)
{
    const struct loam_frame *frame = loam_memory_frame(carved->memory);
    uint32_t shift = loam_frame_shift(frame);
    struct loam_frame_range largest = {0};
    loam_pfn limit = loam_pfn_from_gpa(request->limit, shift);
    const struct loam_plan *plan = loam_memory_plan(carved->memory);
    struct boot_memory_advice advice;
    uint64_t free_bytes;

    if (loam_frame_largest_free(frame, limit, &largest) != LOAM_OK) {
        largest.count_frames = 0;
    }
    free_bytes = largest.count_frames << shift;
    /* As much more as is missing, at the end of the RAM below 4 GiB. */
    boot_memory_advise(
        carved->memory,
        plan->hole_start.value + (request->bytes > free_bytes ? request->bytes - free_bytes : 0) + LOAM_MIB, &advice);
    return loam_fail(diag, LOAM_ERROR_EXHAUSTED,
                     "%s: %" PRIu64 " KiB of guest memory wanted below 0x%" PRIx64 ", and the largest free range there "
                     "has %" PRIu64 " KiB: %s%s",
                     request->owner, (request->bytes + 1023) / 1024, request->limit.value, free_bytes / 1024,
                     advice.text, strcmp(request->owner, BOOT_MEMORY_INITRD) == 0 ? ", or give a smaller initrd" : "");
}

enum loam_error boot_memory_carve_high(struct boot_memory *carved, const struct loam_dma_request *request,
                                       struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_dma_request there = {.owner = request->owner, .bytes = request->bytes};
    enum loam_error error;

    there.at = loam_gpa_from_u64(request->bytes > 0 && request->bytes <= LOAM_GPA_END ? find_high(carved, request) : 0);
    there.flags = request->flags | LOAM_DMA_AT;
    error = there.at.value != 0 ? boot_memory_carve(carved, &there, buffer, diag)
                                : boot_memory_carve(carved, request, buffer, diag);
    return error == LOAM_ERROR_EXHAUSTED && carved->buffer_count < BOOT_MEMORY_BUFFER_MAX
               ? explain_size(carved, request, diag)
               : error;
}

/* --- As low as may be --------------------------------------------------------------------------------------------- */

enum loam_error boot_memory_carve_above(struct boot_memory *carved, const struct loam_dma_request *request,
                                        loam_gpa from, struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    const struct loam_frame *frame = loam_memory_frame(carved->memory);
    uint32_t shift = loam_frame_shift(frame);
    uint64_t unit = UINT64_C(1) << shift, align = request->align_bytes > unit ? request->align_bytes : unit;
    struct loam_dma_request there = {
        .owner = request->owner, .bytes = request->bytes, .flags = request->flags | LOAM_DMA_AT};
    uint64_t at = loam_align_up(from.value, align);
    struct loam_frame_range range;
    enum loam_error error;

    *buffer = (struct loam_dma_buffer){0};
    while (at < request->limit.value &&
           loam_frame_next_free(frame, loam_pfn_from_gpa(loam_gpa_from_u64(at), shift), &range) == LOAM_OK) {
        there.at = loam_gpa_from_u64(loam_align_up(loam_gpa_from_pfn(range.start, shift).value, align));
        if (loam_fits(there.at.value, request->bytes, request->limit.value)) {
            error = boot_memory_carve(carved, &there, buffer, NULL);
            if (error == LOAM_OK) {
                return LOAM_OK;
            }
            if (error == LOAM_ERROR_SYSTEM) {
                return loam_fail(diag, error, "%s", request->owner);
            }
        }
        at = loam_gpa_from_pfn(loam_pfn_from_u64(range.start.value + range.count_frames), shift).value;
    }
    return LOAM_ERROR_EXHAUSTED;
}

/* --- What all loaders place ------------------------------------------------------------------------------------- */

enum loam_error boot_memory_load_initrd(struct boot_memory *carved, const struct boot_file *initrd, loam_gpa limit,
                                        loam_gpa *start, struct loam_diag *diag)
{
    struct loam_dma_request request = {
        .owner = BOOT_MEMORY_INITRD, .bytes = initrd->bytes, .limit = limit, .flags = LOAM_DMA_NO_ZERO};
    struct loam_dma_buffer buffer;
    enum loam_error error;

    *start = loam_gpa_from_u64(0);
    if (initrd->bytes == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "initrd: the file is empty: give one with contents, or none");
    }
    error = boot_memory_carve_high(carved, &request, &buffer, diag);
    if (error != LOAM_OK) {
        return error;
    }
    memcpy(buffer.hva, initrd->data, initrd->bytes);
    memset((uint8_t *)buffer.hva + initrd->bytes, 0, buffer.bytes - initrd->bytes);
    *start = buffer.gpa;
    return LOAM_OK;
}

enum loam_error boot_memory_e820(const struct boot_memory *carved, struct loam_e820_entry entries[BOOT_MEMORY_E820_MAX],
                                 uint32_t *count, struct loam_diag *diag)
{
    struct loam_gpa_map *map = loam_memory_map(carved->memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    enum loam_error error = loam_gpa_view_e820(view, entries, BOOT_MEMORY_E820_MAX, count);

    loam_gpa_map_release(map, view);
    if (error != LOAM_OK) {
        error = loam_fail(diag, error, "E820 map: %u rows, and boot parameters hold %d: use fewer memory ranges",
                          *count, BOOT_MEMORY_E820_MAX);
        *count = 0;
    }
    return error;
}
