// SPDX-License-Identifier: Apache-2.0
#include "tests/support/lock_watch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __real_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end);

/* The C library notes the owner of every kind of mutex. */
static void expect_held(const pthread_mutex_t *mutex, const char *call)
{
    if (mutex->__data.__owner != (int)gettid()) {
        fprintf(stderr, "lock_watch: %s of a mutex that the thread does not hold\n", call);
        abort();
    }
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    expect_held(mutex, "pthread_mutex_unlock");
    return __real_pthread_mutex_unlock(mutex);
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    expect_held(mutex, "pthread_cond_wait");
    return __real_pthread_cond_wait(condition, mutex);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *end)
{
    expect_held(mutex, "pthread_cond_timedwait");
    return __real_pthread_cond_timedwait(condition, mutex, end);
}
