// SPDX-License-Identifier: Apache-2.0
/* Why the host does not supply a page of guest RAM, in words. */
#ifndef LOAM_VMM_LOST_REASON_H
#define LOAM_VMM_LOST_REASON_H

#include "loam/gpa_map.h"
#include "loam/plan.h"
#include "vmm/lost_memory.h"

#include <stddef.h>

/*
 * One line: which memory, in which region, the likely reason, and what to do; no newline at its end. plan is that of the
 * guest's memory: it says of what kind a page is, and the host is asked whether one more of that kind can be had. Any
 * thread.
 */
void lost_reason(const struct loam_gpa_view *view, const struct loam_plan *plan, const struct lost_memory *lost,
                 char *text, size_t bytes);

#endif
