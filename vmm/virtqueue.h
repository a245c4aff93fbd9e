// SPDX-License-Identifier: Apache-2.0
/*
 * A split virtqueue (virtio 1.2, section 2.7), the device's side.
 *
 *     virtqueue_enable -> { virtqueue_pop -> [the device reads and writes the pieces] -> virtqueue_push }
 *                      -> virtqueue_interrupt_wanted
 *
 * The rings are guest memory and hostile: each field is fetched once, checked, and used. Rings and buffers
 * are reached through a view of the GPA map alone, so that they lie wholly in memory which the guest itself
 * may access so; either may go across regions. What the specification forbids a driver breaks the queue: it
 * says why, and does nothing more until virtqueue_disable. Neither indirect descriptors nor event indexes nor
 * packed rings are offered.
 *
 * Threads: calls on one queue want it to themselves. The state is the caller's; nothing is allocated. A piece
 * is valid as long as the view it was popped with is held.
 */
#ifndef LOAM_VMM_VIRTQUEUE_H
#define LOAM_VMM_VIRTQUEUE_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stdint.h>

#define VIRTQUEUE_SIZE_MAX  32768u              /* entries; section 2.7 */
#define VIRTQUEUE_BYTES_MAX (UINT64_C(1) << 32) /* of all buffers of one chain; section 2.7.4.2 */

/* Flags of a descriptor, and of the available ring (sections 2.7.5 and 2.7.6). */
#define VIRTQ_DESC_F_NEXT          1u
#define VIRTQ_DESC_F_WRITE         2u
#define VIRTQ_DESC_F_INDIRECT      4u
#define VIRTQ_AVAIL_F_NO_INTERRUPT 1u

/* What a driver set up; nothing of it is trusted. */
struct virtqueue_config {
    uint32_t size;        /* entries: a power of two */
    loam_gpa descriptors; /* aligned to 16 */
    loam_gpa available;   /* aligned to 2 */
    loam_gpa used;        /* aligned to 4 */
};

/* Why a queue is broken. */
enum virtqueue_fault {
    VIRTQUEUE_FAULT_NONE,
    VIRTQUEUE_FAULT_SIZE,      /* no power of two, or more than the device has */
    VIRTQUEUE_FAULT_ALIGNMENT, /* a ring is misaligned */
    VIRTQUEUE_FAULT_RING,      /* a ring does not lie wholly in memory that grants the access it needs */
    VIRTQUEUE_FAULT_AVAILABLE, /* more chains available or popped, and not pushed, than the queue has entries */
    VIRTQUEUE_FAULT_HEAD,      /* the available ring names a descriptor that is none */
    VIRTQUEUE_FAULT_NEXT,      /* a descriptor's successor is none */
    VIRTQUEUE_FAULT_LOOP,      /* a chain has more descriptors than the queue has entries */
    VIRTQUEUE_FAULT_INDIRECT,  /* an indirect descriptor, which was not offered */
    VIRTQUEUE_FAULT_ORDER,     /* a buffer to read comes after one to write */
    VIRTQUEUE_FAULT_LENGTH,    /* a chain's buffers have more than VIRTQUEUE_BYTES_MAX together */
    VIRTQUEUE_FAULT_BUFFER,    /* a buffer does not lie wholly in memory that grants the access it needs */
    VIRTQUEUE_FAULT_PIECES,    /* a chain's buffers are in more pieces than the device takes */
    VIRTQUEUE_FAULT_COUNT
};

/*
 * 0 <= (uint16_t)(next_available - next_used) <= config.size: the chains popped and not yet pushed.
 * fault != VIRTQUEUE_FAULT_NONE: neither index moves.
 */
struct virtqueue {
    struct virtqueue_config config;
    bool ready;
    enum virtqueue_fault fault;
    uint16_t next_available; /* counts chains popped, modulo 2^16 */
    uint16_t next_used;      /* counts chains pushed, modulo 2^16 */
};

/*
 * One chain of buffers: first what the device reads, then what it writes. pieces and capacity are the
 * device's.
 */
struct virtqueue_chain {
    struct loam_piece *pieces;
    uint32_t capacity;       /* of pieces; a buffer is one piece, or several where it goes across regions */
    uint32_t readable_count; /* pieces[0 .. readable_count) */
    uint32_t writable_count; /* the pieces after them */
    uint64_t readable_bytes;
    uint64_t writable_bytes;
    uint16_t head; /* names the chain to the driver */
};

/* "none", "size", "alignment", ...; "unknown" for a value that is no enum virtqueue_fault. */
const char *virtqueue_fault_name(enum virtqueue_fault fault);

/*
 * Start using the rings of config, at index 0. LOAM_ERROR_INVALID: the queue is broken, and queue->fault says
 * why.
 */
LOAM_MUST_USE enum loam_error virtqueue_enable(struct virtqueue *queue, const struct loam_gpa_view *view,
                                               const struct virtqueue_config *config, uint32_t size_max);

/* Stop, forget every chain, and be whole again. A queue of zeroes is one that is disabled. */
void virtqueue_disable(struct virtqueue *queue);

/*
 * Take the next chain that the driver made available. chain's counts are zero on failure.
 * LOAM_ERROR_NOT_FOUND: there is none. LOAM_ERROR_UNINITIALISED: the queue is not ready. LOAM_ERROR_INVALID:
 * it is broken, by this call or before.
 */
LOAM_MUST_USE enum loam_error virtqueue_pop(struct virtqueue *queue, const struct loam_gpa_view *view,
                                            struct virtqueue_chain *chain);

/*
 * Give a popped chain back, once, with the count of bytes written to its writable pieces, from the first one
 * on. The driver sees it when the call returns. LOAM_ERROR_INVALID: the queue is broken;
 * LOAM_ERROR_UNINITIALISED: it is not ready, or nothing is popped.
 */
LOAM_MUST_USE enum loam_error virtqueue_push(struct virtqueue *queue, const struct loam_gpa_view *view, uint16_t head,
                                             uint32_t written_bytes);

/* Whether the driver, after what was pushed so far, wants to be interrupted. A broken queue's does not. */
bool virtqueue_interrupt_wanted(struct virtqueue *queue, const struct loam_gpa_view *view);

#endif
