// SPDX-License-Identifier: Apache-2.0
/*
 * A ring of bytes from one thread to another, neither of whom ever waits for the other in it.
 *
 * Threads: trace_ring_put is one thread's, trace_ring_look and trace_ring_drop another's; trace_ring_free and
 * trace_ring_used from any.
 */
#ifndef LOAM_VMM_TRACE_RING_H
#define LOAM_VMM_TRACE_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_RING_BYTES (256u << 10) /* a power of two */

/* put_bytes - dropped_bytes <= TRACE_RING_BYTES */
struct trace_ring {
    uint8_t *bytes; /* TRACE_RING_BYTES, touched as they are first used */
    _Alignas(64) _Atomic uint64_t put_bytes;
    _Alignas(64) _Atomic uint64_t dropped_bytes;
};

/* false: no memory, and there is nothing to destroy. */
bool trace_ring_init(struct trace_ring *ring);

/* No effect on one that is filled with zeros. */
void trace_ring_destroy(struct trace_ring *ring);

/* What can be put at least, or looked at. */
size_t trace_ring_free(const struct trace_ring *ring);
size_t trace_ring_used(const struct trace_ring *ring);

/* Put one after the other, of which the reader sees all or nothing. false: no room, and nothing has changed. */
bool trace_ring_put(struct trace_ring *ring, const void *head, size_t head_bytes, const void *body, size_t body_bytes);

/* Copy what lies offset bytes behind the oldest; as much as that is used. */
void trace_ring_look(const struct trace_ring *ring, size_t offset, void *bytes, size_t count);

/* The oldest count bytes, which are used, give room. */
void trace_ring_drop(struct trace_ring *ring, size_t count);

#endif
