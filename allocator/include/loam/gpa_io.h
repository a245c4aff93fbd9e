// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Guest memory as system calls and strings want it: vectors, files, text, and as many bytes as there are.
 *
 * These calls take what a guest names, which may end anywhere, and say how far it went; loam_gpa_view_read and _write
 * take a whole range or refuse it. All of them look at memory that the guest may change meanwhile, each byte once.
 *
 * Zero bytes: nothing is asked of the guest, so nothing is wrong, wherever gpa points: LOAM_OK, and 0 of what is counted.
 * OpenVMM's guestmem has it so; rust-vmm's vm-memory wants an address that is in a region even then.
 *
 * Threads: any, with a view that is held. NULL where a view, a buffer for some bytes or a count is wanted is
 * LOAM_ERROR_INVALID; counts are 0 on failure unless a call says otherwise.
 */
#ifndef LOAM_GPA_IO_H
#define LOAM_GPA_IO_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "loam/types.h"

#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * How many of bytes from gpa on grant access one after another, across regions: memory from the first, up to where memory
 * ends or grants less. LOAM_ERROR_INVALID, LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_PERMITTED: as loam_gpa_view_translate of
 * the first byte.
 */
LOAM_MUST_USE enum loam_error loam_gpa_io_reach(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                enum loam_access access, uint64_t *reached_bytes);

/**
 * A range as vectors for readv(2), writev(2) and io_uring: the pieces of loam_gpa_view_pieces, with its errors. Whoever
 * lets a system call write there wants LOAM_ACCESS_WRITE.
 */
LOAM_MUST_USE enum loam_error loam_gpa_io_vectors(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                  enum loam_access access, struct iovec *vectors, uint32_t capacity,
                                                  uint32_t *count);

/** Copy as many bytes as loam_gpa_io_reach says out of the guest, as loam_gpa_view_read does. */
LOAM_MUST_USE enum loam_error loam_gpa_io_read_some(const struct loam_gpa_view *view, loam_gpa gpa, void *buffer,
                                                    uint64_t bytes, uint64_t *done_bytes);

/** The same into the guest, as loam_gpa_view_write does. */
LOAM_MUST_USE enum loam_error loam_gpa_io_write_some(const struct loam_gpa_view *view, loam_gpa gpa, const void *buffer,
                                                     uint64_t bytes, uint64_t *done_bytes);

#define LOAM_GPA_IO_POSITION                                                                                           \
    (-1l) /**< for an offset: the descriptor's position, which moves on; also of what has none */

/**
 * Read from a descriptor straight into the guest, as many bytes as loam_gpa_io_reach says, until they are there, the file
 * ends, or a descriptor that does not block has no more for now. offset: in the file, or LOAM_GPA_IO_POSITION. One call
 * of the system may bring less than is wanted, and is followed by another, also where it was interrupted: so this is for
 * files, pipes and streams, and not for what has messages; for those, loam_gpa_io_vectors.
 *
 * *done_bytes: how far it went, in order, on any error too. LOAM_OK with less than bytes: nothing is wrong; with 0 of
 * some: the file has ended. LOAM_ERROR_BUSY: it would block at once. LOAM_ERROR_SYSTEM: errno says why; EFAULT is host
 * memory that cannot be had. LOAM_ERROR_INVALID also: offset is below -1. Else as loam_gpa_io_reach, which asks for
 * LOAM_ACCESS_WRITE; nothing is read then.
 */
LOAM_MUST_USE enum loam_error loam_gpa_io_read_from_fd(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                       int fd, int64_t offset, uint64_t *done_bytes);

/** The same from the guest to the descriptor, with LOAM_ACCESS_READ. SIGPIPE is raised as by write(2). */
LOAM_MUST_USE enum loam_error loam_gpa_io_write_to_fd(const struct loam_gpa_view *view, loam_gpa gpa, uint64_t bytes,
                                                      int fd, int64_t offset, uint64_t *done_bytes);

/**
 * Copy a string that ends within capacity bytes, with its NUL. *length is without it. On failure text is empty, where it
 * has room and length is not NULL. LOAM_ERROR_EXHAUSTED: no NUL comes before capacity is used up, or memory ends. Else as loam_gpa_io_reach.
 */
LOAM_MUST_USE enum loam_error loam_gpa_io_read_string(const struct loam_gpa_view *view, loam_gpa gpa, char *text,
                                                      uint64_t capacity, uint64_t *length);

#ifdef __cplusplus
}
#endif

#endif
