// SPDX-License-Identifier: Apache-2.0
/*
 * For tests of the network: a network device on a small guest memory (virtio_guest.h), and a driver for it that keeps
 * to the specification and knows when its interrupt line rises.
 *
 *     GUEST_LOW            rings of the receive queue
 *     GUEST_LOW + 0x2000   rings of the transmit queue
 *     GUEST_HIGH           receive buffers, 2 KiB apart
 *     GUEST_HIGH + 64 KiB  what is sent
 */
#ifndef LOAM_TESTS_VMM_NET_GUEST_H
#define LOAM_TESTS_VMM_NET_GUEST_H

#include "tests/vmm/virtio_guest.h"
#include "vmm/virtio_net.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_GUEST_QUEUE_SIZE     16u
#define NET_GUEST_RECEIVE_RINGS  GUEST_LOW
#define NET_GUEST_TRANSMIT_RINGS (GUEST_LOW + 0x2000)
#define NET_GUEST_BUFFERS        GUEST_HIGH
#define NET_GUEST_BUFFER_BYTES   2048u
#define NET_GUEST_SENT           (GUEST_HIGH + 0x10000)

extern const uint8_t net_guest_mac[VIRTIO_NET_MAC_BYTES];

struct net_guest {
    struct virtio_guest memory;
    struct virtio_net net;
    struct virtio_driver receive;
    struct virtio_driver transmit;
    uint64_t buffers[GUEST_QUEUE_SIZE_MAX]; /* the receive buffer that each head names */
    int rise_fd;                            /* counts how often the line has risen */
    atomic_bool level;
};

/* Made and brought up, with no receive buffers. */
void net_guest_init(struct net_guest *guest);
void net_guest_destroy(struct net_guest *guest);

void net_guest_out(struct net_guest *guest, uint64_t offset, uint32_t value);
uint32_t net_guest_in(struct net_guest *guest, uint64_t offset);
void net_guest_ring(struct net_guest *guest, enum virtio_net_queue queue);

/* Section 3.1.1: reset, features, the rings of both drivers as they are, DRIVER_OK. */
void net_guest_start(struct net_guest *guest);

/* The same with new, empty rings of NET_GUEST_QUEUE_SIZE entries. */
void net_guest_bring_up(struct net_guest *guest);

/* Make the index-th receive buffer available, and ring. */
void net_guest_offer(struct net_guest *guest, uint32_t index);

/* Send a frame, in one buffer with its header, and expect the device to be done with it. */
void net_guest_send(struct net_guest *guest, const void *frame, size_t bytes);

/* The next received frame, whose buffer is made available again; false: there is none. */
bool net_guest_take(struct net_guest *guest, uint8_t frame[NET_GUEST_BUFFER_BYTES], size_t *bytes);

/* The same, but wait for it: the line rises within ten seconds, or the test has failed. */
void net_guest_await(struct net_guest *guest, uint8_t frame[NET_GUEST_BUFFER_BYTES], size_t *bytes);

#endif
