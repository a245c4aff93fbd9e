// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_net.h"

#include "tests/support/lock_watch.h"
#include "tests/vmm/net_guest.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

enum { SIZE = NET_GUEST_QUEUE_SIZE, HEADER = VIRTIO_NET_HEADER_BYTES, FRAME_MAX = VIRTIO_NET_FRAME_BYTES_MAX };

static struct net_guest guest;

/* What came out of the device last, and how often. */
static struct outside {
    uint8_t frame[FRAME_MAX];
    size_t bytes;
    uint32_t send_count;
    uint32_t room_count;
    bool refuses;
    bool feeds; /* each frame makes the next one available */
} outside;

static bool take_out(void *self, const void *frame, size_t bytes)
{
    const uint64_t available = guest.transmit.config.available.value;

    cr_assert_eq(self, &outside);
    cr_assert(bytes >= VIRTIO_NET_FRAME_BYTES_MIN && bytes <= FRAME_MAX, "%zu bytes", bytes);
    memcpy(outside.frame, frame, bytes);
    outside.bytes = bytes;
    outside.send_count++;
    if (outside.feeds) {
        cr_assert_leq(outside.send_count, SIZE, "more than its share of one ring");
        virtio_guest_put_16(&guest.memory, available + 2,
                            (uint16_t)(virtio_guest_get_16(&guest.memory, available + 2) + 1));
    }
    return !outside.refuses;
}

static void hear_of_room(void *self)
{
    cr_assert_eq(self, &outside);
    outside.room_count++;
}

static const struct virtio_net_outside connection = {.self = &outside, .send = take_out, .room = hear_of_room};

static void set_up(void)
{
    outside = (struct outside){.bytes = 0};
    net_guest_init(&guest);
    virtio_net_connect(&guest.net, &connection);
}

static void tear_down(void)
{
    net_guest_destroy(&guest);
}

TestSuite(virtio_net, .init = set_up, .fini = tear_down, .timeout = 120);

/* --- Helpers ---------------------------------------------------------------------------------------------------- */

static void *at(uint64_t gpa)
{
    return virtio_guest_at(&guest.memory, gpa);
}

/* Bytes that differ from seed to seed and from place to place. */
static void fill(uint8_t *bytes, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8) + 1);
    }
}

static bool receive(size_t bytes, uint32_t seed)
{
    uint8_t frame[FRAME_MAX + 512];

    fill(frame, bytes, seed);
    return virtio_net_receive(&guest.net, frame, bytes);
}

static uint16_t add(struct virtio_driver *driver, const struct virtio_buffer *buffers, uint16_t count)
{
    uint16_t head = 0;

    cr_assert(virtio_driver_add(driver, buffers, count, &head));
    return head;
}

/* The next chain that comes back must be this one, with so many bytes. */
static void expect_used(struct virtio_driver *driver, uint16_t head, uint32_t bytes)
{
    uint32_t found_head, found_bytes;

    cr_assert(virtio_driver_take(driver, &found_head, &found_bytes));
    cr_assert_eq(found_head, head);
    cr_assert_eq(found_bytes, bytes, "%u bytes in place of %u", found_bytes, bytes);
}

static void expect_nothing_used(struct virtio_driver *driver)
{
    uint32_t found_head, found_bytes;

    cr_assert_not(virtio_driver_take(driver, &found_head, &found_bytes));
}

/* Send what buffers hold. */
static void transmit(const struct virtio_buffer *buffers, uint16_t count)
{
    const uint16_t head = add(&guest.transmit, buffers, count);

    net_guest_ring(&guest, VIRTIO_NET_TRANSMIT);
    expect_used(&guest.transmit, head, 0);
}

static struct virtio_net_counts counts(void)
{
    struct virtio_net_counts now;

    virtio_net_read_counts(&guest.net, &now);
    return now;
}

static void expect_counts(const struct virtio_net_count *counted, uint64_t frames, uint64_t bytes, uint64_t dropped)
{
    cr_assert_eq(counted->frames, frames, "%lu frames", counted->frames);
    cr_assert_eq(counted->bytes, bytes, "%lu bytes", counted->bytes);
    cr_assert_eq(counted->dropped_frames, dropped, "%lu dropped", counted->dropped_frames);
}

static void expect_sent(uint64_t frames, uint64_t bytes, uint64_t dropped)
{
    const struct virtio_net_counts now = counts();

    expect_counts(&now.sent, frames, bytes, dropped);
}

static void expect_received(uint64_t frames, uint64_t bytes, uint64_t dropped)
{
    const struct virtio_net_counts now = counts();

    expect_counts(&now.received, frames, bytes, dropped);
}

/* --- What it is ------------------------------------------------------------------------------------------------- */

Test(virtio_net, is_a_network_card_with_two_queues)
{
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_DEVICE_ID), 1);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_STATUS), 0x0f);
    for (uint32_t queue = 0; queue < 3; queue++) {
        net_guest_out(&guest, VIRTIO_MMIO_QUEUE_SELECT, queue);
        cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_QUEUE_SIZE_MAX), queue < 2 ? VIRTIO_NET_QUEUE_SIZE_MAX : 0);
    }
    net_guest_out(&guest, VIRTIO_MMIO_DEVICE_FEATURES_SELECT, 0);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_DEVICE_FEATURES), 1u << 5 | 1u << 16);
}

Test(virtio_net, tells_its_address_and_its_link)
{
    struct bus_access access = {.offset = VIRTIO_MMIO_CONFIG + 5, .bytes = 1};

    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_CONFIG), 0x12005452);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_CONFIG + 4), 0x00015634);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_CONFIG + 8), 0);
    virtio_mmio_access(&guest.net.mmio, &access);
    cr_assert_eq(access.value, 0x56);
}

