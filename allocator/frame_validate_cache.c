// SPDX-License-Identifier: Apache-2.0
/*
 * Every chunk that says that it is in a cache must be found there: all that a cache names are counted, and those that
 * name one were counted before.
 */
#include "allocator/frame_validate_cache.h"

#include "allocator/frame_chunk.h"
#include "allocator/frame_find.h"

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

/* The chunk of a link if the cache owns it; NULL: it does not. */
static const struct frame_chunk *held(const struct recount *recount, const struct holding *holding, uint64_t link)
{
    const struct frame_section *section =
        link >> 32 < recount->frame->id_top ? &frame_sections(recount->frame)[link >> 32] : NULL;
    const struct frame_chunk *this;

    if (section == NULL || !section->used || (uint32_t)link >= section->chunk_count) {
        return NULL;
    }
    this = &frame_chunks(recount->frame, section)[(uint32_t)link];
    return this->owner == holding->cache->id + 1 ? this : NULL;
}

static enum loam_error check_currents(struct recount *recount, struct holding *holding, uint32_t zone)
{
    for (uint32_t order = 0; order < FRAME_CHUNK_ORDER; order++) {
        const struct frame_current *current = &holding->cache->current[zone][order];
        const struct frame_chunk *this;

        if (memcmp(current, &frame_current_none, sizeof *current) == 0) {
            continue;
        }
        this = current->seal == frame_current_seal(current) ? held(recount, holding, current->link) : NULL;
        if (this == NULL || this->state != FRAME_CHUNK_PARTIAL || this->list != FRAME_LIST_CURRENT ||
            this->order != order || current->window_base != 0 ||
            frame_address(recount->frame, current->chunk_offset_bytes) != this) {
            return bad_cache(recount, holding, "what it takes from is not its current chunk");
        }
        holding->chunks++;
        holding->free_frames[zone] += this->free_frames;
    }
    return LOAM_OK;
}

static enum loam_error check_spares(struct recount *recount, struct holding *holding, uint32_t zone)
{
    const struct loam_frame_cache *cache = holding->cache;

    if (cache->spare_count[zone] > FRAME_SPARE_CHUNKS) {
        return bad_cache(recount, holding, "it holds more spare chunks than there is room for");
    }
    for (uint64_t n = 0; n < cache->spare_count[zone]; n++) {
        const struct frame_section *section = loam_frame_section_from_pfn(recount->frame, cache->spare[zone][n]);
        const struct frame_chunk *this =
            section == NULL
                ? NULL
                : held(recount, holding, frame_link(section, frame_chunk_index(section, cache->spare[zone][n])));

        if (this == NULL || this->state != FRAME_CHUNK_FREE || frame_offset(cache->spare[zone][n]) != 0) {
            return bad_cache(recount, holding, "a spare chunk of it is none");
        }
        holding->chunks++;
        holding->free_frames[zone] += LOAM_FRAME_CHUNK_FRAMES;
    }
    return LOAM_OK;
}

static enum loam_error check_cache_lists(struct recount *recount, struct holding *holding, uint32_t zone)
{
    const struct frame_lists *lists = &holding->cache->lists[zone];

    if (lists->mask[1] != 0) {
        return bad_cache(recount, holding, "the mask marks lists that a cache does not have");
    }
    for (uint32_t list = 0; list < FRAME_LIST_FREE; list++) {
        uint64_t link = lists->head[list], steps;
        enum loam_error error = loam_frame_validate_list(recount, lists, list, recount->owned, &steps);

        if (error != LOAM_OK) {
            return error;
        }
        holding->chunks += steps;
        for (; steps > 0; steps--) {
            const struct frame_chunk *this = held(recount, holding, link);

            holding->free_frames[zone] += this->free_frames;
            link = frame_chunk_next(this);
        }
    }
    return LOAM_OK;
}

/* Every mark is the first frame of a block. */
static enum loam_error check_returned(struct recount *recount, const struct holding *holding, uint32_t n,
                                      uint64_t sums[LOAM_FRAME_ZONE_COUNT])
{
    const struct frame_returned *returned = &holding->cache->returned[n];
    const struct frame_chunk *this;
    const struct frame_section *section;
    struct frame_span block;

    if (returned->link == FRAME_LINK_NONE) {
        for (uint32_t word = 0; word < FRAME_MAP_WORDS; word++) {
            if (returned->starts[word] != 0) {
                return bad_cache(recount, holding, "an unused slot marks blocks as returned");
            }
        }
        return LOAM_OK;
    }
    this = held(recount, holding, returned->link);
    if (this == NULL || this->slot != n + 1) {
        return bad_cache(recount, holding, "a slot for returned blocks names a chunk that does not know of it");
    }
    section = &frame_sections(recount->frame)[returned->link >> 32];
    for (uint32_t offset = 0; offset < LOAM_FRAME_CHUNK_FRAMES; offset++) {
        uint64_t pfn = frame_chunk_start(section, (uint32_t)returned->link) + offset;

        if (((returned->starts[offset / 64] >> (offset % 64)) & 1) == 0) {
            continue;
        }
        if (pfn < section->start || pfn >= section->end ||
            !loam_frame_chunk_block(recount->frame, section, pfn, &block) || block.start != pfn) {
            return bad_cache(recount, holding, "what is marked as returned is no block");
        }
        sums[frame_zone(recount->frame, pfn)] += block.count;
    }
    return LOAM_OK;
}

static enum loam_error check_memo(struct recount *recount, const struct holding *holding)
{
    const struct frame_memo *memo = &holding->cache->memo;
    const struct frame_section *section;

    if (memcmp(memo, &frame_memo_none, sizeof *memo) == 0) {
        return LOAM_OK;
    }
    section = memo->seal == frame_memo_seal(memo) ? loam_frame_section_from_id(recount->frame, memo->id) : NULL;
    if (section == NULL || section->start != memo->start || section->end - section->start != memo->count) {
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

    if ((cache->forbidden != FRAME_STOPPED && cache->forbidden != FRAME_UNUSED) ||
        cache->seal != frame_cache_seal(cache->offset_bytes) || cache->id != id || cache->owner != id + 1 ||
        (cache->forbidden != FRAME_UNUSED &&
         (cache->zone_end != recount->frame->zone_end || cache->zone_open != frame_zone_open(recount->frame))) ||
        frame_address(recount->frame, cache->offset_bytes) != cache) {
        return CORRUPT(recount, "cache %u: its record is damaged", id);
    }
    if (cache->forbidden != FRAME_UNUSED) {
        error = check_memo(recount, &holding);
    }
    for (uint32_t zone = 0; error == LOAM_OK && zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        error = check_currents(recount, &holding, zone);
        if (error == LOAM_OK) {
            error = check_spares(recount, &holding, zone);
        }
        if (error == LOAM_OK) {
            error = check_cache_lists(recount, &holding, zone);
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
    for (uint32_t id = frame->cache_top; error == LOAM_OK && id < frame->cache_capacity; id++) {
        if (frame_caches(frame)[id].forbidden != FRAME_UNUSED) {
            error = CORRUPT(recount, "cache %u: was never made, and says otherwise", id);
        }
    }
    if (error == LOAM_OK && owned != recount->owned) {
        error = CORRUPT(recount, "caches: they hold %" PRIu64 " chunks, %" PRIu64 " say that they are in one", owned,
                        recount->owned);
    }
    return error;
}
