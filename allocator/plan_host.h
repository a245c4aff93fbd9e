// SPDX-License-Identifier: Apache-2.0
/*
 * The host's figures, as the plan needs them: pools of hugepages, NUMA nodes, free memory, locks.
 *
 * Everything is read from /proc and /sys at the call, and nothing is kept. What a file says is checked before it is
 * used: a figure that is none is LOAM_ERROR_SYSTEM with EBADMSG, and diag names the file. A file that is not there is
 * no error where its absence has a meaning, which each function states.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_PLAN_HOST_H
#define LOAM_PLAN_HOST_H

#include "loam/backing.h"
#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* /sys/kernel/mm/hugepages/hugepages-NkB. pages is 1G or 2M. present false: this kernel has no such pages; the rest is
 * 0. */
struct loam_plan_host_pool {
    bool present;
    uint64_t total_pages;   /* surplus ones included */
    uint64_t free_pages;    /* not in use, and not promised to a mapping */
    uint64_t surplus_pages; /* that the kernel may still add beyond the pool, out of ordinary memory */
};
LOAM_MUST_USE enum loam_error loam_plan_host_pool(enum loam_pages pages, struct loam_plan_host_pool *pool,
                                                  struct loam_diag *diag);

/* The folder of a pool, without a slash at its end. */
const char *loam_plan_host_pool_path(enum loam_pages pages);

/*
 * One NUMA node. free_bytes: free or filled with files that can be dropped. The pages are those of pool 1G or 2M, 0 for
 * other kinds. present false: there is no such node; the rest is 0.
 */
struct loam_plan_host_node {
    bool present;
    uint64_t free_bytes;
    uint64_t total_pages;
    uint64_t free_pages;
};
LOAM_MUST_USE enum loam_error loam_plan_host_node(uint32_t node, enum loam_pages pages,
                                                  struct loam_plan_host_node *found, struct loam_diag *diag);

/* The folder of a pool's part on a node. */
void loam_plan_host_node_path(uint32_t node, enum loam_pages pages, char *path, size_t bytes);

/*
 * Bytes that the host can give without swapping: MemAvailable, and with strict accounting (overcommit_memory 2) at
 * most what is left of the commit limit.
 */
LOAM_MUST_USE enum loam_error loam_plan_host_available(uint64_t *bytes, struct loam_diag *diag);

/* Whether the kernel gives transparent huge pages to a mapping that asks: private memory, or memory in a memfd. */
LOAM_MUST_USE enum loam_error loam_plan_host_thp(bool shared, bool *given, struct loam_diag *diag);

/* RLIMIT_MEMLOCK (UINT64_MAX: none), and what this process has locked already. */
LOAM_MUST_USE enum loam_error loam_plan_host_memlock(uint64_t *limit_bytes, uint64_t *locked_bytes,
                                                     struct loam_diag *diag);

#endif
