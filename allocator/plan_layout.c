// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants of a layout:
 *   the parts below the hole follow each other from 0 to hole_start <= low_limit; the first has 2 MiB at least
 *   the parts above it follow each other from 4 GiB on
 *   each start, and each bytes, is a multiple of its page; only ordinary pages may leave a remainder
 *   sum of parts[].bytes of one asked == the bytes of the request's part; there are two at most
 *   page_count == ceil(bytes / page_bytes); backing_page_count == their sum
 */
#include "allocator/plan_layout.h"

#include "allocator/backing_placement.h"
#include "allocator/host/host_size.h"
#include "allocator/host/host_text.h"
#include "allocator/host/prim.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RAM_MIN_BYTES           (2 * LOAM_MIB)
#define DMA32_RESERVE_SHARE     16
#define DMA32_RESERVE_MAX_BYTES (16 * LOAM_MIB)
#define BLOCK_CAPACITY_DEFAULT  1000
#define BLOCK_CAPACITY_MAX      65000
#define REGIONS_BESIDE_BLOCKS   100
#define REGION_CAPACITY_MAX     (1u << 20)
#define TABLE_CAPACITY_DEFAULT  66
#define CACHE_CAPACITY_DEFAULT  128
#define TABLES_MEASURED         4 /* more are touched only by who holds on to that many views */
#define UNIT_WANTED(pages)      ((pages) == LOAM_PAGES_THP ? LOAM_FRAME_BYTES : loam_pages_bytes(pages))

/* --- The request ----------------------------------------------------------------------------------------------- */

/* "part 2 of 3: ", to stand before what is wrong with it; "" where there is only one. */
struct part_lead {
    char text[32];
};

static struct part_lead lead_of(const struct loam_memory_request *request, uint32_t part)
{
    struct part_lead lead = {""};

    if (request->part_count > 1) {
        snprintf(lead.text, sizeof lead.text, "part %" PRIu32 " of %" PRIu32 ": ", part + 1, request->part_count);
    }
    return lead;
}

static enum loam_error check_choices(const struct loam_backing_request *part, const char *lead, struct loam_diag *diag)
{
    const char *fault;

    if ((unsigned)part->pages >= LOAM_PAGES_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%spage kind %d asked: there is none of that number", lead,
                         (int)part->pages);
    }
    if ((unsigned)part->sharing >= LOAM_SHARING_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%ssharing %d asked: there is none of that number", lead,
                         (int)part->sharing);
    }
    if ((unsigned)part->commit >= LOAM_COMMIT_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%scommit %d asked: there is none of that number", lead,
                         (int)part->commit);
    }
    if ((fault = loam_backing_placement_fault(part->placement, part->node_mask)) != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%splacement %d, node mask %#" PRIx64 " asked: %s", lead,
                         (int)part->placement, part->node_mask, fault);
    }
    if (part->lock && part->commit == LOAM_COMMIT_LAZY) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%slock and LOAM_COMMIT_LAZY asked: what is locked is populated: ask for one of them", lead);
    }
    return LOAM_OK;
}

/* What only a backing of its own has. */
static enum loam_error check_rest(const struct loam_backing_request *part, const char *lead, struct loam_diag *diag)
{
    if (part->thread_count != 0 || part->keep_from_children || part->keep_from_dumps || part->cancel.asked != NULL ||
        part->gpa.value != 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%sgpa, thread_count, keep_from_children, keep_from_dumps or cancel asked: the layout says "
                         "where a part lies, and the request the others: leave them 0",
                         lead);
    }
    if (part->name != NULL && (part->sharing == LOAM_SHARING_PRIVATE ||
                               strnlen(part->name, LOAM_BACKING_NAME_BYTES_MAX + 1) > LOAM_BACKING_NAME_BYTES_MAX)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%sa name asked for private memory, which has none, or of more than %d bytes: leave it NULL",
                         lead, LOAM_BACKING_NAME_BYTES_MAX);
    }
    return LOAM_OK;
}

static enum loam_error check_part(const struct loam_memory_request *request, uint32_t index, struct loam_diag *diag)
{
    const struct loam_backing_request *part = &request->parts[index];
    struct part_lead lead = lead_of(request, index);
    enum loam_error error = check_choices(part, lead.text, diag);

