// SPDX-License-Identifier: Apache-2.0
#include "loam/plan.h"

#include "allocator/host/host_size.h"
#include "allocator/plan_check.h"
#include "allocator/plan_layout.h"

#include <stdio.h>
#include <string.h>

static const char *const resource_names[LOAM_PLAN_RESOURCE_COUNT] = {
    [LOAM_PLAN_POOL] = "pool",
    [LOAM_PLAN_NODE] = "node",
    [LOAM_PLAN_AVAILABLE] = "available",
    [LOAM_PLAN_CGROUP] = "cgroup",
    [LOAM_PLAN_MEMLOCK] = "memlock",
    [LOAM_PLAN_FILE_SIZE] = "file size",
    [LOAM_PLAN_ADDRESS_SPACE] = "address space",
    [LOAM_PLAN_DATA_SIZE] = "data size",
    [LOAM_PLAN_THREADS] = "threads",
    [LOAM_PLAN_VCPUS] = "vcpus",
    [LOAM_PLAN_SLOTS] = "slots",
};

const char *loam_plan_resource_name(enum loam_plan_resource resource)
{
    return (unsigned)resource < LOAM_PLAN_RESOURCE_COUNT ? resource_names[resource] : "unknown";
}

/* --- Choosing -------------------------------------------------------------------------------------------------- */

static bool is_cancelled(const struct loam_plan *plan)
{
    const struct loam_cancel *cancel = &plan->request.cancel;

    return cancel->asked != NULL && cancel->asked(cancel->self);
}

/* Hold the chosen page kind against the host. With stop_early, one shortfall is enough to know. */
static enum loam_error assess(struct loam_plan_draft *draft, bool stop_early, struct loam_diag *diag)
{
    static loam_plan_check_fn *const checks[LOAM_PLAN_RESOURCE_COUNT] = {
        [LOAM_PLAN_POOL] = loam_plan_check_pool,
        [LOAM_PLAN_NODE] = loam_plan_check_node,
        [LOAM_PLAN_AVAILABLE] = loam_plan_check_available,
        [LOAM_PLAN_CGROUP] = loam_plan_check_cgroup,
        [LOAM_PLAN_MEMLOCK] = loam_plan_check_memlock,
        [LOAM_PLAN_FILE_SIZE] = loam_plan_check_file_size,
        [LOAM_PLAN_ADDRESS_SPACE] = loam_plan_check_address_space,
        [LOAM_PLAN_DATA_SIZE] = loam_plan_check_data_size,
        [LOAM_PLAN_THREADS] = loam_plan_check_threads,
        [LOAM_PLAN_VCPUS] = loam_plan_check_vcpus,
        [LOAM_PLAN_SLOTS] = loam_plan_check_slots,
    };
    struct loam_plan *plan = draft->plan;
    enum loam_error error = LOAM_OK;

    draft->surplus_bytes = 0;
    plan->check_count = 0;
    plan->short_count = 0;
    memset(plan->checks, 0, sizeof plan->checks);
    for (size_t i = 0; error == LOAM_OK && i < LOAM_PLAN_RESOURCE_COUNT; i++) {
        error = is_cancelled(plan) ? loam_fail(diag, LOAM_ERROR_CANCELLED, "planning was cancelled by the caller")
                                   : checks[i](draft, diag);
        if (stop_early && plan->short_count > 0) {
            break;
        }
    }
    return error;
}

static void pass_over(struct loam_plan *plan, enum loam_pages pages, const char *reason)
{
    size_t used = strlen(plan->passed_over);

    snprintf(plan->passed_over + used, sizeof plan->passed_over - used, "%s%s: %s", used > 0 ? "; " : "",
             loam_pages_name(pages), reason);
}

/* The last kind always divides, and is taken whether or not anything falls short. */
static enum loam_error assess_in_turn(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    static const enum loam_pages kinds[] = {LOAM_PAGES_1G, LOAM_PAGES_2M, LOAM_PAGES_THP, LOAM_PAGES_4K};
    struct loam_plan *plan = draft->plan;

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool last = i + 1 == sizeof kinds / sizeof kinds[0];
        uint64_t page_bytes = loam_pages_bytes(kinds[i]);
        char reason[64];
        enum loam_error error;

        if (!loam_plan_layout_divides(plan, page_bytes)) {
            snprintf(reason, sizeof reason, "a part of RAM is no multiple of %s",
                     loam_host_size(page_bytes, false).text);
            pass_over(plan, kinds[i], reason);
            continue;
        }
        if ((error = loam_plan_layout_choose(plan, kinds[i], diag)) != LOAM_OK ||
            (error = assess(draft, !last, diag)) != LOAM_OK) {
            return error;
        }
        if (plan->short_count == 0) {
            break;
        }
        if (!last) {
            pass_over(plan, kinds[i], draft->first_short);
        }
    }
    return LOAM_OK;
}

enum loam_error loam_plan_make(const struct loam_memory_request *request, struct loam_plan *plan,
                               struct loam_diag *diag)
{
    struct loam_plan_draft draft = {.plan = plan};
    enum loam_error error;

    if (request == NULL || plan == NULL) {
        if (plan != NULL) {
            memset(plan, 0, sizeof *plan);
        }
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "plan: NULL given where a request and a place for the plan are wanted");
    }
    error = loam_plan_layout(request, plan, diag);
    if (error == LOAM_OK) {
        error = loam_plan_layout_measure(plan, diag);
    }
    if (error == LOAM_OK && request->pages == LOAM_PAGES_AUTO) {
        error = assess_in_turn(&draft, diag);
    } else if (error == LOAM_OK && (error = loam_plan_layout_choose(plan, request->pages, diag)) == LOAM_OK) {
        error = assess(&draft, false, diag);
    }
    if (error != LOAM_OK) {
        memset(plan, 0, sizeof *plan);
    }
    return error;
}

const struct loam_plan_check *loam_plan_shortfall(const struct loam_plan *plan)
{
    for (uint32_t i = 0; plan != NULL && i < plan->check_count && i < LOAM_PLAN_RESOURCE_COUNT; i++) {
        if (plan->checks[i].short_fall) {
            return &plan->checks[i];
        }
    }
    return NULL;
}

/* [start, end) of part number part, which begins at base. */
static struct loam_region region_of(uint32_t part, loam_gpa base, uint64_t start, uint64_t end,
                                    enum loam_region_type type)
{
    return (struct loam_region){.start = loam_gpa_from_u64(start),
                                .bytes = end - start,
                                .backing_offset = start - base.value,
                                .backing = part + 1,
                                .type = type,
                                .access = LOAM_ACCESS_WRITE};
}

uint32_t loam_plan_regions(const struct loam_plan *plan, struct loam_region regions[LOAM_PLAN_REGION_MAX])
{
    const struct loam_plan_part *low, *high;
    uint32_t count = 0;

    if (plan == NULL || regions == NULL || plan->part_count == 0) {
        return 0;
    }
    low = &plan->parts[0];
    high = &plan->parts[1];
    regions[count++] = region_of(0, low->start, 0, LOAM_LEGACY_START_BYTES, LOAM_REGION_RAM);
    regions[count++] = region_of(0, low->start, LOAM_LEGACY_START_BYTES, LOAM_LEGACY_END_BYTES, LOAM_REGION_RESERVED);
    regions[count++] = region_of(0, low->start, LOAM_LEGACY_END_BYTES, low->bytes, LOAM_REGION_RAM);
    if (plan->part_count > 1) {
        regions[count++] =
            region_of(1, high->start, high->start.value, high->start.value + high->bytes, LOAM_REGION_RAM);
    }
    return count;
}
