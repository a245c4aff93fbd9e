// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_spot.h"

int64_t loam_frame_spot_index(const struct loam_frame *frame, uint64_t pfn)
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

struct frame_section *loam_frame_spot_section(const struct loam_frame *frame, uint64_t id)
{
    return id < frame->id_top && frame_sections(frame)[id].used ? &frame_sections(frame)[id] : NULL;
}

bool loam_frame_spot_search(const struct loam_frame *frame, uint64_t pfn, struct frame_spot *spot)
{
    int64_t n = loam_frame_spot_index(frame, pfn);
    struct frame_section *section = n < 0 ? NULL : frame_spot_indexed(frame, (uint64_t)n);

    if (section == NULL || !frame_spot_manages(section, pfn)) {
        return false;
    }
    ((struct loam_frame *)(uintptr_t)frame)->memo = section->id;
    *spot = frame_spot_of(frame, section, pfn);
    return true;
}

struct frame_spot loam_frame_spot_head(const struct loam_frame *frame, struct frame_section *section, uint64_t index)
{
    const struct frame_chunk *chunks = frame_chunks(frame, section);
    uint64_t number = section->first_chunk + index;

    for (uint32_t step = 1; shared_load(chunks[index].state) == FRAME_CHUNK_INNER; step++) {
        index = loam_align_down(number, UINT64_C(1) << step) - section->first_chunk;
    }
    return frame_spot_at(frame, section, index);
}
