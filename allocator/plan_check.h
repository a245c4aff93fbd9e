// SPDX-License-Identifier: Apache-2.0
/*
 * A plan that is being made, and the checks that hold it against the host, one a resource.
 *
 * Private to plan*.c. Threads: any; a draft belongs to its caller.
 */
#ifndef LOAM_PLAN_CHECK_H
#define LOAM_PLAN_CHECK_H

#include "allocator/host/host_cgroup.h"
#include "loam/error.h"
#include "loam/plan.h"

#include <stdbool.h>
#include <stdint.h>

struct loam_plan_draft {
    struct loam_plan *plan;
    enum loam_pages kinds[LOAM_MEMORY_PART_MAX]; /* of the request's parts; AUTO: not chosen yet */
    uint64_t reserve_bytes;                      /* dma32_reserve_bytes as given */
    uint64_t surplus_bytes;                      /* of hugepages that the kernel adds out of ordinary memory */
    char first_short[160];                       /* the facts of the first check that falls short */
    struct loam_host_cgroups cgroups;            /* as they were when the first check asked */
};

/* What a check says, before it is a line: "RESOURCE: FACTS (PARTS): MEND", the last only when it falls short. */
struct loam_plan_finding {
    enum loam_plan_resource resource;
    uint64_t wanted;
    uint64_t found;
    uint64_t unit_bytes;
    char facts[160];
    char parts[192]; /* what wanted is the sum of; empty: not said */
    char mend[208];
};

/* Make the finding the plan's next check. */
void loam_plan_add_check(struct loam_plan_draft *draft, const struct loam_plan_finding *finding);

/* Whether such pages come from a pool. */
bool loam_plan_is_hugetlb(enum loam_pages pages);

/* What the request says of the part. */
const struct loam_backing_request *loam_plan_asked(const struct loam_plan *plan, const struct loam_plan_part *part);

/* Whether it is memory that the caller brings: nothing is taken for it. */
bool loam_plan_is_adopted(const struct loam_plan *plan, const struct loam_plan_part *part);

/* Whether a part is left to be found on first touch. */
bool loam_plan_is_lazy(const struct loam_plan *plan, const struct loam_plan_part *part);

/*
 * Whether a part will be a memfd, as backing chooses: shared where it may be. LOAM_ERROR_SYSTEM: the host's switches for
 * transparent huge pages could not be read.
 */
LOAM_MUST_USE enum loam_error loam_plan_is_file(const struct loam_plan *plan, const struct loam_plan_part *part,
                                                bool *is_file, struct loam_diag *diag);

/* The bytes of all parts for which is_of is true, but for adopted ones. */
uint64_t loam_plan_bytes_of(const struct loam_plan *plan,
                            bool (*is_of)(const struct loam_plan *plan, const struct loam_plan_part *part));

/*
 * The checks. Each adds its findings, where the plan takes anything of its resource or the resource is limited: one at
 * most, but pool and node one for each kind of page and set of nodes, and cgroup one for each size of hugepages.
 * LOAM_ERROR_SYSTEM: a figure could not be read.
 */
typedef enum loam_error loam_plan_check_fn(struct loam_plan_draft *draft, struct loam_diag *diag);

loam_plan_check_fn loam_plan_check_pool, loam_plan_check_node;
/* Sets table_bytes and own_bytes, which the checks after it count. */
loam_plan_check_fn loam_plan_check_available;
/* Sets charged_at_touch and populates. */
loam_plan_check_fn loam_plan_check_cgroup;
loam_plan_check_fn loam_plan_check_memlock, loam_plan_check_file_size, loam_plan_check_address_space,
    loam_plan_check_data_size, loam_plan_check_threads, loam_plan_check_vcpus, loam_plan_check_slots;

#endif
