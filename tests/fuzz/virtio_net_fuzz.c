// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: a driver that does whatever the file says, and frames that come meanwhile. What the guest may not write is
 * not written, no frame beyond the limits goes out, and the device counts what it did.
 *
 * Guest memory: 32 KiB that the guest may write, 4 KiB that it may only read, each in host memory with a canary behind.
 */
#include "vmm/virtio_net.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

enum {
    PAGE = 4096,
    WRITABLE = 8 * PAGE,
    ARENA = WRITABLE + 3 * PAGE, /* the canary, what is only read, the canary */
    CANARY = 0xc5,
    SIZE = 8,
    RINGS = 1024 /* from one queue's to the next */
};

/* The file, as choices; the program ends with its bytes. */
struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t choose(struct input *input, size_t bytes)
{
    uint32_t value = 0;

    for (; bytes > 0 && input->left > 0; bytes--, input->left--) {
        value = value << 8 | *input->at++;
    }
    return value;
}

static struct {
    _Alignas(PAGE) uint8_t arena[ARENA];
    _Alignas(64) uint8_t map_memory[65536];
    struct loam_gpa_map *map;
    struct virtio_net net;
    uint64_t sent_frames, refused_frames;
    bool refuses;
} fuzz;

static bool send_frame(void *self, const void *frame, size_t bytes)
{
    uint8_t copy[VIRTIO_NET_FRAME_BYTES_MAX];

    (void)self;
    REQUIRE(bytes >= VIRTIO_NET_FRAME_BYTES_MIN && bytes <= sizeof copy);
    memcpy(copy, frame, bytes);
    *(fuzz.refuses ? &fuzz.refused_frames : &fuzz.sent_frames) += 1;
    return !fuzz.refuses;
}

static void insert(uint64_t start, uint8_t *hva, uint64_t bytes, enum loam_access access)
{
    const struct loam_region region = {
        .start = loam_gpa_from_u64(start), .bytes = bytes, .hva = hva, .type = LOAM_REGION_RAM, .access = access};

    REQUIRE(loam_gpa_map_insert(fuzz.map, &region) == LOAM_OK);
}

static void set_up(void)
{
    static const uint8_t mac[] = {0x52, 0x54, 0, 0, 0, 1};
    const struct virtio_net_outside outside = {.send = send_frame};

    memset(fuzz.arena, CANARY, sizeof fuzz.arena);
    memset(fuzz.arena, 0, WRITABLE);
    fuzz.sent_frames = fuzz.refused_frames = 0;
    fuzz.refuses = false;
    REQUIRE(loam_gpa_map_bytes(NULL) <= sizeof fuzz.map_memory);
    REQUIRE(loam_gpa_map_init(fuzz.map_memory, sizeof fuzz.map_memory, NULL, &fuzz.map) == LOAM_OK);
    insert(0, fuzz.arena, WRITABLE, LOAM_ACCESS_WRITE);
    insert(WRITABLE, fuzz.arena + WRITABLE + PAGE, PAGE, LOAM_ACCESS_READ);
    REQUIRE(virtio_net_init(&fuzz.net, fuzz.map, (struct irq_line){.set = NULL}, mac) == LOAM_OK);
    virtio_net_connect(&fuzz.net, &outside);
}

static void out(uint32_t offset, uint32_t value)
{
    struct bus_access access = {.offset = offset, .bytes = 4, .is_write = true, .value = value};

    virtio_mmio_access(&fuzz.net.mmio, &access);
}

static void bring_up(void)
{
    const uint32_t steps[][2] = {
        {VIRTIO_MMIO_STATUS, 0},          {VIRTIO_MMIO_STATUS, 1},
        {VIRTIO_MMIO_STATUS, 3},          {VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1},
        {VIRTIO_MMIO_DRIVER_FEATURES, 1}, {VIRTIO_MMIO_STATUS, 11},
    };

    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        out(steps[i][0], steps[i][1]);
    }
    for (uint32_t queue = 0; queue < VIRTIO_NET_QUEUE_COUNT; queue++) {
        out(VIRTIO_MMIO_QUEUE_SELECT, queue);
        out(VIRTIO_MMIO_QUEUE_SIZE, SIZE);
        out(VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, queue * RINGS);
        out(VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, queue * RINGS + 256);
        out(VIRTIO_MMIO_QUEUE_USED_LOW, queue * RINGS + 512);
        out(VIRTIO_MMIO_QUEUE_READY, 1);
    }
    out(VIRTIO_MMIO_STATUS, 15);
}

