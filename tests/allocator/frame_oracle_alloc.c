// SPDX-License-Identifier: Apache-2.0
/* What a request for frames allows, and the judgement of what it got. */
#include "tests/allocator/frame_oracle.h"
#include "tests/allocator/frame_oracle_cells.h"

#include <string.h>

/* --- What a request allows ------------------------------------------------------------------------------------- */

static bool power_of_two(uint64_t value)
{
    return __builtin_popcountll(value) == 1;
}

/* Whether it may enter the DMA32 reserve. */
static bool is_limited(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    return (request->flags & LOAM_FRAME_AT) != 0 ||
           (request->limit.value != 0 && request->limit.value <= oracle->zone_end);
}

static bool crosses(uint64_t start, uint64_t count, uint64_t boundary)
{
    return boundary != 0 && start / boundary != (start + count - 1) / boundary;
}

static bool well_formed_at(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    uint64_t count = request->count_frames, at = request->at.value;

    return at < oracle->pfn_end && at + count <= oracle->pfn_end &&
           (request->align_frames == 0 || at % request->align_frames == 0) &&
           (request->limit.value == 0 || at + count <= request->limit.value) &&
           !crosses(at, count, request->boundary_frames);
}

static bool well_formed(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    const uint32_t both = LOAM_FRAME_BACKED | LOAM_FRAME_RELEASED;

    if (request->count_frames < 1 || request->count_frames > 1048576) {
        return false;
    }
    if (request->align_frames != 0 && (!power_of_two(request->align_frames) || request->align_frames > 1048576)) {
        return false;
    }
    if (request->boundary_frames != 0 &&
        (!power_of_two(request->boundary_frames) || request->boundary_frames < request->count_frames)) {
        return false;
    }
    if (request->flags > 15 || (request->flags & both) == both) {
        return false;
    }
    if ((request->section != 0 && (request->flags & LOAM_FRAME_IN_SECTION) == 0) ||
        (request->at.value != 0 && (request->flags & LOAM_FRAME_AT) == 0)) {
        return false;
    }
    return (request->flags & LOAM_FRAME_AT) == 0 || well_formed_at(oracle, request);
}

uint64_t frame_oracle_count_low(const struct frame_oracle *oracle, uint64_t start, uint64_t count)
{
    if (start >= oracle->zone_end) {
        return 0;
    }
    return start + count <= oracle->zone_end ? count : oracle->zone_end - start;
}

/* Whether [start, start + count), taken to be free and in one section, is what the request asks for. */
static bool fits(const struct frame_oracle *oracle, const struct loam_frame_request *request, uint64_t start,
                 uint64_t free_low)
{
    uint64_t count = request->count_frames, low = frame_oracle_count_low(oracle, start, count);

    if (request->align_frames != 0 && start % request->align_frames != 0) {
        return false;
    }
    if (crosses(start, count, request->boundary_frames)) {
        return false;
    }
    if (request->limit.value != 0 && start + count > request->limit.value) {
        return false;
    }
    if ((request->flags & LOAM_FRAME_AT) && start != request->at.value) {
        return false;
    }
    return is_limited(oracle, request) || low == 0 || free_low >= low + oracle->config.dma32_reserve_frames;
}

/* Whether the frame can be part of an answer. */
static bool available(const struct frame_oracle_section *section, uint64_t n, uint32_t flags)
{
    return section->block[n] == 0 && !((flags & LOAM_FRAME_BACKED) && section->released[n]) &&
           !((flags & LOAM_FRAME_RELEASED) && !section->released[n]);
}

/* Whether the request may have frames of the section: of one that is set apart if it names it, of a closed one never. */
static bool may_use(const struct frame_oracle_section *section, const struct loam_frame_request *request)
{
    bool named = (request->flags & (LOAM_FRAME_IN_SECTION | LOAM_FRAME_AT)) != 0;

    return section->use == LOAM_FRAME_USE_OPEN || (section->use == LOAM_FRAME_USE_APART && named);
}

/* Free frames below 4 GiB, of which the reserve is kept; as many as one likes where there is none to keep. */
static uint64_t free_low_for(const struct frame_oracle *oracle, const struct frame_oracle_section *section)
{
    return section->use == LOAM_FRAME_USE_OPEN ? frame_oracle_count_open(oracle, 0, oracle->zone_end) : UINT64_MAX / 2;
}

/* In how many places within [from, to) the request can be served, each taken alone. */
static uint64_t count_fits(const struct frame_oracle *oracle, const struct loam_frame_request *request, uint64_t from,
                           uint64_t to)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < FRAME_ORACLE_SECTIONS; i++) {
        const struct frame_oracle_section *section = &oracle->sections[i];
        uint64_t run = 0; /* available frames from n on */
        uint64_t free_low;

        if (!section->used || !may_use(section, request) ||
            ((request->flags & LOAM_FRAME_IN_SECTION) && request->section != i)) {
            continue;
        }
        free_low = is_limited(oracle, request) ? 0 : free_low_for(oracle, section);
        for (uint64_t n = section->count; n > 0; n--) {
            uint64_t pfn = section->start + n - 1;

            run = available(section, n - 1, request->flags) ? run + 1 : 0;
            count += run >= request->count_frames && pfn >= from && pfn + request->count_frames <= to &&
                     fits(oracle, request, pfn, free_low);
        }
    }
    return count;
}

