// SPDX-License-Identifier: Apache-2.0
#include "loam/gpa_io.h"

#include "allocator/host/prim.h"

#include <errno.h>
#include <string.h>

#define PIECES  16
#define VECTORS 256 /* of the 1,024 that a system call takes: they lie on the stack */

/* --- How far memory reaches ------------------------------------------------------------------------------------- */

/* Bytes of the region from gpa on that grant access; 0 if none do. */
static uint64_t granted(const struct loam_gpa_view *view, loam_gpa gpa, enum loam_access access)
{
    struct loam_region region;

    if (loam_gpa_view_find(view, gpa, &region) != LOAM_OK || region.type == LOAM_REGION_DEVICE ||
        region.access < access) {
        return 0;
    }
    return region.bytes - (gpa.value - region.start.value);
}

enum loam_error loam_gpa_io_reach(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                  enum loam_access access, uint64_t *reached_bytes)
{
    uint64_t reached = 0, more;
    enum loam_error error = LOAM_OK;
    void *hva;

    if (reached_bytes == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *reached_bytes = 0;
    if (view == NULL) {
        return LOAM_ERROR_INVALID;
    }
    if (bytes > 0) {
        error = loam_gpa_view_translate(view, gpa, 1, access, &hva);
    }
    /* Regions end at LOAM_GPA_END: the sum does not wrap while there are any. */
    while (error == LOAM_OK && reached < bytes &&
           (more = granted(view, loam_gpa_from_u64(gpa.value + reached), access)) > 0) {
        reached += more < bytes - reached ? more : bytes - reached;
    }
    *reached_bytes = reached;
    return error;
}

/* --- Vectors ----------------------------------------------------------------------------------------------------- */

/* An iovec is a piece without its GPA: so pieces are asked for a few at a time, each time from where the last ended. */
enum loam_error loam_gpa_io_vectors(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                    enum loam_access access, struct iovec *vectors, uint32_t capacity, uint32_t *count)
{
    struct loam_piece pieces[PIECES];
    uint32_t made = 0, left;
    enum loam_error error;

    if (count == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *count = 0;
    if (view == NULL || (vectors == NULL && capacity > 0)) {
        return LOAM_ERROR_INVALID;
    }
    if (bytes == 0) {
        return LOAM_OK;
    }
    error = loam_gpa_view_pieces(view, gpa, bytes, access, pieces, PIECES, count);
    for (left = *count; left > 0 && made < capacity;) {
        for (uint32_t i = 0; i < PIECES && left > 0 && made < capacity; i++, left--) {
            vectors[made++] = (struct iovec){pieces[i].hva, pieces[i].bytes};
            gpa.value += pieces[i].bytes;
            bytes -= pieces[i].bytes;
        }
        error = left > 0 ? loam_gpa_view_pieces(view, gpa, bytes, access, pieces, PIECES, &left) : LOAM_OK;
    }
    return *count > capacity ? LOAM_ERROR_EXHAUSTED : error;
}

/* --- As many bytes as there are ----------------------------------------------------------------------------------- */

enum loam_error loam_gpa_io_read_some(const struct loam_gpa_view *view, loam_gpa gpa, void *buffer, uint64_t bytes,
                                      uint64_t *done_bytes)
{
    enum loam_error error = loam_gpa_io_reach(view, gpa, bytes, LOAM_ACCESS_READ, done_bytes);

    if (error != LOAM_OK || bytes == 0) {
        return error;
    }
    error = loam_gpa_view_read(view, gpa, buffer, *done_bytes);
    *done_bytes = error == LOAM_OK ? *done_bytes : 0;
    return error;
}

enum loam_error loam_gpa_io_write_some(const struct loam_gpa_view *view, loam_gpa gpa, const void *buffer,
                                       uint64_t bytes, uint64_t *done_bytes)
{
    enum loam_error error = loam_gpa_io_reach(view, gpa, bytes, LOAM_ACCESS_WRITE, done_bytes);

    if (error != LOAM_OK || bytes == 0) {
        return error;
    }
    error = loam_gpa_view_write(view, gpa, buffer, *done_bytes);
    *done_bytes = error == LOAM_OK ? *done_bytes : 0;
    return error;
}

/* --- Files --------------------------------------------------------------------------------------------------------- */

typedef bool move_vectors(int fd, const struct iovec *vectors, uint32_t count, off_t offset, size_t *moved_bytes);

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK;
}

/* Once, from gpa on, all of which grants access; EINTR is no failure, and moves nothing. False: errno is set. */
static bool move_once(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                      move_vectors *move, int fd, off_t offset, size_t *moved_bytes)
{
    struct iovec vectors[VECTORS];
    uint32_t count;
    /* More than VECTORS pieces: these are the first of them. */
    enum loam_error ignored = loam_gpa_io_vectors(view, gpa, bytes, access, vectors, VECTORS, &count);

    (void)ignored;
    do {
        if (move(fd, vectors, count < VECTORS ? count : VECTORS, offset, moved_bytes)) {
            return true;
        }
    } while (errno == EINTR);
    return false;
}

static enum loam_error move_all(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                                move_vectors *move, int fd, int64_t offset, uint64_t *done_bytes)
{
    enum loam_error error = loam_gpa_io_reach(view, gpa, bytes, access, &bytes);
    size_t moved_bytes = 1;
    bool ok = true;

