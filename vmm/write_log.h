// SPDX-License-Identifier: Apache-2.0
/*
 * Which pages of RAM were written since they were asked for last, whoever wrote them: vCPUs, by KVM's dirty log of each slot
 * (KVM API, KVM_GET_DIRTY_LOG, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2), and the host's devices, by what they mark (loam/dirty.h).
 *
 *     write_log_start -> write_log_harvest ... -> write_log_stop
 *
 * Where KVM lets it, a page is watched again only once its mark has been taken, so a harvest of much memory holds up nobody. A KVM
 * that maps huge pages splits them while it logs, and joins them as they are touched afterwards.
 *
 * Threads: one at a time starts, harvests and stops, while vCPUs run and devices mark.
 */
#ifndef LOAM_VMM_WRITE_LOG_H
#define LOAM_VMM_WRITE_LOG_H

#include "loam/dirty.h"
#include "loam/error.h"
#include "loam/gpa_map.h"
#include "loam/slots.h"

#include <stdbool.h>
#include <stdint.h>

struct write_log {
    int vm_fd;                /* the caller's, and so is all that follows, up to dirty */
    struct loam_slots *slots; /* nobody else changes them while it is started */
    struct loam_gpa_map *map;
    struct loam_dirty *dirty; /* what devices mark */
    bool clears_by_hand;      /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 is on */
    bool is_started;
    uint64_t *words; /* heap: of the largest slot */
    uint64_t word_count;
};

/* Nothing is logged. There is nothing to release. */
void write_log_init(struct write_log *log, int vm_fd, struct loam_slots *slots, struct loam_gpa_map *map,
                    struct loam_dirty *dirty);

/*
 * From now on. What was written before is not in it. LOAM_ERROR_SYSTEM: KVM refuses, or there is no memory; errors of
 * loam_gpa_map_change and loam_slots_update. Nothing is logged then.
 */
LOAM_MUST_USE enum loam_error write_log_start(struct write_log *log, struct loam_diag *diag);

/* Of runs of whole pages, in ascending order within each slot. */
typedef enum loam_error write_log_run_fn(void *self, uint64_t gpa, uint64_t bytes, struct loam_diag *diag);

/*
 * Each page that was written since it was told of last, once for each who may have: a page may be told of twice, and of two that were
 * written none is left out. *page_count: how many. Returns the first error of run's; what was not told of by then is lost, and the
 * harvest in vain. LOAM_ERROR_SYSTEM: KVM refuses.
 */
LOAM_MUST_USE enum loam_error write_log_harvest(struct write_log *log, write_log_run_fn *run, void *self,
                                                uint64_t *page_count, struct loam_diag *diag);

/* No effect on one that is not started. What cannot be undone goes on, and costs the guest a fault a page. */
void write_log_stop(struct write_log *log);

#endif
