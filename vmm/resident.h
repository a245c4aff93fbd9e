// SPDX-License-Identifier: Apache-2.0
/*
 * What of a guest's RAM the host has memory for: what was never touched is zeros, and looking at it would take memory. Hugetlb
 * pages are asked for by mincore(2), other pages of files by SEEK_DATA, private ones by /proc/self/pagemap, which knows of swap.
 * Of files that were adopted all is taken to be there.
 *
 * Threads: any number walk, and copy to different places, at once.
 */
#ifndef LOAM_VMM_RESIDENT_H
#define LOAM_VMM_RESIDENT_H

#include "loam/error.h"
#include "loam/memory.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Opaque. */
struct resident;

/* Of a memory's plan; memory outlives it. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error resident_open(struct loam_memory *memory, struct resident **resident,
                                            struct loam_diag *diag);
void resident_close(struct resident *resident);

/* Of runs of whole pages, in ascending order. */
typedef enum loam_error resident_run_fn(void *self, uint64_t gpa, const uint8_t *bytes, uint64_t count,
                                        struct loam_diag *diag);

/*
 * Each run of [gpa, gpa + bytes) that may hold something; whole pages of RAM. Returns the first error of run's, or
 * LOAM_ERROR_SYSTEM: the kernel does not say.
 */
LOAM_MUST_USE enum loam_error resident_walk(const struct resident *resident, uint64_t gpa, uint64_t bytes,
                                            resident_run_fn *run, void *self, struct loam_diag *diag);

/* Where RAM is, that lies in one backing; NULL: in several, or none. */
uint8_t *resident_hva(const struct resident *resident, uint64_t gpa, uint64_t bytes);

/* The reverse; false: no RAM lies there. */
bool resident_gpa(const struct resident *resident, uint64_t hva, uint64_t *gpa);

/* Of what pages the RAM at gpa is: their bytes, as loam_pages_bytes has them; THP: 4096. 0: it is no RAM. */
uint64_t resident_page_bytes(const struct resident *resident, uint64_t gpa);

/* Out of RAM that a guest may write meanwhile, whole pages: each byte as it was at some time. */
void resident_take(void *to, const uint8_t *hva, uint64_t count);

/* Into RAM, wherever it lies. */
void resident_copy(const struct resident *resident, uint64_t gpa, const uint8_t *bytes, uint64_t count);

#endif
