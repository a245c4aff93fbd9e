// SPDX-License-Identifier: Apache-2.0
#include "vmm/console.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- The filter ----------------------------------------------------------------------------------------------- */

/* What came out, in order: a byte for the guest, or EVENT_COMMAND + a command. */
enum { EVENT_COMMAND = 0x100, EVENT_MAX = 64 };

struct events {
    uint32_t count;
    int at[EVENT_MAX];
};

static void note(struct events *events, int event)
{
    cr_assert_lt(events->count, EVENT_MAX);
    events->at[events->count++] = event;
}

/* The rules one after the other, on the whole input: slow and obvious. */
static struct events expected_events(const uint8_t *keys, size_t count)
{
    struct events events = {0};

    for (size_t i = 0; i < count; i++) {
        const int next = i + 1 < count ? keys[i + 1] : -1;

        if (keys[i] != 0x01) {
            note(&events, keys[i]);
            continue;
        }
        if (next == 'x') {
            note(&events, EVENT_COMMAND + CONSOLE_COMMAND_LEAVE);
        } else if (next == 'c') {
            note(&events, EVENT_COMMAND + CONSOLE_COMMAND_CLEAR);
        } else if (next == 'p') {
            note(&events, EVENT_COMMAND + CONSOLE_COMMAND_PAUSE);
        } else if (next == 'h') {
            note(&events, EVENT_COMMAND + CONSOLE_COMMAND_HELP);
        } else if (next == 'a' || next == 0x01) {
            note(&events, 0x01);
        } else if (next >= 0) {
            note(&events, 0x01);
            note(&events, next);
        }
        i++;
    }
    return events;
}

/* One read's worth of keys through the filter, as a caller does it. */
static void feed(struct console_filter *filter, struct events *events, const uint8_t *keys, size_t count)
{
    while (count > 0) {
        uint8_t output[EVENT_MAX];
        size_t output_count, taken;
        enum console_command command;

        memset(output, 0xee, sizeof output);
        taken = console_filter(filter, keys, count, output, &output_count, &command);
        cr_assert_leq(output_count, taken + 1);
        cr_assert_eq(output[output_count], 0xee);
        cr_assert(taken == count || command != CONSOLE_COMMAND_NONE);
        cr_assert_leq(taken, count);
        for (size_t i = 0; i < output_count; i++) {
            note(events, output[i]);
        }
        if (command != CONSOLE_COMMAND_NONE) {
            note(events, EVENT_COMMAND + (int)command);
        }
        keys += taken;
        count -= taken;
    }
}

/* Bit i of split: a read ends after key i. */
static void check_split(const uint8_t *keys, size_t count, uint32_t split)
{
    const struct events expected = expected_events(keys, count);
    struct console_filter filter = {0};
    struct events events = {0};
    size_t start = 0;

    for (size_t i = 0; i < count; i++) {
        if ((split >> i & 1) != 0 || i + 1 == count) {
            feed(&filter, &events, keys + start, i + 1 - start);
            start = i + 1;
        }
    }
    cr_assert_eq(events.count, expected.count);
    cr_assert_arr_eq(events.at, expected.at, expected.count * sizeof expected.at[0]);
}

Test(console, filter_agrees_with_the_rules_for_all_short_inputs_and_splits)
{
    static const uint8_t alphabet[] = {0x01, 'a', 'x', 'c', 'p', 'h', 0x00};
    enum { LENGTH_MAX = 6, LETTERS = sizeof alphabet };
    uint32_t input_count = 1;

    for (size_t length = 0; length <= LENGTH_MAX; length++) {
        for (uint32_t input = 0; input < input_count; input++) {
            uint8_t keys[LENGTH_MAX];
            uint32_t rest = input;

            for (size_t i = 0; i < length; i++) {
                keys[i] = alphabet[rest % LETTERS];
                rest /= LETTERS;
            }
            for (uint32_t split = 0; split < 1u << (length > 0 ? length - 1 : 0); split++) {
                check_split(keys, length, split);
            }
        }
        input_count *= LETTERS;
    }
}

Test(console, filter_passes_every_byte_and_every_pair_that_it_does_not_own)
{
    for (uint32_t byte = 0; byte <= 0xff; byte++) {
        const uint8_t keys[] = {(uint8_t)byte, CONSOLE_ESCAPE, (uint8_t)byte, (uint8_t)byte, 'z'};

        check_split(keys, sizeof keys, 0);
        check_split(keys, sizeof keys, 0x1f);
    }
}

