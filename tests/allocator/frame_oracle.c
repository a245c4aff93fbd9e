// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/frame_oracle.h"
#include "tests/allocator/frame_oracle_cells.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool frame_oracle_wrong(struct frame_oracle *oracle, const char *what, uint64_t a, uint64_t b)
{
    snprintf(oracle->why, sizeof oracle->why, "%s: 0x%llx, 0x%llx", what, (unsigned long long)a, (unsigned long long)b);
    return false;
}

bool frame_oracle_same(struct frame_oracle *oracle, enum loam_error error, enum loam_error expected)
{
    if (error == expected) {
        return true;
    }
    snprintf(oracle->why, sizeof oracle->why, "answer '%s', expected '%s'", loam_error_name(error),
             loam_error_name(expected));
    return false;
}

bool frame_oracle_one_of(struct frame_oracle *oracle, enum loam_error error, unsigned faults)
{
    if (faults == 0 ? error == LOAM_OK : (faults >> error & 1u) != 0) {
        return true;
    }
    return frame_oracle_same(oracle, error, faults == 0 ? LOAM_OK : (enum loam_error)__builtin_ctz(faults));
}

void frame_oracle_init(struct frame_oracle *oracle, const struct loam_frame_config *config)
{
    memset(oracle, 0, sizeof *oracle);
    oracle->config = *config;
    oracle->config.frame_shift = config->frame_shift == 0 ? 12 : config->frame_shift;
    oracle->config.cache_capacity = config->cache_capacity == 0 ? 4 : config->cache_capacity;
    oracle->zone_end = (UINT64_C(1) << 32) >> oracle->config.frame_shift;
    oracle->pfn_end = (UINT64_C(1) << 52) >> oracle->config.frame_shift;
    oracle->pressure[0] = FRAME_ORACLE_UNKNOWN;
    oracle->pressure[1] = FRAME_ORACLE_UNKNOWN;
}

static void drop_cells(struct frame_oracle_section *section)
{
    free(section->block);
    free(section->tag);
    free(section->released);
    *section = (struct frame_oracle_section){0};
}

void frame_oracle_destroy(struct frame_oracle *oracle)
{
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        drop_cells(&oracle->sections[i]);
    }
}

/* --- Cells ----------------------------------------------------------------------------------------------------- */

const struct frame_oracle_section *frame_oracle_section_of(const struct frame_oracle *oracle, uint64_t pfn)
{
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        if (section->used && pfn >= section->start && pfn - section->start < section->count) {
            return section;
        }
    }
    return NULL;
}

bool frame_oracle_is_free(const struct frame_oracle *oracle, uint64_t pfn)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);

    return section != NULL && section->block[pfn - section->start] == 0;
}

uint64_t frame_oracle_block(const struct frame_oracle *oracle, uint64_t pfn, uint64_t *start)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);
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

static uint64_t count_free(const struct frame_oracle *oracle, uint64_t from, uint64_t to, bool open_only)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];
        bool counts = section->used && (!open_only || section->use == LOAM_FRAME_USE_OPEN);

        for (uint64_t n = 0; counts && n < section->count; n++) {
            uint64_t pfn = section->start + n;

            count += section->block[n] == 0 && pfn >= from && pfn < to;
        }
    }
    return count;
}

uint64_t frame_oracle_count_free(const struct frame_oracle *oracle, uint64_t from, uint64_t to)
{
    return count_free(oracle, from, to, false);
}

uint64_t frame_oracle_count_open(const struct frame_oracle *oracle, uint64_t from, uint64_t to)
{
    return count_free(oracle, from, to, true);
}

