// SPDX-License-Identifier: Apache-2.0
#include "tests/emulator/balloon_driver.h"

#include "guest/guest.h"

/* Where transports are: vmm/machine.h. */
#define TRANSPORTS      UINT64_C(0xd0000000)
#define TRANSPORT_BYTES UINT64_C(0x1000)
#define TRANSPORT_COUNT 8

/* Registers: virtio 1.2, section 4.2.2. */
enum {
    REGISTER_MAGIC = 0x000,
    REGISTER_DEVICE = 0x008,
    REGISTER_DRIVER_FEATURES = 0x020,
    REGISTER_DRIVER_FEATURES_SELECT = 0x024,
    REGISTER_QUEUE_SELECT = 0x030,
    REGISTER_QUEUE_SIZE = 0x038,
    REGISTER_QUEUE_READY = 0x044,
    REGISTER_QUEUE_NOTIFY = 0x050,
    REGISTER_STATUS = 0x070,
    REGISTER_DESCRIPTORS = 0x080,
    REGISTER_AVAILABLE = 0x090,
    REGISTER_USED = 0x0a0,
    REGISTER_TARGET = 0x100, /* of the configuration: num_pages, actual */
    REGISTER_ACTUAL = 0x104,
};

#define MAGIC          0x74726976u
#define DEVICE_BALLOON 5u
#define STATUS_KNOWN   3u  /* ACKNOWLEDGE, DRIVER */
#define STATUS_AGREED  11u /* and FEATURES_OK */
#define STATUS_STARTED 15u /* and DRIVER_OK */

enum { INFLATE, DEFLATE, QUEUE_COUNT };

#define QUEUE_SIZE  2
#define BATCH_PAGES 512u

struct descriptor {
    uint64_t gpa;
    uint32_t bytes;
    uint16_t flags, next;
};

struct queue { /* section 2.7: descriptors at 16 bytes, used ring at 4 */
    _Alignas(16) struct descriptor descriptors[QUEUE_SIZE];
    struct {
        uint16_t flags, index, ring[QUEUE_SIZE + 1];
    } available;
    _Alignas(4) struct {
        uint16_t flags, index;
        uint32_t ring[2 * QUEUE_SIZE + 1];
    } used;
};

static struct queue queues[QUEUE_COUNT];
static uint32_t frames[BATCH_PAGES];
static uint64_t registers; /* 0: there is no balloon */
static uint32_t first_frame, page_count;

static void set(uint32_t offset, uint64_t value)
{
    platform_store32(registers + offset, (uint32_t)value);
}

static void set_address(uint32_t offset, const volatile void *place)
{
    set(offset, (uintptr_t)place);
    set(offset + 4, (uintptr_t)place >> 32);
}

static void hand_over(uint32_t number)
{
    struct queue *queue = &queues[number];

    set(REGISTER_QUEUE_SELECT, number);
    set(REGISTER_QUEUE_SIZE, QUEUE_SIZE);
    set_address(REGISTER_DESCRIPTORS, queue->descriptors);
    set_address(REGISTER_AVAILABLE, &queue->available);
    set_address(REGISTER_USED, &queue->used);
    set(REGISTER_QUEUE_READY, 1);
}

bool balloon_start(uint32_t first)
{
    paging_init();
    (void)paging_map(TRANSPORTS, TRANSPORT_COUNT * TRANSPORT_BYTES);
    for (uint64_t at = TRANSPORTS; at < TRANSPORTS + TRANSPORT_COUNT * TRANSPORT_BYTES; at += TRANSPORT_BYTES) {
        if (platform_load32(at + REGISTER_MAGIC) == MAGIC && platform_load32(at + REGISTER_DEVICE) == DEVICE_BALLOON) {
            registers = at;
        }
    }
    if (registers == 0) {
        return false;
    }
    first_frame = first;
    set(REGISTER_STATUS, 0);
    set(REGISTER_STATUS, STATUS_KNOWN);
    set(REGISTER_DRIVER_FEATURES_SELECT, 1);
    set(REGISTER_DRIVER_FEATURES, 1); /* VERSION_1 */
    set(REGISTER_STATUS, STATUS_AGREED);
    hand_over(INFLATE);
    hand_over(DEFLATE);
    set(REGISTER_STATUS, STATUS_STARTED);
    return true;
}

/* The frames from start on; returns when the device has taken them. */
static void send(uint32_t number, uint32_t start, uint32_t count)
{
    struct queue *queue = &queues[number];
    uint16_t index = queue->available.index;

    for (uint32_t i = 0; i < count; i++) {
        frames[i] = start + i;
    }
    queue->descriptors[0] = (struct descriptor){(uintptr_t)frames, count * 4, 0, 0};
    queue->available.ring[index % QUEUE_SIZE] = 0;
    platform_store_barrier();
    platform_store16((uintptr_t)&queue->available.index, (uint16_t)(index + 1));
    set(REGISTER_QUEUE_NOTIFY, number);
    while (platform_load16((uintptr_t)&queue->used.index) != (uint16_t)(index + 1)) {
        platform_pause();
    }
}

bool balloon_follow(void)
{
    uint32_t target = registers != 0 ? platform_load32(registers + REGISTER_TARGET) : 0;
    bool has_changed = target != page_count;

    while (page_count < target) {
        uint32_t count = target - page_count < BATCH_PAGES ? target - page_count : BATCH_PAGES;

        send(INFLATE, first_frame + page_count, count);
        page_count += count;
    }
    while (page_count > target) {
        uint32_t count = page_count - target < BATCH_PAGES ? page_count - target : BATCH_PAGES;

        send(DEFLATE, first_frame + page_count - count, count);
        page_count -= count;
    }
    if (has_changed) {
        set(REGISTER_ACTUAL, page_count);
    }
    return has_changed;
}
