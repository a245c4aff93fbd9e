// SPDX-License-Identifier: Apache-2.0
/*
 * A session: the time from a machine's start to its end, with the keyboard, the signals and the clock that can end it.
 *
 * Threads: one session a process, on the machine's creating thread. Open it before any other thread is started, so that
 * all of them leave its signals to it.
 */
#ifndef LOAM_VMM_SESSION_H
#define LOAM_VMM_SESSION_H

#include "loam/error.h"
#include "vmm/machine.h"

#include <signal.h>
#include <stdint.h>

enum session_end {
    SESSION_MACHINE, /* the machine stopped by itself */
    SESSION_TIMEOUT,
    SESSION_SIGNAL, /* SIGINT, SIGTERM or SIGHUP */
    SESSION_LEFT,   /* Ctrl-a x */
};

struct session {
    int signal_fd;
    int signal_number; /* with SESSION_SIGNAL */
    sigset_t saved_mask;
};

/* Take over SIGINT, SIGTERM and SIGHUP. LOAM_ERROR_SYSTEM: a call failed, and nothing has changed. */
LOAM_MUST_USE enum loam_error session_open(struct session *session, struct loam_diag *diag);

/* Signals are as before. */
void session_close(struct session *session);

/*
 * Watch a started machine until something ends it, and stop it. input_fd (-1: none) feeds the guest's serial line; if
 * it is a terminal, it is raw meanwhile and Ctrl-a x leaves. timeout_milliseconds 0: none.
 */
LOAM_MUST_USE enum loam_error session_watch(struct session *session, struct machine *machine, int input_fd,
                                            uint64_t timeout_milliseconds, enum session_end *end,
                                            struct loam_diag *diag);

#endif