Test(virtio_net, refuses_an_address_that_is_no_station_s)
{
    static struct virtio_net other;
    const struct irq_line irq = {.set = NULL};

    cr_assert_eq(virtio_net_init(&other, guest.memory.map, irq, (uint8_t[6]){0}), LOAM_ERROR_INVALID);
    cr_assert_eq(virtio_net_init(&other, guest.memory.map, irq, (uint8_t[6]){1, 0, 0x5e, 0, 0, 1}), LOAM_ERROR_INVALID);
    cr_assert_eq(virtio_net_init(&other, NULL, irq, net_guest_mac), LOAM_ERROR_INVALID);
    cr_assert_eq(virtio_net_init(&other, guest.memory.map, irq, (uint8_t[6]){[5] = 1}), LOAM_OK);
    virtio_net_destroy(&other);
}

/* --- Transmission ----------------------------------------------------------------------------------------------- */

Test(virtio_net, sends_a_frame_and_interrupts)
{
    uint8_t frame[60];

    fill(frame, sizeof frame, 1);
    net_guest_send(&guest, frame, sizeof frame);
    cr_assert_eq(outside.bytes, sizeof frame);
    cr_assert_arr_eq(outside.frame, frame, sizeof frame);
    cr_assert(guest.level);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_USED);
    expect_sent(1, sizeof frame, 0);
    expect_received(0, 0, 0);
}

/* In three buffers, cut at each pair of places; the first one's end goes across regions. */
Test(virtio_net, a_frame_may_be_cut_anywhere)
{
    enum { FRAME = 20, BYTES = HEADER + FRAME };
    uint8_t packet[BYTES];

    fill(packet, BYTES, 3);
    for (uint32_t first = 0; first <= BYTES; first++) {
        for (uint32_t second = first; second <= BYTES; second++) {
            const struct virtio_buffer buffers[] = {{GUEST_NEXT - first / 2, first, false},
                                                    {NET_GUEST_SENT, second - first, false},
                                                    {NET_GUEST_SENT + 0x1000, BYTES - second, false}};

            memcpy(at(GUEST_NEXT - first / 2), packet, first / 2);
            memcpy(at(GUEST_NEXT), packet + first / 2, first - first / 2);
            memcpy(at(NET_GUEST_SENT), packet + first, second - first);
            memcpy(at(NET_GUEST_SENT + 0x1000), packet + second, BYTES - second);
            outside.bytes = 0;
            transmit(buffers, 3);
            cr_assert_eq(outside.bytes, FRAME, "cut at %u and %u", first, second);
            cr_assert_arr_eq(outside.frame, packet + HEADER, FRAME, "cut at %u and %u", first, second);
        }
    }
}

Test(virtio_net, sends_no_frame_beyond_its_limits)
{
    static const struct {
        uint32_t bytes;
        bool goes;
    } cases[] = {{1, false},
                 {HEADER - 1, false},
                 {HEADER, false},
                 {HEADER + 13, false},
                 {HEADER + 14, true},
                 {HEADER + FRAME_MAX, true},
                 {HEADER + FRAME_MAX + 1, false},
                 {0x10000, false}};

    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        outside.send_count = 0;
        transmit(&(struct virtio_buffer){NET_GUEST_SENT, cases[i].bytes, false}, 1);
        cr_assert_eq(outside.send_count, cases[i].goes, "%u bytes", cases[i].bytes);
    }
    expect_sent(2, 14 + FRAME_MAX, 6);
    cr_assert_eq(FRAME_MAX, 1518);
}

Test(virtio_net, what_is_to_be_written_is_no_part_of_a_frame_sent)
{
    const struct virtio_buffer buffers[] = {{NET_GUEST_SENT, HEADER + 60, false}, {GUEST_HIGH, 64, true}};
    const uint8_t *high = at(GUEST_HIGH);

    transmit(buffers, 2);
    cr_assert_eq(outside.bytes, 60);
    for (uint32_t i = 0; i < 64; i++) {
        cr_assert_eq(high[i], 0);
    }
    transmit(&(struct virtio_buffer){GUEST_HIGH, 128, true}, 1);
    cr_assert_eq(outside.send_count, 1);
    expect_sent(1, 60, 1);
}

Test(virtio_net, counts_what_the_outside_does_not_take)
{
    const uint8_t frame[60] = {0};

    outside.refuses = true;
    net_guest_send(&guest, frame, sizeof frame);
    expect_sent(0, 0, 1);
    outside.refuses = false;
    virtio_net_connect(&guest.net, NULL);
    net_guest_send(&guest, frame, sizeof frame);
    expect_sent(0, 0, 2);
    cr_assert_eq(outside.send_count, 1);
}

Test(virtio_net, sends_all_that_is_there_at_one_ring)
{
    uint16_t heads[SIZE];

    for (uint32_t i = 0; i < SIZE; i++) {
        heads[i] = add(&guest.transmit, &(struct virtio_buffer){NET_GUEST_SENT, HEADER + 14 + i, false}, 1);
    }
    net_guest_ring(&guest, VIRTIO_NET_TRANSMIT);
    for (uint32_t i = 0; i < SIZE; i++) {
        expect_used(&guest.transmit, heads[i], 0);
    }
    cr_assert_eq(outside.send_count, SIZE);
    cr_assert_eq(outside.bytes, 14 + SIZE - 1);
}

