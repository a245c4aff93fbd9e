// SPDX-License-Identifier: Apache-2.0
/*
 * Who waits and who wakes:
 *
 *     waiter                                   holder, giving up
 *     w = wakes                                next != 0: owner = next, wake who waits on owner
 *     asleep = 1                               else: owner = 0
 *     owner == 0 ? take it                     asleep != 0: asleep = 0, wakes += 1, wake one
 *     sleep while wakes == w                               next != 0: wake who waits on owner
 *
 * Who has claimed the lock sleeps while owner is who it was, and takes his name out of next once he has it.
 *
 * asleep is cleared before wakes is raised, and read after owner is cleared. So whoever set asleep after a holder cleared
 * it has read the new wakes, or finds it changed and does not sleep. Who was woken and takes the lock sets asleep
 * again, for those that sleep on.
 *
 * What is not ordered is the holder's store to owner and its load of asleep: see loam_lock_give. The store leaves the
 * processor within microseconds, so a waiter that looks again after SLEEP_FIRST_NS cannot have missed more than the
 * giving up that was under way when it fell asleep. Where somebody was woken meanwhile, and asleep cleared, the next sleep
 * is short again.
 */
#include "allocator/lock.h"

#include "allocator/host/prim.h"

#define SPIN_MAX       256 /* in all, some ten microseconds: what it costs to be woken */
#define SLEEP_FIRST_NS UINT64_C(1000000)
#define SLEEP_NS       UINT64_C(100000000)

#define PATIENCE_SPINS          100
#define PATIENCE_SLEEP_FIRST_NS UINT64_C(20000)
#define PATIENCE_SLEEP_MAX_NS   UINT64_C(1000000)
#define PATIENCE_TURNS          (PATIENCE_SPINS + 4000)

_Thread_local uint32_t loam_lock_self;

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/*
 * A thread's name: its id in the low ID_BITS, more than which no Linux gives, and above them a mark of its PID namespace,
 * 0 if that is not known. So nobody takes a thread of another namespace for one that is not there.
 */
#define ID_BITS    22
#define SPACE_MASK 0xffu

static _Atomic uint32_t process_space; /* 0: not asked for; else the mark, SPACE_UNKNOWN: there is none */

#define SPACE_UNKNOWN (SPACE_MASK + 1)

/* In a child, the thread that forked is another, perhaps in another namespace. */
static void forget_self(void)
{
    loam_lock_self = 0;
    shared_store(process_space, 0);
}

static uint32_t space_mark(void)
{
    uint32_t mark = shared_load(process_space);
    uint64_t space;

    if (mark == 0) {
        mark = loam_prim_thread_space(&space) ? (uint32_t)(space % SPACE_MASK) + 1 : SPACE_UNKNOWN;
        shared_store(process_space, mark);
    }
    return mark == SPACE_UNKNOWN ? 0 : mark;
}

/* The calling thread's name. It is kept only where it is sure to be forgotten in a child. */
static uint32_t self_name(void)
{
    static atomic_uint watched; /* 1: forget_self is called in children */

    if (loam_lock_self != 0) {
        return loam_lock_self;
    }
    /* Relaxed: nothing hangs on it, and to be watched twice does no harm. */
    if (shared_load(watched) == 0 && loam_prim_at_fork(NULL, NULL, forget_self)) {
        shared_store(watched, 1);
    }
    if (shared_load(watched) == 0) {
        shared_store(process_space, 0);
        return loam_prim_thread_id() | space_mark() << ID_BITS;
    }
    loam_lock_self = loam_prim_thread_id() | space_mark() << ID_BITS;
    return loam_lock_self;
}

/* Whether the thread of that name, which had the lock, is there no more. */
static bool is_gone(uint32_t name, const struct loam_lock *lock)
{
    uint32_t space = name >> ID_BITS;

    return loam_prim_thread_gone(name & ((1u << ID_BITS) - 1), space != 0 && space == space_mark(), lock);
}

/* The owner is who is given, and is the caller from now on. */
static bool take_from(struct loam_lock *lock, uint32_t owner, uint32_t self)
{
    return shared_swap_acquire(lock->owner, &owner, self);
}

/*
 * Take the lock when it is free. Between two looks twice as long passes each time: whoever has it, and takes it again and
 * again, keeps its line for some calls in a row, which is what makes two threads faster than one.
 */
