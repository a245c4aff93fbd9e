// SPDX-License-Identifier: Apache-2.0
/*
 * What a pool of hugepages holds, so that a refusal can say how far to raise it.
 *
 * Private to backing*.c. Threads: any.
 */
#ifndef LOAM_BACKING_POOL_H
#define LOAM_BACKING_POOL_H

#include <stdbool.h>
#include <stdint.h>

#define BACKING_POOL_PATH_BYTES 160

struct backing_pool {
    char total_path[BACKING_POOL_PATH_BYTES]; /* the file that sets the pool's size */
    uint64_t total;
    uint64_t available; /* pages that are free and not promised to another mapping */
};

/*
 * The host's pool of pages of that size, or one node's part of it. A part has no figure for promises: the kernel makes them
 * for the host as a whole. False: a figure cannot be read; *pool means nothing then.
 */
bool loam_backing_pool_read(uint64_t page_bytes, int32_t node, struct backing_pool *pool);

#endif
