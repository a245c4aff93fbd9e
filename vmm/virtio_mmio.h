// SPDX-License-Identifier: Apache-2.0
/*
 * The virtio-mmio transport, version 2 (virtio 1.2, section 4.2): the registers between a driver and one
 * device.
 *
 * It does all that is common to devices: identity, feature negotiation, the status machine, the setting up of
 * queues, interrupts, reset. VIRTIO_F_VERSION_1 is offered, and FEATURES_OK is refused to a driver that did
 * not take it or that took what was not offered. A queue that a driver breaks sets DEVICE_NEEDS_RESET, and
 * nothing more happens until the reset.
 *
 * Threads: each transport has a lock. virtio_mmio_access and virtio_mmio_notify take it and call the device's
 * functions under it; a device that works on threads of its own takes it with virtio_mmio_lock. Calls that
 * say "locked" want it held. Lock order: the device's on the bus, a transport, the interrupt controller. The register at
 * VIRTIO_MMIO_QUEUE_NOTIFY has no effect but virtio_mmio_notify, so an ioeventfd may stand in for it; an
 * irqfd may stand behind the interrupt line.
 */
#ifndef LOAM_VMM_VIRTIO_MMIO_H
#define LOAM_VMM_VIRTIO_MMIO_H

#include "loam/dirty.h"
#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/state.h"
#include "vmm/virtqueue.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_MMIO_BYTES     0x1000u
#define VIRTIO_MMIO_QUEUE_MAX 8u

/* Registers, by their offset in bytes (section 4.2.2, table 4.1). */
enum virtio_mmio_register {
    VIRTIO_MMIO_MAGIC = 0x000,
    VIRTIO_MMIO_VERSION = 0x004,
    VIRTIO_MMIO_DEVICE_ID = 0x008,
    VIRTIO_MMIO_VENDOR_ID = 0x00c,
    VIRTIO_MMIO_DEVICE_FEATURES = 0x010,
    VIRTIO_MMIO_DEVICE_FEATURES_SELECT = 0x014,
    VIRTIO_MMIO_DRIVER_FEATURES = 0x020,
    VIRTIO_MMIO_DRIVER_FEATURES_SELECT = 0x024,
    VIRTIO_MMIO_QUEUE_SELECT = 0x030,
    VIRTIO_MMIO_QUEUE_SIZE_MAX = 0x034,
    VIRTIO_MMIO_QUEUE_SIZE = 0x038,
    VIRTIO_MMIO_QUEUE_READY = 0x044,
    VIRTIO_MMIO_QUEUE_NOTIFY = 0x050,
    VIRTIO_MMIO_INTERRUPT_STATUS = 0x060,
    VIRTIO_MMIO_INTERRUPT_ACK = 0x064,
    VIRTIO_MMIO_STATUS = 0x070,
    VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW = 0x080,
    VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH = 0x084,
    VIRTIO_MMIO_QUEUE_AVAILABLE_LOW = 0x090,
    VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH = 0x094,
    VIRTIO_MMIO_QUEUE_USED_LOW = 0x0a0,
    VIRTIO_MMIO_QUEUE_USED_HIGH = 0x0a4,
    VIRTIO_MMIO_SHM_LENGTH_LOW = 0x0b0,
    VIRTIO_MMIO_SHM_LENGTH_HIGH = 0x0b4,
    VIRTIO_MMIO_SHM_BASE_LOW = 0x0b8,
    VIRTIO_MMIO_SHM_BASE_HIGH = 0x0bc,
    VIRTIO_MMIO_CONFIG_GENERATION = 0x0fc,
    VIRTIO_MMIO_CONFIG = 0x100
};

#define VIRTIO_MMIO_MAGIC_VALUE   0x74726976u /* "virt" */
#define VIRTIO_MMIO_VERSION_VALUE 2u
#define VIRTIO_MMIO_VENDOR_VALUE  0x4d414f4cu /* "LOAM" */

/* Device status (section 2.1). */
#define VIRTIO_STATUS_ACKNOWLEDGE 0x01u
#define VIRTIO_STATUS_DRIVER      0x02u
#define VIRTIO_STATUS_DRIVER_OK   0x04u
#define VIRTIO_STATUS_FEATURES_OK 0x08u
#define VIRTIO_STATUS_NEEDS_RESET 0x40u
#define VIRTIO_STATUS_FAILED      0x80u

/* Interrupt status (section 4.2.2). */
#define VIRTIO_INTERRUPT_USED   1u
#define VIRTIO_INTERRUPT_CONFIG 2u

#define VIRTIO_F_VERSION_1 (UINT64_C(1) << 32)

