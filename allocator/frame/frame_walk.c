// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_walk.h"

/* What one piece looks like in a view: all free, all used, or as its bitmaps say. */
enum looks { LOOKS_FREE, LOOKS_USED, LOOKS_MIXED };

static enum looks look(const struct frame_chunk *chunk, uint32_t view)
{
    uint8_t state = shared_load(chunk->state);
    uint32_t kind = shared_load(chunk->owner) != 0 ? FRAME_VIEW_LENT
                    : chunk->released              ? FRAME_VIEW_RELEASED
                                                   : FRAME_VIEW_BACKED;

    if ((view & kind) == 0 || (state != FRAME_CHUNK_FREE && state != FRAME_CHUNK_PARTIAL)) {
        return LOOKS_USED;
    }
    return state == FRAME_CHUNK_FREE ? LOOKS_FREE : LOOKS_MIXED;
}

static uint64_t walk_up(const struct loam_frame *frame, struct frame_section *section, uint64_t pfn, uint64_t to,
                        enum frame_bits_kind kind, uint32_t view)
{
    enum looks wanted = kind == FRAME_BITS_FREE ? LOOKS_FREE : LOOKS_USED;

    while (pfn < to) {
        struct frame_spot spot = loam_frame_spot_head(frame, section, frame_chunk_index(section, pfn));
        enum looks looks = look(spot.chunk, view);

        if (looks == wanted) {
            return pfn;
        }
        if (looks == LOOKS_MIXED) {
            uint32_t offset = frame_bits_next(spot.map, kind, frame_offset(pfn));

            pfn = spot.start + offset;
            if (offset < LOAM_FRAME_CHUNK_FRAMES) {
                break;
            }
        } else {
            pfn = spot.start + (frame_spot_chunks(&spot) << FRAME_CHUNK_ORDER);
        }
    }
    /* Frames beyond the end are marked as used. */
    return frame_min(pfn, to);
}

static uint64_t walk_down(const struct loam_frame *frame, struct frame_section *section, uint64_t end,
                          enum frame_bits_kind kind, uint32_t view)
{
    enum looks wanted = kind == FRAME_BITS_FREE ? LOOKS_FREE : LOOKS_USED;

    while (end > section->start) {
        struct frame_spot spot = loam_frame_spot_head(frame, section, frame_chunk_index(section, end - 1));
        enum looks looks = look(spot.chunk, view);

        if (looks == wanted) {
            return end;
        }
        if (looks == LOOKS_MIXED && (kind == FRAME_BITS_USED || frame_free_frames(spot.chunk) > 0)) {
            uint32_t below = (uint32_t)frame_min(end - spot.start, LOAM_FRAME_CHUNK_FRAMES);
            uint32_t offset = frame_bits_previous_end(spot.map, kind, below);

            end = spot.start + offset;
            if (offset > 0) {
                break;
            }
        } else {
            end = spot.start;
        }
    }
    /* Frames below the start are marked as used. */
    return frame_max(end, section->start);
}

uint64_t loam_frame_walk_free(const struct loam_frame *frame, struct frame_section *section, uint64_t pfn, uint64_t to,
                              uint32_t view)
{
    return walk_up(frame, section, pfn, frame_min(to, section->end), FRAME_BITS_FREE, view);
}

uint64_t loam_frame_walk_used(const struct loam_frame *frame, struct frame_section *section, uint64_t pfn, uint64_t to,
                              uint32_t view)
{
    return walk_up(frame, section, pfn, frame_min(to, section->end), FRAME_BITS_USED, view);
}

uint64_t loam_frame_walk_free_down(const struct loam_frame *frame, struct frame_section *section, uint64_t end,
                                   uint32_t view)
{
    return walk_down(frame, section, end, FRAME_BITS_FREE, view);
}

uint64_t loam_frame_walk_used_down(const struct loam_frame *frame, struct frame_section *section, uint64_t end,
                                   uint32_t view)
{
    return walk_down(frame, section, end, FRAME_BITS_USED, view);
}

bool loam_frame_walk_released(const struct loam_frame *frame, struct frame_section *section, uint64_t start,
                              uint64_t count)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t index = frame_chunk_index(section, start);

    while (index < end) {
        struct frame_spot spot = loam_frame_spot_head(frame, section, index);

        if (shared_load(spot.chunk->owner) == 0 && spot.chunk->released) {
            return true;
        }
        index = spot.index + frame_spot_chunks(&spot);
    }
    return false;
}
