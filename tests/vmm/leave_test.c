// SPDX-License-Identifier: Apache-2.0
#include "vmm/leave.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES ((size_t)64 << 20)

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
        char *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        pthread_t thread;

        if (memory == MAP_FAILED || pthread_create(&thread, NULL, run_for_ever, memory) != 0 ||
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

static void check_leaver(bool is_limited, int expected_left)
{
    int pipes[2], status = -1, left = 0;
    char byte;
    pid_t child;

    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    cr_assert_eq(pipe(pipes), 0);
    child = start_leaver(pipes[1], is_limited);
    cr_assert_gt(child, 0);
    close(pipes[1]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 7, "status %#x", status);
    cr_expect_eq(read(pipes[0], &byte, 1), 1);
    cr_expect_eq(read(pipes[0], &byte, 1), 0, "the end of its output is heard with its own end");
    close(pipes[0]);
    while (wait(&status) > 0) {
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", status);
        left++;
    }
    cr_expect_eq(left, expected_left, "%d processes had the memory after it", left);
}

Test(leave, the_process_ends_and_one_that_has_its_memory_ends_after_it)
{
    check_leaver(false, 1);
}

/* No process more can be had: it ends all the same, and nobody has its memory then. */
Test(leave, without_room_for_a_process)
{
    if (geteuid() != 0) {
        cr_skip("needs root to become a user who may have no process more");
    }
    check_leaver(true, 0);
}
