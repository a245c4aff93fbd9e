// SPDX-License-Identifier: Apache-2.0
/*
 * The bytes of a chain's buffers as one row, whatever descriptors they lie in (virtio 1.2, section 2.7.4: the layout is
 * the driver's affair). A struct virtio_pieces is what of a row is left: a plain value, which may be copied to come back
 * to a place.
 *
 * Threads: any; the view that the chain was taken with is held.
 */
#ifndef LOAM_VMM_VIRTIO_PIECES_H
#define LOAM_VMM_VIRTIO_PIECES_H

#include "loam/gpa_map.h"
#include "vmm/virtqueue.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

/* left bytes, from skip bytes into the first piece on. left == 0: the rest counts for nothing. */
struct virtio_pieces {
    const struct loam_piece *first;
    uint64_t skip_bytes; /* below first->bytes */
    uint64_t left_bytes; /* all of it within the pieces from first on */
};

/* All that the device may read of a chain, and all that it may write. */
struct virtio_pieces virtio_pieces_readable(const struct virtqueue_chain *chain);
struct virtio_pieces virtio_pieces_writable(const struct virtqueue_chain *chain);

/* Pass over bytes, which are no more than are left. */
void virtio_pieces_skip(struct virtio_pieces *pieces, uint64_t bytes);

/*
 * Copy the next bytes, once each, and pass over them. false: fewer are left, or the view does not hold them; nothing is
 * passed over, and a buffer that was read into is undefined.
 */
bool virtio_pieces_read(struct virtio_pieces *pieces, const struct loam_gpa_view *view, void *buffer, uint64_t bytes);
bool virtio_pieces_write(struct virtio_pieces *pieces, const struct loam_gpa_view *view, const void *buffer,
                         uint64_t bytes);

/*
 * The next bytes, limit_bytes of them at most, as vectors for readv(2) and writev(2); nothing is passed over. Returns how
 * many vectors, capacity at most.
 */
uint32_t virtio_pieces_vectors(const struct virtio_pieces *pieces, uint64_t limit_bytes, struct iovec *vectors,
                               uint32_t capacity);

#endif