    if (error == LOAM_OK) {
        error = check_rest(part, lead.text, diag);
    }
    if (error == LOAM_OK && (part->bytes < RAM_MIN_BYTES || !loam_is_aligned(part->bytes, LOAM_REGION_ALIGN_BYTES))) {
        error = loam_fail(diag, LOAM_ERROR_INVALID,
                          "%s%" PRIu64 " bytes of RAM asked: ask for a multiple of 4 KiB, at least 2 MiB", lead.text,
                          part->bytes);
    }
    return error;
}

static enum loam_error check_own(const struct loam_memory_request *request, struct loam_diag *diag)
{
    if (request->thread_count > LOAM_BACKING_THREAD_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%" PRIu32 " threads asked: ask for at most %d",
                         request->thread_count, LOAM_BACKING_THREAD_MAX);
    }
    if (request->low_limit_bytes < RAM_MIN_BYTES || request->low_limit_bytes > LOAM_LOW_LIMIT_MAX_BYTES ||
        !loam_is_aligned(request->low_limit_bytes, LOAM_REGION_ALIGN_BYTES)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "low limit of %s asked: ask for a multiple of 4 KiB from 2 MiB to 3 GiB",
                         loam_host_size_exact(request->low_limit_bytes).text);
    }
    return LOAM_OK;
}

static enum loam_error check_parts(const struct loam_memory_request *request, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < request->part_count; i++) {
        error = check_part(request, i, diag);
    }
    return error == LOAM_OK ? check_own(request, diag) : error;
}

static uint64_t sum_of_parts(const struct loam_memory_request *request)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < request->part_count; i++) {
        bytes = loam_add_capped(bytes, request->parts[i].bytes);
    }
    return bytes;
}

/* What the request says beside its parts. */
static enum loam_error check_list(const struct loam_memory_request *request, struct loam_diag *diag)
{
    uint32_t count = request->part_count;

    if (count > LOAM_MEMORY_PART_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%" PRIu32 " parts asked: ask for at most %d", count,
                         LOAM_MEMORY_PART_MAX);
    }
    if (count < LOAM_MEMORY_PART_MAX && request->parts[count].bytes != 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%" PRIu32 " parts asked, and one more filled in: count it in part_count", count);
    }
    if (count > 0 && request->bytes != 0 && request->bytes != sum_of_parts(request)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%" PRIu64 " bytes of RAM asked, and %" PRIu64 " in %" PRIu32
                         " parts: leave the first 0, or make it their sum",
                         request->bytes, sum_of_parts(request), count);
    }
    if (count > 0 && (request->pages != 0 || request->sharing != 0 || request->commit != 0 || request->placement != 0 ||
                      request->node_mask != 0 || request->lock)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%" PRIu32 " parts asked, and pages, sharing, commit, placement, node_mask or lock "
                         "beside them: say it in the parts, and leave these 0",
                         count);
    }
    return LOAM_OK;
}

static void fill_capacities(struct loam_memory_request *request)
{
    if (request->block_capacity == 0) {
        request->block_capacity = BLOCK_CAPACITY_DEFAULT;
    }
    if (request->region_capacity == 0) {
        request->region_capacity = request->block_capacity + REGIONS_BESIDE_BLOCKS;
    }
    if (request->table_capacity == 0) {
        request->table_capacity = TABLE_CAPACITY_DEFAULT;
    }
    if (request->cache_capacity == 0) {
        request->cache_capacity = CACHE_CAPACITY_DEFAULT;
    }
}

static enum loam_error check_capacities(const struct loam_memory_request *request, struct loam_diag *diag)
{
    struct loam_gpa_map_config map = {.table_capacity = request->table_capacity};
    const struct {
        const char *what;
        uint32_t asked, most;
    } bounds[] = {
        {"blocks", request->block_capacity, BLOCK_CAPACITY_MAX},
        {"regions", request->region_capacity, REGION_CAPACITY_MAX},
        {"caches", request->cache_capacity, LOAM_FRAME_CACHE_MAX},
    };

    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        if (bounds[i].asked > bounds[i].most) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "room for %" PRIu32 " %s asked: ask for at most %" PRIu32,
                             bounds[i].asked, bounds[i].what, bounds[i].most);
        }
    }
    return loam_gpa_map_bytes(&map) != 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID,
                           "room for %" PRIu32 " tables asked: ask for 2 at least, and as many as "
                           "loam_gpa_map_config allows",
                           request->table_capacity);
}

