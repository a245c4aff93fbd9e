// SPDX-License-Identifier: Apache-2.0
/*
 * Once the rings are aligned as the specification wants, every descriptor and every other field of the rings is
 * naturally aligned; regions start and end at multiples of 4096. So none of them goes across regions, and each is
 * translated by itself.
 *
 * The guest's processors run beside this: each field is read or written once, by one access of the map's.
 */
#include "vmm/virtqueue.h"

#include <assert.h>
#include <stddef.h>

/* Section 2.7.5. */
struct descriptor {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags;
    uint16_t next;
};

static_assert(sizeof(struct descriptor) == 16, "as the specification lays it out");

/* Sections 2.7.6 and 2.7.8: both rings begin with flags and index; then come their entries. */
enum {
    RING_FLAGS_OFFSET = 0,
    RING_INDEX_OFFSET = 2,
    RING_ENTRIES_OFFSET = 4,
    AVAILABLE_ENTRY_BYTES = 2,
    USED_ENTRY_BYTES = 8,
    EVENT_BYTES = 2 /* after the entries, whether it is used or not */
};

enum { DESCRIPTORS_ALIGN = 16, AVAILABLE_ALIGN = 2, USED_ALIGN = 4 };

static const char *const fault_names[] = {
    [VIRTQUEUE_FAULT_NONE] = "none",           [VIRTQUEUE_FAULT_SIZE] = "size",
    [VIRTQUEUE_FAULT_ALIGNMENT] = "alignment", [VIRTQUEUE_FAULT_RING] = "ring",
    [VIRTQUEUE_FAULT_AVAILABLE] = "available", [VIRTQUEUE_FAULT_HEAD] = "head",
    [VIRTQUEUE_FAULT_NEXT] = "next",           [VIRTQUEUE_FAULT_LOOP] = "loop",
    [VIRTQUEUE_FAULT_INDIRECT] = "indirect",   [VIRTQUEUE_FAULT_ORDER] = "order",
    [VIRTQUEUE_FAULT_LENGTH] = "length",       [VIRTQUEUE_FAULT_BUFFER] = "buffer",
    [VIRTQUEUE_FAULT_PIECES] = "pieces",
};

static_assert(sizeof fault_names / sizeof fault_names[0] == VIRTQUEUE_FAULT_COUNT, "every fault has its name");

static enum loam_error break_queue(struct virtqueue *queue, enum virtqueue_fault fault)
{
    queue->fault = fault;
    return LOAM_ERROR_INVALID;
}

static enum loam_error usable(const struct virtqueue *queue)
{
    if (queue->fault != VIRTQUEUE_FAULT_NONE) {
        return LOAM_ERROR_INVALID;
    }
    return queue->ready ? LOAM_OK : LOAM_ERROR_UNINITIALISED;
}

static uint32_t in_flight(const struct virtqueue *queue)
{
    return (uint16_t)(queue->next_available - queue->next_used);
}

/* --- Fields of the rings ------------------------------------------------------------------------------------- */

/* In each of these, false: there is no such memory, any more. */

static loam_gpa field(loam_gpa ring, uint64_t offset)
{
    return loam_gpa_from_u64(ring.value + offset);
}

/* Acquire: what the driver wrote before a field that tells of it is seen after it. */
static bool load_16(const struct loam_gpa_view *view, loam_gpa ring, uint64_t offset, uint16_t *value)
{
    return loam_gpa_view_load16(view, field(ring, offset), LOAM_ORDER_ACQUIRE, value) == LOAM_OK;
}

/* Aligned to 16, so that no field of it is torn. */
static bool load_descriptor(const struct virtqueue *queue, const struct loam_gpa_view *view, uint16_t index,
                            struct descriptor *descriptor)
{
    loam_gpa at = field(queue->config.descriptors, (uint64_t)index * sizeof *descriptor);

    return loam_gpa_view_read(view, at, descriptor, sizeof *descriptor) == LOAM_OK;
}

/* An entry is aligned to 4 alone: its halves may lie in two regions. */
static bool store_used(const struct virtqueue *queue, const struct loam_gpa_view *view, uint32_t id, uint32_t length)
{
    loam_gpa used = queue->config.used;
    uint64_t entry = RING_ENTRIES_OFFSET + (uint64_t)(queue->next_used % queue->config.size) * USED_ENTRY_BYTES;

    return loam_gpa_view_store32(view, field(used, entry), LOAM_ORDER_RELAXED, id) == LOAM_OK &&
           loam_gpa_view_store32(view, field(used, entry + sizeof id), LOAM_ORDER_RELAXED, length) == LOAM_OK;
}

