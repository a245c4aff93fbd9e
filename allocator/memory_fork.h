// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memories of this process, so that a child that it forks gets whole copies of their metadata: before fork(2)
 * everything is frozen (no call is under way, no lock is held by a thread that the child does not have), and thaws after
 * it, in both. Private to memory.c. Any thread.
 */
#ifndef LOAM_MEMORY_FORK_H
#define LOAM_MEMORY_FORK_H

#include "loam/dma.h"
#include "loam/error.h"
#include "loam/frame.h"
#include "loam/gpa_map.h"

struct loam_lock;

struct memory_fork {
    struct loam_lock *blocks;
    struct loam_dma *dma;
    struct loam_gpa_map *map;
    struct loam_frame *frame;
    struct memory_fork *previous;
    struct memory_fork *next;
};

/* From now on frozen at each fork, until removed. LOAM_ERROR_SYSTEM: no memory; errno says so. */
LOAM_MUST_USE enum loam_error loam_memory_fork_add(struct memory_fork *memory);

/* Before anything of it goes. */
void loam_memory_fork_remove(struct memory_fork *memory);

#endif
