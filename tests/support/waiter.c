// SPDX-License-Identifier: Apache-2.0
#include "tests/support/waiter.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *run(void *argument)
{
    struct waiter *waiter = argument;

    atomic_store(&waiter->thread_id, (int)gettid());
    waiter->call(waiter->self);
    atomic_store(&waiter->is_done, true);
    return NULL;
}

/* proc(5), /proc/PID/syscall: "running", or the number of the system call that the thread is blocked in. */
static bool is_in(int thread_id, long call)
{
    char name[64], text[32] = "";
    FILE *file;

    snprintf(name, sizeof name, "/proc/self/task/%d/syscall", thread_id);
    file = fopen(name, "r");
    if (file == NULL) {
        return false;
    }
    if (fgets(text, sizeof text, file) == NULL) {
        text[0] = '\0';
    }
    fclose(file);
    return text[0] >= '0' && text[0] <= '9' && strtol(text, NULL, 10) == call;
}

void waiter_start(struct waiter *waiter, void (*call)(void *self), void *self)
{
    waiter->call = call;
    waiter->self = self;
    atomic_init(&waiter->thread_id, 0);
    atomic_init(&waiter->is_done, false);
    if (pthread_create(&waiter->thread, NULL, run, waiter) != 0) {
        perror("waiter: pthread_create");
        abort();
    }
    while (atomic_load(&waiter->thread_id) == 0) {
        sched_yield();
    }
}

static bool comes_to(const struct waiter *waiter, long call)
{
    while (!atomic_load(&waiter->is_done)) {
        if (is_in(atomic_load(&waiter->thread_id), call)) {
            return true;
        }
        sched_yield();
    }
    return false;
}

bool waiter_sleeps(const struct waiter *waiter)
{
    return comes_to(waiter, SYS_futex);
}

bool waiter_polls(const struct waiter *waiter)
{
    return comes_to(waiter, SYS_poll);
}

void waiter_join(struct waiter *waiter)
{
    pthread_join(waiter->thread, NULL);
}
