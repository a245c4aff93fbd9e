// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: whatever a driver does, the disk keeps its size, answers what is well formed, and touches nothing that is not
 * the guest's. At the end it says how much of what it was asked it did.
 */
#include "tests/fuzz/virtio_program.h"
#include "vmm/virtio_blk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define REQUIRE VIRTIO_PROGRAM_REQUIRE

enum { SECTORS = 64, FILE_BYTES = SECTORS * 512, ASK_EVERY = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio_blk blk;
static struct virtio_blk_stats total;
static uint64_t program_count;

static void tell(void)
{
    fprintf(stderr, "virtio_blk_fuzz: %ju programs: %ju reads, %ju writes, %ju flushes, %ju discards; %ju refused\n",
            (uintmax_t)program_count, (uintmax_t)total.read.operation_count, (uintmax_t)total.write.operation_count,
            (uintmax_t)total.flush.operation_count, (uintmax_t)total.discard.operation_count,
            (uintmax_t)total.invalid_count);
}

static void add_up(void)
{
    struct virtio_blk_stats stats;

    virtio_blk_get_stats(&blk, &stats);
    total.read.operation_count += stats.read.operation_count;
    total.write.operation_count += stats.write.operation_count;
    total.flush.operation_count += stats.flush.operation_count;
    total.discard.operation_count += stats.discard.operation_count;
    total.invalid_count += stats.invalid_count;
    if (program_count++ == 0) {
        REQUIRE(atexit(tell) == 0);
    }
}

static int disk(void)
{
    static int fd = -1;

    if (fd < 0) {
        fd = memfd_create("disk", MFD_CLOEXEC);
        REQUIRE(fd >= 0 && ftruncate(fd, FILE_BYTES) == 0);
    }
    return fd;
}

/* A request as drivers make them, but for what the bytes choose: header, data, status in three descriptors. */
static void ask(struct virtio_program *program)
{
    static const uint32_t types[] = {0, 1, 4, 8, 11, 13, 2, 14};
    const uint16_t first = (uint16_t)virtio_program_choose(program, VIRTIO_PROGRAM_SIZE - 2);
    const uint64_t gpa = VIRTIO_PROGRAM_DATA + UINT64_C(0x1000) * first;
    const struct virtio_blk_header header = {.type = types[virtio_program_choose(program, 8)],
                                             .sector = virtio_program_choose(program, SECTORS + 2)};
    const bool is_read = header.type == VIRTIO_BLK_T_IN || header.type == VIRTIO_BLK_T_GET_ID;
    const bool has_ranges = header.type == VIRTIO_BLK_T_DISCARD || header.type == VIRTIO_BLK_T_WRITE_ZEROES;
    const struct virtio_blk_range range = {.sector = virtio_program_choose(program, SECTORS),
                                           .sector_count = (uint32_t)virtio_program_choose(program, 32),
                                           .flags = (uint32_t)virtio_program_choose(program, 3)};

    memcpy(virtio_program_at(program, gpa), &header, sizeof header);
    if (has_ranges) {
        memcpy(virtio_program_at(program, gpa + 0x100), &range, sizeof range);
    }
    virtio_program_put_descriptor(program, 0, first, gpa, sizeof header, VIRTQ_DESC_F_NEXT, (uint16_t)(first + 1));
    virtio_program_put_descriptor(program, 0, (uint16_t)(first + 1), gpa + 0x100,
                                  has_ranges ? 16 : 512 * (uint32_t)virtio_program_choose(program, 5),
                                  (uint16_t)(VIRTQ_DESC_F_NEXT | (is_read ? VIRTQ_DESC_F_WRITE : 0)),
                                  (uint16_t)(first + 2));
    virtio_program_put_descriptor(program, 0, (uint16_t)(first + 2), gpa + 0x20, 1, VIRTQ_DESC_F_WRITE, 0);
    virtio_program_send(program, 0, first);
}

/* After all of it, a device that was reset does what it is asked. */
static void check_good_path(struct virtio_program *program)
{
    const struct virtio_blk_header header = {.type = VIRTIO_BLK_T_IN, .sector = SECTORS - 1};
    uint8_t *status = virtio_program_at(program, VIRTIO_PROGRAM_DATA + 0x20);

    virtio_worker_resume(program->worker);
    virtio_program_bring_up(program);
    memcpy(virtio_program_at(program, VIRTIO_PROGRAM_DATA), &header, sizeof header);
    *status = 0xee;
    virtio_program_put_descriptor(program, 0, 0, VIRTIO_PROGRAM_DATA, sizeof header, VIRTQ_DESC_F_NEXT, 1);
    virtio_program_put_descriptor(program, 0, 1, VIRTIO_PROGRAM_DATA + 0x100, 512,
                                  VIRTQ_DESC_F_NEXT | VIRTQ_DESC_F_WRITE, 2);
    virtio_program_put_descriptor(program, 0, 2, VIRTIO_PROGRAM_DATA + 0x20, 1, VIRTQ_DESC_F_WRITE, 0);
    virtio_program_send(program, 0, 0);
    virtio_program_await(program);
    REQUIRE(*status == VIRTIO_BLK_S_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct virtio_blk_config config = {.name = "disk", .fd = disk(), .discard = true, .serial = "fuzz"};
    struct virtio_program program;
    struct stat status;

    virtio_program_begin(&program, data, size);
    REQUIRE(virtio_blk_init(&blk, loam_memory_map(program.memory), (struct irq_line){.set = NULL}, &config, NULL) ==
            LOAM_OK);
    program.mmio = &blk.mmio;
    program.worker = &blk.worker;
    virtio_program_bring_up(&program);
    while (program.byte_count > 0) {
        if (virtio_program_choose(&program, ASK_EVERY) == 0) {
            ask(&program);
        } else {
            virtio_program_act(&program);
        }
    }
    check_good_path(&program);
    add_up();
    REQUIRE(virtio_blk_destroy(&blk));
    virtio_program_check(&program);
    REQUIRE(fstat(config.fd, &status) == 0 && status.st_size == FILE_BYTES);
    return 0;
}
