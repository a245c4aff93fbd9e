// SPDX-License-Identifier: Apache-2.0
/* The judgements of what was asked of the allocator; they change no cell. */
#include "tests/allocator/frame_oracle.h"

static bool is_cached(const struct frame_oracle *oracle, uint64_t pfn)
{
    return oracle->caches_hold && oracle->cached != NULL && oracle->cached(oracle->context, pfn);
}

static bool is_released(const struct frame_oracle *oracle, uint64_t pfn)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);

    return section->released[pfn - section->start];
}

/* --- One frame ------------------------------------------------------------------------------------------------- */

static bool judge_allocated(struct frame_oracle *oracle, uint64_t pfn, const struct loam_frame_info *info)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);
    uint64_t first, length = frame_oracle_block(oracle, pfn, &first);
    bool released = false;

    for (uint64_t n = 0; n < length; n++) {
        released |= section->released[first - section->start + n];
    }
    if (info->state != LOAM_FRAME_ALLOCATED || info->block.start.value != first || info->block.count_frames != length ||
        info->block.section != info->section) {
        return frame_oracle_wrong(oracle, "query tells of another block", info->block.start.value, first);
    }
    if (((info->block.flags & LOAM_FRAME_BLOCK_RELEASED) != 0) != released || info->cached) {
        return frame_oracle_wrong(oracle, "flags of a block", pfn, info->block.flags);
    }
    return (uint8_t)info->tag == section->tag[pfn - section->start] ||
           frame_oracle_wrong(oracle, "tag", pfn, info->tag);
}

bool frame_oracle_query(struct frame_oracle *oracle, uint64_t pfn, const struct loam_frame_info *info)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);

    if (section == NULL) {
        return info->state == LOAM_FRAME_UNMANAGED ||
               frame_oracle_wrong(oracle, "managed, says query", pfn, info->state);
    }
    if (info->section != section - oracle->sections) {
        return frame_oracle_wrong(oracle, "query names another section", pfn, info->section);
    }
    if (info->released != section->released[pfn - section->start]) {
        return frame_oracle_wrong(oracle, "whether the chunk is released", pfn, info->released);
    }
    if (section->block[pfn - section->start] != 0) {
        return judge_allocated(oracle, pfn, info);
    }
    if (info->state != LOAM_FRAME_FREE) {
        return frame_oracle_wrong(oracle, "not free, says query", pfn, info->state);
    }
    return !info->cached || (oracle->caches_hold && section->use == LOAM_FRAME_USE_OPEN) ||
           frame_oracle_wrong(oracle, "in a cache, though drained or withheld", pfn, 0);
}

