// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/net_guest.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PATIENCE_MILLISECONDS = 10000 };

const uint8_t net_guest_mac[VIRTIO_NET_MAC_BYTES] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};

static void set_line(void *self, unsigned int number, bool level)
{
    struct net_guest *guest = self;

    (void)number;
    atomic_store(&guest->level, level);
    if (level) {
        (void)eventfd_write(guest->rise_fd, 1);
    }
}

void net_guest_init(struct net_guest *guest)
{
    const struct irq_line irq = {.set = set_line, .controller = guest};

    atomic_init(&guest->level, false);
    guest->rise_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    cr_assert_geq(guest->rise_fd, 0);
    virtio_guest_init(&guest->memory);
    cr_assert_eq(virtio_net_init(&guest->net, guest->memory.map, irq, net_guest_mac), LOAM_OK);
    net_guest_bring_up(guest);
}

void net_guest_destroy(struct net_guest *guest)
{
    virtio_net_destroy(&guest->net);
    virtio_guest_destroy(&guest->memory);
    close(guest->rise_fd);
}

void net_guest_out(struct net_guest *guest, uint64_t offset, uint32_t value)
{
    struct bus_access access = {.offset = offset, .bytes = 4, .is_write = true, .value = value};

    virtio_mmio_access(&guest->net.mmio, &access);
}

uint32_t net_guest_in(struct net_guest *guest, uint64_t offset)
{
    struct bus_access access = {.offset = offset, .bytes = 4};

    virtio_mmio_access(&guest->net.mmio, &access);
    return (uint32_t)access.value;
}

void net_guest_ring(struct net_guest *guest, enum virtio_net_queue queue)
{
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

static void set_up_queue(struct net_guest *guest, enum virtio_net_queue queue, const struct virtqueue_config *config)
{
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_SELECT, queue);
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_SIZE, config->size);
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, (uint32_t)config->descriptors.value);
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_DESCRIPTORS_HIGH, (uint32_t)(config->descriptors.value >> 32));
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, (uint32_t)config->available.value);
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_AVAILABLE_HIGH, (uint32_t)(config->available.value >> 32));
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)config->used.value);
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_USED_HIGH, (uint32_t)(config->used.value >> 32));
    net_guest_out(guest, VIRTIO_MMIO_QUEUE_READY, 1);
}

void net_guest_start(struct net_guest *guest)
{
    net_guest_out(guest, VIRTIO_MMIO_STATUS, 0);
    net_guest_out(guest, VIRTIO_MMIO_STATUS, 0x01);
    net_guest_out(guest, VIRTIO_MMIO_STATUS, 0x03);
    net_guest_out(guest, VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 0);
    net_guest_out(guest, VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_NET_FEATURE_MAC | VIRTIO_NET_FEATURE_STATUS);
    net_guest_out(guest, VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1);
    net_guest_out(guest, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    net_guest_out(guest, VIRTIO_MMIO_STATUS, 0x0b);
    set_up_queue(guest, VIRTIO_NET_RECEIVE, &guest->receive.config);
    set_up_queue(guest, VIRTIO_NET_TRANSMIT, &guest->transmit.config);
    net_guest_out(guest, VIRTIO_MMIO_STATUS, 0x0f);
}

void net_guest_bring_up(struct net_guest *guest)
{
    net_guest_out(guest, VIRTIO_MMIO_STATUS, 0); /* before the rings are written to */
    virtio_driver_init(&guest->receive, &guest->memory, NET_GUEST_QUEUE_SIZE, NET_GUEST_RECEIVE_RINGS);
    virtio_driver_init(&guest->transmit, &guest->memory, NET_GUEST_QUEUE_SIZE, NET_GUEST_TRANSMIT_RINGS);
    net_guest_start(guest);
}

static void offer_at(struct net_guest *guest, uint64_t gpa)
{
    const struct virtio_buffer buffer = {gpa, NET_GUEST_BUFFER_BYTES, true};
    uint16_t head;

    cr_assert(virtio_driver_add(&guest->receive, &buffer, 1, &head));
    guest->buffers[head] = gpa;
    net_guest_ring(guest, VIRTIO_NET_RECEIVE);
}

void net_guest_offer(struct net_guest *guest, uint32_t index)
{
    offer_at(guest, NET_GUEST_BUFFERS + (uint64_t)index * NET_GUEST_BUFFER_BYTES);
}

void net_guest_send(struct net_guest *guest, const void *frame, size_t bytes)
{
    const struct virtio_buffer buffer = {NET_GUEST_SENT, (uint32_t)(VIRTIO_NET_HEADER_BYTES + bytes), false};
    uint8_t *at = virtio_guest_at(&guest->memory, NET_GUEST_SENT);
    uint32_t used_head, written_bytes;
    uint16_t head;

    memset(at, 0, VIRTIO_NET_HEADER_BYTES);
    memcpy(at + VIRTIO_NET_HEADER_BYTES, frame, bytes);
    cr_assert(virtio_driver_add(&guest->transmit, &buffer, 1, &head));
    net_guest_ring(guest, VIRTIO_NET_TRANSMIT);
    cr_assert(virtio_driver_take(&guest->transmit, &used_head, &written_bytes));
    cr_assert_eq(used_head, head);
    cr_assert_eq(written_bytes, 0);
}

bool net_guest_take(struct net_guest *guest, uint8_t frame[NET_GUEST_BUFFER_BYTES], size_t *bytes)
{
    static const uint8_t expected[VIRTIO_NET_HEADER_BYTES] = {[10] = 1};
    uint32_t head, written_bytes;
    const uint8_t *at;

    if (!virtio_driver_take(&guest->receive, &head, &written_bytes)) {
        return false;
    }
    cr_assert_geq(written_bytes, VIRTIO_NET_HEADER_BYTES);
    cr_assert_leq(written_bytes, NET_GUEST_BUFFER_BYTES);
    at = virtio_guest_at(&guest->memory, guest->buffers[head]);
    cr_assert_arr_eq(at, expected, sizeof expected);
    *bytes = written_bytes - VIRTIO_NET_HEADER_BYTES;
    memcpy(frame, at + VIRTIO_NET_HEADER_BYTES, *bytes);
    offer_at(guest, guest->buffers[head]);
    return true;
}

void net_guest_await(struct net_guest *guest, uint8_t frame[NET_GUEST_BUFFER_BYTES], size_t *bytes)
{
    struct pollfd rise = {.fd = guest->rise_fd, .events = POLLIN};
    eventfd_t count;

    while (!net_guest_take(guest, frame, bytes)) {
        cr_assert_eq(poll(&rise, 1, PATIENCE_MILLISECONDS), 1, "no frame came");
        (void)eventfd_read(guest->rise_fd, &count);
        net_guest_out(guest, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_USED);
    }
}
