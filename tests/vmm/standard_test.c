// SPDX-License-Identifier: Apache-2.0
/* Each case is a process of its own, since it takes over the standard descriptors and ends. */
#include "vmm/standard.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOST  21 /* the status for lost output */
#define OTHER 22 /* a status of the process's own */
#define WRONG 99 /* what the process sees is not as it should be */

/* ThreadSanitizer asks for its options by this name: without them a process that was forked could start no thread. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

/* --- The system as the test wants it ---------------------------------------------------------------------------- */

static unsigned opens;
static bool has_no_dev_null;
static int threads_left = 2; /* until pthread_create refuses */

/* Where is_played is true, outlets are never drained, and what waits in them grows less by one byte at each look. */
static bool is_played;
static size_t played_waiting = 1000000;
static bool gives_up; /* then what waits stays */

static struct {
    int stop_fd;
    int64_t patience;
} drains[32];
static unsigned drain_count;

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
bool __real_outlet_drain(struct outlet *outlet, int stop_fd, int64_t patience_milliseconds);
bool __wrap_outlet_drain(struct outlet *outlet, int stop_fd, int64_t patience_milliseconds);
size_t __real_outlet_waiting(struct outlet *outlet);
size_t __wrap_outlet_waiting(struct outlet *outlet);

int __wrap_open(const char *path, int flags, ...)
{
    opens++;
    if (has_no_dev_null && strcmp(path, "/dev/null") == 0) {
        errno = ENOENT;
        return -1;
    }
    return __real_open(path, flags, 0);
}

int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self)
{
    return threads_left-- > 0 ? __real_pthread_create(made, attributes, work, self) : EAGAIN;
}

bool __wrap_outlet_drain(struct outlet *outlet, int stop_fd, int64_t patience_milliseconds)
{
    drains[drain_count].stop_fd = stop_fd;
    drains[drain_count].patience = patience_milliseconds;
    drain_count++;
    return is_played ? false : __real_outlet_drain(outlet, stop_fd, patience_milliseconds);
}

size_t __wrap_outlet_waiting(struct outlet *outlet)
{
    if (!is_played) {
        return __real_outlet_waiting(outlet);
    }
    return gives_up ? played_waiting : played_waiting--;
}

/* --- A process -------------------------------------------------------------------------------------------------- */

static char out[1 << 20], err[4096]; /* what came out of descriptors 1 and 2 where they are pipes */

static void read_all(int fd, char *text, size_t bytes)
{
    size_t have = 0;
    ssize_t got;

    while (have < bytes - 1 && (got = read(fd, text + have, bytes - 1 - have)) > 0) {
        have += (size_t)got;
    }
    text[have] = '\0';
    close(fd);
}

/* The exit status of a process that acts with these descriptors as its 1 and 2; 128 and more: a signal. */
static int status_of(void (*act)(void), int one, int two)
{
    int status;
    pid_t child = fork();

    cr_assert_geq(child, 0);
    if (child == 0) {
        dup2(one, STDOUT_FILENO);
        dup2(two, STDERR_FILENO);
        alarm(60);
        act();
        _exit(WRONG);
    }
    close(one);
    close(two);
    cr_assert_eq(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int full(void)
{
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    return fd;
}

static int nowhere(void)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

    cr_assert_geq(fd, 0);
    return fd;
}

/* A pipe that is full: nobody reads it. */
static int unread(void)
{
    static const char bytes[4096];
    int ends[2];

    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], bytes, sizeof bytes) > 0) {
    }
    cr_assert_eq(fcntl(ends[1], F_SETFL, 0), 0);
    return ends[1];
}

/* It acts with pipes, which are read to their ends. A small output: it waits for no reader. */
static int status_with_pipes(void (*act)(void))
{
    int one[2], two[2], status;

    cr_assert_eq(pipe2(one, O_CLOEXEC) | pipe2(two, O_CLOEXEC), 0);
    status = status_of(act, one[1], two[1]);
    read_all(one[0], out, sizeof out);
    read_all(two[0], err, sizeof err);
    return status;
}

/* Only descriptor 2 is a pipe. */
static int status_with_stdout(void (*act)(void), int one)
{
    int two[2], status;

    cr_assert_eq(pipe2(two, O_CLOEXEC), 0);
    status = status_of(act, one, two[1]);
    read_all(two[0], err, sizeof err);
    return status;
}