    if (done_bytes == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *done_bytes = 0;
    if (error != LOAM_OK || offset < LOAM_GPA_IO_POSITION) {
        return error != LOAM_OK ? error : LOAM_ERROR_INVALID;
    }
    while (ok && moved_bytes > 0 && *done_bytes < bytes) {
        /* The system moves nothing beyond the largest offset: the sum does not wrap. */
        off_t from = offset == LOAM_GPA_IO_POSITION ? offset : offset + (int64_t)*done_bytes;

        ok = move_once(view, loam_gpa_from_u64(gpa.value + *done_bytes), bytes - *done_bytes, access, move, fd, from,
                       &moved_bytes);
        *done_bytes += moved_bytes;
    }
    if (ok || (would_block() && *done_bytes > 0)) {
        return LOAM_OK;
    }
    return would_block() ? LOAM_ERROR_BUSY : LOAM_ERROR_SYSTEM;
}

enum loam_error loam_gpa_io_read_from_fd(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes, int fd,
                                         int64_t offset, uint64_t *done_bytes)
{
    return move_all(view, gpa, bytes, LOAM_ACCESS_WRITE, loam_prim_read_vectors, fd, offset, done_bytes);
}

enum loam_error loam_gpa_io_write_to_fd(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes, int fd,
                                        int64_t offset, uint64_t *done_bytes)
{
    return move_all(view, gpa, bytes, LOAM_ACCESS_READ, loam_prim_write_vectors, fd, offset, done_bytes);
}

/* --- Text --------------------------------------------------------------------------------------------------------- */

/* All is copied before the NUL is looked for: what the guest changes behind that is not seen. */
enum loam_error loam_gpa_io_read_string(const struct loam_gpa_view *view, loam_gpa gpa, char *text, uint64_t capacity,
                                        uint64_t *length)
{
    enum loam_error error = LOAM_ERROR_INVALID;
    uint64_t done_bytes = 0;
    const char *end = NULL;

    if (length == NULL) {
        return LOAM_ERROR_INVALID;
    }
    *length = 0;
    if (text != NULL || capacity == 0) {
        error = loam_gpa_io_read_some(view, gpa, text, capacity, &done_bytes);
    }
    if (error == LOAM_OK && done_bytes > 0) {
        end = memchr(text, '\0', done_bytes);
    }
    if (error == LOAM_OK && end == NULL) {
        error = LOAM_ERROR_EXHAUSTED;
    }
    if (error != LOAM_OK) {
        if (text != NULL && capacity > 0) {
            text[0] = '\0';
        }
        return error;
    }
    *length = (uint64_t)(end - text);
    return LOAM_OK;
}
