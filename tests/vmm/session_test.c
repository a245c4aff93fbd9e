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
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* ThreadSanitizer asks for its options by this name: without them a process that was forked could start no thread. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

/* --- The machine ------------------------------------------------------------------------------------------------ */

struct machine {
    int stop_fd;
    pthread_mutex_t lock;
    size_t room; /* bytes that its line takes yet */
    uint8_t taken[1 << 16];
    size_t taken_count;
    bool is_stopped;
    uint32_t looks, looks_wanted; /* it ends by the last of those */
    int look_milliseconds;        /* from one look to the next */
    int look_fd;                  /* takes a byte at each look; -1: none */
    bool may_be_stopped;          /* at the last look, SIGTSTP was left to the system */
    atomic_bool is_paused;
    uint32_t pauses, resumes;
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

int machine_look(struct machine *self)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    self->may_be_stopped = sigismember(&mask, SIGTSTP) == 0;
    (void)!write(self->look_fd, "l", 1);
    self->looks++;
    if (self->looks == self->looks_wanted) {
        (void)eventfd_write(self->stop_fd, 1);
    }
    return self->look_milliseconds;
}

void machine_pause(struct machine *self)
{
    atomic_store(&self->is_paused, true);
    self->pauses++;
}

void machine_resume(struct machine *self)
{
    atomic_store(&self->is_paused, false);
    self->resumes++;
}

