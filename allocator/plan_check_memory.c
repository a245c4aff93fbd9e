// SPDX-License-Identifier: Apache-2.0
/*
 * Ordinary memory that a plan takes:
 *   RAM, unless hugetlb backs it or it is left to first touch
 *   + surplus hugepages
 *   + table_bytes     the host's page tables, KVM's, and the index that a memfd has of its pages
 *   + metadata_bytes
 *   + own_bytes       what the process takes beside its guest's memory
 * A control group is charged for all of it, the kernel's own objects included, and kills when that is too much.
 */
#include "allocator/plan_check.h"

#include "allocator/host/host.h"
#include "allocator/host/host_cgroup.h"
#include "allocator/host/host_size.h"
#include "allocator/host/host_text.h"
#include "allocator/plan_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Beyond it, a file is described and not named: the command that mends must stand whole in a check's text. */
#define MEND_PATH_MAX 160

/* A page of 512 entries (SDM volume 3, 4.5). */
#define TABLE_BYTES   LOAM_FRAME_BYTES
#define TABLE_ENTRIES 512

/* Of each 4 KiB page in a file: its share of an xarray's nodes, 576 bytes for 64 pages and an eighth for the slab. */
#define INDEX_BYTES 10

/* KVM describes each of its tables in a record of its own. */
#define KVM_RECORD_BYTES 256

/*
 * Of each 4 KiB page where KVM shadows the guest's tables: 8 bytes that find its entries, an entry of 8, and the guest's
 * that it stands for, with a record for 512. Measured with Linux 6.18: 1 GiB takes 6.8 MiB in all where 10.5 are counted.
 */
#define SHADOW_REVERSE_BYTES 8
#define SHADOW_BYTES         (SHADOW_REVERSE_BYTES + 17)

/* Descriptors, mappings, thread stacks in the kernel, the VM itself: 1.2 MiB seen with one vCPU, the program included. */
#define KERNEL_OBJECT_BYTES LOAM_MIB

/* Tables of all levels that map bytes with pages of page_bytes. */
static uint64_t table_count(uint64_t bytes, uint64_t page_bytes)
{
    uint64_t count = 0;

    for (uint64_t span = page_bytes * TABLE_ENTRIES; span < (UINT64_C(1) << 48); span *= TABLE_ENTRIES) {
        count += bytes / span + 1;
    }
    return count;
}

static uint64_t host_table_bytes(const struct loam_plan *plan, bool is_file)
{
    uint64_t bytes = plan->request.bytes, frames = bytes / LOAM_FRAME_BYTES;

    if (loam_plan_is_hugetlb(plan)) {
        return table_count(bytes, plan->page_bytes) * TABLE_BYTES;
    }
    return table_count(bytes, LOAM_FRAME_BYTES) * TABLE_BYTES + (is_file ? frames * INDEX_BYTES : 0);
}

/* What is left to first touch brings its tables with it then; but KVM's index of pages is there from the start. */
static uint64_t kvm_table_bytes(const struct loam_plan *plan, bool walks)
{
    uint64_t bytes = plan->request.bytes, frames = bytes / LOAM_FRAME_BYTES;
    uint64_t page_bytes = loam_plan_is_hugetlb(plan) ? plan->page_bytes : LOAM_FRAME_BYTES;

    if (!walks) {
        return frames * (loam_plan_is_lazy(plan) ? SHADOW_REVERSE_BYTES : SHADOW_BYTES);
    }
    return loam_plan_is_lazy(plan) ? 0 : table_count(bytes, page_bytes) * (TABLE_BYTES + KVM_RECORD_BYTES);
}

static enum loam_error measure(struct loam_plan *plan, struct loam_diag *diag)
{
    bool walks, is_file;
    enum loam_error error = loam_host_kvm_walks(&walks, diag);

    if (error == LOAM_OK) {
        error = loam_plan_is_file(plan, &is_file, diag);
    }
    if (error == LOAM_OK) {
        plan->table_bytes =
            (loam_plan_is_lazy(plan) ? 0 : host_table_bytes(plan, is_file)) + kvm_table_bytes(plan, walks);
        plan->own_bytes = loam_add_capped(plan->request.extra_bytes, KERNEL_OBJECT_BYTES);
    }
    return error;
}

/* --- The checks ------------------------------------------------------------------------------------------------- */

static uint64_t ordinary_bytes(const struct loam_plan_draft *draft)
{
    const struct loam_plan *plan = draft->plan;
    uint64_t ram_bytes = loam_plan_is_hugetlb(plan) || loam_plan_is_lazy(plan) ? 0 : plan->request.bytes;

    return loam_add_capped(ram_bytes + plan->metadata_bytes + plan->table_bytes + draft->surplus_bytes,
                           plan->own_bytes);
}

