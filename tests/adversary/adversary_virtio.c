// SPDX-License-Identifier: Apache-2.0
/* virtio 1.2: section 2.7 (rings), 4.2.2 (registers), 5.1 (network), 5.2 (disk), 5.5 (balloon). */
#include "tests/adversary/adversary.h"

#define TRANSPORTS      UINT64_C(0xd0000000) /* vmm/machine.h */
#define TRANSPORT_BYTES UINT64_C(0x1000)
#define TRANSPORT_COUNT 8u
#define MAGIC           0x74726976u

enum {
    REGISTER_MAGIC = 0x000,
    REGISTER_DEVICE = 0x008,
    REGISTER_DEVICE_FEATURES = 0x010,
    REGISTER_DEVICE_FEATURES_SELECT = 0x014,
    REGISTER_DRIVER_FEATURES = 0x020,
    REGISTER_DRIVER_FEATURES_SELECT = 0x024,
    REGISTER_QUEUE_SELECT = 0x030,
    REGISTER_QUEUE_SIZE_MAX = 0x034,
    REGISTER_QUEUE_SIZE = 0x038,
    REGISTER_QUEUE_READY = 0x044,
    REGISTER_QUEUE_NOTIFY = 0x050,
    REGISTER_STATUS = 0x070,
    REGISTER_DESCRIPTORS = 0x080,
    REGISTER_AVAILABLE = 0x090,
    REGISTER_USED = 0x0a0,
    REGISTER_LIMIT = 0x140, /* with the beginning of the configuration */
};

#define STATUS_KNOWN   3u  /* ACKNOWLEDGE, DRIVER */
#define STATUS_AGREED  11u /* and FEATURES_OK */
#define STATUS_STARTED 15u /* and DRIVER_OK */

#define QUEUE_LIMIT      4u
#define QUEUE_SIZE       16u
#define DESCRIPTOR_BYTES 16u
#define RINGS_BYTES      0x400u /* of a queue: available, used */
#define USED_OFFSET      0x200u

#define REQUESTS_START (OPEN_START + TRANSPORT_COUNT * QUEUE_LIMIT * RINGS_BYTES)
#define REQUEST_BYTES  0x2000u
#define PATIENCE       48u /* looks at a used ring before the next step */

#define CHAINED  1u /* VIRTQ_DESC_F_NEXT */
#define WRITABLE 2u

#define SECTOR_BYTES   512u
#define FIRST_SECTOR   0x1800u /* as the number of a frame, it is not the guest's */
#define ETHERNET_BYTES 1514u
#define NET_HEADER     12u

struct device {
    uint64_t registers;
    uint32_t id, index, queue_count;
};

/* Where one queue of one device is. */
struct queue {
    const struct device *device;
    uint32_t number;
    uint64_t descriptors, available, used;
};

static struct device devices[TRANSPORT_COUNT];
static uint32_t device_count;
static volatile uint64_t completed[ADVERSARY_COUNT][DEVICE_LIMIT];

static void set(const struct device *device, uint32_t offset, uint64_t value)
{
    platform_store32(device->registers + offset, (uint32_t)value);
}

static uint32_t count_queues(uint64_t registers)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < QUEUE_LIMIT; i++) {
        platform_store32(registers + REGISTER_QUEUE_SELECT, i);
        count += platform_load32(registers + REGISTER_QUEUE_SIZE_MAX) != 0;
    }
    return count;
}

/* Chance may change the length of what was never an address. */
static void fill_tables(void)
{
    for (uint64_t at = TABLES_START; at < OPEN_START; at += DESCRIPTOR_BYTES) {
        platform_store64(at, REQUESTS_START);
        platform_store64(at + 8, 0);
    }
}

uint32_t virtio_find(void)
{
    fill_tables();
    for (uint32_t i = 0; i < TRANSPORT_COUNT; i++) {
        uint64_t at = TRANSPORTS + i * TRANSPORT_BYTES;
        uint32_t id = platform_load32(at + REGISTER_DEVICE);

        if (platform_load32(at + REGISTER_MAGIC) == MAGIC && id != 0 && id < DEVICE_LIMIT) {
            devices[device_count] = (struct device){at, id, device_count, count_queues(at)};
            device_count++;
        }
    }
    return device_count;
}

