// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/virtio_program.h"

#include <sched.h>
#include <string.h>

#define REQUIRE VIRTIO_PROGRAM_REQUIRE

enum { CANARY = 0xc5, PAGE = 4096 };

static struct loam_memory *make_memory(void)
{
    const struct loam_memory_request request = {
        .bytes = VIRTIO_PROGRAM_BYTES, .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_SHARED};
    static struct loam_plan plan;
    struct loam_memory *memory;
    void *page;

    REQUIRE(loam_plan_make(&request, &plan, NULL) == LOAM_OK);
    REQUIRE(loam_memory_create(&plan, &memory, NULL) == LOAM_OK);
    REQUIRE(loam_gpa_map_translate(loam_memory_map(memory), loam_gpa_from_u64(VIRTIO_PROGRAM_READONLY), PAGE,
                                   LOAM_ACCESS_WRITE, &page) == LOAM_OK);
    memset(page, CANARY, PAGE);
    REQUIRE(loam_gpa_map_protect(loam_memory_map(memory), loam_gpa_from_u64(VIRTIO_PROGRAM_READONLY), PAGE,
                                 LOAM_ACCESS_READ) == LOAM_OK);
    return memory;
}

void virtio_program_begin(struct virtio_program *program, const uint8_t *bytes, size_t byte_count)
{
    static struct loam_memory *memory;

    if (memory == NULL) {
        memory = make_memory();
    }
    *program = (struct virtio_program){.bytes = bytes, .byte_count = byte_count, .memory = memory};
    memset(virtio_program_at(program, VIRTIO_PROGRAM_RINGS), 0, 0x20000);
}

uint64_t virtio_program_choose(struct virtio_program *program, uint64_t limit)
{
    size_t bytes = limit <= UINT64_C(1) << 8 ? 1 : limit <= UINT64_C(1) << 16 ? 2 : limit <= UINT64_C(1) << 32 ? 4 : 8;
    uint64_t value = 0;

    for (; bytes > 0 && program->byte_count > 0; bytes--) {
        value = value << 8 | *program->bytes++;
        program->byte_count--;
    }
    return value % limit;
}

void *virtio_program_at(const struct virtio_program *program, uint64_t gpa)
{
    void *hva;

    REQUIRE(loam_gpa_map_translate(loam_memory_map(program->memory), loam_gpa_from_u64(gpa), 1, LOAM_ACCESS_READ,
                                   &hva) == LOAM_OK);
    return hva;
}

/* --- Registers and rings ----------------------------------------------------------------------------------------- */

static void out(struct virtio_program *program, uint64_t offset, uint32_t value)
{
    struct bus_access access = {.offset = offset, .bytes = 4, .is_write = true, .value = value};

    virtio_mmio_access(program->mmio, &access);
}

static uint64_t descriptors(uint32_t queue)
{
    return VIRTIO_PROGRAM_RINGS + (uint64_t)queue * PAGE;
}

static uint64_t available(uint32_t queue)
{
    return descriptors(queue) + 0x200;
}

static void set_up_queue(struct virtio_program *program, uint32_t queue)
{
    out(program, VIRTIO_MMIO_QUEUE_SELECT, queue);
    out(program, VIRTIO_MMIO_QUEUE_SIZE, VIRTIO_PROGRAM_SIZE);
    out(program, VIRTIO_MMIO_QUEUE_DESCRIPTORS_LOW, (uint32_t)descriptors(queue));
    out(program, VIRTIO_MMIO_QUEUE_AVAILABLE_LOW, (uint32_t)available(queue));
    out(program, VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)descriptors(queue) + 0x400);
    out(program, VIRTIO_MMIO_QUEUE_READY, 1);
    program->available[queue] = 0;
    memset(virtio_program_at(program, available(queue)), 0, 0x200);
}

void virtio_program_bring_up(struct virtio_program *program)
{
    out(program, VIRTIO_MMIO_STATUS, 0);
    out(program, VIRTIO_MMIO_STATUS, 0x03);
    out(program, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)program->mmio->device.features);
    out(program, VIRTIO_MMIO_DRIVER_FEATURES_SELECT, 1);
    out(program, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    out(program, VIRTIO_MMIO_STATUS, 0x0b);
    for (uint32_t queue = 0; queue < program->mmio->device.queue_count; queue++) {
        set_up_queue(program, queue);
    }
    out(program, VIRTIO_MMIO_STATUS, 0x0f);
}