/* Whether the guest has access to all of the range, across regions or not. */
static bool granted(const struct loam_gpa_view *view, loam_gpa start, uint64_t bytes, enum loam_access access)
{
    struct loam_piece piece;
    uint32_t count;
    enum loam_error error = loam_gpa_view_pieces(view, start, bytes, access, &piece, 1, &count);

    return error == LOAM_OK || error == LOAM_ERROR_EXHAUSTED;
}

static enum virtqueue_fault check_config(const struct loam_gpa_view *view, const struct virtqueue_config *config,
                                         uint32_t size_max)
{
    const uint64_t size = config->size;

    if (!loam_is_power_of_two(size) || size > size_max || size > VIRTQUEUE_SIZE_MAX) {
        return VIRTQUEUE_FAULT_SIZE;
    }
    if (!loam_is_aligned(config->descriptors.value, DESCRIPTORS_ALIGN) ||
        !loam_is_aligned(config->available.value, AVAILABLE_ALIGN) ||
        !loam_is_aligned(config->used.value, USED_ALIGN)) {
        return VIRTQUEUE_FAULT_ALIGNMENT;
    }
    if (!granted(view, config->descriptors, size * sizeof(struct descriptor), LOAM_ACCESS_READ) ||
        !granted(view, config->available, RING_ENTRIES_OFFSET + size * AVAILABLE_ENTRY_BYTES + EVENT_BYTES,
                 LOAM_ACCESS_READ) ||
        !granted(view, config->used, RING_ENTRIES_OFFSET + size * USED_ENTRY_BYTES + EVENT_BYTES, LOAM_ACCESS_WRITE)) {
        return VIRTQUEUE_FAULT_RING;
    }
    return VIRTQUEUE_FAULT_NONE;
}

/* --- Chains -------------------------------------------------------------------------------------------------- */

static void clear_chain(struct virtqueue_chain *chain)
{
    *chain = (struct virtqueue_chain){.pieces = chain->pieces, .capacity = chain->capacity};
}

/*
 * The head of the next chain. Whatever the driver made available and has not got back takes a descriptor at
 * least.
 */
static enum loam_error next_head(struct virtqueue *queue, const struct loam_gpa_view *view, uint16_t *head)
{
    const uint32_t size = queue->config.size;
    const uint64_t entry = RING_ENTRIES_OFFSET + (uint64_t)(queue->next_available % size) * AVAILABLE_ENTRY_BYTES;
    uint16_t index, ahead;

    if (!load_16(view, queue->config.available, RING_INDEX_OFFSET, &index)) {
        return break_queue(queue, VIRTQUEUE_FAULT_RING);
    }
    ahead = (uint16_t)(index - queue->next_available);
    if (ahead > size - in_flight(queue)) {
        return break_queue(queue, VIRTQUEUE_FAULT_AVAILABLE);
    }
    if (ahead == 0) {
        return LOAM_ERROR_NOT_FOUND;
    }
    if (!load_16(view, queue->config.available, entry, head)) {
        return break_queue(queue, VIRTQUEUE_FAULT_RING);
    }
    return *head < size ? LOAM_OK : break_queue(queue, VIRTQUEUE_FAULT_HEAD);
}

/* One buffer at the end of chain. An empty one is none. */
static enum virtqueue_fault add_buffer(const struct loam_gpa_view *view, const struct descriptor *descriptor,
                                       struct virtqueue_chain *chain)
{
    const bool writable = (descriptor->flags & VIRTQ_DESC_F_WRITE) != 0;
    const uint32_t used = chain->readable_count + chain->writable_count;
    uint32_t count = 0;
    enum loam_error error = LOAM_OK;

    if ((descriptor->flags & VIRTQ_DESC_F_INDIRECT) != 0) {
        return VIRTQUEUE_FAULT_INDIRECT;
    }
    if (!writable && chain->writable_count > 0) {
        return VIRTQUEUE_FAULT_ORDER;
    }
    if (chain->readable_bytes + chain->writable_bytes + descriptor->bytes > VIRTQUEUE_BYTES_MAX) {
        return VIRTQUEUE_FAULT_LENGTH;
    }
    if (descriptor->bytes > 0) {
        error = loam_gpa_view_pieces(view, loam_gpa_from_u64(descriptor->address), descriptor->bytes,
                                     writable ? LOAM_ACCESS_WRITE : LOAM_ACCESS_READ, chain->pieces + used,
                                     chain->capacity - used, &count);
    }
    if (error != LOAM_OK) {
        return error == LOAM_ERROR_EXHAUSTED ? VIRTQUEUE_FAULT_PIECES : VIRTQUEUE_FAULT_BUFFER;
    }
    *(writable ? &chain->writable_count : &chain->readable_count) += count;
    *(writable ? &chain->writable_bytes : &chain->readable_bytes) += descriptor->bytes;
    return VIRTQUEUE_FAULT_NONE;
}

