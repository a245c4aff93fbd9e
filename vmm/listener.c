// SPDX-License-Identifier: Apache-2.0
#include "vmm/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static enum loam_error failed(const struct listener *listener, const char *where, const char *call,
                              struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s %s: %s", listener->option, where, call);
}

static enum loam_error in_use(const struct listener *listener, const char *where, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_OVERLAP, "%s %s: somebody else listens there: give another", listener->option,
                     where);
}

static bool is_number(const char *where)
{
    return where[0] != '\0' && strspn(where, "0123456789") == strlen(where);
}

/* --- A port ------------------------------------------------------------------------------------------------------- */

static enum loam_error bind_port(const char *where, struct listener *listener, struct loam_diag *diag)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    unsigned long port = strlen(where) <= 5 ? strtoul(where, NULL, 10) : UINT32_MAX;
    socklen_t length = sizeof address;
    int yes = 1;

    if (port > UINT16_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s %s: ports go from 0 (any that is free) to 65535",
                         listener->option, where);
    }
    address.sin_port = htons((uint16_t)port);
    if (setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0) {
        return failed(listener, where, "SO_REUSEADDR", diag);
    }
    if (bind(listener->fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        return errno == EADDRINUSE ? in_use(listener, where, diag) : failed(listener, where, "bind", diag);
    }
    if (getsockname(listener->fd, (struct sockaddr *)&address, &length) < 0) {
        return failed(listener, where, "getsockname", diag);
    }
    snprintf(listener->name, sizeof listener->name, "127.0.0.1:%u", (unsigned int)ntohs(address.sin_port));
    return LOAM_OK;
}

/* --- A path ------------------------------------------------------------------------------------------------------- */

/* Left behind by a process that was killed; no other kind of file is touched, and nobody's that listens. */
static void make_room(const struct sockaddr_un *address)
{
    struct stat status;
    int fd;

    if (lstat(address->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) {
        return;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 && errno == ECONNREFUSED) {
        (void)unlink(address->sun_path);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static enum loam_error bind_path(const char *path, struct listener *listener, struct loam_diag *diag)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);

    if (length == 0 || (strchr(path, ':') != NULL && strchr(path, '/') == NULL)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%s %s: give a port, such as 1234, or the path of a socket",
                         listener->option, path);
    }
    if (length >= sizeof address.sun_path) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "%s %s: %zu characters, and a socket's path has at most %zu: shorten it", listener->option,
                         path, length, sizeof address.sun_path - 1);
    }
    memcpy(address.sun_path, path, length);
    make_room(&address);
    /* What it is bound to has this mode (less the umask) from the first moment on. */
    if (fchmod(listener->fd, S_IRUSR | S_IWUSR) < 0) {
        return failed(listener, path, "fchmod", diag);
    }
    if (bind(listener->fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        return errno == EADDRINUSE ? in_use(listener, path, diag) : failed(listener, path, "bind", diag);
    }
    listener->path = path;
    snprintf(listener->name, sizeof listener->name, "%s", path);
    return LOAM_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum loam_error listener_open(const char *option, const char *where, struct listener *listener, struct loam_diag *diag)
{
    bool is_port = is_number(where);
    enum loam_error error;

    *listener = (struct listener){
        .option = option, .fd = socket(is_port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (listener->fd < 0) {
        return failed(listener, where, "socket", diag);
    }
    error = is_port ? bind_port(where, listener, diag) : bind_path(where, listener, diag);
    if (error == LOAM_OK && listen(listener->fd, 1) < 0) {
        error = errno == EADDRINUSE ? in_use(listener, where, diag) : failed(listener, where, "listen", diag);
    }
    if (error != LOAM_OK) {
        listener_close(listener);
    }
    return error;
}

void listener_close(struct listener *listener)
{
    if (listener->fd >= 0) {
        close(listener->fd);
        listener->fd = -1;
    }
    if (listener->path != NULL) {
        (void)unlink(listener->path);
        listener->path = NULL;
    }
}

int listener_accept(const struct listener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int yes = 1;

    if (fd >= 0 && listener->path == NULL) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* short answers, one at a time */
    }
    return fd;
}
