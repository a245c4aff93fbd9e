// SPDX-License-Identifier: Apache-2.0
#include "vmm/session.h"

#include "vmm/console.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MILLISECONDS 5   /* until the guest's receiver is asked again whether it has room */
#define LOOK_MILLISECONDS  250 /* until a terminal in the background is looked at again */

/* What was typed and the serial line has not taken yet: bytes [taken, count). */
struct input {
    struct intake *intake; /* NULL: none, or ended */
    int fd;
    bool is_terminal;
    bool is_raw; /* the terminal is ours: in the foreground, and raw */
    int job_fd;  /* a signalfd: SIGTSTP and SIGCONT, for a terminal; -1: none */
    struct console console;
    struct console_filter filter;
    struct outlet *outlet;
    uint8_t bytes[2 * INTAKE_BYTES + 1];
    size_t taken, count;
};

struct watch {
    struct session *session;
    struct machine *machine;
    bool is_debugged;
    const struct session_visitor *visitor; /* NULL: none */
    struct input input;
    int64_t next_look; /* when machine_look wants to be called again */
};

/* --- Signals ---------------------------------------------------------------------------------------------------- */

static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Block those of numbers that are not ignored, and have them on a descriptor. */
static enum loam_error take_signals(const int *numbers, size_t count, int *fd, sigset_t *saved, struct loam_diag *diag)
{
    sigset_t signals;

    sigemptyset(&signals);
    for (size_t i = 0; i < count; i++) {
        if (!is_ignored(numbers[i])) {
            sigaddset(&signals, numbers[i]);
        }
    }
    pthread_sigmask(SIG_BLOCK, &signals, saved);
    *fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (*fd < 0) {
        enum loam_error error = loam_fail(diag, LOAM_ERROR_SYSTEM, "signalfd");

        pthread_sigmask(SIG_SETMASK, saved, NULL);
        return error;
    }
    return LOAM_OK;
}

/* The number of a signal that has come; 0: none. */
static int next_signal(int fd)
{
    struct signalfd_siginfo info;

    return read(fd, &info, sizeof info) == (ssize_t)sizeof info ? (int)info.ssi_signo : 0;
}

enum loam_error session_open(struct session *session, struct loam_diag *diag)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    *session = (struct session){.signal_fd = -1, .deadline = INT64_MAX};
    return take_signals(numbers, sizeof numbers / sizeof numbers[0], &session->signal_fd, &session->saved_mask, diag);
}

void session_close(struct session *session)
{
    if (session->signal_fd >= 0) {
        while (next_signal(session->signal_fd) != 0) {
        }
        close(session->signal_fd);
        session->signal_fd = -1;
        pthread_sigmask(SIG_SETMASK, &session->saved_mask, NULL);
    }
}

bool session_signalled(struct session *session)
{
    if (session->signal_number == 0) {
        session->signal_number = next_signal(session->signal_fd);
    }
    return session->signal_number != 0;
}

int session_fd(const struct session *session)
{
    return session->signal_fd;
}

/* --- The clock -------------------------------------------------------------------------------------------------- */

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t session_left_milliseconds(const struct session *session)
{
    int64_t left = session->deadline - now_milliseconds();

    return session->deadline == INT64_MAX ? -1 : left < 0 ? 0 : left;
}

/* --- The terminal ----------------------------------------------------------------------------------------------- */

/* Raw in the foreground, untouched in the background: as it has to be now. */
static void settle_terminal(struct input *input)
{
    bool is_ours = input->is_terminal && console_is_foreground(input->fd);

    if (is_ours && !input->is_raw) {
        input->is_raw = console_raw(&input->console, input->fd, NULL) == LOAM_OK;
    } else if (!is_ours && input->is_raw) {
        console_restore();
        input->is_raw = false;
    }
}

/* Stop as the signal asks, with the terminal as it was; this returns when the process goes on. */
static void stop_process(void)
{
    sigset_t stop;

    console_restore();
    sigemptyset(&stop);
    sigaddset(&stop, SIGTSTP);
    raise(SIGTSTP);
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL);
    pthread_sigmask(SIG_BLOCK, &stop, NULL);
}

/*
 * SIGTSTP stops, as it would without a handler. After it, and after a stop that nobody could see coming (SIGSTOP), the
 * terminal may have been set by others: it is taken anew.
 */
