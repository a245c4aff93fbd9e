// SPDX-License-Identifier: Apache-2.0
/*
 * Every chunk that says that it is lent must be found with a cache: all that a cache names are counted, and those that
 * name one were counted before.
 */
#include "allocator/frame_cache/frame_cache_validate.h"

#include "allocator/frame/frame_chunk.h"
#include "allocator/frame_cache/frame_loan.h"
#include "allocator/frame_cache/frame_stop.h"

#include <inttypes.h>

static enum loam_error bad_cache(struct frame_recount *recount, const struct loam_frame_cache *cache, const char *what)
{
    return CORRUPT(recount, "cache %u: %s", cache->owner - 1, what);
}

/* --- Records ---------------------------------------------------------------------------------------------------- */

static bool record_valid(const struct loam_frame *frame, uint32_t n)
{
    const struct loam_frame_cache *cache = frame_cache_at(frame, n);
    uint32_t forbidden = shared_load(cache->forbidden);

    if (forbidden == FRAME_UNUSED) {
        return true;
    }
    return (forbidden == FRAME_RUNNING || forbidden == FRAME_STOPPING || forbidden == FRAME_STOPPED) &&
           n < frame->lender_top && shared_load(cache->busy) <= 1 && cache->owner == n + 1 &&
           cache->zone_end == frame->zone_end && frame_address(frame, cache->offset_bytes) == cache;
}

enum loam_error loam_frame_cache_validate_records(const struct loam_frame *frame, struct loam_diag *diag)
{
    for (uint32_t n = 0; n < frame->cache_capacity; n++) {
        if (!record_valid(frame, n)) {
            return loam_fail(diag, LOAM_ERROR_CORRUPT, "cache %u: its record is damaged", n);
        }
    }
    return LOAM_OK;
}

/* --- What caches have at hand ----------------------------------------------------------------------------------- */

/* Whether a link leads to a chunk that the cache has on loan; *spot receives it. */
static bool is_lent(const struct frame_recount *recount, const struct loam_frame_cache *cache, uint64_t link,
                    struct frame_spot *spot)
{
    if (!loam_frame_validate_link(recount, link)) {
        return false;
    }
    *spot = frame_spot_from_link(recount->frame, link);
    return spot->chunk->owner == cache->owner;
}

/* Whether the chunk says what is taken from it. */
static bool taking_valid(const struct frame_chunk *chunk, const struct frame_window *window, uint32_t set,
                         uint32_t order)
{
    uint32_t word = FRAME_TAKING_WORD(chunk->order);

    return chunk->list == FRAME_LIST_CURRENT && chunk->set == set && FRAME_TAKING_ORDER(chunk->order) == order &&
           (word == frame_offset(window->base) / 64 || (word == FRAME_TAKING_NO_WORD && window->made == 0));
}

/* Whether the window is in the chunk that it says it is in, and that is one to take from. */
static bool window_valid(const struct frame_recount *recount, const struct loam_frame_cache *cache, uint32_t set,
                         uint32_t order)
{
    const struct frame_window *window = &cache->window[order][set];
    struct frame_window seen = *window;
    struct frame_spot spot;

    if (window->link == FRAME_LINK_NONE) {
        return memcmp(window, &frame_window_none, sizeof *window) == 0;
    }
    /* All that was made may have been freed by others; what the owner freed at the same moment counts for nothing. */
    seen.base = seen.made == 0 ? 0 : seen.base;
    seen.back &= seen.made;
    return is_lent(recount, cache, window->link, &spot) && spot.chunk->state == FRAME_CHUNK_PARTIAL &&
           taking_valid(spot.chunk, window, set, order) && spot.chunk->lock != FRAME_LOCK_HELD &&
           window->chunk_base == spot.start &&
           frame_address(recount->frame, window->chunk_offset_bytes) == spot.chunk &&
           frame_address(recount->frame, window->map_offset_bytes) == spot.map &&
           loam_frame_validate_made(&spot, &seen, order);
}

static enum loam_error stop_all(struct frame_recount *recount)
{
    enum loam_error error = loam_frame_stop_all(recount->frame);

    if (error == LOAM_OK) {
        return error;
    }
    return loam_fail(recount->diag, error, "caches: some are in use, and their owners could not be stopped: %s",
                     error == LOAM_ERROR_BUSY
                         ? "the barrier, membarrier(2), was refused, or one stands still in a call: allow it, "
                           "or destroy the caches first"
                         : "this process has set no barrier: loam_frame_set_barrier");
}

/* What lies ready is settled if it could lie there. */
enum loam_error loam_frame_cache_validate_hands(struct frame_recount *recount)
{
    enum loam_error error = stop_all(recount);

    for (uint32_t id = 0; error == LOAM_OK && id < recount->frame->lender_top; id++) {
        struct loam_frame_cache *cache = frame_cache_at(recount->frame, id);

        if (cache->forbidden == FRAME_UNUSED) {
            continue;
        }
        for (uint32_t n = 0; n < FRAME_CHUNK_ORDER * FRAME_SETS; n++) {
            if (!window_valid(recount, cache, n % FRAME_SETS, n / FRAME_SETS)) {
                return bad_cache(recount, cache, "what it takes from is not its current chunk");
            }
        }
        loam_frame_loan_settle(recount->frame, cache);
    }
    return error;
}

/* --- What caches hold ------------------------------------------------------------------------------------------- */

static uint64_t count_currents(const struct loam_frame_cache *cache, uint32_t set)
{
    uint64_t count = 0;

    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        count += cache->window[order][set].link != FRAME_LINK_NONE;
    }
    return count;
}

