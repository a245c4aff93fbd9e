// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: whatever a driver does, the entropy device writes nowhere but where the guest may write, takes no more of the source
 * than a chain may have, and a driver that resets it is served. At the end it says how many chains it gave back.
 */
#include "tests/fuzz/virtio_program.h"
#include "vmm/virtio_rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE VIRTIO_PROGRAM_REQUIRE

enum { RANDOM_BYTE = 0xa7, GOOD_BYTES = 32, FAIL_EVERY = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct virtio_rng rng;
static uint64_t program_count, chain_count, failure_count;

static void tell(void)
{
    fprintf(stderr, "virtio_rng_fuzz: %ju programs: %ju chains given back, %ju failures of the source\n",
            (uintmax_t)program_count, (uintmax_t)chain_count, (uintmax_t)failure_count);
}

static bool fill(void *self, void *buffer, size_t bytes)
{
    struct virtio_program *program = self;

    REQUIRE(bytes > 0 && bytes <= VIRTIO_RNG_BYTES_MAX);
    if (program->byte_count > 0 && virtio_program_choose(program, FAIL_EVERY) == 1) {
        return false;
    }
    memset(buffer, RANDOM_BYTE, bytes);
    return true;
}

/* After all of it, a device that was reset does what it is asked. */
static void check_good_path(struct virtio_program *program)
{
    const uint8_t *bytes = virtio_program_at(program, VIRTIO_PROGRAM_DATA);

    virtio_program_bring_up(program);
    memset(virtio_program_at(program, VIRTIO_PROGRAM_DATA), 0, GOOD_BYTES + 1);
    virtio_program_put_descriptor(program, 0, 0, VIRTIO_PROGRAM_DATA, GOOD_BYTES, VIRTQ_DESC_F_WRITE, 0);
    virtio_program_send(program, 0, 0);
    for (uint32_t i = 0; i < GOOD_BYTES; i++) {
        REQUIRE(bytes[i] == RANDOM_BYTE);
    }
    REQUIRE(bytes[GOOD_BYTES] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct virtio_program program;

    if (program_count++ == 0) {
        REQUIRE(atexit(tell) == 0);
    }
    virtio_program_begin(&program, data, size);
    REQUIRE(virtio_rng_init(&rng, loam_memory_map(program.memory), (struct irq_line){.set = NULL}, fill, &program) ==
            LOAM_OK);
    program.mmio = &rng.mmio;
    virtio_program_bring_up(&program);
    while (program.byte_count > 0) {
        virtio_program_act(&program);
    }
    check_good_path(&program);
    chain_count += rng.chain_count;
    failure_count += rng.failure_count;
    virtio_rng_destroy(&rng);
    virtio_program_check(&program);
    return 0;
}
