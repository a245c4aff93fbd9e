// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/frame_oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool wrong(struct frame_oracle *oracle, const char *what, uint64_t a, uint64_t b)
{
    snprintf(oracle->why, sizeof oracle->why, "%s: 0x%llx, 0x%llx", what, (unsigned long long)a, (unsigned long long)b);
    return false;
}

static bool same_error(struct frame_oracle *oracle, enum loam_error error, enum loam_error expected)
{
    if (error == expected) {
        return true;
    }
    snprintf(oracle->why, sizeof oracle->why, "answer '%s', expected '%s'", loam_error_name(error),
             loam_error_name(expected));
    return false;
}

void frame_oracle_init(struct frame_oracle *oracle, const struct loam_frame_config *config)
{
    uint32_t shift = config->frame_shift == 0 ? 12 : config->frame_shift;

    memset(oracle, 0, sizeof *oracle);
    oracle->section_capacity = config->section_capacity;
    oracle->zone_end = (UINT64_C(1) << 32) >> shift;
    oracle->pfn_end = (UINT64_C(1) << 52) >> shift;
    oracle->reserve = config->dma32_reserve_frames;
}

void frame_oracle_destroy(struct frame_oracle *oracle)
{
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        free(oracle->sections[i].block);
        free(oracle->sections[i].tag);
        oracle->sections[i] = (struct frame_oracle_section){0};
    }
}

/* --- Cells ----------------------------------------------------------------------------------------------------- */

static const struct frame_oracle_section *section_of(const struct frame_oracle *oracle, uint64_t pfn)
{
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        if (section->used && pfn >= section->start && pfn - section->start < section->count) {
            return section;
        }
    }
    return NULL;
}

static bool is_free(const struct frame_oracle *oracle, uint64_t pfn)
{
    const struct frame_oracle_section *section = section_of(oracle, pfn);

    return section != NULL && section->block[pfn - section->start] == 0;
}

uint64_t frame_oracle_block(const struct frame_oracle *oracle, uint64_t pfn, uint64_t *start)
{
    const struct frame_oracle_section *section = section_of(oracle, pfn);
    uint64_t low, high;

    *start = 0;
    if (section == NULL || section->block[pfn - section->start] == 0) {
        return 0;
    }
    low = pfn - section->start;
    high = low;
    while (low > 0 && section->block[low - 1] == section->block[high]) {
        low--;
    }
    while (high + 1 < section->count && section->block[high + 1] == section->block[low]) {
        high++;
    }
    *start = section->start + low;
    return high - low + 1;
}

static void fill(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint32_t block, uint8_t tag)
{
    const struct frame_oracle_section *section = section_of(oracle, start);

    for (uint64_t pfn = start; pfn < start + count; pfn++) {
        section->block[pfn - section->start] = block;
        section->tag[pfn - section->start] = tag;
    }
}

static uint64_t count_free(const struct frame_oracle *oracle, uint64_t from, uint64_t to)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            uint64_t pfn = section->start + n;

            count += section->block[n] == 0 && pfn >= from && pfn < to;
        }
    }
    return count;
}

/* --- Sections -------------------------------------------------------------------------------------------------- */

static bool overlaps(const struct frame_oracle *oracle, uint64_t start, uint64_t count)
{
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        if (section->used && start < section->start + section->count && section->start < start + count) {
            return true;
        }
    }
    return false;
}

static uint32_t count_sections(const struct frame_oracle *oracle)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        count += oracle->sections[i].used;
    }
    return count;
}

bool frame_oracle_add(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error,
                      uint32_t section)
{
    enum loam_error expected = LOAM_OK;

    if (count == 0 || start >= oracle->pfn_end || count > oracle->pfn_end - start) {
        expected = LOAM_ERROR_INVALID;
    } else if (overlaps(oracle, start, count)) {
        expected = LOAM_ERROR_OVERLAP;
    } else if (count_sections(oracle) == oracle->section_capacity) {
        expected = LOAM_ERROR_EXHAUSTED;
    }
    if (!same_error(oracle, error, expected) || error != LOAM_OK) {
        return error == expected;
    }
    if (section >= oracle->section_capacity || oracle->sections[section].used) {
        return wrong(oracle, "id beyond the capacity, or in use", section, start);
    }
    oracle->sections[section] = (struct frame_oracle_section){
        .used = true,
        .start = start,
        .count = count,
        .block = calloc(count, sizeof(uint32_t)),
        .tag = calloc(count, 1),
    };
    return true;
}