/* What follows from another number of free frames. What caches hold is not counted, so they blur it. */
static void note_pressure(struct frame_oracle *oracle)
{
    uint64_t free_frames[LOAM_FRAME_ZONE_COUNT];

    if (oracle->config.watermarks[0].low_frames == 0 && oracle->config.watermarks[1].low_frames == 0) {
        oracle->pressure[0] = FRAME_ORACLE_CALM;
        oracle->pressure[1] = FRAME_ORACLE_CALM;
        return;
    }
    free_frames[LOAM_FRAME_ZONE_DMA32] = frame_oracle_count_open(oracle, 0, oracle->zone_end);
    free_frames[LOAM_FRAME_ZONE_NORMAL] = frame_oracle_count_open(oracle, oracle->zone_end, oracle->pfn_end);
    for (int zone = 0; zone < LOAM_FRAME_ZONE_COUNT; zone++) {
        if (oracle->config.watermarks[zone].low_frames == 0) {
            oracle->pressure[zone] = FRAME_ORACLE_CALM;
        } else if (free_frames[zone] < oracle->config.watermarks[zone].low_frames) {
            oracle->pressure[zone] = FRAME_ORACLE_SHORT;
        } else if (oracle->caches_hold) {
            oracle->pressure[zone] = FRAME_ORACLE_UNKNOWN;
        } else if (free_frames[zone] >= oracle->config.watermarks[zone].high_frames) {
            oracle->pressure[zone] = FRAME_ORACLE_CALM;
        }
    }
}

void frame_oracle_fill(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint32_t block, uint8_t tag)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, start);

    for (uint64_t n = start - section->start; n < start - section->start + count; n++) {
        section->block[n] = block;
        section->tag[n] = tag;
    }
    note_pressure(oracle);
}

static void fill_released(struct frame_oracle *oracle, uint64_t start, uint64_t count, bool released)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, start);

    memset(&section->released[start - section->start], released, count * sizeof(bool));
}

bool frame_oracle_touches_released(const struct frame_oracle *oracle, uint64_t start, uint64_t count)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, start);
    bool touched = false;

    for (uint64_t n = start - section->start; n < start - section->start + count; n++) {
        touched |= section->released[n];
    }
    return touched;
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
    } else if (count_sections(oracle) == oracle->config.section_capacity) {
        expected = LOAM_ERROR_EXHAUSTED;
    }
    if (!frame_oracle_same(oracle, error, expected) || error != LOAM_OK) {
        return error == expected;
    }
    if (section >= oracle->config.section_capacity || oracle->sections[section].used) {
        return frame_oracle_wrong(oracle, "id beyond the capacity, or in use", section, start);
    }
    oracle->sections[section] = (struct frame_oracle_section){
        .used = true,
        .start = start,
        .count = count,
        .block = calloc(count, sizeof(uint32_t)),
        .tag = calloc(count, 1),
        .released = calloc(count, sizeof(bool)),
    };
    note_pressure(oracle);
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
    if (!frame_oracle_same(oracle, error, expected)) {
        return false;
    }
    if (blocker.value != used) {
        return frame_oracle_wrong(oracle, "blocker, expected", blocker.value, used);
    }
    if (error == LOAM_OK) {
        drop_cells(this);
        note_pressure(oracle);
    }
    return true;
}

bool frame_oracle_set_use(struct frame_oracle *oracle, uint32_t section, enum loam_frame_use use, enum loam_error error)
{
    struct frame_oracle_section *this = section < FRAME_ORACLE_SECTIONS ? &oracle->sections[section] : NULL;
    bool there = this != NULL && this->used;

    if (!frame_oracle_same(oracle, error,
                           (unsigned)use >= LOAM_FRAME_USE_COUNT ? LOAM_ERROR_INVALID
                           : there                               ? LOAM_OK
                                                                 : LOAM_ERROR_NOT_FOUND)) {
        return false;
    }
    if (error == LOAM_OK) {
        this->use = use;
        note_pressure(oracle);
    }
    return true;
}

/* --- Blocks that are there ------------------------------------------------------------------------------------- */

static bool is_block(const struct frame_oracle *oracle, uint64_t start, uint64_t count)
{
    uint64_t first, length = frame_oracle_block(oracle, start, &first);

    return length != 0 && first == start && length == count;
}

/* What is wrong with naming the block [start, start + count). */
static unsigned block_faults(const struct frame_oracle *oracle, uint64_t start, uint64_t count)
{
    bool managed = frame_oracle_section_of(oracle, start) != NULL;

    return FAULT(!managed, LOAM_ERROR_NOT_FOUND) |
           FAULT(managed && !is_block(oracle, start, count), LOAM_ERROR_INVALID);
}

bool frame_oracle_check(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error)
{
    return frame_oracle_one_of(oracle, error, block_faults(oracle, start, count));
}

