// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory written down, but for its contents (image.h): how it was asked for, where it lies, what of it the guest may only
 * read, and who owns what of it.
 *
 * The frame allocator is not written down as it lies: what is allocated is carved anew from a fresh one, in its place. So a file
 * that somebody has made up can ask for what is free, and for nothing else.
 *
 * Threads: one, and no vCPU runs.
 */
#ifndef LOAM_VMM_STATE_MEMORY_H
#define LOAM_VMM_STATE_MEMORY_H

#include "loam/error.h"
#include "loam/memory.h"
#include "loam/plan.h"
#include "vmm/state.h"

/* RAM without a gap. */
struct state_range {
    uint64_t start;
    uint64_t bytes;
};

/* As many as a plan has parts. */
#define STATE_RANGE_MAX LOAM_PLAN_PART_MAX

/* The RAM of a plan, in ascending order. Returns how many. */
uint32_t state_memory_ranges(const struct loam_plan *plan, struct state_range ranges[STATE_RANGE_MAX]);

/* Record plan. */
void state_memory_save_plan(const struct loam_plan *plan, struct state_writer *writer);

/* Records plan, map and ledger. */
void state_memory_save(struct loam_memory *memory, struct state_writer *writer);

/*
 * What has to be asked for to have the same RAM again: bytes, low_limit_bytes, dma32_reserve_bytes, and pages where they are
 * AUTO. All else of request stays. Errors of the record.
 */
LOAM_MUST_USE enum loam_error state_memory_request(struct state_reader *reader, struct loam_memory_request *request,
                                                   struct loam_diag *diag);

/* Whether a plan has the RAM that is written down, page for page. LOAM_ERROR_INVALID: diag names what differs. */
LOAM_MUST_USE enum loam_error state_memory_check(struct state_reader *reader, const struct loam_plan *plan,
                                                 struct loam_diag *diag);

/*
 * Fresh memory of such a plan has the owners that are written down, and lets the guest read alone what it might read alone.
 * LOAM_ERROR_INVALID: it cannot be; part of it may be there. LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error state_memory_load(struct loam_memory *memory, struct state_reader *reader,
                                                struct loam_diag *diag);

#endif
