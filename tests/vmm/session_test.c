// SPDX-License-Identifier: Apache-2.0
/* A session beside a machine that is none: an end that the test calls, and a serial line of which it says what it takes. */
#include "vmm/session.h"

#include "tests/vmm/call_gate.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

/* --- The machine ------------------------------------------------------------------------------------------------ */

struct machine {
    int stop_fd;
    pthread_mutex_t lock;
    size_t room; /* bytes that its line takes yet */
    uint8_t taken[1 << 16];
    size_t taken_count;
    bool is_stopped;
    uint32_t looks, looks_wanted; /* it ends by the last of those */
};

static struct machine machine;

int machine_stop_fd(const struct machine *self)
{
    return self->stop_fd;
}

void machine_stop(struct machine *self)
{
    self->is_stopped = true;
}

void machine_look(struct machine *self)
{
    self->looks++;
    if (self->looks == self->looks_wanted) {
        (void)eventfd_write(self->stop_fd, 1);
    }
}

size_t machine_serial_input(struct machine *self, const uint8_t *bytes, size_t count)
{
    pthread_mutex_lock(&self->lock);
    count = count < self->room ? count : self->room;
    memcpy(self->taken + self->taken_count, bytes, count);
    self->taken_count += count;
    self->room -= count;
    pthread_mutex_unlock(&self->lock);
    return count;
}

static size_t taken(void)
{
    size_t count;

    pthread_mutex_lock(&machine.lock);
    count = machine.taken_count;
    pthread_mutex_unlock(&machine.lock);
    return count;
}

static void make_room(size_t bytes)
{
    pthread_mutex_lock(&machine.lock);
    machine.room = bytes;
    pthread_mutex_unlock(&machine.lock);
}

/* --- A session that runs ---------------------------------------------------------------------------------------- */

static struct session session;
static struct session_request request;
static enum session_end end;
static struct loam_diag diag;
static unsigned descriptors_before;
static sigset_t mask_before;

static unsigned count_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void set_up(void)
{
    const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT};

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        signal(numbers[i], SIG_DFL);
    }
    call_gate_reset();
    machine = (struct machine){.stop_fd = eventfd(0, EFD_CLOEXEC), .lock = PTHREAD_MUTEX_INITIALIZER, .room = 1 << 16};
    request = (struct session_request){.input_fd = -1};
    descriptors_before = count_descriptors();
    pthread_sigmask(SIG_SETMASK, NULL, &mask_before);
}

/* Whatever a session did, it gives back its descriptors and the signals. */
static void tear_down(void)
{
    sigset_t mask;

    session_close(&session);
    session_close(&session);
    cr_expect_eq(count_descriptors(), descriptors_before);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int number = 1; number < NSIG; number++) {
        cr_expect_eq(sigismember(&mask, number), sigismember(&mask_before, number), "signal %d", number);
    }
    close(machine.stop_fd);
}

TestSuite(session, .init = set_up, .fini = tear_down, .timeout = 60);

static void open_session(void)
{
    cr_assert_eq(session_open(&session, &diag), LOAM_OK, "%s", diag.text);
}

static void watch(enum session_end expected)
{
    cr_assert_eq(session_watch(&session, &machine, &request, &end, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(end, expected, "%d wanted, %d found", (int)expected, (int)end);
    cr_expect(machine.is_stopped);
}

static void end_machine(void)
{
    cr_assert_eq(eventfd_write(machine.stop_fd, 1), 0);
}

/* --- Ends ------------------------------------------------------------------------------------------------------- */

Test(session, ends_with_the_machine)
{
    open_session();
    end_machine();
    watch(SESSION_MACHINE);
    cr_expect_eq(session_left_milliseconds(&session), -1);
}

Test(session, ends_in_time)
{
    open_session();
    request.timeout_milliseconds = 20;
    watch(SESSION_TIMEOUT);
    cr_expect_eq(session_left_milliseconds(&session), 0);
}

/* Again and again, without any event: a guest may come to rest at any time. */
Test(session, ends_when_a_look_ends_the_machine)
{
    open_session();
    machine.looks_wanted = 3;
    watch(SESSION_MACHINE);
    cr_expect_eq(machine.looks, 3);
}

Test(session, the_machine_s_end_comes_before_all_others)
{
    open_session();
    end_machine();
    raise(SIGTERM);
    request.timeout_milliseconds = 1;
    watch(SESSION_MACHINE);
}

Test(session, ends_by_each_of_its_signals)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        open_session();
        cr_expect_not(session_signalled(&session));
        raise(numbers[i]);
        watch(SESSION_SIGNAL);
        cr_expect_eq(session.signal_number, numbers[i]);
        session_close(&session);
    }
}

