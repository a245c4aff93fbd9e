// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/aside.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MILLISECONDS 60000

static void square(uint32_t index, void *slot, const void *context)
{
    *(uint32_t *)slot = index * index + *(const uint32_t *)context;
}

static void expect_childless(void)
{
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1);
    cr_expect_eq(errno, ECHILD, "a process is left");
}

Test(aside, each_has_a_slot_of_its_own)
{
    const uint32_t seven = 7;
    struct aside aside;

    cr_assert_eq(aside_run(&aside, ASIDE_MAX, sizeof(uint32_t), square, &seven, PATIENCE_MILLISECONDS, NULL), LOAM_OK);
    for (uint32_t i = 0; i < ASIDE_MAX; i++) {
        cr_expect_eq(aside.tasks[i].end, ASIDE_DONE);
        cr_expect_eq(*(const uint32_t *)aside.tasks[i].slot, i * i + 7);
    }
    aside_release(&aside);
    expect_childless();
}

static void hang(void)
{
    for (;;) {
        pause();
    }
}

/* The odd ones never come back. */
static void hang_or_not(uint32_t index, void *slot, const void *context)
{
    (void)context;
    *(pid_t *)slot = getpid();
    if (index % 2 == 1) {
        hang();
    }
}

Test(aside, who_hangs_holds_up_nobody)
{
    struct aside aside;

    cr_assert_eq(aside_run(&aside, 6, sizeof(pid_t), hang_or_not, NULL, 4000, NULL), LOAM_OK);
    for (uint32_t i = 0; i < 6; i++) {
        cr_expect_eq(aside.tasks[i].end, i % 2 == 1 ? ASIDE_LATE : ASIDE_DONE, "%u", i);
        cr_expect(i % 2 == 1 || aside.tasks[i].milliseconds < 4000, "%u", i);
    }
    aside_release(&aside);
    expect_childless();
}

static void die(uint32_t index, void *slot, const void *context)
{
    (void)slot;
    (void)context;
    if (index == 0) {
        raise(SIGKILL);
    }
}

Test(aside, who_dies_is_told_from_who_is_late)
{
    struct aside aside;

    cr_assert_eq(aside_run(&aside, 2, 1, die, NULL, ASIDE_FOREVER, NULL), LOAM_OK);
    cr_expect_eq(aside.tasks[0].end, ASIDE_DIED);
    cr_expect_eq(aside.tasks[0].signal, SIGKILL);
    cr_expect_eq(aside.tasks[1].end, ASIDE_DONE);
    aside_release(&aside);
}

/* What it starts, such as ssh, is killed with it: the pipe's last writer is gone then. */
static void leave_a_child(uint32_t index, void *slot, const void *context)
{
    (void)slot;
    (void)context;
    if (fork() == 0 || index == 0) {
        hang();
    }
}

Test(aside, what_it_starts_ends_with_it)
{
    struct pollfd last = {.events = POLLIN};
    struct aside aside;
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(aside_run(&aside, 2, 1, leave_a_child, NULL, 1000, NULL), LOAM_OK);
    aside_release(&aside);
    close(ends[1]);
    last.fd = ends[0];
    cr_expect_eq(poll(&last, 1, PATIENCE_MILLISECONDS), 1);
    cr_expect_eq(last.revents & POLLHUP, POLLHUP);
    expect_childless();
}

static void look_around(uint32_t index, void *slot, const void *context)
{
    bool *found = slot;

    (void)index;
    (void)context;
    found[0] = getsid(0) == getpid();
    found[1] = open("/dev/tty", O_RDWR) < 0;
    found[2] = getenv("SSH_ASKPASS") == NULL;
    found[3] = !isatty(0) && !isatty(1) && !isatty(2);
}

Test(aside, nobody_can_be_asked_for_a_password)
{
    struct aside aside;
    const bool *found;

    setenv("SSH_ASKPASS", "/bin/true", 1);
    cr_assert_eq(aside_run(&aside, 1, 4, look_around, NULL, PATIENCE_MILLISECONDS, NULL), LOAM_OK);
    found = aside.tasks[0].slot;
    for (unsigned i = 0; i < 4; i++) {
        cr_expect(found[i], "%u", i);
    }
    aside_release(&aside);
}

static void announce(uint32_t index, void *slot, const void *context)
{
    (void)index;
    (void)slot;
    if (write(*(const int *)context, "x", 1) == 1) {
        hang();
    }
}

/* The caller is killed: so are those who work for it. */
Test(aside, it_dies_with_the_caller)
{
    struct pollfd last = {.events = POLLIN};
    int ends[2];
    pid_t caller;
    char byte;

    cr_assert_eq(pipe(ends), 0);
    caller = fork();
    if (caller == 0) {
        struct aside aside;

        _exit(aside_run(&aside, 3, 1, announce, &ends[1], ASIDE_FOREVER, NULL) == LOAM_OK);
    }
    close(ends[1]);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(read(ends[0], &byte, 1), 1);
    }
    kill(caller, SIGKILL);
    waitpid(caller, NULL, 0);
    last.fd = ends[0];
    cr_expect_eq(poll(&last, 1, PATIENCE_MILLISECONDS), 1);
    cr_expect_eq(last.revents & POLLHUP, POLLHUP);
}

Test(aside, bad_counts_are_refused)
{
    struct loam_diag diag = {0};
    struct aside aside;

    cr_expect_eq(aside_run(&aside, 0, 1, die, NULL, 1, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(aside_run(&aside, ASIDE_MAX + 1, 1, die, NULL, 1, &diag), LOAM_ERROR_INVALID);
    aside_release(&aside);
}