Test(virtio_net, one_ring_is_bounded_work)
{
    const uint16_t head = add(&guest.transmit, &(struct virtio_buffer){NET_GUEST_SENT, HEADER + 60, false}, 1);

    for (uint32_t i = 0; i < SIZE; i++) {
        virtio_guest_put_16(&guest.memory, guest.transmit.config.available.value + 4 + UINT64_C(2) * i, head);
    }
    outside.feeds = true;
    net_guest_ring(&guest, VIRTIO_NET_TRANSMIT);
    cr_assert_eq(outside.send_count, SIZE);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_STATUS), 0x0f);
}

Test(virtio_net, respects_a_driver_that_wants_no_interrupt)
{
    virtio_guest_put_16(&guest.memory, guest.transmit.config.available.value, VIRTQ_AVAIL_F_NO_INTERRUPT);
    virtio_guest_put_16(&guest.memory, guest.receive.config.available.value, VIRTQ_AVAIL_F_NO_INTERRUPT);
    transmit(&(struct virtio_buffer){NET_GUEST_SENT, HEADER + 60, false}, 1);
    net_guest_offer(&guest, 0);
    cr_assert(receive(60, 1));
    cr_assert_not(guest.level);
    virtio_guest_put_16(&guest.memory, guest.receive.config.available.value, 0);
    net_guest_offer(&guest, 1);
    cr_assert(receive(60, 2));
    cr_assert(guest.level);
}

/* --- Reception -------------------------------------------------------------------------------------------------- */

Test(virtio_net, a_frame_arrives_behind_its_header)
{
    static const uint8_t header[HEADER] = {[10] = 1};
    const uint8_t *buffer = at(NET_GUEST_BUFFERS);
    uint8_t frame[61];
    uint16_t head;

    memset(at(NET_GUEST_BUFFERS), 0xee, NET_GUEST_BUFFER_BYTES);
    head = add(&guest.receive, &(struct virtio_buffer){NET_GUEST_BUFFERS, HEADER + FRAME_MAX, true}, 1);
    cr_assert(receive(sizeof frame, 5));
    expect_used(&guest.receive, head, HEADER + sizeof frame);
    fill(frame, sizeof frame, 5);
    cr_assert_arr_eq(buffer, header, HEADER);
    cr_assert_arr_eq(buffer + HEADER, frame, sizeof frame);
    for (size_t i = HEADER + sizeof frame; i < NET_GUEST_BUFFER_BYTES; i++) {
        cr_assert_eq(buffer[i], 0xee, "byte %zu", i);
    }
    cr_assert(guest.level);
    expect_received(1, sizeof frame, 0);
    expect_sent(0, 0, 0);
}

/* Header and frame over three buffers; the first one's end goes across regions. */
Test(virtio_net, a_buffer_may_be_cut_anywhere)
{
    enum { FRAME = 20, BYTES = HEADER + FRAME };
    uint8_t packet[BYTES] = {[10] = 1}, found[BYTES];

    fill(packet + HEADER, FRAME, 9);
    for (uint32_t first = 0; first <= BYTES; first++) {
        for (uint32_t second = first; second <= BYTES; second++) {
            const struct virtio_buffer buffers[] = {{GUEST_NEXT - first / 2, first, true},
                                                    {GUEST_HIGH, second - first, true},
                                                    {GUEST_HIGH + 0x1000, BYTES - second, true}};
            const uint16_t head = add(&guest.receive, buffers, 3);

            cr_assert(receive(FRAME, 9));
            expect_used(&guest.receive, head, BYTES);
            memcpy(found, at(GUEST_NEXT - first / 2), first / 2);
            memcpy(found + first / 2, at(GUEST_NEXT), first - first / 2);
            memcpy(found + first, at(GUEST_HIGH), second - first);
            memcpy(found + second, at(GUEST_HIGH + 0x1000), BYTES - second);
            cr_assert_arr_eq(found, packet, BYTES, "cut at %u and %u", first, second);
        }
    }
}

Test(virtio_net, a_frame_beyond_the_limits_is_dropped_and_costs_no_buffer)
{
    net_guest_offer(&guest, 0);
    cr_assert(receive(0, 1));
    cr_assert(receive(13, 1));
    cr_assert(receive(FRAME_MAX + 1, 1));
    expect_nothing_used(&guest.receive);
    expect_received(0, 0, 3);
    cr_assert_not(guest.level);
    cr_assert(receive(FRAME_MAX, 1));
    expect_received(1, FRAME_MAX, 3);
    cr_assert_eq(outside.room_count, 0);
}

Test(virtio_net, a_buffer_that_is_too_small_comes_back_untouched)
{
    uint8_t *high = at(GUEST_HIGH);
    uint16_t head = add(&guest.receive, &(struct virtio_buffer){GUEST_HIGH, HEADER + 59, true}, 1);

    memset(high, 0xee, 256);
    cr_assert(receive(60, 1));
    expect_used(&guest.receive, head, 0);
    head = add(&guest.receive, &(struct virtio_buffer){GUEST_HIGH, 1, true}, 1);
    cr_assert(receive(60, 1));
    expect_used(&guest.receive, head, 0);
    for (uint32_t i = 0; i < 256; i++) {
        cr_assert_eq(high[i], 0xee);
    }
    cr_assert(guest.level, "the driver gets its buffer back");
    expect_received(0, 0, 2);
    head = add(&guest.receive, &(struct virtio_buffer){GUEST_HIGH, HEADER + 60, true}, 1);
    cr_assert(receive(60, 1));
    expect_used(&guest.receive, head, HEADER + 60);
    expect_received(1, 60, 2);
}