/* A signal that comes before there is a machine is not lost, and whoever works meanwhile can ask. */
Test(session, a_signal_is_told_before_there_is_a_machine)
{
    struct pollfd readable;

    open_session();
    readable = (struct pollfd){.fd = session_fd(&session), .events = POLLIN};
    cr_expect_eq(poll(&readable, 1, 0), 0);
    raise(SIGTERM);
    cr_expect_eq(poll(&readable, 1, 0), 1);
    cr_expect(session_signalled(&session));
    cr_expect(session_signalled(&session), "and stays told");
    cr_expect_eq(session.signal_number, SIGTERM);
    raise(SIGINT);
    watch(SESSION_SIGNAL);
    cr_expect_eq(session.signal_number, SIGTERM, "the first one counts");
}

/* nohup, a script's background job: the signals come, and nothing happens. */
Test(session, what_the_starter_ignores_stays_ignored)
{
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    open_session();
    raise(SIGHUP);
    raise(SIGINT);
    cr_expect_not(session_signalled(&session));
    raise(SIGTERM);
    watch(SESSION_SIGNAL);
    cr_expect_eq(session.signal_number, SIGTERM);
}

/* Nothing is changed where nothing can be opened. */
Test(session, without_a_descriptor_to_be_had_it_is_not_opened)
{
    sigset_t mask;

    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 1024}), 0);
    cr_expect_eq(session_open(&session, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024}), 0);
    cr_expect_not_null(strstr(diag.text, "signalfd"), "%s", diag.text);
    cr_expect_eq(session_fd(&session), -1);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    cr_expect_eq(sigismember(&mask, SIGTERM), 0);
}

/* One descriptor is left, for the input, and none for its job signals: the machine is stopped all the same. */
Test(session, without_a_descriptor_for_its_input_it_stops_the_machine)
{
    open_session();
    request.input_fd = STDIN_FILENO;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 1024}), 0);
    cr_expect_eq(session_watch(&session, &machine, &request, &end, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024}), 0);
    cr_expect(machine.is_stopped);
}

/* Its signals are its own, and a program that it starts has none of its descriptors. */
Test(session, its_descriptor_is_closed_on_exec)
{
    open_session();
    cr_expect_eq(fcntl(session_fd(&session), F_GETFD), FD_CLOEXEC);
    cr_expect(fcntl(session_fd(&session), F_GETFL) & O_NONBLOCK);
}

static void *fail_first_poll(void *error)
{
    call_gate_await_held();
    call_gate_fail(*(int *)error);
    call_gate_open();
    return NULL;
}

/* What session_watch answers when its first poll(2) fails so. */
static enum loam_error watch_with_poll_failing(int error)
{
    enum loam_error answer;
    pthread_t thread;

    call_gate_close(CALL_POLL, -1);
    cr_assert_eq(pthread_create(&thread, NULL, fail_first_poll, &error), 0);
    answer = session_watch(&session, &machine, &request, &end, &diag);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect(machine.is_stopped);
    return answer;
}

Test(session, a_poll_that_fails_is_an_error)
{
    open_session();
    cr_expect_eq(watch_with_poll_failing(ENOMEM), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "poll"), "%s", diag.text);
}

Test(session, an_interrupted_poll_is_none)
{
    open_session();
    end_machine();
    cr_expect_eq(watch_with_poll_failing(EINTR), LOAM_OK, "%s", diag.text);
    cr_expect_eq(end, SESSION_MACHINE);
}

