// SPDX-License-Identifier: Apache-2.0
/*
 * RAM of a guest that runs, in an image, as it is at one moment: all of it is written while the guest runs; then what it has written
 * meanwhile, again and again until that is little; then the guest stands for as long as it takes to copy the rest, which is written when
 * it runs again.
 *
 *     capture_begin -> capture_rounds -> machine_hold -> capture_moment -> machine_let_go -> capture_finish
 *                   -> capture_end, whatever has failed
 *
 * Threads: one; the guest runs but for the pause.
 */
#ifndef LOAM_VMM_CAPTURE_H
#define LOAM_VMM_CAPTURE_H

#include "loam/dirty.h"
#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/image.h"
#include "vmm/machine.h"
#include "vmm/resident.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CAPTURE_ROUND_MAX    8u
#define CAPTURE_LITTLE_BYTES (UINT64_C(1) << 20) /* that is copied in some tenths of a millisecond */

struct capture {
    struct machine *machine;
    struct loam_memory *memory;
    struct image *image;
    const atomic_bool *must_end;
    struct resident *resident;
    struct loam_dirty *pending; /* pages that the image does not have as they are; in pending_memory */
    void *pending_memory;       /* heap */
    bool is_logging;
    uint32_t round_count;
    uint64_t patched_bytes; /* written after the first round */
    uint8_t *copies;        /* heap: of page_count pages */
    struct image_page *pages;
    uint64_t page_count;
};

/*
 * image is fresh (image_init), of memory's plan, and all four outlive the capture. One with a parent (image_set_parent) becomes the
 * difference to it: the machine has logged what was written since that was taken, and goes on to. Errors as machine_log_start.
 */
LOAM_MUST_USE enum loam_error capture_begin(struct capture *capture, struct machine *machine,
                                            struct loam_memory *memory, struct image *image,
                                            const atomic_bool *must_end, struct loam_diag *diag);

/* Errors as image_write, and machine_log_harvest. */
LOAM_MUST_USE enum loam_error capture_rounds(struct capture *capture, struct image_tally *tally,
                                             struct loam_diag *diag);

/* The guest stands: what is left is copied. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error capture_moment(struct capture *capture, struct loam_diag *diag);

/* And written. Errors as image_write. */
LOAM_MUST_USE enum loam_error capture_finish(struct capture *capture, struct loam_diag *diag);

/* keeps_log: what is written from the moment on goes on to be logged, for a difference to this image. */
void capture_end(struct capture *capture, bool keeps_log);

#endif
