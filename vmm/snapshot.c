// SPDX-License-Identifier: Apache-2.0
#include "vmm/snapshot.h"

#include "vmm/capture.h"
#include "vmm/state_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- Writing ------------------------------------------------------------------------------------------------------ */

enum loam_error snapshot_save_state(const struct snapshot_source *source, struct state_writer *writer,
                                    struct loam_diag *diag)
{
    enum loam_error error = machine_save(source->machine, writer, diag);

    state_memory_save(source->memory, writer);
    return error == LOAM_OK && source->save != NULL ? source->save(source->self, writer, diag) : error;
}

static enum loam_error write_file(int fd, const uint8_t *bytes, size_t count, struct loam_diag *diag)
{
    off_t at = 0;

    while (count > 0) {
        ssize_t done = pwrite(fd, bytes, count, at);

        if (done < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "snapshot: write of %zu bytes of state", count);
        }
        bytes += done > 0 ? done : 0;
        at += done > 0 ? done : 0;
        count -= done > 0 ? (size_t)done : 0;
    }
    return LOAM_OK;
}

/* Records that are there, and the image's, into the file. */
static enum loam_error write_records(struct state_writer *writer, const struct image *image, int fd, uint64_t *bytes,
                                     struct loam_diag *diag)
{
    enum loam_error error;

    image_save(image, writer);
    error = state_finish(writer, diag);
    *bytes = writer->count;
    return error == LOAM_OK ? write_file(fd, writer->bytes, writer->count, diag) : error;
}

/* --- While it runs ---------------------------------------------------------------------------------------------------- */

/* The guest stands as briefly as can be. */
static enum loam_error take_moment(struct capture *capture, const struct snapshot_source *source,
                                   struct state_writer *writer, struct snapshot_figures *figures,
                                   struct loam_diag *diag)
{
    const uint64_t begun = now_nanoseconds();
    enum loam_error error;

    if (!machine_hold(source->machine)) {
        return loam_fail(diag, LOAM_ERROR_CANCELLED, "snapshot: the guest has ended before all was written");
    }
    error = capture_moment(capture, diag);
    if (error == LOAM_OK) {
        error = snapshot_save_state(source, writer, diag);
    }
    machine_let_go(source->machine);
    figures->pause_nanoseconds = now_nanoseconds() - begun;
    figures->round_count = capture->round_count;
    return error;
}

static enum loam_error write_captured(struct capture *capture, const struct snapshot_source *source, int state_fd,
                                      struct snapshot_figures *figures, struct loam_diag *diag)
{
    enum loam_error error = capture_rounds(capture, &figures->memory, diag);
    struct state_writer writer;

    state_writer_init(&writer);
    if (error == LOAM_OK) {
        error = take_moment(capture, source, &writer, figures, diag);
    }
    if (error == LOAM_OK) {
        error = capture_finish(capture, diag);
    }
    if (error == LOAM_OK && atomic_load(source->must_end)) {
        error = loam_fail(diag, LOAM_ERROR_CANCELLED, "snapshot: the guest has ended before all was written");
    }
    if (error == LOAM_OK) {
        error = write_records(&writer, capture->image, state_fd, &figures->state_bytes, diag);
    }
    figures->memory.written_bytes += capture->patched_bytes;
    state_writer_release(&writer);
    return error;
}

enum loam_error snapshot_write(const struct snapshot_source *source, const struct snapshot_request *request,
                               uint8_t id[IMAGE_ID_BYTES], struct snapshot_figures *figures, struct loam_diag *diag)
{
    const uint64_t begun = now_nanoseconds();
    struct capture capture;
    struct image image;
    enum loam_error error = image_init(&image, loam_memory_plan(source->memory), request->memory_fd, diag);

    *figures = (struct snapshot_figures){.state_bytes = 0};
    if (error != LOAM_OK) {
        return error;
    }
    if (request->base != NULL) {
        image_set_parent(&image, request->base->id, request->base->name);
    }
    error = capture_begin(&capture, source->machine, source->memory, &image, source->must_end, diag);
    if (error == LOAM_OK) {
        error = write_captured(&capture, source, request->state_fd, figures, diag);
        capture_end(&capture, error == LOAM_OK && request->keeps_log);
    }
    memcpy(id, image.id, sizeof image.id);
    image_release(&image);
    figures->nanoseconds = now_nanoseconds() - begun;
    return error;
}

/* --- Reading ------------------------------------------------------------------------------------------------------ */

/* What is wrong, with where. */
static enum loam_error about(const char *directory, enum loam_error error, const struct loam_diag *why,
                             struct loam_diag *diag)
{
    return loam_fail(diag, error == LOAM_ERROR_SYSTEM ? LOAM_ERROR_INVALID : error, "snapshot %s: %s", directory,
                     why->text);
}

static enum loam_error open_file(const char *directory, const char *name, int *fd, struct loam_diag *diag)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "snapshot %s: %s", directory, name);
    }
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) {
        return loam_fail(diag, errno == ENOENT || errno == ENOTDIR ? LOAM_ERROR_NOT_FOUND : LOAM_ERROR_SYSTEM,
                         "snapshot %s: there is no %s: give a directory that loam snapshot has written", directory,
                         name);
    }
    return LOAM_OK;
}

