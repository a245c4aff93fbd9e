// SPDX-License-Identifier: Apache-2.0
/* Batches through a cache: whole words of the bitmaps at a time. */
#include "allocator/frame/frame_block.h"
#include "allocator/frame/frame_chunk.h"
#include "allocator/frame/frame_lock.h"
#include "allocator/frame_cache/frame_cache.h"
#include "allocator/frame_cache/frame_loan.h"
#include "allocator/frame_cache/frame_loan_free.h"

/* Up to count of the frames at the bits of a word. Returns the bits that are left. */
FRAME_HOT uint64_t write_out(uint64_t bits, uint64_t base, loam_pfn *starts, size_t count, size_t *done)
{
    size_t at = *done;

    if (bits == UINT64_MAX && count - at >= 64) {
        for (uint32_t bit = 0; bit < 64; bit++) {
            starts[at + bit] = loam_pfn_from_u64(base + bit);
        }
        *done = at + 64;
        return 0;
    }
    for (; bits != 0 && at < count; bits &= bits - 1) {
        starts[at++] = loam_pfn_from_u64(base + (uint32_t)__builtin_ctzll(bits));
    }
    *done = at;
    return bits;
}

/* As many single frames as the current chunk has, up to count: first what is ready, then word by word. */
static inline size_t take_singles(struct loam_frame_cache *cache, uint64_t set, loam_pfn *starts, size_t count)
{
    struct frame_window *window = &cache->window[0][set];
    size_t done = 0;

    while (done < count && (window->ready != 0 || loam_frame_cache_make_ready(cache, set, 0))) {
        shared_store(window->ready, write_out(window->ready, window->base, starts, count, &done));
    }
    return done;
}

/* As many blocks as can be had without the lock. */
static size_t take_many(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit, loam_pfn *starts, size_t count)
{
    uint64_t set = frame_set_for(cache, limit);
    size_t done = 0;

    if (set >= FRAME_SETS || order >= LOAM_FRAME_CACHE_ORDERS) {
        return 0;
    }
    if (order == 0) {
        return take_singles(cache, set, starts, count);
    }
    while (done < count && loam_frame_cache_take_own(cache, set, order, &starts[done].value)) {
        done++;
    }
    return done;
}

/*
 * Free the first done of starts again. Nobody is asked to stand still for what the cache served itself; what cannot be
 * freed all the same, since somebody died in its chunk, is lost.
 */
static void give_again(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order, const loam_pfn *starts,
                       size_t done)
{
    for (; done > 0; done--) {
        if (order < FRAME_WINDOWS && frame_give_made(cache, starts[done - 1].value, order, 1)) {
            continue;
        }
        (void)!loam_frame_cache_free_locked(frame, cache, starts[done - 1].value, UINT64_C(1) << order);
    }
}

static enum loam_error alloc_batch_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                          loam_pfn limit, loam_pfn *starts, size_t count, size_t done)
{
    struct frame_pressure pressure = loam_frame_chunk_pressure(frame);
    enum loam_error error = LOAM_OK;

    while (done < count && error == LOAM_OK) {
        error = loam_frame_cache_alloc_locked(frame, cache, order, limit, &starts[done].value);
        if (error == LOAM_OK) {
            done++;
            done += take_many(cache, order, limit, starts + done, count - done);
        }
    }
    if (error != LOAM_OK) {
        give_again(frame, cache, order, starts, done);
        loam_frame_chunk_reset_pressure(frame, pressure);
    }
    return error;
}

