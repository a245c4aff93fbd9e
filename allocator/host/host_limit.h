// SPDX-License-Identifier: Apache-2.0
/*
 * Limits that this process itself has (getrlimit(2)), with what it uses of them already.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_HOST_LIMIT_H
#define LOAM_HOST_LIMIT_H

#include "allocator/host/prim.h"
#include "loam/error.h"

#include <stddef.h>
#include <stdint.h>

struct loam_host_limit {
    uint64_t limit; /* UINT64_MAX: none */
    uint64_t used;  /* of it; 0 without one, and for the size of a file, which each has to itself */
    uint64_t room;  /* limit - used; UINT64_MAX: no limit */
};

/*
 * One limit. For THREADS, used may be more than it is as long as wanted more fit: then it is what all users together
 * have, since counting one user's reads a file a process. LOAM_ERROR_SYSTEM: a figure could not be read.
 */
LOAM_MUST_USE enum loam_error loam_host_limit(enum loam_prim_limit which, uint64_t wanted,
                                              struct loam_host_limit *limit, struct loam_diag *diag);

/* "RLIMIT_AS" and the like. */
const char *loam_host_limit_name(enum loam_prim_limit which);

/* How a person makes room for wanted more: "raise the limit with: ulimit -v 2097152". */
void loam_host_limit_mend(enum loam_prim_limit which, const struct loam_host_limit *limit, uint64_t wanted, char *text,
                          size_t bytes);

#endif
