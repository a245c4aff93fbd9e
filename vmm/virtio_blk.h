// SPDX-License-Identifier: Apache-2.0
/*
 * The block device (virtio 1.2, section 5.2) on a virtio-mmio transport: one queue, over a raw file or a block device of
 * the host.
 *
 *     virtio_blk_init -> machine_add_virtio(machine, n, ..., &blk->mmio, ...) -> [the guest runs] -> virtio_blk_destroy
 *
 * Requests are carried out one after the other on a thread of the device's own (virtio_worker.h), straight between the
 * file and the guest's memory, in calls of at most VIRTIO_BLK_CALL_BYTES each. Their layout in descriptors is the driver's
 * affair. What the specification forbids is answered by a status: VIRTIO_BLK_S_IOERR, or VIRTIO_BLK_S_UNSUPP for what is
 * not offered; a chain without room for a status goes back as it came. A file that fails, or has become shorter, is
 * VIRTIO_BLK_S_IOERR too, and so is a write to one that is offered read-only.
 *
 * A write is stable once a flush that was rung after it has been answered. A driver that does not take VIRTIO_BLK_F_FLUSH
 * gets each write stable before it is answered. With no_flush neither happens: for guests whose data nobody wants to keep.
 * The size is looked at once, at the beginning.
 *
 * Threads: virtio_blk_quiesce, virtio_blk_resume and virtio_blk_get_stats from any that holds no lock; the rest as the
 * transport's. Init and destroy want the device to themselves.
 */
#ifndef LOAM_VMM_VIRTIO_BLK_H
#define LOAM_VMM_VIRTIO_BLK_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/irq.h"
#include "vmm/virtio_mmio.h"
#include "vmm/virtio_worker.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_BLK_DEVICE_ID      2u
#define VIRTIO_BLK_QUEUE_SIZE_MAX VIRTIO_WORKER_QUEUE_SIZE_MAX
#define VIRTIO_BLK_SECTOR_BYTES   512u
#define VIRTIO_BLK_SERIAL_BYTES   20u
#define VIRTIO_BLK_CALL_BYTES     (UINT64_C(1) << 20) /* read or written by one system call at most */
/* A longest chain's descriptors but those of header and status. */
#define VIRTIO_BLK_SEG_MAX (VIRTIO_BLK_QUEUE_SIZE_MAX - 2)
/* Of one request to discard, or to write zeroes. */
#define VIRTIO_BLK_RANGE_MAX                16u
#define VIRTIO_BLK_DISCARD_SECTORS_MAX      (UINT32_C(1) << 21) /* of one range: 1 GiB */
#define VIRTIO_BLK_WRITE_ZEROES_SECTORS_MAX (UINT32_C(1) << 15) /* of one range: 16 MiB, which may have to be written */

/* Features (section 5.2.3). */
#define VIRTIO_BLK_F_SEG_MAX      (UINT64_C(1) << 2)
#define VIRTIO_BLK_F_RO           (UINT64_C(1) << 5)
#define VIRTIO_BLK_F_BLK_SIZE     (UINT64_C(1) << 6)
#define VIRTIO_BLK_F_FLUSH        (UINT64_C(1) << 9)
#define VIRTIO_BLK_F_DISCARD      (UINT64_C(1) << 13)
#define VIRTIO_BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

/* Types of requests, and how they end (section 5.2.6). */
#define VIRTIO_BLK_T_IN           0u
#define VIRTIO_BLK_T_OUT          1u
#define VIRTIO_BLK_T_FLUSH        4u
#define VIRTIO_BLK_T_GET_ID       8u
#define VIRTIO_BLK_T_DISCARD      11u
#define VIRTIO_BLK_T_WRITE_ZEROES 13u

#define VIRTIO_BLK_S_OK     0u
#define VIRTIO_BLK_S_IOERR  1u
#define VIRTIO_BLK_S_UNSUPP 2u

#define VIRTIO_BLK_RANGE_UNMAP 1u /* the one flag of struct virtio_blk_range */

/* What a request begins with. */
struct virtio_blk_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

/* The data of VIRTIO_BLK_T_DISCARD and VIRTIO_BLK_T_WRITE_ZEROES: up to VIRTIO_BLK_RANGE_MAX of these. */
struct virtio_blk_range {
    uint64_t sector;
    uint32_t sector_count;
    uint32_t flags;
};

