// SPDX-License-Identifier: Apache-2.0
/*
 * A control group of a test's own, in whichever hierarchy has the controller: version 1, or the unified one, which is
 * mounted for the while if nobody has.
 *
 * Threads: one group is used by one thread. Two tests that turn the same controller on in the unified hierarchy must not
 * run at once: whoever turned it on turns it off.
 */
#ifndef LOAM_TEST_CONTROL_GROUP_H
#define LOAM_TEST_CONTROL_GROUP_H

#include <stdbool.h>
#include <stddef.h>

#define CONTROL_GROUP_PATH_MAX 256

struct control_group {
    char path[CONTROL_GROUP_PATH_MAX];  /* of its folder */
    char root[CONTROL_GROUP_PATH_MAX];  /* of its hierarchy */
    char mount[CONTROL_GROUP_PATH_MAX]; /* if it was mounted for this; else empty */
    char controller[32];
    bool is_unified;
    bool was_turned_on; /* the controller, for this */
};

/* Make one. NULL, or why there can be none here: for a test that skips. */
const char *control_group_make(struct control_group *group, const char *controller);

/* Write a value to one of its files, "hugetlb.2MB.max" for instance. false: errno says why. */
bool control_group_write(const struct control_group *group, const char *file, const char *value);

/*
 * argv[0..] becomes the arguments that start argv inside the group: up to max with the NULL at the end. Returns whether
 * they fit. The strings stay the caller's and the group's.
 */
bool control_group_argv(const struct control_group *group, char *const argv[], char *inside[], size_t max);

/* Kill what is left in it, remove it, and leave the host as it was. */
void control_group_remove(struct control_group *group);

#endif