Test(virtio_net, what_is_to_be_read_is_no_place_for_a_frame)
{
    const struct virtio_buffer buffers[] = {{GUEST_HIGH, 4096, false}, {GUEST_HIGH + 0x1000, HEADER + 60, true}};
    uint8_t *high = at(GUEST_HIGH);
    uint16_t head = add(&guest.receive, buffers, 1);

    memset(high, 0xee, 4096);
    cr_assert(receive(60, 1));
    expect_used(&guest.receive, head, 0);
    head = add(&guest.receive, buffers, 2);
    cr_assert(receive(60, 1));
    expect_used(&guest.receive, head, HEADER + 60);
    for (uint32_t i = 0; i < 4096; i++) {
        cr_assert_eq(high[i], 0xee);
    }
    cr_assert_eq(high[0x1000 + 10], 1);
}

Test(virtio_net, a_chain_may_be_as_long_as_the_queue)
{
    struct virtio_buffer buffers[VIRTIO_NET_QUEUE_SIZE_MAX];
    uint16_t head;

    virtio_driver_init(&guest.receive, &guest.memory, VIRTIO_NET_QUEUE_SIZE_MAX, GUEST_HIGH);
    virtio_driver_init(&guest.transmit, &guest.memory, VIRTIO_NET_QUEUE_SIZE_MAX, GUEST_HIGH + 0x4000);
    net_guest_start(&guest);
    for (uint32_t i = 0; i < VIRTIO_NET_QUEUE_SIZE_MAX; i++) {
        buffers[i] = (struct virtio_buffer){GUEST_NEXT - 1, 2, true}; /* each in two pieces */
    }
    head = add(&guest.receive, buffers, VIRTIO_NET_QUEUE_SIZE_MAX);
    cr_assert(receive(2 * VIRTIO_NET_QUEUE_SIZE_MAX - HEADER, 1));
    expect_used(&guest.receive, head, 2 * VIRTIO_NET_QUEUE_SIZE_MAX);
    for (uint32_t i = 0; i < VIRTIO_NET_QUEUE_SIZE_MAX; i++) {
        buffers[i].writable = false;
    }
    transmit(buffers, VIRTIO_NET_QUEUE_SIZE_MAX);
    cr_assert_eq(outside.bytes, 2 * VIRTIO_NET_QUEUE_SIZE_MAX - HEADER);
}

/* --- Without buffers, without a driver, at rest ------------------------------------------------------------------ */

Test(virtio_net, a_frame_without_a_buffer_waits_outside_for_room)
{
    cr_assert_not(receive(60, 1));
    cr_assert_not(receive(60, 1));
    expect_received(0, 0, 0);
    cr_assert_eq(outside.room_count, 0);
    net_guest_offer(&guest, 0);
    cr_assert_eq(outside.room_count, 1);
    net_guest_offer(&guest, 1);
    cr_assert_eq(outside.room_count, 1, "it is said once");
    cr_assert(receive(60, 1));
    cr_assert(receive(60, 2));
    cr_assert_not(receive(60, 3));
    expect_received(2, 120, 0);
    virtio_net_lose(&guest.net);
    expect_received(2, 120, 1);
}

Test(virtio_net, a_frame_without_a_driver_is_dropped)
{
    static const uint32_t steps[] = {0x00, 0x01, 0x03};

    net_guest_offer(&guest, 0);
    for (uint32_t i = 0; i < 3; i++) {
        net_guest_out(&guest, VIRTIO_MMIO_STATUS, steps[i]);
        cr_assert(receive(60, 1));
    }
    expect_received(0, 0, 3);
    expect_nothing_used(&guest.receive);
    net_guest_bring_up(&guest);
    net_guest_offer(&guest, 0);
    net_guest_out(&guest, VIRTIO_MMIO_STATUS, 0x8f);
    cr_assert(receive(60, 1), "the driver has given up");
    expect_received(0, 0, 4);
    expect_nothing_used(&guest.receive);
}

Test(virtio_net, a_queue_that_stops_gives_room_for_the_frame_to_be_dropped)
{
    cr_assert_not(receive(60, 1));
    net_guest_out(&guest, VIRTIO_MMIO_QUEUE_SELECT, VIRTIO_NET_TRANSMIT);
    net_guest_out(&guest, VIRTIO_MMIO_QUEUE_READY, 0);
    cr_assert_eq(outside.room_count, 0);
    net_guest_out(&guest, VIRTIO_MMIO_QUEUE_SELECT, VIRTIO_NET_RECEIVE);
    net_guest_out(&guest, VIRTIO_MMIO_QUEUE_READY, 0);
    cr_assert_eq(outside.room_count, 1);
    cr_assert(receive(60, 1));
    expect_received(0, 0, 1);
}

Test(virtio_net, a_reset_in_flight_forgets_every_buffer)
{
    uint8_t *buffers = at(NET_GUEST_BUFFERS);
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    size_t bytes;

    for (uint32_t i = 0; i < 4; i++) {
        net_guest_offer(&guest, i);
    }
    cr_assert(receive(60, 1));
    memset(buffers, 0xee, 4 * NET_GUEST_BUFFER_BYTES);
    net_guest_bring_up(&guest);
    cr_assert_not(receive(60, 2));
    for (uint32_t i = 0; i < 4 * NET_GUEST_BUFFER_BYTES; i++) {
        cr_assert_eq(buffers[i], 0xee);
    }
    net_guest_out(&guest, VIRTIO_MMIO_STATUS, 0);
    cr_assert_eq(outside.room_count, 1);
    net_guest_bring_up(&guest);
    net_guest_offer(&guest, 5);
    cr_assert(receive(60, 3));
    cr_assert(net_guest_take(&guest, frame, &bytes));
    cr_assert_eq(bytes, 60);
    expect_received(2, 120, 0);
}