bool frame_oracle_section(struct frame_oracle *oracle, uint64_t pfn, enum loam_error error,
                          const struct loam_frame_section *section)
{
    const struct frame_oracle_section *this = frame_oracle_section_of(oracle, pfn);
    uint64_t free_frames = 0;

    if (this == NULL || error != LOAM_OK) {
        return frame_oracle_same(oracle, error, this == NULL ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
    }
    for (uint64_t n = 0; n < this->count; n++) {
        free_frames += this->block[n] == 0 && !is_cached(oracle, this->start + n);
    }
    if (section->id != this - oracle->sections || section->start.value != this->start ||
        section->managed_frames != this->count || section->total_frames != this->count || section->use != this->use) {
        return frame_oracle_wrong(oracle, "a section's place", section->start.value, section->managed_frames);
    }
    return section->free_frames == free_frames ||
           frame_oracle_wrong(oracle, "a section's free frames, expected", section->free_frames, free_frames);
}

bool frame_oracle_pressure(struct frame_oracle *oracle, enum loam_frame_zone zone, bool pressure)
{
    enum frame_oracle_pressure answer = pressure ? FRAME_ORACLE_SHORT : FRAME_ORACLE_CALM;

    if (oracle->pressure[zone] != FRAME_ORACLE_UNKNOWN) {
        return answer == oracle->pressure[zone] || frame_oracle_wrong(oracle, "pressure in zone", zone, answer);
    }
    if (!oracle->caches_hold) {
        oracle->pressure[zone] = answer;
    }
    return true;
}

/* --- Ranges ---------------------------------------------------------------------------------------------------- */

bool frame_oracle_next_free(struct frame_oracle *oracle, uint64_t from, enum loam_error error,
                            const struct loam_frame_range *range)
{
    const struct frame_oracle_section *section;
    uint64_t start = UINT64_MAX, count = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        section = &oracle->sections[i];
        for (uint64_t n = 0; section->used && n < section->count; n++) {
            uint64_t pfn = section->start + n;

            if (pfn >= from && section->block[n] == 0) {
                start = pfn < start ? pfn : start;
                break;
            }
        }
    }
    if (start == UINT64_MAX || error != LOAM_OK) {
        return frame_oracle_same(oracle, error, start == UINT64_MAX ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
    }
    section = frame_oracle_section_of(oracle, start);
    while (frame_oracle_section_of(oracle, start + count) == section && frame_oracle_is_free(oracle, start + count)) {
        count++;
    }
    return (range->start.value == start && range->count_frames == count) ||
           frame_oracle_wrong(oracle, "next free range", range->start.value, range->count_frames);
}

/* Whether the 512 frames from pfn on are all in one section, free, and in no cache. */
static bool is_free_chunk(const struct frame_oracle *oracle, uint64_t pfn)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);

    if (section == NULL || section->count - (pfn - section->start) < LOAM_FRAME_CHUNK_FRAMES) {
        return false;
    }
    for (uint64_t n = 0; n < LOAM_FRAME_CHUNK_FRAMES; n++) {
        if (section->block[pfn - section->start + n] != 0) {
            return false;
        }
    }
    return !is_cached(oracle, pfn);
}

/* Wholly free chunks from pfn on, of one section and alike in being released. */
static uint64_t free_chunks_from(const struct frame_oracle *oracle, uint64_t pfn)
{
    uint64_t count = 0;

    while (is_free_chunk(oracle, pfn + count) &&
           frame_oracle_section_of(oracle, pfn + count) == frame_oracle_section_of(oracle, pfn) &&
           is_released(oracle, pfn + count) == is_released(oracle, pfn)) {
        count += LOAM_FRAME_CHUNK_FRAMES;
    }
    return count;
}

bool frame_oracle_next_free_chunks(struct frame_oracle *oracle, uint64_t from, enum loam_error error,
                                   const struct loam_frame_range *range, bool released)
{
    uint64_t start = UINT64_MAX;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            uint64_t pfn = section->start + n;

            if (pfn % LOAM_FRAME_CHUNK_FRAMES == 0 && from < pfn + LOAM_FRAME_CHUNK_FRAMES && pfn < start &&
                is_free_chunk(oracle, pfn)) {
                start = pfn;
            }
        }
    }
    if (start == UINT64_MAX || error != LOAM_OK) {
        return frame_oracle_same(oracle, error, start == UINT64_MAX ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
    }
    if (range->start.value != start || range->count_frames != free_chunks_from(oracle, start)) {
        return frame_oracle_wrong(oracle, "next free chunks", range->start.value, range->count_frames);
    }
    return released == is_released(oracle, start) || frame_oracle_wrong(oracle, "released chunks", start, released);
}

bool frame_oracle_largest_free(struct frame_oracle *oracle, uint64_t limit, enum loam_error error,
                               const struct loam_frame_range *range)
{
    uint64_t best = 0, best_start = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];
        uint64_t run = 0;

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            uint64_t pfn = section->start + n;

            run = section->block[n] == 0 && (limit == 0 || pfn < limit) ? run + 1 : 0;
            if (run > best || (run == best && run > 0 && pfn + 1 - run < best_start)) {
                best = run;
                best_start = pfn + 1 - run;
            }
        }
    }
    if (best == 0 || error != LOAM_OK) {
        return frame_oracle_same(oracle, error, best == 0 ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
    }
    return (range->start.value == best_start && range->count_frames == best) ||
           frame_oracle_wrong(oracle, "largest free range", range->start.value, range->count_frames);
}

/* --- Figures --------------------------------------------------------------------------------------------------- */

