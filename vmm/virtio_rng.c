// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_rng.h"

#include <errno.h>
#include <sys/random.h>

/* Signals that stir a vCPU interrupt it; what it got until then counts. */
static bool source_host(void *self, void *buffer, size_t bytes)
{
    uint8_t *next = buffer;

    (void)self;
    while (bytes > 0) {
        const ssize_t got = getrandom(next, bytes, 0);

        if (got > 0) {
            next += got;
            bytes -= (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            return false;
        }
    }
    return true;
}

/*
 * Fill what the chain has to write, from the first piece on; returns the bytes filled. Buffers to read are no
 * use here.
 */
static uint32_t fill(struct virtio_rng *rng, const struct virtqueue_chain *chain)
{
    const struct loam_piece *pieces = chain->pieces + chain->readable_count;
    uint64_t filled = 0;

    for (uint32_t i = 0; i < chain->writable_count && filled < VIRTIO_RNG_BYTES_MAX; i++) {
        const uint64_t left = VIRTIO_RNG_BYTES_MAX - filled;
        const uint64_t bytes = pieces[i].bytes < left ? pieces[i].bytes : left;

        if (!rng->source(rng->source_self, pieces[i].hva, bytes)) {
            rng->failure_count++;
            break;
        }
        filled += bytes;
    }
    return (uint32_t)filled;
}

static void notify(void *self, uint32_t index)
{
    struct virtio_rng *rng = self;
    struct virtqueue *queue = virtio_mmio_queue(&rng->mmio, index);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(rng->mmio.map);
    struct virtqueue_chain chain = {.pieces = rng->pieces, .capacity = VIRTIO_RNG_PIECE_MAX};
    bool pushed = false;

    /* A driver that makes more available meanwhile rings again. */
    for (uint32_t i = 0; i < queue->config.size && virtqueue_pop(queue, view, &chain) == LOAM_OK; i++) {
        const uint32_t filled = fill(rng, &chain);

        if (virtqueue_push(queue, view, chain.head, filled) == LOAM_OK) {
            virtio_mmio_wrote(&rng->mmio, index, &chain);
            pushed = true;
            rng->chain_count++;
        }
    }
    virtio_mmio_settle(&rng->mmio, index, view, pushed);
    loam_gpa_map_release(rng->mmio.map, view);
}

enum loam_error virtio_rng_init(struct virtio_rng *rng, struct loam_gpa_map *map, struct irq_line irq,
                                virtio_rng_source_fn *source, void *source_self)
{
    const struct virtio_device device = {
        .self = rng,
        .id = VIRTIO_RNG_DEVICE_ID,
        .queue_count = 1,
        .queue_size_max = VIRTIO_RNG_QUEUE_SIZE_MAX,
        .notify = notify,
    };

    rng->source = source != NULL ? source : source_host;
    rng->source_self = source_self;
    rng->chain_count = 0;
    rng->failure_count = 0;
    return virtio_mmio_init(&rng->mmio, map, irq, &device);
}

void virtio_rng_destroy(struct virtio_rng *rng)
{
    virtio_mmio_destroy(&rng->mmio);
}
