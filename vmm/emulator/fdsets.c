// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/fdsets.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static void drop(struct fdsets *fdsets, uint32_t index)
{
    fdsets->count--;
    memmove(&fdsets->entries[index], &fdsets->entries[index + 1], (fdsets->count - index) * sizeof fdsets->entries[0]);
}

static enum loam_error append(struct fdsets *fdsets, const struct fdsets_entry *entry, const char *text,
                              struct loam_diag *diag)
{
    struct fdsets_entry *added = &fdsets->entries[fdsets->count];

    if (fdsets->count == FDSETS_MAX) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "descriptors: %u wait already, and no more are kept: close some",
                         FDSETS_MAX);
    }
    if (strlen(text) > FDSETS_TEXT_BYTES_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "descriptors: a text of %zu characters, and at most %u are kept",
                         strlen(text), FDSETS_TEXT_BYTES_MAX);
    }
    *added = *entry;
    memcpy(added->text, text, strlen(text) + 1);
    fdsets->count++;
    return LOAM_OK;
}

/* Later ones do not fit only if the command line had more than LINE_FDSET_MAX. */
static_assert(LINE_FDSET_MAX <= FDSETS_MAX, "all of the command line's have room");

/* What came through execve(2) has no FD_CLOEXEC; all that this process has opened has it. */
static bool is_inherited(int fd)
{
    int flags = fcntl(fd, F_GETFD);

    return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

enum loam_error fdsets_init(struct fdsets *fdsets, const struct line *line, struct loam_diag *diag)
{
    *fdsets = (struct fdsets){0};
    for (uint32_t i = 0; i < line->fdset_count; i++) {
        const struct line_fdset *given = &line->fdsets[i];
        struct fdsets_entry *entry = &fdsets->entries[fdsets->count];

        if (!is_inherited(given->fd)) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "-add-fd: fd=%d: no such descriptor was inherited: hand it on",
                             given->fd);
        }
        fdsets->count++;
        *entry = (struct fdsets_entry){.fd = given->fd, .set = given->set};
        strncpy(entry->text, given->opaque != NULL ? given->opaque : "", FDSETS_TEXT_BYTES_MAX);
        (void)fcntl(given->fd, F_SETFD, FD_CLOEXEC);
    }
    return LOAM_OK;
}

void fdsets_close(struct fdsets *fdsets)
{
    for (uint32_t i = 0; i < fdsets->count; i++) {
        close(fdsets->entries[i].fd);
    }
    fdsets->count = 0;
}

static bool has_set(const struct fdsets *fdsets, int64_t set)
{
    for (uint32_t i = 0; i < fdsets->count; i++) {
        if (!fdsets->entries[i].is_named && fdsets->entries[i].set == set) {
            return true;
        }
    }
    return false;
}

enum loam_error fdsets_add(struct fdsets *fdsets, int fd, int64_t *set, const char *text, struct loam_diag *diag)
{
    int64_t wanted = *set;
    enum loam_error error;

    if (wanted < -1) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "descriptors: set %" PRId64 ": a set has a number from 0 up",
                         wanted);
    }
    while (*set == -1 && has_set(fdsets, ++wanted)) {
    }
    error = append(fdsets, &(struct fdsets_entry){.fd = fd, .set = wanted}, text, diag);
    if (error == LOAM_OK) {
        *set = wanted;
    }
    return error;
}

enum loam_error fdsets_remove(struct fdsets *fdsets, int64_t set, int fd, struct loam_diag *diag)
{
    bool found = false;

    for (uint32_t i = fdsets->count; i-- > 0;) {
        const struct fdsets_entry *entry = &fdsets->entries[i];

        if (!entry->is_named && entry->set == set && (fd == -1 || entry->fd == fd)) {
            close(entry->fd);
            drop(fdsets, i);
            found = true;
        }
    }
    return found ? LOAM_OK : loam_fail(diag, LOAM_ERROR_NOT_FOUND, "descriptors: none such in set %" PRId64, set);
}

enum loam_error fdsets_name(struct fdsets *fdsets, int fd, const char *name, struct loam_diag *diag)
{
    int before = fdsets_take(fdsets, name);

    if (before >= 0) {
        close(before);
    }
    return append(fdsets, &(struct fdsets_entry){.fd = fd, .is_named = true}, name, diag);
}

int fdsets_take(struct fdsets *fdsets, const char *name)
{
    for (uint32_t i = 0; i < fdsets->count; i++) {
        if (fdsets->entries[i].is_named && strcmp(fdsets->entries[i].text, name) == 0) {
            int fd = fdsets->entries[i].fd;

            drop(fdsets, i);
            return fd;
        }
    }
    return -1;
}

static json_t *json_of_members(const struct fdsets *fdsets, int64_t set)
{
    json_t *members = json_array();

    for (uint32_t i = 0; i < fdsets->count; i++) {
        const struct fdsets_entry *entry = &fdsets->entries[i];
        json_t *member;

        if (!entry->is_named && entry->set == set) {
            member = json_pack("{si}", "fd", entry->fd);
            /* Who gave it with a text that is no UTF-8 does not get that back. */
            json_object_set_new(member, "opaque", json_string(entry->text));
            json_array_append_new(members, member);
        }
    }
    return members;
}

json_t *fdsets_json(const struct fdsets *fdsets)
{
    json_t *sets = json_array();

    for (uint32_t i = 0; i < fdsets->count; i++) {
        const struct fdsets_entry *entry = &fdsets->entries[i];
        bool is_first = !entry->is_named;

        for (uint32_t j = 0; j < i; j++) {
            is_first = is_first && (fdsets->entries[j].is_named || fdsets->entries[j].set != entry->set);
        }
        if (is_first) {
            json_array_append_new(sets, json_pack("{sIso}", "fdset-id", (json_int_t)entry->set, "fds",
                                                  json_of_members(fdsets, entry->set)));
        }
    }
    return sets;
}
