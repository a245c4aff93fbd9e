// SPDX-License-Identifier: Apache-2.0
/*
 * The entropy device (virtio 1.2, section 5.4) on a virtio-mmio transport: its one queue's buffers are filled
 * with the host's random bytes.
 *
 * A notification is bounded work: as many chains as the queue has entries, VIRTIO_RNG_BYTES_MAX of each; the
 * specification lets a device write less than was asked for.
 *
 * Threads: as the transport's.
 */
#ifndef LOAM_VMM_VIRTIO_RNG_H
#define LOAM_VMM_VIRTIO_RNG_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/irq.h"
#include "vmm/virtio_mmio.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTIO_RNG_DEVICE_ID      4u
#define VIRTIO_RNG_QUEUE_SIZE_MAX 256u
#define VIRTIO_RNG_BYTES_MAX      (UINT64_C(64) * 1024) /* of one chain */
/* Twice the queue: each of a longest chain's buffers may go across one end of a region. */
#define VIRTIO_RNG_PIECE_MAX (2 * VIRTIO_RNG_QUEUE_SIZE_MAX)

/* Fill all of buffer with random bytes; false: it cannot. */
typedef bool virtio_rng_source_fn(void *self, void *buffer, size_t bytes);

struct virtio_rng {
    struct virtio_mmio mmio; /* for the bus: virtio_mmio_access, &rng->mmio, VIRTIO_MMIO_BYTES */
    virtio_rng_source_fn *source;
    void *source_self;
    uint64_t chain_count;   /* given back */
    uint64_t failure_count; /* of the source; its chains go back with what was filled before */
    struct loam_piece pieces[VIRTIO_RNG_PIECE_MAX];
};

/* source NULL: getrandom(2). Errors as virtio_mmio_init. */
LOAM_MUST_USE enum loam_error virtio_rng_init(struct virtio_rng *rng, struct loam_gpa_map *map, struct irq_line irq,
                                              virtio_rng_source_fn *source, void *source_self);

void virtio_rng_destroy(struct virtio_rng *rng);

#endif
