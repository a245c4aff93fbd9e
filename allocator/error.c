// SPDX-License-Identifier: Apache-2.0
#include "loam/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const error_names[LOAM_ERROR_COUNT] = {
    [LOAM_OK] = "ok",
    [LOAM_ERROR_INVALID] = "invalid argument",
    [LOAM_ERROR_OVERLAP] = "overlap",
    [LOAM_ERROR_NOT_FOUND] = "not found",
    [LOAM_ERROR_EXHAUSTED] = "exhausted",
    [LOAM_ERROR_UNINITIALISED] = "not initialised",
    [LOAM_ERROR_BUSY] = "busy",
    [LOAM_ERROR_NOT_PERMITTED] = "not permitted",
    [LOAM_ERROR_CORRUPT] = "corrupt",
    [LOAM_ERROR_SYSTEM] = "system call failed",
    [LOAM_ERROR_CANCELLED] = "cancelled",
};

const char *loam_error_name(enum loam_error error)
{
    return (unsigned)error < LOAM_ERROR_COUNT ? error_names[error] : "unknown";
}

enum loam_error loam_fail(struct loam_diag *diag, enum loam_error error, const char *format, ...)
{
    int system_errno = error == LOAM_ERROR_SYSTEM ? errno : 0;
    va_list arguments;

    if (diag == NULL) {
        return error;
    }
    diag->error = error;
    diag->system_errno = system_errno;
    va_start(arguments, format);
    vsnprintf(diag->text, sizeof diag->text, format, arguments);
    va_end(arguments);
    if (system_errno != 0) {
        size_t used = strlen(diag->text);

        snprintf(diag->text + used, sizeof diag->text - used, ": %s", strerror(system_errno));
    }
    return error;
}
