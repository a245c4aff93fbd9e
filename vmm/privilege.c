// SPDX-License-Identifier: Apache-2.0
#include "vmm/privilege.h"

#include <grp.h>
#include <unistd.h>

static enum loam_error refuse(const char *option, unsigned int id, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "--%s %u: user %u may not become that: run it as root", option, id,
                     geteuid());
}

/* Groups first: who is no longer root may not change them. */
enum loam_error privilege_drop(const struct privilege *privilege, struct loam_diag *diag)
{
    if (privilege->has_gid &&
        (setgroups(0, NULL) != 0 || setresgid(privilege->gid, privilege->gid, privilege->gid) != 0)) {
        return refuse("gid", privilege->gid, diag);
    }
    if (privilege->has_uid && setresuid(privilege->uid, privilege->uid, privilege->uid) != 0) {
        return refuse("uid", privilege->uid, diag);
    }
    return LOAM_OK;
}
