// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/host_cgroup.h"

#include "allocator/host/host_text.h"
#include "allocator/host/prim.h"
#include "loam/types.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Kernels write "no limit" in version 1 as the largest multiple of a page; nothing real comes near. */
#define LIMIT_NONE_BYTES (UINT64_C(1) << 62)

/* One pair of files that limit a resource. */
struct limit_files {
    enum loam_host_cgroup_resource resource;
    bool unified;     /* version 2 */
    const char *name; /* of the controller, in version 1's lists */
    const char *limit;
    const char *used;
    const char *promised;  /* reserved, touched or not: used is at least that; NULL: there is no such figure */
    const char *cached[2]; /* labels in memory.stat of what the kernel drops before it refuses; NULL: none */
};

#define MEMORY_FILES(unified, name, limit, used, prefix)                                                               \
    {                                                                                                                  \
        LOAM_HOST_CGROUP_MEMORY, unified, name, limit, used, NULL,                                                     \
        {                                                                                                              \
            prefix "inactive_file ", prefix "active_file "                                                             \
        }                                                                                                              \
    }

/* Each size of hugepage has two limits in each version: at first touch, and at reservation. */
#define HUGETLB_FILES(resource, size)                                                                                  \
    {resource, true, "", size ".max", size ".current", size ".rsvd.current", {0}},                                     \
        {resource, true, "", size ".rsvd.max", size ".rsvd.current", NULL, {0}}, {resource,                            \
                                                                                  false,                               \
                                                                                  "hugetlb",                           \
                                                                                  size ".limit_in_bytes",              \
                                                                                  size ".usage_in_bytes",              \
                                                                                  size ".rsvd.usage_in_bytes",         \
                                                                                  {0}},                                \
    {                                                                                                                  \
        resource, false, "hugetlb", size ".rsvd.limit_in_bytes", size ".rsvd.usage_in_bytes", NULL,                    \
        {                                                                                                              \
            0                                                                                                          \
        }                                                                                                              \
    }

