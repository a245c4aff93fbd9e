// SPDX-License-Identifier: Apache-2.0
/*
 * Why the kernel refused memory: of all limits that a call can meet, the one that is found to be short.
 *
 * The kernel says ENOMEM or EFAULT for most of them alike, so what is there is looked at afterwards. What is named was
 * short when it was read; when nothing is found to be short, nothing is named.
 *
 * Private to backing*.c. Threads: any.
 */
#ifndef LOAM_BACKING_CAUSE_H
#define LOAM_BACKING_CAUSE_H

#include "loam/backing.h"

#include <stdbool.h>
#include <stdint.h>

#define BACKING_CAUSE_MAX 384

/* What was wanted, and by which call. */
enum backing_cause_call { BACKING_CAUSE_FILE, BACKING_CAUSE_MAP, BACKING_CAUSE_POPULATE, BACKING_CAUSE_LOCK };

struct backing_cause_wanted {
    enum backing_cause_call call;
    uint64_t bytes;
    uint64_t page_bytes; /* of hugetlb pages; 0: ordinary ones */
    bool shared;
    int error_number; /* that the call ended with */
};

/*
 * Whether the pool of hugepages, the host's or those nodes' part of it, has too few: then text says so as a line of its
 * own, with the command that raises it. node_mask 0: the host's.
 */
bool loam_backing_cause_pool(uint64_t bytes, uint64_t page_bytes, uint64_t node_mask, char text[BACKING_CAUSE_MAX]);

/*
 * Write "what is short: what is there: what to do" into text. False: nothing is known to be short; text is empty. errno
 * stays.
 */
bool loam_backing_cause_find(const struct backing_cause_wanted *wanted, char text[BACKING_CAUSE_MAX]);

/*
 * Whether a control group limits hugetlb pages of page_bytes, and charges them only when they are touched.
 * LOAM_ERROR_SYSTEM: its figures could not be read.
 */
LOAM_MUST_USE enum loam_error loam_backing_charged_at_touch(uint64_t page_bytes, bool *charged, struct loam_diag *diag);

#endif
