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

bool loam_plan_is_hugetlb(enum loam_pages pages)
{
    return pages == LOAM_PAGES_1G || pages == LOAM_PAGES_2M;
}

const struct loam_backing_request *loam_plan_asked(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    return &plan->request.parts[part->asked];
}

bool loam_plan_is_lazy(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    return loam_plan_asked(plan, part)->commit == LOAM_COMMIT_LAZY && !loam_plan_is_hugetlb(part->pages);
}

bool loam_plan_is_adopted(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    return loam_plan_asked(plan, part)->adoption != LOAM_ADOPTION_NONE;
}

enum loam_error loam_plan_is_file(const struct loam_plan *plan, const struct loam_plan_part *part, bool *is_file,
                                  struct loam_diag *diag)
{
    enum loam_sharing sharing = loam_plan_asked(plan, part)->sharing;

    if (loam_plan_is_adopted(plan, part)) {
        *is_file = loam_plan_asked(plan, part)->adoption == LOAM_ADOPTION_FD;
        return LOAM_OK;
    }
    *is_file = sharing != LOAM_SHARING_PRIVATE;
    return *is_file && part->pages == LOAM_PAGES_THP && sharing == LOAM_SHARING_ANY ? loam_host_thp(true, is_file, diag)
                                                                                    : LOAM_OK;
}

uint64_t loam_plan_bytes_of(const struct loam_plan *plan,
                            bool (*is_of)(const struct loam_plan *plan, const struct loam_plan_part *part))
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];

        bytes += is_of(plan, part) && !loam_plan_is_adopted(plan, part) ? part->bytes : 0;
    }
    return bytes;
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
static enum loam_error check_thp(struct loam_plan_draft *draft, enum loam_sharing sharing, uint64_t page_count,
                                 struct loam_diag *diag)
{
    static const char *const where[LOAM_SHARING_COUNT] = {[LOAM_SHARING_ANY] = "",
                                                          [LOAM_SHARING_SHARED] = " in shared memory",
                                                          [LOAM_SHARING_PRIVATE] = " in private memory"};
    bool shared = sharing == LOAM_SHARING_SHARED;
    struct loam_plan_finding finding = {
        .resource = LOAM_PLAN_POOL, .wanted = page_count, .unit_bytes = loam_pages_bytes(LOAM_PAGES_THP)};
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

static void describe_pages(struct loam_plan_finding *finding, uint64_t page_bytes, const char *where, const char *path,
                           uint64_t total_pages)
{
    uint64_t missing = loam_subtract_floored(finding->wanted, finding->found);

    finding->unit_bytes = page_bytes;
    snprintf(finding->facts, sizeof finding->facts, "%" PRIu64 " x %s hugepages%s wanted, %" PRIu64 " free",
             finding->wanted, loam_host_size(page_bytes, false).text, where, finding->found);
    snprintf(finding->mend, sizeof finding->mend, "raise the pool with: echo %" PRIu64 " > %s/nr_hugepages",
             loam_add_capped(total_pages, missing), path);
}

static enum loam_error check_hugetlb(struct loam_plan_draft *draft, uint64_t page_bytes, uint64_t page_count,
                                     struct loam_diag *diag)
{
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_POOL, .wanted = page_count};
    struct loam_host_pool pool;
    char path[LOAM_HOST_POOL_PATH_MAX];
    uint64_t missing, surplus_pages;
    enum loam_error error = loam_host_pool(page_bytes, &pool, diag);

    if (error != LOAM_OK) {
        return error;
    }
    missing = loam_subtract_floored(finding.wanted, pool.free_pages);
    surplus_pages = missing < pool.surplus_pages ? missing : pool.surplus_pages;
    draft->surplus_bytes += surplus_pages * page_bytes;
    finding.found = loam_add_capped(pool.free_pages, pool.surplus_pages);
    loam_host_pool_path(page_bytes, path);
    describe_pages(&finding, page_bytes, "", path, pool.total_pages);
    if (!pool.present) {
        snprintf(finding.mend, sizeof finding.mend, "this host has no pages of that size: choose smaller ones");
    }
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}

/* Pages of that kind, over all parts of that sharing; LOAM_SHARING_COUNT: of any. */
static uint64_t pages_of(const struct loam_plan *plan, enum loam_pages pages, enum loam_sharing sharing)
{
    uint64_t count = 0;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];
        bool is_of = sharing == LOAM_SHARING_COUNT || loam_plan_asked(plan, part)->sharing == sharing;

        count += part->pages == pages && is_of && !loam_plan_is_adopted(plan, part) ? part->page_count : 0;
    }
    return count;
}