bool frame_oracle_free(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error)
{
    if (!frame_oracle_one_of(oracle, error, block_faults(oracle, start, count))) {
        return false;
    }
    if (error == LOAM_OK) {
        frame_oracle_fill(oracle, start, count, 0, LOAM_FRAME_TAG_NONE);
    }
    return true;
}

bool frame_oracle_free_batch(struct frame_oracle *oracle, uint32_t order, const loam_pfn *starts, size_t count,
                             enum loam_error error, size_t done_count)
{
    uint64_t frames = order <= LOAM_FRAME_ORDER_MAX ? UINT64_C(1) << order : 0;

    if (order > LOAM_FRAME_ORDER_MAX) {
        return frame_oracle_same(oracle, error, LOAM_ERROR_INVALID) &&
               (done_count == 0 || frame_oracle_wrong(oracle, "blocks freed of no order", done_count, order));
    }
    if (done_count > count || (error == LOAM_OK) != (done_count == count)) {
        return frame_oracle_wrong(oracle, "blocks freed, asked for", done_count, count);
    }
    for (size_t i = 0; i < done_count; i++) {
        if (!frame_oracle_free(oracle, starts[i].value, frames, LOAM_OK)) {
            return false;
        }
    }
    return done_count == count || frame_oracle_free(oracle, starts[done_count].value, frames, error);
}

bool frame_oracle_free_released(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error)
{
    unsigned faults =
        block_faults(oracle, start, count) |
        FAULT(start % LOAM_FRAME_CHUNK_FRAMES != 0 || count % LOAM_FRAME_CHUNK_FRAMES != 0, LOAM_ERROR_INVALID);

    if (!frame_oracle_one_of(oracle, error, faults)) {
        return false;
    }
    if (error == LOAM_OK) {
        frame_oracle_fill(oracle, start, count, 0, LOAM_FRAME_TAG_NONE);
        fill_released(oracle, start, count, true);
    }
    return true;
}

bool frame_oracle_set_backed(struct frame_oracle *oracle, uint64_t start, uint64_t count, enum loam_error error)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, start);
    uint64_t first, end;

    if (!frame_oracle_one_of(oracle, error, block_faults(oracle, start, count))) {
        return false;
    }
    if (error == LOAM_OK) {
        first = start / LOAM_FRAME_CHUNK_FRAMES * LOAM_FRAME_CHUNK_FRAMES;
        end = (start + count + LOAM_FRAME_CHUNK_FRAMES - 1) / LOAM_FRAME_CHUNK_FRAMES * LOAM_FRAME_CHUNK_FRAMES;
        first = first < section->start ? section->start : first;
        end = end > section->start + section->count ? section->start + section->count : end;
        fill_released(oracle, first, end - first, false);
    }
    return true;
}

/* --- Blocks that change ---------------------------------------------------------------------------------------- */

static uint32_t number_of(const struct frame_oracle *oracle, uint64_t pfn, uint8_t *tag)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, pfn);

    *tag = section->tag[pfn - section->start];
    return section->block[pfn - section->start];
}

/* Whether [start, end) lies in the section of start and, from pfn on, is free. */
static bool free_behind(const struct frame_oracle_section *section, uint64_t pfn, uint64_t end)
{
    for (; pfn < end && pfn - section->start < section->count; pfn++) {
        if (section->block[pfn - section->start] != 0) {
            return false;
        }
    }
    return true;
}

static unsigned grow_faults(const struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t new_count)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, start);
    unsigned faults = block_faults(oracle, start, count);
    uint64_t low, free_low = frame_oracle_count_open(oracle, 0, oracle->zone_end);

    faults |= FAULT(new_count <= count || new_count > LOAM_FRAME_COUNT_MAX, LOAM_ERROR_INVALID);
    if (section == NULL) {
        return faults;
    }
    faults |= FAULT(new_count > section->count - (start - section->start), LOAM_ERROR_NOT_FOUND);
    if ((faults & FAULT(true, LOAM_ERROR_INVALID)) != 0) {
        return faults;
    }
    faults |= FAULT(!free_behind(section, start + count, start + new_count), LOAM_ERROR_BUSY);
    faults |= FAULT(section->use == LOAM_FRAME_USE_CLOSED, LOAM_ERROR_NOT_PERMITTED);
    if (section->use != LOAM_FRAME_USE_OPEN) {
        return faults;
    }
    low = frame_oracle_count_low(oracle, start, new_count) - frame_oracle_count_low(oracle, start, count);
    return faults | FAULT(low > 0 && start + new_count > oracle->zone_end &&
                              free_low < low + oracle->config.dma32_reserve_frames,
                          LOAM_ERROR_EXHAUSTED);
}

