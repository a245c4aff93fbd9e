// SPDX-License-Identifier: Apache-2.0
/* What the allocator asks of who borrows from it: allocator/frame/frame_lend.h. With its lock. */
#include "allocator/frame/frame_lend.h"

#include "allocator/frame_cache/frame_cache_validate.h"
#include "allocator/frame_cache/frame_loan.h"
#include "allocator/frame_cache/frame_loan_free.h"
#include "allocator/frame_cache/frame_stop.h"

/* His owner is stopped once, for all that others will do there. */
static enum loam_error lender_share(struct loam_frame *frame, const struct frame_spot *spot)
{
    enum loam_error error = LOAM_OK;

    if (shared_load(spot->chunk->lock) == FRAME_LOCK_OWNERS) {
        error = loam_frame_stop_owner(frame, frame_borrower(frame, spot->chunk));
        frame->sharing |= error != LOAM_OK;
    }
    if (error == LOAM_OK && shared_load(spot->chunk->lock) == FRAME_LOCK_OWNERS) {
        shared_store_release(spot->chunk->lock, FRAME_LOCK_FREE);
    }
    return error;
}

static enum loam_error lender_free(struct loam_frame *frame, const struct frame_spot *spot, uint64_t start,
                                   uint64_t count)
{
    enum loam_error error = lender_share(frame, spot);

    return error == LOAM_OK ? loam_frame_loan_free(frame, spot, start, count) : error;
}

static enum loam_error lender_recall(struct loam_frame *frame, const struct frame_spot *spot)
{
    struct loam_frame_cache *cache = frame_borrower(frame, spot->chunk);
    enum loam_error error = loam_frame_stop_owner(frame, cache);

    if (error != LOAM_OK) {
        return error;
    }
    loam_frame_loan_settle(frame, cache);
    loam_frame_loan_collect(frame, cache, true);
    return shared_load(spot->chunk->owner) == 0 || loam_frame_loan_part_with(frame, cache, spot) ? LOAM_OK
                                                                                                 : LOAM_ERROR_BUSY;
}

/*
 * All stand still before the first cache is looked at: a frame could go from one that is still to be looked at to one
 * that has been, and be missed.
 */
static enum loam_error lender_recall_all(struct loam_frame *frame)
{
    enum loam_error error = loam_frame_stop_all(frame);

    for (uint32_t n = 0; error == LOAM_OK && n < frame->lender_top; n++) {
        struct loam_frame_cache *cache = frame_cache_at(frame, n);

        if (cache->forbidden != FRAME_UNUSED && !loam_frame_loan_drain(frame, cache, false)) {
            error = LOAM_ERROR_BUSY;
        }
    }
    return error;
}

static bool anything_ready(const struct loam_frame *frame)
{
    uint64_t any = 0;

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        const struct loam_frame_cache *cache = frame_cache_at(frame, n);

        for (uint32_t w = 0; cache->forbidden != FRAME_UNUSED && w < FRAME_WINDOWS * FRAME_SETS; w++) {
            any |= frame_window_free(&cache->window[w / FRAME_SETS][w % FRAME_SETS]);
        }
    }
    return any != 0;
}

static bool lender_settle(struct loam_frame *frame, bool stop)
{
    bool all;

    if (!stop && !anything_ready(frame)) {
        return true;
    }
    all = loam_frame_stop_all(frame) == LOAM_OK;
    for (uint32_t n = 0; n < frame->lender_top; n++) {
        if (frame_cache_at(frame, n)->forbidden == FRAME_STOPPED) {
            loam_frame_loan_settle(frame, frame_cache_at(frame, n));
        }
    }
    return all;
}

static enum loam_error lender_forget(struct loam_frame *frame)
{
    enum loam_error error = loam_frame_stop_all(frame);

    for (uint32_t n = 0; error == LOAM_OK && n < frame->lender_top; n++) {
        frame_cache_at(frame, n)->memo.count = 0;
    }
    return error;
}

static uint64_t ready_frames(const struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    uint64_t sum = 0;

    for (uint32_t w = 0; w < FRAME_WINDOWS * FRAME_SETS; w++) {
        const struct frame_window *window = &cache->window[w / FRAME_SETS][w % FRAME_SETS];

        if ((shared_load(window->base) >= cache->zone_end) == (zone == LOAM_FRAME_ZONE_NORMAL)) {
            sum += (uint64_t)__builtin_popcountll(frame_window_free(window)) << w / FRAME_SETS;
        }
    }
    return sum;
}

/* Owners go on meanwhile: a frame may be missed, so that there seem to be less than none. */
static uint64_t lender_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone)
{
    uint64_t sum = frame->lent_frames[zone];

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        const struct loam_frame_cache *cache = frame_cache_at(frame, n);

        if (cache->forbidden != FRAME_UNUSED) {
            sum += shared_load(cache->free_frames[zone]) + ready_frames(cache, zone);
        }
    }
    return (int64_t)sum < 0 ? 0 : sum;
}

static uint32_t lender_count(const struct loam_frame *frame)
{
    uint32_t count = 0;

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        count += frame_cache_at(frame, n)->forbidden != FRAME_UNUSED;
    }
    return count;
}

const struct frame_lender loam_frame_lender = {
    .free = lender_free,
    .share = lender_share,
    .holds = loam_frame_loan_holds,
    .recall = lender_recall,
    .recall_all = lender_recall_all,
    .settle = lender_settle,
    .resume = loam_frame_stop_resume,
    .forget = lender_forget,
    .free_frames = lender_free_frames,
    .count = lender_count,
    .validate_records = loam_frame_cache_validate_records,
    .validate_hands = loam_frame_cache_validate_hands,
    .validate_chunks = loam_frame_cache_validate_chunks,
};

/* Here, so that whoever links a program with caches has the table as well. */
void loam_frame_set_barrier(bool (*barrier)(void))
{
    loam_frame_stop_set_barrier(barrier);
}
