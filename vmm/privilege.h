// SPDX-License-Identifier: Apache-2.0
/*
 * The user and group that a process becomes once it has opened all that it needs.
 *
 * Threads: all of them change, as POSIX has it (nptl(7)); from one at a time.
 */
#ifndef LOAM_VMM_PRIVILEGE_H
#define LOAM_VMM_PRIVILEGE_H

#include "loam/error.h"

#include <stdbool.h>
#include <sys/types.h>

struct privilege {
    bool has_uid, has_gid; /* what is not there stays as it is */
    uid_t uid;
    gid_t gid;
};

/*
 * Become that group alone, and that user, for good: real, effective and saved. With a user, capabilities are gone. Nothing is
 * done where neither is there. LOAM_ERROR_NOT_PERMITTED: this user may not become another; part of it may be done.
 */
LOAM_MUST_USE enum loam_error privilege_drop(const struct privilege *privilege, struct loam_diag *diag);

#endif
