// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * The plan: says, before anything is mapped, what a guest's memory will take from the host and what falls short.
 *
 * A plan is a value: the request, the layout of the guest's address space, and for each host resource what is wanted
 * and what was found. It reads /proc and /sys, and changes nothing. loam_memory_create then does exactly what it says.
 *
 * Threads: any; a plan belongs to its caller.
 */
#ifndef LOAM_PLAN_H
#define LOAM_PLAN_H

#include "loam/backing.h"
#include "loam/error.h"
#include "loam/gpa_map.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** x86-64: RAM ends here at the latest, and goes on at 4 GiB; between them devices have their addresses. */
#define LOAM_LOW_LIMIT_MAX_BYTES 3221225472ul /**< 3 GiB */

/**
 * The legacy window of the PC, 640 KiB to 1 MiB: memory is there, but the E820 map gives it as reserved.
 * @{
 */
#define LOAM_LEGACY_START_BYTES 655360ul
#define LOAM_LEGACY_END_BYTES   1048576ul
/** @} */

/** Most parts that a request may name. */
#define LOAM_MEMORY_PART_MAX 8

/**
 * What a guest's memory shall be. Everything but bytes may stay zero, which is the ordinary request; a member that
 * would have no effect beside the others is refused.
 *
 * Memory of several kinds is a list of parts. Each is at least 2 MiB and a multiple of its page (THP: of 4 KiB); of its
 * members bytes, pages, sharing, commit, placement, node_mask, lock, name and those of an adoption say what it is, and the
 * others are zero: they are the request's, or the layout's. Of an adopted file, what it has not taken from the host yet is
 * not counted. With parts, these members of the request itself are zero, but for bytes, which
 * may be their sum.
 *
 * The layout takes the parts by their page, the largest first, and otherwise in their order. Each fills what is left below
 * the hole in whole pages of its kind, and the rest of it goes on from 4 GiB up: so each page stays whole, and lies where
 * the processor can map it as one.
 */
struct loam_memory_request {
    uint64_t bytes;           /**< RAM, a multiple of 4 KiB; at least 2 MiB */
    uint64_t low_limit_bytes; /**< RAM below the hole at most; a multiple of 4 KiB from 2 MiB to 3 GiB; 0: 3 GiB */
    /** AUTO: the largest kind that fits the layout and the host, for the parts in their order, and for all of a part. */
    enum loam_pages pages;
    enum loam_sharing sharing;
    enum loam_commit commit;
    enum loam_placement placement;                           /**< as loam_backing_request */
    uint64_t node_mask;                                      /**< as loam_backing_request */
    bool lock;                                               /**< mlock everything; contradicts LOAM_COMMIT_LAZY */
    uint32_t part_count;                                     /**< 0: the members above are the only part */
    struct loam_backing_request parts[LOAM_MEMORY_PART_MAX]; /**< a name has to stay until the memory is created */
    bool keep_from_children;                                 /**< as loam_backing_request */
    bool keep_from_dumps;                                    /**< as loam_backing_request */
    uint32_t thread_count;                                   /**< as loam_backing_request */
    /**
     * Kept below 4 GiB for requests with a limit: a multiple of 4 KiB, at most the RAM there; UINT64_MAX: none; 0: 1/16
     * of that RAM, at most 16 MiB.
     */
    uint64_t dma32_reserve_bytes;
    uint32_t slot_limit;    /**< memory slots that the hypervisor offers (KVM_CAP_NR_MEMSLOTS); 0: not checked */
    uint32_t extra_slots;   /**< to keep for the caller beyond those of the RAM, where the limit is known */
    uint32_t vcpu_limit;    /**< vCPUs that the hypervisor gives one machine (KVM_CAP_MAX_VCPUS); 0: not checked */
    uint32_t vcpu_count;    /**< that the caller will make, where the limit is known; their threads are extra_threads */
    uint32_t extra_threads; /**< that the caller, and the hypervisor for it, will start after creation */
    uint64_t extra_bytes;   /**< host memory that the caller will take for itself after the plan is made */
    uint32_t block_capacity;   /**< blocks that can be plugged at once (loam/memory.h), at most 65,000; 0: 1,000 */
    uint32_t region_capacity;  /**< rows of the GPA map, at most 2^20; 0: block_capacity + 100 */
    uint32_t table_capacity;   /**< as loam_gpa_map_config: views held at once, and 2; 0: 66, for 64 readers */
    uint32_t cache_capacity;   /**< as loam_frame_config: threads with a cache of frames; 0: 128 */
    struct loam_cancel cancel; /**< ends loam_plan_make and loam_memory_create early: loam/backing.h */
};

