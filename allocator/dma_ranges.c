// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_ranges.h"

#include <stddef.h>

const char *loam_dma_ranges_fault(const struct loam_dma_ranges *wanted, uint32_t *index)
{
    *index = 0;
    if (wanted->ranges == NULL && wanted->range_count > 0) {
        return "NULL given where ranges are wanted";
    }
    if ((wanted->flags & ~(uint32_t)(LOAM_DMA_NO_ZERO | LOAM_DMA_KEEP)) != 0) {
        return "of the flags, LOAM_DMA_NO_ZERO and LOAM_DMA_KEEP have a meaning for ranges";
    }
    for (; *index < wanted->range_count; ++*index) {
        const struct loam_dma_range *range = &wanted->ranges[*index];

        if (!loam_gpa_range_valid(range->start, range->bytes)) {
            return "a range has to have a byte at least, and to end at or below 2^52";
        }
    }
    return NULL;
}

static uint64_t first_frame_of(const struct loam_dma_range *range, uint32_t frame_shift)
{
    return loam_align_down(range->start.value, UINT64_C(1) << frame_shift);
}

static uint64_t end_of(const struct loam_dma_range *range, uint32_t frame_shift)
{
    return loam_align_up(range->start.value + range->bytes, UINT64_C(1) << frame_shift);
}

/* The end of the range that touches [start, end) and reaches beyond it furthest; end if none does. */
static uint64_t grown(const struct loam_dma_ranges *wanted, uint32_t frame_shift, uint64_t start, uint64_t end)
{
    uint64_t furthest = end;

    for (uint32_t i = 0; i < wanted->range_count; i++) {
        uint64_t first = first_frame_of(&wanted->ranges[i], frame_shift);
        uint64_t last = end_of(&wanted->ranges[i], frame_shift);

        if (first >= start && first <= end && last > furthest) {
            furthest = last;
        }
    }
    return furthest;
}

bool loam_dma_ranges_next_run(const struct loam_dma_ranges *wanted, uint32_t frame_shift, uint64_t from,
                              struct loam_dma_range *run)
{
    uint64_t start = UINT64_MAX, end, more;

    for (uint32_t i = 0; i < wanted->range_count; i++) {
        uint64_t first = first_frame_of(&wanted->ranges[i], frame_shift);

        start = first >= from && first < start ? first : start;
    }
    *run = (struct loam_dma_range){0};
    if (start == UINT64_MAX) {
        return false;
    }
    for (end = start; (more = grown(wanted, frame_shift, start, end)) > end;) {
        end = more;
    }
    run->start = loam_gpa_from_u64(start);
    run->bytes = end - start;
    return true;
}
