// SPDX-License-Identifier: Apache-2.0
/*
 * The limits that control groups set on this process: its own group's and those above, in version 1 and version 2,
 * which a host can have at once (cgroups(7); Linux: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst,
 * hugetlb.rst, pids.rst).
 *
 * Groups are found through /proc/self/cgroup and /proc/self/mountinfo. A file that is not there sets no limit.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_HOST_CGROUP_H
#define LOAM_HOST_CGROUP_H

#include "loam/error.h"

#include <stdbool.h>
#include <stdint.h>

#define LOAM_HOST_CGROUP_PATH_MAX 4096

enum loam_host_cgroup_resource {
    LOAM_HOST_CGROUP_MEMORY,
    LOAM_HOST_CGROUP_HUGETLB_2M,
    LOAM_HOST_CGROUP_HUGETLB_1G,
    LOAM_HOST_CGROUP_THREADS, /* the controller pids: a thread counts as a process does */
};

/* In which groups this process is, and where groups are mounted, as read once. Starts as {0}. */
struct loam_host_cgroups {
    char *groups, *mounts; /* NULL: not read yet */
};

void loam_host_cgroups_drop(struct loam_host_cgroups *cgroups);

/*
 * The tightest limit on this process, of its own control group or of one above up to the root, in version 1 and 2
 * alike. In bytes; for THREADS in threads. Swap is no room: what a limit on memory makes the kernel swap out is not
 * there. Files that are cached are room, since the kernel drops them first.
 *
 * A limit on hugepages charges at the first touch, or (rsvd) when they are reserved. Pages that are reserved and not
 * touched yet count as used under both: whoever reserved them will touch them.
 */
struct loam_host_cgroup_limit {
    uint64_t room;                        /* UINT64_MAX: no limit */
    uint64_t limit;                       /* where there is one */
    uint64_t used;                        /* of it */
    bool counts_hugetlb;                  /* hugetlb pages are charged as memory too (memory_hugetlb_accounting) */
    bool at_touch;                        /* some limit, tightest or not, charges hugepages when they are touched */
    char path[LOAM_HOST_CGROUP_PATH_MAX]; /* the file that sets it; empty without one */
};

/* *cgroups is read where it was not, and is the caller's to drop, also on failure: several limits are looked up in one. */
LOAM_MUST_USE enum loam_error loam_host_cgroup_limit(struct loam_host_cgroups *cgroups,
                                                     enum loam_host_cgroup_resource resource,
                                                     struct loam_host_cgroup_limit *limit, struct loam_diag *diag);

#endif