/* Nothing of the guest's changes, neither its memory nor its line. */
Test(virtio_net, nothing_enters_a_guest_that_stands_still)
{
    static uint8_t before[64 * 4096];
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    size_t bytes;

    net_guest_offer(&guest, 0);
    cr_assert_leq(guest.memory.arena_bytes, sizeof before);
    memcpy(before, guest.memory.arena, guest.memory.arena_bytes);
    virtio_net_quiesce(&guest.net);
    cr_assert_not(receive(60, 7));
    cr_assert_not(receive(60, 7));
    net_guest_ring(&guest, VIRTIO_NET_RECEIVE);
    cr_assert_eq(outside.room_count, 0);
    cr_assert_eq(memcmp(before, guest.memory.arena, guest.memory.arena_bytes), 0);
    cr_assert_not(guest.level);
    virtio_net_resume(&guest.net);
    cr_assert_eq(outside.room_count, 1);
    cr_assert_not(guest.level);
    cr_assert(receive(60, 7));
    cr_assert(net_guest_take(&guest, frame, &bytes));
    expect_received(1, 60, 0);
}

Test(virtio_net, without_a_link_frames_are_dropped_both_ways)
{
    const uint8_t frame[60] = {0};
    const uint32_t generation = net_guest_in(&guest, VIRTIO_MMIO_CONFIG_GENERATION);

    cr_assert_not(receive(60, 1));
    net_guest_offer(&guest, 0);
    cr_assert_eq(outside.room_count, 1);
    virtio_net_set_link(&guest.net, true);
    cr_assert_not(guest.level, "no change");
    virtio_net_set_link(&guest.net, false);
    cr_assert(guest.level);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_CONFIG);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_CONFIG + 4), 0x00005634);
    cr_assert_neq(net_guest_in(&guest, VIRTIO_MMIO_CONFIG_GENERATION), generation);
    cr_assert(receive(60, 1));
    net_guest_send(&guest, frame, sizeof frame);
    expect_received(0, 0, 1);
    expect_sent(0, 0, 1);
    virtio_net_set_link(&guest.net, true);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_CONFIG + 4), 0x00015634);
    cr_assert(receive(60, 1));
    net_guest_send(&guest, frame, sizeof frame);
    expect_received(1, 60, 1);
    expect_sent(1, 60, 1);
}

Test(virtio_net, a_link_that_changes_meanwhile_is_told_when_the_guest_goes_on)
{
    cr_assert_not(receive(60, 1));
    virtio_net_quiesce(&guest.net);
    virtio_net_set_link(&guest.net, false);
    cr_assert_not(guest.level);
    cr_assert_eq(outside.room_count, 0);
    virtio_net_resume(&guest.net);
    cr_assert(guest.level);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_CONFIG);
    cr_assert_eq(outside.room_count, 1);
    net_guest_out(&guest, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_INTERRUPT_CONFIG);
    virtio_net_quiesce(&guest.net);
    virtio_net_resume(&guest.net);
    cr_assert_not(guest.level);
}

Test(virtio_net, a_way_outside_that_is_new_is_owed_no_room)
{
    cr_assert_not(receive(60, 1));
    virtio_net_connect(&guest.net, &connection);
    net_guest_offer(&guest, 0);
    cr_assert_eq(outside.room_count, 0);
    virtio_net_connect(&guest.net, NULL);
    cr_assert(receive(60, 1));
    cr_assert_not(receive(60, 1));
    net_guest_offer(&guest, 1);
    cr_assert_eq(outside.room_count, 0);
}

/* --- Hostile ---------------------------------------------------------------------------------------------------- */

Test(virtio_net, a_malformed_chain_to_receive_into_costs_the_frame_and_wants_a_reset)
{
    (void)add(&guest.receive, &(struct virtio_buffer){GUEST_READONLY, HEADER + 60, true}, 1);
    cr_assert(receive(60, 1));
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_STATUS), 0x4f);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_INTERRUPT_CONFIG);
    expect_nothing_used(&guest.receive);
    cr_assert(receive(60, 1));
    expect_received(0, 0, 2);
    net_guest_bring_up(&guest);
    net_guest_offer(&guest, 0);
    cr_assert(receive(60, 1));
    expect_received(1, 60, 2);
}

Test(virtio_net, what_came_before_a_malformed_chain_is_sent)
{
    const uint16_t head = add(&guest.transmit, &(struct virtio_buffer){NET_GUEST_SENT, HEADER + 60, false}, 1);

    (void)add(&guest.transmit, &(struct virtio_buffer){GUEST_GAP, HEADER + 60, false}, 1);
    net_guest_ring(&guest, VIRTIO_NET_TRANSMIT);
    expect_used(&guest.transmit, head, 0);
    cr_assert_eq(outside.send_count, 1);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_STATUS), 0x4f);
    net_guest_offer(&guest, 0);
    cr_assert(receive(60, 1));
    expect_nothing_used(&guest.receive);
    expect_received(0, 0, 1);
}

Test(virtio_net, a_chain_that_goes_in_circles_ends)
{
    const uint64_t table = guest.receive.config.descriptors.value;

    (void)add(&guest.receive, &(struct virtio_buffer){GUEST_HIGH, 1, true}, 1);
    for (uint32_t i = 0; i < SIZE; i++) {
        virtio_guest_put_descriptor(&guest.memory, table, (uint16_t)i, GUEST_HIGH, 1,
                                    VIRTQ_DESC_F_WRITE | VIRTQ_DESC_F_NEXT, (uint16_t)((i + 1) % SIZE));
    }
    cr_assert(receive(60, 1));
    cr_assert_eq(guest.net.mmio.queues[VIRTIO_NET_RECEIVE].fault, VIRTQUEUE_FAULT_LOOP);
    expect_received(0, 0, 1);
}

