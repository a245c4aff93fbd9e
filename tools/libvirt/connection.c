// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/connection.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *connection_default_uri(void)
{
    const char *uri = getenv("LIBVIRT_DEFAULT_URI");

    if (uri != NULL && uri[0] != '\0') {
        return uri;
    }
    return geteuid() == 0 ? "qemu:///system" : "qemu:///session";
}

/* libvirt's own way is to print. */
static void keep_silent(void *data, virErrorPtr error)
{
    (void)data;
    (void)error;
}

/* Whether the last error is one of rights, which who only reads may not need. */
static bool lacks_rights(void)
{
    const virError *error = virGetLastError();

    if (error == NULL) {
        return false;
    }
    return error->code == VIR_ERR_AUTH_FAILED || error->code == VIR_ERR_AUTH_CANCELLED ||
           error->code == VIR_ERR_AUTH_UNAVAILABLE ||
           (error->code == VIR_ERR_SYSTEM_ERROR && (error->int1 == EACCES || error->int1 == EPERM));
}

virConnectPtr connection_open(const char *uri, bool *is_read_only, struct loam_diag *diag)
{
    virConnectPtr connection;

    virSetErrorFunc(NULL, keep_silent);
    connection = virInitialize() == 0 ? virConnectOpen(uri) : NULL;
    if (is_read_only != NULL) {
        *is_read_only = connection == NULL && lacks_rights();
        if (*is_read_only) {
            connection = virConnectOpenReadOnly(uri);
        }
    }
    if (connection == NULL) {
        char line[sizeof diag->text];

        connection_last_error(line, sizeof line);
        (void)loam_fail(diag, LOAM_ERROR_NOT_FOUND, "%s", line);
    }
    return connection;
}

void connection_last_error(char *text, size_t room)
{
    const char *message = virGetLastErrorMessage();

    snprintf(text, room, "%s", message == NULL ? "libvirt does not say why" : message);
    for (; *text != '\0'; text++) {
        if (*text == '\n' || *text == '\t') {
            *text = text[1] == '\0' ? '\0' : ' ';
        }
    }
}

enum loam_error connection_fail(struct loam_diag *diag, const char *format, ...)
{
    char doing[256], why[sizeof diag->text];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(doing, sizeof doing, format, arguments);
    va_end(arguments);
    connection_last_error(why, sizeof why);
    (void)loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s: %s", doing, why);
    return LOAM_ERROR_NOT_PERMITTED;
}
