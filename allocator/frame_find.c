// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_find.h"

#include <string.h>

void loam_frame_damage(const struct loam_frame *frame)
{
    struct loam_frame *damaged = (struct loam_frame *)(uintptr_t)frame;

    frame_write(damaged->damaged, 1);
    for (uint32_t id = 0; id < frame->cache_capacity; id++) {
        uint32_t *forbidden = &frame_caches(frame)[id].forbidden;

        if (frame_read(*forbidden) == FRAME_RUNNING) {
            frame_write(*forbidden, FRAME_STOPPED);
        }
    }
}

struct frame_section *loam_frame_section_from_id(const struct loam_frame *frame, uint64_t id)
{
    struct frame_section *section;

    if (id >= frame_read(frame->id_top) || id >= frame->section_capacity) {
        return NULL;
    }
    section = &frame_sections(frame)[id];
    if (!section->used) {
        return NULL;
    }
    if (section->id != id || section->quick_seal != frame_quick_seal_of_section(section)) {
        loam_frame_damage(frame);
        return NULL;
    }
    return section;
}

struct frame_chunk *loam_frame_chunk_from_link(struct loam_frame *frame, uint64_t link, struct frame_section **section)
{
    *section = loam_frame_section_from_id(frame, link >> 32);
    if (*section == NULL || (uint32_t)link >= (*section)->chunk_count) {
        *section = NULL;
        loam_frame_damage(frame);
        memset(&frame->sink, 0xff, sizeof frame->sink);
        return &frame->sink;
    }
    return &frame_chunks(frame, *section)[(uint32_t)link];
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

struct frame_section *loam_frame_section_from_index(const struct loam_frame *frame, uint64_t n)
{
    struct frame_section *section = loam_frame_section_from_id(frame, frame_indexes(frame)[n].id);

    if (section == NULL || section->range_start != frame_indexes(frame)[n].start ||
        section->seal != frame_seal_of_section(section)) {
        loam_frame_damage(frame);
        return NULL;
    }
    return section;
}

struct frame_section *loam_frame_section_from_pfn(const struct loam_frame *frame, uint64_t pfn)
{
    int64_t n = loam_frame_index_of(frame, pfn);
    struct frame_section *section = n < 0 ? NULL : loam_frame_section_from_index(frame, (uint64_t)n);

    return section != NULL && pfn >= section->start && pfn < section->end ? section : NULL;
}