/* The used ring becomes read-only between the set-up and the frame. */
Test(virtio_net, rings_that_are_taken_away_break_the_queue_and_no_more)
{
    net_guest_offer(&guest, 0);
    (void)add(&guest.transmit, &(struct virtio_buffer){NET_GUEST_SENT, HEADER + 60, false}, 1);
    cr_assert_eq(loam_gpa_map_protect(guest.memory.map, loam_gpa_from_u64(GUEST_LOW), 0x4000, LOAM_ACCESS_READ),
                 LOAM_OK);
    cr_assert(receive(60, 1));
    expect_received(0, 0, 1);
    cr_assert_eq(guest.net.mmio.queues[VIRTIO_NET_RECEIVE].fault, VIRTQUEUE_FAULT_RING);
    cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_STATUS), 0x4f);
}

/* Everything in the arena that the guest itself may not write, against how it was. */
static bool untouched(const uint8_t *before)
{
    static bool writable[64];

    for (uint64_t gpa = GUEST_LOW; gpa < GUEST_HIGH_END; gpa += gpa == GUEST_GAP ? GUEST_HIGH - GUEST_GAP : 4096) {
        const ptrdiff_t offset = virtio_guest_offset(gpa, true);

        if (offset >= 0) {
            writable[offset / 4096] = true;
        }
    }
    for (size_t offset = 0; offset < guest.memory.arena_bytes; offset += 4096) {
        if (!writable[offset / 4096] && memcmp(guest.memory.arena + offset, before + offset, 4096) != 0) {
            return false;
        }
    }
    return true;
}

/* Descriptors and available ring full of random things, and something of it available. */
static void spoil(struct random *random, const struct virtqueue_config *config, uint16_t next_available)
{
    static const uint64_t places[] = {GUEST_HIGH, GUEST_HIGH + 0x8000, GUEST_NEXT - 8,     GUEST_READONLY - 8,
                                      GUEST_GAP,  GUEST_DEVICE,        GUEST_HIGH_END - 8, UINT64_MAX - 8};
    static const uint32_t lengths[] = {1, HEADER, HEADER + 14, 600, HEADER + FRAME_MAX, 2000, 16};

    for (uint16_t i = 0; i < config->size; i++) {
        const uint64_t address = places[random_below(random, random_one_in(random, 32) ? 8 : 3)];
        const uint32_t flags = random_one_in(random, 32)  ? (uint32_t)random_u64(random)
                               : random_one_in(random, 2) ? VIRTQ_DESC_F_WRITE
                                                          : 0u;
        const uint32_t bytes =
            random_one_in(random, 64) ? (uint32_t)random_u64(random) : lengths[random_below(random, 7)];

        virtio_guest_put_descriptor(&guest.memory, config->descriptors.value, i, address + random_below(random, 16),
                                    bytes, (uint16_t)(flags | (random_one_in(random, 3) ? VIRTQ_DESC_F_NEXT : 0)),
                                    (uint16_t)random_below(random, config->size + random_one_in(random, 32)));
        virtio_guest_put_16(&guest.memory, config->available.value + 4 + UINT64_C(2) * i,
                            (uint16_t)random_below(random, config->size + random_one_in(random, 64)));
    }
    virtio_guest_put_16(&guest.memory, config->available.value + 2,
                        (uint16_t)(next_available + random_below(random, config->size + 1)));
}

Test(virtio_net, hostile_rings_write_nothing_that_the_guest_may_not)
{
    enum { SEED = 20261127, ROUNDS = 40000 };
    static uint8_t before[64 * 4096];
    struct random random = {SEED};
    uint32_t reset_count = 0;
    struct virtio_net_counts now;

    cr_assert_leq(guest.memory.arena_bytes, sizeof before);
    memcpy(before, guest.memory.arena, guest.memory.arena_bytes);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const enum virtio_net_queue queue = random_below(&random, 2);
        struct virtio_driver *driver = queue == VIRTIO_NET_RECEIVE ? &guest.receive : &guest.transmit;

        if (net_guest_in(&guest, VIRTIO_MMIO_STATUS) != 0x0f) {
            driver->config.size = 1u << random_below(&random, 5);
            net_guest_start(&guest);
            reset_count++;
        }
        spoil(&random, &driver->config, guest.net.mmio.queues[queue].next_available);
        net_guest_ring(&guest, queue);
        for (uint32_t i = random_below(&random, 4); i > 0; i--) {
            (void)receive(random_below(&random, FRAME_MAX + 512), round);
        }
        net_guest_out(&guest, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        if (round % 64 == 0) {
            cr_assert(untouched(before), "seed %d, by round %u", SEED, round);
        }
    }
    cr_assert(untouched(before), "seed %d", SEED);
    now = counts();
    cr_assert_gt(reset_count, ROUNDS / 64);
    cr_assert_gt(now.sent.frames, ROUNDS / 64, "%lu", now.sent.frames);
    cr_assert_gt(now.received.frames, ROUNDS / 64, "%lu", now.received.frames);
    cr_assert_gt(now.received.dropped_frames, ROUNDS / 64);
}

/* --- Against an oracle ------------------------------------------------------------------------------------------- */

/*
 * A driver that keeps to the specification, with buffers of all kinds in the first two thirds of GUEST_HIGH, and frames
 * both ways. The oracle is a second arena into which it writes what the device should.
 */
