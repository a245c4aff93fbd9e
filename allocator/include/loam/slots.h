// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Slots: the guest memory that a hypervisor has, kept equal to what a view of the GPA map says.
 *
 * A hypervisor such as KVM has no call that changes several slots at once, and takes no slot that overlaps another. So a
 * change is prepared first: everything that can be refused without the hypervisor is found out there, and nothing is
 * allocated later. Then it is committed, in one call for each slot: the dirty logging of slots that stay is switched in
 * place, what is gone is deleted, what is new is added. A slot that is the same in both stays untouched, with the guest's
 * pages in it. Where the hypervisor refuses a call, those before it are undone in reverse order.
 *
 * Between a deletion and what is added after it the guest lacks memory: vCPUs do not run during a commit, unless all that
 * it does is to switch the dirty logging of whole slots. A dirty log that was not fetched is lost when its slot is
 * deleted, or logged no more; no way back brings it back.
 *
 * The hypervisor is a callback, so that nothing here knows one: a monitor hands it on to KVM, a test to a table.
 *
 * Threads: one at a time for each object. The host memory behind the slots outlives them; a view may be released as soon
 * as the call that was given it returns. NULL where an object, a view or an output is wanted is LOAM_ERROR_INVALID.
 */
#ifndef LOAM_SLOTS_H
#define LOAM_SLOTS_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One slot, as KVM_SET_USER_MEMORY_REGION wants it (KVM API, section 4.35). */
struct loam_slots_row {
    loam_gpa start;
    uint64_t bytes; /**< 0: the slot with this number goes */
    void *hva;      /**< of start */
    uint32_t number;
    bool read_only; /**< KVM_MEM_READONLY */
    bool log_dirty; /**< KVM_MEM_LOG_DIRTY_PAGES */
};

/**
 * Have the hypervisor carry out one row: 0, or -1 with errno set, and nothing done. A number that is there already comes
 * again only to be deleted, or with another log_dirty and all else the same. The callback does not use the slots that it
 * is called for.
 */
typedef int loam_slots_set_fn(void *self, const struct loam_slots_row *row);

/** Whose slots they are, and which it may have: the numbers from first_number to first_number + limit - 1. */
struct loam_slots_config {
    loam_slots_set_fn *set;
    void *self;            /**< handed to set; outlives the slots */
    uint32_t limit;        /**< slots at once, at least 1: KVM_CAP_NR_MEMSLOTS, less those that the monitor keeps */
    uint32_t first_number; /**< numbers below it are the monitor's own */
};

/** Opaque: what is installed. On the heap. */
struct loam_slots;

/** Opaque: the way from what is installed to something else. On the heap. */
struct loam_slots_change;

/**
 * No slot is installed. *slots is NULL on failure. LOAM_ERROR_INVALID: no set, limit is 0, or numbers beyond UINT32_MAX.
 * LOAM_ERROR_SYSTEM: no memory.
 */
LOAM_MUST_USE enum loam_error loam_slots_create(const struct loam_slots_config *config, struct loam_slots **slots,
                                                struct loam_diag *diag);

/** Forget what is installed without telling the hypervisor: for a VM that is gone, or goes now. NULL is allowed. */
void loam_slots_destroy(struct loam_slots *slots);

/**
 * Work out how to show what view shows. *change is the caller's, for loam_slots_commit or loam_slots_abandon; NULL on
 * failure. LOAM_ERROR_INVALID also: a newer view was shown already, and memory of the older one may be gone.
 * LOAM_ERROR_EXHAUSTED: more slots than limit. LOAM_ERROR_SYSTEM: no memory. LOAM_ERROR_CORRUPT: after a commit
 * that said so.
 */
LOAM_MUST_USE enum loam_error loam_slots_prepare(const struct loam_slots *slots, const struct loam_gpa_view *view,
                                                 struct loam_slots_change **change, struct loam_diag *diag);

/**
 * Carry out a change. It is gone afterwards, and *change NULL, whatever comes of it. LOAM_ERROR_INVALID: it was prepared
 * for other slots, or for what is not installed any more. LOAM_ERROR_SYSTEM: the hypervisor refused a slot, and has what
 * it had before. LOAM_ERROR_CORRUPT: it refused the way back too; what it has is not known, and the VM can only be
 * destroyed.
 */
LOAM_MUST_USE enum loam_error loam_slots_commit(struct loam_slots *slots, struct loam_slots_change **change,
                                                struct loam_diag *diag);

/** Drop a change that is not carried out; *change is NULL afterwards. NULL is allowed, for either. */
void loam_slots_abandon(struct loam_slots_change **change);

/** Prepare and commit, with the errors of both. */
LOAM_MUST_USE enum loam_error loam_slots_update(struct loam_slots *slots, const struct loam_gpa_view *view,
                                                struct loam_diag *diag);

/**
 * Delete every slot, the highest first; then views of any map can be shown. LOAM_ERROR_SYSTEM: the hypervisor refused one; it and those below it stay.
 * LOAM_ERROR_CORRUPT: as loam_slots_prepare.
 */
LOAM_MUST_USE enum loam_error loam_slots_clear(struct loam_slots *slots, struct loam_diag *diag);

/** How many slots are installed; 0: NULL. After LOAM_ERROR_CORRUPT, how many were before. */
uint32_t loam_slots_count(const struct loam_slots *slots);

/** The index-th of them in ascending order of start. LOAM_ERROR_NOT_FOUND: index >= loam_slots_count; *row is zero. */
LOAM_MUST_USE enum loam_error loam_slots_at(const struct loam_slots *slots, uint32_t index, struct loam_slots_row *row);

#ifdef __cplusplus
}
#endif

#endif
