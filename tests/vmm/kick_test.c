// SPDX-License-Identifier: Apache-2.0
#include "vmm/kick.h"

#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

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
}

Test(kick, joins_a_thread_that_leaves_by_itself)
{
    start(read_once);
    cr_assert_eq(write(fds[1], "x", 1), 1);
    kick_join(&thread);
    cr_expect_eq(atomic_load(&answer), 1);
    cr_expect(atomic_load(&thread.left));
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

static void leave_when_told(void *self)
{
    (void)self;
    while (!atomic_load(&may_leave)) {
        sched_yield();
    }
    atomic_store(&answer, 1);
}

/* As in a call that no signal ends. */
Test(kick, one_that_does_not_leave_is_left_behind)
{
    pthread_attr_t attributes;
    int is_detached;

    start(leave_when_told);
    cr_expect_not(kick_end(&thread));
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

Test(kick, without_a_thread_to_be_had)
{
    const struct rlimit none = {0, RLIM_INFINITY};
    struct loam_diag diag = {0};
    sigset_t mask;

    SKIP_WHERE_A_SANITIZER_MAPS();
    cr_assert_eq(setrlimit(RLIMIT_AS, &none), 0); /* no room for a stack */
    cr_expect_eq(kick_start(&thread, read_once, fds, "the reader", &diag), LOAM_ERROR_SYSTEM);
    cr_expect_not_null(strstr(diag.text, "the reader: a thread is wanted"), "%s", diag.text);
    cr_expect_not_null(strstr(diag.text, strerror(EAGAIN)), "%s", diag.text);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    cr_expect_eq(sigismember(&mask, SIGTERM), 0);
}
