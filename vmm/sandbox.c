// SPDX-License-Identifier: Apache-2.0
#include "vmm/sandbox.h"

#include "vmm/kvm.h"
#include "vmm/sandbox_filters.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than Debian 12's headers (Linux, include/uapi/linux/landlock.h). */
#define ACCESS_FS_TRUNCATE     (UINT64_C(1) << 14) /* ABI 3 */
#define ACCESS_FS_IOCTL_DEV    (UINT64_C(1) << 15) /* ABI 5 */
#define ACCESS_NET_BIND_TCP    (UINT64_C(1) << 0)  /* ABI 4 */
#define ACCESS_NET_CONNECT_TCP (UINT64_C(1) << 1)
#define SCOPE_ABSTRACT_UNIX    (UINT64_C(1) << 0) /* ABI 6 */
#define SCOPE_SIGNAL           (UINT64_C(1) << 1) /* ABI 6; before 7 it held back signals to threads of one's own */
#define ABI_REFER              2
#define ABI_TRUNCATE           3
#define ABI_NET                4
#define ABI_IOCTL_DEV          5
#define ABI_SCOPED_WITHIN      7
#define ACCESS_FS_FIRST        ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) /* all of ABI 1 */

struct ruleset {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

/* --- Landlock --------------------------------------------------------------------------------------------------- */

static struct ruleset ruleset_of(long abi, bool has_network)
{
    struct ruleset ruleset = {.handled_access_fs = ACCESS_FS_FIRST};

    ruleset.handled_access_fs |= abi >= ABI_REFER ? LANDLOCK_ACCESS_FS_REFER : 0;
    ruleset.handled_access_fs |= abi >= ABI_TRUNCATE ? ACCESS_FS_TRUNCATE : 0;
    ruleset.handled_access_fs |= abi >= ABI_IOCTL_DEV ? ACCESS_FS_IOCTL_DEV : 0;
    ruleset.handled_access_net = abi >= ABI_NET && !has_network ? ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP : 0;
    ruleset.scoped = abi >= ABI_SCOPED_WITHIN ? SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL : 0;
    return ruleset;
}

/* The kernel takes a structure that is longer than its own as long as what it does not know is zero. */
static bool leave(int ruleset_fd, const char *path, uint64_t access)
{
    struct landlock_path_beneath_attr beneath = {.allowed_access = access};
    bool is_left;

    beneath.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (beneath.parent_fd < 0) {
        return errno == ENOENT; /* what is not there need not be left */
    }
    is_left = syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) == 0;
    close(beneath.parent_fd);
    return is_left;
}

static bool leave_removal(int ruleset_fd, const char *path)
{
    char folder[PATH_MAX];

    snprintf(folder, sizeof folder, "%s", path);
    return leave(ruleset_fd, dirname(folder), LANDLOCK_ACCESS_FS_REMOVE_FILE);
}

/* Name servers, and the seed of what a network stack chooses by chance. */
static bool leave_network(int ruleset_fd)
{
    return leave(ruleset_fd, "/etc/resolv.conf", LANDLOCK_ACCESS_FS_READ_FILE) &&
           leave(ruleset_fd, "/dev/urandom", LANDLOCK_ACCESS_FS_READ_FILE);
}

static bool restrict_files(const struct ruleset *ruleset, const struct sandbox_needs *needs)
{
    const uint64_t reads = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
    const uint64_t device = (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_FS_IOCTL_DEV) &
                            ruleset->handled_access_fs;
    int fd = (int)syscall(SYS_landlock_create_ruleset, ruleset, sizeof *ruleset, 0);
    bool is_done =
        fd >= 0 && leave(fd, "/proc", reads) && leave(fd, "/sys", reads) &&
        (!(needs->makes_machines || needs->is_controlled || needs->is_domain) || leave(fd, KVM_DEVICE, device)) &&
        (!needs->has_network || leave_network(fd));

    for (size_t i = 0; is_done && i < needs->path_count; i++) {
        is_done = leave_removal(fd, needs->paths[i]);
    }
    is_done = is_done && syscall(SYS_landlock_restrict_self, fd, 0) == 0;
    if (fd >= 0) {
        int failed = errno;

        close(fd);
        errno = failed;
    }
    return is_done;
}

static enum loam_error enter_landlock(const struct sandbox_needs *needs, struct loam_diag *diag)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    struct ruleset ruleset = ruleset_of(abi, needs->has_network);

    if (abi < 0) {
        return LOAM_OK; /* not built in, or switched off */
    }
    return restrict_files(&ruleset, needs) ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "sandbox: Landlock");
}

/* --- Filters ---------------------------------------------------------------------------------------------------- */

static enum loam_error take_filter(const struct sandbox_filter *filter, unsigned int flags, struct loam_diag *diag)
{
    struct sock_fprog program = {.len = (unsigned short)filter->count,
                                 .filter = (struct sock_filter *)filter->instructions};
    long answer = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);

    if (answer == 0) {
        return LOAM_OK;
    }
    if (answer > 0) {
        errno = EEXIST;
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "sandbox: thread %ld has a filter of its own", answer);
    }
    if (errno == ENOSYS || errno == EINVAL) {
        return loam_fail(
            diag, LOAM_ERROR_NOT_FOUND,
            "sandbox: this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER): --no-sandbox runs "
            "without");
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "sandbox: seccomp");
}

static const struct sandbox_filter *filter_for(const struct sandbox_needs *needs)
{
    if (needs->is_domain) {
        return needs->has_network ? &sandbox_filter_network : &sandbox_filter_domain;
    }
    if (needs->is_controlled || (needs->makes_machines && needs->has_debugger)) {
        return &sandbox_filter_control;
    }
    if (needs->makes_machines) {
        return &sandbox_filter_anew;
    }
    return needs->has_debugger ? &sandbox_filter_debugger : &sandbox_filter_rest;
}

enum loam_error sandbox_enter(const struct sandbox_needs *needs, struct loam_diag *diag)
{
    enum loam_error error;

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "sandbox: PR_SET_NO_NEW_PRIVS");
    }
    error = enter_landlock(needs, diag);
    return error == LOAM_OK ? take_filter(filter_for(needs), SECCOMP_FILTER_FLAG_TSYNC, diag) : error;
}

enum loam_error sandbox_enter_vcpu(struct loam_diag *diag)
{
    return take_filter(&sandbox_filter_vcpu, 0, diag);
}