static void set_up(void)
{
    struct loam_diag diag = {0};

    standard_open(LOST);
    if (standard_start(&diag) != LOAM_OK) {
        _exit(WRONG);
    }
}

TestSuite(standard, .timeout = 120);

/* --- Descriptors ------------------------------------------------------------------------------------------------ */

static bool is_dev_null(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISCHR(status.st_mode) && status.st_rdev == makedev(1, 3);
}

static void open_with_none(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        close(fd);
    }
    standard_open(LOST);
    _exit(is_dev_null(0) && is_dev_null(1) && is_dev_null(2) && opens == 3 ? 0 : WRONG);
}

Test(standard, what_is_closed_is_opened_on_dev_null)
{
    cr_expect_eq(status_with_pipes(open_with_none), 0);
}

static void open_without_dev_null(void)
{
    struct stat status;

    has_no_dev_null = true;
    close(STDIN_FILENO);
    standard_open(LOST);
    _exit(fstat(STDIN_FILENO, &status) == 0 && S_ISDIR(status.st_mode) ? 0 : WRONG);
}

Test(standard, without_dev_null_a_folder_takes_its_place)
{
    cr_expect_eq(status_with_pipes(open_without_dev_null), 0);
}

static void open_with_all(void)
{
    standard_open(LOST);
    _exit(opens == 0 && standard_out() != standard_err() ? 0 : WRONG);
}

Test(standard, what_is_open_stays_and_two_files_are_two)
{
    cr_expect_eq(status_with_pipes(open_with_all), 0);
}

static void leave_no_descriptor(rlim_t count)
{
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){count, 1024});
    standard_open(LOST);
}

static void leave_none(void)
{
    leave_no_descriptor(3);
}

static void leave_one(void)
{
    int lowest = dup(STDIN_FILENO);

    close(lowest);
    leave_no_descriptor((rlim_t)lowest + 1);
}

Test(standard, without_descriptors_to_be_had_the_process_ends)
{
    cr_expect_eq(status_with_pipes(leave_none), LOST);
    cr_expect_not_null(strstr(err, "loam: standard output: eventfd"), "%s", err);
    cr_expect_eq(status_with_pipes(leave_one), LOST);
    cr_expect_not_null(strstr(err, "loam: standard error: eventfd"), "%s", err);
}

/* --- Printing --------------------------------------------------------------------------------------------------- */

static void print_to_both(void)
{
    standard_open(LOST);
    printf("to the one\n");
    fprintf(stderr, "to the other\033\n");
    exit(OTHER);
}

Test(standard, streams_go_to_their_descriptors_and_control_bytes_are_shown)
{
    cr_expect_eq(status_with_pipes(print_to_both), OTHER);
    cr_expect_str_eq(out, "to the one\n");
    cr_expect_eq(strncmp(err, "to the other", 12), 0, "%s", err);
    cr_expect_null(strchr(err, '\033'));
}

static void print_in_turns(void)
{
    set_up();
    if (standard_out() != standard_err()) {
        _exit(WRONG);
    }
    for (int i = 0; i < 3; i++) {
        printf("o%d", i);
        fprintf(stderr, "e%d", i);
    }
    _exit(standard_finish(-1, -1) && drain_count == 1 ? OTHER : WRONG);
}

Test(standard, what_goes_to_one_pipe_stays_in_order)
{
    int ends[2];

    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    cr_expect_eq(status_of(print_in_turns, ends[1], fcntl(ends[1], F_DUPFD_CLOEXEC, 3)), OTHER);
    read_all(ends[0], out, sizeof out);
    cr_expect_str_eq(out, "o0e0o1e1o2e2");
}

static void refuse_thread(int left)
{
    struct loam_diag diag = {0};

    standard_open(LOST);
    threads_left = left;
    _exit(standard_start(&diag) == LOAM_ERROR_SYSTEM ? left : WRONG);
}

static void refuse_both(void)
{
    refuse_thread(0);
}

static void refuse_second(void)
{
    refuse_thread(1);
}

Test(standard, without_a_thread_for_each_it_does_not_start)
{
    cr_expect_eq(status_with_pipes(refuse_both), 0);
    cr_expect_eq(status_with_pipes(refuse_second), 1);
}

