// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/aside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- The process that works ------------------------------------------------------------------------------------- */

static void leave_terminal(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    setsid();
    for (int fd = 0; fd <= 2 && null >= 0; fd++) {
        dup2(null, fd);
    }
    setenv("SSH_ASKPASS_REQUIRE", "never", 1);
    unsetenv("SSH_ASKPASS");
}

/* Die with the caller; it may have died before that was said. */
static void bind_to(pid_t caller)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != caller) {
        _exit(1);
    }
}

static enum loam_error start(struct aside *aside, uint32_t index, aside_work work, const void *context,
                             struct loam_diag *diag)
{
    struct aside_task *task = &aside->tasks[index];
    pid_t caller = getpid();

    task->slot = (char *)aside->slots + index * aside->slot_bytes;
    task->end_fd = -1;
    task->pid = fork();
    if (task->pid == 0) {
        bind_to(caller);
        leave_terminal();
        work(index, task->slot, context);
        _exit(0);
    }
    if (task->pid < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "a process to ask a host: fork");
    }
    task->end_fd = (int)syscall(SYS_pidfd_open, task->pid, 0);
    return task->end_fd >= 0 ? LOAM_OK : loam_fail(diag, LOAM_ERROR_SYSTEM, "a process to ask a host: pidfd_open");
}

/* --- The one that waits ----------------------------------------------------------------------------------------- */

/* It has ended, or is killed now; and so is what it started and left behind. */
static void finish(struct aside_task *task, enum aside_end end, int64_t since)
{
    int status = 0;

    if (task->pid <= 0) {
        return;
    }
    kill(-task->pid, SIGKILL);
    kill(task->pid, SIGKILL);
    while (waitpid(task->pid, &status, 0) < 0 && errno == EINTR) {
    }
    task->milliseconds = now_milliseconds() - since;
    task->end = end;
    if (end == ASIDE_DONE && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        task->end = ASIDE_DIED;
        task->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    }
    if (task->end_fd >= 0) {
        close(task->end_fd);
    }
    task->end_fd = -1;
    task->pid = 0;
}

/* Wait for one end or more. false: time is up. */
static bool await_some(struct aside *aside, int64_t since, int64_t patience_milliseconds)
{
    struct pollfd ends[ASIDE_MAX];
    int64_t left = -1;

    for (uint32_t i = 0; i < aside->count; i++) {
        ends[i] = (struct pollfd){.fd = aside->tasks[i].end_fd, .events = POLLIN};
    }
    if (patience_milliseconds != ASIDE_FOREVER) {
        left = since + patience_milliseconds - now_milliseconds();
        left = left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : left;
    }
    if (poll(ends, aside->count, (int)left) == 0) {
        return false;
    }
    for (uint32_t i = 0; i < aside->count; i++) {
        if (ends[i].fd >= 0 && ends[i].revents != 0) {
            finish(&aside->tasks[i], ASIDE_DONE, since);
        }
    }
    return true;
}

static bool is_waiting(const struct aside *aside)
{
    for (uint32_t i = 0; i < aside->count; i++) {
        if (aside->tasks[i].pid > 0) {
            return true;
        }
    }
    return false;
}

static void finish_all(struct aside *aside, int64_t since)
{
    for (uint32_t i = 0; i < aside->count; i++) {
        finish(&aside->tasks[i], ASIDE_LATE, since);
    }
}

enum loam_error aside_run(struct aside *aside, uint32_t count, size_t slot_bytes, aside_work work, const void *context,
                          int64_t patience_milliseconds, struct loam_diag *diag)
{
    int64_t since = now_milliseconds();
    enum loam_error error = LOAM_OK;

    *aside = (struct aside){.count = count, .slot_bytes = (slot_bytes + 63) & ~(size_t)63};
    if (count == 0 || count > ASIDE_MAX) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "%u pieces of work: 1 to %u", count, ASIDE_MAX);
    }
    aside->slots = mmap(NULL, count * aside->slot_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (aside->slots == MAP_FAILED) {
        *aside = (struct aside){0};
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "memory for what %u hosts say", count);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < count; i++) {
        error = start(aside, i, work, context, diag);
    }
    while (error == LOAM_OK && is_waiting(aside) && await_some(aside, since, patience_milliseconds)) {
    }
    finish_all(aside, since);
    if (error != LOAM_OK) {
        aside_release(aside);
    }
    return error;
}

void aside_release(struct aside *aside)
{
    if (aside->slots != NULL) {
        munmap(aside->slots, aside->count * aside->slot_bytes);
    }
    *aside = (struct aside){0};
}
