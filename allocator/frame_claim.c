// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_claim.h"

#include "allocator/frame_buddy.h"
#include "allocator/frame_find.h"
#include "allocator/frame_owner.h"
#include "allocator/frame_return.h"
#include "allocator/frame_stop.h"

/* No chunk here but by way of its head: every other chunk of a piece has no owner. */
static bool claim_chunk(struct loam_frame *frame, struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache;

    if (frame_read(this->owner) == 0) {
        return true;
    }
    cache = frame_owner_of(frame, this);
    if (!loam_frame_stop_owner(frame, cache)) {
        return false;
    }
    loam_frame_return_collect(frame, cache);
    if (frame_read(this->owner) != 0) {
        loam_frame_owner_disown(frame, cache, section, chunk);
    }
    return true;
}

bool loam_frame_claim_range(struct loam_frame *frame, struct frame_section *section, uint64_t start, uint64_t count)
{
    uint64_t end = frame_chunk_index(section, start + count - 1) + 1;
    uint64_t chunk = loam_frame_buddy_head(frame, section, frame_chunk_index(section, start));

    while (chunk < end) {
        /* The chunk may become part of a larger piece, so the next one is looked up anew. */
        if (!claim_chunk(frame, section, chunk)) {
            return false;
        }
        chunk = loam_frame_buddy_head(frame, section, chunk);
        chunk += loam_frame_buddy_chunks(frame, section, chunk);
    }
    return true;
}

static void disown_link(struct loam_frame *frame, struct loam_frame_cache *cache, uint64_t link)
{
    loam_frame_owner_disown(frame, cache, frame_section_from_link(frame, link), (uint32_t)link);
}

/* All chunks that the cache names: those it takes from, those that lie spare, those on its lists. */
static void drain_zone(struct loam_frame *frame, struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    const struct frame_lists *lists = &cache->lists[zone];

    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        if (cache->window[order][zone].link != FRAME_LINK_NONE) {
            disown_link(frame, cache, cache->window[order][zone].link);
        }
    }
    while (cache->spare_count[zone] > 0) {
        uint64_t start = cache->spare[zone][cache->spare_count[zone] - 1];
        struct frame_section *section = loam_frame_section_from_pfn(frame, start);

        loam_frame_owner_disown(frame, cache, section, frame_chunk_index(section, start));
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
    drain_zone(frame, cache, LOAM_FRAME_ZONE_DMA32);
    drain_zone(frame, cache, LOAM_FRAME_ZONE_NORMAL);
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
