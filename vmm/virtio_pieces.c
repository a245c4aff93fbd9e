// SPDX-License-Identifier: Apache-2.0
#include "vmm/virtio_pieces.h"

static uint64_t at_most(uint64_t bytes, uint64_t limit_bytes)
{
    return bytes < limit_bytes ? bytes : limit_bytes;
}

/* What is left of the first piece. */
static uint64_t first_bytes(const struct virtio_pieces *pieces)
{
    return at_most(pieces->first->bytes - pieces->skip_bytes, pieces->left_bytes);
}

static loam_gpa first_gpa(const struct virtio_pieces *pieces)
{
    return loam_gpa_from_u64(pieces->first->start.value + pieces->skip_bytes);
}

struct virtio_pieces virtio_pieces_readable(const struct virtqueue_chain *chain)
{
    return (struct virtio_pieces){.first = chain->pieces, .left_bytes = chain->readable_bytes};
}

struct virtio_pieces virtio_pieces_writable(const struct virtqueue_chain *chain)
{
    return (struct virtio_pieces){.first = chain->pieces + chain->readable_count, .left_bytes = chain->writable_bytes};
}

void virtio_pieces_skip(struct virtio_pieces *pieces, uint64_t bytes)
{
    while (bytes > 0) {
        const uint64_t part = at_most(first_bytes(pieces), bytes);

        pieces->skip_bytes += part;
        pieces->left_bytes -= part;
        bytes -= part;
        if (pieces->skip_bytes == pieces->first->bytes) {
            pieces->first++;
            pieces->skip_bytes = 0;
        }
    }
}

bool virtio_pieces_read(struct virtio_pieces *pieces, const struct loam_gpa_view *view, void *buffer, uint64_t bytes)
{
    struct virtio_pieces rest = *pieces;
    uint8_t *to = buffer;

    if (bytes > rest.left_bytes) {
        return false;
    }
    while (bytes > 0) {
        const uint64_t part = at_most(first_bytes(&rest), bytes);

        if (loam_gpa_view_read(view, first_gpa(&rest), to, part) != LOAM_OK) {
            return false;
        }
        virtio_pieces_skip(&rest, part);
        to += part;
        bytes -= part;
    }
    *pieces = rest;
    return true;
}

bool virtio_pieces_write(struct virtio_pieces *pieces, const struct loam_gpa_view *view, const void *buffer,
                         uint64_t bytes)
{
    struct virtio_pieces rest = *pieces;
    const uint8_t *from = buffer;

    if (bytes > rest.left_bytes) {
        return false;
    }
    while (bytes > 0) {
        const uint64_t part = at_most(first_bytes(&rest), bytes);

        if (loam_gpa_view_write(view, first_gpa(&rest), from, part) != LOAM_OK) {
            return false;
        }
        virtio_pieces_skip(&rest, part);
        from += part;
        bytes -= part;
    }
    *pieces = rest;
    return true;
}

uint32_t virtio_pieces_vectors(const struct virtio_pieces *pieces, uint64_t limit_bytes, struct iovec *vectors,
                               uint32_t capacity)
{
    struct virtio_pieces rest = *pieces;
    uint32_t count = 0;

    rest.left_bytes = at_most(rest.left_bytes, limit_bytes);
    while (rest.left_bytes > 0 && count < capacity) {
        const uint64_t part = first_bytes(&rest);

        vectors[count++] = (struct iovec){(char *)rest.first->hva + rest.skip_bytes, part};
        virtio_pieces_skip(&rest, part);
    }
    return count;
}
