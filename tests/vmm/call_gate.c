// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/call_gate.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_uint counts[CALL_COUNT], vain_polls;
static atomic_int closed = -1; /* the call whose next caller waits; then GATE_TAKEN */
static atomic_int closed_fd;   /* -1: any */
static atomic_bool is_held, is_open, has_signal;
static atomic_int failure; /* errno of the call that is held up; 0: it goes on */

enum { GATE_TAKEN = -2 };

void call_gate_reset(void)
{
    for (int i = 0; i < CALL_COUNT; i++) {
        atomic_store(&counts[i], 0);
    }
    atomic_store(&vain_polls, 0);
    atomic_store(&closed, -1);
    atomic_store(&is_held, false);
    atomic_store(&is_open, false);
    atomic_store(&has_signal, false);
    atomic_store(&failure, 0);
}

unsigned call_gate_count(enum call call)
{
    return atomic_load(&counts[call]);
}

unsigned call_gate_vain_polls(void)
{
    return atomic_load(&vain_polls);
}

void call_gate_await(enum call call)
{
    while (call_gate_count(call) == 0) {
        sched_yield();
    }
}

void call_gate_await_held(void)
{
    while (!atomic_load(&is_held)) {
        sched_yield();
    }
}

void call_gate_close(enum call call, int fd)
{
    atomic_store(&closed_fd, fd);
    atomic_store(&closed, (int)call);
}

void call_gate_open(void)
{
    atomic_store(&is_open, true);
}

void call_gate_fail(int error)
{
    atomic_store(&failure, error);
}

void call_gate_await_signal(void)
{
    while (!atomic_load(&has_signal)) {
        sched_yield();
    }
}

/* A handler that has run shows as EINTR. */
static void wait_at_door(void)
{
    while (!atomic_load(&is_open)) {
        struct timespec moment = {.tv_nsec = 1000000};

        if (syscall(SYS_ppoll, NULL, 0, &moment, NULL, 0) < 0 && errno == EINTR) {
            atomic_store(&has_signal, true);
        }
    }
}

/* false: the call fails, with errno. */
static bool pass(enum call call, int fd)
{
    int expected = (int)call, only = atomic_load(&closed_fd);

    atomic_fetch_add(&counts[call], 1);
    if ((only < 0 || only == fd) && atomic_compare_exchange_strong(&closed, &expected, GATE_TAKEN)) {
        atomic_store(&is_held, true);
        wait_at_door();
        errno = atomic_load(&failure);
        return errno == 0;
    }
    return true;
}

ssize_t __wrap_read(int fd, void *bytes, size_t count);
ssize_t __wrap_write(int fd, const void *bytes, size_t count);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap___poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t bytes);

ssize_t __wrap_read(int fd, void *bytes, size_t count)
{
    return pass(CALL_READ, fd) ? syscall(SYS_read, fd, bytes, count) : -1;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t count)
{
    return pass(CALL_WRITE, fd) ? syscall(SYS_write, fd, bytes, count) : -1;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    int ready = pass(CALL_POLL, -1) ? (int)syscall(SYS_poll, fds, count, timeout) : -1;

    atomic_fetch_add(&vain_polls, ready == 0);
    return ready;
}

/* What an optimised build may make of it, to check that fds has room for count. */
int __wrap___poll_chk(struct pollfd *fds, nfds_t count, int timeout, size_t bytes)
{
    if (bytes / sizeof *fds < count) {
        abort();
    }
    return __wrap_poll(fds, count, timeout);
}