/* The members of an ordinary request become its only part. */
static void normalise(struct loam_memory_request *request)
{
    if (request->part_count == 0) {
        request->parts[request->part_count++] = (struct loam_backing_request){.bytes = request->bytes,
                                                                              .pages = request->pages,
                                                                              .sharing = request->sharing,
                                                                              .commit = request->commit,
                                                                              .placement = request->placement,
                                                                              .node_mask = request->node_mask,
                                                                              .lock = request->lock};
        request->pages = LOAM_PAGES_AUTO;
        request->sharing = LOAM_SHARING_ANY;
        request->commit = LOAM_COMMIT_RESERVE;
        request->placement = LOAM_PLACEMENT_ANY;
        request->node_mask = 0;
        request->lock = false;
    }
    fill_capacities(request);
    request->bytes = sum_of_parts(request);
    if (request->low_limit_bytes == 0) {
        request->low_limit_bytes = LOAM_LOW_LIMIT_MAX_BYTES;
    }
}

enum loam_error loam_plan_layout(const struct loam_memory_request *request, struct loam_plan *plan,
                                 struct loam_diag *diag)
{
    struct loam_plan made = {.request = *request};
    enum loam_error error = check_list(request, diag);

    memset(plan, 0, sizeof *plan);
    if (error == LOAM_OK) {
        normalise(&made.request);
        error = check_parts(&made.request, diag);
    }
    if (error == LOAM_OK) {
        error = check_capacities(&made.request, diag);
    }
    if (error == LOAM_OK) {
        *plan = made;
    }
    return error;
}

static uint64_t default_reserve_bytes(uint64_t low_bytes)
{
    uint64_t share_bytes = loam_align_down(low_bytes / DMA32_RESERVE_SHARE, LOAM_FRAME_BYTES);

    return share_bytes < DMA32_RESERVE_MAX_BYTES ? share_bytes : DMA32_RESERVE_MAX_BYTES;
}

static enum loam_error check_reserve(const struct loam_plan *plan, struct loam_diag *diag)
{
    uint64_t reserve_bytes = plan->request.dma32_reserve_bytes, low_bytes = plan->hole_start.value;

    if (reserve_bytes != UINT64_MAX &&
        (reserve_bytes > low_bytes || !loam_is_aligned(reserve_bytes, LOAM_FRAME_BYTES))) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "DMA32 reserve of %s asked: ask for a multiple of 4 KiB, at most the %s of RAM below the hole",
                         loam_host_size_exact(reserve_bytes).text, loam_host_size(low_bytes, false).text);
    }
    return LOAM_OK;
}

/* --- The layout ------------------------------------------------------------------------------------------------ */

/* The only part lies below the hole up to the limit itself, which its pages have to divide; others share what is there. */
static uint64_t low_bytes_of(const struct loam_plan *plan, uint32_t asked, uint64_t unit_bytes, uint64_t low_end)
{
    uint64_t bytes = plan->request.parts[asked].bytes, left_bytes = plan->request.low_limit_bytes - low_end;

    left_bytes = plan->request.part_count > 1 ? loam_align_down(left_bytes, unit_bytes) : left_bytes;
    return bytes < left_bytes ? bytes : left_bytes;
}

static bool divides(const struct loam_plan *plan, uint32_t asked, uint64_t unit_bytes)
{
    return loam_is_aligned(plan->request.parts[asked].bytes, unit_bytes) &&
           loam_is_aligned(low_bytes_of(plan, asked, unit_bytes, 0), unit_bytes);
}

bool loam_plan_layout_divides(const struct loam_plan *plan, uint32_t asked, enum loam_pages pages)
{
    return divides(plan, asked, loam_pages_bytes(pages));
}