/* --- The end ---------------------------------------------------------------------------------------------------- */

static void finish_well(void)
{
    set_up();
    printf("out");
    fprintf(stderr, "err");
    exit(standard_finish(-1, -1) ? OTHER : WRONG);
}

Test(standard, what_is_printed_is_there_in_the_end)
{
    cr_expect_eq(status_with_pipes(finish_well), OTHER);
    cr_expect_str_eq(out, "out");
    cr_expect_str_eq(err, "err");
}

static void print_and_exit(void)
{
    standard_open(LOST);
    printf("x");
    exit(0);
}

static void complain_and_exit(void)
{
    standard_open(LOST);
    fprintf(stderr, "x");
    exit(0);
}

#define FULL_OUTPUT "loam: standard output: 1 bytes could not be written: No space left on device\n"

Test(standard, lost_output_is_told_and_no_success)
{
    cr_expect_eq(status_with_stdout(print_and_exit, full()), LOST);
    cr_expect_not_null(strstr(err, FULL_OUTPUT), "%s", err);
    cr_expect_not_null(strstr(err, "what comes from here on is lost"), "told at once: %s", err);
    cr_expect_eq(status_of(complain_and_exit, nowhere(), full()), LOST);
}

Test(standard, output_lost_on_one_file_for_both_is_no_success)
{
    int one = full();

    cr_expect_eq(status_of(print_and_exit, one, fcntl(one, F_DUPFD_CLOEXEC, 3)), LOST);
}

/* 1: standard_finish says that something is lost; exit(3) does not say it again. */
static void print_finish_and_exit(void)
{
    set_up();
    printf("x");
    exit(standard_finish(-1, -1) ? 0 : 1);
}

static void complain_finish_and_exit(void)
{
    set_up();
    fprintf(stderr, "x");
    exit(standard_finish(-1, -1) ? 0 : 1);
}

Test(standard, what_is_lost_after_the_start_is_told_at_the_finish)
{
    char *first;

    cr_expect_eq(status_with_stdout(print_finish_and_exit, full()), 1);
    first = strstr(err, FULL_OUTPUT);
    cr_assert_not_null(first, "%s", err);
    cr_expect_str_eq(first, FULL_OUTPUT, "and once");
    cr_expect_eq(status_of(complain_finish_and_exit, nowhere(), full()), 1);
}

static void print_unread(void)
{
    set_up();
    printf("x");
    exit(standard_finish(-1, 0) ? 0 : 1);
}

static void complain_unread(void)
{
    set_up();
    fprintf(stderr, "x");
    exit(standard_finish(-1, 0) ? 0 : 1);
}

Test(standard, who_does_not_read_does_not_hold_it_up)
{
    cr_expect_eq(status_with_stdout(print_unread, unread()), 1);
    cr_expect_str_eq(err, "loam: standard output: 1 bytes could not be written: nobody reads it\n");
    cr_expect_eq(status_of(complain_unread, nowhere(), unread()), 1);
}

/* The first wait of each outlet is the caller's, and the others are of 250 ms and end by nothing else. */
static bool is_patience_of(unsigned rounds)
{
    bool is_right = drain_count == 2 * rounds;

    for (unsigned i = 0; i < drain_count; i++) {
        bool is_first = i % rounds == 0;

        is_right = is_right && drains[i].stop_fd == (is_first ? STDIN_FILENO : -1) &&
                   drains[i].patience == (is_first ? 7 : 250);
    }
    return is_right;
}

static void finish_while_read(void)
{
    set_up();
    is_played = true;
    (void)standard_finish(STDIN_FILENO, 7);
    _exit(is_patience_of(9) ? OTHER : WRONG);
}

static void finish_while_not_read(void)
{
    set_up();
    is_played = gives_up = true;
    (void)standard_finish(STDIN_FILENO, 7);
    _exit(is_patience_of(2) ? OTHER : WRONG);
}

Test(standard, a_reader_that_goes_on_has_two_seconds_more)
{
    cr_expect_eq(status_with_pipes(finish_while_read), OTHER);
}

Test(standard, a_reader_that_does_not_go_on_has_one_more_wait)
{
    cr_expect_eq(status_with_pipes(finish_while_not_read), OTHER);
}
