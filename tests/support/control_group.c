// SPDX-License-Identifier: Apache-2.0
#include "tests/support/control_group.h"

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int error = errno;

    if (fd >= 0) {
        close(fd);
    }
    errno = error;
    return done;
}

/* Whether word stands by itself in the file. */
static bool file_has_word(const char *path, const char *word)
{
    FILE *file = fopen(path, "r");
    char found[64];
    bool has = false;

    while (file != NULL && !has && fscanf(file, "%63s", found) == 1) {
        has = strcmp(found, word) == 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return has;
}

static bool unified_has(const char *root, const char *controller)
{
    char path[CONTROL_GROUP_PATH_MAX + 32];

    snprintf(path, sizeof path, "%s/cgroup.controllers", root);
    return file_has_word(path, controller);
}

/* The hierarchy that has the controller, of those that are mounted. */
static bool find_root(struct control_group *group)
{
    FILE *mounts = setmntent("/proc/mounts", "r");
    const struct mntent *entry;
    bool has = false;

    while (mounts != NULL && !has && (entry = getmntent(mounts)) != NULL) {
        group->is_unified = strcmp(entry->mnt_type, "cgroup2") == 0;
        has = group->is_unified ? unified_has(entry->mnt_dir, group->controller)
                                : strcmp(entry->mnt_type, "cgroup") == 0 && hasmntopt(entry, group->controller) != NULL;
        snprintf(group->root, sizeof group->root, "%s", entry->mnt_dir);
    }
    if (mounts != NULL) {
        endmntent(mounts);
    }
    return has;
}

static bool mount_unified(struct control_group *group)
{
    snprintf(group->mount, sizeof group->mount, "/tmp/loam-cgroup-XXXXXX");
    if (mkdtemp(group->mount) == NULL) {
        group->mount[0] = '\0';
        return false;
    }
    snprintf(group->root, sizeof group->root, "%s", group->mount);
    group->is_unified = mount("none", group->mount, "cgroup2", 0, NULL) == 0;
    return group->is_unified && unified_has(group->root, group->controller);
}

static bool turn(const struct control_group *group, char sign)
{
    char path[CONTROL_GROUP_PATH_MAX + 32], text[40];

    snprintf(path, sizeof path, "%s/cgroup.subtree_control", group->root);
    snprintf(text, sizeof text, "%c%s", sign, group->controller);
    return write_text(path, text);
}

static bool is_turned_on(const struct control_group *group)
{
    char path[CONTROL_GROUP_PATH_MAX + 32];

    snprintf(path, sizeof path, "%s/cgroup.subtree_control", group->root);
    return file_has_word(path, group->controller);
}

const char *control_group_make(struct control_group *group, const char *controller)
{
    *group = (struct control_group){0};
    snprintf(group->controller, sizeof group->controller, "%s", controller);
    if (geteuid() != 0) {
        return "a control group can be made by root only";
    }
    if (!find_root(group) && !mount_unified(group)) {
        control_group_remove(group);
        return "no hierarchy of control groups has the controller";
    }
    if (group->is_unified && !is_turned_on(group)) {
        group->was_turned_on = turn(group, '+');
        if (!group->was_turned_on) {
            control_group_remove(group);
            return "the controller cannot be turned on in the unified hierarchy";
        }
    }
    if (snprintf(group->path, sizeof group->path, "%.200s/loam-test-%d", group->root, (int)getpid()) < 0 ||
        mkdir(group->path, 0755) != 0) {
        group->path[0] = '\0';
        control_group_remove(group);
        return "no control group can be made";
    }
    return NULL;
}

bool control_group_write(const struct control_group *group, const char *file, const char *value)
{
    char path[CONTROL_GROUP_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/%s", group->path, file);
    return write_text(path, value);
}

bool control_group_argv(const struct control_group *group, char *const argv[], char *inside[], size_t max)
{
    static char script[] = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
    char *const first[] = {"sh", "-c", script, (char *)group->path};
    size_t count = sizeof first / sizeof first[0], extra = 0;

    while (argv[extra] != NULL) {
        extra++;
    }
    if (count + extra + 1 > max) {
        return false;
    }
    memcpy(inside, first, sizeof first);
    memcpy(inside + count, argv, (extra + 1) * sizeof argv[0]);
    return true;
}

static void kill_members(const struct control_group *group)
{
    char path[CONTROL_GROUP_PATH_MAX + 32];
    FILE *file;
    int pid;

    snprintf(path, sizeof path, "%s/cgroup.procs", group->path);
    file = fopen(path, "r");
    while (file != NULL && fscanf(file, "%d", &pid) == 1) {
        kill(pid, SIGKILL);
    }
    if (file != NULL) {
        fclose(file);
    }
}

void control_group_remove(struct control_group *group)
{
    const struct timespec pause = {.tv_nsec = 10000000};

    /* A process that has ended may be counted for a moment longer. */
    for (unsigned i = 0; group->path[0] != '\0' && i < 500; i++) {
        if (rmdir(group->path) == 0 || errno != EBUSY) {
            break;
        }
        kill_members(group);
        nanosleep(&pause, NULL);
    }
    if (group->was_turned_on) {
        (void)!turn(group, '-');
    }
    if (group->mount[0] != '\0') {
        umount(group->mount);
        rmdir(group->mount);
    }
    *group = (struct control_group){0};
}