bool loam_plan_layout_begins(const struct loam_plan *plan, const enum loam_pages kinds[LOAM_MEMORY_PART_MAX])
{
    bool smaller = plan->request.part_count == 1; /* whose pages have to divide what is below the hole */

    for (uint32_t i = 0; i < plan->request.part_count; i++) {
        smaller = smaller || (kinds[i] != LOAM_PAGES_AUTO && kinds[i] != LOAM_PAGES_1G);
    }
    return smaller || plan->request.low_limit_bytes >= loam_pages_bytes(LOAM_PAGES_1G);
}

static enum loam_error not_divided(const struct loam_plan *plan, uint32_t asked, uint64_t unit_bytes,
                                   struct loam_diag *diag)
{
    uint64_t bytes = plan->request.parts[asked].bytes, low_bytes = low_bytes_of(plan, asked, unit_bytes, 0);
    struct loam_host_size unit = loam_host_size(unit_bytes, false);

    if (plan->request.part_count > 1) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%spages of %s need a multiple of %s: %s asked: ask for another size, or for smaller pages",
                         lead_of(&plan->request, asked).text, unit.text, unit.text, loam_host_size_exact(bytes).text);
    }
    return loam_fail(diag, LOAM_ERROR_INVALID,
                     "pages of %s need RAM below and above the hole in multiples of %s: %s and %s asked: ask for other "
                     "sizes, or for smaller pages",
                     unit.text, unit.text, loam_host_size_exact(low_bytes).text,
                     loam_host_size_exact(bytes - low_bytes).text);
}

/* Where the next part goes. Those above the hole are kept apart until all below it are known. */
struct cursor {
    uint64_t low_end, high_end;
    uint32_t high_count;
    struct loam_plan_part high[LOAM_MEMORY_PART_MAX];
};

static struct loam_plan_part part_of(uint64_t start, uint64_t bytes, uint32_t asked, uint64_t asked_offset,
                                     enum loam_pages pages)
{
    uint64_t page_bytes = loam_pages_bytes(pages);

    return (struct loam_plan_part){.start = {start},
                                   .bytes = bytes,
                                   .asked = asked,
                                   .asked_offset = asked_offset,
                                   .pages = pages,
                                   .page_bytes = page_bytes,
                                   .page_count = loam_align_up(bytes, page_bytes) / page_bytes};
}

static enum loam_error place(struct loam_plan *plan, struct cursor *cursor, uint32_t asked, enum loam_pages pages,
                             struct loam_diag *diag)
{
    uint64_t low_bytes = low_bytes_of(plan, asked, UNIT_WANTED(pages), cursor->low_end);
    uint64_t high_bytes = plan->request.parts[asked].bytes - low_bytes;

    if (!loam_fits(cursor->high_end, high_bytes, LOAM_GPA_END)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s of RAM asked: it would end beyond the %d-bit address space: ask for at most %s",
                         loam_host_size(plan->request.bytes, true).text, LOAM_GPA_BITS,
                         loam_host_size(LOAM_GPA_END - LOAM_DMA32_END_BYTES + cursor->low_end + low_bytes, false).text);
    }
    if (!divides(plan, asked, UNIT_WANTED(pages))) {
        return not_divided(plan, asked, UNIT_WANTED(pages), diag);
    }
    if (low_bytes > 0) {
        plan->parts[plan->part_count++] = part_of(cursor->low_end, low_bytes, asked, 0, pages);
    }
    if (high_bytes > 0) {
        cursor->high[cursor->high_count++] = part_of(cursor->high_end, high_bytes, asked, low_bytes, pages);
    }
    cursor->low_end += low_bytes;
    cursor->high_end += high_bytes;
    return LOAM_OK;
}

/* By page, the largest first: the kinds count so. */
static enum loam_error lay_out(struct loam_plan *plan, const enum loam_pages kinds[LOAM_MEMORY_PART_MAX],
                               struct loam_diag *diag)
{
    struct cursor cursor = {.high_end = LOAM_DMA32_END_BYTES};
    enum loam_error error = LOAM_OK;

    plan->part_count = 0;
    memset(plan->parts, 0, sizeof plan->parts);
    for (int pages = LOAM_PAGES_1G; pages < LOAM_PAGES_COUNT; pages++) {
        for (uint32_t i = 0; error == LOAM_OK && i < plan->request.part_count; i++) {
            error = (int)kinds[i] == pages ? place(plan, &cursor, i, kinds[i], diag) : LOAM_OK;
        }
    }
    plan->hole_start = loam_gpa_from_u64(cursor.low_end);
    memcpy(&plan->parts[plan->part_count], cursor.high, cursor.high_count * sizeof cursor.high[0]);
    plan->part_count += cursor.high_count;
    return error;
}