bool machine_is_pausing(const struct machine *self)
{
    return atomic_load(&self->is_paused);
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
    machine = (struct machine){.stop_fd = eventfd(0, EFD_CLOEXEC),
                               .lock = PTHREAD_MUTEX_INITIALIZER,
                               .room = 1 << 16,
                               .look_milliseconds = 250,
                               .look_fd = -1};
    session = (struct session){.signal_fd = -1};
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

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
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

Test(session, ended_before_its_time_it_says_how_much_is_left)
{
    int64_t before = now_milliseconds(), left, after;

    open_session();
    request.timeout_milliseconds = 100000;
    end_machine();
    watch(SESSION_MACHINE);
    left = session_left_milliseconds(&session);
    after = now_milliseconds();
    cr_expect_leq(left, 100000);
    cr_expect_geq(left, 100000 - (after - before));
    cr_expect_geq(session.deadline, before + 100000);
    cr_expect_leq(session.deadline, after + 100000);
}

/* Again and again, without any event: a guest may come to rest at any time. As soon as the machine wants it. */
Test(session, ends_when_a_look_ends_the_machine)
{
    open_session();
    machine.looks_wanted = 300;
    machine.look_milliseconds = 1;
    request.timeout_milliseconds = 100000; /* more than this test has */
    watch(SESSION_MACHINE);
    cr_expect_eq(machine.looks, 300);
    cr_expect(machine.may_be_stopped, "a session without a terminal leaves SIGTSTP to the system");
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

static void *fail_held_call(void *error)
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
    cr_assert_eq(pthread_create(&thread, NULL, fail_held_call, &error), 0);
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

/* It is not asked again, and nothing is looked at more often for it. */
Test(session, after_the_end_of_input_it_rests_from_look_to_look)
{
    open_input_pipe();
    open_session();
    close(input_writer);
    machine.looks_wanted = 2;
    watch(SESSION_MACHINE);
    cr_expect_lt(call_gate_count(CALL_POLL), 20, "%u polls for two looks", call_gate_count(CALL_POLL));
    input_writer = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close_input_pipe();
}

/* Though a byte that waits for room is offered more often. */
Test(session, looks_are_apart_though_input_waits)
{
    int64_t before = now_milliseconds();

    open_input_pipe();
    open_session();
    make_room(0);
    cr_assert_eq(write(input_writer, "k", 1), 1);
    machine.looks_wanted = 3;
    watch(SESSION_MACHINE);
    cr_expect_geq(now_milliseconds() - before, 510);
    close_input_pipe();
}

static void *give_room_late(void *nothing)
{
    while (call_gate_count(CALL_POLL) < 20) {
        sched_yield();
    }
    make_room(1 << 16);
    return nothing;
}

/* It is read no faster than the guest takes it. */
Test(session, more_input_than_it_holds_waits_in_the_pipe)
{
    static uint8_t sent[8 * INTAKE_BYTES];
    pthread_t thread;

    for (size_t i = 0; i < sizeof sent; i++) {
        sent[i] = (uint8_t)(i * 7);
    }
    open_input_pipe();
    open_session();
    make_room(0);
    cr_assert_eq(write(input_writer, sent, sizeof sent), (ssize_t)sizeof sent);
    cr_assert_eq(pthread_create(&thread, NULL, give_room_late, NULL), 0);
    watch_until_taken(sizeof sent);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_arr_eq(machine.taken, sent, sizeof sent);
    close_input_pipe();
}

Test(session, descriptor_0_is_an_input_as_any_other)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_assert_eq(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
    descriptors_before = count_descriptors();
    open_session();
    request.input_fd = STDIN_FILENO;
    cr_assert_eq(write(ends[1], "zero", 4), 4);
    watch_until_taken(4);
    cr_expect_arr_eq(machine.taken, "zero", 4);
}

/* As a file's on FUSE may be. */
Test(session, an_interrupted_read_is_not_the_end_of_input)
{
    int error = EINTR, fd = memfd_create("input", MFD_CLOEXEC);
    pthread_t thread;

    cr_assert_eq(pwrite(fd, "abcd", 4, 0), 4);
    descriptors_before++;
    open_session();
    request.input_fd = fd;
    call_gate_close(CALL_READ, fd);
    cr_assert_eq(pthread_create(&thread, NULL, fail_held_call, &error), 0);
    watch_until_taken(4);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_arr_eq(machine.taken, "abcd", 4);
    close(fd);
    descriptors_before--;
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

static void *pause_go_on_and_leave(void *nothing)
{
    type_when_raw("k\001p");
    await_on_terminal("loam: the guest is paused: Ctrl-a p lets it go on");
    cr_expect(machine_is_pausing(&machine));
    type("k\001p");
    await_on_terminal("loam: the guest goes on");
    cr_expect_not(machine_is_pausing(&machine));
    type("\001p\001x");
    return nothing;
}

/* Keys reach the guest's line, for it to read when it goes on. */
Test(session, control_a_p_pauses_and_goes_on)
{
    pthread_t thread;

    open_terminal();
    open_session();
    cr_assert_eq(pthread_create(&thread, NULL, pause_go_on_and_leave, NULL), 0);
    watch(SESSION_LEFT);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(machine.pauses, 2);
    cr_expect_eq(machine.resumes, 1);
    cr_expect_eq(machine.taken_count, 2);
    cr_expect(machine.is_stopped);
    close_terminal();
}

static void *press_pause_and_leave(void *nothing)
{
    type_when_raw("\001p");
    await_on_terminal("loam: the debugger pauses the guest, and lets it go on");
    type("\001x");
    return nothing;
}

Test(session, control_a_p_leaves_pauses_to_a_debugger)
{
    pthread_t thread;

    open_terminal();
    open_session();
    request.is_debugged = true;
    cr_assert_eq(pthread_create(&thread, NULL, press_pause_and_leave, NULL), 0);
    watch(SESSION_LEFT);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(machine.pauses, 0);
    close_terminal();
}

Test(session, its_time_passes_while_the_machine_is_paused)
{
    pthread_t thread;

    open_terminal();
    open_session();
    request.timeout_milliseconds = 1000;
    cr_assert_eq(pthread_create(&thread, NULL, type_when_raw, "\001p"), 0);
    watch(SESSION_TIMEOUT);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(machine.pauses, 1);
    cr_expect_eq(machine.resumes, 0);
    close_terminal();
}

static void *pause_and_end_machine(void *nothing)
{
    type_when_raw("\001p");
    await_on_terminal("loam: the guest is paused");
    end_machine();
    return nothing;
}

Test(session, a_paused_machine_that_ends_ends_the_session)
{
    pthread_t thread;

    open_terminal();
    open_session();
    cr_assert_eq(pthread_create(&thread, NULL, pause_and_end_machine, NULL), 0);
    watch(SESSION_MACHINE);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(machine.pauses, 1);
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

Test(session, keys_are_obeyed_where_nobody_can_be_told)
{
    open_terminal();
    open_session();
    request.console = NULL;
    watch_while_typing("\001h\001x", SESSION_LEFT);
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

static void *hear_bell_and_make_room(void *nothing)
{
    static char keys[2001];

    for (size_t i = 0; i < sizeof keys - 1; i++) {
        keys[i] = (char)('A' + i % 50);
    }
    type_when_raw(keys);
    await_on_terminal("\a");
    make_room(1 << 16);
    return nothing;
}

/* The first of them reach the guest all the same, in order. */
Test(session, keys_that_wait_are_kept_where_others_find_no_room)
{
    size_t held = 2 * INTAKE_BYTES + 1;
    pthread_t thread;

    open_terminal();
    open_session();
    make_room(0);
    cr_assert_eq(pthread_create(&thread, NULL, hear_bell_and_make_room, NULL), 0);
    watch_until_taken(held);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    for (size_t i = 0; i < held; i++) {
        cr_assert_eq(machine.taken[i], 'A' + i % 50, "key %zu", i);
    }
    close_terminal();
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

/* Of the two descriptors that it needs, one is left. */
Test(session, a_terminal_without_a_descriptor_for_its_stops_is_an_error)
{
    int lowest;

    open_terminal();
    open_session();
    lowest = dup(slave);
    close(lowest);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)lowest + 1, 1024}), 0);
    end_machine();
    cr_expect_eq(session_watch(&session, &machine, &request, &end, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &(struct rlimit){1024, 1024}), 0);
    cr_expect_not_null(strstr(diag.text, "signalfd"), "%s", diag.text);
    cr_expect(machine.is_stopped);
    close_terminal();
}

/* --- Jobs ------------------------------------------------------------------------------------------------------- */

static sigset_t mask_of_now(void)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return mask;
}

Test(session, stops_are_its_own_while_it_watches_a_terminal)
{
    sigset_t opened, watched;

    open_terminal();
    open_session();
    opened = mask_of_now();
    machine.looks_wanted = 1;
    watch(SESSION_MACHINE);
    cr_expect_not(machine.may_be_stopped);
    watched = mask_of_now();
    for (int number = 1; number < NSIG; number++) {
        cr_expect_eq(sigismember(&watched, number), sigismember(&opened, number), "signal %d", number);
    }
    close_terminal();
}

static pid_t job;                  /* runs a session on the terminal that controls it */
static void *(*beside)(void *job); /* what one of its threads does; NULL: there is none */

/* 0: the session ended as Ctrl-a x ends it. */
static _Noreturn void run_job(void)
{
    pthread_t thread;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    if (session_open(&session, &diag) != LOAM_OK ||
        (beside != NULL && pthread_create(&thread, NULL, beside, NULL) != 0)) {
        _exit(20);
    }
    _exit(session_watch(&session, &machine, &request, &end, &diag) == LOAM_OK && end == SESSION_LEFT ? 0 : 21);
}

/* As a shell does it: start the job, and then what shell does with it. Returns the shell's exit status, 0 if all is well. */
static int control_job(int (*shell)(void))
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (setsid() < 0 || ioctl(slave, TIOCSCTTY, 0) != 0) {
        return 10;
    }
    job = fork();
    if (job == 0) {
        run_job();
    }
    signal(SIGTTOU, SIG_IGN); /* so that the background may give the terminal away */
    return setpgid(job, job) != 0 ? 11 : shell();
}

