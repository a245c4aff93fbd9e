// SPDX-License-Identifier: Apache-2.0
/* What this process and its hypervisor are limited to. */
#include "allocator/plan_check.h"

#include "allocator/host/host_cgroup.h"
#include "allocator/host/host_limit.h"
#include "allocator/host/host_size.h"
#include "allocator/host/host_text.h"
#include "allocator/plan_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A backing reserves address space for guards and for a place to choose, beside what it maps. */
#define GUARDS_BYTES        (128 * LOAM_KIB)
#define STACK_DEFAULT_BYTES (8 * LOAM_MIB)

/* A limit of this process on bytes; without one there is nothing to say, unless always is set. */
static enum loam_error check_bytes(struct loam_plan_draft *draft, enum loam_plan_resource resource,
                                   enum loam_prim_limit which, uint64_t wanted_bytes, const char *what, bool always,
                                   struct loam_diag *diag)
{
    struct loam_plan_finding finding = {.resource = resource, .wanted = wanted_bytes, .unit_bytes = 1};
    struct loam_host_limit limit;
    enum loam_error error = loam_host_limit(which, wanted_bytes, &limit, diag);

    if (error != LOAM_OK || (limit.limit == UINT64_MAX && !always)) {
        return error;
    }
    finding.found = limit.room;
    snprintf(finding.facts, sizeof finding.facts, "%s %s, %s%s", loam_host_size(wanted_bytes, true).text, what,
             limit.limit == UINT64_MAX ? "no limit" : loam_host_size(finding.found, false).text,
             limit.limit == UINT64_MAX ? "" : " allowed");
    loam_host_limit_mend(which, &limit, wanted_bytes, finding.mend, sizeof finding.mend);
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}

/* Adopted ones too. */
static uint64_t locked_bytes(const struct loam_plan *plan)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        bytes += loam_plan_asked(plan, &plan->parts[i])->lock ? plan->parts[i].bytes : 0;
    }
    return bytes;
}

enum loam_error loam_plan_check_memlock(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    uint64_t bytes = locked_bytes(draft->plan);

    return bytes > 0
               ? check_bytes(draft, LOAM_PLAN_MEMLOCK, LOAM_PRIM_LIMIT_LOCKED, bytes, "to be locked wanted", true, diag)
               : LOAM_OK;
}

/* Each part is a file of its own, or private memory. */
static enum loam_error measure_files(const struct loam_plan *plan, uint64_t *largest_bytes, uint64_t *private_bytes,
                                     struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;
    bool is_file = false;

    *largest_bytes = 0;
    *private_bytes = 0;
    for (uint32_t i = 0; error == LOAM_OK && i < plan->part_count; i++) {
        uint64_t bytes = loam_plan_is_adopted(plan, &plan->parts[i]) ? 0 : plan->parts[i].bytes;

        error = loam_plan_is_file(plan, &plan->parts[i], &is_file, diag);
        *private_bytes += is_file ? 0 : bytes;
        *largest_bytes = is_file && bytes > *largest_bytes ? bytes : *largest_bytes;
    }
    return error;
}

enum loam_error loam_plan_check_file_size(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    uint64_t largest_bytes, private_bytes;
    enum loam_error error = measure_files(draft->plan, &largest_bytes, &private_bytes, diag);

    return error == LOAM_OK && largest_bytes > 0 ? check_bytes(draft, LOAM_PLAN_FILE_SIZE, LOAM_PRIM_LIMIT_FILE_SIZE,
                                                               largest_bytes, "in one file wanted", false, diag)
                                                 : error;
}

/* Of threads, those that must be: populating goes on without its own. */
static enum loam_error stacks_bytes(const struct loam_plan *plan, uint64_t *bytes, struct loam_diag *diag)
{
    struct loam_host_limit stack;
    enum loam_error error = loam_host_limit(LOAM_PRIM_LIMIT_STACK, 0, &stack, diag);
    uint64_t each = error == LOAM_OK && stack.limit != UINT64_MAX ? stack.limit : STACK_DEFAULT_BYTES;

    if (__builtin_mul_overflow(plan->request.extra_threads, each, bytes)) {
        *bytes = UINT64_MAX;
    }
    return error;
}

enum loam_error loam_plan_check_address_space(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    uint64_t align_bytes = plan->page_bytes > 2 * LOAM_MIB ? plan->page_bytes : 2 * LOAM_MIB;
    uint64_t ram_bytes =
        plan->request.bytes + plan->part_count * GUARDS_BYTES + align_bytes + loam_plan_layout_untouched_bytes(plan);
    uint64_t stack_bytes;
    enum loam_error error = stacks_bytes(plan, &stack_bytes, diag);

    return error != LOAM_OK
               ? error
               : check_bytes(
                     draft, LOAM_PLAN_ADDRESS_SPACE, LOAM_PRIM_LIMIT_ADDRESS_SPACE,
                     loam_add_capped(loam_add_capped(ram_bytes + plan->metadata_bytes, plan->own_bytes), stack_bytes),
                     "wanted", false, diag);
}

