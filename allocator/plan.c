// SPDX-License-Identifier: Apache-2.0
/*
 * Ordinary memory that a plan takes at creation:
 *   metadata_bytes + (RAM, unless hugetlb backs it or it is left to first touch) + surplus hugepages * page_bytes
 */
#include "loam/plan.h"

#include "allocator/plan_cgroup.h"
#include "allocator/plan_host.h"
#include "allocator/plan_layout.h"
#include "allocator/plan_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Beyond it, a file is described and not named: the command that mends must stand whole in a check's text. */
#define MEND_PATH_MAX 160

static const char *const resource_names[LOAM_PLAN_RESOURCE_COUNT] = {
    [LOAM_PLAN_POOL] = "pool",     [LOAM_PLAN_NODE] = "node",       [LOAM_PLAN_AVAILABLE] = "available",
    [LOAM_PLAN_CGROUP] = "cgroup", [LOAM_PLAN_MEMLOCK] = "memlock", [LOAM_PLAN_SLOTS] = "slots",
};

/* A plan that is being made. */
struct draft {
    struct loam_plan *plan;
    uint64_t surplus_bytes; /* of hugepages that the kernel adds out of ordinary memory */
    char first_short[96];   /* the facts of the first check that falls short */
};

/* What a check says, before it is a line. */
struct finding {
    enum loam_plan_resource resource;
    uint64_t wanted;
    uint64_t found;
    uint64_t unit_bytes;
    char facts[96];
    char mend[208];
};

const char *loam_plan_resource_name(enum loam_plan_resource resource)
{
    return (unsigned)resource < LOAM_PLAN_RESOURCE_COUNT ? resource_names[resource] : "unknown";
}

static bool is_hugetlb(const struct loam_plan *plan)
{
    return plan->pages == LOAM_PAGES_1G || plan->pages == LOAM_PAGES_2M;
}

static bool is_lazy(const struct loam_plan *plan)
{
    return plan->request.commit == LOAM_COMMIT_LAZY && !is_hugetlb(plan);
}

static uint64_t ordinary_bytes(const struct draft *draft)
{
    const struct loam_plan *plan = draft->plan;
    uint64_t ram_bytes = is_hugetlb(plan) || is_lazy(plan) ? 0 : plan->request.bytes;

    return plan->metadata_bytes + ram_bytes + draft->surplus_bytes;
}

static void add_check(struct draft *draft, const struct finding *finding)
{
    struct loam_plan_check *check = &draft->plan->checks[draft->plan->check_count++];
    bool short_fall = finding->wanted > finding->found;

    *check = (struct loam_plan_check){.resource = finding->resource,
                                      .wanted = finding->wanted,
                                      .found = finding->found,
                                      .unit_bytes = finding->unit_bytes,
                                      .short_fall = short_fall};
    if (short_fall) {
        snprintf(check->text, sizeof check->text, "%s: %s: %s", loam_plan_resource_name(finding->resource),
                 finding->facts, finding->mend);
    } else {
        snprintf(check->text, sizeof check->text, "%s: %s", loam_plan_resource_name(finding->resource), finding->facts);
    }
    if (short_fall && draft->plan->short_count++ == 0) {
        snprintf(draft->first_short, sizeof draft->first_short, "%s", finding->facts);
    }
}

/* --- Pages ----------------------------------------------------------------------------------------------------- */

/* As backing chooses: shared memory where it may be, and private memory where that is refused. */
static enum loam_error thp_given(enum loam_sharing sharing, bool *given, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    *given = false;
    if (sharing != LOAM_SHARING_PRIVATE) {
        error = loam_plan_host_thp(true, given, diag);
    }
    if (error == LOAM_OK && !*given && sharing != LOAM_SHARING_SHARED) {
        error = loam_plan_host_thp(false, given, diag);
    }
    return error;
}

