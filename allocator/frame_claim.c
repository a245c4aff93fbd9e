// SPDX-License-Identifier: Apache-2.0
#include "allocator/frame_claim.h"

#include "allocator/frame_buddy.h"
#include "allocator/frame_find.h"
#include "allocator/frame_owner.h"
#include "allocator/frame_return.h"
#include "allocator/frame_stop.h"

#include <string.h>

/* No chunk here but by way of its head: every other chunk of a piece has no owner. */
static bool claim_chunk(struct loam_frame *frame, struct frame_section *section, uint64_t chunk)
{
    struct frame_chunk *this = &frame_chunks(frame, section)[chunk];
    struct loam_frame_cache *cache;

    if (frame_read(this->owner) == 0) {
        return true;
    }
    cache = loam_frame_stop_owner_of(frame, this);
    if (cache == NULL || !loam_frame_stop_owner(frame, cache)) {
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

    while (chunk < end && !frame_read(frame->damaged)) {
        /* The chunk may become part of a larger piece, so the next one is looked up anew. */
        if (!claim_chunk(frame, section, chunk)) {
            return false;
        }
        chunk = loam_frame_buddy_head(frame, section, chunk);
        chunk += loam_frame_buddy_chunks(frame, section, chunk);
    }
    return true;
}

/* Disown the first chunk of every list, until there is none. */
static void drain_lists(struct loam_frame *frame, struct loam_frame_cache *cache, const struct frame_lists *lists)
{
    while (lists->mask[0] != 0 && !frame_read(frame->damaged)) {
        uint32_t list = (uint32_t)__builtin_ctzll(lists->mask[0]);
        uint64_t link = lists->head[list];
        struct frame_section *section;
        struct frame_chunk *this = loam_frame_chunk_from_link(frame, link, &section);

        if (section == NULL || this->owner != cache->id + 1 || this->list != list) {
            loam_frame_damage(frame);
            return;
        }
        loam_frame_owner_disown(frame, cache, section, (uint32_t)link);
    }
}

/* Disown a chunk that the cache names; section NULL: it names none. */
static void drain_chunk(struct loam_frame *frame, struct loam_frame_cache *cache, struct frame_section *section,
                        uint64_t chunk)
{
    if (section == NULL || frame_chunks(frame, section)[chunk].owner != cache->id + 1) {
        loam_frame_damage(frame);
        return;
    }
    loam_frame_owner_disown(frame, cache, section, chunk);
}

static void drain_zone(struct loam_frame *frame, struct loam_frame_cache *cache, enum loam_frame_zone zone)
{
    struct frame_section *section;

    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        const struct frame_current *current = &cache->current[zone][order];

        if (memcmp(current, &frame_current_none, sizeof *current) != 0) {
            if (current->seal != frame_current_seal(current)) {
                loam_frame_damage(frame);
                return;
            }
            loam_frame_chunk_from_link(frame, current->link, &section);
            drain_chunk(frame, cache, section, (uint32_t)current->link);
        }
    }
    while (cache->spare_count[zone] > 0 && !frame_read(frame->damaged)) {
        uint64_t start = cache->spare[zone][(cache->spare_count[zone] - 1) % FRAME_SPARE_CHUNKS];

        section = loam_frame_section_from_pfn(frame, start);
        drain_chunk(frame, cache, section, section == NULL ? 0 : frame_chunk_index(section, start));
    }
    drain_lists(frame, cache, &cache->lists[zone]);
}

bool loam_frame_claim_drain(struct loam_frame *frame, struct loam_frame_cache *cache)
{
    if (!loam_frame_stop_owner(frame, cache)) {
        return false;
    }
    loam_frame_return_collect(frame, cache);
    drain_zone(frame, cache, LOAM_FRAME_ZONE_DMA32);
    drain_zone(frame, cache, LOAM_FRAME_ZONE_NORMAL);
    return !frame_read(frame->damaged);
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
        frame_caches(frame)[id].memo = frame_memo_none;
    }
    return true;
}
