// SPDX-License-Identifier: Apache-2.0
#include "vmm/leave.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BYTES     ((size_t)128 << 20) /* in 4 KiB pages: 10 ms of processor time to take back */
#define TRY_COUNT 9

static void *run_for_ever(void *memory)
{
    for (;;) {
        ((volatile char *)memory)[0]++;
    }
    return NULL;
}

/* A process with memory, a second thread and the write end of a pipe, that leaves with status 7. */
static pid_t start_leaver(int write_end, bool is_limited)
{
    const struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
    pid_t child = fork();

    if (child == 0) {
        char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pthread_t thread;

        if (memory == MAP_FAILED || madvise(memory, BYTES, MADV_NOHUGEPAGE) != 0 ||
            memset(memory, 1, BYTES) != memory || pthread_create(&thread, NULL, run_for_ever, memory) != 0 ||
            write(write_end, "x", 1) != 1) {
            _exit(1);
        }
        if (is_limited && (setresuid(61986, 61986, 61986) != 0 || setrlimit(RLIMIT_NPROC, &limit) != 0)) {
            _exit(1);
        }
        leave(7);
    }
    return child;
}

static int64_t now_microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What became of a process that left. */
struct end {
    int left;                   /* processes that it left behind */
    int64_t left_microseconds;  /* of processor time that these took */
    int64_t later_microseconds; /* from the end of its output to the end of the last of these */
};

static struct end see_leaver(bool is_limited)
{
    struct end end = {0};
    struct rusage usage;
    int64_t heard;
    int pipes[2], status = -1;
    char byte;
    pid_t child;

    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    cr_assert_eq(pipe(pipes), 0);
    child = start_leaver(pipes[1], is_limited);
    cr_assert_gt(child, 0);
    close(pipes[1]);
    cr_expect_eq(read(pipes[0], &byte, 1), 1);
    cr_expect_eq(read(pipes[0], &byte, 1), 0);
    heard = now_microseconds();
    close(pipes[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", status);
    while (wait4(-1, &status, 0, &usage) > 0) {
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
        end.left_microseconds += usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec +
                                 usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
        end.left++;
    }
    end.later_microseconds = now_microseconds() - heard;
    return end;
}

/* It is the one that is left behind that takes the memory back. */
Test(leave, what_is_left_behind_takes_the_memory_back)
{
    struct end end = see_leaver(false);

    cr_expect_eq(end.left, 1, "%d processes are left behind", end.left);
    cr_expect_gt(end.left_microseconds, 3000, "it took %" PRId64 " us", end.left_microseconds);
}

/*
 * Taking the memory back is 10 ms of work, and comes before the descriptors of whoever does it are closed: who reads the
 * output hears of its end that much earlier, unless this process was kept from reading. So most of some tries decide.
 */
Test(leave, the_end_of_the_output_is_heard_at_once)
{
    int early = 0;

    for (int i = 0; i < TRY_COUNT; i++) {
        early += see_leaver(false).later_microseconds > 4000;
    }
    cr_expect_gt(early, TRY_COUNT / 2, "what is left behind keeps the output open: %d of %d", early, TRY_COUNT);
}

/* No process more can be had: it ends all the same, and nobody has its memory then. */
Test(leave, without_room_for_a_process)
{
    if (geteuid() != 0) {
        cr_skip("needs root to become a user who may have no process more");
    }
    cr_expect_eq(see_leaver(true).left, 0);
}
