// SPDX-License-Identifier: Apache-2.0
/*
 * What a QMP server says, each as one line of ASCII without its end, to be freed. NULL: there is no memory, or, of what
 * the caller supplies as JSON, it cannot be written (a string that is no UTF-8). Plain text may be anything.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_QMP_LINE_H
#define LOAM_VMM_QMP_LINE_H

#include <jansson.h>

/* Error classes that clients tell apart. */
enum qmp_error_class {
    QMP_GENERIC_ERROR,
    QMP_COMMAND_NOT_FOUND,
    QMP_DEVICE_NOT_ACTIVE,
    QMP_DEVICE_NOT_FOUND,
    QMP_KVM_MISSING_CAP,
    QMP_ERROR_CLASS_COUNT
};

char *qmp_line_greeting(int major, int minor, int micro, const char *package);

/* As of now. data is used up; NULL: none. If it cannot be written, the event is told without. */
char *qmp_line_event(const char *name, json_t *data);

/* A reply, to a command with this id (NULL: none), which stays the caller's. answer is used up; NULL: {}. */
char *qmp_line_answer(json_t *answer, json_t *id);
char *qmp_line_error(enum qmp_error_class error_class, const char *text, json_t *id);

#endif
