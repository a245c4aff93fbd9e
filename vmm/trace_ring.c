// SPDX-License-Identifier: Apache-2.0
#include "vmm/trace_ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert((TRACE_RING_BYTES & (TRACE_RING_BYTES - 1)) == 0, "places are counters, cut short");

bool trace_ring_init(struct trace_ring *ring)
{
    *ring = (struct trace_ring){.bytes = malloc(TRACE_RING_BYTES)};
    return ring->bytes != NULL;
}

void trace_ring_destroy(struct trace_ring *ring)
{
    free(ring->bytes);
    ring->bytes = NULL;
}

size_t trace_ring_used(const struct trace_ring *ring)
{
    /* In this order: what was dropped had been put. */
    uint64_t dropped = atomic_load(&ring->dropped_bytes);

    return (size_t)(atomic_load(&ring->put_bytes) - dropped);
}

size_t trace_ring_free(const struct trace_ring *ring)
{
    size_t used = trace_ring_used(ring);

    return used < TRACE_RING_BYTES ? TRACE_RING_BYTES - used : 0;
}

/* How much of count bytes at a place lies before the ring's end. */
static size_t first_part(uint64_t place, size_t count)
{
    size_t left = TRACE_RING_BYTES - (size_t)(place % TRACE_RING_BYTES);

    return count < left ? count : left;
}

static void copy_in(struct trace_ring *ring, uint64_t place, const void *bytes, size_t count)
{
    size_t first = first_part(place, count);

    if (count > 0) {
        memcpy(ring->bytes + place % TRACE_RING_BYTES, bytes, first);
        memcpy(ring->bytes, (const uint8_t *)bytes + first, count - first);
    }
}

bool trace_ring_put(struct trace_ring *ring, const void *head, size_t head_bytes, const void *body, size_t body_bytes)
{
    uint64_t place = atomic_load_explicit(&ring->put_bytes, memory_order_relaxed); /* its own */

    if (trace_ring_free(ring) < head_bytes + body_bytes) {
        return false;
    }
    copy_in(ring, place, head, head_bytes);
    copy_in(ring, place + head_bytes, body, body_bytes);
    /* Pairs with trace_ring_used. Sequentially consistent, for writers that look next whether the reader sleeps. */
    atomic_store(&ring->put_bytes, place + head_bytes + body_bytes);
    return true;
}

void trace_ring_look(const struct trace_ring *ring, size_t offset, void *bytes, size_t count)
{
    uint64_t place = atomic_load_explicit(&ring->dropped_bytes, memory_order_relaxed) + offset; /* its own */
    size_t first = first_part(place, count);

    memcpy(bytes, ring->bytes + place % TRACE_RING_BYTES, first);
    memcpy((uint8_t *)bytes + first, ring->bytes, count - first);
}

void trace_ring_drop(struct trace_ring *ring, size_t count)
{
    /* Pairs with trace_ring_free: the room is given when the bytes have been read. */
    atomic_fetch_add(&ring->dropped_bytes, count);
}
