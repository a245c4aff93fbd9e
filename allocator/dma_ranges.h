// SPDX-License-Identifier: Apache-2.0
/* Ranges of any bytes as runs of whole frames. No state: values only. */
#ifndef LOAM_DMA_RANGES_H
#define LOAM_DMA_RANGES_H

#include "loam/dma.h"

#include <stdbool.h>
#include <stdint.h>

/* What is wrong with all of them or with one, which has number *index then; NULL: nothing. */
const char *loam_dma_ranges_fault(const struct loam_dma_ranges *wanted, uint32_t *index);

/*
 * The lowest run of frames at or above from that the ranges, which have no fault, touch: as long as can be. False, and an
 * empty run: there is none. Runs do not touch each other: to go on, from is where the last one ended.
 */
bool loam_dma_ranges_next_run(const struct loam_dma_ranges *wanted, uint32_t frame_shift, uint64_t from,
                              struct loam_dma_range *run);

#endif
