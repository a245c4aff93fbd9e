// SPDX-License-Identifier: Apache-2.0
/* `loam snapshot SOCKET|PID DIR`: a run that listens (loam run --control) writes its guest into a directory. */
#ifndef LOAM_VMM_SNAPSHOT_COMMAND_H
#define LOAM_VMM_SNAPSHOT_COMMAND_H

/* argv[0] is "loam snapshot". Returns an exit status of options.h. */
int snapshot_command(int argc, char *argv[]);

#endif