bool frame_oracle_remove(struct frame_oracle *oracle, uint32_t section, enum loam_error error, loam_pfn blocker)
{
    struct frame_oracle_section *this = section < FRAME_ORACLE_SECTIONS ? &oracle->sections[section] : NULL;
    enum loam_error expected = LOAM_OK;
    uint64_t used = 0;

    if (this == NULL || !this->used) {
        expected = LOAM_ERROR_NOT_FOUND;
    } else {
        for (uint64_t n = this->count; n > 0; n--) {
            if (this->block[n - 1] != 0) {
                expected = LOAM_ERROR_BUSY;
                used = this->start + n - 1;
            }
        }
    }
    if (!same_error(oracle, error, expected)) {
        return false;
    }
    if (blocker.value != used) {
        return wrong(oracle, "blocker, expected", blocker.value, used);
    }
    if (error == LOAM_OK) {
        free(this->block);
        free(this->tag);
        *this = (struct frame_oracle_section){0};
    }
    return true;
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

static bool power_of_two(uint64_t value)
{
    return __builtin_popcountll(value) == 1;
}

static bool well_formed(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    uint64_t count = request->count_frames, at = request->at.value;

    if (count < 1 || count > 1048576) {
        return false;
    }
    if (request->align_frames != 0 && (!power_of_two(request->align_frames) || request->align_frames > 1048576)) {
        return false;
    }
    if (request->boundary_frames != 0 &&
        (!power_of_two(request->boundary_frames) || request->boundary_frames < count)) {
        return false;
    }
    if (request->flags > 3) {
        return false;
    }
    if (request->flags & LOAM_FRAME_AT) {
        if (at >= oracle->pfn_end || at + count > oracle->pfn_end) {
            return false;
        }
        if (request->align_frames != 0 && at % request->align_frames != 0) {
            return false;
        }
        if (request->limit.value != 0 && at + count > request->limit.value) {
            return false;
        }
        if (request->boundary_frames != 0 &&
            at / request->boundary_frames != (at + count - 1) / request->boundary_frames) {
            return false;
        }
    }
    return true;
}

/* Whether [start, start + count), taken to be free and in one section, is what the request asks for. */
static bool fits(const struct frame_oracle *oracle, const struct loam_frame_request *request, uint64_t start,
                 uint64_t free_low)
{
    uint64_t count = request->count_frames;
    uint64_t limit = request->limit.value, low = 0;

    if (request->align_frames != 0 && start % request->align_frames != 0) {
        return false;
    }
    if (request->boundary_frames != 0 &&
        start / request->boundary_frames != (start + count - 1) / request->boundary_frames) {
        return false;
    }
    if (limit != 0 && start + count > limit) {
        return false;
    }
    if (request->flags & LOAM_FRAME_AT) {
        return start == request->at.value;
    }
    if (limit != 0 && limit <= oracle->zone_end) {
        return true;
    }
    if (start < oracle->zone_end) {
        low = start + count <= oracle->zone_end ? count : oracle->zone_end - start;
    }
    return low == 0 || free_low >= low + oracle->reserve;
}

/* Whether some place at or above from serves the request. */
static bool fit_exists(const struct frame_oracle *oracle, const struct loam_frame_request *request, uint64_t from)
{
    uint64_t free_low = count_free(oracle, 0, oracle->zone_end);

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];
        uint64_t run = 0; /* free frames from n on */

        if (!section->used || ((request->flags & LOAM_FRAME_IN_SECTION) && request->section != i)) {
            continue;
        }
        for (uint64_t n = section->count; n > 0; n--) {
            uint64_t pfn = section->start + n - 1;

            run = section->block[n - 1] == 0 ? run + 1 : 0;
            if (pfn >= from && run >= request->count_frames && fits(oracle, request, pfn, free_low)) {
                return true;
            }
        }
    }
    return false;
}