/* What a device is and does. Functions are called with the transport locked; self is handed to each. */
struct virtio_device {
    void *self;
    uint32_t id;             /* section 5 */
    uint32_t queue_count;    /* up to VIRTIO_MMIO_QUEUE_MAX */
    uint32_t queue_size_max; /* of every queue: a power of two up to VIRTQUEUE_SIZE_MAX */
    uint32_t config_bytes;   /* of the device's own configuration; up to VIRTIO_MMIO_BYTES - VIRTIO_MMIO_CONFIG */
    uint64_t features;       /* offered beside VIRTIO_F_VERSION_1 */
    /*
     * The driver made buffers available in a queue that is ready; DRIVER_OK is set. Bounded work, then
     * return.
     */
    void (*notify)(void *self, uint32_t queue);
    /* A queue that was ready is so no more: forget its chains before returning. NULL: none is ever kept. */
    void (*stop)(void *self, uint32_t queue);
    /* Back to the beginning; every queue has been stopped. NULL: nothing to do. */
    void (*reset)(void *self);
    /* Part of the configuration, within config_bytes. NULL: reads give zero, writes are lost. */
    void (*config_read)(void *self, uint32_t offset, uint8_t *data, uint32_t bytes);
    void (*config_write)(void *self, uint32_t offset, const uint8_t *data, uint32_t bytes);
};

/* queues[i].ready only with FEATURES_OK. The interrupt line is high if and only if interrupt_status != 0. */
struct virtio_mmio {
    pthread_mutex_t lock;
    struct loam_gpa_map *map;
    struct loam_dirty
        *dirty; /* the caller's, set after virtio_mmio_init: what the device writes is marked; NULL: nowhere */
    struct irq_line irq;
    struct virtio_device device;
    uint32_t status;
    uint32_t interrupt_status;
    uint32_t config_generation;
    uint32_t device_features_select;
    uint32_t driver_features_select;
    uint32_t queue_select;
    uint64_t driver_features;
    bool driver_features_beyond; /* the driver took a feature beyond the 64 that can be offered */
    struct virtqueue_config configs[VIRTIO_MMIO_QUEUE_MAX]; /* as the driver is setting them up */
    struct virtqueue queues[VIRTIO_MMIO_QUEUE_MAX];
};

/*
 * As after a reset. map outlives the transport; device is copied. LOAM_ERROR_INVALID: device is out of its
 * ranges or has no notify. The transport is zero then, and must not be destroyed.
 */
LOAM_MUST_USE enum loam_error virtio_mmio_init(struct virtio_mmio *transport, struct loam_gpa_map *map,
                                               struct irq_line irq, const struct virtio_device *device);

/* No other thread uses the transport any more. */
void virtio_mmio_destroy(struct virtio_mmio *transport);

/*
 * A bus_access_fn for VIRTIO_MMIO_BYTES. Registers are 32 bits wide: any other access to them reads 0 and
 * writes nothing.
 */
void virtio_mmio_access(void *transport, struct bus_access *access);

/* The driver rang for a queue: what a write to VIRTIO_MMIO_QUEUE_NOTIFY does. Any thread. */
void virtio_mmio_notify(struct virtio_mmio *transport, uint32_t queue);

void virtio_mmio_lock(struct virtio_mmio *transport);
void virtio_mmio_unlock(struct virtio_mmio *transport);

/* --- For devices; locked ---------------------------------------------------------------------------------------- */

/* The index-th queue; the caller keeps index below queue_count. */
struct virtqueue *virtio_mmio_queue(struct virtio_mmio *transport, uint32_t index);

/* What driver and device agreed upon; 0 before FEATURES_OK. */
uint64_t virtio_mmio_features(const struct virtio_mmio *transport);

/*
 * After a piece of work on a queue, with its view still held: interrupt the driver if pushed is true and it
 * wants that; if the queue is broken, set DEVICE_NEEDS_RESET.
 */
void virtio_mmio_settle(struct virtio_mmio *transport, uint32_t queue, const struct loam_gpa_view *view, bool pushed);

/*
 * After the device has written to a chain, of a queue that is ready, and given it back: the pages of its writable pieces, and of the
 * used ring, are marked.
 */
void virtio_mmio_wrote(const struct virtio_mmio *transport, uint32_t queue, const struct virtqueue_chain *chain);

/* The device's configuration has changed of itself: the driver is told, once DRIVER_OK is set. */
void virtio_mmio_config_changed(struct virtio_mmio *transport);

/*
 * Written down as transport number index, and read again: state.h. While no vCPU runs and the device serves nothing; loading
 * is for one that was just made, whose device then has its own state loaded, and is rung by virtio_mmio_replay. A chain that
 * was taken and not given back is taken again. LOAM_ERROR_NOT_FOUND: the device has not all that the driver agreed upon with
 * the one that was written down. Else errors as state_take_fields.
 */
void virtio_mmio_save(struct virtio_mmio *transport, struct state_writer *writer, uint32_t index);
LOAM_MUST_USE enum loam_error virtio_mmio_load(struct virtio_mmio *transport, struct state_reader *reader,
                                               uint32_t index, struct loam_diag *diag);

/* Whatever the driver has made available, it may have rung for. Before the vCPUs go on. */
void virtio_mmio_replay(struct virtio_mmio *transport);

#endif
