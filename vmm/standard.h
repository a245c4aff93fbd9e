// SPDX-License-Identifier: Apache-2.0
/*
 * The program's standard descriptors: there from the first moment on, and written only through outlets.
 *
 * stdout and stderr become streams for text to people (outlet_text_stream), so that whatever prints goes this way, argp
 * and getopt included. Where both descriptors are the same open terminal, pipe or file, one outlet serves both, and what
 * is printed stands in the order in which it was printed.
 *
 *     standard_open -> print; the writer waits                    -> exit(3)
 *                   -> standard_start -> print; nobody waits ...  -> standard_finish -> exit(3)
 *
 * What could not be written is said on standard error, if it can be, and the process does not end as if all were well.
 *
 * Threads: standard_open, standard_start and standard_finish are the main thread's; printing is any's.
 */
#ifndef LOAM_VMM_STANDARD_H
#define LOAM_VMM_STANDARD_H

#include "loam/error.h"
#include "vmm/outlet.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * The first thing that main does. A descriptor of 0 to 2 that is closed is opened on /dev/null, so that no file that is
 * opened later takes its place. When the process ends by exit(3) without standard_finish, and something could not be
 * written, it ends with lost_status.
 */
void standard_open(int lost_status);

/* From now on whoever prints does not wait. LOAM_ERROR_SYSTEM: no thread, and nothing has changed. */
LOAM_MUST_USE enum loam_error standard_start(struct loam_diag *diag);

/* The ways out of descriptors 1 and 2; they may be one. */
struct outlet *standard_out(void);
struct outlet *standard_err(void);

/*
 * Have all written that was printed: until stop_fd (-1: none) is readable or patience_milliseconds (-1: any time) have
 * passed, and then for as long as somebody goes on reading, two seconds at most. Says what is lost. Whether nothing is.
 */
bool standard_finish(int stop_fd, int64_t patience_milliseconds);

#endif
