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

/* Of a part of the request, on both sides of the hole. */
static uint64_t host_table_bytes(uint64_t bytes, const struct loam_plan_part *part, bool is_file)
{
    if (loam_plan_is_hugetlb(part->pages)) {
        return table_count(bytes, part->page_bytes) * TABLE_BYTES;
    }
    return table_count(bytes, LOAM_FRAME_BYTES) * TABLE_BYTES + (is_file ? bytes / LOAM_FRAME_BYTES * INDEX_BYTES : 0);
}

/* What is left to first touch brings its tables with it then; but KVM's index of pages is there from the start. */
static uint64_t kvm_table_bytes(uint64_t bytes, const struct loam_plan_part *part, bool lazy, bool walks)
{
    uint64_t page_bytes = loam_plan_is_hugetlb(part->pages) ? part->page_bytes : LOAM_FRAME_BYTES;

    if (!walks) {
        return bytes / LOAM_FRAME_BYTES * (lazy ? SHADOW_REVERSE_BYTES : SHADOW_BYTES);
    }
    return lazy ? 0 : table_count(bytes, page_bytes) * (TABLE_BYTES + KVM_RECORD_BYTES);
}

static const struct loam_plan_part *first_part_of(const struct loam_plan *plan, uint32_t asked)
{
    for (uint32_t i = 0; i < plan->part_count; i++) {
        if (plan->parts[i].asked == asked) {
            return &plan->parts[i];
        }
    }
    return NULL;
}

static enum loam_error measure(struct loam_plan *plan, struct loam_diag *diag)
{
    bool walks, is_file;
    enum loam_error error = loam_host_kvm_walks(&walks, diag);

    plan->table_bytes = 0;
    for (uint32_t i = 0; error == LOAM_OK && i < plan->request.part_count; i++) {
        const struct loam_plan_part *part = first_part_of(plan, i);
        uint64_t bytes = plan->request.parts[i].bytes;

        if (part != NULL && (error = loam_plan_is_file(plan, part, &is_file, diag)) == LOAM_OK) {
            bool lazy = loam_plan_is_lazy(plan, part);

            plan->table_bytes +=
                (lazy ? 0 : host_table_bytes(bytes, part, is_file)) + kvm_table_bytes(bytes, part, lazy, walks);
        }
    }
    plan->own_bytes = loam_add_capped(plan->request.extra_bytes, KERNEL_OBJECT_BYTES);
    return error;
}

/* --- The checks ------------------------------------------------------------------------------------------------- */

static bool is_hugetlb(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    (void)plan;
    return loam_plan_is_hugetlb(part->pages);
}

static bool is_ordinary(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    return !is_hugetlb(plan, part);
}

static bool is_taken(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    return !loam_plan_is_hugetlb(part->pages) && !loam_plan_is_lazy(plan, part);
}

static uint64_t ordinary_bytes(const struct loam_plan_draft *draft)
{
    const struct loam_plan *plan = draft->plan;

    return loam_add_capped(loam_plan_bytes_of(plan, is_taken) + plan->metadata_bytes + plan->table_bytes +
                               draft->surplus_bytes,
                           plan->own_bytes);
}

