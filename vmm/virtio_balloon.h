// SPDX-License-Identifier: Apache-2.0
/*
 * The memory balloon (virtio 1.2, section 5.5) on a virtio-mmio transport: the guest gives memory up, as much as
 * virtio_balloon_set_target wants, or as it comes to be free (VIRTIO_BALLOON_F_REPORTING), and the host has it back.
 *
 * What is given back, by the kernel's madvise(2): pages of 4 KiB, of backings of LOAM_PAGES_4K and LOAM_PAGES_THP, shared or
 * private. It reads as zero from then on, and takes memory of the host anew when the guest touches it, after it has taken it
 * out of the balloon or at any time before: deflating is nothing that the host does. The memory was the guest's for certain
 * until then (LOAM_COMMIT_RESERVE), and is not any more: a host that has run out by that time ends what its kernel chooses.
 *
 * What is not given back, and stays where it is with its contents, while the guest may count it as in the balloon all
 * the same; struct virtio_balloon_stats counts it as kept:
 *   - hugetlb pages (LOAM_PAGES_2M, LOAM_PAGES_1G): 4 KiB of one cannot be given back, and a whole one would lose its
 *     reservation in the pool; with none left there the guest's next touch would be SIGBUS;
 *   - locked memory, this process's by mlockall(2) too: it was asked to stay;
 *   - adopted memory: it is its owner's. Memory of a memfd of Loam's own that others map, too, goes for all of them;
 *   - buffers of the DMA ledger that are pinned when the guest names them: a device may be writing to them;
 *   - everything that is not RAM which the guest may write: device memory, holes, reserved and read-only regions.
 *
 * So a guest can lose contents of its own memory, which it could overwrite as well, and nothing else. Whoever writes the
 * guest's memory down or moves it elsewhere holds the balloon meanwhile (virtio_balloon_quiesce): what is given back is seen
 * by no log of dirty pages.
 *
 * Free pages are reported in queue 4, as the specification has it, or in queue 2 or 3, as drivers have it that number only
 * those queues that are there. Statistics, hints of free pages and poison values are not offered.
 *
 * Threads: giving back is done on a thread of the device's own (virtio_worker.h). virtio_balloon_set_target, _actual,
 * _get_stats, _quiesce and _resume from any that holds no lock; the rest as the transport's. Init and destroy want the device
 * to themselves.
 */
#ifndef LOAM_VMM_VIRTIO_BALLOON_H
#define LOAM_VMM_VIRTIO_BALLOON_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/irq.h"
#include "vmm/virtio_mmio.h"
#include "vmm/virtio_worker.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_BALLOON_DEVICE_ID      5u
#define VIRTIO_BALLOON_QUEUE_SIZE_MAX 128u
#define VIRTIO_BALLOON_PAGE_SHIFT     12u /* whatever the guest's own pages are */
#define VIRTIO_BALLOON_PAGE_BYTES     (UINT64_C(1) << VIRTIO_BALLOON_PAGE_SHIFT)
#define VIRTIO_BALLOON_CHAIN_PAGES    4096u /* inflated by one chain: what it names beyond is kept */

#define VIRTIO_BALLOON_F_DEFLATE_ON_OOM (UINT64_C(1) << 2)
#define VIRTIO_BALLOON_F_REPORTING      (UINT64_C(1) << 5)

enum virtio_balloon_queue {
    VIRTIO_BALLOON_INFLATE,
    VIRTIO_BALLOON_DEFLATE,
    VIRTIO_BALLOON_REPORT_FIRST,
    VIRTIO_BALLOON_QUEUE_COUNT = 5 /* all from VIRTIO_BALLOON_REPORT_FIRST on are for reports */
};

/* Section 5.5.4. */
struct virtio_balloon_layout {
    uint32_t num_pages; /* the target */
    uint32_t actual;    /* the driver's */
};

static_assert(sizeof(struct virtio_balloon_layout) == 8, "section 5.5.4");

struct virtio_balloon_config {
    struct loam_memory *memory; /* the guest's; outlives the balloon */
    bool deflate_on_oom;        /* the guest may take pages out of the balloon rather than fail */
    bool reporting;             /* the guest tells of free pages by itself */
    /*
     * The guest has changed how much is in the balloon; a reset, after which nothing is, too. Called with the transport
     * locked: it does not wait, and calls nothing of the balloon. NULL: nobody wants to know.
     */
    void (*changed)(void *self, uint32_t actual_pages);
    void *self;
};

/* In pages of VIRTIO_BALLOON_PAGE_BYTES, each as often as the guest named it. */
struct virtio_balloon_stats {
    uint64_t inflated_pages; /* named in the inflate queue */
    uint64_t deflated_pages; /* named in the deflate queue */
    uint64_t reported_pages; /* whole ones in reported buffers */
    uint64_t given_pages;    /* of the first and the third: given back to the host */
    uint64_t kept_pages;     /* of the first and the third: not */
};

struct virtio_balloon {
    struct virtio_mmio mmio; /* for the bus: virtio_mmio_access, &balloon->mmio, VIRTIO_MMIO_BYTES */
    struct virtio_worker worker;
    struct virtio_balloon_config config;
    struct virtio_balloon_layout layout; /* this and what follows: under the transport's lock */
    struct virtio_balloon_stats stats;
};

/* LOAM_ERROR_INVALID: no memory. LOAM_ERROR_SYSTEM: no thread. There is nothing to destroy then. */
LOAM_MUST_USE enum loam_error virtio_balloon_init(struct virtio_balloon *balloon, struct irq_line irq,
                                                  const struct virtio_balloon_config *config, struct loam_diag *diag);

/* As virtio_worker_end: false: balloon and memory stay where they are for good. */
bool virtio_balloon_destroy(struct virtio_balloon *balloon);

/* Want so many pages in the balloon; the driver is told, and does what it can. It stays wanted over resets. */
void virtio_balloon_set_target(struct virtio_balloon *balloon, uint32_t pages);

/* How many pages the guest says there are in the balloon. */
uint32_t virtio_balloon_actual(struct virtio_balloon *balloon);

void virtio_balloon_get_stats(struct virtio_balloon *balloon, struct virtio_balloon_stats *stats);

/* As virtio_blk_quiesce: nothing is given back until virtio_balloon_resume, which does what was rung meanwhile. */
void virtio_balloon_quiesce(struct virtio_balloon *balloon);
void virtio_balloon_resume(struct virtio_balloon *balloon);

/*
 * Written down at transport index, and read again: state.h. It serves nothing meanwhile, and no vCPU runs; loading is for one that
 * was just made. Errors as virtio_mmio_load.
 */
void virtio_balloon_save(struct virtio_balloon *balloon, struct state_writer *writer, uint32_t index);
LOAM_MUST_USE enum loam_error virtio_balloon_load(struct virtio_balloon *balloon, struct state_reader *reader,
                                                  uint32_t index, struct loam_diag *diag);

#endif