void virtio_program_put_descriptor(struct virtio_program *program, uint32_t queue, uint16_t index, uint64_t gpa,
                                   uint32_t bytes, uint16_t flags, uint16_t next)
{
    uint8_t *at = virtio_program_at(program, descriptors(queue) + UINT64_C(16) * (index % VIRTIO_PROGRAM_SIZE));

    memcpy(at, &gpa, 8);
    memcpy(at + 8, &bytes, 4);
    memcpy(at + 12, &flags, 2);
    memcpy(at + 14, &next, 2);
}

void virtio_program_send(struct virtio_program *program, uint32_t queue, uint16_t head)
{
    uint16_t *ring = virtio_program_at(program, available(queue));

    ring[2 + program->available[queue] % VIRTIO_PROGRAM_SIZE] = head;
    __atomic_store_n(&ring[1], ++program->available[queue], __ATOMIC_RELEASE);
    out(program, VIRTIO_MMIO_QUEUE_NOTIFY, queue);
}

void virtio_program_await(struct virtio_program *program)
{
    bool is_idle = program->worker == NULL;

    while (!is_idle) {
        virtio_mmio_lock(program->mmio);
        is_idle = program->worker->is_held || (program->worker->rung == 0 && !program->worker->is_serving);
        virtio_mmio_unlock(program->mmio);
        sched_yield();
    }
}

/* --- Actions ----------------------------------------------------------------------------------------------------- */

static uint64_t choose_gpa(struct virtio_program *program)
{
    switch (virtio_program_choose(program, 8)) {
    case 0:
        return VIRTIO_PROGRAM_READONLY - 8 + virtio_program_choose(program, 16);
    case 1:
        return VIRTIO_PROGRAM_BYTES - virtio_program_choose(program, 16);
    case 2:
        return LOAM_LEGACY_START_BYTES - 8 + virtio_program_choose(program, 16);
    case 3:
        return virtio_program_choose(program, UINT64_MAX);
    default:
        return VIRTIO_PROGRAM_DATA + virtio_program_choose(program, 0x10000);
    }
}

static void put_any_descriptor(struct virtio_program *program, uint32_t queue)
{
    const uint16_t index = (uint16_t)virtio_program_choose(program, VIRTIO_PROGRAM_SIZE);
    const uint64_t gpa = choose_gpa(program);
    const uint32_t bytes = (uint32_t)virtio_program_choose(
        program, virtio_program_choose(program, 8) == 0 ? UINT64_C(1) << 32 : UINT64_C(2048));

    virtio_program_put_descriptor(program, queue, index, gpa, bytes, (uint16_t)virtio_program_choose(program, 8),
                                  (uint16_t)virtio_program_choose(program, VIRTIO_PROGRAM_SIZE + 1));
}

void virtio_program_act(struct virtio_program *program)
{
    const uint32_t queue = (uint32_t)virtio_program_choose(program, program->mmio->device.queue_count);

    switch (virtio_program_choose(program, 10)) {
    case 0:
        virtio_program_bring_up(program);
        break;
    case 1:
        out(program, 4 * virtio_program_choose(program, 80),
            (uint32_t)virtio_program_choose(program, UINT64_C(1) << 32));
        break;
    case 2:
        *(uint8_t *)virtio_program_at(program, VIRTIO_PROGRAM_RINGS + virtio_program_choose(program, 0x10000)) =
            (uint8_t)virtio_program_choose(program, 256);
        break;
    case 3:
        *(uint8_t *)virtio_program_at(program, VIRTIO_PROGRAM_DATA + virtio_program_choose(program, 0x10000)) =
            (uint8_t)virtio_program_choose(program, 256);
        break;
    case 4:
        virtio_program_await(program);
        break;
    case 5:
        if (program->worker != NULL) {
            virtio_worker_hold(program->worker);
        }
        break;
    case 6:
        if (program->worker != NULL) {
            virtio_worker_resume(program->worker);
        }
        break;
    case 7:
        virtio_program_send(program, queue, (uint16_t)virtio_program_choose(program, VIRTIO_PROGRAM_SIZE + 1));
        break;
    default:
        put_any_descriptor(program, queue);
        break;
    }
}

void virtio_program_check(const struct virtio_program *program)
{
    const uint8_t *page = virtio_program_at(program, VIRTIO_PROGRAM_READONLY);

    for (uint32_t i = 0; i < PAGE; i++) {
        REQUIRE(page[i] == CANARY);
    }
    REQUIRE(loam_gpa_map_validate(loam_memory_map(program->memory), NULL) == LOAM_OK);
}
