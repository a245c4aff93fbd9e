// SPDX-License-Identifier: Apache-2.0
/*
 * A driver for one virtio entropy device behind a virtio-mmio transport, by the letter of virtio 1.2: one queue, one
 * request at a time, polled. It believes nothing the device says: each deviation is a fault, with where, what was due
 * and what came.
 */
#ifndef LOAM_GUEST_RNG_DRIVER_H
#define LOAM_GUEST_RNG_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

/* GPAs; everything is mapped, and the rings are as large as queue_size wants them: the caller has seen to it. */
struct rng_driver {
    uint64_t registers;
    uint64_t descriptors;
    uint64_t available;
    uint64_t used;
    uint32_t queue_size;
    uint16_t request_count; /* made so far, modulo 2^16: the next index in both rings */
};

/* The first thing that was not as it should be; gpa is a register or a place in a ring. */
struct rng_fault {
    uint64_t gpa;
    uint64_t expected;
    uint64_t found;
};

/* Reset, negotiate, hand over the queue, DRIVER_OK (sections 3.1.1, 4.2.3). */
bool rng_start(struct rng_driver *driver, struct rng_fault *fault);

/*
 * Have the device write bytes, at least 1, at gpa, and wait, not forever. *written is what it says it wrote: 1 to
 * bytes. The interrupt is seen in InterruptStatus and acknowledged.
 */
bool rng_request(struct rng_driver *driver, uint64_t gpa, uint32_t bytes, uint32_t *written, struct rng_fault *fault);

/* The two halves of that: between them the device works. One request at a time. */
void rng_submit(const struct rng_driver *driver, uint64_t gpa, uint32_t bytes);
bool rng_complete(struct rng_driver *driver, uint32_t bytes, uint32_t *written, struct rng_fault *fault);

/* The device lets go of the rings. */
void rng_stop(const struct rng_driver *driver);

#endif
