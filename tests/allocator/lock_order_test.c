// SPDX-License-Identifier: Apache-2.0
/*
 * Who waits for a lock is woken, on a machine that keeps no orders of memory but those which the code names
 * (tests/support/weak_atomic.h). Sleep is the test's: a short one ends by itself, and by then every store is seen; a long
 * one ends by a wake alone. So a wake that is missed for more than a moment shows as threads that all sleep.
 */
#include "tests/support/weak_atomic.h"

#include "allocator/host/prim.h"
#include "allocator/lock.h"

#include <criterion/criterion.h>

enum { RUNS = 20000, THREADS = 3, TURNS = 3, SHORT_NS = 10000000, SHORT_YIELDS = 6, PATIENCE = 200000 };

static struct loam_lock lock;
static unsigned inside, turns; /* plain: what the lock guards */
static uint64_t seed;

static struct sleeper {
    const void *word; /* NULL: awake */
    unsigned since;
} sleepers[THREADS];
static unsigned clock_now;

bool loam_prim_wait(const void *word, uint32_t value, uint64_t nanoseconds)
{
    struct sleeper *self = &sleepers[weak_thread()];

    if (*(const volatile uint32_t *)word != value) {
        return true;
    }
    *self = (struct sleeper){word, clock_now++};
    for (unsigned i = 0; self->word != NULL; i++) {
        weak_yield();
        if (nanoseconds < SHORT_NS && i == SHORT_YIELDS && self->word != NULL) {
            self->word = NULL;
            weak_settle();
            return false;
        }
        cr_assert_lt(i, PATIENCE, "seed %lu: a wake was missed", seed);
    }
    return true;
}

void loam_prim_wake(const void *word)
{
    struct sleeper *first = NULL;

    for (unsigned i = 0; i < THREADS; i++) {
        if (sleepers[i].word == word && (first == NULL || sleepers[i].since < first->since)) {
            first = &sleepers[i];
        }
    }
    if (first != NULL) {
        first->word = NULL;
    }
}

uint32_t loam_prim_thread_id(void)
{
    return weak_thread() + 1;
}

bool loam_prim_thread_space(uint64_t *space)
{
    *space = 1;
    return true;
}

bool loam_prim_thread_gone(uint32_t thread, bool same_space, const void *memory)
{
    cr_assert_fail("a long sleep ended: %u, %d, %p", thread, same_space, memory);
    return false;
}

bool loam_prim_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return prepare == NULL && parent == NULL && child != NULL;
}

static void work(void)
{
    for (int i = 0; i < TURNS; i++) {
        bool in_order = loam_lock_take(&lock);

        cr_assert(in_order);
        cr_assert_eq(inside++, 0, "seed %lu: two at once", seed);
        turns++;
        weak_yield();
        inside--;
        loam_lock_give(&lock);
    }
}

TestSuite(lock_order, .timeout = 300);

Test(lock_order, no_waiter_sleeps_on)
{
    weak_make_own(&loam_lock_self);
    for (seed = 0; seed < RUNS; seed++) {
        lock = (struct loam_lock){0};
        turns = 0;
        weak_run(seed, THREADS, (void (*const[])(void)){work, work, work});
        cr_assert_eq(turns, THREADS * TURNS);
        cr_assert_eq(lock.owner, 0);
        cr_assert_eq(lock.next, 0);
    }
}
