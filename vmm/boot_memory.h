// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory as the loaders use it: what one load carves is kept as a whole or given back as a whole.
 *
 *     boot_memory_begin -> boot_memory_carve ... -> success, or boot_memory_undo
 *
 * After success the buffers belong to the ledger of the memory. One load at a time uses a struct boot_memory.
 */
#ifndef LOAM_VMM_BOOT_MEMORY_H
#define LOAM_VMM_BOOT_MEMORY_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"

#include <stdint.h>

/* Buffers that one load can carve: a range for each segment of an ELF file, and a few for the rest. */
#define BOOT_MEMORY_BUFFER_MAX 136

#define BOOT_MEMORY_INITRD "initrd" /* the owner of one */

/* Rows of the E820 map that a loader hands on: as many as boot_params has room for. */
#define BOOT_MEMORY_E820_MAX 128

struct boot_memory {
    struct loam_memory *memory;
    uint32_t buffer_count;
    uint64_t ids[BOOT_MEMORY_BUFFER_MAX]; /* in the order they were carved */
};

void boot_memory_begin(struct boot_memory *carved, struct loam_memory *memory);

/* Release everything carved since begin. */
void boot_memory_undo(struct boot_memory *carved);

/* What to change so that RAM reaches end: which option, and to what. For messages. */
struct boot_memory_advice {
    char text[160];
};
void boot_memory_advise(struct loam_memory *memory, uint64_t end, struct boot_memory_advice *advice);

/*
 * Carve a buffer. *buffer is zero on failure. The errors are those of boot_load: LOAM_ERROR_INVALID: a
 * fixed range is not all writable RAM. LOAM_ERROR_EXHAUSTED: it is taken, or nothing fits. diag names the
 * owner and the range.
 */
LOAM_MUST_USE enum loam_error boot_memory_carve(struct boot_memory *carved, const struct loam_dma_request *request,
                                                struct loam_dma_buffer *buffer, struct loam_diag *diag);

/*
 * The same, as high as the request's limit (not 0) allows, and below 1 MiB only if nothing fits above it. Without
 * LOAM_DMA_AT. LOAM_ERROR_EXHAUSTED: diag says the largest range that is free.
 */
LOAM_MUST_USE enum loam_error boot_memory_carve_high(struct boot_memory *carved, const struct loam_dma_request *request,
                                                     struct loam_dma_buffer *buffer, struct loam_diag *diag);

/*
 * The same, as low as there is room at or above from and below the request's limit (not 0). Without LOAM_DMA_AT.
 * LOAM_ERROR_EXHAUSTED: there is none; diag is left alone.
 */
LOAM_MUST_USE enum loam_error boot_memory_carve_above(struct boot_memory *carved,
                                                      const struct loam_dma_request *request, loam_gpa from,
                                                      struct loam_dma_buffer *buffer, struct loam_diag *diag);

/*
 * Carve memory for the initrd, ending at or below limit (not 0), and copy it there. *start is where; zero
 * on failure. LOAM_ERROR_INVALID: the file is empty. LOAM_ERROR_EXHAUSTED: it does not fit.
 */
LOAM_MUST_USE enum loam_error boot_memory_load_initrd(struct boot_memory *carved, const struct boot_file *initrd,
                                                      loam_gpa limit, loam_gpa *start, struct loam_diag *diag);

/* The E820 map of the memory. *count is 0 on failure. LOAM_ERROR_EXHAUSTED: more than BOOT_MEMORY_E820_MAX rows. */
LOAM_MUST_USE enum loam_error boot_memory_e820(const struct boot_memory *carved,
                                               struct loam_e820_entry entries[BOOT_MEMORY_E820_MAX], uint32_t *count,
                                               struct loam_diag *diag);

#endif
