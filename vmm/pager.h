// SPDX-License-Identifier: Apache-2.0
/*
 * RAM that comes out of an image while its guest runs already: a page that is touched before it is there is waited for, by
 * userfaultfd(2), and its whole chunk is read, checked and put in its place at once; threads of the pager's bring all others
 * meanwhile.
 *
 * The chunks that a guest touches first are written to a file in the order in which it did, and the next time they are brought in
 * that order, before all others. The first time nothing is brought unasked until the guest has touched nothing new for a while.
 *
 * A chunk that cannot be had, or is not what was written, is never given to the guest: the pager says so, once, and what touches it
 * gets a memory fault.
 *
 * Threads: pager_create and pager_destroy from one; all else from any.
 */
#ifndef LOAM_VMM_PAGER_H
#define LOAM_VMM_PAGER_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/image.h"

#include <stdbool.h>
#include <stdint.h>

#define PAGER_THREADS 3u
#define PAGER_BYTES   (PAGER_THREADS * IMAGE_CHUNK_BYTES)

/* Opaque. */
struct pager;

struct pager_config {
    const struct image *image;  /* outlives the pager, and so does its file */
    struct loam_memory *memory; /* fresh; outlives the pager */
    int order_fd; /* of the file of what was touched first, which may be empty; the caller's; -1: there is none */
    /* A chunk cannot be had: diag says why. From a thread of the pager's, once; it must not wait for memory. */
    void (*failed)(void *self, const struct loam_diag *diag);
    void *self;
};

/*
 * From now on memory holds what the image does. *pager is NULL on failure. LOAM_ERROR_NOT_PERMITTED: the kernel has no
 * userfaultfd for this process; LOAM_ERROR_NOT_FOUND: it has none for memory of this kind: nothing has changed, and image_restore
 * can be had. Errors of image_read: of chunks that are brought before this returns. LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error pager_create(const struct pager_config *config, struct pager **pager,
                                           struct loam_diag *diag);

/* failed is not called any more when this returns; whoever waits for memory is served as before. */
void pager_mute(struct pager *pager);

/* What is not there by then reads as zeros: no vCPU runs any more. NULL is allowed. */
void pager_destroy(struct pager *pager);

/* Return when everything is there; false: it never will be. */
bool pager_wait(struct pager *pager);

struct pager_figures {
    bool has_order;             /* what was touched first was known from an earlier time */
    bool is_done;               /* everything is there */
    uint64_t chunk_count;       /* that are not zeros */
    uint64_t order_count;       /* of those that are known to be touched first */
    uint64_t demand_count;      /* chunks that somebody had to wait for */
    uint64_t order_nanoseconds; /* from pager_create on, until the latter were there; 0: not yet */
    uint64_t all_nanoseconds;   /* until all were */
};
void pager_get_figures(const struct pager *pager, struct pager_figures *figures);

#endif