Test(console, filter_of_nothing_gives_nothing)
{
    struct console_filter filter = {.escaped = true};
    uint8_t output[1] = {0};
    size_t output_count = 9;
    enum console_command command = CONSOLE_COMMAND_HELP;

    cr_assert_eq(console_filter(&filter, output, 0, output, &output_count, &command), 0);
    cr_assert_eq(output_count, 0);
    cr_assert_eq(command, CONSOLE_COMMAND_NONE);
    cr_assert(filter.escaped);
}

/* --- The terminal --------------------------------------------------------------------------------------------- */

static int master, slave;
static struct termios before;

static void open_pty(void)
{
    cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
    cr_assert_eq(tcgetattr(slave, &before), 0);
}

static void close_pty(void)
{
    close(master);
    close(slave);
}

static bool as_before(void)
{
    struct termios now;

    memset(&now, 0, sizeof now);
    cr_assert_eq(tcgetattr(slave, &now), 0);
    return now.c_iflag == before.c_iflag && now.c_oflag == before.c_oflag && now.c_cflag == before.c_cflag &&
           now.c_lflag == before.c_lflag && memcmp(now.c_cc, before.c_cc, sizeof now.c_cc) == 0;
}

TestSuite(console_terminal, .init = open_pty, .fini = close_pty);

Test(console_terminal, raw_passes_every_key_at_once_and_restore_undoes_it)
{
    static const uint8_t keys[] = {0x03, 0x1a, 0x1c, '\r', 0x11, 0x13, 0x16, 0x04, 0x7f, 0xff};
    struct console console;
    struct termios now;
    uint8_t got[2 * sizeof keys];

    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
    cr_assert_eq(tcgetattr(slave, &now), 0);
    cr_assert_eq(now.c_oflag, before.c_oflag, "output is treated as before");
    cr_assert_eq(now.c_lflag & (tcflag_t)(ECHO | ICANON | ISIG), 0);
    for (size_t i = 0; i < sizeof keys; i++) {
        cr_assert_eq(write(master, &keys[i], 1), 1);
        cr_assert_eq(read(slave, got, sizeof got), 1);
        cr_assert_eq(got[0], keys[i]);
    }
    console_restore();
    cr_assert(as_before());
}

/* cfmakeraw(3), with everything set that it clears, and the other way round; but what goes out is treated as before. */
Test(console_terminal, raw_is_what_the_c_library_calls_raw)
{
    struct console console;
    struct termios wanted, now;

    before.c_iflag |= IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON;
    before.c_lflag |= ECHO | ECHONL | ICANON | ISIG | IEXTEN;
    before.c_cc[VMIN] = 0;
    before.c_cc[VTIME] = 5;
    cr_assert_eq(tcsetattr(slave, TCSANOW, &before), 0);
    cr_assert_eq(tcgetattr(slave, &before), 0);
    wanted = before;
    cfmakeraw(&wanted);
    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
    cr_assert_eq(tcgetattr(slave, &now), 0);
    cr_expect_eq(now.c_iflag, wanted.c_iflag);
    cr_expect_eq(now.c_lflag, wanted.c_lflag);
    cr_expect_eq(now.c_cflag, wanted.c_cflag);
    cr_expect_eq(now.c_cc[VMIN], 1);
    cr_expect_eq(now.c_cc[VTIME], 0);
    cr_expect_eq(now.c_oflag, before.c_oflag);
    console_restore();
    cr_expect(as_before());
}

/* A child's end, a window's size, a stop: nothing of that is an end, and what they do stays as it is. */
Test(console_terminal, signals_that_do_not_end_are_not_caught)
{
    static const int numbers[] = {SIGCHLD, SIGURG, SIGWINCH, SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU};
    struct console console;
    struct sigaction now;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        signal(numbers[i], SIG_DFL);
    }
    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cr_assert_eq(sigaction(numbers[i], NULL, &now), 0);
        cr_expect_eq(now.sa_handler, SIG_DFL, "signal %d", numbers[i]);
    }
    console_restore();
}

