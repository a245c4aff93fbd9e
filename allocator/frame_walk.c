// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_walk.h"

#include "allocator/frame_buddy.h"
#include "allocator/frame_lists.h"

/* What one piece looks like in a view: all free, all used, or as its bitmaps say. */
enum looks { LOOKS_FREE, LOOKS_USED, LOOKS_MIXED };

static enum looks look(const struct frame_chunk *chunk, uint32_t view)
{
    uint8_t state = frame_read(chunk->state);
    uint32_t kind = frame_read(chunk->owner) != 0 ? FRAME_VIEW_CACHED
                    : chunk->released             ? FRAME_VIEW_RELEASED
                                                  : FRAME_VIEW_BACKED;

    if ((view & kind) == 0 || (state != FRAME_CHUNK_FREE && state != FRAME_CHUNK_PARTIAL)) {
        return LOOKS_USED;
    }
    return state == FRAME_CHUNK_FREE ? LOOKS_FREE : LOOKS_MIXED;
}

static uint64_t walk_up(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn, uint64_t to,
                        enum frame_bits_kind kind, uint32_t view)
{
    enum looks wanted = kind == FRAME_BITS_FREE ? LOOKS_FREE : LOOKS_USED;

    while (pfn < to) {
        uint64_t chunk = loam_frame_buddy_head(frame, section, frame_chunk_index(section, pfn));
        enum looks looks = look(&frame_chunks(frame, section)[chunk], view);

        if (looks == wanted) {
            return pfn;
        }
        if (looks == LOOKS_MIXED) {
            uint32_t offset = frame_bits_next(frame_map(frame, section, chunk), kind, frame_offset(pfn));

            pfn = frame_chunk_start(section, chunk) + offset;
            if (offset < LOAM_FRAME_CHUNK_FRAMES) {
                break;
            }
        } else {
            pfn = frame_chunk_start(section, chunk + loam_frame_buddy_chunks(frame, section, chunk));
        }
    }
    /* Frames beyond the end are marked as used. */
    return frame_min(pfn, to);
}

static uint64_t walk_down(const struct loam_frame *frame, const struct frame_section *section, uint64_t end,
                          enum frame_bits_kind kind, uint32_t view)
{
    enum looks wanted = kind == FRAME_BITS_FREE ? LOOKS_FREE : LOOKS_USED;

    while (end > section->start) {
        uint64_t chunk = loam_frame_buddy_head(frame, section, frame_chunk_index(section, end - 1));
        const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
        uint64_t base = frame_chunk_start(section, chunk);
        enum looks looks = look(this, view);

        if (looks == wanted) {
            return end;
        }
        if (looks == LOOKS_MIXED && (kind == FRAME_BITS_USED || frame_free_frames(this) > 0)) {
            uint32_t below = (uint32_t)frame_min(end - base, LOAM_FRAME_CHUNK_FRAMES);
            uint32_t offset = frame_bits_previous_end(frame_map(frame, section, chunk), kind, below);

            end = base + offset;
            if (offset > 0) {
                break;
            }
        } else {
            end = base;
        }
    }
    /* Frames below the start are marked as used. */
    return frame_max(end, section->start);
}

uint64_t loam_frame_walk_free(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn,
                              uint64_t to, uint32_t view)
{
    return walk_up(frame, section, pfn, frame_min(to, section->end), FRAME_BITS_FREE, view);
}

uint64_t loam_frame_walk_used(const struct loam_frame *frame, const struct frame_section *section, uint64_t pfn,
                              uint64_t to, uint32_t view)
{
    return walk_up(frame, section, pfn, frame_min(to, section->end), FRAME_BITS_USED, view);
}

uint64_t loam_frame_walk_free_down(const struct loam_frame *frame, const struct frame_section *section, uint64_t end,
                                   uint32_t view)
{
    return walk_down(frame, section, end, FRAME_BITS_FREE, view);
}

uint64_t loam_frame_walk_used_down(const struct loam_frame *frame, const struct frame_section *section, uint64_t end,
                                   uint32_t view)
{
    return walk_down(frame, section, end, FRAME_BITS_USED, view);
}

bool loam_frame_walk_released(const struct loam_frame *frame, const struct frame_section *section, uint64_t start,
                              uint64_t count)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t chunk = loam_frame_buddy_head(frame, section, frame_chunk_index(section, start));

    while (chunk < end) {
        const struct frame_chunk *this = &frame_chunks(frame, section)[chunk];

        if (frame_read(this->owner) == 0 && this->released) {
            return true;
        }
        chunk += loam_frame_buddy_chunks(frame, section, chunk);
    }
    return false;
}
