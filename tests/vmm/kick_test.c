// SPDX-License-Identifier: Apache-2.0
#include "vmm/kick.h"

#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* --- Threads as the test wants them ----------------------------------------------------------------------------- */

static int refusal; /* what pthread_create answers; 0: it goes on */
static unsigned joins;

int __real_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
int __real_pthread_join(pthread_t joined, void **answer);
int __wrap_pthread_join(pthread_t joined, void **answer);

int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self)
{
    return refusal != 0 ? refusal : __real_pthread_create(made, attributes, work, self);
}

int __wrap_pthread_join(pthread_t joined, void **answer)
{
    joins++;
    return __real_pthread_join(joined, answer);
}

/* --- What they do ----------------------------------------------------------------------------------------------- */

static struct kick_thread thread;
static atomic_bool may_leave;
static atomic_int answer;
static int fds[2];

static void set_up(void)
{
    cr_assert_eq(pipe(fds), 0);
    atomic_store(&may_leave, false);
    atomic_store(&answer, 0);
}

TestSuite(kick, .init = set_up, .timeout = 60);

static void start(void (*work)(void *self))
{
    struct loam_diag diag = {0};

    cr_assert_eq(kick_start(&thread, work, fds, "the reader", &diag), LOAM_OK, "%s", diag.text);
}

static void read_once(void *self)
{
    char byte;
    ssize_t got = read(((int *)self)[0], &byte, 1);

    atomic_store(&answer, got < 0 ? errno : (int)got);
}

Test(kick, ends_a_call_that_waits)
{
    start(read_once);
    cr_expect(kick_end(&thread));
    cr_expect_eq(atomic_load(&answer), EINTR);
    cr_expect_eq(joins, 1);
}

static void leave_when_told(void *self)
{
    (void)self;
    while (!atomic_load(&may_leave)) {
        sched_yield();
    }
    atomic_store(&answer, 1);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* It is joined as soon as it has left: in less than the time from one kick to the next, the quickest of a hundred. */
Test(kick, waits_no_longer_than_it_takes)
{
    double shortest = 1;

    atomic_store(&may_leave, true);
    for (int i = 0; i < 100; i++) {
        double before;

        start(leave_when_told);
        before = seconds();
        cr_expect(kick_end(&thread));
        shortest = seconds() - before < shortest ? seconds() - before : shortest;
    }
    cr_expect_lt(shortest, 0.0002, "%g s", shortest);
}

Test(kick, starts_anew_what_has_ended)
{
    start(read_once);
    cr_expect(kick_end(&thread));
    start(read_once);
    cr_expect(kick_end(&thread));
    cr_expect_eq(atomic_load(&answer), EINTR);
}

Test(kick, joins_a_thread_that_leaves_by_itself)
{
    start(read_once);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    kick_join(&thread);
    cr_expect_eq(atomic_load(&answer), 1);
    cr_expect(atomic_load(&thread.left));
    cr_expect_eq(joins, 1);
}

static void look_at_mask(void *self)
{
    const int open_signals[] = {KICK_SIGNAL, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t mask;
    int wrong = 0;

    (void)self;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    for (int number = 1; number < SIGRTMAX; number++) {
        bool is_open = number == SIGKILL || number == SIGSTOP || number == 32 || number == 33; /* cannot be blocked */

        for (size_t i = 0; i < sizeof open_signals / sizeof open_signals[0]; i++) {
            is_open |= number == open_signals[i];
        }
        if (sigismember(&mask, number) == is_open) {
            wrong = number;
        }
    }
    atomic_store(&answer, wrong);
}

/* What asks the process to end is the main thread's; a fault of the thread's own is its own. */
Test(kick, the_thread_takes_the_kick_and_its_faults_only)
{
    sigset_t before, after;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    start(look_at_mask);
    kick_join(&thread);
    cr_expect_eq(atomic_load(&answer), 0, "signal %d", atomic_load(&answer));
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    for (int number = 1; number < NSIG; number++) {
        cr_expect_eq(sigismember(&before, number), sigismember(&after, number), "signal %d of the caller's", number);
    }
}

/* As in a call that no signal ends. */
Test(kick, one_that_does_not_leave_is_left_behind)
{
    pthread_attr_t attributes;
    double before = seconds();
    int is_detached;

    start(leave_when_told);
    cr_expect_not(kick_end(&thread));
    cr_expect_geq(seconds() - before, 1, "it had %g s to leave", seconds() - before);
    cr_expect_not(atomic_load(&thread.left));
    cr_assert_eq(pthread_getattr_np(thread.thread, &attributes), 0);
    cr_assert_eq(pthread_attr_getdetachstate(&attributes, &is_detached), 0);
    pthread_attr_destroy(&attributes);
    cr_expect_eq(is_detached, PTHREAD_CREATE_DETACHED);
    atomic_store(&may_leave, true);
    while (!atomic_load(&thread.left)) {
        sched_yield();
    }
}

static size_t default_stack_bytes(void)
{
    pthread_attr_t attributes;
    size_t bytes;

    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, &bytes);
    pthread_attr_destroy(&attributes);
    return bytes;
}

static size_t mapped_pages(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");

    cr_assert_eq(fscanf(statm, "%lu", &pages), 1);
    fclose(statm);
    return pages;
}

/* There is room for its stack, and none is left behind where it was tried. */
Test(kick, without_a_process_to_be_had)
{
    struct loam_diag diag = {0};
    size_t before;

    refusal = EAGAIN;
    for (int i = 0; i < 2; i++) {
        before = mapped_pages();
        errno = 0;
        cr_expect_eq(kick_start(&thread, read_once, fds, "the reader", &diag), LOAM_ERROR_SYSTEM);
    }
    cr_expect_lt(mapped_pages() - before, default_stack_bytes() / (size_t)getpagesize());
    cr_expect_not_null(strstr(diag.text, "none can be started: raise the limit on processes"), "%s", diag.text);
    cr_expect_not_null(strstr(diag.text, strerror(EAGAIN)), "%s", diag.text);
}

/* A stack can be written: it counts as data. A limit of 0 is none to the kernel, for valgrind's sake. */
Test(kick, without_room_for_a_stack_s_data)
{
    struct rlimit before;
    struct loam_diag diag = {0};

    SKIP_WHERE_A_SANITIZER_MAPS();
    refusal = EAGAIN;
    cr_assert_eq(getrlimit(RLIMIT_DATA, &before), 0);
    cr_assert_eq(setrlimit(RLIMIT_DATA, &(struct rlimit){4096, before.rlim_max}), 0);
    cr_expect_eq(kick_start(&thread, read_once, fds, "the reader", &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_DATA, &before), 0);
    cr_expect_not_null(strstr(diag.text, "no room for its stack"), "%s", diag.text);
}

Test(kick, without_room_for_a_stack)
{
    const struct rlimit none = {0, RLIM_INFINITY};
    struct loam_diag diag = {0};
    char room[64];
    sigset_t mask;

    SKIP_WHERE_A_SANITIZER_MAPS();
    cr_assert_eq(setrlimit(RLIMIT_AS, &none), 0); /* no room for a stack */
    cr_expect_eq(kick_start(&thread, read_once, fds, "the reader", &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "the reader: a thread is wanted"), "%s", diag.text);
    snprintf(room, sizeof room, "no room for its stack of %zu KiB", default_stack_bytes() / 1024);
    cr_expect_not_null(strstr(diag.text, room), "%s, not: %s", room, diag.text);
    cr_expect_not_null(strstr(diag.text, strerror(EAGAIN)), "%s", diag.text);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    cr_expect_eq(sigismember(&mask, SIGTERM), 0);
}
