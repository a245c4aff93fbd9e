// SPDX-License-Identifier: Apache-2.0
/*
 * Lock order: the list's, then of each memory that of its blocks, the ledger's, the map's, the frame allocator's: as in any
 * call.
 */
#include "allocator/memory_fork.h"

#include "allocator/host/prim.h"
#include "allocator/lock.h"

#include <stddef.h>

static struct {
    struct loam_lock lock; /* guards what follows */
    bool watched;
    struct memory_fork *first;
} list;

/* It lies in no shared memory, and no thread of this process dies with it alone. */
static void lock(struct loam_lock *taken)
{
    bool in_order = loam_lock_take(taken);

    (void)in_order;
}

static void freeze_all(void)
{
    lock(&list.lock);
    for (struct memory_fork *memory = list.first; memory != NULL; memory = memory->next) {
        lock(memory->blocks);
        loam_dma_freeze(memory->dma);
        loam_gpa_map_freeze(memory->map);
        loam_frame_freeze(memory->frame);
    }
}

static void thaw_all(void)
{
    for (struct memory_fork *memory = list.first; memory != NULL; memory = memory->next) {
        loam_frame_thaw(memory->frame);
        loam_gpa_map_thaw(memory->map);
        loam_dma_thaw(memory->dma);
        loam_lock_give_after_fork(memory->blocks);
    }
    loam_lock_give_after_fork(&list.lock);
}

enum loam_error loam_memory_fork_add(struct memory_fork *memory)
{
    lock(&list.lock);
    if (!list.watched) {
        list.watched = loam_prim_at_fork(freeze_all, thaw_all, thaw_all);
    }
    if (list.watched) {
        memory->previous = NULL;
        memory->next = list.first;
        if (list.first != NULL) {
            list.first->previous = memory;
        }
        list.first = memory;
    }
    loam_lock_give(&list.lock);
    return list.watched ? LOAM_OK : LOAM_ERROR_SYSTEM;
}

void loam_memory_fork_remove(struct memory_fork *memory)
{
    lock(&list.lock);
    if (memory->previous != NULL) {
        memory->previous->next = memory->next;
    } else {
        list.first = memory->next;
    }
    if (memory->next != NULL) {
        memory->next->previous = memory->previous;
    }
    loam_lock_give(&list.lock);
}
