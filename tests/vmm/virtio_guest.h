// SPDX-License-Identifier: Apache-2.0
/*
 * For tests of virtio devices: a small guest memory with everything a GPA map can hold, and a driver that
 * keeps to the specification (virtio 1.2, section 2.7).
 *
 * Host memory is one arena: the regions lie in it in another order than in the guest, with canary pages
 * between them, so that whatever a device writes amiss shows in a comparison of the whole arena.
 *
 *     GUEST_LOW       16 KiB  RAM          continued by
 *     GUEST_NEXT       8 KiB  RAM          elsewhere in host memory
 *     GUEST_READONLY   4 KiB  RAM that the guest may only read
 *     GUEST_GAP        4 KiB  nothing
 *     GUEST_DEVICE     4 KiB  a device
 *     GUEST_HIGH     128 KiB  RAM, from 4 GiB up
 */
#ifndef LOAM_TESTS_VMM_VIRTIO_GUEST_H
#define LOAM_TESTS_VMM_VIRTIO_GUEST_H

#include "loam/gpa_map.h"
#include "vmm/virtqueue.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_LOW            UINT64_C(0x0)
#define GUEST_NEXT           UINT64_C(0x4000)
#define GUEST_READONLY       UINT64_C(0x6000)
#define GUEST_GAP            UINT64_C(0x7000)
#define GUEST_DEVICE         UINT64_C(0x8000)
#define GUEST_DEVICE_END     UINT64_C(0x9000)
#define GUEST_HIGH           (UINT64_C(1) << 32)
#define GUEST_HIGH_END       (GUEST_HIGH + 0x20000)
#define GUEST_REGION_COUNT   4u /* with memory */
#define GUEST_CANARY         0xc5
#define GUEST_QUEUE_SIZE_MAX 1024u

struct virtio_guest {
    struct loam_gpa_map *map;
    void *map_memory;
    uint8_t *arena; /* zero where it is a region, GUEST_CANARY elsewhere; NULL: see virtio_guest_init_over */
    size_t arena_bytes;
};

void virtio_guest_init(struct virtio_guest *guest);
void virtio_guest_destroy(struct virtio_guest *guest);

/* A guest whose memory is the test's own, as map has it: for the driver below. There is nothing to destroy. */
void virtio_guest_init_over(struct virtio_guest *guest, struct loam_gpa_map *map);

/*
 * Where in the arena a guest byte lies, if the guest has that access to it; -1: it has not. Knows nothing of
 * the map: an oracle for it.
 */
ptrdiff_t virtio_guest_offset(uint64_t gpa, bool write);

/* The host's pointer to guest memory; the test's own addresses alone, within one region. */
void *virtio_guest_at(const struct virtio_guest *guest, uint64_t gpa);

/* Plain stores to guest memory, as a driver makes them. */
void virtio_guest_put_16(const struct virtio_guest *guest, uint64_t gpa, uint16_t value);
uint16_t virtio_guest_get_16(const struct virtio_guest *guest, uint64_t gpa);
uint32_t virtio_guest_get_32(const struct virtio_guest *guest, uint64_t gpa);
void virtio_guest_put_descriptor(const struct virtio_guest *guest, uint64_t table, uint16_t index, uint64_t address,
                                 uint32_t bytes, uint16_t flags, uint16_t next);

/* --- A correct driver ------------------------------------------------------------------------------------------- */

struct virtio_buffer {
    uint64_t gpa;
    uint32_t bytes;
    bool writable;
};

struct virtio_driver {
    const struct virtio_guest *guest;
    struct virtqueue_config config;
    uint16_t available_index;
    uint16_t used_index;
    uint16_t free_count;
    uint16_t free[GUEST_QUEUE_SIZE_MAX];       /* descriptors, a stack */
    uint16_t chain_next[GUEST_QUEUE_SIZE_MAX]; /* the driver's own notes: it does not trust the ring either */
    uint16_t chain_count[GUEST_QUEUE_SIZE_MAX];
};

/* Rings one after the other from start on, zeroed. */
void virtio_driver_init(struct virtio_driver *driver, const struct virtio_guest *guest, uint32_t size, uint64_t start);

/* Make a chain available; false: too few descriptors are free. *head names it. */
bool virtio_driver_add(struct virtio_driver *driver, const struct virtio_buffer *buffers, uint16_t count,
                       uint16_t *head);

/* Take back the next chain that the device has used; false: none. */
bool virtio_driver_take(struct virtio_driver *driver, uint32_t *head, uint32_t *written_bytes);

#endif