uint64_t virtio_completed(uint32_t device)
{
    return completed[0][device] + completed[1][device];
}

/* --- Queues --------------------------------------------------------------------------------------------------------- */

static const struct device *any_device(struct adversary *self)
{
    return &devices[random_below(&self->random, device_count)];
}

static struct queue queue_of(const struct device *device, uint32_t number)
{
    uint32_t index = device->index * QUEUE_LIMIT + number;
    uint64_t rings = OPEN_START + index * RINGS_BYTES;

    return (struct queue){device, number, TABLES_START + index * QUEUE_SIZE * DESCRIPTOR_BYTES, rings,
                          rings + USED_OFFSET};
}

static struct queue any_queue(struct adversary *self)
{
    const struct device *device = any_device(self);

    return queue_of(device, random_below(&self->random, device->queue_count));
}

static void put(const struct queue *queue, uint32_t index, uint64_t gpa, uint32_t bytes, uint32_t flags)
{
    uint64_t at = queue->descriptors + DESCRIPTOR_BYTES * index;

    platform_store64(at, gpa);
    platform_store32(at + 8, bytes);
    platform_store16(at + 12, (uint16_t)flags);
    platform_store16(at + 14, (uint16_t)(index + 1));
}

static uint16_t used_index(const struct queue *queue)
{
    return platform_load16(queue->used + 2);
}

static void send(const struct queue *queue, uint32_t head)
{
    uint16_t index = platform_load16(queue->available + 2);

    platform_store16(queue->available + 4 + 2 * (index % QUEUE_SIZE), (uint16_t)head);
    platform_store_barrier();
    platform_store16(queue->available + 2, (uint16_t)(index + 1));
    set(queue->device, REGISTER_QUEUE_NOTIFY, queue->number);
}

static void await(const struct adversary *self, const struct queue *queue, uint16_t before)
{
    for (uint32_t i = 0; i < PATIENCE; i++) {
        if (used_index(queue) != before) {
            completed[self->number][queue->device->id]++;
            return;
        }
        platform_pause();
    }
}

/* --- From reset to DRIVER_OK, but for what chance changes ------------------------------------------------------------- */

/* Mostly what is right. */
static uint64_t perhaps(struct adversary *self, uint64_t right)
{
    return random_one_in(&self->random, 64) ? hostile_value(self) : right;
}

static void set_address(struct adversary *self, const struct device *device, uint32_t offset, uint64_t right)
{
    uint64_t hostile = offset == REGISTER_DESCRIPTORS ? hostile_table(self) : hostile_gpa(self);
    uint64_t gpa = random_one_in(&self->random, 64) ? hostile : right;

    set(device, offset, gpa);
    set(device, offset + 4, gpa >> 32);
}

static void set_up_queue(struct adversary *self, const struct queue *queue)
{
    set(queue->device, REGISTER_QUEUE_SELECT, queue->number);
    set(queue->device, REGISTER_QUEUE_SIZE, perhaps(self, QUEUE_SIZE));
    set_address(self, queue->device, REGISTER_DESCRIPTORS, queue->descriptors);
    set_address(self, queue->device, REGISTER_AVAILABLE, queue->available);
    set_address(self, queue->device, REGISTER_USED, queue->used);
    platform_store32(queue->available, 0);
    platform_store32(queue->used, 0);
    set(queue->device, REGISTER_QUEUE_READY, perhaps(self, 1));
}

static void agree(struct adversary *self, const struct device *device)
{
    for (uint32_t word = 0; word < 2; word++) {
        uint64_t offered;

        set(device, REGISTER_DEVICE_FEATURES_SELECT, word);
        offered = platform_load32(device->registers + REGISTER_DEVICE_FEATURES);
        set(device, REGISTER_DRIVER_FEATURES_SELECT, word);
        set(device, REGISTER_DRIVER_FEATURES,
            word == 0 && random_one_in(&self->random, 4) ? offered & random_u64(&self->random) : offered);
    }
    set(device, REGISTER_STATUS, perhaps(self, STATUS_AGREED));
}