static enum loam_error expect_refusal(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    const struct frame_oracle_section *section;

    if (!well_formed(oracle, request)) {
        return LOAM_ERROR_INVALID;
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) &&
        (request->section >= FRAME_ORACLE_SECTIONS || !oracle->sections[request->section].used)) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if (request->flags & LOAM_FRAME_AT) {
        section = section_of(oracle, request->at.value);
        if (section == NULL || section_of(oracle, request->at.value + request->count_frames - 1) != section) {
            return LOAM_ERROR_NOT_FOUND;
        }
        if ((request->flags & LOAM_FRAME_IN_SECTION) && section != &oracle->sections[request->section]) {
            return LOAM_ERROR_INVALID;
        }
        for (uint64_t n = 0; n < request->count_frames; n++) {
            if (!is_free(oracle, request->at.value + n)) {
                return LOAM_ERROR_BUSY;
            }
        }
        return LOAM_OK;
    }
    return fit_exists(oracle, request, 0) ? LOAM_OK : LOAM_ERROR_EXHAUSTED;
}

static bool judge_block(struct frame_oracle *oracle, const struct loam_frame_request *request,
                        const struct loam_frame_block *block)
{
    uint64_t start = block->start.value, count = request->count_frames;
    const struct frame_oracle_section *section = section_of(oracle, start);

    if (!well_formed(oracle, request)) {
        return wrong(oracle, "a malformed request was served", count, start);
    }
    if (section == NULL || section_of(oracle, start + count - 1) != section || block->count_frames != count ||
        section != &oracle->sections[block->section] || block->flags != 0) {
        return wrong(oracle, "a block of the wrong count, or not in its section", start, block->count_frames);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) && request->section != block->section) {
        return wrong(oracle, "a block in another section than asked for", start, block->section);
    }
    for (uint64_t n = 0; n < count; n++) {
        if (!is_free(oracle, start + n)) {
            return wrong(oracle, "a frame was handed out twice", start + n, start);
        }
    }
    if (!fits(oracle, request, start, count_free(oracle, 0, oracle->zone_end))) {
        return wrong(oracle, "a block beside what was asked for", start, count);
    }
    if (start < oracle->zone_end && !(request->flags & LOAM_FRAME_AT) &&
        (request->limit.value == 0 || request->limit.value > oracle->zone_end) &&
        fit_exists(oracle, request, oracle->zone_end)) {
        return wrong(oracle, "a block below 4 GiB, where one above was free", start, count);
    }
    return true;
}

bool frame_oracle_alloc(struct frame_oracle *oracle, const struct loam_frame_request *request, enum loam_error error,
                        const struct loam_frame_block *block)
{
    static const struct loam_frame_block zero;

    if (error != LOAM_OK) {
        if (memcmp(block, &zero, sizeof zero) != 0) {
            return wrong(oracle, "a block came with a refusal", block->start.value, block->count_frames);
        }
        return same_error(oracle, error, expect_refusal(oracle, request));
    }
    if (!judge_block(oracle, request, block)) {
        return false;
    }
    fill(oracle, block->start.value, block->count_frames, ++oracle->next_block, LOAM_FRAME_TAG_NONE);
    return true;
}

bool frame_oracle_free(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error)
{
    enum loam_error expected = LOAM_OK;
    uint64_t first, length = frame_oracle_block(oracle, start, &first);

    if (section_of(oracle, start) == NULL) {
        expected = LOAM_ERROR_NOT_FOUND;
    } else if (length == 0 || first != start || length != count) {
        expected = LOAM_ERROR_INVALID;
    }
    if (!same_error(oracle, error, expected)) {
        return false;
    }
    if (error == LOAM_OK) {
        fill(oracle, start, count, 0, LOAM_FRAME_TAG_NONE);
    }
    return true;
}