/* The sum's parts, and what else a guest may come to take. */
static void describe_parts(struct loam_plan_finding *finding, const struct loam_plan *plan)
{
    uint64_t rest_bytes = plan->table_bytes + plan->metadata_bytes + plan->own_bytes;
    char lead[64] = "";

    if (finding->wanted > rest_bytes) {
        snprintf(lead, sizeof lead, "%s of pages, ", loam_host_size(finding->wanted - rest_bytes, true).text);
    } else if (loam_plan_is_lazy(plan) &&
               loam_subtract_floored(finding->found, finding->wanted) < plan->request.bytes) {
        snprintf(lead, sizeof lead, "beyond it a touch of RAM kills; ");
    }
    snprintf(finding->parts, sizeof finding->parts, "%s%s of page tables, %s of metadata, %s for the process", lead,
             loam_host_size(plan->table_bytes, true).text, loam_host_size(plan->metadata_bytes, true).text,
             loam_host_size(plan->own_bytes, true).text);
}

enum loam_error loam_plan_check_available(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_AVAILABLE, .unit_bytes = 1};
    enum loam_error error = measure(draft->plan, diag);

    if (error == LOAM_OK) {
        error = loam_host_available(&finding.found, diag);
    }
    if (error == LOAM_OK) {
        finding.wanted = ordinary_bytes(draft);
        snprintf(finding.facts, sizeof finding.facts, "%s of ordinary memory wanted, %s free",
                 loam_host_size(finding.wanted, true).text, loam_host_size(finding.found, false).text);
        snprintf(finding.mend, sizeof finding.mend, "free memory on the host, or ask for less");
        if (finding.wanted > finding.found) {
            describe_parts(&finding, draft->plan);
        }
        loam_plan_add_check(draft, &finding);
    }
    return error;
}

static struct loam_plan_finding describe_limit(const struct loam_host_cgroup_limit *limit, uint64_t wanted_bytes,
                                               const char *what)
{
    struct loam_plan_finding finding = {
        .resource = LOAM_PLAN_CGROUP, .wanted = wanted_bytes, .found = limit->room, .unit_bytes = 1};
    uint64_t missing_bytes = loam_align_up(loam_subtract_floored(wanted_bytes, limit->room), LOAM_FRAME_BYTES);
    struct loam_host_size room = loam_host_size(limit->room, false);

    snprintf(finding.facts, sizeof finding.facts, "%s of %s wanted, %s%s", loam_host_size(wanted_bytes, true).text,
             what, limit->room == UINT64_MAX ? "no limit" : room.text,
             limit->room == UINT64_MAX ? "" : " left of the limit");
    if (strlen(limit->path) <= MEND_PATH_MAX) {
        snprintf(finding.mend, sizeof finding.mend, "raise it with: echo %" PRIu64 " > %.*s",
                 limit->limit + missing_bytes, MEND_PATH_MAX, limit->path);
    } else {
        snprintf(finding.mend, sizeof finding.mend,
                 "raise the limit of this process's control group to %" PRIu64 " bytes", limit->limit + missing_bytes);
    }
    return finding;
}

static enum loam_error check_memory_group(const struct loam_plan_draft *draft, struct loam_plan_finding *finding,
                                          struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    struct loam_host_cgroup_limit limit;
    uint64_t wanted_bytes = ordinary_bytes(draft);
    enum loam_error error = loam_host_cgroup_limit(LOAM_HOST_CGROUP_MEMORY, &limit, diag);

    if (error != LOAM_OK) {
        return error;
    }
    if (loam_plan_is_hugetlb(plan) && limit.counts_hugetlb) {
        wanted_bytes += plan->request.bytes - draft->surplus_bytes;
    }
    *finding = describe_limit(&limit, wanted_bytes, "memory");
    if (limit.room != UINT64_MAX) {
        describe_parts(finding, plan);
    }
    return LOAM_OK;
}

/* Hugepages have a controller of their own, and all else is ordinary memory: the one that falls short is shown. */
enum loam_error loam_plan_check_cgroup(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    struct loam_plan *plan = draft->plan;
    struct loam_plan_finding memory, hugetlb;
    struct loam_host_cgroup_limit limit;
    enum loam_error error = check_memory_group(draft, &memory, diag);

    plan->charged_at_touch = false;
    plan->populates = loam_plan_is_hugetlb(plan)
                          ? plan->request.lock || plan->request.placement == LOAM_PLACEMENT_STRICT ||
                                plan->request.commit == LOAM_COMMIT_POPULATE
                          : !loam_plan_is_lazy(plan);
    if (error != LOAM_OK || !loam_plan_is_hugetlb(plan)) {
        if (error == LOAM_OK) {
            loam_plan_add_check(draft, &memory);
        }
        return error;
    }
    error = loam_host_cgroup_limit(
        plan->pages == LOAM_PAGES_1G ? LOAM_HOST_CGROUP_HUGETLB_1G : LOAM_HOST_CGROUP_HUGETLB_2M, &limit, diag);
    if (error == LOAM_OK) {
        plan->charged_at_touch = limit.at_touch && !plan->populates;
        plan->populates |= limit.at_touch;
        hugetlb = describe_limit(&limit, plan->request.bytes, "hugepages");
        loam_plan_add_check(draft,
                            memory.wanted > memory.found && hugetlb.wanted <= hugetlb.found ? &memory : &hugetlb);
    }
    return error;
}