/* A buffer at one of the places where something begins or ends, of any size up to a little more than a frame needs. */
static void put_descriptor(struct input *input)
{
    static const uint64_t places[] = {4 * PAGE,       6 * PAGE,        WRITABLE - 64,
                                      WRITABLE,       WRITABLE + 1024, WRITABLE + PAGE - 8,
                                      2 * RINGS - 16, UINT64_MAX - 4};
    const uint32_t queue = choose(input, 1) % VIRTIO_NET_QUEUE_COUNT;
    const uint64_t address = places[choose(input, 1) % 8] + choose(input, 1) % 64;
    const uint32_t bytes = choose(input, 2) % 1600;
    const uint16_t flags = (uint16_t)(choose(input, 1) % 16 == 0 ? 7 : choose(input, 1) % 4);
    const uint16_t next = (uint16_t)(choose(input, 1) % (SIZE + 1));
    uint8_t *at = fuzz.arena + queue * RINGS + 16 * (size_t)(choose(input, 1) % SIZE);

    memcpy(at, &address, 8);
    memcpy(at + 8, &bytes, 4);
    memcpy(at + 12, &flags, 2);
    memcpy(at + 14, &next, 2);
}

/* One more chain, or another count of them. */
static void make_available(struct input *input)
{
    const uint32_t queue = choose(input, 1) % VIRTIO_NET_QUEUE_COUNT;
    const uint16_t head = (uint16_t)(choose(input, 1) % (SIZE + 1)), more = (uint16_t)(choose(input, 1) % (SIZE + 2));
    uint8_t *at = fuzz.arena + queue * RINGS + 256;
    uint16_t index;

    memcpy(&index, at + 2, 2);
    memcpy(at + 4 + 2 * (size_t)(index % SIZE), &head, 2);
    index = (uint16_t)(index + more);
    memcpy(at + 2, &index, 2);
}

static void poke(struct input *input)
{
    const size_t offset = choose(input, 2) % WRITABLE;
    const uint8_t value = (uint8_t)choose(input, 1);

    fuzz.arena[offset] = value;
}

static uint64_t receive(struct input *input)
{
    static const uint8_t frame[1600];

    return virtio_net_receive(&fuzz.net, frame, choose(input, 2) % 1600) ? 1 : 0;
}

static void change(uint32_t what)
{
    switch (what % 5) {
    case 0:
        virtio_net_quiesce(&fuzz.net);
        break;
    case 1:
        virtio_net_resume(&fuzz.net);
        break;
    case 2:
    case 3:
        virtio_net_set_link(&fuzz.net, what % 5 == 2);
        break;
    default:
        fuzz.refuses = !fuzz.refuses;
    }
}

/* Returns how many frames the guest has got or lost. */
static uint64_t play(struct input *input)
{
    switch (choose(input, 1) % 8) {
    case 0:
        put_descriptor(input);
        break;
    case 1:
        make_available(input);
        break;
    case 2:
        virtio_mmio_notify(&fuzz.net.mmio, choose(input, 1) % 3);
        break;
    case 3:
        return receive(input);
    case 4:
        poke(input);
        break;
    case 5:
        out(choose(input, 2) % VIRTIO_MMIO_BYTES, choose(input, 4));
        break;
    case 6:
        bring_up();
        break;
    default:
        change(choose(input, 1));
    }
    return 0;
}

static void expect_canaries(void)
{
    for (size_t i = WRITABLE; i < ARENA; i++) {
        REQUIRE(fuzz.arena[i] == CANARY);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct virtio_net_counts counts;
    uint64_t done_frames = 0;

    set_up();
    bring_up();
    while (input.left > 0) {
        done_frames += play(&input);
    }
    expect_canaries();
    virtio_net_read_counts(&fuzz.net, &counts);
    REQUIRE(counts.received.frames + counts.received.dropped_frames == done_frames);
    REQUIRE(counts.sent.frames == fuzz.sent_frames);
    REQUIRE(counts.sent.dropped_frames >= fuzz.refused_frames);
    virtio_net_destroy(&fuzz.net);
    return 0;
}
