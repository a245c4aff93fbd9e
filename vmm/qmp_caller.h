// SPDX-License-Identifier: Apache-2.0
/*
 * The other end of QMP (qmp.h): somebody who connects to a socket, says a command, and waits for its reply and for what comes of
 * it. One command at a time.
 *
 * Threads: one.
 */
#ifndef LOAM_VMM_QMP_CALLER_H
#define LOAM_VMM_QMP_CALLER_H

#include "loam/error.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#define QMP_CALLER_FD_MAX 4u

struct qmp_caller {
    int fd;
    FILE *stream; /* reads from it */
};

/*
 * Connect to the socket at path, and agree on the protocol. LOAM_ERROR_NOT_FOUND: nobody listens there. LOAM_ERROR_INVALID: who
 * does speaks no QMP. LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error qmp_caller_open(const char *path, struct qmp_caller *caller, struct loam_diag *diag);
void qmp_caller_close(struct qmp_caller *caller);

/*
 * Have name carried out, with arguments (a reference that becomes the call's; NULL: none), and fd_count descriptors, which stay
 * the caller's. *answer (NULL: not wanted) is what it returns: a new reference. LOAM_ERROR_NOT_PERMITTED: it is refused, and diag
 * has its words. LOAM_ERROR_SYSTEM: the other has gone.
 */
LOAM_MUST_USE enum loam_error qmp_caller_call(struct qmp_caller *caller, const char *name, json_t *arguments,
                                              const int *fds, uint32_t fd_count, json_t **answer,
                                              struct loam_diag *diag);

/* Wait for an event of that name; *data is a new reference. LOAM_ERROR_SYSTEM: the other has gone before. */
LOAM_MUST_USE enum loam_error qmp_caller_await(struct qmp_caller *caller, const char *event, json_t **data,
                                               struct loam_diag *diag);

#endif
