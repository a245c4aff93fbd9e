// SPDX-License-Identifier: Apache-2.0
/*
 * Invariants of a layout:
 *   parts[0] = [0, min(bytes, low_limit)), hole = [end of parts[0], 4 GiB), parts[1] = [4 GiB, 4 GiB + the rest)
 *   sum of parts[].bytes == request.bytes
 *   backing_page_count == sum over parts of ceil(bytes / page_bytes); only THP may leave a remainder
 */
#include "allocator/plan_layout.h"

#include "allocator/backing_placement.h"
#include "allocator/host/host_size.h"
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

static enum loam_error check_choices(const struct loam_memory_request *request, struct loam_diag *diag)
{
    const char *fault;

    if ((unsigned)request->pages >= LOAM_PAGES_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "page kind %d asked: there is none of that number",
                         (int)request->pages);
    }
    if ((unsigned)request->sharing >= LOAM_SHARING_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "sharing %d asked: there is none of that number",
                         (int)request->sharing);
    }
    if ((unsigned)request->commit >= LOAM_COMMIT_COUNT) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "commit %d asked: there is none of that number",
                         (int)request->commit);
    }
    if (request->thread_count > LOAM_BACKING_THREAD_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%" PRIu32 " threads asked: ask for at most %d",
                         request->thread_count, LOAM_BACKING_THREAD_MAX);
    }
    if ((fault = loam_backing_placement_fault(request->placement, request->node_mask)) != NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "placement %d, node mask %#" PRIx64 " asked: %s",
                         (int)request->placement, request->node_mask, fault);
    }
    if (request->lock && request->commit == LOAM_COMMIT_LAZY) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "lock and LOAM_COMMIT_LAZY asked: what is locked is populated: ask for one of them");
    }
    return LOAM_OK;
}

static enum loam_error check_sizes(const struct loam_memory_request *request, struct loam_diag *diag)
{
    if (request->bytes < RAM_MIN_BYTES || !loam_is_aligned(request->bytes, LOAM_REGION_ALIGN_BYTES)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%" PRIu64 " bytes of RAM asked: ask for a multiple of 4 KiB, at least 2 MiB", request->bytes);
    }
    if (request->low_limit_bytes < RAM_MIN_BYTES || request->low_limit_bytes > LOAM_LOW_LIMIT_MAX_BYTES ||
        !loam_is_aligned(request->low_limit_bytes, LOAM_REGION_ALIGN_BYTES)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "low limit of %s asked: ask for a multiple of 4 KiB from 2 MiB to 3 GiB",
                         loam_host_size_exact(request->low_limit_bytes).text);
    }
    return LOAM_OK;
}

static enum loam_error check_reserve(const struct loam_plan *plan, struct loam_diag *diag)
{
    uint64_t reserve_bytes = plan->request.dma32_reserve_bytes;

    if (reserve_bytes != UINT64_MAX &&
        (reserve_bytes > plan->parts[0].bytes || !loam_is_aligned(reserve_bytes, LOAM_FRAME_BYTES))) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "DMA32 reserve of %s asked: ask for a multiple of 4 KiB, at most the %s of RAM below the hole",
                         loam_host_size_exact(reserve_bytes).text, loam_host_size(plan->parts[0].bytes, false).text);
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

static uint64_t default_reserve_bytes(uint64_t low_bytes)
{
    uint64_t share_bytes = loam_align_down(low_bytes / DMA32_RESERVE_SHARE, LOAM_FRAME_BYTES);

    return share_bytes < DMA32_RESERVE_MAX_BYTES ? share_bytes : DMA32_RESERVE_MAX_BYTES;
}

/* --- The layout ------------------------------------------------------------------------------------------------ */

static enum loam_error lay_out(struct loam_plan *plan, struct loam_diag *diag)
{
    const struct loam_memory_request *request = &plan->request;
    uint64_t low_bytes = request->bytes < request->low_limit_bytes ? request->bytes : request->low_limit_bytes;
    uint64_t high_bytes = request->bytes - low_bytes;

