// SPDX-License-Identifier: Apache-2.0
/* What a caller wants of dma: whether it makes sense, in frames, and in words. No state, no errors: values only. */
#ifndef LOAM_DMA_REQUEST_H
#define LOAM_DMA_REQUEST_H

#include "loam/dma.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 1 to LOAM_DMA_OWNER_MAX characters of printable ASCII: the name stands in lines of text, wherever they are printed. */
bool loam_dma_owner_valid(const char *owner);

/* What is wrong with the request as such; NULL: nothing. */
const char *loam_dma_request_fault(const struct loam_dma_request *request, uint32_t frame_shift);

/* The request, which has no fault, in frames. */
struct loam_frame_request loam_dma_request_frames(const struct loam_dma_request *request, uint32_t frame_shift);

/* Into text what the request, which has no fault, says, such as: "rings": 8192 bytes, aligned to 0x1000. Cut at size. */
void loam_dma_request_describe(const struct loam_dma_request *request, char *text, size_t size);

#endif
