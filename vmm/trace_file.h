// SPDX-License-Identifier: Apache-2.0
/* The file of a trace, opened so that nothing else is written to by mistake. */
#ifndef LOAM_VMM_TRACE_FILE_H
#define LOAM_VMM_TRACE_FILE_H

#include "loam/error.h"

/*
 * Open path for writing, close-on-exec and without blocking; *fd is -1 on failure. A file that is not there is made with mode
 * 0600. A regular file that is there is emptied, if it is empty or its first bytes are those of a trace. A FIFO has a reader
 * already. Devices of characters are taken as they are. All else is refused, symbolic links above all.
 * LOAM_ERROR_INVALID: not such a file. LOAM_ERROR_SYSTEM: a call failed. diag says what to do.
 */
LOAM_MUST_USE enum loam_error trace_file_open(const char *path, int *fd, struct loam_diag *diag);

#endif
