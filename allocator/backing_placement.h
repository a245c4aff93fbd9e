// SPDX-License-Identifier: Apache-2.0
/*
 * Which nodes go with which placement: said once, for backing and for the plan.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_BACKING_PLACEMENT_H
#define LOAM_BACKING_PLACEMENT_H

#include "loam/backing.h"

#include <stdint.h>

/* What is wrong with the pair and what to do, to stand after what was asked; NULL: nothing. */
static inline const char *loam_backing_placement_fault(enum loam_placement placement, uint64_t node_mask)
{
    switch (placement) {
    case LOAM_PLACEMENT_ANY:
        return node_mask == 0 ? NULL : "nodes go with a placement: ask for strict, preferred or interleave";
    case LOAM_PLACEMENT_PREFERRED:
        return __builtin_popcountll(node_mask) == 1 ? NULL : "one node is preferred: name one";
    case LOAM_PLACEMENT_STRICT:
    case LOAM_PLACEMENT_INTERLEAVE:
        return node_mask != 0 ? NULL : "on which nodes: name one at least";
    default:
        return "there is no placement of that number";
    }
}

#endif