enum { ORACLE_SEED = 510, ORACLE_ROUNDS = 20000, PART_MAX = 4 };

struct offered {
    uint16_t head;
    uint16_t count;
    struct virtio_buffer buffers[PART_MAX];
};

static struct oracle {
    struct random random;
    uint8_t arena[64 * 4096];
    struct offered queue[SIZE]; /* buffers with the device, in order */
    uint32_t queue_count;
    bool is_up, is_quiet, is_room_awaited;
    uint32_t room_count;
    struct virtio_net_counts counts;
} oracle;

static uint64_t writable_bytes(const struct offered *offered)
{
    uint64_t bytes = 0;

    for (uint16_t i = 0; i < offered->count; i++) {
        bytes += offered->buffers[i].writable ? offered->buffers[i].bytes : 0;
    }
    return bytes;
}

/* What the guest's memory is but for the used rings, which virtio_driver_take looks at. */
static void expect_memory(uint32_t round)
{
    const struct virtqueue_config *rings[] = {&guest.receive.config, &guest.transmit.config};

    for (uint32_t i = 0; i < 2; i++) {
        const ptrdiff_t used = virtio_guest_offset(rings[i]->used.value, true);

        memcpy(oracle.arena + used, guest.memory.arena + used, 4 + 8 * SIZE);
    }
    cr_assert_eq(memcmp(oracle.arena, guest.memory.arena, guest.memory.arena_bytes), 0, "seed %d, round %u",
                 ORACLE_SEED, round);
}

static void copy_memory(void)
{
    memcpy(oracle.arena, guest.memory.arena, guest.memory.arena_bytes);
}

static void oracle_give_room(void)
{
    if (oracle.is_room_awaited && !oracle.is_quiet) {
        oracle.is_room_awaited = false;
        oracle.room_count++;
    }
}

/* Slots of 4 KiB, one a chain: buffers that do not meet. */
static void play_offer(void)
{
    struct offered offered = {.count = (uint16_t)(1 + random_below(&oracle.random, PART_MAX))};
    const uint64_t slot = GUEST_HIGH + UINT64_C(4096) * random_below(&oracle.random, 20);

    for (uint32_t i = 0; i < oracle.queue_count; i++) {
        if ((oracle.queue[i].buffers[0].gpa & ~UINT64_C(4095)) == slot) {
            return;
        }
    }
    for (uint16_t i = 0; i < offered.count; i++) {
        offered.buffers[i] = (struct virtio_buffer){
            .gpa = slot + UINT64_C(1024) * i + random_below(&oracle.random, 16),
            .bytes = random_below(&oracle.random, random_one_in(&oracle.random, 3) ? 24 : 1000),
            .writable = i > 0 || !random_one_in(&oracle.random, 8),
        };
    }
    if (!virtio_driver_add(&guest.receive, offered.buffers, offered.count, &offered.head)) {
        return;
    }
    oracle.queue[oracle.queue_count++] = offered;
    copy_memory();
    net_guest_ring(&guest, VIRTIO_NET_RECEIVE);
    oracle_give_room();
}

static void oracle_write(const struct offered *offered, const uint8_t *packet, size_t bytes)
{
    for (uint16_t i = 0; i < offered->count && bytes > 0; i++) {
        const struct virtio_buffer *buffer = &offered->buffers[i];
        const size_t now = !buffer->writable ? 0 : buffer->bytes < bytes ? buffer->bytes : bytes;

        memcpy(oracle.arena + virtio_guest_offset(buffer->gpa, true), packet, now);
        packet += now;
        bytes -= now;
    }
}

static void play_receive(uint32_t round)
{
    const size_t bytes = random_below(&oracle.random, random_one_in(&oracle.random, 4) ? FRAME_MAX + 100 : 200);
    uint8_t packet[HEADER + FRAME_MAX + 100] = {[10] = 1};
    const bool drops = bytes < 14 || bytes > FRAME_MAX || !oracle.is_up;
    const bool waits = !drops && (oracle.is_quiet || oracle.queue_count == 0);

    fill(packet + HEADER, bytes, round);
    copy_memory();
    cr_assert_eq(virtio_net_receive(&guest.net, packet + HEADER, bytes), !waits, "round %u", round);
    oracle.is_room_awaited |= waits;
    if (drops) {
        oracle.counts.received.dropped_frames++;
    } else if (!waits) {
        const struct offered offered = oracle.queue[0];
        const bool fits = writable_bytes(&offered) >= HEADER + bytes;

        memmove(oracle.queue, oracle.queue + 1, --oracle.queue_count * sizeof oracle.queue[0]);
        oracle_write(&offered, packet, fits ? HEADER + bytes : 0);
        oracle.counts.received.frames += fits;
        oracle.counts.received.bytes += fits ? bytes : 0;
        oracle.counts.received.dropped_frames += !fits;
        expect_used(&guest.receive, offered.head, fits ? (uint32_t)(HEADER + bytes) : 0);
    }
}

