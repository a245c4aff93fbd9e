// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ALIGN_MAX_BYTES (4 * LOAM_GIB)

size_t loam_dma_owner_length(const char *owner)
{
    size_t length = 0;

    if (owner == NULL) {
        return 0;
    }
    while (length <= LOAM_DMA_OWNER_MAX && (unsigned char)(owner[length] - ' ') <= '~' - ' ') {
        length++;
    }
    return length <= LOAM_DMA_OWNER_MAX && owner[length] == '\0' ? length : 0;
}

const char *loam_dma_request_fault(const struct loam_dma_request *request, size_t owner_length, uint32_t frame_shift)
{
    if (owner_length == 0) {
        return "the owner's name has to be 1 to 63 printable ASCII characters";
    }
    if (request->bytes == 0 || request->bytes > LOAM_FRAME_COUNT_MAX << frame_shift) {
        return "the size has to be from 1 byte to 2^20 frames";
    }
    if (request->align_bytes != 0 &&
        (!loam_is_power_of_two(request->align_bytes) || request->align_bytes > ALIGN_MAX_BYTES)) {
        return "the alignment has to be a power of two up to 4 GiB";
    }
    if (request->boundary_bytes != 0 &&
        (!loam_is_power_of_two(request->boundary_bytes) || request->boundary_bytes < request->bytes)) {
        return "the boundary has to be a power of two and at least the size";
    }
    if ((request->flags &
         ~(uint32_t)(LOAM_DMA_AT | LOAM_DMA_NO_ZERO | LOAM_DMA_KEEP | LOAM_DMA_RESERVED | LOAM_DMA_IN)) != 0) {
        return "a flag is not known";
    }
    if ((request->flags & (LOAM_DMA_AT | LOAM_DMA_IN)) == 0 && request->at.value != 0) {
        return "a place is named in at, which counts only with the flag LOAM_DMA_AT or LOAM_DMA_IN: set one, or leave "
               "at 0";
    }
    if ((request->flags & LOAM_DMA_AT) != 0 && (request->flags & LOAM_DMA_IN) != 0) {
        return "LOAM_DMA_AT names the place itself, LOAM_DMA_IN the section that it lies in: set one of them";
    }
    if (!loam_is_aligned(request->at.value, UINT64_C(1) << frame_shift)) {
        return "the place has to be a multiple of the frame size";
    }
    return NULL;
}

struct loam_frame_request loam_dma_request_frames(const struct loam_dma_request *request, uint32_t frame_shift)
{
    struct loam_frame_request frames = {
        .count_frames = dma_request_count_frames(request, frame_shift),
        .align_frames = request->align_bytes >> frame_shift,
        .boundary_frames = request->boundary_bytes >> frame_shift,
        .limit = loam_pfn_from_gpa(request->limit, frame_shift),
    };

    if ((request->flags & LOAM_DMA_AT) != 0) {
        frames.flags = LOAM_FRAME_AT;
        frames.at = loam_pfn_from_gpa(request->at, frame_shift);
    }
    return frames;
}

void loam_dma_request_describe(const struct loam_dma_request *request, char *text, size_t size)
{
    const struct {
        const char *words;
        uint64_t value;
        bool said;
    } parts[] = {
        {", aligned to", request->align_bytes, request->align_bytes != 0},
        {", crossing no multiple of", request->boundary_bytes, request->boundary_bytes != 0},
        {", ending at or below GPA", request->limit.value, request->limit.value != 0},
        {", at GPA", request->at.value, (request->flags & LOAM_DMA_AT) != 0},
        {", in the section of GPA", request->at.value, (request->flags & LOAM_DMA_IN) != 0},
    };
    size_t used;

    snprintf(text, size, "\"%s\": %" PRIu64 " bytes", request->owner, request->bytes);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        used = strlen(text);
        if (parts[i].said) {
            snprintf(text + used, size - used, "%s %#" PRIx64, parts[i].words, parts[i].value);
        }
    }
}