void act_bring_up(struct adversary *self)
{
    const struct device *device = any_device(self);

    set(device, REGISTER_STATUS, 0);
    set(device, REGISTER_STATUS, STATUS_KNOWN);
    agree(self, device);
    for (uint32_t i = 0; i < device->queue_count; i++) {
        const struct queue queue = queue_of(device, i);

        set_up_queue(self, &queue);
    }
    set(device, REGISTER_STATUS, perhaps(self, STATUS_STARTED));
}

/* --- Requests: from a head on, of buffers at gpa; each processor has half of the descriptors -------------------------- */

static void put_disk(struct adversary *self, const struct queue *queue, uint32_t head, uint64_t gpa)
{
    static const uint8_t types[] = {0, 0,  1,  1,  4,
                                    8, 11, 13, 14, 99}; /* IN, OUT, FLUSH, GET_ID, DISCARD, ZEROES, SECURE */
    uint32_t type = types[random_below(&self->random, sizeof types)];
    uint32_t bytes = type == 8 ? 20 : type >= 11 ? 16 : SECTOR_BYTES * random_below(&self->random, 9);

    platform_store32(gpa, type);
    platform_store64(gpa + 8, perhaps(self, FIRST_SECTOR + random_below(&self->random, 8192)));
    platform_store64(gpa + 0x200,
                     perhaps(self, FIRST_SECTOR + random_below(&self->random, 8192))); /* sector, count, flags */
    platform_store32(gpa + 0x208, (uint32_t)perhaps(self, 8));
    platform_store32(gpa + 0x20c, (uint32_t)perhaps(self, 0));
    put(queue, head, gpa, 16, CHAINED);
    put(queue, head + 1, gpa + 0x200, bytes, CHAINED | (type == 0 || type == 8 ? WRITABLE : 0));
    put(queue, head + 2, gpa + 0x100, 1, WRITABLE);
}

/* DHCP asks of anybody (RFC 2131), which the gateway answers; or a frame of chance below that header. */
static void put_frame(struct adversary *self, const struct queue *queue, uint32_t head, uint64_t gpa)
{
    uint32_t bytes = NET_HEADER + 14 + random_below(&self->random, ETHERNET_BYTES - 14);

    platform_store64(gpa, perhaps(self, 0));
    platform_store32(gpa + 8, (uint32_t)perhaps(self, 0));
    platform_store64(gpa + 12,
                     random_one_in(&self->random, 2) ? UINT64_C(0x0252ffffffffffff) : random_u64(&self->random));
    platform_store32(gpa + 20, (uint32_t)random_u64(&self->random));
    platform_store32(gpa + 24, random_one_in(&self->random, 2) ? 0x00450008 : 0x01000608); /* IPv4; ARP for Ethernet */
    put(queue, head, gpa, (uint32_t)perhaps(self, bytes), 0);
}

static void put_balloon(struct adversary *self, const struct queue *queue, uint32_t head, uint64_t gpa)
{
    uint32_t count = 1 + random_below(&self->random, 16);

    if (queue->number >= 2) { /* reporting: the pages themselves */
        put(queue, head, hostile_gpa(self) & ~UINT64_C(0xfff), count * 0x1000, WRITABLE);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        platform_store32(gpa + 4 * i, (uint32_t)(hostile_gpa(self) >> 12));
    }
    put(queue, head, gpa, 4 * count, 0);
}