/* Stacks of threads count too, as private memory that can be written. */
enum loam_error loam_plan_check_data_size(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_plan *plan = draft->plan;
    uint64_t stack_bytes, largest_bytes, private_bytes;
    enum loam_error error = measure_files(plan, &largest_bytes, &private_bytes, diag);

    if (error == LOAM_OK) {
        error = stacks_bytes(plan, &stack_bytes, diag);
    }
    return error != LOAM_OK ? error
                            : check_bytes(draft, LOAM_PLAN_DATA_SIZE, LOAM_PRIM_LIMIT_DATA,
                                          loam_add_capped(loam_add_capped(private_bytes + plan->metadata_bytes +
                                                                              loam_plan_layout_untouched_bytes(plan),
                                                                          plan->own_bytes),
                                                          stack_bytes),
                                          "of private memory wanted", false, diag);
}

/* --- Threads ------------------------------------------------------------------------------------------------------ */

/*
 * The most that run at once beside the caller's own: the workers while memory is populated, if their number was asked
 * for, and what the caller starts later. Workers of a number that Loam chooses are done without where they cannot be had.
 */
static uint64_t threads_wanted(const struct loam_plan *plan)
{
    uint64_t workers = 0;

    for (uint32_t i = 0; i < plan->part_count && plan->request.thread_count > 1; i++) {
        workers = plan->parts[i].populates ? plan->request.thread_count - 1 : workers;
    }
    return workers > plan->request.extra_threads ? workers : plan->request.extra_threads;
}

enum loam_error loam_plan_check_threads(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    struct loam_plan_finding finding = {
        .resource = LOAM_PLAN_THREADS, .wanted = threads_wanted(draft->plan), .unit_bytes = 1};
    struct loam_host_cgroup_limit group;
    struct loam_host_limit user;
    enum loam_error error = loam_host_limit(LOAM_PRIM_LIMIT_THREADS, finding.wanted, &user, diag);

    if (error != LOAM_OK ||
        (error = loam_host_cgroup_limit(&draft->cgroups, LOAM_HOST_CGROUP_THREADS, &group, diag)) != LOAM_OK ||
        (user.room == UINT64_MAX && group.room == UINT64_MAX)) {
        return error;
    }
    finding.found = user.room < group.room ? user.room : group.room;
    snprintf(finding.facts, sizeof finding.facts, "%" PRIu64 " beside this one wanted, %" PRIu64 " left of %s",
             finding.wanted, finding.found, user.room <= group.room ? "RLIMIT_NPROC" : "the control group's pids.max");
    if (user.room <= group.room) {
        loam_host_limit_mend(LOAM_PRIM_LIMIT_THREADS, &user, finding.wanted, finding.mend, sizeof finding.mend);
    } else {
        snprintf(finding.mend, sizeof finding.mend, "raise it with: echo %" PRIu64 " > %.160s",
                 loam_add_capped(group.used, finding.wanted), group.path);
    }
    loam_plan_add_check(draft, &finding);
    return LOAM_OK;
}

/* --- The hypervisor ----------------------------------------------------------------------------------------------- */

enum loam_error loam_plan_check_vcpus(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_memory_request *request = &draft->plan->request;
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_VCPUS,
                                        .wanted = request->vcpu_count,
                                        .found = request->vcpu_limit,
                                        .unit_bytes = 1,
                                        .mend = "ask for fewer"};

    (void)diag;
    if (request->vcpu_limit != 0) {
        snprintf(finding.facts, sizeof finding.facts, "%" PRIu64 " vCPUs wanted, the hypervisor has %" PRIu64,
                 finding.wanted, finding.found);
        loam_plan_add_check(draft, &finding);
    }
    return LOAM_OK;
}

/* A part is one slot: its regions lie in one mapping and are writable alike. */
enum loam_error loam_plan_check_slots(struct loam_plan_draft *draft, struct loam_diag *diag)
{
    const struct loam_memory_request *request = &draft->plan->request;
    struct loam_plan_finding finding = {.resource = LOAM_PLAN_SLOTS,
                                        .wanted = (uint64_t)draft->plan->part_count + request->extra_slots,
                                        .found = request->slot_limit,
                                        .unit_bytes = 1,
                                        .mend = "ask for fewer beyond those of the RAM"};

    (void)diag;
    if (request->slot_limit != 0) {
        snprintf(finding.facts, sizeof finding.facts, "%" PRIu64 " memory slots wanted, the hypervisor has %" PRIu64,
                 finding.wanted, finding.found);
        loam_plan_add_check(draft, &finding);
    }
    return LOAM_OK;
}
