// SPDX-License-Identifier: Apache-2.0
#include "allocator/plan_check.h"

#include "allocator/host/host.h"
#include "allocator/host/host_size.h"
#include "allocator/host/host_text.h"
#include "allocator/plan_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NODE_MEND "there is no such node: choose one that /sys/devices/system/node/online lists"

void loam_plan_add_check(struct loam_plan_draft *draft, const struct loam_plan_finding *finding)
{
    struct loam_plan_check *check = &draft->plan->checks[draft->plan->check_count++];
    bool short_fall = finding->wanted > finding->found, has_parts = finding->parts[0] != '\0';

    *check = (struct loam_plan_check){.resource = finding->resource,
                                      .wanted = finding->wanted,
                                      .found = finding->found,
                                      .unit_bytes = finding->unit_bytes,
                                      .short_fall = short_fall};
    snprintf(check->text, sizeof check->text, "%s: %s%s%s%s%s%s", loam_plan_resource_name(finding->resource),
             finding->facts, has_parts ? " (" : "", finding->parts, has_parts ? ")" : "", short_fall ? ": " : "",
             short_fall ? finding->mend : "");
    if (short_fall && draft->plan->short_count++ == 0) {
        snprintf(draft->first_short, sizeof draft->first_short, "%s", finding->facts);
    }
}

bool loam_plan_is_hugetlb(const struct loam_plan *plan)
{
    return plan->pages == LOAM_PAGES_1G || plan->pages == LOAM_PAGES_2M;
}

bool loam_plan_is_lazy(const struct loam_plan *plan)
{
    return plan->request.commit == LOAM_COMMIT_LAZY && !loam_plan_is_hugetlb(plan);
}

enum loam_error loam_plan_is_file(const struct loam_plan *plan, bool *is_file, struct loam_diag *diag)
{
    *is_file = plan->request.sharing != LOAM_SHARING_PRIVATE;
    return *is_file && plan->pages == LOAM_PAGES_THP && plan->request.sharing == LOAM_SHARING_ANY
               ? loam_host_thp(true, is_file, diag)
               : LOAM_OK;
}

/* --- Pages ----------------------------------------------------------------------------------------------------- */

/* As backing chooses: shared memory where it may be, and private memory where that is refused. */
static enum loam_error thp_given(enum loam_sharing sharing, bool *given, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    *given = false;
    if (sharing != LOAM_SHARING_PRIVATE) {
        error = loam_host_thp(true, given, diag);
    }
    if (error == LOAM_OK && !*given && sharing != LOAM_SHARING_SHARED) {
        error = loam_host_thp(false, given, diag);
    }
    return error;
}

/* Ordinary pages come from no pool; that the kernel refuses to join them is told as an empty one. */
static enum loam_error check_thp(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    static const char *const where[LOAM_SHARING_COUNT] = {[LOAM_SHARING_ANY] = "",
                                                          [LOAM_SHARING_SHARED] = " in shared memory",
                                                          [LOAM_SHARING_PRIVATE] = " in private memory"};
    enum loam_sharing sharing = draft->plan->request.sharing;
    bool shared = sharing == LOAM_SHARING_SHARED;
    struct loam_plan_finding finding = {
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
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}

static void describe_pages(struct loam_plan_finding *finding, const struct loam_plan *plan, const char *where,
                           const char *path, uint64_t total_pages)
{
    uint64_t missing = loam_subtract_floored(finding->wanted, finding->found);

    finding->unit_bytes = plan->page_bytes;
    snprintf(finding->facts, sizeof finding->facts, "%" PRIu64 " x %s hugepages%s wanted, %" PRIu64 " free",
             finding->wanted, loam_host_size(plan->page_bytes, false).text, where, finding->found);
    snprintf(finding->mend, sizeof finding->mend, "raise the pool with: echo %" PRIu64 " > %s/nr_hugepages",
             loam_add_capped(total_pages, missing), path);
}

enum loam_error loam_plan_check_pool(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_POOL, .wanted = plan->backing_page_count};
    struct loam_host_pool pool;
    char path[LOAM_HOST_POOL_PATH_MAX];
    uint64_t missing, surplus_pages;
    enum loam_error error;

    if (!loam_plan_is_hugetlb(plan)) {
        return plan->pages == LOAM_PAGES_THP ? check_thp(draft, diag) : LOAM_OK;
    }
    if ((error = loam_host_pool(plan->page_bytes, &pool, diag)) != LOAM_OK) {
        return error;
    }
    missing = loam_subtract_floored(finding.wanted, pool.free_pages);
    surplus_pages = missing < pool.surplus_pages ? missing : pool.surplus_pages;
    draft->surplus_bytes = surplus_pages * plan->page_bytes;
    finding.found = loam_add_capped(pool.free_pages, pool.surplus_pages);
    loam_host_pool_path(plan->page_bytes, path);
    describe_pages(&finding, plan, "", path, pool.total_pages);
    if (!pool.present) {
        snprintf(finding.mend, sizeof finding.mend, "this host has no pages of that size: choose smaller ones");
    }
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}

/* Memory comes from other nodes where these have too little, so they only have to be there. */
static enum loam_error check_node_there(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_memory_request *request = &draft->plan->request;
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_NODE, .wanted = request->bytes, .unit_bytes = 1};
    struct loam_host_node host;
    enum loam_error error = loam_host_nodes(request->node_mask, 0, &host, diag);

    if (error == LOAM_OK && !host.present) {
        snprintf(finding.facts, sizeof finding.facts, "%s on %s wanted (%s)", loam_host_size(request->bytes, true).text,
                 loam_host_nodes_name(request->node_mask).text, loam_placement_name(request->placement));
        snprintf(finding.mend, sizeof finding.mend, NODE_MEND);
        loam_plan_add_check(draft, &finding);
    }
    return error;
}

/* Promises to other mappings and surplus pages have no node, so only what is free there now is counted. */
enum loam_error loam_plan_check_node(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    uint64_t node_mask = plan->request.node_mask;
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_NODE};
    struct loam_host_node host;
    char where[48], path[LOAM_HOST_POOL_PATH_MAX];
    enum loam_error error;

    if (plan->request.placement != LOAM_PLACEMENT_STRICT) {
        return node_mask != 0 ? check_node_there(draft, diag) : LOAM_OK;
    }
    error = loam_host_nodes(node_mask, loam_plan_is_hugetlb(plan) ? plan->page_bytes : 0, &host, diag);
    if (error != LOAM_OK) {
        return error;
    }
    snprintf(where, sizeof where, " on %s", loam_host_nodes_name(node_mask).text);
    if (loam_plan_is_hugetlb(plan)) {
        finding.wanted = plan->backing_page_count;
        finding.found = host.free_pages;
        loam_host_node_pool_path((uint32_t)__builtin_ctzll(node_mask), plan->page_bytes, path);
        describe_pages(&finding, plan, where, path, host.total_pages);
    } else {
        finding.wanted = loam_plan_is_lazy(plan) && host.present ? 0 : plan->request.bytes;
        finding.found = host.free_bytes;
        finding.unit_bytes = 1;
        snprintf(finding.facts, sizeof finding.facts, "%s%s wanted, %s free", loam_host_size(finding.wanted, true).text,
                 where, loam_host_size(finding.found, false).text);
        snprintf(finding.mend, sizeof finding.mend, "choose another node, or ask for less");
    }
    if (!host.present) {
        snprintf(finding.mend, sizeof finding.mend, NODE_MEND);
    }
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}