static void put_request(struct adversary *self, const struct queue *queue, uint32_t head, uint64_t gpa)
{
    switch (queue->device->id) {
    case DEVICE_DISK:
        put_disk(self, queue, head, gpa);
        break;
    case DEVICE_NET:
        if (queue->number == 1) {
            put_frame(self, queue, head, gpa);
        } else {
            put(queue, head, gpa, (uint32_t)perhaps(self, NET_HEADER + ETHERNET_BYTES), WRITABLE);
        }
        break;
    case DEVICE_BALLOON:
        put_balloon(self, queue, head, gpa);
        break;
    default:
        put(queue, head, gpa, (uint32_t)perhaps(self, 1 + random_below(&self->random, 64)), WRITABLE);
        break;
    }
}

static void spoil(struct adversary *self, const struct queue *queue, uint32_t index)
{
    uint64_t at = queue->descriptors + DESCRIPTOR_BYTES * index;

    switch (random_below(&self->random, 4)) {
    case 0:
        platform_store64(at, hostile_gpa(self));
        break;
    case 1:
        platform_store32(at + 8, hostile_length(self));
        break;
    case 2:
        platform_store16(at + 12, (uint16_t)random_below(&self->random, 8));
        break;
    default:
        platform_store16(at + 14, (uint16_t)hostile_value(self));
        break;
    }
}

void act_request(struct adversary *self)
{
    const struct queue queue = any_queue(self);
    uint32_t head = self->number * QUEUE_SIZE / ADVERSARY_COUNT + random_below(&self->random, 5);
    uint16_t before = used_index(&queue);

    put_request(self, &queue, head,
                REQUESTS_START + (queue.device->index * ADVERSARY_COUNT + self->number) * REQUEST_BYTES);
    if (random_one_in(&self->random, 6)) {
        spoil(self, &queue, head + random_below(&self->random, 3));
    }
    send(&queue, head);
    if (!random_one_in(&self->random, 3)) {
        await(self, &queue, before);
    }
}

/* --- Without regard to what is meant ----------------------------------------------------------------------------------- */

void act_descriptor(struct adversary *self)
{
    const struct queue queue = any_queue(self);
    uint32_t index = random_below(&self->random, QUEUE_SIZE);

    put(&queue, index, hostile_gpa(self), hostile_length(self), random_below(&self->random, 8));
    spoil(self, &queue, index);
    if (random_one_in(&self->random, 2)) {
        send(&queue, index);
    }
}

void act_ring(struct adversary *self)
{
    const struct queue queue = any_queue(self);

    hostile_store(self, queue.available + random_below(&self->random, USED_OFFSET + 0x100), hostile_value(self));
}

/* Half of an address: with any other half, where a device may write or where there is no memory. */
static uint32_t half_address(struct adversary *self, uint32_t offset)
{
    bool is_table = offset < REGISTER_AVAILABLE;
    uint32_t low = (uint32_t)(is_table ? hostile_table(self) : hostile_gpa(self));

    if ((offset & 4) != 0) {
        return random_one_in(&self->random, 2) ? 0 : 1 + low % 0xffff;
    }
    if (is_table) {
        return low >= RAM_END ? low : (uint32_t)(TABLES_START + low % (TABLES_BYTES / 2));
    }
    return low >= OPEN_START ? low : (uint32_t)OPEN_START + low % 0x100000;
}

static void set_any(struct adversary *self, const struct device *device)
{
    uint32_t offset = 4 * random_below(&self->random, REGISTER_LIMIT / 4);
    bool is_address = offset >= REGISTER_DESCRIPTORS && offset < REGISTER_USED + 8;

    set(device, offset, is_address ? half_address(self, offset) : hostile_value(self));
}

void act_register(struct adversary *self)
{
    const struct device *device = any_device(self);

    switch (random_below(&self->random, 4)) {
    case 0:
        hostile_load(self, device->registers + random_below(&self->random, TRANSPORT_BYTES));
        break;
    case 1: /* as far as it is the configuration's */
        hostile_store(self, device->registers + 0x100 + random_below(&self->random, TRANSPORT_BYTES - 0x100),
                      hostile_value(self));
        break;
    case 2: /* no register is as wide */
        platform_store64(device->registers + 4 * random_below(&self->random, REGISTER_LIMIT / 4), hostile_value(self));
        break;
    default:
        set_any(self, device);
        break;
    }
}
