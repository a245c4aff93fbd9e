// SPDX-License-Identifier: Apache-2.0
/*
 * A server of QEMU's machine protocol (QMP; QEMU: docs/interop/qmp-spec.txt): JSON objects, one a line, over UNIX stream
 * sockets. What the commands are is the caller's: a table of names and functions (qmp_call.h, which this includes).
 *
 *     qmp_create -> qmp_listen -> [qmp_fd readable] -> qmp_turn ... -> qmp_destroy
 *
 * Clients are strangers. Each gets the greeting, has to say qmp_capabilities first, and is then served one command at a
 * time, in order; `id` comes back with the reply; what is no JSON, no object, too long or nested too deep is answered by
 * an error, and the rest of its line is passed over. Nothing waits for a client: what it does not read is kept up to
 * QMP_WAITING_BYTES_MAX, and then it is hung up on, as is one that a reply or an event cannot be kept for: whoever is
 * connected has missed nothing. Descriptors that come by SCM_RIGHTS are the command's that they come with or before; what
 * it does not take is closed after it. Nothing that one client does is seen by another but its effect.
 *
 * What goes out is ASCII, and its lines end with CR LF. Strings of an answer have to be UTF-8: if one is not, the reply
 * is an error (json_text.h makes them fit).
 *
 * Threads: qmp_event from any, also from inside a command; all else from one, and not from inside a command or hung_up.
 */
#ifndef LOAM_VMM_QMP_H
#define LOAM_VMM_QMP_H

#include "loam/error.h"
#include "vmm/qmp_call.h"
#include "vmm/qmp_limits.h"

#include <jansson.h>
#include <stddef.h>

#define QMP_LISTENER_MAX 4u

/* Opaque. */
struct qmp;

struct qmp_config {
    const struct qmp_command *commands; /* outlives the server; qmp_capabilities is the server's own */
    size_t command_count;
    void *self;          /* handed to each */
    const char *package; /* of the greeting's version; static */
    int major, minor, micro;
    /* A client has gone; client_count are left. NULL: nobody wants to know. Called from qmp_turn. */
    void (*hung_up)(void *self, size_t client_count);
};

/* LOAM_ERROR_SYSTEM: a call failed, and there is nothing. */
LOAM_MUST_USE enum loam_error qmp_create(const struct qmp_config *config, struct qmp **qmp, struct loam_diag *diag);

/* Hangs up on all clients; what was written to them and fits their sockets arrives. NULL is allowed. */
void qmp_destroy(struct qmp *qmp);

/*
 * Serve who connects to fd, a listening socket, which is the server's from here on, and no longer waits in accept(2).
 * On failure fd is closed. LOAM_ERROR_INVALID: it is no listening socket; LOAM_ERROR_EXHAUSTED: QMP_LISTENER_MAX are
 * there; LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error qmp_listen(struct qmp *qmp, int fd, struct loam_diag *diag);

/* Serve fd, which is connected already. On failure fd is closed. LOAM_ERROR_EXHAUSTED: QMP_CLIENT_MAX are there; _SYSTEM. */
LOAM_MUST_USE enum loam_error qmp_serve(struct qmp *qmp, int fd, struct loam_diag *diag);

/* Readable when qmp_turn has something to do; the server's. */
int qmp_fd(const struct qmp *qmp);

/*
 * Do what there is to do, without waiting: take connections, read, carry out commands, write. Of each client some
 * kilobytes at most, so that none keeps the caller; if there is more, qmp_fd stays readable.
 */
void qmp_turn(struct qmp *qmp);

/*
 * Tell every client that has said qmp_capabilities, with the time. data: an object, whose reference becomes the server's;
 * NULL: none. From inside a command it goes out before the command's reply.
 */
void qmp_event(struct qmp *qmp, const char *name, json_t *data);

#endif
