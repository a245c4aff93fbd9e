// SPDX-License-Identifier: Apache-2.0
/* Where a run listens: at a path, or as its process was told to (loam run --control). Threads: any. */
#ifndef LOAM_VMM_RUN_SOCKET_H
#define LOAM_VMM_RUN_SOCKET_H

#include "loam/error.h"

#define RUN_SOCKET_BYTES 4096u

/*
 * where: a path, or the number of a process. LOAM_ERROR_NOT_FOUND: there is no such process, or it was not begun with --control.
 * LOAM_ERROR_INVALID: too long.
 */
LOAM_MUST_USE enum loam_error run_socket_find(const char *where, char path[RUN_SOCKET_BYTES], struct loam_diag *diag);

#endif