/* Pages that are larger than all there may be below the hole leave a guest without RAM at 0. */
static enum loam_error check_low(const struct loam_plan *plan, struct loam_diag *diag)
{
    return plan->hole_start.value >= RAM_MIN_BYTES
               ? LOAM_OK
               : loam_fail(
                     diag, LOAM_ERROR_INVALID,
                     "pages of %s in all parts, and RAM below the hole up to %s: RAM has to begin at 0: ask for a "
                     "higher low limit, or for a part of smaller pages",
                     loam_host_size(plan->page_bytes, false).text,
                     loam_host_size_exact(plan->request.low_limit_bytes).text);
}

static void sum_up(struct loam_plan *plan)
{
    plan->pages = plan->part_count > 0 ? plan->parts[0].pages : LOAM_PAGES_AUTO;
    plan->page_bytes = 0;
    plan->backing_page_count = 0;
    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];

        plan->pages = part->pages == plan->pages ? plan->pages : LOAM_PAGES_AUTO;
        plan->page_bytes = part->page_bytes > plan->page_bytes ? part->page_bytes : plan->page_bytes;
        plan->backing_page_count += part->page_count;
    }
}

/* --- Metadata -------------------------------------------------------------------------------------------------- */

struct loam_frame_config loam_plan_layout_frame_config(const struct loam_plan *plan)
{
    uint64_t reserve_bytes = plan->request.dma32_reserve_bytes;

    return (struct loam_frame_config){
        .frame_shift = LOAM_FRAME_SHIFT,
        .section_capacity = plan->part_count + plan->request.block_capacity,
        .cache_capacity = plan->request.cache_capacity,
        .dma32_reserve_frames = reserve_bytes == UINT64_MAX ? 0 : reserve_bytes / LOAM_FRAME_BYTES,
    };
}

struct loam_gpa_map_config loam_plan_layout_map_config(const struct loam_plan *plan)
{
    return (struct loam_gpa_map_config){.region_capacity = plan->request.region_capacity,
                                        .table_capacity = plan->request.table_capacity};
}

static uint64_t touched_map_bytes(const struct loam_plan *plan)
{
    struct loam_gpa_map_config config = loam_plan_layout_map_config(plan);

    if (config.table_capacity > TABLES_MEASURED) {
        config.table_capacity = TABLES_MEASURED;
    }
    return loam_gpa_map_bytes(&config);
}

uint64_t loam_plan_layout_untouched_bytes(const struct loam_plan *plan)
{
    struct loam_gpa_map_config config = loam_plan_layout_map_config(plan);

    return loam_gpa_map_bytes(&config) - touched_map_bytes(plan);
}

/* A section's metadata depends on the allocator that it joins, so one is made to be asked. */
static enum loam_error measure(struct loam_plan *plan, struct loam_diag *diag)
{
    struct loam_frame_config frame_config = loam_plan_layout_frame_config(plan);
    size_t frame_bytes = loam_frame_bytes(&frame_config);
    struct loam_frame *frame;
    void *memory;
    enum loam_error error;

    if (!loam_prim_heap_alloc(frame_bytes, &memory)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%zu bytes of heap to measure metadata", frame_bytes);
    }
    error = loam_frame_init(memory, frame_bytes, &frame_config, &frame);
    if (error == LOAM_OK) {
        plan->metadata_bytes = frame_bytes + touched_map_bytes(plan);
        for (uint32_t i = 0; i < plan->part_count; i++) {
            plan->metadata_bytes +=
                loam_frame_section_bytes(frame, loam_pfn_from_gpa(plan->parts[i].start, LOAM_FRAME_SHIFT),
                                         plan->parts[i].bytes / LOAM_FRAME_BYTES);
        }
    }
    loam_prim_heap_free(memory);
    return error == LOAM_OK ? LOAM_OK : loam_fail(diag, error, "the frame allocator refuses the plan's configuration");
}