static void play_transmit(uint32_t round)
{
    uint8_t packet[HEADER + FRAME_MAX + 100];
    const uint32_t bytes = random_below(&oracle.random, random_one_in(&oracle.random, 4) ? sizeof packet : 200);
    const uint32_t cut = random_below(&oracle.random, bytes + 1);
    const uint64_t start = GUEST_HIGH + 0x18000;
    const struct virtio_buffer buffers[] = {
        {start, cut, false}, {start + 0x1000, bytes - cut, false}, {start + 0x2000, 100, true}};
    const bool goes = oracle.is_up && bytes >= HEADER + 14 && bytes <= HEADER + FRAME_MAX;

    fill(packet, sizeof packet, round);
    memcpy(at(start), packet, cut);
    memcpy(at(start + 0x1000), packet + cut, bytes - cut);
    outside.send_count = 0;
    outside.refuses = random_one_in(&oracle.random, 8);
    transmit(buffers, (uint16_t)(2 + random_below(&oracle.random, 2)));
    copy_memory();
    cr_assert_eq(outside.send_count, goes, "seed %d, round %u", ORACLE_SEED, round);
    if (goes) {
        cr_assert_eq(outside.bytes, bytes - HEADER);
        cr_assert_eq(memcmp(outside.frame, packet + HEADER, bytes - HEADER), 0, "round %u", round);
    }
    oracle.counts.sent.frames += goes && !outside.refuses;
    oracle.counts.sent.bytes += goes && !outside.refuses ? bytes - HEADER : 0;
    oracle.counts.sent.dropped_frames += !goes || outside.refuses;
}

static void play_rest(void)
{
    oracle.is_quiet = !oracle.is_quiet;
    (oracle.is_quiet ? virtio_net_quiesce : virtio_net_resume)(&guest.net);
    oracle_give_room();
}

static void play_link(void)
{
    oracle.is_up = !oracle.is_up;
    virtio_net_set_link(&guest.net, oracle.is_up);
    oracle_give_room();
}

static void play_reset(void)
{
    oracle_give_room();
    oracle.queue_count = 0;
    net_guest_bring_up(&guest);
    copy_memory();
}

static void play(uint32_t round)
{
    const uint32_t choice = random_below(&oracle.random, 100);

    if (choice < 35) {
        play_offer();
    } else if (choice < 70) {
        play_receive(round);
    } else if (choice < 90) {
        play_transmit(round);
    } else if (choice < 94 || (choice < 98 && oracle.is_quiet)) {
        play_rest();
    } else if (choice < 99) {
        play_link();
    } else {
        play_reset();
    }
}

Test(virtio_net, does_what_an_oracle_says)
{
    oracle = (struct oracle){.random = {ORACLE_SEED}, .is_up = true};
    cr_assert_leq(guest.memory.arena_bytes, sizeof oracle.arena);
    copy_memory();
    for (uint32_t round = 0; round < ORACLE_ROUNDS; round++) {
        const struct virtio_net_counts now = counts();

        cr_assert_eq(memcmp(&now, &oracle.counts, sizeof now), 0, "seed %d, round %u", ORACLE_SEED, round);
        play(round);
        expect_memory(round);
        cr_assert_eq(outside.room_count, oracle.room_count, "seed %d, round %u", ORACLE_SEED, round);
        cr_assert_eq(net_guest_in(&guest, VIRTIO_MMIO_STATUS), 0x0f);
        net_guest_out(&guest, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
    }
    cr_assert_gt(oracle.counts.received.frames, ORACLE_ROUNDS / 32, "%lu", oracle.counts.received.frames);
    cr_assert_gt(oracle.counts.received.dropped_frames, ORACLE_ROUNDS / 32);
    cr_assert_gt(oracle.counts.sent.frames, ORACLE_ROUNDS / 32);
    cr_assert_gt(oracle.room_count, ORACLE_ROUNDS / 256, "%u", oracle.room_count);
}

/* --- Threads ---------------------------------------------------------------------------------------------------- */

enum { FRAMES = 3000 };

static atomic_bool is_over;

/* Frames that are numbered, each tried until it is taken; the last one is followed by the word. */
static void *bring_frames(void *self)
{
    uint8_t frame[64] = {0};

    (void)self;
    for (uint32_t number = 1; number <= FRAMES; number++) {
        memcpy(frame + 14, &number, sizeof number);
        while (!virtio_net_receive(&guest.net, frame, sizeof frame)) {
            sched_yield();
        }
    }
    atomic_store(&is_over, true);
    return NULL;
}

static uint32_t number_of(const uint8_t *frame)
{
    uint32_t number;

    memcpy(&number, frame + 14, sizeof number);
    return number;
}

/* A guest that receives, sends, stands still and starts anew, while frames come. They keep their order. */
Test(virtio_net, frames_come_beside_all_else)
{
    struct random random = {99};
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    uint32_t last = 0, taken = 0, offered = 0;
    size_t bytes;
    pthread_t thread;

    atomic_store(&is_over, false);
    cr_assert_eq(pthread_create(&thread, NULL, bring_frames, NULL), 0);
    while (!atomic_load(&is_over)) {
        while (offered < 8) {
            net_guest_offer(&guest, offered++);
        }
        while (net_guest_take(&guest, frame, &bytes)) {
            cr_assert_eq(bytes, 64);
            cr_assert_gt(number_of(frame), last, "after %u", last);
            last = number_of(frame);
            taken++;
        }
        net_guest_out(&guest, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        net_guest_send(&guest, frame, 60);
        if (random_one_in(&random, 16)) {
            virtio_net_quiesce(&guest.net);
            while (net_guest_take(&guest, frame, &bytes)) {
                last = number_of(frame);
                taken++;
            }
            cr_assert_not(net_guest_take(&guest, frame, &bytes), "a frame has come to a guest that stands still");
            virtio_net_resume(&guest.net);
        }
        if (random_one_in(&random, 64)) {
            net_guest_bring_up(&guest);
            offered = 0;
        }
        sched_yield();
    }
    pthread_join(thread, NULL);
    cr_assert_gt(taken, 0);
    cr_assert_eq(counts().received.frames + counts().received.dropped_frames, FRAMES);
}
