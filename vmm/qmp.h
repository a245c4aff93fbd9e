// SPDX-License-Identifier: Apache-2.0
/*
 * A server of QEMU's machine protocol (QMP; QEMU: docs/interop/qmp-spec.txt): JSON objects, one a line, over UNIX stream
 * sockets. What the commands are is the caller's: a table of names and functions.
 *
 *     qmp_create -> qmp_listen -> [qmp_fd readable] -> qmp_turn ... -> qmp_destroy
 *
 * Clients are strangers. Each gets the greeting, has to say qmp_capabilities first, and is then served one command at a
 * time, in order; `id` comes back with the reply; what is no JSON, no object, too long (QMP_LINE_BYTES_MAX) or nested too
 * deep is answered by an error, and nothing waits for a client: what it does not read is kept up to QMP_WAITING_BYTES_MAX,
 * and then it is hung up on. Descriptors that come by SCM_RIGHTS belong to the next command that takes one; what nobody
 * takes is closed. Nothing that one client does is seen by another but its effect.
 *
 * Threads: qmp_event from any, also from inside a command; all else from one.
 */
#ifndef LOAM_VMM_QMP_H
#define LOAM_VMM_QMP_H

#include "loam/error.h"

#include <jansson.h>
#include <stddef.h>

#define QMP_CLIENT_MAX        16u        /* at once; another is hung up on */
#define QMP_LINE_BYTES_MAX    (1u << 20) /* of one command */
#define QMP_WAITING_BYTES_MAX (4u << 20) /* to one client that does not read */
#define QMP_DESCRIPTOR_MAX    16u        /* of one client that no command has taken yet; others are closed */

/* Opaque. */
struct qmp;

/* Error classes that clients tell apart. */
enum qmp_error_class {
    QMP_GENERIC_ERROR,
    QMP_COMMAND_NOT_FOUND,
    QMP_DEVICE_NOT_ACTIVE,
    QMP_DEVICE_NOT_FOUND,
    QMP_KVM_MISSING_CAP,
    QMP_ERROR_CLASS_COUNT
};

/* One command as it is carried out. */
struct qmp_call {
    const json_t *arguments; /* an object; empty if none came. Whose contents nobody has looked at */
    json_t *answer;          /* for the command to set: the caller's reference becomes the server's; NULL: {} */
    /* Of a command that fails: which qmp_refuse sets. */
    bool is_refused;
    enum qmp_error_class error_class;
    char error[1024];
    struct qmp_descriptors *descriptors; /* see qmp_take_descriptor */
};

/* Carry the command out, or refuse it. It does not wait: what takes long goes on elsewhere and ends in an event. */
typedef void qmp_command_fn(void *self, struct qmp_call *call);

struct qmp_command {
    const char *name; /* static */
    qmp_command_fn *act;
};

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

/* Serve who connects to fd, a listening socket, which is the server's from here on. LOAM_ERROR_SYSTEM, and fd is closed. */
LOAM_MUST_USE enum loam_error qmp_listen(struct qmp *qmp, int fd, struct loam_diag *diag);

/* Serve fd, which is connected already. As qmp_listen. */
LOAM_MUST_USE enum loam_error qmp_serve(struct qmp *qmp, int fd, struct loam_diag *diag);

/* Readable when qmp_turn has something to do; the server's. */
int qmp_fd(const struct qmp *qmp);

/* Do what there is to do, without waiting: take connections, read, carry out commands, write. */
void qmp_turn(struct qmp *qmp);

/*
 * Tell every client that has said qmp_capabilities, with the time. data: an object, whose reference becomes the server's;
 * NULL: none. From inside a command it goes out before the command's reply.
 */
void qmp_event(struct qmp *qmp, const char *name, json_t *data);

/* --- For commands ------------------------------------------------------------------------------------------------- */

/* The reply is an error of this class, with this text. */
void qmp_refuse(struct qmp_call *call, enum qmp_error_class error_class, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The first descriptor that came with this command or before it, and that nobody has taken; the caller's. -1: none. */
int qmp_take_descriptor(struct qmp_call *call);

#endif
