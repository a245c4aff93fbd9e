// SPDX-License-Identifier: Apache-2.0
/*
 * A program of a hostile driver's actions, read from bytes, on a virtio device over real guest memory. Any bytes are a
 * program, which ends with them. The device works on a thread of its own; between two actions it may or may not have come to
 * an end with what was asked, so that rings and buffers change under it too.
 *
 * Threads: one.
 */
#ifndef LOAM_FUZZ_VIRTIO_PROGRAM_H
#define LOAM_FUZZ_VIRTIO_PROGRAM_H

#include "loam/memory.h"
#include "vmm/virtio_mmio.h"
#include "vmm/virtio_worker.h"

#include <stddef.h>
#include <stdint.h>

#define VIRTIO_PROGRAM_SIZE     16u
#define VIRTIO_PROGRAM_RINGS    (2 * LOAM_MIB)           /* a page for each queue */
#define VIRTIO_PROGRAM_DATA     (2 * LOAM_MIB + 0x10000) /* 64 KiB for requests */
#define VIRTIO_PROGRAM_READONLY (3 * LOAM_MIB)           /* a page */
#define VIRTIO_PROGRAM_BYTES    (4 * LOAM_MIB)

/* Always compiled, and seen by the fuzzer as a crash. */
#define VIRTIO_PROGRAM_REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

struct virtio_program {
    const uint8_t *bytes;
    size_t byte_count;
    struct loam_memory *memory; /* the same for all programs */
    struct virtio_mmio *mmio;
    struct virtio_worker *worker; /* NULL: the device works in the thread that rings */
    uint16_t available[VIRTIO_MMIO_QUEUE_MAX];
};

/* Memory is as at the beginning, but for what programs before may have written where they may. */
void virtio_program_begin(struct virtio_program *program, const uint8_t *bytes, size_t byte_count);

/* Below limit, from as many bytes as that takes (1, 2, 4 or 8); zeros when the program is at its end. */
uint64_t virtio_program_choose(struct virtio_program *program, uint64_t limit);

/* The host's pointer to guest memory that is there. */
void *virtio_program_at(const struct virtio_program *program, uint64_t gpa);

/* Reset the device and set all its queues up, with all that it offers. */
void virtio_program_bring_up(struct virtio_program *program);

/* Make the chain that starts at head available, and ring. */
void virtio_program_send(struct virtio_program *program, uint32_t queue, uint16_t head);

void virtio_program_put_descriptor(struct virtio_program *program, uint32_t queue, uint16_t index, uint64_t gpa,
                                   uint32_t bytes, uint16_t flags, uint16_t next);

/* Wait until the device has done what was rung. */
void virtio_program_await(struct virtio_program *program);

/* One action that any driver has: descriptors, indexes, registers, bytes in memory. */
void virtio_program_act(struct virtio_program *program);

/* What no driver may change is as it was, and the map is whole. */
void virtio_program_check(const struct virtio_program *program);

#endif
