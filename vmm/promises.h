// SPDX-License-Identifier: Apache-2.0
/*
 * What the self-test promises its guest: ranges carved, filled and listed in the table of guest/abi.h.
 *
 * Threads: the machine's creator makes, publishes and releases; queries are pure.
 */
#ifndef LOAM_VMM_PROMISES_H
#define LOAM_VMM_PROMISES_H

#include "guest/abi.h"
#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"

#include <stdbool.h>
#include <stdint.h>

#define PROMISES_BUFFER_MAX 64

struct promises {
    struct loam_memory *memory;
    struct loam_dma_buffer table;    /* the guest's copy of listed; never read but for the results */
    struct loam_dma_buffer readonly; /* the read-only range */
    bool is_protected;               /* readonly is read-only by now */
    uint32_t buffer_count;
    uint64_t buffers[PROMISES_BUFFER_MAX]; /* ids of all that is carved */
    struct loam_abi_table listed;          /* the host's own copy */
};

/* Carve and fill everything but what depends on the guest's image. On failure nothing stays carved. */
LOAM_MUST_USE enum loam_error promises_make(struct promises *promises, struct loam_memory *memory,
                                            struct loam_diag *diag);

/* List RAM and what the guest keeps of it, and hand the table over. */
LOAM_MUST_USE enum loam_error promises_publish(struct promises *promises, const struct boot_state *boot,
                                               struct loam_diag *diag);

/* Release all that was carved. */
void promises_release(struct promises *promises);

/* Ranges of a kind, and their bytes in sum. */
uint64_t promises_count(const struct promises *promises, uint32_t kind);
uint64_t promises_bytes(const struct promises *promises, uint32_t kind);

/* The first range of a kind, or NULL. */
const struct loam_abi_range *promises_find(const struct promises *promises, uint32_t kind);

/* The end of the kept range that holds gpa, or gpa itself where none does. */
uint64_t promises_skip_kept(const struct promises *promises, uint64_t gpa);

#endif
