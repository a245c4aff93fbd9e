// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_cache/frame_stop.h"

static _Atomic(bool (*)(void)) process_barrier;

void loam_frame_stop_set_barrier(bool (*barrier)(void))
{
    /* Release, acquire at the load: whatever the barrier needs is ready. */
    shared_store_release(process_barrier, barrier);
}

bool loam_frame_stop_barrier_set(void)
{
    return shared_load_acquire(process_barrier) != NULL;
}

/* No barrier that did not happen is ever assumed: what is not known to stand still is left alone. */
static bool pass_barrier(void)
{
    bool (*barrier)(void) = shared_load_acquire(process_barrier);

    return barrier != NULL && barrier();
}

static enum loam_error refusal(void)
{
    return loam_frame_stop_barrier_set() ? LOAM_ERROR_BUSY : LOAM_ERROR_UNINITIALISED;
}

static bool runs(const struct loam_frame_cache *cache)
{
    return cache->forbidden == FRAME_RUNNING;
}

/* Wait until the owner is out of the call under way. False: it does not leave. */
static bool wait_for(const struct loam_frame_cache *cache)
{
    struct loam_lock_patience patience = {0};

    /* Acquire: pairs with the release with which the owner leaves. */
    while (shared_load_acquire(cache->busy) != 0) {
        if (!loam_lock_pass_time(&patience)) {
            return false;
        }
    }
    return true;
}

static void forbid(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    frame->stopped++;
    shared_store_ordered(cache->forbidden, FRAME_STOPPING);
}

/* Passed: whether all threads have passed a barrier since the cache was forbidden. If not, its owner goes on. */
static bool stop(struct loam_frame_cache *cache, bool passed)
{
    bool stopped = passed && wait_for(cache);

    /* Release: pairs with the owner's acquire. */
    shared_store_release(cache->forbidden, stopped ? FRAME_STOPPED : FRAME_RUNNING);
    return stopped;
}

enum loam_error loam_frame_stop_owner(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    if (!runs(cache)) {
        return LOAM_OK;
    }
    forbid(frame, cache);
    return stop(cache, pass_barrier()) ? LOAM_OK : refusal();
}

enum loam_error loam_frame_stop_all(struct loam_frame *frame)
{
    bool any = false, all = true, passed;

    for (uint32_t n = 0; n < frame->lender_top; n++) {
        if (runs(frame_cache_at(frame, n))) {
            forbid(frame, frame_cache_at(frame, n));
            any = true;
        }
    }
    passed = any && pass_barrier();
    for (uint32_t n = 0; n < frame->lender_top; n++) {
        struct loam_frame_cache *cache = frame_cache_at(frame, n);

        all = (cache->forbidden != FRAME_STOPPING || stop(cache, passed)) && all;
    }
    return all ? LOAM_OK : refusal();
}

void loam_frame_stop_resume(struct loam_frame *frame)
{
    for (uint32_t n = 0; n < frame->lender_top; n++) {
        struct loam_frame_cache *cache = frame_cache_at(frame, n);

        if (cache->forbidden == FRAME_STOPPED) {
            /* Release: pairs with the owner's acquire. */
            shared_store_release(cache->forbidden, FRAME_RUNNING);
        }
    }
    frame->stopped = 0;
}