/* --- Allocation ------------------------------------------------------------------------------------------------ */

static unsigned faults_at(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, request->at.value);
    bool busy = false, unavailable = false;

    if (section == NULL || frame_oracle_section_of(oracle, request->at.value + request->count_frames - 1) != section) {
        return FAULT(true, LOAM_ERROR_NOT_FOUND);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) && section != &oracle->sections[request->section]) {
        return FAULT(true, LOAM_ERROR_INVALID);
    }
    if (!may_use(section, request)) {
        return FAULT(true, LOAM_ERROR_NOT_PERMITTED);
    }
    for (uint64_t n = 0; n < request->count_frames; n++) {
        busy |= section->block[request->at.value - section->start + n] != 0;
        unavailable |= !available(section, request->at.value - section->start + n, request->flags);
    }
    return FAULT(busy, LOAM_ERROR_BUSY) | FAULT(unavailable && !busy, LOAM_ERROR_EXHAUSTED);
}

static unsigned request_faults(const struct frame_oracle *oracle, const struct loam_frame_request *request)
{
    if (!well_formed(oracle, request)) {
        return FAULT(true, LOAM_ERROR_INVALID);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) &&
        (request->section >= FRAME_ORACLE_SECTIONS || !oracle->sections[request->section].used)) {
        return FAULT(true, LOAM_ERROR_NOT_FOUND);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) && !may_use(&oracle->sections[request->section], request) &&
        !(request->flags & LOAM_FRAME_AT)) {
        return FAULT(true, LOAM_ERROR_NOT_PERMITTED);
    }
    if (request->flags & LOAM_FRAME_AT) {
        return faults_at(oracle, request);
    }
    return FAULT(count_fits(oracle, request, 0, UINT64_MAX) == 0, LOAM_ERROR_EXHAUSTED);
}

/*
 * The highest zone serves first, and what has backing serves before what is released. Which of the two weighs more is
 * open, and so is what a block across 4 GiB counts as; what lies in caches need not be fetched for either.
 */
static bool judge_preference(struct frame_oracle *oracle, const struct loam_frame_request *request, uint64_t start)
{
    struct loam_frame_request backed = *request;
    uint64_t end = start + request->count_frames;
    bool low = end <= oracle->zone_end, released = frame_oracle_touches_released(oracle, start, request->count_frames);

    if ((request->flags & LOAM_FRAME_AT) || oracle->caches_hold || (start < oracle->zone_end && !low)) {
        return true;
    }
    if (!(request->flags & LOAM_FRAME_RELEASED)) {
        backed.flags |= LOAM_FRAME_BACKED;
    }
    if (low && !is_limited(oracle, request) &&
        count_fits(oracle, released ? request : &backed, oracle->zone_end, UINT64_MAX) > 0) {
        return frame_oracle_wrong(oracle, "a block below 4 GiB, where one above was free", start, end);
    }
    if (released && (backed.flags & LOAM_FRAME_BACKED) &&
        count_fits(oracle, &backed, low ? 0 : oracle->zone_end, low ? oracle->zone_end : UINT64_MAX) > 0) {
        return frame_oracle_wrong(oracle, "a released block, where one with backing was free", start, end);
    }
    return true;
}

/* Whether the request allows [start, start + count_frames), wherever else it could have been served. */
static bool judge_place(struct frame_oracle *oracle, const struct loam_frame_request *request, uint64_t start)
{
    uint64_t count = request->count_frames, free_low = 0;
    const struct frame_oracle_section *section = frame_oracle_section_of(oracle, start);

    if (!well_formed(oracle, request)) {
        return frame_oracle_wrong(oracle, "a malformed request was served", count, start);
    }
    if (section == NULL || frame_oracle_section_of(oracle, start + count - 1) != section) {
        return frame_oracle_wrong(oracle, "a block that is not in one section", start, count);
    }
    if ((request->flags & LOAM_FRAME_IN_SECTION) && &oracle->sections[request->section] != section) {
        return frame_oracle_wrong(oracle, "a block in another section than asked for", start, request->section);
    }
    if (!may_use(section, request)) {
        return frame_oracle_wrong(oracle, "a block of a section that is withheld", start, count);
    }
    for (uint64_t n = start - section->start; n < start - section->start + count; n++) {
        if (section->block[n] != 0) {
            return frame_oracle_wrong(oracle, "a frame was handed out twice", section->start + n, start);
        }
        if (!available(section, n, request->flags)) {
            return frame_oracle_wrong(oracle, "backing, or the lack of it, was asked for", section->start + n, start);
        }
    }
    if (!is_limited(oracle, request) && start < oracle->zone_end) {
        free_low = free_low_for(oracle, section);
    }
    return fits(oracle, request, start, free_low) ||
           frame_oracle_wrong(oracle, "a block beside what was asked for", start, count);
}