/* The sum's parts, and what else a guest may come to take. */
static void describe_parts(struct loam_plan_finding *finding, const struct loam_plan *plan)
{
    uint64_t rest_bytes = plan->table_bytes + plan->metadata_bytes + plan->own_bytes;
    char lead[64] = "";

    if (finding->wanted > rest_bytes) {
        snprintf(lead, sizeof lead, "%s of pages, ", loam_host_size(finding->wanted - rest_bytes, true).text);
    } else if (loam_subtract_floored(finding->found, finding->wanted) < loam_plan_bytes_of(plan, loam_plan_is_lazy)) {
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

static enum loam_error check_memory_group(struct loam_plan_draft *draft, struct loam_plan_finding *finding,
                                          struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    struct loam_host_cgroup_limit limit;
    uint64_t wanted_bytes = ordinary_bytes(draft);
    enum loam_error error = loam_host_cgroup_limit(&draft->cgroups, LOAM_HOST_CGROUP_MEMORY, &limit, diag);

    if (error != LOAM_OK) {
        return error;
    }
    if (limit.counts_hugetlb) {
        wanted_bytes += loam_plan_bytes_of(plan, is_hugetlb) - draft->surplus_bytes;
    }
    *finding = describe_limit(&limit, wanted_bytes, "memory");
    if (limit.room != UINT64_MAX) {
        describe_parts(finding, plan);
    }
    return LOAM_OK;
}

/* A limit that charges hugepages at first touch has them populated, or they might never be had. */
static void settle(struct loam_plan *plan, enum loam_pages pages, bool at_touch)
{
    for (uint32_t i = 0; i < plan->part_count; i++) {
        struct loam_plan_part *part = &plan->parts[i];

        if (part->pages == pages && !loam_plan_is_adopted(plan, part)) {
            part->charged_at_touch = at_touch && !part->populates;
            part->populates = part->populates || at_touch;
        }
    }
}

/* What the request alone says of populating. */
static void settle_as_asked(struct loam_plan *plan)
{
    for (uint32_t i = 0; i < plan->part_count; i++) {
        struct loam_plan_part *part = &plan->parts[i];
        const struct loam_backing_request *asked = loam_plan_asked(plan, part);

        part->charged_at_touch = false;
        part->populates =
            asked->adoption == LOAM_ADOPTION_MAPPING ? false
            : loam_plan_is_hugetlb(part->pages)
                ? asked->lock || asked->placement == LOAM_PLACEMENT_STRICT || asked->commit == LOAM_COMMIT_POPULATE
                : !loam_plan_is_lazy(plan, part);
    }
}

static void sum_up(struct loam_plan *plan)
{
    plan->populates = true;
    plan->charged_at_touch = false;
    for (uint32_t i = 0; i < plan->part_count; i++) {
        plan->populates = plan->populates && plan->parts[i].populates;
        plan->charged_at_touch = plan->charged_at_touch || plan->parts[i].charged_at_touch;
    }
}

static bool is_1g(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    (void)plan;
    return part->pages == LOAM_PAGES_1G;
}

static bool is_2m(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    (void)plan;
    return part->pages == LOAM_PAGES_2M;
}

static enum loam_error check_hugetlb_group(struct loam_plan_draft *draft, enum loam_pages pages, uint64_t bytes,
                                           struct loam_plan_finding *finding, struct loam_diag *diag)
{
    struct loam_plan *plan = draft->plan;
    bool large = pages == LOAM_PAGES_1G, several = plan->request.part_count > 1;
    struct loam_host_cgroup_limit limit;
    enum loam_error error = loam_host_cgroup_limit(
        &draft->cgroups, large ? LOAM_HOST_CGROUP_HUGETLB_1G : LOAM_HOST_CGROUP_HUGETLB_2M, &limit, diag);

    if (error == LOAM_OK) {
        settle(plan, pages, limit.at_touch);
        *finding = describe_limit(&limit, bytes,
                                  !several ? "hugepages"
                                  : large  ? "1 GiB hugepages"
                                           : "2 MiB hugepages");
    }
    return error;
}

/*
 * Each size of hugepages has a limit of its own, and all else is ordinary memory, whose limit is shown where parts are
 * made of it, or where it alone falls short.
 */
enum loam_error loam_plan_check_cgroup(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    static bool (*const is_of[])(const struct loam_plan *, const struct loam_plan_part *) = {is_1g, is_2m};
    struct loam_plan *plan = draft->plan;
    struct loam_plan_finding memory, findings[2];
    uint32_t count = 0, short_count = 0;
    enum loam_error error = check_memory_group(draft, &memory, diag);

    settle_as_asked(plan);
    for (uint32_t i = 0; error == LOAM_OK && i < 2; i++) {
        uint64_t bytes = loam_plan_bytes_of(plan, is_of[i]);

        if (bytes > 0) {
            error = check_hugetlb_group(draft, i == 0 ? LOAM_PAGES_1G : LOAM_PAGES_2M, bytes, &findings[count], diag);
            short_count += error == LOAM_OK && findings[count].wanted > findings[count].found;
            count++;
        }
    }
    sum_up(plan);
    if (error != LOAM_OK) {
        return error;
    }
    if (loam_plan_bytes_of(plan, is_ordinary) > 0) {
        loam_plan_add_check(draft, &memory);
    } else if (memory.wanted > memory.found && short_count == 0) {
        loam_plan_add_check(draft, &memory);
        count = 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        loam_plan_add_check(draft, &findings[i]);
    }
    return LOAM_OK;
}