/* Ordinary pages come from no pool; that the kernel refuses to join them is told as an empty one. */
static enum loam_error check_thp(struct draft *draft, struct loam_diag *diag)
{
    static const char *const where[LOAM_SHARING_COUNT] = {[LOAM_SHARING_ANY] = "",
                                                          [LOAM_SHARING_SHARED] = " in shared memory",
                                                          [LOAM_SHARING_PRIVATE] = " in private memory"};
    enum loam_sharing sharing = draft->plan->request.sharing;
    bool shared = sharing == LOAM_SHARING_SHARED;
    struct finding finding = {
        .resource = LOAM_PLAN_POOL, .wanted = draft->plan->backing_page_count, .unit_bytes = draft->plan->page_bytes};
    bool given;
    enum loam_error error = thp_given(sharing, &given, diag);

    if (error != LOAM_OK || given) {
        return error;
    }
    snprintf(finding.facts, sizeof finding.facts, "transparent hugepages%s wanted, the kernel gives none",
             where[sharing]);
    snprintf(finding.mend, sizeof finding.mend, "allow them with: echo %s > /sys/kernel/mm/transparent_hugepage/%s",
             shared ? "advise" : "madvise", shared ? "shmem_enabled" : "enabled");
    add_check(draft, &finding);
    return LOAM_OK;
}

static void describe_pages(struct finding *finding, const struct loam_plan *plan, const char *where, const char *path,
                           uint64_t total_pages)
{
    uint64_t missing = loam_subtract_floored(finding->wanted, finding->found);

    finding->unit_bytes = plan->page_bytes;
    snprintf(finding->facts, sizeof finding->facts, "%" PRIu64 " x %s hugepages%s wanted, %" PRIu64 " free",
             finding->wanted, loam_plan_size(plan->page_bytes, false).text, where, finding->found);
    snprintf(finding->mend, sizeof finding->mend, "raise the pool with: echo %" PRIu64 " > %s/nr_hugepages",
             loam_add_capped(total_pages, missing), path);
}

static enum loam_error check_pool(struct draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    struct finding finding = {.resource = LOAM_PLAN_POOL, .wanted = plan->backing_page_count};
    struct loam_plan_host_pool pool;
    uint64_t missing, surplus_pages;
    enum loam_error error;

    if (!is_hugetlb(plan)) {
        return plan->pages == LOAM_PAGES_THP ? check_thp(draft, diag) : LOAM_OK;
    }
    if ((error = loam_plan_host_pool(plan->pages, &pool, diag)) != LOAM_OK) {
        return error;
    }
    missing = loam_subtract_floored(finding.wanted, pool.free_pages);
    surplus_pages = missing < pool.surplus_pages ? missing : pool.surplus_pages;
    draft->surplus_bytes = surplus_pages * plan->page_bytes;
    finding.found = loam_add_capped(pool.free_pages, pool.surplus_pages);
    describe_pages(&finding, plan, "", loam_plan_host_pool_path(plan->pages), pool.total_pages);
    if (!pool.present) {
        snprintf(finding.mend, sizeof finding.mend, "this host has no pages of that size: choose smaller ones");
    }
    add_check(draft, &finding);
    return LOAM_OK;
}

/* Promises to other mappings and surplus pages have no node, so only what is free there now is counted. */
static enum loam_error check_node(struct draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    uint32_t node = plan->request.node;
    struct finding finding = {.resource = LOAM_PLAN_NODE};
    struct loam_plan_host_node host;
    char where[24], path[128];
    enum loam_error error;

    if (!plan->request.bind_node) {
        return LOAM_OK;
    }
    if ((error = loam_plan_host_node(node, plan->pages, &host, diag)) != LOAM_OK) {
        return error;
    }
    snprintf(where, sizeof where, " on node %" PRIu32, node);
    if (is_hugetlb(plan)) {
        finding.wanted = plan->backing_page_count;
        finding.found = host.free_pages;
        loam_plan_host_node_path(node, plan->pages, path, sizeof path);
        describe_pages(&finding, plan, where, path, host.total_pages);
    } else {
        finding.wanted = is_lazy(plan) && host.present ? 0 : plan->request.bytes;
        finding.found = host.free_bytes;
        finding.unit_bytes = 1;
        snprintf(finding.facts, sizeof finding.facts, "%s%s wanted, %s free", loam_plan_size(finding.wanted, true).text,
                 where, loam_plan_size(finding.found, false).text);
        snprintf(finding.mend, sizeof finding.mend, "choose another node, or ask for less");
    }
    if (!host.present) {
        snprintf(finding.mend, sizeof finding.mend,
                 "there is no such node: choose one that /sys/devices/system/node/online lists");
    }
    add_check(draft, &finding);
    return LOAM_OK;
}