    if (!loam_fits(LOAM_DMA32_END_BYTES, high_bytes, LOAM_GPA_END)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s of RAM asked: it would end beyond the %d-bit address space: ask for at most %s",
                         loam_host_size(request->bytes, true).text, LOAM_GPA_BITS,
                         loam_host_size(LOAM_GPA_END - LOAM_DMA32_END_BYTES + low_bytes, false).text);
    }
    plan->parts[plan->part_count++] = (struct loam_plan_part){{0}, low_bytes};
    plan->hole_start = loam_gpa_from_u64(low_bytes);
    if (high_bytes > 0) {
        plan->parts[plan->part_count++] = (struct loam_plan_part){{LOAM_DMA32_END_BYTES}, high_bytes};
    }
    return LOAM_OK;
}

enum loam_error loam_plan_layout(const struct loam_memory_request *request, struct loam_plan *plan,
                                 struct loam_diag *diag)
{
    struct loam_plan made = {.request = *request};
    enum loam_error error;

    memset(plan, 0, sizeof *plan);
    if (made.request.low_limit_bytes == 0) {
        made.request.low_limit_bytes = LOAM_LOW_LIMIT_MAX_BYTES;
    }
    fill_capacities(&made.request);
    if ((error = check_choices(&made.request, diag)) != LOAM_OK ||
        (error = check_capacities(&made.request, diag)) != LOAM_OK ||
        (error = check_sizes(&made.request, diag)) != LOAM_OK || (error = lay_out(&made, diag)) != LOAM_OK) {
        return error;
    }
    if (made.request.dma32_reserve_bytes == 0) {
        made.request.dma32_reserve_bytes = default_reserve_bytes(made.parts[0].bytes);
    }
    if ((error = check_reserve(&made, diag)) == LOAM_OK) {
        *plan = made;
    }
    return error;
}

bool loam_plan_layout_divides(const struct loam_plan *plan, uint64_t unit_bytes)
{
    bool divides = true;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        divides = divides && loam_is_aligned(plan->parts[i].start.value, unit_bytes) &&
                  loam_is_aligned(plan->parts[i].bytes, unit_bytes);
    }
    return divides;
}

enum loam_error loam_plan_layout_choose(struct loam_plan *plan, enum loam_pages pages, struct loam_diag *diag)
{
    uint64_t unit_bytes = UNIT_WANTED(pages);

    if (!loam_plan_layout_divides(plan, unit_bytes)) {
        struct loam_host_size unit = loam_host_size(unit_bytes, false);

        return loam_fail(
            diag, LOAM_ERROR_INVALID,
            "pages of %s need RAM below and above the hole in multiples of %s: %s and %s asked: ask for other "
            "sizes, or for smaller pages",
            unit.text, unit.text, loam_host_size_exact(plan->parts[0].bytes).text,
            loam_host_size_exact(plan->parts[1].bytes).text);
    }
    plan->pages = pages;
    plan->page_bytes = loam_pages_bytes(pages);
    plan->backing_page_count = 0;
    for (uint32_t i = 0; i < plan->part_count; i++) {
        plan->backing_page_count += loam_align_up(plan->parts[i].bytes, plan->page_bytes) / plan->page_bytes;
    }
    return LOAM_OK;
}

/* --- Metadata -------------------------------------------------------------------------------------------------- */

struct loam_frame_config loam_plan_layout_frame_config(const struct loam_plan *plan)
{
    uint64_t reserve_bytes = plan->request.dma32_reserve_bytes;

    return (struct loam_frame_config){
        .frame_shift = LOAM_FRAME_SHIFT,
        .section_capacity = LOAM_PLAN_PART_MAX + plan->request.block_capacity,
        .cache_capacity = plan->request.cache_capacity,
        .dma32_reserve_frames = reserve_bytes == UINT64_MAX ? 0 : reserve_bytes / LOAM_FRAME_BYTES,
    };
}

