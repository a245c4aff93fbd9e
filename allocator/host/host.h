// SPDX-License-Identifier: Apache-2.0
/*
 * The host's figures: pools of hugepages, NUMA nodes, free memory, what KVM keeps for a guest. The one reader of them,
 * for the plan, which says beforehand, and for backing, which says why the kernel refused.
 *
 * Everything is read from /proc and /sys at the call, and nothing is kept. What a file says is checked before it is
 * used: a figure that is none is LOAM_ERROR_SYSTEM with EBADMSG, and diag names the file. A file that is not there is
 * no error where its absence has a meaning, which each function states.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_HOST_H
#define LOAM_HOST_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* /sys/kernel/mm/hugepages/hugepages-NkB, for pages of page_bytes. present false: this kernel has no such pages; the
 * rest is 0. */
struct loam_host_pool {
    bool present;
    uint64_t total_pages;   /* surplus ones included */
    uint64_t free_pages;    /* not in use, and not promised to a mapping */
    uint64_t surplus_pages; /* that the kernel may still add beyond the pool, out of ordinary memory */
};
LOAM_MUST_USE enum loam_error loam_host_pool(uint64_t page_bytes, struct loam_host_pool *pool, struct loam_diag *diag);

/* The folder of a pool, without a slash at its end; of the host's, or of a node's part of it. */
#define LOAM_HOST_POOL_PATH_MAX 128u
void loam_host_pool_path(uint64_t page_bytes, char path[LOAM_HOST_POOL_PATH_MAX]);
void loam_host_node_pool_path(uint32_t node, uint64_t page_bytes, char path[LOAM_HOST_POOL_PATH_MAX]);

/*
 * One NUMA node. free_bytes: free or filled with files that can be dropped. The pages are those of its
 * part of a pool: page_bytes 0: none is looked at. A part has no figure for promises, which the kernel makes for the
 * host as a whole. present false: there is no such node; the rest is 0.
 */
struct loam_host_node {
    bool present;
    uint64_t free_bytes;
    uint64_t total_pages;
    uint64_t free_pages;
};
LOAM_MUST_USE enum loam_error loam_host_node(uint32_t node, uint64_t page_bytes, struct loam_host_node *found,
                                             struct loam_diag *diag);

/*
 * What several nodes have free together; bit n of node_mask: node n. total_pages is that of the lowest of them, whose part
 * of the pool may be told to be raised. present false: one is not there; the rest is 0.
 */
LOAM_MUST_USE enum loam_error loam_host_nodes(uint64_t node_mask, uint64_t page_bytes, struct loam_host_node *found,
                                              struct loam_diag *diag);

/* "node 1", "nodes 0-1,3"; "nodes of mask 0x5555" where the list would be long. */
struct loam_host_nodes_name {
    char text[40];
};
struct loam_host_nodes_name loam_host_nodes_name(uint64_t node_mask);

/*
 * Bytes that the host can give without swapping: MemAvailable, and with strict accounting (overcommit_memory 2) at
 * most what is left of the commit limit.
 */
LOAM_MUST_USE enum loam_error loam_host_available(uint64_t *bytes, struct loam_diag *diag);

/* Bytes of swap that are free. */
LOAM_MUST_USE enum loam_error loam_host_swap(uint64_t *bytes, struct loam_diag *diag);

#define LOAM_HOST_THP_PRIVATE "/sys/kernel/mm/transparent_hugepage/enabled"
#define LOAM_HOST_THP_SHARED  "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

/* Whether the kernel gives transparent huge pages to a mapping that asks: private memory, or memory in a memfd. */
LOAM_MUST_USE enum loam_error loam_host_thp(bool shared, bool *given, struct loam_diag *diag);

/*
 * Whether KVM lets the processor walk a second set of page tables (EPT, NPT): then it keeps one table entry a page, else
 * it shadows the guest's own tables and keeps an index of every page. False also where that cannot be read.
 */
LOAM_MUST_USE enum loam_error loam_host_kvm_walks(bool *walks, struct loam_diag *diag);

#endif
