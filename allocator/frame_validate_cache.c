// SPDX-License-Identifier: Apache-2.0
/*
 * Every chunk that says that it is in a cache must be found there: all that a cache names are counted, and those that
 * name one were counted before.
 */
#include "allocator/frame_validate_cache.h"

#include "allocator/frame_chunk.h"
#include "allocator/frame_stop.h"

#include <inttypes.h>
#include <string.h>

/* What one cache holds. */
struct holding {
    const struct loam_frame_cache *cache;
    uint64_t chunks;
    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT];
};

static enum loam_error bad_cache(struct recount *recount, const struct holding *holding, const char *what)
{
    return CORRUPT(recount, "cache %" PRIu64 ": %s", holding->cache->id, what);
}

/* Whether a link leads to a chunk that the cache owns; *spot receives it. */
static bool held(const struct recount *recount, const struct holding *holding, uint64_t link, struct frame_spot *spot)
{
    if (!loam_frame_validate_link(recount, link)) {
        return false;
    }
    *spot = frame_spot_from_link(recount->frame, link);
    return spot->chunk->owner == holding->cache->id + 1;
}

bool loam_frame_validate_record(const struct loam_frame *frame, uint32_t id)
{
    const struct loam_frame_cache *cache = &frame_caches(frame)[id];
    uint32_t forbidden = frame_read(cache->forbidden);

    if (forbidden == FRAME_UNUSED) {
        return true;
    }
    return (forbidden == FRAME_RUNNING || forbidden == FRAME_STOPPING || forbidden == FRAME_STOPPED) &&
           id < frame->cache_top && frame_read(cache->busy) <= 1 && cache->id == id && cache->owner == id + 1 &&
           cache->zone_end == frame->zone_end && frame_address(frame, cache->offset_bytes) == cache;
}

bool loam_frame_validate_made(const struct frame_spot *spot, const struct frame_window *window, uint32_t order)
{
    struct frame_word bits;
    uint64_t made;

    if (window->made == 0) {
        return (window->ready | window->back | window->base) == 0;
    }
    if (order >= FRAME_WINDOWS || (window->made & ~frame_bits_starts(UINT64_MAX, order)) != 0 ||
        window->base - spot->start >= LOAM_FRAME_CHUNK_FRAMES || window->base % 64 != 0) {
        return false;
    }
    bits = frame_bits_read(spot->map, frame_offset(window->base) / 64);
    made = frame_spread(window->made, order);
    return (window->ready & window->back) == 0 && ((window->ready | window->back) & ~window->made) == 0 &&
           (bits.allocated & made) == made && (bits.last & made) == frame_ends(window->made, order);
}

/* Whether the window is in the chunk that it says it is in, and that is one to take from. */
static bool check_window(const struct recount *recount, const struct holding *holding, uint32_t set, uint32_t order)
{
    const struct frame_window *window = &holding->cache->window[order][set];
    struct frame_spot spot;

    if (window->link == FRAME_LINK_NONE) {
        return memcmp(window, &frame_window_none, sizeof *window) == 0;
    }
    return held(recount, holding, window->link, &spot) && spot.chunk->state == FRAME_CHUNK_PARTIAL &&
           spot.chunk->list == FRAME_LIST_CURRENT && spot.chunk->order == order && spot.chunk->set == set &&
           window->chunk_base == spot.start &&
           frame_address(recount->frame, window->chunk_offset_bytes) == spot.chunk &&
           frame_address(recount->frame, window->map_offset_bytes) == spot.map &&
           loam_frame_validate_made(&spot, window, order);
}

enum loam_error loam_frame_validate_windows(struct recount *recount)
{
    for (uint32_t id = 0; id < recount->frame->cache_top; id++) {
        struct holding holding = {.cache = &frame_caches(recount->frame)[id]};

        for (uint32_t n = 0; n < FRAME_CHUNK_ORDER * FRAME_SETS; n++) {
            if (!check_window(recount, &holding, n % FRAME_SETS, n / FRAME_SETS)) {
                return bad_cache(recount, &holding, "what it takes from is not its current chunk");
            }
        }
        loam_frame_stop_settle(recount->frame, &frame_caches(recount->frame)[id]);
    }
    return LOAM_OK;
}

static void count_held(struct holding *holding, const struct frame_spot *spot)
{
    holding->chunks++;
    holding->free_frames[spot->zone] +=
        spot->chunk->state == FRAME_CHUNK_FREE ? LOAM_FRAME_CHUNK_FRAMES : frame_free_frames(spot->chunk);
}

static void count_currents(const struct recount *recount, struct holding *holding, uint32_t set)
{
    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        uint64_t link = holding->cache->window[order][set].link;

        if (link != FRAME_LINK_NONE) {
            struct frame_spot spot = frame_spot_from_link(recount->frame, link);

            count_held(holding, &spot);
        }
    }
}

static enum loam_error check_spares(struct recount *recount, struct holding *holding, uint32_t set)
{
    const struct loam_frame_cache *cache = holding->cache;

