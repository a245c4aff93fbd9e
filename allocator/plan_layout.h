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
 * Check the request and write it, its zeros replaced, and the layout into *plan, whose other members become zero; no
 * page kind is chosen yet. LOAM_ERROR_INVALID: diag says which member, and what would do.
 */
LOAM_MUST_USE enum loam_error loam_plan_layout(const struct loam_memory_request *request, struct loam_plan *plan,
                                               struct loam_diag *diag);

/* Whether every part starts and ends at a multiple of unit_bytes, a power of two. */
bool loam_plan_layout_divides(const struct loam_plan *plan, uint64_t unit_bytes);

/* Set the page kind (not AUTO) and what follows from it. LOAM_ERROR_INVALID: its pages do not divide the layout. */
LOAM_MUST_USE enum loam_error loam_plan_layout_choose(struct loam_plan *plan, enum loam_pages pages,
                                                      struct loam_diag *diag);

/* LOAM_ERROR_INVALID: plan is not what the calls above and below make of its request. LOAM_ERROR_SYSTEM: no memory. */
LOAM_MUST_USE enum loam_error loam_plan_layout_verify(const struct loam_plan *plan, struct loam_diag *diag);

/* How the frame allocator and the map of this plan are set up. */
struct loam_frame_config loam_plan_layout_frame_config(const struct loam_plan *plan);
struct loam_gpa_map_config loam_plan_layout_map_config(const struct loam_plan *plan);

/* Set metadata_bytes. LOAM_ERROR_SYSTEM: no memory. */
LOAM_MUST_USE enum loam_error loam_plan_layout_measure(struct loam_plan *plan, struct loam_diag *diag);

#endif