enum loam_error loam_frame_cache_alloc_batch(struct loam_frame_cache *cache, uint32_t order, loam_pfn limit,
                                             loam_pfn *starts, size_t count)
{
    struct loam_frame *frame;
    enum loam_error error;
    size_t done = 0;

    if (cache == NULL || (starts == NULL && count > 0)) {
        return LOAM_ERROR_INVALID;
    }
    if (order < LOAM_FRAME_CACHE_ORDERS && frame_enter(cache)) {
        done = take_many(cache, order, limit, starts, count);
        frame_leave(cache);
        if (LIKELY(done == count)) {
            return LOAM_OK;
        }
    }
    frame = loam_frame_cache_lock(cache, &error);
    if (frame != NULL) {
        if (order > LOAM_FRAME_ORDER_MAX) {
            error = frame_unlock(frame, LOAM_ERROR_INVALID);
        } else {
            error = frame_unlock(frame, alloc_batch_locked(frame, cache, order, limit, starts, count, done));
        }
    }
    for (size_t n = 0; n < count && error != LOAM_OK; n++) {
        starts[n] = loam_pfn_from_u64(0);
    }
    return error;
}

/* How many of the frames follow each other from the first on, within one word of a bitmap. */
static inline uint32_t run_of(const loam_pfn *starts, size_t count)
{
    uint64_t first = starts[0].value;
    uint32_t room = (uint32_t)frame_min(64 - first % 64, count), run = 1;

    if (room == 64) {
        uint64_t differs = 0;

        for (uint32_t n = 0; n < 64; n++) {
            differs |= starts[n].value ^ (first + n);
        }
        if (differs == 0) {
            return 64;
        }
    }
    while (run < room && starts[run].value == first + run) {
        run++;
    }
    return run;
}

/* As many as can be freed without the lock. */
static size_t give_many(struct loam_frame_cache *cache, uint32_t order, const loam_pfn *starts, size_t count)
{
    size_t done = 0;

    while (done < count) {
        uint64_t start = starts[done].value;
        uint32_t run = order == 0 ? run_of(starts + done, count - done) : 1;

        if (order == 0 && (frame_give_made(cache, start, 0, UINT64_MAX >> (64 - run)) ||
                           loam_frame_loan_give_run(cache, start, run))) {
            done += run;
        } else if ((order < FRAME_WINDOWS && frame_give_made(cache, start, order, 1)) ||
                   (order == FRAME_CHUNK_ORDER && loam_frame_loan_give_whole(cache, start, LOAM_FRAME_CHUNK_FRAMES)) ||
                   loam_frame_loan_give(cache, start, UINT64_C(1) << order) == LOAM_OK) {
            done++;
        } else {
            break;
        }
    }
    return done;
}

static enum loam_error free_batch_locked(struct loam_frame *frame, struct loam_frame_cache *cache, uint32_t order,
                                         const loam_pfn *starts, size_t count, size_t *done)
{
    enum loam_error error = order > LOAM_FRAME_ORDER_MAX ? LOAM_ERROR_INVALID : LOAM_OK;

    while (error == LOAM_OK && *done < count) {
        *done += order <= FRAME_CHUNK_ORDER ? give_many(cache, order, starts + *done, count - *done) : 0;
        if (*done < count) {
            error = loam_frame_cache_free_locked(frame, cache, starts[*done].value, UINT64_C(1) << order);
            *done += error == LOAM_OK;
        }
    }
    return error;
}

enum loam_error loam_frame_cache_free_batch(struct loam_frame_cache *cache, uint32_t order, const loam_pfn *starts,
                                            size_t count, size_t *done_count)
{
    struct loam_frame *frame;
    enum loam_error error;
    size_t done = 0;

    if (done_count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *done_count = 0;
    if (cache == NULL || (starts == NULL && count > 0)) {
        return LOAM_ERROR_INVALID;
    }
    if (order <= FRAME_CHUNK_ORDER && frame_enter(cache)) {
        done = give_many(cache, order, starts, count);
        frame_leave(cache);
    }
    *done_count = done;
    if (LIKELY(done == count && count != 0)) {
        return LOAM_OK;
    }
    frame = loam_frame_cache_lock(cache, &error);
    if (frame == NULL) {
        return error;
    }
    error = free_batch_locked(frame, cache, order, starts, count, done_count);
    loam_frame_loan_collect(frame, cache, true);
    return frame_unlock(frame, error);
}
