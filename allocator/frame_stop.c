// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_stop.h"

#include "allocator/frame_lock.h"

#include <string.h>

static _Atomic(bool (*)(void)) process_barrier;

void loam_frame_set_barrier(bool (*barrier)(void))
{
    /* Release, acquire at the load: whatever the barrier needs is ready. */
    atomic_store_explicit(&process_barrier, barrier, memory_order_release);
}

bool loam_frame_stop_barrier_set(void)
{
    return atomic_load_explicit(&process_barrier, memory_order_acquire) != NULL;
}

/* --- What is ready --------------------------------------------------------------------------------------------- */

/* What is ready or back in a window is free in its bitmaps again. The cache stands still. */
static void settle_window(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t set, uint32_t order)
{
    struct frame_window *window = &cache->window[order][set];
    uint64_t *cached = &cache->free_frames[frame_zone(frame, window->base)];
    uint64_t starts = window->ready | window->back, frames;

    if (window->made == 0) {
        return;
    }
    frames = (uint64_t)__builtin_popcountll(starts) << order;
    frame_bits_clear(frame_address(frame, window->map_offset_bytes), frame_offset(window->base) / 64,
                     frame_spread(starts, order));
    frame_count(frame_address(frame, window->chunk_offset_bytes),
                (uint32_t)frames * FRAME_COUNT_FREE - (uint32_t)(frames >> order) * FRAME_COUNT_BLOCK);
    frame_write(*cached, *cached + frames);
    frame_window_reset(window);
}

void loam_frame_stop_settle(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
        settle_window(frame, cache, FRAME_SET_LOW, order);
        settle_window(frame, cache, FRAME_SET_ANY, order);
    }
}

/* Frames of a zone that are ready, as of a moment. */
uint64_t loam_frame_stop_ready_frames(const struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    uint64_t sum = 0;

    for (uint32_t n = 0; n < FRAME_WINDOWS * FRAME_SETS; n++) {
        const struct frame_window *window = &cache->window[n / FRAME_SETS][n % FRAME_SETS];
        uint64_t free_bits = frame_read(window->ready) | frame_read(window->back);

        sum += (frame_read(window->base) >= cache->zone_end) == (zone == LOAM_FRAME_ZONE_NORMAL)
                   ? (uint64_t)__builtin_popcountll(free_bits) << n / FRAME_SETS
                   : 0;
    }
    return sum;
}

bool loam_frame_stop_ready(const struct loam_frame *frame, const struct frame_spot *spot, uint64_t start, uint64_t mask)
{
    const struct loam_frame_cache *cache = frame_owner_of(frame, spot->chunk);
    uint64_t link = frame_spot_link(spot);

    for (uint32_t order = 0; order < FRAME_WINDOWS; order++) {
        const struct frame_window *window = &cache->window[order][frame_read(spot->chunk->set)];

        if (frame_read(window->link) == link && frame_read(window->base) == loam_align_down(start, 64) &&
            (frame_spread(frame_read(window->ready) | frame_read(window->back), order) & mask) != 0) {
            return true;
        }
    }
    return false;
}

/* --- Stopping -------------------------------------------------------------------------------------------------- */

/* Whether the caller has the cache's chunks to itself already. */
bool loam_frame_stop_still(const struct loam_frame *frame, const struct loam_frame_cache *cache)
{
    return (cache->forbidden != FRAME_RUNNING && cache->forbidden != FRAME_STOPPING) || frame->holder == cache->id + 1;
}

/* Wait until the owner is out of the call under way. False: it does not leave. */
static bool wait_for(const struct loam_frame_cache *cache)
{
    struct loam_lock_patience patience = {0};

    /* Acquire: pairs with the release with which the owner leaves. */
    while (__atomic_load_n(&cache->busy, __ATOMIC_ACQUIRE) != 0) {
        if (!loam_lock_pass_time(&patience)) {
            return false;
        }
    }
    return true;
}

static void forbid(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    frame->stopped++;
    __atomic_store_n(&cache->forbidden, FRAME_STOPPING, __ATOMIC_SEQ_CST);
}

/* Passed: whether all threads have passed a barrier since the cache was forbidden. If not, its owner goes on. */
static bool stop(struct loam_frame_cache *cache, bool passed)
{
    bool stopped = passed && wait_for(cache);

    /* Release: pairs with the owner's acquire. */
    __atomic_store_n(&cache->forbidden, stopped ? FRAME_STOPPED : FRAME_RUNNING, __ATOMIC_RELEASE);
    return stopped;
}

/* No barrier that did not happen is ever assumed: what is not known to stand still is left alone. */
static bool pass_barrier(void)
{
    bool (*barrier)(void) = atomic_load_explicit(&process_barrier, memory_order_acquire);

    return barrier != NULL && barrier();
}

bool loam_frame_stop_owner(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    if (!loam_frame_stop_still(frame, cache)) {
        forbid(frame, cache);
        if (!stop(cache, pass_barrier())) {
            return false;
        }
    }
    loam_frame_stop_settle(frame, cache);
    return true;
}

bool loam_frame_stop_hold_all(struct loam_frame *frame)
{
    bool any = false, all = true, passed;

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        if (!loam_frame_stop_still(frame, &frame_caches(frame)[id])) {
            forbid(frame, &frame_caches(frame)[id]);
            any = true;
        }
    }
    passed = any && pass_barrier();
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        all = (loam_frame_stop_still(frame, cache) || stop(cache, passed)) && all;
    }
    return all;
}

bool loam_frame_stop_all(struct loam_frame *frame)
{
    bool all = loam_frame_stop_hold_all(frame);

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        if (frame_caches(frame)[id].forbidden != FRAME_UNUSED &&
            loam_frame_stop_still(frame, &frame_caches(frame)[id])) {
            loam_frame_stop_settle(frame, &frame_caches(frame)[id]);
        }
    }
    return all;
}

enum loam_error loam_frame_stop_error(void)
{
    return loam_frame_stop_barrier_set() ? LOAM_ERROR_BUSY : LOAM_ERROR_UNINITIALISED;
}

void loam_frame_stop_resume(struct loam_frame *frame)
{
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden == FRAME_STOPPED) {
            /* Release: pairs with the owner's acquire. */
            __atomic_store_n(&cache->forbidden, FRAME_RUNNING, __ATOMIC_RELEASE);
        }
    }
    frame->stopped = 0;
}

bool loam_frame_stop_chunk(struct loam_frame *frame, const struct frame_spot *spot)
{
    return frame_read(spot->chunk->owner) == 0 || loam_frame_stop_owner(frame, frame_owner_of(frame, spot->chunk));
}