bool frame_oracle_grow(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t new_count,
                       enum loam_error error, uint32_t flags)
{
    uint32_t number;
    uint8_t tag;

    if (!frame_oracle_one_of(oracle, error, grow_faults(oracle, start, count, new_count))) {
        return false;
    }
    if (error != LOAM_OK) {
        return flags == 0 || frame_oracle_wrong(oracle, "flags came with a refusal", flags, start);
    }
    number = number_of(oracle, start, &tag);
    frame_oracle_fill(oracle, start, new_count, number, tag);
    return frame_oracle_judge_flags(oracle, start, new_count, flags);
}

bool frame_oracle_trim(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t new_count,
                       enum loam_error error)
{
    unsigned faults =
        block_faults(oracle, start, count) | FAULT(new_count == 0 || new_count >= count, LOAM_ERROR_INVALID);

    if (!frame_oracle_one_of(oracle, error, faults)) {
        return false;
    }
    if (error == LOAM_OK) {
        frame_oracle_fill(oracle, start + new_count, count - new_count, 0, LOAM_FRAME_TAG_NONE);
    }
    return true;
}

bool frame_oracle_split(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint64_t first_count,
                        enum loam_error error)
{
    unsigned faults =
        block_faults(oracle, start, count) | FAULT(first_count == 0 || first_count >= count, LOAM_ERROR_INVALID);
    uint8_t tag;

    if (!frame_oracle_one_of(oracle, error, faults)) {
        return false;
    }
    if (error == LOAM_OK) {
        number_of(oracle, start, &tag);
        frame_oracle_fill(oracle, start + first_count, count - first_count, ++oracle->next_block, tag);
    }
    return true;
}

bool frame_oracle_tag(struct frame_oracle *oracle, uint64_t start, enum loam_frame_tag tag, enum loam_error error)
{
    uint64_t first, length = frame_oracle_block(oracle, start, &first);
    bool good = length > 0 && first == start && (unsigned)tag <= LOAM_FRAME_TAG_SLAB;
    uint8_t old;

    if (!frame_oracle_same(oracle, error, good ? LOAM_OK : LOAM_ERROR_INVALID)) {
        return false;
    }
    if (good) {
        frame_oracle_fill(oracle, start, length, number_of(oracle, start, &old), (uint8_t)tag);
    }
    return true;
}

/* --- Caches ---------------------------------------------------------------------------------------------------- */

bool frame_oracle_cache_make(struct frame_oracle *oracle, enum loam_error error)
{
    bool room = oracle->cache_count < oracle->config.cache_capacity;

    oracle->cache_count += error == LOAM_OK;
    return frame_oracle_same(oracle, error, room ? LOAM_OK : LOAM_ERROR_EXHAUSTED);
}

bool frame_oracle_cache_destroy(struct frame_oracle *oracle, bool there, enum loam_error error)
{
    oracle->cache_count -= error == LOAM_OK;
    return frame_oracle_same(oracle, error, there ? LOAM_OK : LOAM_ERROR_UNINITIALISED);
}

void frame_oracle_caches_used(struct frame_oracle *oracle)
{
    oracle->caches_hold = true;
    note_pressure(oracle);
}

void frame_oracle_caches_drained(struct frame_oracle *oracle)
{
    oracle->caches_hold = false;
    note_pressure(oracle);
}

bool frame_oracle_whole_chunk_taken(const struct frame_oracle *oracle)
{
    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];

        for (uint64_t n = 0; section->used && n < section->count; n += LOAM_FRAME_CHUNK_FRAMES) {
            uint64_t start, count = frame_oracle_block(oracle, section->start + n, &start);

            if (count == LOAM_FRAME_CHUNK_FRAMES && start % LOAM_FRAME_CHUNK_FRAMES == 0) {
                return true;
            }
        }
    }
    return false;
}
