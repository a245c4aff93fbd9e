// SPDX-License-Identifier: Apache-2.0
#include "vmm/privilege.h"

#include <criterion/criterion.h>
#include <grp.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

/* Whether the calling process is user and group, and nobody else, and stays so. */
static bool is_for_good(uid_t uid, gid_t gid)
{
    uid_t uids[3];
    gid_t gids[3];

    return getresuid(&uids[0], &uids[1], &uids[2]) == 0 && getresgid(&gids[0], &gids[1], &gids[2]) == 0 &&
           uids[0] == uid && uids[1] == uid && uids[2] == uid && gids[0] == gid && gids[1] == gid && gids[2] == gid &&
           getgroups(0, NULL) == 0 && (uid == 0 || setuid(0) != 0);
}

/* 0: dropped as wanted; 1: refused by name; 2: neither. */
static int drop(const struct privilege *privilege, uid_t uid, gid_t gid)
{
    struct loam_diag diag = {0};
    enum loam_error error = privilege_drop(privilege, &diag);

    if (error == LOAM_OK) {
        return is_for_good(uid, gid) ? 0 : 2;
    }
    return error == LOAM_ERROR_NOT_PERMITTED && strstr(diag.text, "run it as root") != NULL ? 1 : 2;
}

static int exit_of(pid_t child)
{
    int status;

    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void need_root(void)
{
    if (geteuid() != 0) {
        cr_skip("only root becomes others");
    }
}

Test(privilege, a_user_is_become_for_good)
{
    const struct privilege nobody = {true, true, NOBODY, NOBODY}, group = {.has_gid = true, .gid = NOBODY};
    pid_t child;

    need_root();
    child = fork();
    if (child == 0) {
        _exit(drop(&nobody, NOBODY, NOBODY));
    }
    cr_expect_eq(exit_of(child), 0);
    child = fork();
    if (child == 0) {
        _exit(drop(&group, 0, NOBODY));
    }
    cr_expect_eq(exit_of(child), 0);
}

Test(privilege, nothing_asked_nothing_done)
{
    struct privilege none = {0};

    cr_expect_eq(privilege_drop(&none, NULL), LOAM_OK);
}

Test(privilege, who_may_not_is_told)
{
    const struct privilege nobody = {true, true, NOBODY, NOBODY}, root = {.has_uid = true, .uid = 0};
    pid_t child;

    need_root();
    child = fork();
    if (child == 0) {
        _exit(drop(&nobody, NOBODY, NOBODY) == 0 ? drop(&root, 0, 0) : 2);
    }
    cr_expect_eq(exit_of(child), 1);
}
