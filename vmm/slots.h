// SPDX-License-Identifier: Apache-2.0
/*
 * Slots: the memory that KVM shows a guest, kept equal to what a view of the GPA map says.
 *
 * KVM has no call that changes several slots at once, and takes no slot that overlaps another. So a change is prepared
 * first (everything that can be refused is found out there), and then committed: what is gone is deleted, then
 * what is new is added, and a slot that is the same in both stays untouched, with the guest's pages in it.
 * Between the two the guest lacks memory: vCPUs do not run during a commit.
 *
 * Threads: one at a time. The host memory behind installed slots outlives them.
 */
#ifndef LOAM_VMM_SLOTS_H
#define LOAM_VMM_SLOTS_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Carry out one KVM_SET_USER_MEMORY_REGION: 0, or -1 with errno set. slots_set_in_vm is the real one; tests hand in
 * one that checks and fails.
 */
typedef int slots_set_fn(void *self, const struct kvm_userspace_memory_region *region);

/* self is an int: the VM's descriptor. */
slots_set_fn slots_set_in_vm;

struct slots_entry {
    struct loam_slot slot;
    uint32_t number; /* KVM's; below slots.limit, and no other entry's */
    bool is_new;     /* within a change: not installed yet */
};

/* installed ascends by slot.start, and is disjoint; count <= limit */
struct slots {
    slots_set_fn *set;
    void *self;
    uint32_t limit;
    uint32_t count;
    struct slots_entry *installed; /* on the heap */
};

/* The way from an installed set to another. */
struct slots_change {
    uint32_t gone_count;
    uint32_t wanted_count;
    struct slots_entry *gone;   /* on the heap; ascending */
    struct slots_entry *wanted; /* on the heap; ascending */
};

/* No slot is installed. self outlives slots. limit: KVM_CAP_NR_MEMSLOTS. */
void slots_init(struct slots *slots, slots_set_fn *set, void *self, uint32_t limit);

/* Forget what is installed without telling KVM: for a VM that is gone, or goes now. */
void slots_destroy(struct slots *slots);

/*
 * Work out how to show what view shows. *change is the caller's, for slots_commit or slots_abandon; empty on failure.
 * LOAM_ERROR_EXHAUSTED: more slots than limit. LOAM_ERROR_SYSTEM: no memory.
 */
LOAM_MUST_USE enum loam_error slots_prepare(const struct slots *slots, const struct loam_gpa_view *view,
                                            struct slots_change *change, struct loam_diag *diag);

/*
 * Carry out a change that was prepared from the set that is installed now; change is empty afterwards, whatever comes
 * of it. LOAM_ERROR_SYSTEM: KVM refused a slot, and the old set is installed again. LOAM_ERROR_CORRUPT: KVM refused
 * that too: the VM's memory is no set that is known, and the VM can only be destroyed.
 */
LOAM_MUST_USE enum loam_error slots_commit(struct slots *slots, struct slots_change *change, struct loam_diag *diag);

/* Drop a change that is not carried out. */
void slots_abandon(struct slots_change *change);

/* Prepare and commit. */
LOAM_MUST_USE enum loam_error slots_update(struct slots *slots, const struct loam_gpa_view *view,
                                           struct loam_diag *diag);

/* Delete every slot, the highest first. LOAM_ERROR_SYSTEM: KVM refused one; it and those below it stay. */
LOAM_MUST_USE enum loam_error slots_clear(struct slots *slots, struct loam_diag *diag);

#endif
