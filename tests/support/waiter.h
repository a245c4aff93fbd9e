// SPDX-License-Identifier: Apache-2.0
/*
 * A call made by a thread of its own, and whether it has to wait for a lock: how a test sees that a lock is taken at
 * all, without a guess at how long that could last.
 *
 *     pthread_mutex_lock(&bus.lock);
 *     waiter_start(&waiter, add_device, &bus);
 *     cr_expect(waiter_sleeps(&waiter));
 *     pthread_mutex_unlock(&bus.lock);
 *     waiter_join(&waiter);
 *
 * Threads: one waiter object is used by one thread.
 */
#ifndef LOAM_TEST_WAITER_H
#define LOAM_TEST_WAITER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct waiter {
    void (*call)(void *self);
    void *self;
    pthread_t thread;
    _Atomic int thread_id;
    atomic_bool is_done;
};

/* Start a thread that calls call(self), once. */
void waiter_start(struct waiter *waiter, void (*call)(void *self), void *self);

/* Wait until the call sleeps in futex(2), which gives true, or has returned, which gives false. */
bool waiter_sleeps(const struct waiter *waiter);

/* The same of poll(2). */
bool waiter_polls(const struct waiter *waiter);

/* Wait until the call has returned. */
void waiter_join(struct waiter *waiter);

#endif