/* --- Questions ------------------------------------------------------------------------------------------------- */

bool frame_oracle_tag(struct frame_oracle *oracle, uint64_t start, enum loam_frame_tag tag, enum loam_error error)
{
    uint64_t first, length = frame_oracle_block(oracle, start, &first);
    bool good = length > 0 && first == start && (unsigned)tag <= LOAM_FRAME_TAG_SLAB;

    if (!same_error(oracle, error, good ? LOAM_OK : LOAM_ERROR_INVALID)) {
        return false;
    }
    if (good) {
        fill(oracle, start, length, section_of(oracle, start)->block[start - section_of(oracle, start)->start],
             (uint8_t)tag);
    }
    return true;
}

bool frame_oracle_query(struct frame_oracle *oracle, uint64_t pfn, const struct loam_frame_info *info)
{
    const struct frame_oracle_section *section = section_of(oracle, pfn);
    uint64_t first, length = frame_oracle_block(oracle, pfn, &first);

    if (section == NULL) {
        return info->state == LOAM_FRAME_UNMANAGED || wrong(oracle, "managed, says query", pfn, info->state);
    }
    if (info->section != section - oracle->sections) {
        return wrong(oracle, "query names another section", pfn, info->section);
    }
    if (length == 0) {
        return info->state == LOAM_FRAME_FREE || wrong(oracle, "not free, says query", pfn, info->state);
    }
    if (info->state != LOAM_FRAME_ALLOCATED || info->block.start.value != first || info->block.count_frames != length ||
        info->block.section != info->section) {
        return wrong(oracle, "query tells of another block", info->block.start.value, first);
    }
    return (uint8_t)info->tag == section->tag[pfn - section->start] || wrong(oracle, "tag", pfn, info->tag);
}

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
    if (!same_error(oracle, error, start == UINT64_MAX ? LOAM_ERROR_NOT_FOUND : LOAM_OK) || error != LOAM_OK) {
        return error == LOAM_ERROR_NOT_FOUND && start == UINT64_MAX;
    }
    section = section_of(oracle, start);
    while (section_of(oracle, start + count) == section && is_free(oracle, start + count)) {
        count++;
    }
    return (range->start.value == start && range->count_frames == count) ||
           wrong(oracle, "next free range", range->start.value, range->count_frames);
}

static uint64_t count_free_chunks(const struct frame_oracle *oracle)
{
    uint64_t chunks = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];
        uint64_t run = 0;

        for (uint64_t n = 0; section->used && n < section->count; n++) {
            run = section->block[n] != 0 ? 0 : (section->start + n) % 512 == 0 || run > 0 ? run + 1 : 0;
            chunks += run > 0 && (section->start + n) % 512 == 511;
            run = (section->start + n) % 512 == 511 ? 0 : run;
        }
    }
    return chunks;
}

bool frame_oracle_stats(struct frame_oracle *oracle, const struct loam_frame_stats *stats)
{
    uint64_t managed = 0;
    uint64_t low = count_free(oracle, 0, oracle->zone_end);
    uint64_t high = count_free(oracle, oracle->zone_end, oracle->pfn_end);

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        managed += oracle->sections[i].used ? oracle->sections[i].count : 0;
    }
    if (stats->section_count != count_sections(oracle) || stats->managed_frames != managed ||
        stats->total_frames != managed || stats->free_frames != low + high ||
        stats->allocated_frames != managed - low - high) {
        return wrong(oracle, "managed and free frames", stats->managed_frames, stats->free_frames);
    }
    if (stats->free_frames_in_zone[LOAM_FRAME_ZONE_DMA32] != low ||
        stats->free_frames_in_zone[LOAM_FRAME_ZONE_NORMAL] != high) {
        return wrong(oracle, "free frames by zone", low, high);
    }
    return stats->free_chunks == count_free_chunks(oracle) ||
           wrong(oracle, "free chunks, expected", stats->free_chunks, count_free_chunks(oracle));
}
