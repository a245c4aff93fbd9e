// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/memory_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_TMPFILE is not every file system's. */
static int make_nameless(const char *folder, size_t length)
{
    char path[PATH_MAX];
    int fd, written = snprintf(path, sizeof path, "%.*s/loam-XXXXXX", (int)length, folder);

    if (written < 0 || (size_t)written >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) {
        (void)unlink(path);
    }
    return fd;
}

static bool is_folder(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static int open_file(const char *path, enum loam_sharing sharing)
{
    const char *name = strrchr(path, '/');

    if (is_folder(path)) {
        return make_nameless(path, strlen(path));
    }
    if (sharing != LOAM_SHARING_SHARED) {
        return name == NULL ? make_nameless(".", 1) : make_nameless(path, (size_t)(name - path));
    }
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

static enum loam_error set_size(int fd, uint64_t bytes, struct loam_diag *diag)
{
    return ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)bytes) == 0
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_SYSTEM, "a file of %" PRIu64 " bytes", bytes);
}

static enum loam_error open_one(const char *path, struct loam_backing_request *part, struct memory_files *files,
                                struct loam_diag *diag)
{
    struct loam_diag why = {0};
    int fd = open_file(path, part->sharing);

    if (fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "memory: %s", path);
    }
    files->list[files->count].fd = fd;
    files->list[files->count].bytes = part->bytes;
    files->count++;
    if (set_size(fd, part->bytes, &why) != LOAM_OK) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "memory: %s: %s", path, why.text);
    }
    part->adoption = LOAM_ADOPTION_FD;
    part->fd = fd;
    return LOAM_OK;
}

/* One memory is a list of one part, which says all that the request said of its pages: loam_memory_request. */
static void make_list(struct loam_memory_request *request)
{
    request->parts[0] = (struct loam_backing_request){
        .bytes = request->bytes,
        .pages = request->pages,
        .sharing = request->sharing,
        .commit = request->commit,
        .placement = request->placement,
        .node_mask = request->node_mask,
        .lock = request->lock,
    };
    request->part_count = 1;
    request->pages = LOAM_PAGES_AUTO;
    request->sharing = LOAM_SHARING_ANY;
    request->commit = LOAM_COMMIT_RESERVE;
    request->placement = LOAM_PLACEMENT_ANY;
    request->node_mask = 0;
    request->lock = false;
}

enum loam_error memory_files_open(const struct line *line, struct loam_memory_request *request,
                                  struct memory_files *files, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    *files = (struct memory_files){0};
    if (line->memory_path != NULL && request->part_count == 0) {
        make_list(request);
        error = open_one(line->memory_path, &request->parts[0], files, diag);
    }
    for (uint32_t i = 0; line->memory_path == NULL && error == LOAM_OK && i < request->part_count; i++) {
        if (line->memory_paths[i] != NULL) {
            error = open_one(line->memory_paths[i], &request->parts[i], files, diag);
        }
    }
    if (error != LOAM_OK) {
        memory_files_close(files);
    }
    return error;
}

enum loam_error memory_files_clear(const struct memory_files *files, struct loam_diag *diag)
{
    struct loam_diag why = {0};

    for (uint32_t i = 0; i < files->count; i++) {
        if (set_size(files->list[i].fd, files->list[i].bytes, &why) != LOAM_OK) {
            return loam_fail(diag, LOAM_ERROR_INVALID, "memory: %s", why.text);
        }
    }
    return LOAM_OK;
}

void memory_files_close(struct memory_files *files)
{
    for (uint32_t i = 0; i < files->count; i++) {
        close(files->list[i].fd);
    }
    files->count = 0;
}