/* Its number may be another's by then. */
Test(session, closed_again_it_leaves_descriptors_alone)
{
    int fd;

    open_session();
    fd = session_fd(&session);
    session_close(&session);
    cr_assert_eq(fcntl(machine.stop_fd, F_DUPFD, fd), fd);
    session_close(&session);
    cr_expect_neq(fcntl(fd, F_GETFD), -1);
    close(fd);
}

/* What came too late to end anything must not end the process now. */
Test(session, a_signal_that_comes_too_late_is_dropped)
{
    open_session();
    end_machine();
    watch(SESSION_MACHINE);
    raise(SIGTERM);
    raise(SIGINT);
}

/* --- Input ------------------------------------------------------------------------------------------------------ */

static int input_writer;

static void open_input_pipe(void)
{
    int fds[2];

    cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
    request.input_fd = fds[0];
    input_writer = fds[1];
    descriptors_before += 2;
}

static void close_input_pipe(void)
{
    close(request.input_fd);
    close(input_writer);
    descriptors_before -= 2;
}

static void *end_when_taken(void *count)
{
    while (taken() < *(size_t *)count) {
        sched_yield();
    }
    end_machine();
    return NULL;
}

/* Watch until the machine has taken count bytes. */
static void watch_until_taken(size_t count)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, end_when_taken, &count), 0);
    watch(SESSION_MACHINE);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(session, input_goes_to_the_machine_and_control_a_is_nothing_in_a_pipe)
{
    open_input_pipe();
    open_session();
    cr_assert_eq(write(input_writer, "ab\001xcd", 6), 6);
    watch_until_taken(6);
    cr_expect_arr_eq(machine.taken, "ab\001xcd", 6);
    close_input_pipe();
}

static void *give_room(void *nothing)
{
    (void)nothing;
    for (size_t want = 7; want <= 700; want += 7) {
        make_room(7);
        while (taken() < want) {
            sched_yield();
        }
    }
    end_machine();
    return NULL;
}

Test(session, input_waits_for_room_and_none_is_lost)
{
    uint8_t sent[700];
    pthread_t thread;

    for (size_t i = 0; i < sizeof sent; i++) {
        sent[i] = (uint8_t)(i * 3);
    }
    open_input_pipe();
    open_session();
    make_room(0);
    cr_assert_eq(write(input_writer, sent, sizeof sent), (ssize_t)sizeof sent);
    cr_assert_eq(pthread_create(&thread, NULL, give_room, NULL), 0);
    watch(SESSION_MACHINE);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_arr_eq(machine.taken, sent, sizeof sent);
    close_input_pipe();
}

Test(session, the_end_of_input_is_not_the_end)
{
    open_input_pipe();
    open_session();
    cr_assert_eq(write(input_writer, "last", 4), 4);
    close(input_writer);
    watch_until_taken(4);
    input_writer = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close_input_pipe();
}

static void *steal(void *nothing)
{
    char stolen;

    call_gate_await_held();
    cr_assert_eq(syscall(SYS_read, request.input_fd, &stolen, 1), 1);
    call_gate_open();
    return nothing;
}

/* Others read the same pipe: what poll saw is gone when it is read. Time and signals end the session all the same. */
Test(session, input_that_others_take_does_not_hold_it)
{
    pthread_t thief;

    open_input_pipe();
    open_session();
    cr_assert_eq(write(input_writer, "x", 1), 1);
    call_gate_close(CALL_READ, request.input_fd);
    cr_assert_eq(pthread_create(&thief, NULL, steal, NULL), 0);
    request.timeout_milliseconds = 200;
    watch(SESSION_TIMEOUT);
    cr_assert_eq(pthread_join(thief, NULL), 0);
    cr_expect_eq(machine.taken_count, 0);
    close_input_pipe();
}

/* --- A terminal ------------------------------------------------------------------------------------------------- */

static int master, slave;
static struct outlet console;

static void open_terminal(void)
{
    cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
    cr_assert_eq(outlet_open(&console, slave, "console", NULL), LOAM_OK);
    request.input_fd = slave;
    request.console = &console;
    descriptors_before += 3;
}

static bool is_raw(void)
{
    struct termios now;

    cr_assert_eq(tcgetattr(slave, &now), 0);
    return (now.c_lflag & ICANON) == 0;
}