/* --- Memory ---------------------------------------------------------------------------------------------------- */

static enum loam_error check_available(struct draft *draft, struct loam_diag *diag)
{
    struct finding finding = {.resource = LOAM_PLAN_AVAILABLE, .wanted = ordinary_bytes(draft), .unit_bytes = 1};
    enum loam_error error = loam_plan_host_available(&finding.found, diag);

    if (error == LOAM_OK) {
        snprintf(finding.facts, sizeof finding.facts, "%s of ordinary memory wanted, %s free",
                 loam_plan_size(finding.wanted, true).text, loam_plan_size(finding.found, false).text);
        snprintf(finding.mend, sizeof finding.mend, "free memory on the host, or ask for less");
        add_check(draft, &finding);
    }
    return error;
}

static struct finding describe_limit(const struct loam_plan_cgroup_limit *limit, uint64_t wanted_bytes,
                                     const char *what)
{
    struct finding finding = {
        .resource = LOAM_PLAN_CGROUP, .wanted = wanted_bytes, .found = limit->room_bytes, .unit_bytes = 1};
    uint64_t missing_bytes = loam_align_up(loam_subtract_floored(wanted_bytes, limit->room_bytes), LOAM_FRAME_BYTES);
    struct loam_plan_size room = loam_plan_size(limit->room_bytes, false);

    snprintf(finding.facts, sizeof finding.facts, "%s of %s wanted, %s%s", loam_plan_size(wanted_bytes, true).text,
             what, limit->room_bytes == UINT64_MAX ? "no limit" : room.text,
             limit->room_bytes == UINT64_MAX ? "" : " left of the limit");
    if (strlen(limit->path) <= MEND_PATH_MAX) {
        snprintf(finding.mend, sizeof finding.mend, "raise it with: echo %" PRIu64 " > %.*s",
                 limit->limit_bytes + missing_bytes, MEND_PATH_MAX, limit->path);
    } else {
        snprintf(finding.mend, sizeof finding.mend,
                 "raise the limit of this process's control group to %" PRIu64 " bytes",
                 limit->limit_bytes + missing_bytes);
    }
    return finding;
}

/* Hugepages have a controller of their own, metadata is ordinary memory always: the one that falls short is shown. */
static enum loam_error check_cgroup(struct draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    struct loam_plan_cgroup_limit limit;
    struct finding memory, hugetlb;
    uint64_t wanted_bytes = ordinary_bytes(draft);
    enum loam_error error = loam_plan_cgroup_limit(LOAM_PLAN_CGROUP_MEMORY, &limit, diag);

    if (error != LOAM_OK) {
        return error;
    }
    if (is_hugetlb(plan) && limit.counts_hugetlb) {
        wanted_bytes += plan->request.bytes - draft->surplus_bytes;
    }
    memory = describe_limit(&limit, wanted_bytes, "memory");
    if (!is_hugetlb(plan)) {
        add_check(draft, &memory);
        return LOAM_OK;
    }
    error = loam_plan_cgroup_limit(
        plan->pages == LOAM_PAGES_1G ? LOAM_PLAN_CGROUP_HUGETLB_1G : LOAM_PLAN_CGROUP_HUGETLB_2M, &limit, diag);
    if (error == LOAM_OK) {
        hugetlb = describe_limit(&limit, plan->request.bytes, "hugepages");
        add_check(draft, memory.wanted > memory.found && hugetlb.wanted <= hugetlb.found ? &memory : &hugetlb);
    }
    return error;
}

