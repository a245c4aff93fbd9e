// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: whatever a driver does, the balloon gives back nothing but what the guest may write, and a pinned buffer of
 * that neither. At the end it says how much it gave back, and kept.
 */
#include "tests/fuzz/virtio_program.h"
#include "vmm/virtio_balloon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE VIRTIO_PROGRAM_REQUIRE

enum { ASK_EVERY = 4, NUMBERS_MAX = 8, PINNED_BYTES = 4096, PINNED_CANARY = 0x9d };

#define PINNED_GPA (VIRTIO_PROGRAM_READONLY + 0x10000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio_balloon balloon;
static struct virtio_balloon_stats total;
static uint64_t program_count;

static void tell(void)
{
    fprintf(stderr, "virtio_balloon_fuzz: %ju programs: %ju pages inflated, %ju reported; %ju given back, %ju kept\n",
            (uintmax_t)program_count, (uintmax_t)total.inflated_pages, (uintmax_t)total.reported_pages,
            (uintmax_t)total.given_pages, (uintmax_t)total.kept_pages);
}

static void add_up(void)
{
    struct virtio_balloon_stats stats;

    virtio_balloon_get_stats(&balloon, &stats);
    REQUIRE(stats.given_pages + stats.kept_pages == stats.inflated_pages + stats.reported_pages);
    total.inflated_pages += stats.inflated_pages;
    total.reported_pages += stats.reported_pages;
    total.given_pages += stats.given_pages;
    total.kept_pages += stats.kept_pages;
    if (program_count++ == 0) {
        REQUIRE(atexit(tell) == 0);
    }
}

/* Once: a page that a device writes to, as far as the ledger knows. The driver writes elsewhere, but by no descriptor. */
static uint8_t *pinned(struct virtio_program *program)
{
    static struct loam_dma_buffer buffer;
    const struct loam_dma_request request = {
        .owner = "device", .bytes = PINNED_BYTES, .at = {PINNED_GPA}, .flags = LOAM_DMA_AT};

    if (buffer.id == 0) {
        REQUIRE(loam_dma_alloc(loam_memory_dma(program->memory), &request, &buffer, NULL) == LOAM_OK);
        REQUIRE(loam_dma_pin(loam_memory_dma(program->memory), buffer.id) == LOAM_OK);
        memset(buffer.hva, PINNED_CANARY, PINNED_BYTES);
    }
    return buffer.hva;
}

/* Numbers of pages around what is pinned and read-only, or anywhere. */
static void inflate(struct virtio_program *program)
{
    const uint32_t count = (uint32_t)virtio_program_choose(program, NUMBERS_MAX) + 1;
    uint32_t numbers[NUMBERS_MAX];

    for (uint32_t i = 0; i < count; i++) {
        numbers[i] = virtio_program_choose(program, 16) == 0
                         ? (uint32_t)virtio_program_choose(program, UINT64_C(1) << 32)
                         : (uint32_t)(VIRTIO_PROGRAM_READONLY >> VIRTIO_BALLOON_PAGE_SHIFT) - 8 +
                               (uint32_t)virtio_program_choose(program, 64);
    }
    memcpy(virtio_program_at(program, VIRTIO_PROGRAM_DATA), numbers, sizeof numbers);
    virtio_program_put_descriptor(program, 0, 0, VIRTIO_PROGRAM_DATA, count * 4, 0, 0);
    virtio_program_send(program, virtio_program_choose(program, 8) == 0, 0);
}

static void report(struct virtio_program *program)
{
    const uint32_t queue = 2 + (uint32_t)virtio_program_choose(program, 3);

    virtio_program_put_descriptor(program, queue, 0,
                                  VIRTIO_PROGRAM_READONLY - 0x8000 + virtio_program_choose(program, 0x20000),
                                  (uint32_t)virtio_program_choose(program, 0x8000), VIRTQ_DESC_F_WRITE, 0);
    virtio_program_send(program, queue, 0);
}

/* After all of it, a device that was reset does what it is asked. */
static void check_good_path(struct virtio_program *program)
{
    const uint32_t number = (uint32_t)((VIRTIO_PROGRAM_BYTES >> VIRTIO_BALLOON_PAGE_SHIFT) - 1);
    uint8_t *byte = virtio_program_at(program, VIRTIO_PROGRAM_BYTES - 1);

    virtio_worker_resume(program->worker);
    virtio_program_bring_up(program);
    *byte = 1;
    memcpy(virtio_program_at(program, VIRTIO_PROGRAM_DATA), &number, sizeof number);
    virtio_program_put_descriptor(program, 0, 0, VIRTIO_PROGRAM_DATA, sizeof number, 0, 0);
    virtio_program_send(program, 0, 0);
    virtio_program_await(program);
    REQUIRE(*byte == 0);
}

static void act(struct virtio_program *program)
{
    if (virtio_program_choose(program, ASK_EVERY) != 0) {
        virtio_program_act(program);
    } else if (virtio_program_choose(program, 2) == 0) {
        inflate(program);
    } else {
        report(program);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct virtio_program program;
    struct virtio_balloon_config config = {.deflate_on_oom = true, .reporting = true};
    const uint8_t *page;

    virtio_program_begin(&program, data, size);
    page = pinned(&program);
    config.memory = program.memory;
    REQUIRE(virtio_balloon_init(&balloon, (struct irq_line){.set = NULL}, &config, NULL) == LOAM_OK);
    program.mmio = &balloon.mmio;
    program.worker = &balloon.worker;
    virtio_program_bring_up(&program);
    while (program.byte_count > 0) {
        act(&program);
    }
    check_good_path(&program);
    add_up();
    REQUIRE(virtio_balloon_destroy(&balloon));
    virtio_program_check(&program);
    for (uint32_t i = 0; i < PINNED_BYTES; i++) {
        REQUIRE(page[i] == PINNED_CANARY);
    }
    return 0;
}