static enum virtqueue_fault walk(const struct virtqueue *queue, const struct loam_gpa_view *view,
                                 struct virtqueue_chain *chain)
{
    struct descriptor descriptor = {.next = chain->head, .flags = VIRTQ_DESC_F_NEXT};

    for (uint32_t i = 0; (descriptor.flags & VIRTQ_DESC_F_NEXT) != 0; i++) {
        enum virtqueue_fault fault;

        if (i == queue->config.size) {
            return VIRTQUEUE_FAULT_LOOP;
        }
        if (descriptor.next >= queue->config.size) {
            return VIRTQUEUE_FAULT_NEXT;
        }
        if (!load_descriptor(queue, view, descriptor.next, &descriptor)) {
            return VIRTQUEUE_FAULT_RING;
        }
        fault = add_buffer(view, &descriptor, chain);
        if (fault != VIRTQUEUE_FAULT_NONE) {
            return fault;
        }
    }
    return VIRTQUEUE_FAULT_NONE;
}

/* --- Public -------------------------------------------------------------------------------------------------- */

const char *virtqueue_fault_name(enum virtqueue_fault fault)
{
    return (uint32_t)fault < VIRTQUEUE_FAULT_COUNT ? fault_names[fault] : "unknown";
}

enum loam_error virtqueue_enable(struct virtqueue *queue, const struct loam_gpa_view *view,
                                 const struct virtqueue_config *config, uint32_t size_max)
{
    const enum virtqueue_fault fault = check_config(view, config, size_max);

    *queue = (struct virtqueue){.config = *config, .ready = fault == VIRTQUEUE_FAULT_NONE, .fault = fault};
    return fault == VIRTQUEUE_FAULT_NONE ? LOAM_OK : LOAM_ERROR_INVALID;
}

void virtqueue_disable(struct virtqueue *queue)
{
    *queue = (struct virtqueue){.ready = false};
}

enum loam_error virtqueue_pop(struct virtqueue *queue, const struct loam_gpa_view *view, struct virtqueue_chain *chain)
{
    enum virtqueue_fault fault;
    enum loam_error error = usable(queue);

    clear_chain(chain);
    if (error == LOAM_OK) {
        error = next_head(queue, view, &chain->head);
    }
    if (error != LOAM_OK) {
        clear_chain(chain);
        return error;
    }
    fault = walk(queue, view, chain);
    if (fault != VIRTQUEUE_FAULT_NONE) {
        clear_chain(chain);
        return break_queue(queue, fault);
    }
    queue->next_available++;
    return LOAM_OK;
}

enum loam_error virtqueue_push(struct virtqueue *queue, const struct loam_gpa_view *view, uint16_t head,
                               uint32_t written_bytes)
{
    enum loam_error error = usable(queue);
    uint16_t index = (uint16_t)(queue->next_used + 1);

    if (error != LOAM_OK || in_flight(queue) == 0) {
        return error != LOAM_OK ? error : LOAM_ERROR_UNINITIALISED;
    }
    /* Release: a driver that sees the index sees the entry, and what was written to the chain's buffers. */
    if (!store_used(queue, view, head, written_bytes) ||
        loam_gpa_view_store16(view, field(queue->config.used, RING_INDEX_OFFSET), LOAM_ORDER_RELEASE, index) !=
            LOAM_OK) {
        return break_queue(queue, VIRTQUEUE_FAULT_RING);
    }
    queue->next_used = index;
    return LOAM_OK;
}

bool virtqueue_interrupt_wanted(struct virtqueue *queue, const struct loam_gpa_view *view)
{
    uint16_t flags;

    if (usable(queue) != LOAM_OK) {
        return false;
    }
    /*
     * Section 2.7.7.2. The driver clears the flag, then looks at the used index; here the index was written,
     * then the flag is looked at. With both in order, one of the two sees the other's write.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!load_16(view, queue->config.available, RING_FLAGS_OFFSET, &flags)) {
        break_queue(queue, VIRTQUEUE_FAULT_RING);
        return false;
    }
    return (flags & VIRTQ_AVAIL_F_NO_INTERRUPT) == 0;
}
