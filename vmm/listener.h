// SPDX-License-Identifier: Apache-2.0
/*
 * Where others come to: a port of this host's own, or a socket in its file system, which only its owner can open.
 * Threads: one.
 */
#ifndef LOAM_VMM_LISTENER_H
#define LOAM_VMM_LISTENER_H

#include "loam/error.h"

#include <stdbool.h>

struct listener {
    int fd;             /* does not block; -1: none */
    const char *path;   /* of its socket, which goes with it; NULL: a port */
    const char *option; /* that named it, for messages: "--gdb" */
    char name[128];     /* what GDB is told behind "target remote": 127.0.0.1:1234, or the path */
};

/*
 * option is what named it, for messages, and outlives the listener. where is a port from 0 (any that is free) to 65535, on 127.0.0.1 alone; or a path, which outlives the listener. A socket at
 * that path to which nobody listens any more makes room. *listener is closed on failure. LOAM_ERROR_INVALID: it is neither, or too
 * long. LOAM_ERROR_OVERLAP: somebody listens there. LOAM_ERROR_SYSTEM: a call failed.
 */
LOAM_MUST_USE enum loam_error listener_open(const char *option, const char *where, struct listener *listener,
                                            struct loam_diag *diag);

/* No effect on one that is closed. */
void listener_close(struct listener *listener);

/* Who has come, as a descriptor that does not block; -1: nobody. */
int listener_accept(const struct listener *listener);

#endif
