// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Backing: host memory behind a contiguous range of frames.
 *
 * A backing is one mapping, guarded by inaccessible pages on both sides, whose HVA is congruent with the GPA it backs
 * modulo its page size, so that KVM can map its huge pages huge. Shared memory is a memfd, never a private mapping of a
 * file. A call that fails leaves nothing behind: no mapping, no descriptor, no page.
 *
 * Threads: calls on different backings are independent. On one, populate and release of different ranges and info may come
 * from any thread; destroy wants it to itself. Any thread may destroy what another created.
 *
 * The HVA stays the same from create to destroy, which unmaps it: whoever reads, writes or maps it on (a hypervisor's
 * slot, a region of a GPA map, a view's HVA) has to have ended before. The descriptor is closed then; one that was sent
 * to another process, or duplicated, keeps the memory alive for that process.
 *
 * NULL where an object or an output is wanted is LOAM_ERROR_INVALID.
 */
#ifndef LOAM_BACKING_H
#define LOAM_BACKING_H

#include "loam/error.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Opaque. */
struct loam_backing;

/** What kind of pages memory is made of. */
enum loam_pages {
    LOAM_PAGES_AUTO, /**< the largest of those below, in this order, that the host can give */
    LOAM_PAGES_1G,   /**< hugetlb, from the host's pool of 1 GiB pages */
    LOAM_PAGES_2M,   /**< hugetlb, from the host's pool of 2 MiB pages */
    LOAM_PAGES_THP,  /**< 4 KiB pages that the kernel is asked to join into transparent huge pages */
    LOAM_PAGES_4K,
    LOAM_PAGES_COUNT
};

/** "auto", "1G", "2M", "thp", "4K"; "unknown" otherwise. */
const char *loam_pages_name(enum loam_pages pages);

/** Bytes of one page of the pool for 1G and 2M; 4096 for 4K; 2 MiB for THP, whose mappings are aligned for it; 0 for
 * AUTO. */
uint64_t loam_pages_bytes(enum loam_pages pages);

/** Whether another process can be given the memory. */
enum loam_sharing {
    LOAM_SHARING_ANY, /**< a memfd where the kernel backs it as asked, otherwise private */
    LOAM_SHARING_SHARED,
    LOAM_SHARING_PRIVATE, /**< anonymous: no descriptor */
    LOAM_SHARING_COUNT
};

/** When the host's memory is taken. */
enum loam_commit {
    /**
     * Memory cannot run short later: hugetlb pages are reserved in the pool, other pages are populated. A reservation
     * knows neither the nodes of LOAM_PLACEMENT_STRICT nor the limit of a control group that charges hugepages when they are touched
     * (hugetlb.2MB.max, version 1's limit_in_bytes): where there is one of these, hugetlb pages are populated too. What
     * such a limit takes back when it is lowered later is beyond this library.
     */
    LOAM_COMMIT_RESERVE,
    LOAM_COMMIT_POPULATE, /**< every page is there when the call returns */
    /** 4 KiB pages and THP are left to be found on first touch: the host may run out then. Hugetlb pages: as RESERVE. */
    LOAM_COMMIT_LAZY,
    LOAM_COMMIT_COUNT
};

/** Which of the host's NUMA nodes the memory comes from. */
enum loam_placement {
    LOAM_PLACEMENT_ANY,       /**< as the policy of the thread and the kernel have it */
    LOAM_PLACEMENT_STRICT,    /**< from the nodes named, and from no others */
    LOAM_PLACEMENT_PREFERRED, /**< from the one node named, and from others once it has no more */
    LOAM_PLACEMENT_INTERLEAVE, /**< from the nodes named, page by page in turn, and from others where they have no more */
    LOAM_PLACEMENT_COUNT
};

/** "any", "strict", "preferred", "interleave"; "unknown" otherwise. */
const char *loam_placement_name(enum loam_placement placement);

/** Nodes that can be named: 0 to 63. */
#define LOAM_NODE_COUNT_MAX 64

/** Most workers that a request may name. */
#define LOAM_BACKING_THREAD_MAX 256

/** Longest name, without its end: what the kernel allows a memfd. */
#define LOAM_BACKING_NAME_BYTES_MAX 249

/** Whose the memory is. */
enum loam_adoption {
    LOAM_ADOPTION_NONE, /**< the backing's: made, and given back */
    /**
     * What is in a file from fd_offset on: another process's memfd, a file, a guest_memfd where it can be mapped. It is
     * mapped shared by a descriptor of the backing's own, so fd may be closed at once; the file is its owner's. Who may
     * shrink it can end this process with SIGBUS: take it from whom you trust, or with F_SEAL_SHRINK.
     */
    LOAM_ADOPTION_FD,
    LOAM_ADOPTION_MAPPING, /**< what is mapped at hva, readable and writable: it stays mapped, and its owner's */
    LOAM_ADOPTION_COUNT
};

/**
 * How a caller ends a long call early. asked is called on the thread that made the call, and on no other, before the
 * first page is touched and then between pieces of at most 2 MiB or one page: each takes about a millisecond, and one
 * of 1 GiB 0.1 to 0.3 s, which nothing shortens, since the kernel clears a page in one go. Once it has answered true the
 * workers finish their pieces, everything is given back, and the call fails with LOAM_ERROR_CANCELLED. The kernel takes
 * about a third of the processor time in which 4 KiB pages were populated to take them back, and next to none for larger ones. It
 * may look at a flag, a clock or a descriptor; it must not call Loam on what is being made.
 */
struct loam_cancel {
    bool (*asked)(void *self); /**< NULL: never */
    void *self;
};

/**
 * What is wanted. Everything but bytes may stay zero, which is the ordinary request; a member that would have no effect
 * beside the others is refused.
 */
struct loam_backing_request {
    uint64_t bytes; /**< a multiple of the page kind's bytes; of 4 KiB for THP */
    /**
     * What it will back; a multiple of 4 KiB, of the page for hugetlb. Its HVA is congruent modulo the page's bytes;
     * for THP and 4 KiB pages modulo 2 MiB from 2 MiB up, and modulo 4 KiB below.
     */
    loam_gpa gpa;
    enum loam_pages pages; /**< AUTO: kinds whose bytes divide both bytes and gpa are tried, from the largest down */
    enum loam_sharing sharing;
    enum loam_commit commit;
    enum loam_placement placement;
    uint64_t node_mask; /**< bit n: node n; 0 with ANY, one bit with PREFERRED, one at least with the others */
    bool lock;          /**< mlock: never swapped, and populated; contradicts LOAM_COMMIT_LAZY */
    /**
     * Children of fork(2) do not have the memory: what they would share, or copy page by page as either side writes, is
     * not theirs, and fork is as fast as without it. Any access of theirs to it ends in SIGSEGV; they may ask and destroy.
     */
    bool keep_from_children;
    bool keep_from_dumps;  /**< left out of core dumps, which then hold none of the guest's secrets and are small */
    uint32_t thread_count; /**< workers that populate; 0: one a processor, at most one for each 64 MiB */
    const char *name;      /**< of the memfd, for /proc; copied; NULL: "loam"; contradicts LOAM_SHARING_PRIVATE */
    /**
     * Memory that is there already, with its contents. Of a file, pages AUTO is what it is made of, commit and the
     * rest count as always, but for name and a private sharing. Of a mapping, pages AUTO is 4K, gpa and hva are
     * congruent modulo a hugetlb page, and whatever else would change it is refused; cancel has nothing to end.
     */
    enum loam_adoption adoption;
    int fd;                    /**< with LOAM_ADOPTION_FD, else 0; open for reading and writing */
    uint64_t fd_offset;        /**< with LOAM_ADOPTION_FD: a multiple of 4 KiB, or of the hugetlb page */
    void *hva;                 /**< with LOAM_ADOPTION_MAPPING: of all bytes; a multiple of the page */
    struct loam_cancel cancel; /**< looked at while the call lasts, and never after it */
};

/** What was got. */
struct loam_backing_info {
    void *hva;
    uint64_t bytes;
    loam_gpa gpa;
    enum loam_pages pages;     /**< never AUTO */
    enum loam_sharing sharing; /**< never ANY */
    enum loam_commit commit;
    uint64_t page_bytes; /**< loam_pages_bytes(pages) */
    enum loam_placement placement;
    uint64_t node_mask; /**< as requested */
    int fd;             /**< of the memfd or the file, owned by the backing; -1 when private, or a mapping */
    uint64_t fd_offset; /**< of hva in it; not 0 only of a file that was adopted */
    enum loam_adoption adoption;
    bool populated; /**< every page is there */
    bool locked;
};

/**
 * Map memory as requested. *backing is NULL on failure. Every page reads as zero, if it is not adopted.
 * LOAM_ERROR_INVALID: a member is out of its range or has no effect, bytes or gpa is no multiple of the page, or a node
 * is not there.
 * LOAM_ERROR_EXHAUSTED: the pool, the node, the host's memory, the commit limit, a control group or a limit of this
 * process has too little, or the host gives no pages of that kind (no such pool; THP switched off).
 * LOAM_ERROR_CANCELLED: cancel said so. LOAM_ERROR_SYSTEM: a call failed otherwise. With AUTO, the error is that of the
 * last kind tried. diag names the call, the bytes and the kind, and the limit that is short where one is found; when
 * several workers fail, the first address and how many failed.
 */
LOAM_MUST_USE enum loam_error loam_backing_create(const struct loam_backing_request *request,
                                                  struct loam_backing **backing, struct loam_diag *diag);

/**
 * Unmap and close; every page goes back to the host. NULL is allowed. In a child of fork(2) it is the child's own mapping
 * and descriptor that go: the parent's stay.
 */
void loam_backing_destroy(struct loam_backing *backing);

/** Of NULL: all zero, but for fd (-1). */
struct loam_backing_info loam_backing_get_info(const struct loam_backing *backing);

/**
 * Populate [offset, offset + bytes) of the backing with its workers; contents stay. Both are multiples of page_bytes
 * (THP: of 4 KiB), bytes is not 0. All parts are tried even if some fail. It cannot be cancelled: who wants that asks
 * for small ranges. LOAM_ERROR_INVALID: range.
 * LOAM_ERROR_EXHAUSTED, LOAM_ERROR_SYSTEM: diag says where and how many parts failed.
 */
LOAM_MUST_USE enum loam_error loam_backing_populate(struct loam_backing *backing, uint64_t offset_bytes, uint64_t bytes,
                                                    struct loam_diag *diag);

/**
 * Give the memory of [offset, offset + bytes) back to the host, while guests run; it reads as zero, and takes memory anew
 * when it is touched or populated: which may fail then, also for hugetlb pages, whose reservation goes with them. Multiples
 * as for populate. LOAM_ERROR_INVALID: range; locked memory is not given back. LOAM_ERROR_SYSTEM: a call failed (hugetlb
 * pages in private memory want Linux 5.18).
 */
LOAM_MUST_USE enum loam_error loam_backing_release(struct loam_backing *backing, uint64_t offset_bytes, uint64_t bytes,
                                                   struct loam_diag *diag);

#ifdef __cplusplus
}
#endif

#endif
