// SPDX-License-Identifier: Apache-2.0
/* What a caller wants of dma: whether it makes sense, in frames, and in words. No state, no errors: values only. */
#ifndef LOAM_DMA_REQUEST_H
#define LOAM_DMA_REQUEST_H

#include "loam/dma.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 1 to LOAM_DMA_OWNER_MAX characters of printable ASCII: the name stands in lines of text, wherever they are printed. */
size_t loam_dma_owner_length(const char *owner); /* 0: it is no such name */

/* What is wrong with the request as such, whose owner's name has that length; NULL: nothing. */
const char *loam_dma_request_fault(const struct loam_dma_request *request, size_t owner_length, uint32_t frame_shift);

static inline uint64_t dma_request_count_frames(const struct loam_dma_request *request, uint32_t frame_shift)
{
    return (request->bytes + (UINT64_C(1) << frame_shift) - 1) >> frame_shift;
}

/* The request, which has no fault, in frames. */
struct loam_frame_request loam_dma_request_frames(const struct loam_dma_request *request, uint32_t frame_shift);

/* Into text what the request, which has no fault, says, such as: "rings": 8192 bytes, aligned to 0x1000. Cut at size. */
void loam_dma_request_describe(const struct loam_dma_request *request, char *text, size_t size);

#endif