enum loam_error loam_plan_check_pool(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (int pages = LOAM_PAGES_1G; error == LOAM_OK && pages <= LOAM_PAGES_2M; pages++) {
        uint64_t count = pages_of(draft->plan, (enum loam_pages)pages, LOAM_SHARING_COUNT);

        error = count > 0 ? check_hugetlb(draft, loam_pages_bytes((enum loam_pages)pages), count, diag) : LOAM_OK;
    }
    for (int sharing = 0; error == LOAM_OK && sharing < LOAM_SHARING_COUNT; sharing++) {
        uint64_t count = pages_of(draft->plan, LOAM_PAGES_THP, (enum loam_sharing)sharing);

        error = count > 0 ? check_thp(draft, (enum loam_sharing)sharing, count, diag) : LOAM_OK;
    }
    return error;
}

/* --- Nodes ----------------------------------------------------------------------------------------------------- */

/* What parts take together from one set of nodes: pages of a pool, or (page_bytes 0) ordinary memory. */
struct node_share {
    enum loam_placement placement;
    uint64_t node_mask;
    uint64_t page_bytes;
    uint64_t page_count;
    uint64_t bytes;
    uint64_t lazy_bytes; /* of bytes */
};

static struct node_share share_of(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    const struct loam_backing_request *asked = loam_plan_asked(plan, part);

    return (struct node_share){
        .placement = loam_plan_is_adopted(plan, part) ? LOAM_PLACEMENT_ANY : asked->placement,
        .node_mask = asked->node_mask,
        .page_bytes =
            loam_plan_is_hugetlb(part->pages) && asked->placement == LOAM_PLACEMENT_STRICT ? part->page_bytes : 0,
        .page_count = part->page_count,
        .bytes = part->bytes,
        .lazy_bytes = loam_plan_is_lazy(plan, part) ? part->bytes : 0,
    };
}

/* Memory comes from other nodes where these have too little, so they only have to be there. */
static enum loam_error check_node_there(struct loam_plan_draft *draft, const struct node_share *share,
                                        struct loam_diag *diag)
{
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_NODE, .wanted = share->bytes, .unit_bytes = 1};
    struct loam_host_node host;
    enum loam_error error = loam_host_nodes(share->node_mask, 0, &host, diag);

    if (error == LOAM_OK && !host.present) {
        snprintf(finding.facts, sizeof finding.facts, "%s on %s wanted (%s)", loam_host_size(share->bytes, true).text,
                 loam_host_nodes_name(share->node_mask).text, loam_placement_name(share->placement));
        snprintf(finding.mend, sizeof finding.mend, NODE_MEND);
        loam_plan_add_check(draft, &finding);
    }
    return error;
}

/* Promises to other mappings and surplus pages have no node, so only what is free there now is counted. */
static enum loam_error check_strict(struct loam_plan_draft *draft, const struct node_share *share,
                                    struct loam_diag *diag)
{
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_NODE};
    struct loam_host_node host;
    char where[48], path[LOAM_HOST_POOL_PATH_MAX];
    enum loam_error error = loam_host_nodes(share->node_mask, share->page_bytes, &host, diag);

    if (error != LOAM_OK) {
        return error;
    }
    snprintf(where, sizeof where, " on %s", loam_host_nodes_name(share->node_mask).text);
    if (share->page_bytes != 0) {
        finding.wanted = share->page_count;
        finding.found = host.free_pages;
        loam_host_node_pool_path((uint32_t)__builtin_ctzll(share->node_mask), share->page_bytes, path);
        describe_pages(&finding, share->page_bytes, where, path, host.total_pages);
    } else {
        finding.wanted = share->bytes - (host.present ? share->lazy_bytes : 0);
        finding.found = host.free_bytes;
        finding.unit_bytes = 1;
        snprintf(finding.facts, sizeof finding.facts, "%s%s%s wanted, %s free",
                 loam_host_size(finding.wanted, true).text,
                 draft->plan->request.part_count > 1 ? " of ordinary memory" : "", where,
                 loam_host_size(finding.found, false).text);
        snprintf(finding.mend, sizeof finding.mend, "choose another node, or ask for less");
    }
    if (!host.present) {
        snprintf(finding.mend, sizeof finding.mend, NODE_MEND);
    }
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}

/* Add up the parts that take of the same as this one; false: an earlier one does, and has done it. */
static bool add_up(const struct loam_plan *plan, uint32_t first, struct node_share *sum)
{
    *sum = share_of(plan, &plan->parts[first]);
    for (uint32_t i = 0; i < plan->part_count; i++) {
        struct node_share share = share_of(plan, &plan->parts[i]);
        bool same = share.placement == sum->placement && share.node_mask == sum->node_mask &&
                    share.page_bytes == sum->page_bytes;

        if (same && i < first) {
            return false;
        }
        if (same && i > first) {
            sum->page_count += share.page_count;
            sum->bytes += share.bytes;
            sum->lazy_bytes += share.lazy_bytes;
        }
    }
    return true;
}

enum loam_error loam_plan_check_node(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < draft->plan->part_count; i++) {
        struct node_share share;

        if (add_up(draft->plan, i, &share) && share.placement != LOAM_PLACEMENT_ANY) {
            error = share.placement == LOAM_PLACEMENT_STRICT ? check_strict(draft, &share, diag)
                                                             : check_node_there(draft, &share, diag);
        }
    }
    return error;
}