bool frame_oracle_judge_flags(struct frame_oracle *oracle, uint64_t start, uint64_t count, uint32_t flags)
{
    enum loam_frame_zone first = start < oracle->zone_end ? LOAM_FRAME_ZONE_DMA32 : LOAM_FRAME_ZONE_NORMAL;
    enum loam_frame_zone last = start + count <= oracle->zone_end ? LOAM_FRAME_ZONE_DMA32 : LOAM_FRAME_ZONE_NORMAL;
    bool pressure = (flags & LOAM_FRAME_BLOCK_PRESSURE) != 0;
    enum frame_oracle_pressure opposite = pressure ? FRAME_ORACLE_CALM : FRAME_ORACLE_SHORT;

    if (flags > 3 ||
        ((flags & LOAM_FRAME_BLOCK_RELEASED) != 0) != frame_oracle_touches_released(oracle, start, count)) {
        return frame_oracle_wrong(oracle, "whether a chunk of it is released", start, flags);
    }
    if (oracle->pressure[first] == opposite && oracle->pressure[last] == opposite) {
        return frame_oracle_wrong(oracle, "whether its zone is short of frames", start, flags);
    }
    return true;
}

bool frame_oracle_alloc(struct frame_oracle *oracle, const struct loam_frame_request *request, enum loam_error error,
                        const struct loam_frame_block *block)
{
    static const struct loam_frame_block zero;

    if (error != LOAM_OK) {
        if (memcmp(block, &zero, sizeof zero) != 0) {
            return frame_oracle_wrong(oracle, "a block came with a refusal", block->start.value, block->count_frames);
        }
        return frame_oracle_one_of(oracle, error, request_faults(oracle, request));
    }
    if (!judge_place(oracle, request, block->start.value) || !judge_preference(oracle, request, block->start.value)) {
        return false;
    }
    if (block->count_frames != request->count_frames ||
        block->section != frame_oracle_section_of(oracle, block->start.value) - oracle->sections) {
        return frame_oracle_wrong(oracle, "count or section of a block", block->count_frames, block->section);
    }
    frame_oracle_fill(oracle, block->start.value, block->count_frames, ++oracle->next_block, LOAM_FRAME_TAG_NONE);
    return frame_oracle_judge_flags(oracle, block->start.value, block->count_frames, block->flags);
}

/* Whether count blocks can be had. Naturally aligned blocks of an order never overlap, so they can be counted. */
static bool can_serve(const struct frame_oracle *oracle, const struct loam_frame_request *request, size_t count)
{
    uint64_t free_low = frame_oracle_count_open(oracle, 0, oracle->zone_end);
    uint64_t high = count_fits(oracle, request, oracle->zone_end, UINT64_MAX);
    uint64_t low = count_fits(oracle, request, 0, oracle->zone_end), spare = 0;

    if (!is_limited(oracle, request)) {
        if (free_low > oracle->config.dma32_reserve_frames) {
            spare = (free_low - oracle->config.dma32_reserve_frames) / request->count_frames;
        }
        low = low < spare ? low : spare;
    }
    return high + low >= count;
}

bool frame_oracle_alloc_batch(struct frame_oracle *oracle, uint32_t order, uint64_t limit, enum loam_error error,
                              const loam_pfn *starts, size_t count)
{
    struct loam_frame_request request = {.limit = {limit}, .flags = LOAM_FRAME_BACKED};

    request.count_frames = order <= LOAM_FRAME_ORDER_MAX ? UINT64_C(1) << order : 0;
    request.align_frames = request.count_frames;
    if (error != LOAM_OK) {
        for (size_t i = 0; i < count; i++) {
            if (starts[i].value != 0) {
                return frame_oracle_wrong(oracle, "a block came with a refusal", starts[i].value, i);
            }
        }
        return frame_oracle_one_of(oracle, error,
                                   order > LOAM_FRAME_ORDER_MAX
                                       ? FAULT(true, LOAM_ERROR_INVALID)
                                       : FAULT(!can_serve(oracle, &request, count), LOAM_ERROR_EXHAUSTED));
    }
    for (size_t i = 0; i < count; i++) {
        if (!judge_place(oracle, &request, starts[i].value)) {
            return false;
        }
        frame_oracle_fill(oracle, starts[i].value, request.count_frames, ++oracle->next_block, LOAM_FRAME_TAG_NONE);
    }
    /* A block above that is still free should have been taken before any below: so one of them speaks for all. */
    for (size_t i = 0; i < count; i++) {
        if (starts[i].value < oracle->zone_end) {
            return judge_preference(oracle, &request, starts[i].value);
        }
    }
    return true;
}