static enum loam_error read_all(const char *directory, int fd, void **bytes, size_t *count, struct loam_diag *diag)
{
    struct stat status;
    size_t got = 0;

    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || (uint64_t)status.st_size > STATE_BYTES_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "snapshot %s: its state is no file of at most %" PRIu64 " bytes",
                         directory, STATE_BYTES_MAX);
    }
    *count = (size_t)status.st_size;
    *bytes = malloc(*count + 1);
    if (*bytes == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "snapshot %s: no memory for its state", directory);
    }
    for (ssize_t done = 1; got < *count && done != 0; got += done > 0 ? (size_t)done : 0) {
        done = pread(fd, (char *)*bytes + got, *count - got, (off_t)got);
        if (done < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "snapshot %s: its state cannot be read", directory);
        }
    }
    *count = got; /* state_open sees to it that this is all */
    return LOAM_OK;
}

static enum loam_error open_state(const char *directory, struct snapshot *snapshot, struct loam_diag *diag)
{
    struct loam_diag why = {0};
    size_t count = 0;
    int fd;
    enum loam_error error = open_file(directory, SNAPSHOT_STATE_NAME, &fd, diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = read_all(directory, fd, &snapshot->bytes, &count, diag);
    close(fd);
    if (error != LOAM_OK) {
        return error;
    }
    error = state_open(&snapshot->reader, snapshot->bytes, count, &why);
    return error == LOAM_OK ? LOAM_OK : about(directory, error, &why, diag);
}

static enum loam_error open_memory(const char *directory, struct snapshot *snapshot, struct loam_diag *diag)
{
    struct loam_diag why = {0};
    enum loam_error error = open_file(directory, SNAPSHOT_MEMORY_NAME, &snapshot->memory_fd, diag);

    if (error != LOAM_OK) {
        return error;
    }
    error = image_load(&snapshot->image, &snapshot->reader, snapshot->memory_fd, &why);
    if (error == LOAM_OK) {
        error = image_check_file(&snapshot->image, &why);
    }
    return error == LOAM_OK ? LOAM_OK : about(directory, error, &why, diag);
}

static bool is_parent_of(const struct image *parent, const struct image *image)
{
    return memcmp(parent->id, image->parent_id, sizeof parent->id) == 0 && parent->range_count == image->range_count &&
           memcmp(parent->ranges, image->ranges, image->range_count * sizeof image->ranges[0]) == 0;
}

static enum loam_error open_chain(const char *directory, struct snapshot *snapshot, uint32_t depth,
                                  struct loam_diag *diag);

/* Its name is relative to the directory of its child, so that both can be moved together. */
static enum loam_error open_parent(const char *directory, struct snapshot *snapshot, uint32_t depth,
                                   struct loam_diag *diag)
{
    const char *name = snapshot->image.parent_name;
    struct snapshot *parent;
    char path[PATH_MAX];
    enum loam_error error;

    if (depth == SNAPSHOT_CHAIN_MAX || snprintf(path, sizeof path, "%s%s%s", name[0] == '/' ? "" : directory,
                                                name[0] == '/' ? "" : "/", name) >= (int)sizeof path) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "snapshot %s: it follows more than %u others, or a name is too long",
                         directory, SNAPSHOT_CHAIN_MAX);
    }
    parent = calloc(1, sizeof *parent);
    if (parent == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "snapshot %s: no memory", directory);
    }
    error = open_chain(path, parent, depth + 1, diag);
    if (error != LOAM_OK) {
        free(parent);
        return error;
    }
    snapshot->parent = parent;
    snapshot->image.parent = &parent->image;
    return is_parent_of(&parent->image, &snapshot->image)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID,
                           "snapshot %s: it was made from another than that in %s: put its parent back there",
                           directory, path);
}

static enum loam_error open_chain(const char *directory, struct snapshot *snapshot, uint32_t depth,
                                  struct loam_diag *diag)
{
    enum loam_error error;

    *snapshot = (struct snapshot){.memory_fd = -1};
    error = open_state(directory, snapshot, diag);
    if (error == LOAM_OK) {
        error = open_memory(directory, snapshot, diag);
    }
    if (error == LOAM_OK && image_has_parent(&snapshot->image)) {
        error = open_parent(directory, snapshot, depth, diag);
    }
    if (error != LOAM_OK) {
        snapshot_close(snapshot);
    }
    return error;
}

enum loam_error snapshot_open(const char *directory, struct snapshot *snapshot, struct loam_diag *diag)
{
    return open_chain(directory, snapshot, 0, diag);
}

void snapshot_close(struct snapshot *snapshot)
{
    if (snapshot->bytes == NULL) {
        return;
    }
    if (snapshot->parent != NULL) {
        snapshot_close(snapshot->parent);
        free(snapshot->parent);
    }
    image_release(&snapshot->image);
    if (snapshot->memory_fd >= 0) {
        close(snapshot->memory_fd);
    }
    state_close(&snapshot->reader);
    free(snapshot->bytes);
    *snapshot = (struct snapshot){.memory_fd = -1};
}