/* Free frames in naturally aligned free blocks of an order. */
static uint64_t count_usable(const struct frame_oracle *oracle, uint32_t order)
{
    uint64_t frames = UINT64_C(1) << order, usable = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];
        uint64_t run = 0;

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            run = section->block[n] == 0 ? run + 1 : 0;
            if ((section->start + n + 1) % frames == 0 && run >= frames) {
                usable += frames;
            }
        }
    }
    return usable;
}

bool frame_oracle_fragmentation(struct frame_oracle *oracle, const struct loam_frame_fragmentation *fragmentation)
{
    uint64_t free_frames = frame_oracle_count_free(oracle, 0, oracle->pfn_end);

    if (fragmentation->free_frames != free_frames) {
        return frame_oracle_wrong(oracle, "free frames, expected", fragmentation->free_frames, free_frames);
    }
    for (uint32_t order = 0; order <= LOAM_FRAME_ORDER_MAX; order++) {
        uint64_t usable = count_usable(oracle, order);

        if (fragmentation->usable_frames[order] != usable) {
            frame_oracle_wrong(oracle, "usable frames, expected", fragmentation->usable_frames[order], usable);
            return false;
        }
    }
    return true;
}

static void count_free_chunks(const struct frame_oracle *oracle, uint64_t *chunks, uint64_t *released)
{
    *chunks = 0;
    *released = 0;
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            if ((section->start + n) % LOAM_FRAME_CHUNK_FRAMES == 0 && is_free_chunk(oracle, section->start + n)) {
                *chunks += 1;
                *released += section->released[n];
            }
        }
    }
}

static uint64_t count_cached(const struct frame_oracle *oracle)
{
    uint64_t count = 0;

    for (uint32_t i = 0; oracle->caches_hold && i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            count += section->block[n] == 0 && is_cached(oracle, section->start + n);
        }
    }
    return count;
}

static bool judge_chunks(struct frame_oracle *oracle, const struct loam_frame_stats *stats)
{
    uint64_t chunks, released, cached = count_cached(oracle);

    count_free_chunks(oracle, &chunks, &released);
    if (stats->free_chunks != chunks || stats->released_chunks != released) {
        return frame_oracle_wrong(oracle, "free chunks, expected", stats->free_chunks, chunks);
    }
    if (stats->cached_frames != cached || stats->cache_count != oracle->cache_count) {
        return frame_oracle_wrong(oracle, "frames in caches, expected", stats->cached_frames, cached);
    }
    return stats->dma32_reserve_frames == oracle->config.dma32_reserve_frames ||
           frame_oracle_wrong(oracle, "reserve", stats->dma32_reserve_frames, oracle->config.dma32_reserve_frames);
}

bool frame_oracle_stats(struct frame_oracle *oracle, const struct loam_frame_stats *stats)
{
    uint64_t managed = 0, sections = 0;
    uint64_t low = frame_oracle_count_free(oracle, 0, oracle->zone_end);
    uint64_t high = frame_oracle_count_free(oracle, oracle->zone_end, oracle->pfn_end);
    uint64_t open_low = frame_oracle_count_open(oracle, 0, oracle->zone_end);
    uint64_t open_high = frame_oracle_count_open(oracle, oracle->zone_end, oracle->pfn_end);

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        managed += oracle->sections[i].used ? oracle->sections[i].count : 0;
        sections += oracle->sections[i].used;
    }
    if (stats->section_count != sections || stats->managed_frames != managed || stats->total_frames != managed ||
        stats->free_frames != low + high || stats->allocated_frames != managed - low - high) {
        return frame_oracle_wrong(oracle, "managed and free frames", stats->managed_frames, stats->free_frames);
    }
    if (stats->free_frames_in_zone[LOAM_FRAME_ZONE_DMA32] != open_low ||
        stats->free_frames_in_zone[LOAM_FRAME_ZONE_NORMAL] != open_high ||
        stats->withheld_frames != low + high - open_low - open_high) {
        return frame_oracle_wrong(oracle, "free frames by zone", open_low, open_high);
    }
    return judge_chunks(oracle, stats);
}