Test(console_terminal, restore_happens_once)
{
    struct console console;
    struct termios other;

    console_restore();
    cr_assert(as_before());
    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
    cr_assert_not(as_before());
    console_restore();
    cr_assert(as_before());
    other = before;
    other.c_lflag ^= ECHO;
    cr_assert_eq(tcsetattr(slave, TCSANOW, &other), 0);
    console_restore();
    cr_assert_not(as_before(), "what others set afterwards stays");
    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK, "and it can be had again");
    console_restore();
}

Test(console_terminal, one_terminal_at_a_time)
{
    struct console first, second;
    struct loam_diag diag = {0};

    cr_assert_eq(console_raw(&first, slave, NULL), LOAM_OK);
    cr_assert_eq(console_raw(&second, slave, &diag), LOAM_ERROR_BUSY);
    cr_assert_eq(diag.error, LOAM_ERROR_BUSY);
    console_restore();
    cr_assert(as_before());
}

Test(console_terminal, what_is_no_terminal_is_left_alone)
{
    struct console console;
    struct loam_diag diag = {0};
    int pipes[2];

    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(console_raw(&console, pipes[0], &diag), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(diag.error, LOAM_ERROR_NOT_FOUND);
    cr_assert_neq(strlen(diag.text), 0);
    cr_assert_eq(console_raw(&console, -1, NULL), LOAM_ERROR_NOT_FOUND);
    console_restore();
    close(pipes[0]);
    close(pipes[1]);
}

Test(console_terminal, restore_leaves_errno)
{
    struct console console;

    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
    close(master);
    close(slave);
    errno = ERANGE;
    console_restore();
    cr_assert_eq(errno, ERANGE);
    open_pty();
}

static void restore(int number)
{
    (void)number;
    console_restore();
}

Test(console_terminal, restores_from_a_signal_handler)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct console console;

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cr_assert_neq(signal(numbers[i], restore), SIG_ERR);
        cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
        cr_assert_not(as_before());
        cr_assert_eq(raise(numbers[i]), 0);
        cr_assert(as_before(), "signal %d", numbers[i]);
    }
}

/* Runs after console_restore and before a leak checker, which has no business in a forked child. */
static void end_now(void)
{
    _exit(0);
}

Test(console_terminal, restores_at_exit)
{
    int ready[2], go[2], status;
    char byte = 0;
    pid_t child;

    cr_assert_eq(pipe(ready), 0);
    cr_assert_eq(pipe(go), 0);
    child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        static struct console console;

        if (atexit(end_now) != 0 || console_raw(&console, slave, NULL) != LOAM_OK || write(ready[1], &byte, 1) != 1 ||
            read(go[0], &byte, 1) != 1) {
            _exit(99);
        }
        exit(0);
    }
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    cr_assert_not(as_before(), "raw while the child lives");
    cr_assert_eq(write(go[1], &byte, 1), 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
    cr_assert(as_before());
    close(ready[0]);
    close(ready[1]);
    close(go[0]);
    close(go[1]);
}

/* In a process group of its own, in the background of the session that owns the terminal. */
static int run_in_background(void)
{
    static struct console console;
    int status;
    pid_t child = fork();

    if (child == 0) {
        setpgid(0, 0);
        if (console_raw(&console, slave, NULL) != LOAM_OK) {
            _exit(1);
        }
        console_restore();
        _exit(0);
    }
    setpgid(child, child);
    if (waitpid(child, &status, WUNTRACED) != child) {
        return 2;
    }
    if (WIFSTOPPED(status)) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        return 3;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 4;
}

Test(console_terminal, the_background_does_not_stop_it)
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        _exit(setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) != 0 ? 5 : run_in_background());
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "exit %d; 3: stopped by SIGTTOU", WEXITSTATUS(status));
}

/* --- Ways to end ---------------------------------------------------------------------------------------------- */

static void fault(void)
{
    volatile int *forbidden = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *forbidden = 0;
}

