// SPDX-License-Identifier: Apache-2.0
/*
 * Populating a range of memory with several threads at once.
 *
 * The range is cut into parts, which the threads take one after the other; a part that fails keeps none of the others from
 * being tried. Where a thread does not start, the others do its share.
 *
 * Private to backing*.c. Threads: any; ranges that overlap are for the caller to avoid.
 */
#ifndef LOAM_BACKING_POPULATE_H
#define LOAM_BACKING_POPULATE_H

#include "loam/backing.h"

#include <stdbool.h>
#include <stdint.h>

struct backing_populate_range {
    char *start;
    uint64_t bytes;        /* > 0 */
    uint64_t page_bytes;   /* the least that a part is, but for the last */
    uint32_t thread_count; /* this thread included, LOAM_BACKING_THREAD_MAX at most; 0: as many as are of use */
    struct loam_cancel cancel;
};

/* All is there if and only if failed_count == 0 and not cancelled; the members below failed_count are 0 then. */
struct backing_populate_result {
    bool cancelled; /* parts that nobody had begun are left out */
    uint64_t part_count;
    uint64_t failed_count;
    uint64_t first_failed_offset; /* from the range's start, in bytes, of the lowest part that failed */
    int error_number;             /* of it */
};

struct backing_populate_result loam_backing_populate_range(const struct backing_populate_range *range);

#endif
