// SPDX-License-Identifier: Apache-2.0
/* Rings of split virtqueues (virtio 1.2, section 2.7): nothing but a size and a buffer. */
#include "allocator/dma_request.h"
#include "loam/dma.h"

#include <inttypes.h>

#define DESCRIPTOR_BYTES        16u
#define AVAILABLE_FIXED_BYTES   6u /* flags, idx, used_event */
#define AVAILABLE_ELEMENT_BYTES 2u
#define USED_FIXED_BYTES        6u /* flags, idx, avail_event */
#define USED_ELEMENT_BYTES      8u
#define USED_ALIGN_BYTES        4u

enum loam_error loam_virtqueue_get_layout(uint32_t queue_size, struct loam_virtqueue_layout *layout)
{
    uint64_t available_end;

    if (layout == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *layout = (struct loam_virtqueue_layout){0};
    if (!loam_is_power_of_two(queue_size) || queue_size > LOAM_VIRTQUEUE_SIZE_MAX) {
        return LOAM_ERROR_INVALID;
    }
    /* The descriptors end at a multiple of 16, which is aligned enough for the available ring. */
    layout->available_offset_bytes = (uint64_t)queue_size * DESCRIPTOR_BYTES;
    available_end =
        layout->available_offset_bytes + AVAILABLE_FIXED_BYTES + (uint64_t)queue_size * AVAILABLE_ELEMENT_BYTES;
    layout->used_offset_bytes = loam_align_up(available_end, USED_ALIGN_BYTES);
    layout->bytes = layout->used_offset_bytes + USED_FIXED_BYTES + (uint64_t)queue_size * USED_ELEMENT_BYTES;
    return LOAM_OK;
}

enum loam_error loam_dma_alloc_virtqueue(struct loam_dma *dma, const char *owner, uint32_t queue_size, loam_gpa limit,
                                         struct loam_virtqueue_rings *rings, struct loam_diag *diag)
{
    struct loam_virtqueue_layout layout;
    struct loam_dma_request request = {.owner = owner, .limit = limit};
    enum loam_error error = loam_virtqueue_get_layout(queue_size, &layout);
    char *hva;

    if (rings == NULL) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "virtqueue: NULL given where a place for its rings is wanted");
    }
    *rings = (struct loam_virtqueue_rings){0};
    if (error != LOAM_OK) {
        return loam_fail(diag, error, "virtqueue of \"%.63s\": a size of %" PRIu32 ", not a power of two up to %u",
                         loam_dma_owner_length(owner) != 0 ? owner : "?", queue_size, LOAM_VIRTQUEUE_SIZE_MAX);
    }
    request.bytes = layout.bytes;
    error = loam_dma_alloc(dma, &request, &rings->buffer, diag);
    if (error != LOAM_OK) {
        return error;
    }
    hva = rings->buffer.hva;
    rings->queue_size = queue_size;
    rings->descriptors.value = rings->buffer.gpa.value + layout.descriptors_offset_bytes;
    rings->available.value = rings->buffer.gpa.value + layout.available_offset_bytes;
    rings->used.value = rings->buffer.gpa.value + layout.used_offset_bytes;
    rings->descriptors_hva = hva + layout.descriptors_offset_bytes;
    rings->available_hva = hva + layout.available_offset_bytes;
    rings->used_hva = hva + layout.used_offset_bytes;
    return LOAM_OK;
}