    if (cache->spare_count[set] > FRAME_SPARE_CHUNKS) {
        return bad_cache(recount, holding, "it holds more spare chunks than there is room for");
    }
    for (uint64_t n = 0; n < cache->spare_count[set]; n++) {
        struct frame_spot spot;

        if (!loam_frame_spot_find(recount->frame, cache->spare[set][n], &spot) || spot.chunk->owner != cache->id + 1 ||
            spot.chunk->state != FRAME_CHUNK_FREE || spot.chunk->set != set || spot.start != cache->spare[set][n]) {
            return bad_cache(recount, holding, "a spare chunk of it is none");
        }
        count_held(holding, &spot);
    }
    return LOAM_OK;
}

static enum loam_error check_cache_lists(struct recount *recount, struct holding *holding, uint32_t set)
{
    const struct frame_lists *lists = &holding->cache->lists[set];

    if (lists->mask[1] != 0) {
        return bad_cache(recount, holding, "the mask marks lists that a cache does not have");
    }
    for (uint32_t list = 0; list < FRAME_LIST_FREE; list++) {
        uint64_t link = lists->head[list], steps;
        enum loam_error error = loam_frame_validate_list(recount, lists, list, recount->owned, &steps);

        if (error != LOAM_OK) {
            return error;
        }
        for (; steps > 0; steps--) {
            struct frame_spot spot = frame_spot_from_link(recount->frame, link);

            count_held(holding, &spot);
            link = frame_chunk_next(spot.chunk);
        }
    }
    return LOAM_OK;
}

/* Every mark is the first frame of a block. */
static enum loam_error check_returned(struct recount *recount, const struct holding *holding, uint32_t n,
                                      uint64_t sums[LOAM_FRAME_ZONE_COUNT])
{
    const struct frame_returned *returned = &holding->cache->returned[n];
    struct frame_span block;
    struct frame_spot spot;

    if (returned->link == FRAME_LINK_NONE) {
        for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
            if (returned->starts[word] != 0) {
                return bad_cache(recount, holding, "an unused slot marks blocks as returned");
            }
        }
        return LOAM_OK;
    }
    if (!held(recount, holding, returned->link, &spot) || spot.chunk->slot != n + 1) {
        return bad_cache(recount, holding, "a slot for returned blocks names a chunk that does not know of it");
    }
    for (uint32_t offset = 0; offset < LOAM_FRAME_CHUNK_FRAMES; offset++) {
        uint64_t pfn = spot.start + offset;

        if (((returned->starts[offset / 64] >> (offset % 64)) & 1) == 0) {
            continue;
        }
        if (pfn < spot.section->start || pfn >= spot.section->end ||
            !loam_frame_chunk_block(recount->frame, &spot, pfn, &block) || block.start != pfn) {
            return bad_cache(recount, holding, "what is marked as returned is no block");
        }
        sums[spot.zone] += block.count;
    }
    return LOAM_OK;
}

static enum loam_error check_memo(struct recount *recount, const struct holding *holding)
{
    const struct loam_frame_cache *cache = holding->cache;
    const struct frame_section *section;
    struct frame_memo memo;

    if (cache->memo.count == 0) {
        return LOAM_OK;
    }
    section = loam_frame_spot_section(recount->frame, cache->memo.id);
    if (section != NULL) {
        memo = frame_memo_of(recount->frame, cache, section);
    }
    if (section == NULL || memcmp(&memo, &cache->memo, sizeof memo) != 0) {
        return bad_cache(recount, holding, "the section that it remembers is not there");
    }
    return LOAM_OK;
}

static enum loam_error check_cache(struct recount *recount, uint32_t id, uint64_t *owned)
{
    struct holding holding = {.cache = &frame_caches(recount->frame)[id]};
    const struct loam_frame_cache *cache = holding.cache;
    uint64_t returned[LOAM_FRAME_ZONE_COUNT] = {0};
    enum loam_error error = LOAM_OK;

    if (cache->forbidden != FRAME_UNUSED) {
        error = check_memo(recount, &holding);
    }
    for (uint32_t set = 0; error == LOAM_OK && set < FRAME_SETS; set++) {
        count_currents(recount, &holding, set);
        error = check_spares(recount, &holding, set);
        if (error == LOAM_OK) {
            error = check_cache_lists(recount, &holding, set);
        }
    }
    for (uint32_t n = 0; error == LOAM_OK && n < FRAME_RETURNED; n++) {
        error = check_returned(recount, &holding, n, returned);
    }
    for (uint32_t zone = 0; error == LOAM_OK && zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        if (cache->returned_any != ((cache->returned_frames[0] | cache->returned_frames[1]) != 0) ||
            holding.free_frames[zone] != cache->free_frames[zone] || returned[zone] != cache->returned_frames[zone]) {
            error = bad_cache(recount, &holding, "its counters of free frames are not what its chunks say");
        }
    }
    *owned += holding.chunks;
    return error;
}

enum loam_error loam_frame_validate_caches(struct recount *recount)
{
    const struct loam_frame *frame = recount->frame;
    enum loam_error error = LOAM_OK;
    uint64_t owned = 0;

    for (uint32_t id = 0; error == LOAM_OK && id < frame->cache_top; id++) {
        error = check_cache(recount, id, &owned);
    }
    if (error == LOAM_OK && owned != recount->owned) {
        error = CORRUPT(recount, "caches: they hold %" PRIu64 " chunks, %" PRIu64 " say that they are in one", owned,
                        recount->owned);
    }
    return error;
}
