// SPDX-License-Identifier: Apache-2.0
/*
 * A session: the time from a run's start to its end, with the keyboard, the signals and the clock that can end it.
 *
 * SIGINT, SIGTERM and SIGHUP are the session's while it is open, each unless the starter has it ignored (nohup, a
 * script's background job). Whatever takes long in that time asks session_signalled, or polls session_fd.
 *
 * Threads: one session a process, on the machine's creating thread. Open it before any other thread is started, so that
 * all of them leave its signals to it.
 */
#ifndef LOAM_VMM_SESSION_H
#define LOAM_VMM_SESSION_H

#include "loam/error.h"
#include "vmm/intake.h"
#include "vmm/machine.h"
#include "vmm/outlet.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

enum session_end {
    SESSION_MACHINE, /* the machine stopped by itself */
    SESSION_TIMEOUT,
    SESSION_SIGNAL, /* SIGINT, SIGTERM or SIGHUP */
    SESSION_LEFT,   /* Ctrl-a x, or the visitor */
};

struct session {
    int signal_fd;
    int signal_number; /* the first that came; 0: none */
    sigset_t saved_mask;
    int64_t deadline; /* in milliseconds of CLOCK_MONOTONIC; INT64_MAX: none */
    struct intake intake;
};

/* Take its signals over. LOAM_ERROR_SYSTEM: a call failed, and nothing has changed. */
LOAM_MUST_USE enum loam_error session_open(struct session *session, struct loam_diag *diag);

/* Signals are as before; one that came too late to end anything is dropped. */
void session_close(struct session *session);

/* Whether a signal has come that ends the session; it is in signal_number from then on. Never waits. */
bool session_signalled(struct session *session);

/* Readable when a signal has come that nobody has been told of by session_signalled or session_watch. */
int session_fd(const struct session *session);

/* Somebody else who is to be served meanwhile. */
struct session_visitor {
    int fd;                   /* readable when turn has something to do */
    bool (*turn)(void *self); /* do it, without waiting; true: the session is to end */
    void *self;
};

struct session_request {
    int input_fd;                          /* feeds the guest's serial line; -1: none */
    uint64_t timeout_milliseconds;         /* 0: none */
    bool is_debugged;                      /* a debugger pauses the machine: Ctrl-a p does not */
    const struct session_visitor *visitor; /* NULL: none */
    struct outlet *console;                /* where the person at the terminal is told of the keys; NULL: nowhere */
};

/*
 * Watch a started machine until something ends it, and stop it. A terminal as input is raw while this process is in its
 * foreground, and Ctrl-a x leaves, whatever keys wait for the guest; Ctrl-a p pauses the machine, and lets it go on, while
 * the timeout counts. In the background the terminal is left alone, and taken when it is brought forward. Keys that find no room, because the guest does not read, ring the bell and are dropped; other
 * input waits.
 */
LOAM_MUST_USE enum loam_error session_watch(struct session *session, struct machine *machine,
                                            const struct session_request *request, enum session_end *end,
                                            struct loam_diag *diag);

/* Milliseconds until the deadline that session_watch was given, 0 when it has passed; -1: there is none. */
int64_t session_left_milliseconds(const struct session *session);

#endif
