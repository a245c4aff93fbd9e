// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_lists.h"

#include <string.h>

void loam_frame_lists_init(struct frame_lists *lists)
{
    memset(lists->mask, 0, sizeof lists->mask);
    memset(lists->head, 0xff, sizeof lists->head); /* FRAME_LINK_NONE */
}

static struct frame_chunk *linked(const struct loam_frame *frame, uint64_t link)
{
    return &frame_chunks(frame, &frame_sections(frame)[link >> 32])[(uint32_t)link];
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

void loam_frame_lists_push(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot,
                           uint32_t list)
{
    uint64_t link = frame_spot_link(spot);

    set_previous(spot->chunk, FRAME_LINK_NONE);
    set_next(spot->chunk, lists->head[list]);
    shared_store(spot->chunk->list, (uint8_t)list);
    if (lists->head[list] != FRAME_LINK_NONE) {
        set_previous(linked(frame, lists->head[list]), link);
    }
    lists->head[list] = link;
    lists->mask[list / 64] |= UINT64_C(1) << (list % 64);
}

void loam_frame_lists_remove(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot)
{
    uint64_t previous = frame_chunk_previous(spot->chunk), next = frame_chunk_next(spot->chunk);
    uint32_t list = spot->chunk->list;

    if (next != FRAME_LINK_NONE) {
        set_previous(linked(frame, next), previous);
    }
    if (previous != FRAME_LINK_NONE) {
        set_next(linked(frame, previous), next);
    } else {
        lists->head[list] = next;
        if (next == FRAME_LINK_NONE) {
            lists->mask[list / 64] &= ~(UINT64_C(1) << (list % 64));
        }
    }
    shared_store(spot->chunk->list, FRAME_LIST_NONE);
}

static uint32_t list_of_partial(const struct frame_chunk *chunk)
{
    uint32_t free_frames = frame_free_frames(chunk);

    if (free_frames > 0) {
        return frame_partial_list(free_frames, chunk->fit);
    }
    return shared_load(chunk->owner) != 0 ? FRAME_LIST_FULL : FRAME_LIST_NONE;
}

void loam_frame_lists_file(struct loam_frame *frame, struct frame_lists *lists, const struct frame_spot *spot)
{
    uint32_t list = list_of_partial(spot->chunk);

    if (list == spot->chunk->list) {
        return;
    }
    if (spot->chunk->list != FRAME_LIST_NONE) {
        loam_frame_lists_remove(frame, lists, spot);
    }
    if (list != FRAME_LIST_NONE) {
        loam_frame_lists_push(frame, lists, spot, list);
    }
}