/** What a host can be short of. */
enum loam_plan_resource {
    LOAM_PLAN_POOL,      /**< the host's pool of hugepages; with THP only where the kernel gives none */
    LOAM_PLAN_NODE,      /**< some NUMA nodes' part of it, or their free memory; of others, that they are there */
    LOAM_PLAN_AVAILABLE, /**< memory that the host can give without swapping */
    LOAM_PLAN_CGROUP,    /**< the memory or hugetlb limit of this process's control group, or of one above it */
    LOAM_PLAN_MEMLOCK,   /**< RLIMIT_MEMLOCK */
    /* Those from here to THREADS are checked only where this process has such a limit. */
    LOAM_PLAN_FILE_SIZE,     /**< RLIMIT_FSIZE: shared memory is a file */
    LOAM_PLAN_ADDRESS_SPACE, /**< RLIMIT_AS */
    LOAM_PLAN_DATA_SIZE,     /**< RLIMIT_DATA: private memory, heap */
    LOAM_PLAN_THREADS,       /**< RLIMIT_NPROC, or pids.max of a control group: whichever leaves less */
    LOAM_PLAN_VCPUS,         /**< vCPUs */
    LOAM_PLAN_SLOTS,         /**< memory slots */
    LOAM_PLAN_RESOURCE_COUNT
};

/** "pool", "node", "available", "cgroup", "memlock", "file size", "address space", "data size", "threads", "vcpus",
 * "slots". */
const char *loam_plan_resource_name(enum loam_plan_resource resource);

/** One resource: what the plan takes, and what there is. */
struct loam_plan_check {
    enum loam_plan_resource resource;
    uint64_t wanted;     /**< in unit_bytes */
    uint64_t found;      /**< in unit_bytes; UINT64_MAX: no limit */
    uint64_t unit_bytes; /**< a page of the pool; 1 for bytes, threads, vCPUs and slots */
    bool short_fall;     /**< wanted > found */
    char text[576]; /**< one line: what is wanted, what was found and, when it falls short, the command that mends it */
};

/** Most checks of a plan: of pools, nodes and control groups there may be one for each kind of page or part. */
#define LOAM_PLAN_CHECK_MAX 32

/** Most placed parts: each part of the request may lie on both sides of the hole. */
#define LOAM_PLAN_PART_MAX 16

/** A placed part: a contiguous range of RAM with one backing. */
struct loam_plan_part {
    loam_gpa start;
    uint64_t bytes;
    uint32_t asked;        /**< index of the request's part that it is of */
    uint64_t asked_offset; /**< where in that it starts, in bytes */
    enum loam_pages pages; /**< the kind chosen; never AUTO */
    uint64_t page_bytes;
    uint64_t page_count;
    bool populates;        /**< every page of it will be there when creation returns */
    bool charged_at_touch; /**< by a control group that limits hugepages: that is why populates, whatever was asked */
};

/** What a guest's memory will be and take. A value of 22 KiB: copy it freely; nothing is owned, a part's name is its caller's. */
struct loam_plan {
    /**
     * As given, its zeros replaced by what they mean: bytes is the sum, and parts has one at least, which is where the
     * members of an ordinary request are then, and no more in the request itself.
     */
    struct loam_memory_request request;
    enum loam_pages pages;       /**< the kind chosen for all parts; AUTO: they differ, see parts */
    uint64_t page_bytes;         /**< of the largest kind */
    uint64_t backing_page_count; /**< pages of all kinds, over all parts */
    uint32_t part_count;
    struct loam_plan_part parts[LOAM_PLAN_PART_MAX]; /**< by address; those below the hole without a gap from 0 on */
    loam_gpa hole_start;                             /**< RAM ends here; no memory in [hole_start, 4 GiB) */
    uint64_t metadata_bytes; /**< host memory for the metadata of allocator and map, of which 4 tables count */
    uint64_t table_bytes;    /**< for page tables, at most: the host's, KVM's, and a memfd's index of its pages */
    uint64_t own_bytes;    /**< for the process: extra_bytes, and what the kernel keeps for a machine and its threads */
    bool populates;        /**< every page of every part will be there when creation returns */
    bool charged_at_touch; /**< some part is */
    uint32_t check_count;
    struct loam_plan_check checks[LOAM_PLAN_CHECK_MAX]; /**< a resource may be there more than once */
    uint32_t short_count;                               /**< checks that fall short; 0: the plan can be carried out */
    char passed_over[320]; /**< with AUTO: why the larger kinds were not taken; else empty */
};

/**
 * Make a plan. LOAM_OK also when resources fall short: see short_count. *plan is zero on failure.
 * LOAM_ERROR_INVALID: the request contradicts itself or the page kind, or a member has no effect; diag says what to
 * change.
 * LOAM_ERROR_SYSTEM: the host's figures could not be read.
 */
LOAM_MUST_USE enum loam_error loam_plan_make(const struct loam_memory_request *request, struct loam_plan *plan,
                                             struct loam_diag *diag);

/** The first check that falls short, or NULL. */
const struct loam_plan_check *loam_plan_shortfall(const struct loam_plan *plan);

/** Most regions a plan's RAM is cut into: the parts, the first of which the legacy window cuts in three. */
#define LOAM_PLAN_REGION_MAX (LOAM_PLAN_PART_MAX + 2)

/**
 * The regions of the GPA map before anything is protected; hva NULL and backing 1 + the part's index, for 0 is no
 * backing of the plan's. Returns how many.
 */
uint32_t loam_plan_regions(const struct loam_plan *plan, struct loam_region regions[LOAM_PLAN_REGION_MAX]);

#ifdef __cplusplus
}
#endif

#endif