static void follow_job_signals(struct input *input)
{
    for (int number; (number = next_signal(input->job_fd)) != 0;) {
        if (number == SIGTSTP) {
            stop_process();
        }
        console_restore();
        input->is_raw = false;
    }
}

/* --- Input ------------------------------------------------------------------------------------------------------ */

static void say(struct input *input, const char *text)
{
    if (input->outlet != NULL) {
        outlet_append(input->outlet, text, strlen(text));
    }
}

static void offer(struct watch *watch)
{
    struct input *input = &watch->input;

    input->taken += machine_serial_input(watch->machine, input->bytes + input->taken, input->count - input->taken);
    if (input->taken == input->count) {
        input->taken = input->count = 0;
    }
}

/* Keep what there is room for. */
static void queue(struct input *input, const uint8_t *bytes, size_t count)
{
    size_t room = sizeof input->bytes - input->count;

    if (count > room) {
        say(input, "\a");
        count = room;
    }
    memcpy(input->bytes + input->count, bytes, count);
    input->count += count;
}

/* The clock of the session goes on, and so does what else ends it. */
static void pause_or_go_on(struct watch *watch)
{
    if (watch->is_debugged) {
        say(&watch->input, "\r\nloam: the debugger pauses the guest, and lets it go on\r\n");
    } else if (machine_is_pausing(watch->machine)) {
        machine_resume(watch->machine);
        say(&watch->input, "\r\nloam: the guest goes on\r\n");
    } else {
        machine_pause(watch->machine);
        say(&watch->input, "\r\nloam: the guest is paused: Ctrl-a p lets it go on\r\n");
    }
}

static void obey(struct watch *watch, enum console_command command)
{
    struct input *input = &watch->input;

    switch (command) {
    case CONSOLE_COMMAND_CLEAR:
        input->taken = input->count = 0;
        break;
    case CONSOLE_COMMAND_PAUSE:
        pause_or_go_on(watch);
        break;
    case CONSOLE_COMMAND_HELP:
        say(input, "\r\n" CONSOLE_HELP "\r\n");
        break;
    default:
        break;
    }
}

/* Keys for the guest are queued, keys for Loam obeyed; true: the person leaves. */
static bool sort_keys(struct watch *watch, const uint8_t *keys, size_t count)
{
    struct input *input = &watch->input;
    enum console_command command = CONSOLE_COMMAND_NONE;

    for (size_t used = 0, fresh; used < count && command != CONSOLE_COMMAND_LEAVE;) {
        uint8_t for_guest[INTAKE_BYTES + 1];

        used += console_filter(&input->filter, keys + used, count - used, for_guest, &fresh, &command);
        queue(input, for_guest, fresh);
        obey(watch, command);
    }
    return command == CONSOLE_COMMAND_LEAVE;
}

/* Take what can be read now; true: the person leaves. */
static bool read_input(struct watch *watch)
{
    struct input *input = &watch->input;
    uint8_t bytes[INTAKE_BYTES];
    ssize_t got = intake_take(input->intake, bytes);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (got < 0 && errno == EIO && input->is_terminal && !console_is_foreground(input->fd)) {
        return false; /* the terminal went to another job between poll and read */
    }
    if (got <= 0) {
        input->intake = NULL;
        return false;
    }
    if (input->is_terminal) {
        return sort_keys(watch, bytes, (size_t)got);
    }
    queue(input, bytes, (size_t)got);
    return false;
}

/* What to poll for input; -1: nothing is wanted now. A terminal is read however much waits, for the keys to leave. */
static int input_fd(const struct input *input)
{
    bool is_wanted = input->is_terminal ? input->is_raw : input->count == 0;

    return input->intake != NULL && is_wanted ? intake_poll_fd(input->intake) : -1;
}

/* --- Watching --------------------------------------------------------------------------------------------------- */

static int wait_milliseconds(const struct watch *watch)
{
    const struct input *input = &watch->input;
    int64_t left = session_left_milliseconds(watch->session);
    int64_t until_look = watch->next_look - now_milliseconds();

    if (left < 0 || left > LOOK_MILLISECONDS) {
        left = LOOK_MILLISECONDS;
    }
    if (until_look < left) {
        left = until_look < 0 ? 0 : until_look;
    }
    return input->count > 0 && left > RETRY_MILLISECONDS ? RETRY_MILLISECONDS : (int)left;
}

