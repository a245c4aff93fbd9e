// SPDX-License-Identifier: Apache-2.0
/*
 * Events that come while a reply is waited for are passed over: who waits for one has asked for it before, and it follows the
 * reply.
 */
#include "vmm/qmp_caller.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static enum loam_error connect_to(const char *path, int *fd, struct loam_diag *diag)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s: %zu characters, and a socket's path has at most %zu", path,
                         strlen(path), sizeof address.sun_path - 1);
    }
    memcpy(address.sun_path, path, strlen(path));
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: socket", path);
    }
    if (connect(*fd, (const struct sockaddr *)&address, sizeof address) == 0) {
        return LOAM_OK;
    }
    if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTSOCK) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND,
                         "%s: nobody listens there: give the socket of a run (loam run --control SOCKET)", path);
    }
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: cannot be connected to", path);
}

static enum loam_error gone(struct loam_diag *diag)
{
    errno = 0; /* whatever it was, it is not why */
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "the run has ended, or hung up, before it answered");
}

/* The next object that is said; NULL: there is none. */
static json_t *hear(struct qmp_caller *caller)
{
    return json_loadf(caller->stream, JSON_DISABLE_EOF_CHECK, NULL);
}

enum loam_error qmp_caller_open(const char *path, struct qmp_caller *caller, struct loam_diag *diag)
{
    json_t *greeting;
    enum loam_error error;

    *caller = (struct qmp_caller){.fd = -1};
    error = connect_to(path, &caller->fd, diag);
    if (error == LOAM_OK) {
        caller->stream = fdopen(caller->fd, "r");
        error = caller->stream != NULL ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: fdopen", path);
    }
    if (error == LOAM_OK) {
        greeting = hear(caller);
        if (json_object_get(greeting, "QMP") == NULL) {
            error = loam_fail(diag, LOAM_ERROR_INVALID, "%s: who listens there does not speak QMP", path);
        }
        json_decref(greeting);
    }
    if (error == LOAM_OK) {
        error = qmp_caller_call(caller, "qmp_capabilities", NULL, NULL, 0, NULL, diag);
    }
    if (error != LOAM_OK) {
        qmp_caller_close(caller);
    }
    return error;
}

void qmp_caller_close(struct qmp_caller *caller)
{
    if (caller->stream != NULL) {
        fclose(caller->stream);
    } else if (caller->fd >= 0) {
        close(caller->fd);
    }
    *caller = (struct qmp_caller){.fd = -1};
}

static bool send_with(int fd, const char *text, const int *fds, uint32_t fd_count)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(QMP_CALLER_FD_MAX * sizeof(int))];
    } control = {.room = {0}};
    struct iovec piece = {.iov_base = (void *)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};

    if (fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.header = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(fd_count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), fds, fd_count * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL) == (ssize_t)piece.iov_len;
}

static enum loam_error take_reply(json_t *reply, json_t **answer, struct loam_diag *diag)
{
    const char *why = json_string_value(json_object_get(json_object_get(reply, "error"), "desc"));

    if (why != NULL) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s", why);
    }
    if (answer != NULL) {
        *answer = json_incref(json_object_get(reply, "return"));
    }
    return LOAM_OK;
}

enum loam_error qmp_caller_call(struct qmp_caller *caller, const char *name, json_t *arguments, const int *fds,
                                uint32_t fd_count, json_t **answer, struct loam_diag *diag)
{
    json_t *command = json_pack("{ssso?}", "execute", name, "arguments", arguments != NULL ? arguments : json_object());
    char *text = json_dumps(command, JSON_COMPACT);
    bool is_sent = text != NULL && send_with(caller->fd, text, fds, fd_count);
    json_t *reply = NULL;
    enum loam_error error;

    free(text);
    json_decref(command);
    for (bool is_reply = false; is_sent && !is_reply;) {
        json_decref(reply);
        reply = hear(caller);
        is_sent = reply != NULL;
        is_reply = json_object_get(reply, "return") != NULL || json_object_get(reply, "error") != NULL;
    }
    error = is_sent ? take_reply(reply, answer, diag) : gone(diag);
    json_decref(reply);
    return error;
}

enum loam_error qmp_caller_await(struct qmp_caller *caller, const char *event, json_t **data, struct loam_diag *diag)
{
    json_t *said;

    for (*data = NULL; (said = hear(caller)) != NULL; json_decref(said)) {
        const char *name = json_string_value(json_object_get(said, "event"));

        if (name != NULL && strcmp(name, event) == 0) {
            *data = json_incref(json_object_get(said, "data"));
            json_decref(said);
            return LOAM_OK;
        }
    }
    return gone(diag);
}
