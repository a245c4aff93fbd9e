// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_lists.h"

#include <string.h>

void loam_frame_lists_init(struct frame_lists *lists)
{
    memset(lists->mask, 0, sizeof lists->mask);
    memset(lists->head, 0xff, sizeof lists->head); /* FRAME_LINK_NONE */
}

struct frame_lists *loam_frame_lists_of(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    enum loam_frame_zone zone = frame_zone(frame, frame_chunk_start(section, chunk));
    uint32_t owner = frame_read(this->owner);

    return owner != 0 ? &frame_caches(frame)[owner - 1].lists[zone] : &frame->lists[zone][this->released & 1];
}

static void set_previous(struct frame_chunk *chunk, uint64_t link)
{
    chunk->previous_section = (uint16_t)(link >> 32);
    chunk->previous_chunk = (uint32_t)link;
}

static void set_next(struct frame_chunk *chunk, uint64_t link)
{
    chunk->next_section = (uint16_t)(link >> 32);
    chunk->next_chunk = (uint32_t)link;
}

void loam_frame_lists_push(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk, uint32_t list)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct frame_lists *lists = loam_frame_lists_of(frame, section, chunk);
    uint64_t link = frame_link(section, chunk);

    set_previous(this, FRAME_LINK_NONE);
    set_next(this, lists->head[list]);
    this->list = (uint8_t)list;
    if (lists->head[list] != FRAME_LINK_NONE) {
        set_previous(frame_chunk_from_link(frame, lists->head[list]), link);
    }
    lists->head[list] = link;
    lists->mask[list / 64] |= UINT64_C(1) << (list % 64);
}

void loam_frame_lists_remove(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct frame_lists *lists = loam_frame_lists_of(frame, section, chunk);
    uint64_t previous = frame_chunk_previous(this), next = frame_chunk_next(this);

    if (next != FRAME_LINK_NONE) {
        set_previous(frame_chunk_from_link(frame, next), previous);
    }
    if (previous != FRAME_LINK_NONE) {
        set_next(frame_chunk_from_link(frame, previous), next);
    } else {
        lists->head[this->list] = next;
        if (next == FRAME_LINK_NONE) {
            lists->mask[this->list / 64] &= ~(UINT64_C(1) << (this->list % 64));
        }
    }
    this->list = FRAME_LIST_NONE;
}

static uint32_t list_of_partial(const struct frame_chunk *chunk)
{
    uint32_t free_frames = frame_free_frames(chunk);

    if (free_frames > 0) {
        return frame_partial_list(free_frames, chunk->fit);
    }
    return chunk->owner != 0 ? FRAME_LIST_FULL : FRAME_LIST_NONE;
}

void loam_frame_lists_file(struct loam_frame *frame, const struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    uint32_t list = list_of_partial(this);

    if (list == this->list) {
        return;
    }
    if (this->list != FRAME_LIST_NONE) {
        loam_frame_lists_remove(frame, section, chunk);
    }
    if (list != FRAME_LIST_NONE) {
        loam_frame_lists_push(frame, section, chunk, list);
    }
}
