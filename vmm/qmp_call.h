// SPDX-License-Identifier: Apache-2.0
/*
 * One text from a QMP client, carried out by a table of commands, and the line that replies to it. It knows no sockets.
 *
 * Threads: a session is used by one thread at a time.
 */
#ifndef LOAM_VMM_QMP_CALL_H
#define LOAM_VMM_QMP_CALL_H

#include "loam/error.h"
#include "vmm/qmp_line.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct qmp_descriptors;

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

/* What commands a client can give. */
struct qmp_session {
    const struct qmp_command *commands;
    size_t command_count;
    void *self;    /* handed to each */
    bool is_ready; /* it has said qmp_capabilities, which is always there, and without which there is nothing else */
    struct qmp_descriptors *descriptors;
};

/* Do what the text says. Returns the reply's line, to be freed; NULL: no memory. *is_json: its line may go on. */
char *qmp_call_text(struct qmp_session *session, const char *text, size_t bytes, bool *is_json);

/* --- For commands ------------------------------------------------------------------------------------------------- */

/* The reply is an error of this class, with this text; an answer that is set is dropped. */
LOAM_PRINTF(3, 4)
void qmp_refuse(struct qmp_call *call, enum qmp_error_class error_class, const char *format, ...);

/* The first descriptor that came with this command or before it, and that nobody has taken; the caller's. -1: none. */
int qmp_take_descriptor(struct qmp_call *call);

#endif