struct loam_gpa_map_config loam_plan_layout_map_config(const struct loam_plan *plan)
{
    return (struct loam_gpa_map_config){.region_capacity = plan->request.region_capacity,
                                        .table_capacity = plan->request.table_capacity};
}

/* A section's metadata depends on the allocator that it joins, so one is made to be asked. */
enum loam_error loam_plan_layout_measure(struct loam_plan *plan, struct loam_diag *diag)
{
    struct loam_frame_config frame_config = loam_plan_layout_frame_config(plan);
    struct loam_gpa_map_config map_config = loam_plan_layout_map_config(plan);
    size_t frame_bytes = loam_frame_bytes(&frame_config);
    struct loam_frame *frame;
    void *memory;
    enum loam_error error;

    if (map_config.table_capacity > TABLES_MEASURED) {
        map_config.table_capacity = TABLES_MEASURED;
    }
    if (!loam_prim_heap_alloc(frame_bytes, &memory)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%zu bytes of heap to measure metadata", frame_bytes);
    }
    error = loam_frame_init(memory, frame_bytes, &frame_config, &frame);
    if (error == LOAM_OK) {
        plan->metadata_bytes = frame_bytes + loam_gpa_map_bytes(&map_config);
        for (uint32_t i = 0; i < plan->part_count; i++) {
            plan->metadata_bytes +=
                loam_frame_section_bytes(frame, loam_pfn_from_gpa(plan->parts[i].start, LOAM_FRAME_SHIFT),
                                         plan->parts[i].bytes / LOAM_FRAME_BYTES);
        }
    }
    loam_prim_heap_free(memory);
    return error == LOAM_OK ? LOAM_OK : loam_fail(diag, error, "the frame allocator refuses the plan's configuration");
}

/* --- A plan that came back ------------------------------------------------------------------------------------- */

/* What was left 0 has been filled in. All else of a request is what it is: it is checked, not compared. */
static bool same_request(const struct loam_memory_request *a, const struct loam_memory_request *b)
{
    return a->low_limit_bytes == b->low_limit_bytes && a->dma32_reserve_bytes == b->dma32_reserve_bytes &&
           a->block_capacity == b->block_capacity && a->region_capacity == b->region_capacity &&
           a->table_capacity == b->table_capacity && a->cache_capacity == b->cache_capacity;
}

static bool same_layout(const struct loam_plan *a, const struct loam_plan *b)
{
    bool same = a->part_count == b->part_count && a->hole_start.value == b->hole_start.value && a->pages == b->pages &&
                a->page_bytes == b->page_bytes && a->backing_page_count == b->backing_page_count &&
                a->metadata_bytes == b->metadata_bytes;

    for (uint32_t i = 0; i < LOAM_PLAN_PART_MAX; i++) {
        same = same && a->parts[i].start.value == b->parts[i].start.value && a->parts[i].bytes == b->parts[i].bytes;
    }
    return same;
}

static bool pages_answer(const struct loam_plan *plan)
{
    bool known = (unsigned)plan->pages < LOAM_PAGES_COUNT && plan->pages != LOAM_PAGES_AUTO;

    return known && (plan->request.pages == LOAM_PAGES_AUTO || plan->request.pages == plan->pages);
}

enum loam_error loam_plan_layout_verify(const struct loam_plan *plan, struct loam_diag *diag)
{
    struct loam_plan again;
    enum loam_error error = loam_plan_layout(&plan->request, &again, diag);
    bool answers = pages_answer(plan);

    if (error == LOAM_OK && answers) {
        error = loam_plan_layout_choose(&again, plan->pages, diag);
    }
    if (error == LOAM_OK) {
        error = loam_plan_layout_measure(&again, diag);
    }
    if (error == LOAM_OK && !(answers && same_request(&plan->request, &again.request) && same_layout(plan, &again))) {
        error =
            loam_fail(diag, LOAM_ERROR_INVALID,
                      "the plan is not what its request leads to: make it with loam_plan_make, and leave it as it is");
    }
    return error;
}
