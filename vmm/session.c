// SPDX-License-Identifier: Apache-2.0
#include "vmm/session.h"

#include "vmm/console.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define INPUT_BYTES        256
#define RETRY_MILLISECONDS 5 /* until the guest's receiver is asked again whether it has room */

/* What was typed and the guest has not taken yet: bytes [taken, count). */
struct input {
    int fd; /* -1: ended */
    bool is_terminal;
    struct console_filter filter;
    uint8_t bytes[INPUT_BYTES + 1];
    size_t taken, count;
};

enum loam_error session_open(struct session *session, struct loam_diag *diag)
{
    sigset_t signals;

    *session = (struct session){.signal_fd = -1};
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &signals, &session->saved_mask) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "signals cannot be blocked");
    }
    session->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (session->signal_fd < 0) {
        enum loam_error error = loam_fail(diag, LOAM_ERROR_SYSTEM, "signalfd");

        sigprocmask(SIG_SETMASK, &session->saved_mask, NULL);
        return error;
    }
    return LOAM_OK;
}

void session_close(struct session *session)
{
    if (session->signal_fd >= 0) {
        close(session->signal_fd);
        session->signal_fd = -1;
        sigprocmask(SIG_SETMASK, &session->saved_mask, NULL);
    }
}

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void offer(struct input *input, struct machine *machine)
{
    input->taken += machine_serial_input(machine, input->bytes + input->taken, input->count - input->taken);
    if (input->taken == input->count) {
        input->taken = input->count = 0;
    }
}

/* Take what can be read now; true: the person leaves. */
static bool read_input(struct input *input)
{
    uint8_t keys[INPUT_BYTES];
    enum console_command command = CONSOLE_COMMAND_NONE;
    ssize_t got = read(input->fd, keys, sizeof keys);

    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        input->fd = -1;
    }
    if (got <= 0) {
        return false;
    }
    if (!input->is_terminal) {
        memcpy(input->bytes, keys, (size_t)got);
        input->count = (size_t)got;
        return false;
    }
    for (size_t used = 0, fresh; used < (size_t)got && command != CONSOLE_COMMAND_LEAVE;) {
        used += console_filter(&input->filter, keys + used, (size_t)got - used, input->bytes + input->count, &fresh,
                               &command);
        input->count += fresh;
        if (command == CONSOLE_COMMAND_HELP) {
            fprintf(stderr, "\r\n" CONSOLE_HELP "\r\n");
        }
    }
    return command == CONSOLE_COMMAND_LEAVE;
}

/* Whether a signal is there; its number is kept. */
static bool take_signal(struct session *session)
{
    struct signalfd_siginfo info;

    if (read(session->signal_fd, &info, sizeof info) != (ssize_t)sizeof info) {
        return false;
    }
    session->signal_number = (int)info.ssi_signo;
    return true;
}

static int wait_milliseconds(const struct input *input, int64_t deadline)
{
    int64_t left = deadline - now_milliseconds();

    if (deadline == INT64_MAX) {
        left = -1;
    } else if (left < 0) {
        left = 0;
    } else if (left > 1000000) {
        left = 1000000;
    }
    return input->count > 0 && (left < 0 || left > RETRY_MILLISECONDS) ? RETRY_MILLISECONDS : (int)left;
}

static enum loam_error watch(struct session *session, struct machine *machine, struct input *input, int64_t deadline,
                             enum session_end *end, struct loam_diag *diag)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = machine_stop_fd(machine), .events = POLLIN},
                               {.fd = session->signal_fd, .events = POLLIN},
                               {.fd = input->count == 0 ? input->fd : -1, .events = POLLIN}};
        int ready = poll(fds, 3, wait_milliseconds(input, deadline));

        if (ready < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "poll");
        }
        if (ready > 0 && fds[0].revents != 0) {
            *end = SESSION_MACHINE;
            return LOAM_OK;
        }
        if (ready > 0 && fds[1].revents != 0 && take_signal(session)) {
            *end = SESSION_SIGNAL;
            return LOAM_OK;
        }
        if (ready > 0 && fds[2].revents != 0 && read_input(input)) {
            *end = SESSION_LEFT;
            return LOAM_OK;
        }
        if (input->count > 0) {
            offer(input, machine);
        }
        if (now_milliseconds() >= deadline) {
            *end = SESSION_TIMEOUT;
            return LOAM_OK;
        }
    }
}

enum loam_error session_watch(struct session *session, struct machine *machine, int input_fd,
                              uint64_t timeout_milliseconds, enum session_end *end, struct loam_diag *diag)
{
    struct input input = {.fd = input_fd, .is_terminal = input_fd >= 0 && isatty(input_fd)};
    int64_t deadline = timeout_milliseconds == 0 ? INT64_MAX : now_milliseconds() + (int64_t)timeout_milliseconds;
    struct console console;
    enum loam_error error = LOAM_OK;

    *end = SESSION_MACHINE;
    if (input.is_terminal) {
        error = console_raw(&console, input_fd, diag);
    }
    if (error == LOAM_OK) {
        error = watch(session, machine, &input, deadline, end, diag);
    }
    machine_stop(machine);
    console_restore();
    return error;
}