/* Section 5.2.4. What is not offered is 0. */
struct virtio_blk_layout {
    uint64_t capacity_sectors;
    uint32_t size_max;
    uint32_t seg_max;
    uint16_t cylinders;
    uint8_t heads;
    uint8_t sectors;
    uint32_t blk_size_bytes;
    uint8_t topology[8];
    uint8_t writeback;
    uint8_t unused;
    uint16_t queue_count;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused_end[3];
};

static_assert(sizeof(struct virtio_blk_header) == 16 && sizeof(struct virtio_blk_range) == 16, "section 5.2.6");
static_assert(offsetof(struct virtio_blk_layout, blk_size_bytes) == 20 &&
                  offsetof(struct virtio_blk_layout, queue_count) == 34 &&
                  offsetof(struct virtio_blk_layout, max_discard_sectors) == 36 &&
                  offsetof(struct virtio_blk_layout, write_zeroes_may_unmap) == 56,
              "section 5.2.4");

struct virtio_blk_config {
    const char *name;   /* of the disk, for messages */
    int fd;             /* of the file; the caller's, and open until virtio_blk_destroy */
    bool read_only;     /* offered as VIRTIO_BLK_F_RO; else fd has to be open for writing */
    bool discard;       /* what the guest gives up is given back to the file system: VIRTIO_BLK_F_DISCARD */
    bool no_flush;      /* flushes are answered, and not carried out */
    const char *serial; /* what VIRTIO_BLK_T_GET_ID answers, up to VIRTIO_BLK_SERIAL_BYTES; copied. NULL: "" */
};

/*
 * What was done, as QMP's query-blockstats counts it. Operations are those that succeeded, and bytes are theirs; the time
 * is of all, from when the request is taken to when its answer is known.
 */
struct virtio_blk_tally {
    uint64_t operation_count;
    uint64_t failed_count;
    uint64_t bytes; /* 0 of flushes */
    uint64_t total_nanoseconds;
};

struct virtio_blk_stats {
    struct virtio_blk_tally read;
    struct virtio_blk_tally write; /* of zeroes too */
    struct virtio_blk_tally flush;
    struct virtio_blk_tally discard;
    uint64_t
        invalid_count; /* requests that are none of these, or that the specification forbids: answered by an error */
};

struct virtio_blk {
    struct virtio_mmio mmio; /* for the bus: virtio_mmio_access, &blk->mmio, VIRTIO_MMIO_BYTES */
    struct virtio_worker worker;
    int fd;
    bool no_flush;
    uint8_t serial[VIRTIO_BLK_SERIAL_BYTES];
    struct virtio_blk_layout layout;
    struct virtio_blk_stats stats; /* under the transport's lock */
};

/*
 * LOAM_ERROR_INVALID: fd is no regular file and no block device, or is open in a way that does not serve (read_only is
 * false and it cannot be written; O_APPEND, which writes elsewhere; O_DIRECT, which wants what guests do not keep to); or
 * it does not end at a whole sector, of which the rest would be out of the guest's reach; or serial is too long.
 * LOAM_ERROR_SYSTEM: a call failed. There is nothing to destroy then.
 */
LOAM_MUST_USE enum loam_error virtio_blk_init(struct virtio_blk *blk, struct loam_gpa_map *map, struct irq_line irq,
                                              const struct virtio_blk_config *config, struct loam_diag *diag);

/*
 * A request that is carried out is dropped. false: its call does not end; blk, the map, the guest's memory and fd stay
 * where they are for good, as virtio_worker_end says.
 */
bool virtio_blk_destroy(struct virtio_blk *blk);

/*
 * Return when no request is carried out; none is begun until virtio_blk_resume, which carries out what was rung
 * meanwhile. Not counted: quiesced is quiesced.
 */
void virtio_blk_quiesce(struct virtio_blk *blk);
void virtio_blk_resume(struct virtio_blk *blk);

uint64_t virtio_blk_capacity_bytes(const struct virtio_blk *blk);

void virtio_blk_get_stats(struct virtio_blk *blk, struct virtio_blk_stats *stats);

/*
 * Written down at transport index, and read again: state.h. It serves nothing meanwhile, and no vCPU runs; loading is for one that
 * was just made, on a disk of the same size. Errors as virtio_mmio_load.
 */
void virtio_blk_save(struct virtio_blk *blk, struct state_writer *writer, uint32_t index);
LOAM_MUST_USE enum loam_error virtio_blk_load(struct virtio_blk *blk, struct state_reader *reader, uint32_t index,
                                              struct loam_diag *diag);

#endif
