// SPDX-License-Identifier: Apache-2.0
/*
 * active is the console whose terminal is raw, if any: whoever exchanges it for NULL restores that terminal,
 * so that it happens once, whichever way out comes first. A console is complete before it becomes active.
 */
#include "vmm/console.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static struct console *_Atomic active;

/* Every key at once, as it is, and none of them a signal. The output's treatment stays. */
static struct termios raw_from(struct termios state)
{
    const tcflag_t output = state.c_oflag;

    cfmakeraw(&state);
    state.c_oflag = output;
    return state;
}

/* A background process that sets a terminal is stopped by SIGTTOU, unless it blocks it. */
static bool set_state(int fd, const struct termios *state)
{
    sigset_t stop, before;
    bool done;

    sigemptyset(&stop);
    sigaddset(&stop, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &stop, &before);
    do {
        done = tcsetattr(fd, TCSANOW, state) == 0;
    } while (!done && errno == EINTR);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return done;
}

/* In what makes a terminal raw; a terminal need not take the rest as it is told. */
static bool is_same(const struct termios *one, const struct termios *other)
{
    return one->c_iflag == other->c_iflag && one->c_lflag == other->c_lflag;
}

/* By now the signal's action is the default again (SA_RESETHAND), and it is not blocked (SA_NODEFER). */
static void restore_and_end(int number)
{
    console_restore();
    raise(number);
}

/* Signals whose default is to be ignored, to stop or to go on. */
static bool ends_by_default(int number)
{
    static const int others[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGKILL};

    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (number == others[i]) {
            return false;
        }
    }
    return true;
}

/* The C library keeps some numbers for itself, and refuses them. */
static void catch_what_ends(void)
{
    const struct sigaction ours = {.sa_handler = restore_and_end, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
    struct sigaction now;

    for (int number = 1; number <= SIGRTMAX; number++) {
        if (ends_by_default(number) && sigaction(number, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) == 0 &&
            now.sa_handler == SIG_DFL) {
            (void)sigaction(number, &ours, NULL);
        }
    }
}

/* Once in a process: whichever way it ends, the terminal is restored. */
static bool guard_ends(void)
{
    static bool guarded;

    if (!guarded) {
        guarded = atexit(console_restore) == 0;
        if (guarded) {
            catch_what_ends();
        }
    }
    return guarded;
}

bool console_is_foreground(int fd)
{
    pid_t group = tcgetpgrp(fd);

    return group < 0 || group == getpgrp();
}

enum loam_error console_raw(struct console *console, int fd, struct loam_diag *diag)
{
    console->fd = fd;
    if (tcgetattr(fd, &console->saved) != 0) {
        return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "console: descriptor %d is no terminal: keys are not passed on",
                         fd);
    }
    if (atomic_load(&active) != NULL) {
        return loam_fail(diag, LOAM_ERROR_BUSY, "console: a terminal is raw already: restore it first");
    }
    if (!guard_ends()) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "console: atexit refused to restore the terminal");
    }
    console->raw = raw_from(console->saved);
    atomic_store(&active, console); /* before the change: a signal right after it restores */
    if (!set_state(fd, &console->raw)) {
        enum loam_error error =
            loam_fail(diag, LOAM_ERROR_SYSTEM, "console: tcsetattr cannot make descriptor %d raw", fd);

        console_restore();
        return error;
    }
    return LOAM_OK;
}

void console_restore(void)
{
    const int before = errno;
    const struct console *console = atomic_exchange(&active, NULL);
    struct termios now;

    if (console != NULL && tcgetattr(console->fd, &now) == 0 && is_same(&now, &console->raw)) {
        (void)set_state(console->fd, &console->saved);
    }
    errno = before;
}

static bool is_literal(uint8_t key)
{
    return key == 'a' || key == CONSOLE_ESCAPE;
}

/* What a key after Ctrl-a does. */
static enum console_command filter_escaped(uint8_t key, uint8_t *output, size_t *output_count)
{
    if (key == 'x') {
        return CONSOLE_COMMAND_LEAVE;
    }
    if (key == 'c') {
        return CONSOLE_COMMAND_CLEAR;
    }
    if (key == 'p') {
        return CONSOLE_COMMAND_PAUSE;
    }
    if (key == 'h') {
        return CONSOLE_COMMAND_HELP;
    }
    output[(*output_count)++] = CONSOLE_ESCAPE;
    if (!is_literal(key)) {
        output[(*output_count)++] = key;
    }
    return CONSOLE_COMMAND_NONE;
}

size_t console_filter(struct console_filter *filter, const uint8_t *keys, size_t count, uint8_t *output,
                      size_t *output_count, enum console_command *command)
{
    size_t taken = 0;

    *output_count = 0;
    *command = CONSOLE_COMMAND_NONE;
    while (taken < count && *command == CONSOLE_COMMAND_NONE) {
        const uint8_t key = keys[taken++];

        if (filter->escaped) {
            filter->escaped = false;
            *command = filter_escaped(key, output, output_count);
        } else if (key == CONSOLE_ESCAPE) {
            filter->escaped = true;
        } else {
            output[(*output_count)++] = key;
        }
    }
    return taken;
}
