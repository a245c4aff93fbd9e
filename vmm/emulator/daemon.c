// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/daemon.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Of the first process: until the second is ready, or has ended without it. */
_Noreturn static void await_ready(int fd)
{
    char byte;

    _exit(read(fd, &byte, 1) == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

enum loam_error daemon_begin(struct daemon *daemon, bool forks, const char *pid_path, struct loam_diag *diag)
{
    int ends[2];
    pid_t pid;

    *daemon = (struct daemon){.ready_fd = -1, .null_fd = -1, .pid_path = pid_path};
    if (!forks) {
        return LOAM_OK;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "-daemonize: pipe");
    }
    pid = fork();
    if (pid > 0) {
        close(ends[1]);
        await_ready(ends[0]);
    }
    close(ends[0]);
    if (pid < 0) {
        close(ends[1]);
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "-daemonize: fork");
    }
    (void)setsid();
    daemon->ready_fd = ends[1];
    return LOAM_OK;
}

static enum loam_error write_number(const char *path, struct loam_diag *diag)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
    bool is_written = fd >= 0 && dprintf(fd, "%d\n", (int)getpid()) > 0;
    enum loam_error error = is_written ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "-pidfile %s", path);

    if (fd >= 0) {
        close(fd);
    }
    return error;
}

enum loam_error daemon_prepare(struct daemon *daemon, struct loam_diag *diag)
{
    enum loam_error error = daemon->pid_path != NULL ? write_number(daemon->pid_path, diag) : LOAM_OK;

    daemon->has_file = error == LOAM_OK && daemon->pid_path != NULL;
    if (error == LOAM_OK && daemon->ready_fd >= 0) {
        daemon->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (daemon->null_fd < 0) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "-daemonize: /dev/null");
        }
    }
    return error;
}

void daemon_ready(struct daemon *daemon)
{
    if (daemon->ready_fd < 0) {
        return;
    }
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        (void)dup2(daemon->null_fd, fd);
    }
    (void)!write(daemon->ready_fd, "", 1);
    close(daemon->null_fd);
    close(daemon->ready_fd);
    daemon->null_fd = daemon->ready_fd = -1;
}

void daemon_end(struct daemon *daemon)
{
    if (daemon->has_file) {
        (void)unlink(daemon->pid_path);
    }
}
