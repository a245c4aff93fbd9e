// SPDX-License-Identifier: Apache-2.0
#include "tests/support/process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void begin(struct process *process, int timeout_milliseconds)
{
    *process = (struct process){.input = -1, .output = -1, .error = -1, .status = -1};
    process->deadline = now_milliseconds() + timeout_milliseconds;
    process->out = calloc(1, PROCESS_OUTPUT_MAX + 1);
    process->err = calloc(1, PROCESS_OUTPUT_MAX + 1);
}

/* As a shell in the foreground starts a program, however the tests were started. */
static void reset_signals(void)
{
    const int numbers[] = {SIGPIPE, SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP};
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        signal(numbers[i], SIG_DFL);
    }
}

static void close_open(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* ends[0] is the test's, ends[1] the program's: given, or a pipe. */
static bool make_ends(int given, bool is_input, int ends[2])
{
    int fds[2];

    ends[0] = -1;
    ends[1] = given;
    if (given >= 0) {
        return true;
    }
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return false;
    }
    ends[0] = fds[is_input];
    ends[1] = fds[!is_input];
    return true;
}

bool process_start_with(struct process *process, char *const argv[], const int descriptors[3], int timeout_milliseconds)
{
    int ends[3][2];

    begin(process, timeout_milliseconds);
    for (int i = 0; i < 3; i++) {
        if (!make_ends(descriptors[i], i == 0, ends[i])) {
            return false;
        }
    }
    process->pid = fork();
    if (process->pid == 0) {
        for (int i = 0; i < 3; i++) {
            dup2(ends[i][1], i);
        }
        reset_signals();
        execvp(argv[0], argv);
        _exit(127);
    }
    for (int i = 0; i < 3; i++) {
        if (descriptors[i] < 0) {
            close_open(&ends[i][1]);
        }
    }
    process->input = ends[0][0];
    process->output = ends[1][0];
    process->error = ends[2][0];
    return process->pid > 0;
}

bool process_start(struct process *process, char *const argv[], int timeout_milliseconds)
{
    return process_start_with(process, argv, (const int[]){-1, -1, -1}, timeout_milliseconds);
}

bool process_start_on_terminal(struct process *process, char *const argv[], int timeout_milliseconds)
{
    struct winsize size = {.ws_row = 25, .ws_col = 80};
    int master;

    begin(process, timeout_milliseconds);
    process->pid = forkpty(&master, NULL, NULL, &size);
    if (process->pid == 0) {
        reset_signals();
        execvp(argv[0], argv);
        _exit(127);
    }
    process->output = master;
    process->input = dup(master);
    return process->pid > 0;
}

/* Read once from *fd; at its end it is closed and -1. */
static void drain(int *fd, char *text, size_t *bytes)
{
    char rest[4096];
    size_t room = PROCESS_OUTPUT_MAX - *bytes;
    ssize_t got = read(*fd, room > 0 ? text + *bytes : rest, room > 0 ? room : sizeof rest);

    if (got > 0 && room > 0) {
        *bytes += (size_t)got;
        text[*bytes] = '\0';
    } else if (got == 0 || (got < 0 && errno != EINTR)) {
        close(*fd);
        *fd = -1;
    }
}

bool process_read(struct process *process)
{
    struct pollfd fds[] = {{.fd = process->output, .events = POLLIN}, {.fd = process->error, .events = POLLIN}};
    int64_t left = process->deadline - now_milliseconds();

    if (process->output < 0 && process->error < 0) {
        return false;
    }
    if (left <= 0 || poll(fds, 2, (int)left) == 0) {
        process->timed_out = true;
        return false;
    }
    if (fds[0].revents != 0) {
        drain(&process->output, process->out, &process->out_bytes);
    }
    if (fds[1].revents != 0) {
        drain(&process->error, process->err, &process->err_bytes);
    }
    return true;
}

bool process_expect(struct process *process, const char *text)
{
    while (memmem(process->out, process->out_bytes, text, strlen(text)) == NULL) {
        if (!process_read(process)) {
            return false;
        }
    }
    return true;
}

bool process_type(struct process *process, const char *text)
{
    return write(process->input, text, strlen(text)) == (ssize_t)strlen(text);
}

/* It may have closed its output long before its end, or have had none that is read here. */
static void await_end(struct process *process)
{
    int fd = process->pid > 0 ? (int)syscall(SYS_pidfd_open, process->pid, 0) : -1;
    struct pollfd end = {.fd = fd, .events = POLLIN};
    int64_t left = process->deadline - now_milliseconds();

    if (fd >= 0) {
        process->timed_out |= poll(&end, 1, left > 0 ? (int)left : 0) == 0;
        close(fd);
    }
}

int process_wait(struct process *process)
{
    int status = 0;

    while (process_read(process)) {
    }
    await_end(process);
    if (process->timed_out) {
        kill(process->pid, SIGKILL);
    }
    if (process->pid > 0 && waitpid(process->pid, &status, 0) == process->pid) {
        process->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        process->pid = 0;
    }
    return process->status;
}

void process_end(struct process *process)
{
    if (process->pid > 0) {
        kill(process->pid, SIGKILL);
        waitpid(process->pid, NULL, 0);
        process->pid = 0;
    }
    close_open(&process->input);
    close_open(&process->output);
    close_open(&process->error);
    free(process->out);
    free(process->err);
    process->out = process->err = NULL;
}

int process_run(struct process *process, char *const argv[], int timeout_milliseconds)
{
    if (!process_start(process, argv, timeout_milliseconds)) {
        return -1;
    }
    close_open(&process->input);
    return process_wait(process);
}