static void close_terminal(void)
{
    cr_expect_not(is_raw(), "the terminal is as before");
    outlet_close(&console);
    close(master);
    close(slave);
    descriptors_before -= 3;
}

static void type(const char *keys)
{
    cr_assert_eq(write(master, keys, strlen(keys)), (ssize_t)strlen(keys));
}

static void *type_when_raw(void *keys)
{
    while (!is_raw()) {
        sched_yield();
    }
    type(keys);
    return NULL;
}

/* keys are typed once the terminal is raw. */
static void watch_while_typing(char *keys, enum session_end expected)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, type_when_raw, keys), 0);
    watch(expected);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* Keys for the guest before a command and after it, all in one read. */
static void *type_commands(void *nothing)
{
    type_when_raw("ab\001hcdef\001hg");
    return nothing;
}

/* All in one read: what stands between the commands reaches the guest once, and in order. */
Test(session, keys_between_commands_reach_the_guest_once)
{
    pthread_t thread;

    open_terminal();
    open_session();
    cr_assert_eq(pthread_create(&thread, NULL, type_commands, NULL), 0);
    watch_until_taken(7);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(machine.taken_count, 7);
    cr_expect_arr_eq(machine.taken, "abcdefg", 7);
    close_terminal();
}

Test(session, keys_around_a_command_reach_the_guest)
{
    open_terminal();
    open_session();
    watch_while_typing("ab\001hcd\001x", SESSION_LEFT);
    cr_expect_leq(machine.taken_count, 4);
    cr_expect_arr_eq(machine.taken, "abcd", machine.taken_count);
    close_terminal();
}

Test(session, control_a_x_leaves)
{
    open_terminal();
    open_session();
    watch_while_typing("ab\001a\001x", SESSION_LEFT);
    close_terminal();
}

Test(session, control_a_x_leaves_though_nothing_is_read)
{
    static char keys[3000];

    open_terminal();
    open_session();
    make_room(0);
    memset(keys, 'k', sizeof keys - 3);
    strcpy(keys + sizeof keys - 3, "\001x");
    watch_while_typing(keys, SESSION_LEFT);
    close_terminal();
}

static void await_on_terminal(const char *text)
{
    char shown[8192] = "";

    for (size_t have = 0; strstr(shown, text) == NULL;) {
        ssize_t got = read(master, shown + have, sizeof shown - 1 - have);

        cr_assert_gt(got, 0);
        have += (size_t)got;
    }
}

static void *see_help_and_leave(void *nothing)
{
    type_when_raw("kkk\001h");
    await_on_terminal("Ctrl-a x");
    type("\001x");
    return nothing;
}

Test(session, control_a_h_helps_though_nothing_is_read)
{
    pthread_t thread;

    open_terminal();
    open_session();
    make_room(0);
    cr_assert_eq(pthread_create(&thread, NULL, see_help_and_leave, NULL), 0);
    watch(SESSION_LEFT);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    close_terminal();
}

static void *clear_and_make_room(void *nothing)
{
    type_when_raw("kkk\001cdef\001h");
    await_on_terminal("Ctrl-a x");
    make_room(16);
    return nothing;
}

Test(session, control_a_c_drops_the_keys_that_wait_and_no_others)
{
    pthread_t thread;

    open_terminal();
    open_session();
    make_room(0);
    cr_assert_eq(pthread_create(&thread, NULL, clear_and_make_room, NULL), 0);
    watch_until_taken(3);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(machine.taken_count, 3);
    cr_expect_arr_eq(machine.taken, "def", 3);
    close_terminal();
}

static void *hear_bell_and_leave(void *nothing)
{
    static char keys[2000];

    memset(keys, 'k', sizeof keys - 1);
    type_when_raw(keys);
    await_on_terminal("\a");
    type("\001x");
    return nothing;
}

Test(session, keys_without_room_ring_the_bell)
{
    pthread_t thread;

    open_terminal();
    open_session();
    make_room(0);
    cr_assert_eq(pthread_create(&thread, NULL, hear_bell_and_leave, NULL), 0);
    watch(SESSION_LEFT);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    close_terminal();
}