static void look(struct watch *watch)
{
    int64_t now = now_milliseconds();

    if (now >= watch->next_look) {
        watch->next_look = now + machine_look(watch->machine);
    }
}

/* Whether the session is to end. */
static bool serve_visitor(const struct session_visitor *visitor)
{
    return visitor != NULL && visitor->turn(visitor->self);
}

/* Whether anything of what poll found, or the clock, ends the session. */
static bool is_over(struct watch *watch, const struct pollfd fds[5], enum session_end *end)
{
    if (fds[0].revents != 0) {
        *end = SESSION_MACHINE;
        return true;
    }
    if (session_signalled(watch->session)) {
        *end = SESSION_SIGNAL;
        return true;
    }
    if ((fds[3].revents != 0 && read_input(watch)) || (fds[4].revents != 0 && serve_visitor(watch->visitor))) {
        *end = SESSION_LEFT;
        return true;
    }
    *end = SESSION_TIMEOUT;
    return session_left_milliseconds(watch->session) == 0;
}

static enum loam_error go_on(struct watch *watch, enum session_end *end, struct loam_diag *diag)
{
    struct input *input = &watch->input;

    for (;;) {
        settle_terminal(input);

        struct pollfd fds[] = {{.fd = machine_stop_fd(watch->machine), .events = POLLIN},
                               {.fd = watch->session->signal_fd, .events = POLLIN},
                               {.fd = input->job_fd, .events = POLLIN},
                               {.fd = input_fd(input), .events = POLLIN},
                               {.fd = watch->visitor != NULL ? watch->visitor->fd : -1, .events = POLLIN}};

        if (poll(fds, sizeof fds / sizeof fds[0], wait_milliseconds(watch)) < 0 && errno != EINTR) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "poll");
        }
        if (is_over(watch, fds, end)) {
            return LOAM_OK;
        }
        if (fds[2].revents != 0) {
            follow_job_signals(input);
        }
        if (input->count > 0) {
            offer(watch);
        }
        look(watch);
    }
}

/* A session that has no terminal leaves stopping and going on to the system. */
static enum loam_error watch_with_job_signals(struct watch *watch, enum session_end *end, struct loam_diag *diag)
{
    static const int numbers[] = {SIGTSTP, SIGCONT};
    struct input *input = &watch->input;
    enum loam_error error;
    sigset_t saved;

    if (!input->is_terminal) {
        return go_on(watch, end, diag);
    }
    error = take_signals(numbers, sizeof numbers / sizeof numbers[0], &input->job_fd, &saved, diag);
    if (error != LOAM_OK) {
        return error;
    }
    error = go_on(watch, end, diag);
    console_restore();
    close(input->job_fd);
    pthread_sigmask(SIG_SETMASK, &saved, NULL);
    return error;
}

enum loam_error session_watch(struct session *session, struct machine *machine, const struct session_request *request,
                              enum session_end *end, struct loam_diag *diag)
{
    struct watch watch = {.session = session,
                          .machine = machine,
                          .is_debugged = request->is_debugged,
                          .visitor = request->visitor,
                          .next_look = now_milliseconds() + MACHINE_LOOK_MILLISECONDS,
                          .input = {.fd = request->input_fd, .job_fd = -1, .outlet = request->console}};
    enum loam_error error = LOAM_OK;
    bool has_intake = false;

    *end = SESSION_MACHINE;
    if (request->timeout_milliseconds > 0) {
        session->deadline = now_milliseconds() + (int64_t)request->timeout_milliseconds;
    }
    if (request->input_fd >= 0) {
        watch.input.is_terminal = isatty(request->input_fd);
        error = intake_open(&session->intake, request->input_fd, diag);
        has_intake = error == LOAM_OK;
        watch.input.intake = has_intake ? &session->intake : NULL;
    }
    if (error == LOAM_OK) {
        error = watch_with_job_signals(&watch, end, diag);
    }
    machine_stop(machine);
    if (has_intake) {
        intake_close(&session->intake);
    }
    return error;
}
