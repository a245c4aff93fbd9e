// SPDX-License-Identifier: Apache-2.0
/*
 * Guest RAM that the host does not supply: found, and told apart from a hole.
 *
 * Memory that is charged at first touch can be refused at any time: a limit of a control group is lowered, a pool is
 * drained, a page fails. A KVM that emulates then gives the guest's access to RAM as a device access, others let KVM_RUN
 * fail with EFAULT. Neither may be answered like an access to a hole: what the guest wrote would be gone.
 *
 * Threads: any. What is asked about is populated if the host can, and never touched, so that nothing here raises SIGBUS.
 */
#ifndef LOAM_VMM_LOST_MEMORY_H
#define LOAM_VMM_LOST_MEMORY_H

#include "loam/gpa_map.h"

#include <stdbool.h>
#include <stdint.h>

/* A page that is missed. */
struct lost_memory {
    bool is_known; /* else only that there is one */
    loam_gpa gpa;
    char how[48]; /* how it is known: "a write of 4 bytes", "where rdi points" */
};

/*
 * Whether the map gives memory to part of [gpa, gpa + bytes), 1 to 8 bytes, that grants the access, which KVM says it
 * does not. A write to read-only memory is no such access. *lost is where.
 */
bool lost_memory_contradicts(const struct loam_gpa_view *view, loam_gpa gpa, uint32_t bytes, bool is_write,
                             loam_gpa *lost);

/*
 * 0, or the errno with which the host refuses gpa's page. 0 also where the map has no memory, and where no system call
 * can tell.
 */
int lost_memory_ask(const struct loam_gpa_view *view, loam_gpa gpa);

/*
 * The lowest page that the host does not supply, of those that are not populated: the first 8 of these are tried in each
 * region. *gpa is 0 if there is none.
 */
bool lost_memory_find(const struct loam_gpa_view *view, loam_gpa *gpa);

#endif