/* In a child: raw, then its end. Returns the wait status. */
static int end_raw_child(int number, void (*handler)(int), void (*end)(void))
{
    const struct rlimit no_core = {0, 0};
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        static struct console console;

        setrlimit(RLIMIT_CORE, &no_core);
        for (int other = 1; other < NSIG; other++) {
            signal(other, SIG_DFL);
        }
        if (number > 0) {
            signal(number, handler);
        }
        if (console_raw(&console, slave, NULL) != LOAM_OK || as_before()) {
            _exit(99);
        }
        if (end != NULL) {
            end();
        } else {
            kill(getpid(), number);
        }
        _exit(as_before() ? 98 : 0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return status;
}

/* Signals whose default ends a process: signal(7). */
static const int endings[] = {SIGHUP,  SIGINT,    SIGQUIT, SIGILL,  SIGTRAP, SIGABRT,  SIGBUS,  SIGFPE,
                              SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM, SIGTERM,  SIGXCPU, SIGXFSZ,
                              SIGPROF, SIGVTALRM, SIGIO,   SIGPWR,  SIGSYS,  SIGSTKFLT};

Test(console_terminal, whatever_signal_ends_the_process_restores_first)
{
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        int status = end_raw_child(endings[i], SIG_DFL, NULL);

        cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == endings[i], "signal %d: status 0x%x", endings[i],
                  (unsigned)status);
        cr_expect(as_before(), "left raw by signal %d", endings[i]);
        cr_assert_eq(tcsetattr(slave, TCSANOW, &before), 0);
    }
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++) {
        int status = end_raw_child(number, SIG_DFL, NULL);

        cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == number, "signal %d: status 0x%x", number,
                  (unsigned)status);
        cr_expect(as_before(), "left raw by signal %d", number);
        cr_assert_eq(tcsetattr(slave, TCSANOW, &before), 0);
    }
}

Test(console_terminal, a_fault_or_an_abort_of_our_own_restores_first)
{
    int status = end_raw_child(0, NULL, fault);

    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "status 0x%x", (unsigned)status);
    cr_expect(as_before());
    status = end_raw_child(0, NULL, abort);
    cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status 0x%x", (unsigned)status);
    cr_expect(as_before());
}

/* It goes on, with the terminal raw. */
Test(console_terminal, an_ignored_signal_stays_ignored)
{
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        int status = end_raw_child(endings[i], SIG_IGN, NULL);

        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "signal %d: status 0x%x", endings[i],
                  (unsigned)status);
        cr_assert_eq(tcsetattr(slave, TCSANOW, &before), 0);
    }
}

static void stay(int number)
{
    (void)number;
}

Test(console_terminal, a_signal_that_somebody_handles_stays_his)
{
    int status = end_raw_child(SIGUSR1, stay, NULL);

    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
}

/* --- Jobs ----------------------------------------------------------------------------------------------------- */

/* A shell takes the terminal back when its job is stopped: what it has set is not undone. */
Test(console_terminal, what_others_have_set_meanwhile_stays)
{
    struct console console;
    struct termios shell, now;

    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
    shell = before;
    shell.c_lflag &= ~(tcflag_t)ECHO;
    cr_assert_eq(tcsetattr(slave, TCSANOW, &shell), 0);
    console_restore();
    cr_assert_eq(tcgetattr(slave, &now), 0);
    cr_expect_eq(now.c_lflag, shell.c_lflag);
    cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK, "and it can be taken again");
    console_restore();
    cr_assert_eq(tcgetattr(slave, &now), 0);
    cr_expect_eq(now.c_lflag, shell.c_lflag, "to be given back as it was then");
}

/* One bit is enough to see that others were here. */
Test(console_terminal, the_least_change_of_others_stays)
{
    struct console console;
    struct termios other, now;

    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(console_raw(&console, slave, NULL), LOAM_OK);
        cr_assert_eq(tcgetattr(slave, &other), 0);
        other.c_iflag |= i == 0 ? ICRNL : 0;
        other.c_lflag |= i == 1 ? ECHO : 0;
        cr_assert_eq(tcsetattr(slave, TCSANOW, &other), 0);
        console_restore();
        cr_assert_eq(tcgetattr(slave, &now), 0);
        cr_expect_eq(now.c_iflag, other.c_iflag);
        cr_expect_eq(now.c_lflag, other.c_lflag);
        cr_assert_eq(tcsetattr(slave, TCSANOW, &before), 0);
    }
}

static int see_both_sides(void)
{
    int status;
    pid_t child;

    if (!console_is_foreground(slave)) {
        return 1;
    }
    child = fork();
    if (child == 0) {
        setpgid(0, 0);
        _exit(console_is_foreground(slave) ? 2 : 0);
    }
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

Test(console_terminal, foreground_and_background)
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        _exit(setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) != 0 ? 4 : see_both_sides());
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
    cr_expect(console_is_foreground(slave),
              "a terminal that does not control this process is not shared with its jobs");
}