/* --- Limits of the process and the hypervisor ------------------------------------------------------------------ */

static enum loam_error check_memlock(struct draft *draft, struct loam_diag *diag)
{
    struct finding finding = {.resource = LOAM_PLAN_MEMLOCK, .wanted = draft->plan->request.bytes, .unit_bytes = 1};
    uint64_t limit_bytes, locked_bytes;
    enum loam_error error;

    if (!draft->plan->request.lock) {
        return LOAM_OK;
    }
    if ((error = loam_plan_host_memlock(&limit_bytes, &locked_bytes, diag)) != LOAM_OK) {
        return error;
    }
    finding.found = limit_bytes == UINT64_MAX ? UINT64_MAX : loam_subtract_floored(limit_bytes, locked_bytes);
    snprintf(finding.facts, sizeof finding.facts, "%s to be locked wanted, %s%s",
             loam_plan_size(finding.wanted, true).text,
             limit_bytes == UINT64_MAX ? "no limit" : loam_plan_size(finding.found, false).text,
             limit_bytes == UINT64_MAX ? "" : " allowed");
    snprintf(finding.mend, sizeof finding.mend, "raise the limit with: ulimit -l %" PRIu64,
             loam_add_capped(locked_bytes, finding.wanted) / LOAM_KIB);
    add_check(draft, &finding);
    return LOAM_OK;
}

/* A part is one slot: its regions lie in one mapping and are writable alike. */
static enum loam_error check_slots(struct draft *draft, struct loam_diag *diag)
{
    const struct loam_memory_request *request = &draft->plan->request;
    struct finding finding = {.resource = LOAM_PLAN_SLOTS,
                              .wanted = (uint64_t)draft->plan->part_count + request->extra_slots,
                              .found = request->slot_limit,
                              .unit_bytes = 1};

    (void)diag;
    if (request->slot_limit != 0) {
        snprintf(finding.facts, sizeof finding.facts, "%" PRIu64 " memory slots wanted, the hypervisor has %" PRIu64,
                 finding.wanted, finding.found);
        snprintf(finding.mend, sizeof finding.mend, "ask for fewer beyond those of the RAM");
        add_check(draft, &finding);
    }
    return LOAM_OK;
}

/* --- Choosing -------------------------------------------------------------------------------------------------- */

/* Hold the chosen page kind against the host. With stop_early, one shortfall is enough to know. */
static enum loam_error assess(struct draft *draft, bool stop_early, struct loam_diag *diag)
{
    static enum loam_error (*const checks[LOAM_PLAN_RESOURCE_COUNT])(struct draft *, struct loam_diag *) = {
        [LOAM_PLAN_POOL] = check_pool,     [LOAM_PLAN_NODE] = check_node,       [LOAM_PLAN_AVAILABLE] = check_available,
        [LOAM_PLAN_CGROUP] = check_cgroup, [LOAM_PLAN_MEMLOCK] = check_memlock, [LOAM_PLAN_SLOTS] = check_slots,
    };
    struct loam_plan *plan = draft->plan;
    enum loam_error error = LOAM_OK;

    draft->surplus_bytes = 0;
    plan->check_count = 0;
    plan->short_count = 0;
    memset(plan->checks, 0, sizeof plan->checks);
    for (size_t i = 0; error == LOAM_OK && i < LOAM_PLAN_RESOURCE_COUNT; i++) {
        error = checks[i](draft, diag);
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
static enum loam_error assess_in_turn(struct draft *draft, struct loam_diag *diag)
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
                     loam_plan_size(page_bytes, false).text);
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
    struct draft draft = {.plan = plan};
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