enum loam_error loam_plan_layout_choose(struct loam_plan *plan, const enum loam_pages kinds[LOAM_MEMORY_PART_MAX],
                                        uint64_t reserve_bytes, struct loam_diag *diag)
{
    enum loam_error error = lay_out(plan, kinds, diag);
    bool all = true;

    if (error != LOAM_OK) {
        return error;
    }
    for (uint32_t i = 0; i < plan->request.part_count; i++) {
        all = all && kinds[i] != LOAM_PAGES_AUTO;
    }
    sum_up(plan);
    plan->request.dma32_reserve_bytes =
        reserve_bytes != 0 ? reserve_bytes : default_reserve_bytes(plan->hole_start.value);
    if (all && ((error = check_low(plan, diag)) != LOAM_OK || (error = check_reserve(plan, diag)) != LOAM_OK)) {
        return error;
    }
    return measure(plan, diag);
}

/* --- A plan that came back ------------------------------------------------------------------------------------- */

/* What was left 0 has been filled in. All else of a request is what it is: it is checked, not compared. */
static bool same_request(const struct loam_memory_request *a, const struct loam_memory_request *b)
{
    return a->low_limit_bytes == b->low_limit_bytes && a->dma32_reserve_bytes == b->dma32_reserve_bytes &&
           a->block_capacity == b->block_capacity && a->region_capacity == b->region_capacity &&
           a->table_capacity == b->table_capacity && a->cache_capacity == b->cache_capacity &&
           a->part_count == b->part_count && a->bytes == b->bytes;
}

static bool same_part(const struct loam_plan_part *a, const struct loam_plan_part *b)
{
    return a->start.value == b->start.value && a->bytes == b->bytes && a->asked == b->asked &&
           a->asked_offset == b->asked_offset && a->pages == b->pages && a->page_bytes == b->page_bytes &&
           a->page_count == b->page_count;
}

static bool same_layout(const struct loam_plan *a, const struct loam_plan *b)
{
    bool same = a->part_count == b->part_count && a->hole_start.value == b->hole_start.value && a->pages == b->pages &&
                a->page_bytes == b->page_bytes && a->backing_page_count == b->backing_page_count &&
                a->metadata_bytes == b->metadata_bytes;

    for (uint32_t i = 0; i < LOAM_PLAN_PART_MAX; i++) {
        same = same && same_part(&a->parts[i], &b->parts[i]);
    }
    return same;
}

/* The kinds chosen for the request's parts; false: some part has none, or not the one that was asked for. */
static bool kinds_answer(const struct loam_plan *plan, const struct loam_memory_request *request,
                         enum loam_pages kinds[LOAM_MEMORY_PART_MAX])
{
    bool answer = plan->part_count <= LOAM_PLAN_PART_MAX;

    for (uint32_t i = 0; i < LOAM_MEMORY_PART_MAX; i++) {
        kinds[i] = LOAM_PAGES_AUTO;
    }
    for (uint32_t i = 0; answer && i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];

        answer = part->asked < request->part_count && (unsigned)part->pages < LOAM_PAGES_COUNT;
        kinds[answer ? part->asked : 0] = part->pages;
    }
    for (uint32_t i = 0; answer && i < request->part_count; i++) {
        enum loam_pages asked = request->parts[i].pages;

        answer = kinds[i] != LOAM_PAGES_AUTO && (asked == LOAM_PAGES_AUTO || asked == kinds[i]);
    }
    return answer;
}

enum loam_error loam_plan_layout_verify(const struct loam_plan *plan, struct loam_diag *diag)
{
    enum loam_pages kinds[LOAM_MEMORY_PART_MAX];
    struct loam_plan again;
    enum loam_error error = loam_plan_layout(&plan->request, &again, diag);
    bool answers = error == LOAM_OK && kinds_answer(plan, &again.request, kinds);

    if (answers) {
        error = loam_plan_layout_choose(&again, kinds, plan->request.dma32_reserve_bytes, diag);
    }
    if (error == LOAM_OK && !(answers && same_request(&plan->request, &again.request) && same_layout(plan, &again))) {
        error =
            loam_fail(diag, LOAM_ERROR_INVALID,
                      "the plan is not what its request leads to: make it with loam_plan_make, and leave it as it is");
    }
    return error;
}
