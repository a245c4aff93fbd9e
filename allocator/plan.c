// SPDX-License-Identifier: Apache-2.0
#include "loam/plan.h"

#include "allocator/backing_adopt.h"
#include "allocator/host/host_size.h"
#include "allocator/plan_check.h"
#include "allocator/plan_layout.h"

#include <inttypes.h>
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

/* Hold what is laid out against the host. With stop_early, one shortfall is enough to know. */
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

static void pass_over(struct loam_plan *plan, uint32_t part, enum loam_pages pages, const char *reason)
{
    size_t used = strlen(plan->passed_over);
    char lead[32] = "";

    if (plan->request.part_count > 1) {
        snprintf(lead, sizeof lead, "part %" PRIu32 ", ", part + 1);
    }
    snprintf(plan->passed_over + used, sizeof plan->passed_over - used, "%s%s%s: %s", used > 0 ? "; " : "", lead,
             loam_pages_name(pages), reason);
}

/* Try a kind for a part, beside those that are chosen; *reason says why it is not taken, and is empty if it is. */
static enum loam_error try_kind(struct loam_plan_draft *draft, uint32_t part, enum loam_pages pages, char *reason,
                                size_t bytes, struct loam_diag *diag)
{
    struct loam_plan *plan = draft->plan;
    enum loam_error error;

    if (!loam_plan_layout_divides(plan, part, pages)) {
        snprintf(reason, bytes, "a part of RAM is no multiple of %s",
                 loam_host_size(loam_pages_bytes(pages), false).text);
        return LOAM_OK;
    }
    draft->kinds[part] = pages;
    error = loam_plan_layout_choose(plan, draft->kinds, draft->reserve_bytes, diag);
    if (error == LOAM_OK) {
        error = assess(draft, true, diag);
    }
    snprintf(reason, bytes, "%s", error == LOAM_OK && plan->short_count > 0 ? draft->first_short : "");
    return error;
}

/* Parts that come later are not there yet: what they need is held against the host when it is their turn. */
static enum loam_error choose_for(struct loam_plan_draft *draft, uint32_t part, struct loam_diag *diag)
{
    static const enum loam_pages kinds[] = {LOAM_PAGES_1G, LOAM_PAGES_2M, LOAM_PAGES_THP};
    char reason[sizeof draft->first_short];

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        enum loam_error error;

        if (kinds[i] == LOAM_PAGES_1G && !loam_plan_layout_begins(draft->plan, draft->kinds)) {
            snprintf(reason, sizeof reason, "no page of 1 GiB lies below the hole");
        } else if ((error = try_kind(draft, part, kinds[i], reason, sizeof reason, diag)) != LOAM_OK) {
            return error;
        } else if (reason[0] == '\0') {
            return LOAM_OK;
        }
        pass_over(draft->plan, part, kinds[i], reason);
    }
    draft->kinds[part] = LOAM_PAGES_4K; /* divides every part, and is taken whether or not anything falls short */
    return LOAM_OK;
}

static enum loam_error choose(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_memory_request *request = &draft->plan->request;
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; i < request->part_count; i++) {
        draft->kinds[i] = request->parts[i].pages;
    }
    for (uint32_t i = 0; error == LOAM_OK && i < request->part_count; i++) {
        error = request->parts[i].pages == LOAM_PAGES_AUTO ? choose_for(draft, i, diag) : LOAM_OK;
    }
    if (error == LOAM_OK) {
        error = loam_plan_layout_choose(draft->plan, draft->kinds, draft->reserve_bytes, diag);
    }
    return error == LOAM_OK ? assess(draft, false, diag) : error;
}

/* Whether files that are to be adopted will do, and which pages all that is adopted is made of. */
static enum loam_error look_at_adopted(struct loam_memory_request *request, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < request->part_count && i < LOAM_MEMORY_PART_MAX; i++) {
        struct loam_backing_request *part = &request->parts[i];

        if (part->adoption == LOAM_ADOPTION_FD) {
            error = loam_backing_adopt_check(part, &part->pages, diag);
        } else if (part->adoption == LOAM_ADOPTION_MAPPING && part->pages == LOAM_PAGES_AUTO) {
            part->pages = LOAM_PAGES_4K;
        }
    }
    return error;
}

enum loam_error loam_plan_make(const struct loam_memory_request *request, struct loam_plan *plan,
                               struct loam_diag *diag)
{
    struct loam_plan_draft draft = {.plan = plan};
    struct loam_memory_request known;
    enum loam_error error;

    if (request == NULL || plan == NULL) {
        if (plan != NULL) {
            memset(plan, 0, sizeof *plan);
        }
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "plan: NULL given where a request and a place for the plan are wanted");
    }
    draft.reserve_bytes = request->dma32_reserve_bytes;
    known = *request;
    error = look_at_adopted(&known, diag);
    if (error == LOAM_OK) {
        error = loam_plan_layout(&known, plan, diag);
    }
    if (error == LOAM_OK) {
        error = choose(&draft, diag);
    }
    loam_host_cgroups_drop(&draft.cgroups);
    if (error != LOAM_OK) {
        memset(plan, 0, sizeof *plan);
    }
    return error;
}

const struct loam_plan_check *loam_plan_shortfall(const struct loam_plan *plan)
{
    for (uint32_t i = 0; plan != NULL && i < plan->check_count && i < LOAM_PLAN_CHECK_MAX; i++) {
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

/* The first part has 2 MiB at least, so the legacy window lies in it. */
uint32_t loam_plan_regions(const struct loam_plan *plan, struct loam_region regions[LOAM_PLAN_REGION_MAX])
{
    uint32_t count = 0;

    if (plan == NULL || regions == NULL || plan->part_count == 0) {
        return 0;
    }
    regions[count++] = region_of(0, plan->parts[0].start, 0, LOAM_LEGACY_START_BYTES, LOAM_REGION_RAM);
    regions[count++] =
        region_of(0, plan->parts[0].start, LOAM_LEGACY_START_BYTES, LOAM_LEGACY_END_BYTES, LOAM_REGION_RESERVED);
    regions[count++] = region_of(0, plan->parts[0].start, LOAM_LEGACY_END_BYTES, plan->parts[0].bytes, LOAM_REGION_RAM);
    for (uint32_t i = 1; i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];

        regions[count++] =
            region_of(i, part->start, part->start.value, part->start.value + part->bytes, LOAM_REGION_RAM);
    }
    return count;
}