/* Beyond memory.high nobody is killed, but slowed down so much that a guest never gets its memory. */
static const struct limit_files limit_files[] = {
    MEMORY_FILES(true, "", "memory.max", "memory.current", ""),
    MEMORY_FILES(true, "", "memory.high", "memory.current", ""),
    MEMORY_FILES(false, "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    MEMORY_FILES(false, "memory", "memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes", "total_"),
    HUGETLB_FILES(LOAM_HOST_CGROUP_HUGETLB_2M, "hugetlb.2MB"),
    HUGETLB_FILES(LOAM_HOST_CGROUP_HUGETLB_1G, "hugetlb.1GB"),
    {LOAM_HOST_CGROUP_THREADS, true, "", "pids.max", "pids.current", NULL, {0}},
    {LOAM_HOST_CGROUP_THREADS, false, "pids", "pids.max", "pids.current", NULL, {0}},
};

/* A stretch of a text. */
struct span {
    const char *start;
    size_t length;
};

/* The stretch up to the next stop or the end of the line; *cursor goes beyond the stop. */
static struct span next_field(const char **cursor, char stop)
{
    struct span field = {*cursor, 0};

    while (field.start[field.length] != '\0' && field.start[field.length] != '\n' &&
           field.start[field.length] != stop) {
        field.length++;
    }
    *cursor = field.start + field.length + (field.start[field.length] == stop);
    return field;
}

static bool span_is(struct span span, const char *text)
{
    return span.length == strlen(text) && memcmp(span.start, text, span.length) == 0;
}

/* Whether word is one of the comma-separated words of list. */
static bool span_lists(struct span list, const char *word)
{
    while (list.length > 0) {
        const char *comma = (const char *)memchr(list.start, ',', list.length);
        size_t length = comma == NULL ? list.length : (size_t)(comma - list.start);
        size_t step = length + (comma != NULL);

        if (span_is((struct span){list.start, length}, word)) {
            return true;
        }
        list.start += step;
        list.length -= step;
    }
    return false;
}

/* NULL at the end of the text. */
static const char *next_line(const char *line)
{
    const char *end = strchr(line, '\n');

    return end == NULL || end[1] == '\0' ? NULL : end + 1;
}

/* Where the group hierarchy of one version and controller is mounted (proc(5), /proc/PID/mountinfo). */
struct mount {
    struct span root; /* the group that the mount point shows */
    struct span point;
    struct span options;
};

static bool parse_mount(const char *line, const struct limit_files *files, struct mount *mount)
{
    const char *cursor = line;
    struct span field, type;

    for (int i = 0; i < 3; i++) {
        next_field(&cursor, ' ');
    }
    mount->root = next_field(&cursor, ' ');
    mount->point = next_field(&cursor, ' ');
    do {
        field = next_field(&cursor, ' ');
    } while (field.length > 0 && !span_is(field, "-"));
    type = next_field(&cursor, ' ');
    next_field(&cursor, ' ');
    mount->options = next_field(&cursor, ' ');
    return mount->point.length < LOAM_HOST_CGROUP_PATH_MAX &&
           (files->unified ? span_is(type, "cgroup2")
                           : span_is(type, "cgroup") && span_lists(mount->options, files->name));
}

/* This process's group: the third field of the line in /proc/self/cgroup (cgroups(7)). */
static bool find_group(const char *groups, const struct limit_files *files, struct span *group)
{
    for (const char *line = groups; line != NULL; line = next_line(line)) {
        const char *cursor = line;
        struct span number = next_field(&cursor, ':');
        struct span controllers = next_field(&cursor, ':');

        *group = next_field(&cursor, '\n');
        if (files->unified ? span_is(number, "0") && controllers.length == 0 : span_lists(controllers, files->name)) {
            return true;
        }
    }
    return false;
}

/* mountinfo writes blanks and the like as a backslash and three octal digits. text is longer than span. */
static void unescape(struct span span, char *text)
{
    size_t used = 0;

    for (size_t i = 0; i < span.length; i++) {
        const char *c = span.start + i;
        bool escaped = *c == '\\' && span.length - i > 3 && c[1] >= '0' && c[1] <= '3' && c[2] >= '0' && c[2] <= '7' &&
                       c[3] >= '0' && c[3] <= '7';

        text[used] = *c;
        if (escaped) {
            text[used] = (char)((c[1] - '0') << 6 | (c[2] - '0') << 3 | (c[3] - '0'));
            i += 3;
        }
        used++;
    }
    text[used] = '\0';
}

/*
 * The group's folder. False: the mount does not show it, as in some containers, or not so that we could name it; dir is
 * the mount point then, whose limits hold for all that is below.
 */
static bool group_folder(const struct mount *mount, struct span group, char dir[LOAM_HOST_CGROUP_PATH_MAX],
                         size_t *mount_length)
{
    size_t skip = span_is(mount->root, "/") ? 0 : mount->root.length;
    bool shown = group.length >= skip && memcmp(group.start, mount->root.start, skip) == 0 &&
                 (group.length == skip || group.start[skip] == '/');
    struct span below = shown ? (struct span){group.start + skip, group.length - skip} : (struct span){"", 0};

    unescape(mount->point, dir);
    *mount_length = strlen(dir);
    if (!shown || span_is(below, "/") || !loam_fits(*mount_length, below.length + 1, LOAM_HOST_CGROUP_PATH_MAX)) {
        return shown;
    }
    memcpy(dir + *mount_length, below.start, below.length);
    dir[*mount_length + below.length] = '\0';
    if (strstr(dir + *mount_length, "/..") != NULL) {
        dir[*mount_length] = '\0';
        return false;
    }
    return true;
}

static enum loam_error group_cached(const char *dir, const struct limit_files *files, uint64_t *bytes,
                                    struct loam_diag *diag)
{
    char path[LOAM_HOST_CGROUP_PATH_MAX], text[LOAM_HOST_TEXT_TABLE_MAX];
    bool present = false;
    enum loam_error error = LOAM_OK;

    *bytes = 0;
    if (files->cached[0] != NULL && snprintf(path, sizeof path, "%s/memory.stat", dir) < (int)sizeof path) {
        error = loam_host_text_file(path, text, sizeof text, &present, diag);
    }
    for (size_t i = 0; error == LOAM_OK && present && i < 2; i++) {
        uint64_t part_bytes;

        error = loam_host_text_labelled(path, text, files->cached[i], 1, false, &part_bytes, diag);
        *bytes = loam_add_capped(*bytes, part_bytes);
    }
    return error;
}

/* UINT64_MAX: no limit here. */
static enum loam_error group_limit(const char *path, uint64_t *bytes, struct loam_diag *diag)
{
    char text[LOAM_HOST_TEXT_FIGURE_MAX];
    bool present;
    enum loam_error error = loam_host_text_file(path, text, sizeof text, &present, diag);

    *bytes = UINT64_MAX;
    if (error != LOAM_OK || !present || strcmp(text, "max\n") == 0) {
        return error;
    }
    if (!loam_host_text_parse(text, bytes)) {
        return loam_host_text_malformed(path, diag);
    }
    *bytes = *bytes >= LIMIT_NONE_BYTES ? UINT64_MAX : *bytes;
    return LOAM_OK;
}

/* What the group uses of a resource, promises included and cached files left out. */
static enum loam_error group_used(const char *dir, const struct limit_files *files, uint64_t *used,
                                  struct loam_diag *diag)
{
    char path[LOAM_HOST_CGROUP_PATH_MAX];
    uint64_t promised = 0, cached;
    bool present;
    enum loam_error error = LOAM_OK;

    *used = 0;
    if (snprintf(path, sizeof path, "%s/%s", dir, files->used) < (int)sizeof path) {
        error = loam_host_text_figure(path, used, &present, diag);
    }
    if (error == LOAM_OK && files->promised != NULL &&
        snprintf(path, sizeof path, "%s/%s", dir, files->promised) < (int)sizeof path) {
        error = loam_host_text_figure(path, &promised, &present, diag);
    }
    if (error == LOAM_OK && (error = group_cached(dir, files, &cached, diag)) == LOAM_OK) {
        *used = loam_subtract_floored(*used > promised ? *used : promised, cached);
    }
    return error;
}

/* Take the limit of one group into account. */
static enum loam_error tighten(const char *dir, const struct limit_files *files, struct loam_host_cgroup_limit *limit,
                               struct loam_diag *diag)
{
    char path[LOAM_HOST_CGROUP_PATH_MAX];
    uint64_t most, used;
    enum loam_error error;

    if (snprintf(path, sizeof path, "%s/%s", dir, files->limit) >= (int)sizeof path) {
        return LOAM_OK;
    }
    error = group_limit(path, &most, diag);
    if (error != LOAM_OK || most == UINT64_MAX || (error = group_used(dir, files, &used, diag)) != LOAM_OK) {
        return error;
    }
    limit->at_touch |= files->promised != NULL;
    if (loam_subtract_floored(most, used) < limit->room) {
        limit->room = loam_subtract_floored(most, used);
        limit->limit = most;
        limit->used = used;
        snprintf(limit->path, sizeof limit->path, "%s", path);
    }
    return LOAM_OK;
}

/* From the process's group up to the one that is mounted; a folder that is not there sets no limit. */
static enum loam_error walk_groups(char *dir, size_t mount_length, const struct limit_files *files,
                                   struct loam_host_cgroup_limit *limit, struct loam_diag *diag)
{
    enum loam_error error = tighten(dir, files, limit, diag);

    while (error == LOAM_OK && strlen(dir) > mount_length) {
        *strrchr(dir, '/') = '\0';
        error = tighten(dir, files, limit, diag);
    }
    return error;
}

/* Mounts that show the group come before those that show something else, of which one is as good as another. */
static enum loam_error search_mounts(const char *mounts, const char *groups, const struct limit_files *files,
                                     struct loam_host_cgroup_limit *limit, struct loam_diag *diag)
{
    char dir[LOAM_HOST_CGROUP_PATH_MAX];
    struct span group;
    struct mount mount, other = {0};
    size_t mount_length;

    if (!find_group(groups, files, &group)) {
        return LOAM_OK;
    }
    for (const char *line = mounts; line != NULL; line = next_line(line)) {
        if (!parse_mount(line, files, &mount)) {
            continue;
        }
        limit->counts_hugetlb |= span_lists(mount.options, "memory_hugetlb_accounting");
        if (group_folder(&mount, group, dir, &mount_length)) {
            return walk_groups(dir, mount_length, files, limit, diag);
        }
        other = mount;
    }
    if (other.point.length == 0) {
        return LOAM_OK;
    }
    group_folder(&other, group, dir, &mount_length);
    return walk_groups(dir, mount_length, files, limit, diag);
}

void loam_host_cgroups_drop(struct loam_host_cgroups *cgroups)
{
    loam_prim_heap_free(cgroups->mounts);
    loam_prim_heap_free(cgroups->groups);
    *cgroups = (struct loam_host_cgroups){0};
}

static enum loam_error read_cgroups(struct loam_host_cgroups *cgroups, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    if (cgroups->groups == NULL) {
        error = loam_host_text_list("/proc/self/cgroup", &cgroups->groups, diag);
    }
    if (error == LOAM_OK && cgroups->mounts == NULL) {
        error = loam_host_text_list("/proc/self/mountinfo", &cgroups->mounts, diag);
    }
    return error;
}

enum loam_error loam_host_cgroup_limit(struct loam_host_cgroups *cgroups, enum loam_host_cgroup_resource resource,
                                       struct loam_host_cgroup_limit *limit, struct loam_diag *diag)
{
    enum loam_error error;

    *limit = (struct loam_host_cgroup_limit){.room = UINT64_MAX};
    error = read_cgroups(cgroups, diag);
    for (size_t i = 0; error == LOAM_OK && i < sizeof limit_files / sizeof limit_files[0]; i++) {
        if (limit_files[i].resource == resource) {
            error = search_mounts(cgroups->mounts, cgroups->groups, &limit_files[i], limit, diag);
        }
    }
    return error;
}
