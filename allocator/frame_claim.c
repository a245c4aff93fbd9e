// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_claim.h"

#include "allocator/check.h"
#include "allocator/frame_owner.h"
#include "allocator/frame_return.h"
#include "allocator/frame_stop.h"

/* No chunk here but by way of its head: every other chunk of a piece has no owner. */
static bool claim_chunk(struct loam_frame *frame, const struct frame_spot *spot)
{
    struct loam_frame_cache *cache;

    if (frame_read(spot->chunk->owner) == 0) {
        return true;
    }
    cache = frame_owner_of(frame, spot->chunk);
    if (!loam_frame_stop_owner(frame, cache)) {
        return false;
    }
    loam_frame_return_collect(frame, cache);
    if (frame_read(spot->chunk->owner) != 0) {
        loam_frame_owner_disown(frame, cache, spot);
    }
    return true;
}

bool loam_frame_claim_range(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t index = frame_chunk_index(section, start);

    while (index < end) {
        struct frame_spot spot = loam_frame_spot_head(frame, section, index);

        if (!claim_chunk(frame, &spot)) {
            return false;
        }
        /* The chunk may be part of a larger piece by now. */
        spot = loam_frame_spot_head(frame, section, index);
        index = spot.index + frame_spot_chunks(&spot);
    }
    return true;
}

static void disown_link(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t link)
{
    struct frame_spot spot = frame_spot_from_link(frame, link);

    loam_frame_owner_disown(frame, cache, &spot);
}

/* All chunks that the cache names: those it takes from, those that lie spare, those on its lists. */
static void drain_set(struct loam_frame *frame, struct loam_frame_cache *cache, enum frame_set set)
{
    const struct frame_lists *lists = &cache->lists[set];
    struct frame_spot spot;

    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        if (cache->window[order][set].link != FRAME_LINK_NONE) {
            disown_link(frame, cache, cache->window[order][set].link);
        }
    }
    while (cache->spare_count[set] > 0) {
        CHECK(loam_frame_spot_find(frame, cache->spare[set][cache->spare_count[set] - 1], &spot));
        loam_frame_owner_disown(frame, cache, &spot);
    }
    while (lists->mask[0] != 0) {
        disown_link(frame, cache, lists->head[__builtin_ctzll(lists->mask[0])]);
    }
}

bool loam_frame_claim_drain(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    if (!loam_frame_stop_owner(frame, cache)) {
        return false;
    }
    loam_frame_return_collect(frame, cache);
    drain_set(frame, cache, FRAME_SET_LOW);
    drain_set(frame, cache, FRAME_SET_ANY);
    return true;
}

/*
 * All owners are stopped before the first cache is looked at: a frame could go from one that is still to be looked at
 * to one that has been, and be missed.
 */
bool loam_frame_claim_all(struct loam_frame *frame)
{
    bool any = false;

    if (!loam_frame_stop_all(frame)) {
        return false;
    }
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        struct loam_frame_cache *cache = &frame_caches(frame)[id];

        if (cache->forbidden != FRAME_UNUSED && (cache->free_frames[0] | cache->free_frames[1] |
                                                 cache->returned_frames[0] | cache->returned_frames[1]) != 0) {
            any |= loam_frame_claim_drain(frame, cache);
        }
    }
    return any;
}

uint64_t loam_frame_claim_free_frames(const struct loam_frame *frame, enum loam_frame_zone zone)
{
    uint64_t sum = 0;

    for (uint32_t id = 0; id < frame->cache_top; id++) {
        const struct loam_frame_cache *cache = &frame_caches(frame)[id];

        sum += frame_read(cache->free_frames[zone]) + cache->returned_frames[zone] +
               loam_frame_stop_ready_frames(cache, zone);
    }
    return sum;
}

bool loam_frame_claim_forget(struct loam_frame *frame)
{
    if (!loam_frame_stop_all(frame)) {
        return false;
    }
    for (uint32_t id = 0; id < frame->cache_top; id++) {
        frame_caches(frame)[id].memo.count = 0;
    }
    return true;
}
