// SPDX-License-Identifier: Apache-2.0
/* A file that a person names on the command line, read whole. Threads: any. */
#ifndef LOAM_VMM_FILE_H
#define LOAM_VMM_FILE_H

#include "loam/backing.h"
#include "loam/error.h"
#include "vmm/boot.h"

#include <stdint.h>

#define FILE_PIECE_BYTES (1u << 20)

/*
 * The memory that file_read will take for path, which it refuses as file_read does; nothing is read yet. *bytes is 0 on
 * failure.
 */
LOAM_MUST_USE enum loam_error file_measure(const char *path, uint64_t limit_bytes, uint64_t *bytes,
                                           struct loam_diag *diag);

/*
 * Read path, at most limit_bytes of it, into memory that file_release frees. It is copied and not mapped: a file cut
 * short by somebody else would fault. cancel (NULL: never) is asked every FILE_PIECE_BYTES. *file is zero on failure.
 * LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_PERMITTED, LOAM_ERROR_INVALID: no regular file, empty or larger than the limit.
 * file->name, and messages, are path, or its end where it is long. LOAM_ERROR_CANCELLED: cancel said so. LOAM_ERROR_SYSTEM: else.
 */
LOAM_MUST_USE enum loam_error file_read(const char *path, uint64_t limit_bytes, const struct loam_cancel *cancel,
                                        struct boot_file *file, struct loam_diag *diag);

/* A zero file is allowed. */
void file_release(struct boot_file *file);

#endif