static enum loam_error check_kept(struct frame_recount *recount, const struct loam_frame_cache *cache, uint32_t set)
{
    if (cache->kept_count[set] > FRAME_KEPT_CHUNKS) {
        return bad_cache(recount, cache, "it keeps more chunks than there is room for");
    }
    for (uint32_t n = 0; n < cache->kept_count[set]; n++) {
        const struct frame_kept *kept = &cache->kept[set][n];
        struct frame_spot spot;

        if (!is_lent(recount, cache, kept->link, &spot) || spot.chunk->state != FRAME_CHUNK_FREE ||
            spot.chunk->list != FRAME_LIST_KEPT || spot.chunk->set != set || spot.chunk->freed_chunk != 0 ||
            spot.start != kept->start || frame_address(recount->frame, kept->chunk_offset_bytes) != spot.chunk) {
            return bad_cache(recount, cache, "a chunk that it keeps is none");
        }
        for (uint32_t before = 0; before < n; before++) {
            if (cache->kept[set][before].start == kept->start) {
                return bad_cache(recount, cache, "it keeps a chunk twice");
            }
        }
    }
    return LOAM_OK;
}

static enum loam_error check_lists(struct frame_recount *recount, const struct loam_frame_cache *cache, uint32_t set,
                                   uint64_t *count)
{
    const struct frame_lists *lists = &cache->lists[set];
    enum loam_error error = LOAM_OK;
    uint64_t steps;

    if (lists->mask[1] != 0) {
        return bad_cache(recount, cache, "the mask marks lists that a cache does not have");
    }
    for (uint32_t list = 0; error == LOAM_OK && list < FRAME_LIST_FREE; list++) {
        error = loam_frame_validate_list(recount, lists, list, cache->owner, recount->lent, &steps);
        *count += steps;
    }
    return error;
}

/* The chunks in which others freed. Those that they freed whole are nowhere else. */
static enum loam_error check_freed(struct frame_recount *recount, const struct loam_frame_cache *cache, uint64_t *whole)
{
    uint64_t head = cache->freed;
    struct frame_spot spot;

    while (head != 0) {
        if (head < 2 || recount->freed == 0 || !is_lent(recount, cache, head - 2, &spot) ||
            spot.chunk->freed_chunk == 0) {
            return bad_cache(recount, cache, "a chunk in which others freed is none");
        }
        recount->freed--;
        *whole += spot.chunk->state == FRAME_CHUNK_FREE;
        head = spot.chunk->freed_chunk == FRAME_FREED_LAST
                   ? 0
                   : (uint64_t)spot.chunk->freed_section << 32 | spot.chunk->freed_chunk;
    }
    return LOAM_OK;
}

static enum loam_error check_memo(struct frame_recount *recount, const struct loam_frame_cache *cache)
{
    const struct frame_section *section;
    struct frame_memo memo;

    if (cache->memo.count == 0) {
        return LOAM_OK;
    }
    section = loam_frame_spot_section(recount->frame, cache->memo.id);
    if (section != NULL) {
        memo = loam_frame_cache_memo(recount->frame, cache, section);
    }
    if (section == NULL || memcmp(&memo, &cache->memo, sizeof memo) != 0) {
        return bad_cache(recount, cache, "the section that it remembers is not there");
    }
    return LOAM_OK;
}

static enum loam_error check_cache(struct frame_recount *recount, const struct loam_frame_cache *cache)
{
    uint64_t count = 0, freed_whole = 0;
    enum loam_error error = check_memo(recount, cache);

    for (uint32_t set = 0; error == LOAM_OK && set < FRAME_SETS; set++) {
        count += count_currents(cache, set) + cache->kept_count[set];
        error = check_kept(recount, cache, set);
        if (error == LOAM_OK) {
            error = check_lists(recount, cache, set, &count);
        }
    }
    if (error == LOAM_OK) {
        error = check_freed(recount, cache, &freed_whole);
    }
    if (error == LOAM_OK && cache->whole_count != recount->lent_whole[cache->owner - 1] + freed_whole) {
        error = bad_cache(recount, cache, "its count of chunks handed out whole is wrong");
    }
    recount->lent -= count + freed_whole;
    recount->lent_frames[LOAM_FRAME_ZONE_DMA32] -= cache->free_frames[LOAM_FRAME_ZONE_DMA32];
    recount->lent_frames[LOAM_FRAME_ZONE_NORMAL] -= cache->free_frames[LOAM_FRAME_ZONE_NORMAL];
    return error;
}

enum loam_error loam_frame_cache_validate_chunks(struct frame_recount *recount)
{
    const struct loam_frame *frame = recount->frame;
    enum loam_error error = LOAM_OK;

    for (uint32_t n = 0; error == LOAM_OK && n < frame->lender_top; n++) {
        const struct loam_frame_cache *cache = frame_cache_at(frame, n);

        if (cache->forbidden != FRAME_UNUSED) {
            error = check_cache(recount, cache);
        } else if (recount->lent_whole[n] != 0) {
            error = CORRUPT(recount, "cache %u: chunks are lent to it, and it is not there", n);
        }
    }
    if (error == LOAM_OK && (recount->lent != 0 || recount->freed != 0)) {
        error = CORRUPT(recount, "caches: %" PRId64 " chunks that say that they are lent are with none",
                        (int64_t)(recount->lent + recount->freed));
    }
    for (uint32_t zone = 0; error == LOAM_OK && zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        if (recount->lent_frames[zone] != frame->lent_frames[zone]) {
            error = CORRUPT(recount, "caches: of zone %u, the counters of free frames are %" PRId64 " off", zone,
                            (int64_t)(recount->lent_frames[zone] - frame->lent_frames[zone]));
        }
    }
    return error;
}
