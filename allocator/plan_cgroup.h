// SPDX-License-Identifier: Apache-2.0
/*
 * The limits that control groups set on this process: its own group's and those above, in version 1 and version 2,
 * which a host can have at once (cgroups(7); Linux: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst,
 * hugetlb.rst).
 *
 * Groups are found through /proc/self/cgroup and /proc/self/mountinfo. A file that is not there sets no limit.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_PLAN_CGROUP_H
#define LOAM_PLAN_CGROUP_H

#include "loam/error.h"

#include <stdbool.h>
#include <stdint.h>

#define LOAM_PLAN_CGROUP_PATH_MAX 4096

enum loam_plan_cgroup_controller {
    LOAM_PLAN_CGROUP_MEMORY,
    LOAM_PLAN_CGROUP_HUGETLB_2M,
    LOAM_PLAN_CGROUP_HUGETLB_1G,
};

/* The tightest limit on this process, of its own control group or of one above, in version 1 and 2 alike. */
struct loam_plan_cgroup_limit {
    uint64_t room_bytes;  /* UINT64_MAX: no limit */
    uint64_t limit_bytes; /* where there is one */
    bool counts_hugetlb;  /* hugetlb pages are charged as memory too (cgroup2 mounted with memory_hugetlb_accounting) */
    char path[LOAM_PLAN_CGROUP_PATH_MAX]; /* the file that sets it; empty without one */
};
LOAM_MUST_USE enum loam_error loam_plan_cgroup_limit(enum loam_plan_cgroup_controller controller,
                                                     struct loam_plan_cgroup_limit *limit, struct loam_diag *diag);

#endif
