// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame/frame_lend.h"

#include "allocator/frame/frame_block.h"
#include "allocator/frame/frame_buddy.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lists.h"
#include "allocator/frame/frame_search.h"

/* --- What the allocator asks ----------------------------------------------------------------------------------- */

/* A program without a lender leaves what others lent out alone. */
static bool there_is(void)
{
    return &loam_frame_lender != NULL;
}

bool loam_frame_lend_holds(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start)
{
    return there_is() && loam_frame_lender.holds(frame, spot, start);
}

bool loam_frame_lend_lock(struct loam_frame *frame, const struct frame_spot *spot)
{
    return there_is() && loam_frame_lender.share(frame, spot) == LOAM_OK && frame_lend_lock(spot->chunk);
}

enum loam_error loam_frame_lend_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                     uint64_t count)
{
    return there_is() ? loam_frame_lender.free(frame, spot, start, count) : LOAM_ERROR_UNINITIALISED;
}

/* No chunk here but by way of its head: every other chunk of a piece has no owner. */
static enum loam_error recall_chunk(struct loam_frame *frame, const struct frame_spot *spot)
{
    if (shared_load(spot->chunk->owner) == 0) {
        return LOAM_OK;
    }
    return there_is() ? loam_frame_lender.recall(frame, spot) : LOAM_ERROR_UNINITIALISED;
}

enum loam_error loam_frame_lend_recall(struct loam_frame *frame, struct frame_section *section, uint64_t start,
                                       uint64_t count)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t index = frame_chunk_index(section, start);
    enum loam_error error = LOAM_OK;

    while (error == LOAM_OK && index < end) {
        struct frame_spot spot = loam_frame_spot_head(frame, section, index);

        error = recall_chunk(frame, &spot);
        /* The chunk may be part of a larger piece by now. */
        spot = loam_frame_spot_head(frame, section, index);
        index = spot.index + frame_spot_chunks(&spot);
    }
    return error;
}

bool loam_frame_lend_recall_all(struct loam_frame *frame)
{
    uint64_t before = frame->free_frames[LOAM_FRAME_ZONE_DMA32] + frame->free_frames[LOAM_FRAME_ZONE_NORMAL];

    return frame->lender_top > 0 && there_is() && loam_frame_lender.recall_all(frame) == LOAM_OK &&
           frame->free_frames[LOAM_FRAME_ZONE_DMA32] + frame->free_frames[LOAM_FRAME_ZONE_NORMAL] != before;
}

bool loam_frame_lend_settle(struct loam_frame *frame, bool stop)
{
    return frame->lender_top == 0 || (there_is() && loam_frame_lender.settle(frame, stop));
}

void loam_frame_lend_resume(struct loam_frame *frame)
{
    if (there_is()) {
        loam_frame_lender.resume(frame);
    }
}

enum loam_error loam_frame_lend_forget(struct loam_frame *frame)
{
    if (frame->lender_top == 0) {
        return LOAM_OK;
    }
    return there_is() ? loam_frame_lender.forget(frame) : LOAM_ERROR_UNINITIALISED;
}

uint64_t loam_frame_lend_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone)
{
    return frame->lender_top > 0 && there_is() ? loam_frame_lender.free_frames(frame, zone) : 0;
}

uint32_t loam_frame_lend_count(const struct loam_frame *frame)
{
    return there_is() ? loam_frame_lender.count(frame) : 0;
}

enum loam_error loam_frame_lend_validate_records(const struct loam_frame *frame, struct loam_diag *diag)
{
    return there_is() ? loam_frame_lender.validate_records(frame, diag) : LOAM_OK;
}

enum loam_error loam_frame_lend_validate_hands(struct frame_recount *recount)
{
    return there_is() ? loam_frame_lender.validate_hands(recount) : LOAM_OK;
}

enum loam_error loam_frame_lend_validate_chunks(struct frame_recount *recount)
{
    return there_is() ? loam_frame_lender.validate_chunks(recount) : LOAM_OK;
}

/* --- What a lender asks ---------------------------------------------------------------------------------------- */

uint64_t loam_frame_lend_room(const struct loam_frame *frame, enum loam_frame_zone zone, bool reserved)
{
    return reserved && zone == LOAM_FRAME_ZONE_DMA32 ? loam_frame_block_budget(frame) / LOAM_FRAME_CHUNK_FRAMES
                                                     : UINT64_MAX;
}

/* Frames that are free in the chunk come, or go: as if its uppermost, since the chunk lies in one zone. */
static void move_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t count, bool come)
{
    uint64_t end = frame_min(spot->start + LOAM_FRAME_CHUNK_FRAMES, spot->section->end);

    if (count != 0) {
        loam_frame_chunk_count(frame, spot->section, end - count, count, come);
    }
}

bool loam_frame_lend_take_partial(struct loam_frame *frame, enum loam_frame_zone zone, uint32_t order,
                                  struct frame_spot *spot)
{
    if (!loam_frame_search_chunk(frame, zone, order, spot)) {
        return false;
    }
    loam_frame_lists_remove(frame, frame_lists_of(frame, spot), spot);
    spot->chunk->crossed = loam_frame_chunk_crossed(frame, spot);
    move_free(frame, spot, frame_free_frames(spot->chunk), false);
    return true;
}

uint64_t loam_frame_lend_take_free(struct loam_frame *frame, enum loam_frame_zone zone, uint64_t count,
                                   struct frame_spot *first)
{
    if (count == 0 || !loam_frame_search_piece(frame, zone, first)) {
        return 0;
    }
    count = frame_min(count, frame_spot_chunks(first));
    for (uint64_t n = count; n-- > 0;) {
        struct frame_spot spot = frame_spot_at(frame, first->section, first->index + n);

        loam_frame_buddy_take_one(frame, &spot);
        move_free(frame, &spot, LOAM_FRAME_CHUNK_FRAMES, false);
        spot.chunk->crossed = 0;
        spot.chunk->list = FRAME_LIST_NONE;
    }
    return count;
}

void loam_frame_lend_give(struct loam_frame *frame, const struct frame_spot *spot)
{
    uint64_t count = spot->chunk->state == FRAME_CHUNK_FREE ? LOAM_FRAME_CHUNK_FRAMES : frame_free_frames(spot->chunk);

    move_free(frame, spot, count, true);
    if (count == LOAM_FRAME_CHUNK_FRAMES) {
        loam_frame_buddy_give(frame, spot, FRAME_CHUNK_ORDER);
        return;
    }
    spot->chunk->fit = FRAME_FITS - 1;
    loam_frame_chunk_cap_fit(spot->chunk);
    loam_frame_lists_file(frame, frame_lists_of(frame, spot), spot);
}

/* --- The lock of a lent chunk ---------------------------------------------------------------------------------- */

bool loam_frame_lend_wait(struct frame_chunk *chunk)
{
    struct loam_lock_patience patience = {0};
    uint8_t found;

    do {
        found = FRAME_LOCK_FREE;
        if (shared_swap_acquire(chunk->lock, &found, FRAME_LOCK_HELD)) {
            return true;
        }
    } while (found == FRAME_LOCK_HELD && loam_lock_pass_time(&patience));
    return false;
}
