// SPDX-License-Identifier: Apache-2.0
/*
 * A process in the background: whoever started it sees its end, and so goes on, once it can be reached, and its number
 * stands in a file. Threads: the main one, before any other is started.
 */
#ifndef LOAM_VMM_EMULATOR_DAEMON_H
#define LOAM_VMM_EMULATOR_DAEMON_H

#include "loam/error.h"

#include <stdbool.h>

/* Not there yet: descriptors -1 and no path. */
struct daemon {
    int ready_fd; /* to whoever waits; -1: nobody */
    int null_fd;
    const char *pid_path;
    bool has_file;
};

/*
 * With forks, the rest of the process is another one, in a session of its own, and the first ends with the status 0 at
 * daemon_ready, or with 1 if there is no such moment. pid_path NULL: no file. LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error daemon_begin(struct daemon *daemon, bool forks, const char *pid_path,
                                           struct loam_diag *diag);

/* The file is written, and nothing more has to be opened. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error daemon_prepare(struct daemon *daemon, struct loam_diag *diag);

/* After that: in the background, standard descriptors lead nowhere from here on. */
void daemon_ready(struct daemon *daemon);

/* The file goes with the process. */
void daemon_end(struct daemon *daemon);

#endif
