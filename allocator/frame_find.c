// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_find.h"

struct frame_section *loam_frame_section_from_id(const struct loam_frame *frame, uint64_t id)
{
    return id < frame->id_top && frame_sections(frame)[id].used ? &frame_sections(frame)[id] : NULL;
}

int64_t loam_frame_index_of(const struct loam_frame *frame, uint64_t pfn)
{
    const struct frame_index *index = frame_indexes(frame);
    int64_t low = 0, high = frame->section_count;

    while (low < high) {
        int64_t middle = low + (high - low) / 2;

        if (index[middle].start <= pfn) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low - 1;
}

struct frame_section *loam_frame_section_from_pfn(const struct loam_frame *frame, uint64_t pfn)
{
    int64_t n = loam_frame_index_of(frame, pfn);
    struct frame_section *section = n < 0 ? NULL : frame_section_from_index(frame, (uint64_t)n);

    return section != NULL && pfn >= section->start && pfn < section->end ? section : NULL;
}