static bool take_free(struct loam_lock *lock, uint32_t self)
{
    for (uint32_t turns = 1; turns <= SPIN_MAX; turns *= 2) {
        /* Relaxed: a hint; the exchange decides. */
        if (shared_load(lock->owner) == 0 && take_from(lock, 0, self)) {
            return true;
        }
        for (uint32_t n = 0; n < turns; n++) {
            relax();
        }
    }
    return false;
}

/* Sleep until woken, on what was read. False: time has passed and nobody woke the caller. */
static bool sleep_once(struct loam_lock *lock, bool claimed, uint32_t owner, uint32_t wakes, uint64_t nanoseconds)
{
    return claimed ? loam_prim_wait(&lock->owner, owner, nanoseconds)
                   : loam_prim_wait(&lock->wakes, wakes, nanoseconds);
}

/* The thread of that name claims the lock no more: it has it, or is gone. */
static void withdraw(struct loam_lock *lock, uint32_t name)
{
    shared_swap(lock->next, &name, 0);
}

/* Whether the lock, whose owner was read, is the caller's now: handed over, or free and taken. */
static bool have_it(struct loam_lock *lock, uint32_t owner, uint32_t self, bool claimed)
{
    return (owner == self && claimed) || (owner == 0 && take_from(lock, 0, self));
}

/* Ask to be handed the lock, if nobody else does yet. */
static bool claim(struct loam_lock *lock, uint32_t self)
{
    uint32_t none = 0;

    return shared_swap(lock->next, &none, self);
}

bool loam_lock_take_slowly(struct loam_lock *lock)
{
    uint32_t self = self_name(), owner, lost = 0, wakes = 0;
    uint64_t nanoseconds = SLEEP_FIRST_NS;
    bool claimed = false, alive = true;

    if (take_free(lock, self)) {
        return true;
    }
    for (;;) {
        uint32_t before = wakes;

        /* Acquire: pairs with the release in loam_lock_wake. */
        wakes = shared_load_acquire(lock->wakes);
        nanoseconds = wakes == before ? nanoseconds : SLEEP_FIRST_NS;
        if (!claimed && lost >= LOAM_LOCK_LOST_MAX && claim(lock, self)) {
            claimed = true;
            nanoseconds = SLEEP_FIRST_NS;
        }
        /* A store and then a load: see above. */
        shared_exchange_ordered(lock->asleep, 1);
        owner = shared_load_acquire(lock->owner);
        if (have_it(lock, owner, self, claimed)) {
            break;
        }
        if (owner == 0 || sleep_once(lock, claimed, owner, wakes, nanoseconds)) {
            lost++;
            nanoseconds = SLEEP_FIRST_NS;
            continue;
        }
        if (nanoseconds == SLEEP_NS && is_gone(owner, lock) && take_from(lock, owner, self)) {
            withdraw(lock, owner);
            alive = false;
            break;
        }
        nanoseconds = SLEEP_NS;
    }
    if (claimed) {
        withdraw(lock, self);
    }
    return alive;
}

void loam_lock_hand_over(struct loam_lock *lock)
{
    shared_store_release(lock->owner, shared_load(lock->next));
    loam_prim_wake(&lock->owner);
}

void loam_lock_wake(struct loam_lock *lock)
{
    shared_store(lock->asleep, 0);
    /* Release: who reads it finds asleep cleared, and sets it again. */
    shared_add_release(lock->wakes, 1);
    loam_prim_wake(&lock->wakes);
    if (shared_load(lock->next) != 0) {
        loam_prim_wake(&lock->owner);
    }
}

void loam_lock_give_after_fork(struct loam_lock *lock)
{
    if (shared_load(lock->owner) == self_name()) {
        loam_lock_give(lock);
        return;
    }
    shared_store(lock->next, 0);
    shared_store(lock->asleep, 0);
    shared_store_release(lock->owner, 0);
}

bool loam_lock_pass_time(struct loam_lock_patience *patience)
{
    uint32_t turn = patience->turns++, doublings = turn - PATIENCE_SPINS;
    const _Atomic uint32_t never = 0;
    uint64_t nanoseconds;

    if (turn < PATIENCE_SPINS) {
        relax();
        return true;
    }
    nanoseconds = doublings < 6 ? PATIENCE_SLEEP_FIRST_NS << doublings : PATIENCE_SLEEP_MAX_NS;
    (void)loam_prim_wait(&never, 0, nanoseconds);
    return turn < PATIENCE_TURNS;
}
