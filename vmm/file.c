// SPDX-License-Identifier: Apache-2.0
#include "vmm/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The end of a long name, so that what is wrong still fits a message behind it. */
#define NAME_SHOWN_BYTES 160

static const char *shown(const char *path)
{
    size_t bytes = strlen(path);

    return bytes > NAME_SHOWN_BYTES ? path + bytes - NAME_SHOWN_BYTES : path;
}

static bool is_cancelled(const struct loam_cancel *cancel)
{
    return cancel != NULL && cancel->asked != NULL && cancel->asked(cancel->self);
}

static enum loam_error read_all(int fd, const char *path, const struct loam_cancel *cancel, char *data, size_t bytes,
                                struct loam_diag *diag)
{
    for (size_t have = 0; have < bytes;) {
        size_t left = bytes - have;
        ssize_t got;

        if (is_cancelled(cancel)) {
            return loam_fail(diag, LOAM_ERROR_CANCELLED, "%s: reading it was cancelled by the caller", path);
        }
        got = read(fd, data + have, left < FILE_PIECE_BYTES ? left : FILE_PIECE_BYTES);
        if (got < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: cannot be read", path);
        }
        if (got == 0) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "%s: it was cut short while it was read: try again", path);
        }
        have += got > 0 ? (size_t)got : 0;
    }
    return LOAM_OK;
}

static enum loam_error open_failed(const char *path, struct loam_diag *diag)
{
    if (errno == ENOENT || errno == ENOTDIR) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "%s: no such file: check the path", path);
    }
    if (errno == EACCES) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s: no permission to read it: check the file's mode", path);
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: cannot be opened", path);
}

static enum loam_error check(int fd, const char *path, uint64_t limit_bytes, size_t *bytes, struct loam_diag *diag)
{
    struct stat status;

    if (fstat(fd, &status) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: its size cannot be read", path);
    }
    if (!S_ISREG(status.st_mode) || status.st_size <= 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: it is %s: name a kernel or an initrd", path,
                         S_ISREG(status.st_mode) ? "empty" : "no regular file");
    }
    if ((uint64_t)status.st_size > limit_bytes) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s: its %" PRIu64 " bytes do not fit a guest of %" PRIu64 " bytes: give it more memory", path,
                         (uint64_t)status.st_size, limit_bytes);
    }
    *bytes = (size_t)status.st_size;
    return LOAM_OK;
}

/* On failure *fd is -1. */
static enum loam_error open_checked(const char *path, uint64_t limit_bytes, int *fd, size_t *bytes,
                                    struct loam_diag *diag)
{
    enum loam_error error;

    *bytes = 0;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        return open_failed(shown(path), diag);
    }
    error = check(*fd, shown(path), limit_bytes, bytes, diag);
    if (error != LOAM_OK) {
        close(*fd);
        *fd = -1;
    }
    return error;
}

enum loam_error file_measure(const char *path, uint64_t limit_bytes, uint64_t *bytes, struct loam_diag *diag)
{
    int fd;
    size_t found;
    enum loam_error error = open_checked(path, limit_bytes, &fd, &found, diag);

    *bytes = found;
    if (error == LOAM_OK) {
        close(fd);
    }
    return error;
}

enum loam_error file_read(const char *path, uint64_t limit_bytes, const struct loam_cancel *cancel,
                          struct boot_file *file, struct loam_diag *diag)
{
    int fd;
    char *data;
    size_t bytes;
    enum loam_error error = open_checked(path, limit_bytes, &fd, &bytes, diag);

    *file = (struct boot_file){0};
    if (error != LOAM_OK) {
        return error;
    }
    data = malloc(bytes);
    error = data != NULL ? read_all(fd, shown(path), cancel, data, bytes, diag)
                         : loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: %zu bytes of memory", shown(path), bytes);
    close(fd);
    if (error != LOAM_OK) {
        free(data);
        return error;
    }
    *file = (struct boot_file){data, bytes, shown(path)};
    return LOAM_OK;
}

void file_release(struct boot_file *file)
{
    free((void *)file->data);
    *file = (struct boot_file){0};
}