static void expect_well_controlled(int (*shell)(void))
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        _exit(control_job(shell));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "step %d of the shell's failed", WEXITSTATUS(status));
}

static void await_raw(bool wanted)
{
    while (is_raw() != wanted) {
        sched_yield();
    }
}

static bool is_stopped_by(int number)
{
    int status;

    return waitpid(job, &status, WUNTRACED) == job && WIFSTOPPED(status) && WSTOPSIG(status) == number;
}

/* The exit status of a job that a person leaves. */
static int leave_job(void)
{
    int status;

    type("\001x");
    return waitpid(job, &status, 0) == job && WIFEXITED(status) ? WEXITSTATUS(status) : 12;
}

static int stop_and_go_on_twice(void)
{
    tcsetpgrp(slave, job);
    for (int i = 0; i < 2; i++) {
        await_raw(true);
        kill(job, SIGTSTP);
        if (!is_stopped_by(SIGTSTP)) {
            return 1;
        }
        if (is_raw()) {
            return 2;
        }
        kill(job, SIGCONT);
    }
    await_raw(true);
    return leave_job();
}

Test(session, stopped_it_gives_the_terminal_back_and_takes_it_when_it_goes_on)
{
    open_terminal();
    expect_well_controlled(stop_and_go_on_twice);
    close_terminal();
}

/* SIGSTOP: it cannot give the terminal back, and the shell sets it as it needs it. */
static int stop_unforeseen(void)
{
    struct termios before;

    tcgetattr(slave, &before);
    tcsetpgrp(slave, job);
    await_raw(true);
    kill(job, SIGSTOP);
    if (!is_stopped_by(SIGSTOP)) {
        return 1;
    }
    tcsetattr(slave, TCSANOW, &before);
    kill(job, SIGCONT);
    await_raw(true);
    return leave_job();
}

Test(session, after_a_stop_that_it_could_not_see_it_takes_the_terminal_anew)
{
    open_terminal();
    expect_well_controlled(stop_unforeseen);
    close_terminal();
}

static int look_pipe[2];

static bool await_look(void)
{
    char look;

    return read(look_pipe[0], &look, 1) == 1;
}

static int start_in_background(void)
{
    if (!await_look() || is_raw()) {
        return 1;
    }
    tcsetpgrp(slave, job);
    await_raw(true);
    tcsetpgrp(slave, getpgrp());
    await_raw(false);
    tcsetpgrp(slave, job);
    await_raw(true);
    return leave_job();
}

Test(session, in_the_background_it_leaves_the_terminal_alone)
{
    open_terminal();
    cr_assert_eq(pipe2(look_pipe, O_CLOEXEC), 0);
    machine.look_fd = look_pipe[1];
    expect_well_controlled(start_in_background);
    close(look_pipe[0]);
    close(look_pipe[1]);
    close_terminal();
}

/* What a read answers that a process in the background begins. */
static void *lose_terminal(void *nothing)
{
    call_gate_await_held();
    tcsetpgrp(slave, getpgid(getppid()));
    call_gate_fail(EIO);
    call_gate_open();
    return nothing;
}

static int take_terminal_before_a_read(void)
{
    tcsetpgrp(slave, job);
    await_raw(true);
    type("k");
    await_raw(false);
    tcsetpgrp(slave, job);
    await_raw(true);
    return leave_job();
}

Test(session, a_terminal_that_is_taken_before_a_read_is_not_the_end_of_input)
{
    open_terminal();
    call_gate_close(CALL_READ, slave);
    beside = lose_terminal;
    expect_well_controlled(take_terminal_before_a_read);
    close_terminal();
}
