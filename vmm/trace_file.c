// SPDX-License-Identifier: Apache-2.0
#include "vmm/trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a trace begins with (trace_exit.h). */
static const char beginning[] = {'{', '"', 't', 'i', 'm', 'e', '"', ':'};

static enum loam_error refuse(const char *path, const char *why, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_INVALID, "--trace %s: %s", path, why);
}

static enum loam_error not_opened(const char *path, struct loam_diag *diag)
{
    struct stat status;

    if (errno == ELOOP) {
        return refuse(path, "a symbolic link, which may lead anywhere: give the name of the file itself", diag);
    }
    if (errno == ENXIO && lstat(path, &status) == 0 && S_ISFIFO(status.st_mode)) {
        return refuse(path, "a FIFO that nobody reads: start the reader first", diag);
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace %s: open", path);
}

/* What is there still: nothing, or a trace. */
static enum loam_error check_content(const char *path, int fd, struct loam_diag *diag)
{
    char found[sizeof beginning];
    ssize_t bytes = pread(fd, found, sizeof found, 0);

    if (bytes < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace %s: what the file holds: read", path);
    }
    if (bytes > 0 && (bytes != sizeof found || memcmp(found, beginning, sizeof found) != 0)) {
        return refuse(path, "the file holds something else than a trace, which would be lost: give another name", diag);
    }
    return ftruncate(fd, 0) == 0 ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace %s: ftruncate", path);
}

static enum loam_error check(const char *path, int fd, struct loam_diag *diag)
{
    struct stat status;

    if (fstat(fd, &status) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace %s: fstat", path);
    }
    switch (status.st_mode & S_IFMT) {
    case S_IFREG:
        return check_content(path, fd, diag);
    case S_IFIFO:
    case S_IFCHR:
        return LOAM_OK;
    default:
        return refuse(path, "not a file, FIFO or device of characters: give the name of one", diag);
    }
}

enum loam_error trace_file_open(const char *path, int *fd, struct loam_diag *diag)
{
    struct stat status;
    bool is_regular = lstat(path, &status) != 0 || S_ISREG(status.st_mode);
    enum loam_error error;

    /* A FIFO that were opened for reading too would have a reader in this process. */
    *fd = open(path, (is_regular ? O_RDWR : O_WRONLY) | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
               S_IRUSR | S_IWUSR);
    if (*fd < 0) {
        return not_opened(path, diag);
    }
    error = check(path, *fd, diag);
    if (error != LOAM_OK) {
        close(*fd);
        *fd = -1;
    }
    return error;
}
