// SPDX-License-Identifier: Apache-2.0
/*
 * For tests of virtio devices that work on threads of their own: a processor of the guest as far as a driver is one. It
 * writes the registers of a transport, and sleeps until its interrupt comes.
 *
 * Threads: one, but for the interrupt line, which any may raise.
 */
#ifndef LOAM_TESTS_VMM_VIRTIO_STATION_H
#define LOAM_TESTS_VMM_VIRTIO_STATION_H

#include "tests/vmm/virtio_guest.h"
#include "vmm/irq.h"
#include "vmm/virtio_mmio.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct virtio_station {
    struct virtio_mmio *mmio;
    pthread_mutex_t lock;
    pthread_cond_t raised;
    bool level; /* of the line; under lock */
};

/* mmio is initialised later, with virtio_station_irq. */
void virtio_station_init(struct virtio_station *station, struct virtio_mmio *mmio);
void virtio_station_destroy(struct virtio_station *station);
struct irq_line virtio_station_irq(struct virtio_station *station);

void virtio_station_out(const struct virtio_station *station, uint64_t offset, uint32_t value);
uint32_t virtio_station_in(const struct virtio_station *station, uint64_t offset);

/* All the features that are offered. */
uint64_t virtio_station_offered(const struct virtio_station *station);

/*
 * A reset, then section 3.1.1 to its end: features beside VIRTIO_F_VERSION_1, and for each of count queues its rings, but
 * where size is 0.
 */
void virtio_station_bring_up(const struct virtio_station *station, uint64_t features,
                             const struct virtqueue_config *configs, uint32_t count);

void virtio_station_ring(const struct virtio_station *station, uint32_t queue);

/* Sleep until the line is high; acknowledge all, and say what it was. */
uint32_t virtio_station_await(struct virtio_station *station);

/* Sleep until the device has used a chain of the driver's, and take it back. */
void virtio_station_take(struct virtio_station *station, struct virtio_driver *driver, uint32_t *head,
                         uint32_t *written_bytes);

#endif
