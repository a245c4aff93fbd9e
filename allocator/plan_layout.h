// SPDX-License-Identifier: Apache-2.0
/*
 * The half of the plan that asks nothing of the host: what a request means, where its RAM lies, and how much metadata
 * that takes. loam_memory_create derives it again, because a plan is a value that a caller may have edited.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_PLAN_LAYOUT_H
#define LOAM_PLAN_LAYOUT_H

#include "loam/frame.h"
#include "loam/gpa_map.h"
#include "loam/plan.h"

/*
 * Check the request and write it, its zeros replaced, into *plan, whose other members become zero; nothing is laid out
 * yet. LOAM_ERROR_INVALID: diag says which member, and what would do.
 */
LOAM_MUST_USE enum loam_error loam_plan_layout(const struct loam_memory_request *request, struct loam_plan *plan,
                                               struct loam_diag *diag);

/* Whether part number asked of the request can be of that kind (not AUTO), as far as its own size tells. */
bool loam_plan_layout_divides(const struct loam_plan *plan, uint32_t asked, enum loam_pages pages);

/*
 * Whether RAM begins at 0 if all that have no kind in kinds yet (AUTO) get pages of 1 GiB: such pages do not lie below a
 * hole that begins below 1 GiB.
 */
bool loam_plan_layout_begins(const struct loam_plan *plan, const enum loam_pages kinds[LOAM_MEMORY_PART_MAX]);

/*
 * Lay out the parts with these kinds of pages, one a part of the request; those with AUTO are left out. Sets what
 * follows from it. reserve_bytes: as the request gave it. LOAM_ERROR_INVALID: they do not fit. LOAM_ERROR_SYSTEM: no
 * memory.
 */
LOAM_MUST_USE enum loam_error loam_plan_layout_choose(struct loam_plan *plan,
                                                      const enum loam_pages kinds[LOAM_MEMORY_PART_MAX],
                                                      uint64_t reserve_bytes, struct loam_diag *diag);

/* LOAM_ERROR_INVALID: plan is not what the calls above and below make of its request. LOAM_ERROR_SYSTEM: no memory. */
LOAM_MUST_USE enum loam_error loam_plan_layout_verify(const struct loam_plan *plan, struct loam_diag *diag);

/* How the frame allocator and the map of this plan are set up. */
struct loam_frame_config loam_plan_layout_frame_config(const struct loam_plan *plan);
struct loam_gpa_map_config loam_plan_layout_map_config(const struct loam_plan *plan);

/* Metadata that is mapped beside metadata_bytes, and touched only where many views of the map are held. */
uint64_t loam_plan_layout_untouched_bytes(const struct loam_plan *plan);

#endif
