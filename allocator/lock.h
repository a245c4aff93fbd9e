// SPDX-License-Identifier: Apache-2.0
/*
 * The one lock of the library. It lies in the memory that it guards, holds no pointer, and works between threads and
 * between processes that map it at different addresses.
 *
 * Waiting: a few hundred nanoseconds of spinning, then sleep in futex(2), by prim. So a real-time thread that finds the
 * lock held on its own processor sleeps until the holder has given it up. There is no priority inheritance: a holder
 * that is kept from running by busy threads of a priority between the two keeps the lock meanwhile.
 *
 * Fairness: who runs may take a free lock before one who has to wake up first, which keeps many threads on few
 * processors fast. Who was woken LOAM_LOCK_LOST_MAX times and found the lock taken is handed it by its next holder.
 *
 * A holder that died: a waiter looks now and then whether the holder's thread is still there, and takes over from one
 * that is not. loam_lock_take is false then: what the lock guards may be half changed. What each module does about it
 * is the same for all: every call that would change something answers LOAM_ERROR_CORRUPT until its validate has found
 * everything in order. A thread id that was given to another thread since, or that belongs to another PID namespace, is
 * waited for: nothing is taken over on a guess.
 *
 * fork(2): in the child, a lock in private memory that another thread held is held by a thread that is not there, which
 * is found in the same way. See loam/memory.h for how the library keeps that from happening.
 *
 * Not for signal handlers: a thread that takes a lock that it holds waits for ever.
 */
#ifndef LOAM_LOCK_H
#define LOAM_LOCK_H

#include "allocator/atomic.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOAM_LOCK_LOST_MAX 4

/*
 * Free when all zero. Who sleeps has set asleep first; asleep may be set with nobody asleep.
 * next != 0  =>  that thread waits on owner, not on wakes, and whoever gives the lock up hands it over
 */
struct loam_lock {
    _Atomic uint32_t owner;  /* loam_prim_thread_name of the holder; 0: free */
    _Atomic uint32_t next;   /* who is to have it next; 0: whoever comes */
    _Atomic uint32_t asleep; /* 1: somebody sleeps until wakes changes */
    _Atomic uint32_t wakes;  /* counts */
};

static_assert(ATOMIC_INT_LOCK_FREE == 2, "the lock works between processes");

/* The calling thread's name; 0: not asked for yet. One instruction to read, in a shared library too. */
extern _Thread_local uint32_t loam_lock_self __attribute__((tls_model("initial-exec")));

/* What is left when the lock is not free, or the thread has no name yet. */
bool loam_lock_take_slowly(struct loam_lock *lock);

/* What is left when somebody waits. */
void loam_lock_hand_over(struct loam_lock *lock);
void loam_lock_wake(struct loam_lock *lock);

/* Take the lock if it is free, and this thread's name is known. No function is called, so nothing need be saved. */
__attribute__((warn_unused_result)) static inline bool loam_lock_try(struct loam_lock *lock)
{
    uint32_t self = loam_lock_self, none = 0;

    /* Acquire: pairs with the release in loam_lock_give, so that what the last holder wrote is seen. */
    return __builtin_expect(self != 0 && shared_swap_acquire(lock->owner, &none, self), 1);
}

/* Take the lock. False: from a holder that died with it; it is the caller's all the same. */
__attribute__((warn_unused_result)) static inline bool loam_lock_take(struct loam_lock *lock)
{
    return loam_lock_try(lock) || loam_lock_take_slowly(lock);
}

/*
 * Give it up. A plain store, since an atomic exchange would cost as much as taking the lock. So a waiter that sets
 * asleep at this very moment can be missed; its first sleep is short for that reason, and sees that the lock is free.
 */
static inline void loam_lock_give(struct loam_lock *lock)
{
    if (__builtin_expect(shared_load(lock->next) != 0, 0)) {
        loam_lock_hand_over(lock);
        return;
    }
    shared_store_release(lock->owner, 0);
    if (__builtin_expect(shared_load(lock->asleep) != 0, 0)) {
        loam_lock_wake(lock);
    }
}

/*
 * Give up a lock that was held over a fork(2), in the parent or in the child, whose copy has no waiters. The lock lies
 * in private memory.
 */
void loam_lock_give_after_fork(struct loam_lock *lock);

/* How long somebody has waited for what nobody will wake him for; start it as {0}. */
struct loam_lock_patience {
    uint32_t turns;
};

/*
 * Let a moment pass: spins at first, then sleeps longer and longer, up to a millisecond. False: that was four seconds or
 * more by now, and whoever is waited for is stopped, or gone.
 */
bool loam_lock_pass_time(struct loam_lock_patience *patience);

#endif
