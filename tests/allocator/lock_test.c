// SPDX-License-Identifier: Apache-2.0
/*
 * The lock, with the system's part in the test's hands: how long a sleep lasts and whether a wake arrives. What is
 * guarded is plain memory, so that ThreadSanitizer sees it if one holder is not ordered before the next.
 */
#include "allocator/lock.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOAM_PRIM(name) loam_prim_real_##name
#include "allocator/host/prim.h"
#undef LOAM_PRIM
#undef LOAM_PRIM_H
#include "allocator/host/prim.h"

/* --- The system ------------------------------------------------------------------------------------------------- */

enum sleep {
    SLEEP_REAL,
    SLEEP_UNTIL_WOKEN, /* time never passes */
    SLEEP_NOT,         /* time passes at once */
    SLEEP_GATED,       /* until the test opens the gate; then it has been woken */
};

static _Atomic enum sleep sleep_kind;
static atomic_uint waits, wakes, asked;
static atomic_int *asked_often; /* is told */
static sem_t gate, at_gate;

bool loam_prim_wait(const void *word, uint32_t value, uint64_t nanoseconds)
{
    atomic_fetch_add(&waits, 1);
    switch (atomic_load(&sleep_kind)) {
    case SLEEP_UNTIL_WOKEN:
        return loam_prim_real_wait(word, value, UINT64_C(3600000000000));
    case SLEEP_NOT:
        return false;
    case SLEEP_GATED:
        sem_post(&at_gate);
        while (sem_wait(&gate) != 0) {
        }
        return true;
    default:
        return loam_prim_real_wait(word, value, nanoseconds);
    }
}

void loam_prim_wake(const void *word)
{
    atomic_fetch_add(&wakes, 1);
    loam_prim_real_wake(word);
}

/* A thread id of all the bits that Linux gives: nobody here has it, and it is alive when asked for. */
#define LARGEST_ID 0x3fffffu

static atomic_bool id_is_largest, space_refused, at_fork_refused, last_same_space;
static atomic_uint last_asked, space_count, at_fork_count;

uint32_t loam_prim_thread_id(void)
{
    return atomic_load(&id_is_largest) ? LARGEST_ID : loam_prim_real_thread_id();
}

bool loam_prim_thread_space(uint64_t *space)
{
    atomic_fetch_add(&space_count, 1);
    return !atomic_load(&space_refused) && loam_prim_real_thread_space(space);
}

bool loam_prim_thread_gone(uint32_t thread, bool same_space, const void *memory)
{
    bool gone = thread != LARGEST_ID && loam_prim_real_thread_gone(thread, same_space, memory);

    atomic_store(&last_asked, thread);
    atomic_store(&last_same_space, same_space);
    if (atomic_fetch_add(&asked, 1) == 20 && asked_often != NULL) {
        atomic_store(asked_often, 1);
    }
    return gone;
}

bool loam_prim_at_fork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    atomic_fetch_add(&at_fork_count, 1);
    return !atomic_load(&at_fork_refused) && loam_prim_real_at_fork(prepare, parent, child);
}

/* --- What is locked --------------------------------------------------------------------------------------------- */

/* In shared memory, so that all tests are those of processes too. */
static struct shared {
    struct loam_lock lock;
    unsigned long sum; /* plain */
    atomic_int stage;
} * shared;

static void make_shared(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    sem_init(&gate, 0, 0);
    sem_init(&at_gate, 0, 0);
}

static void free_shared(void)
{
    munmap(shared, sizeof *shared);
}

TestSuite(lock, .init = make_shared, .fini = free_shared, .timeout = 120);

static void await(const atomic_uint *count, unsigned least)
{
    while (atomic_load(count) < least) {
        sched_yield();
    }
}

static void *take_and_add(void *result)
{
    *(bool *)result = loam_lock_take(&shared->lock);
    shared->sum++;
    loam_lock_give(&shared->lock);
    return NULL;
}

static void *take_and_end(void *unused)
{
    cr_assert(loam_lock_take(&shared->lock));
    return unused;
}

static bool is_free(const struct loam_lock *lock)
{
    return lock->owner == 0 && lock->next == 0;
}

/* --- Taking and giving ------------------------------------------------------------------------------------------ */

Test(lock, a_free_lock_costs_no_system_call)
{
    cr_assert(loam_lock_take(&shared->lock));
    cr_assert_neq(shared->lock.owner, 0);
    loam_lock_give(&shared->lock);
    for (int i = 0; i < 1000; i++) {
        cr_assert(loam_lock_take(&shared->lock));
        loam_lock_give(&shared->lock);
    }
    cr_assert_eq(waits, 0);
    cr_assert_eq(wakes, 0);
    cr_assert(is_free(&shared->lock));
}

enum { THREADS = 8, TURNS = 20000 };

static void *add_many(void *unused)
{
    for (int i = 0; i < TURNS; i++) {
        if (loam_lock_take(&shared->lock)) {
            shared->sum++;
            if (i % 64 == 0) {
                sched_yield(); /* with the lock held */
            }
        }
        loam_lock_give(&shared->lock);
    }
    return unused;
}

Test(lock, holders_exclude_each_other_and_see_what_the_last_one_wrote)
{
    pthread_t threads[THREADS];

    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, add_many, NULL), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(shared->sum, (unsigned long)THREADS * TURNS);
    cr_assert(is_free(&shared->lock));
}

Test(lock, processes_exclude_each_other)
{
    pid_t children[3];
    int status;

    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            add_many(NULL);
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        cr_assert_eq(status, 0);
    }
    cr_assert_eq(shared->sum, 3ul * TURNS);
}

/* Time does not pass: who sleeps has to be woken. */
Test(lock, a_waiter_sleeps_and_is_woken)
{
    pthread_t thread;
    bool in_order;

    atomic_store(&sleep_kind, SLEEP_UNTIL_WOKEN);
    cr_assert(loam_lock_take(&shared->lock));
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    await(&waits, 1);
    loam_lock_give(&shared->lock);
    pthread_join(thread, NULL);
    cr_assert(in_order);
    cr_assert_eq(shared->sum, 1);
    cr_assert_geq(wakes, 1);
    cr_assert(is_free(&shared->lock));
}

/* Each of many sleepers is woken, though each giving up wakes but one. */
Test(lock, all_waiters_are_woken_one_after_another)
{
    pthread_t threads[THREADS];
    bool in_order[THREADS];

    atomic_store(&sleep_kind, SLEEP_REAL);
    cr_assert(loam_lock_take(&shared->lock));
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, take_and_add, &in_order[i]), 0);
    }
    await(&waits, THREADS);
    loam_lock_give(&shared->lock);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        cr_assert(in_order[i]);
    }
    cr_assert_eq(shared->sum, THREADS);
    cr_assert(is_free(&shared->lock));
}

/* As when the waiter fell asleep at the moment at which the lock was given up. */
Test(lock, a_wake_that_was_missed_costs_a_moment_only)
{
    pthread_t thread;
    bool in_order;

    cr_assert(loam_lock_take(&shared->lock));
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    await(&waits, 1);
    atomic_store(&shared->lock.asleep, 0);
    loam_lock_give(&shared->lock);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert(in_order);
    cr_assert(is_free(&shared->lock));
}

/* --- Fairness --------------------------------------------------------------------------------------------------- */

/* The waiter is woken again and again, and each time the holder has the lock back before it looks. */
Test(lock, who_was_passed_often_enough_is_handed_the_lock)
{
    uint32_t self, next;
    pthread_t thread;
    bool in_order;

    atomic_store(&sleep_kind, SLEEP_GATED);
    cr_assert(loam_lock_take(&shared->lock));
    self = shared->lock.owner;
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    for (int passed = 0; passed < LOAM_LOCK_LOST_MAX; passed++) {
        sem_wait(&at_gate);
        cr_assert_eq(shared->lock.next, 0, "claimed after %d", passed);
        loam_lock_give(&shared->lock);
        cr_assert(loam_lock_take(&shared->lock));
        sem_post(&gate);
    }
    sem_wait(&at_gate);
    next = shared->lock.next;
    cr_assert_neq(next, 0, "not claimed after %d", LOAM_LOCK_LOST_MAX);
    loam_lock_give(&shared->lock);
    cr_assert_eq(shared->lock.owner, next, "not handed over");
    cr_assert_neq(next, self);
    sem_post(&gate);
    pthread_join(thread, NULL);
    cr_assert(in_order);
    cr_assert_eq(shared->sum, 1);
    cr_assert(is_free(&shared->lock));
}

/* Who claimed the lock and found it free claims it no more. */
Test(lock, a_claim_that_was_not_needed_is_withdrawn)
{
    pthread_t thread;
    bool in_order;

    atomic_store(&sleep_kind, SLEEP_GATED);
    cr_assert(loam_lock_take(&shared->lock));
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    for (int passed = 0; passed < LOAM_LOCK_LOST_MAX; passed++) {
        sem_wait(&at_gate);
        sem_post(&gate);
    }
    sem_wait(&at_gate);
    cr_assert_neq(shared->lock.next, 0);
    /* What a holder does that has looked at next a moment before. */
    atomic_store(&shared->lock.owner, 0);
    loam_lock_wake(&shared->lock);
    sem_post(&gate);
    pthread_join(thread, NULL);
    cr_assert(is_free(&shared->lock));
}

/* The one who is to have it sleeps elsewhere than the others, and is woken there. */
Test(lock, who_is_handed_the_lock_is_woken)
{
    pthread_t thread;
    bool in_order;

    atomic_store(&sleep_kind, SLEEP_GATED);
    cr_assert(loam_lock_take(&shared->lock));
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    for (int passed = 0; passed < LOAM_LOCK_LOST_MAX; passed++) {
        sem_wait(&at_gate);
        if (passed == LOAM_LOCK_LOST_MAX - 1) {
            atomic_store(&sleep_kind, SLEEP_UNTIL_WOKEN);
        }
        sem_post(&gate);
    }
    await(&waits, LOAM_LOCK_LOST_MAX + 1);
    loam_lock_give(&shared->lock);
    pthread_join(thread, NULL);
    cr_assert(is_free(&shared->lock));
}

/* --- Holders that died ------------------------------------------------------------------------------------------- */

Test(lock, a_lock_is_taken_over_from_a_thread_that_ended)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, take_and_end, NULL), 0);
    pthread_join(thread, NULL);
    cr_assert_neq(shared->lock.owner, 0);
    cr_assert_not(loam_lock_take(&shared->lock), "what a dead holder guarded passes for in order");
    loam_lock_give(&shared->lock);
    cr_assert(loam_lock_take(&shared->lock));
    loam_lock_give(&shared->lock);
}

/* The one who was to have the lock next died: it is handed over all the same, taken over once, and then anybody's. */
Test(lock, a_claim_of_a_thread_that_ended_is_forgotten)
{
    uint32_t gone;
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, take_and_end, NULL), 0);
    pthread_join(thread, NULL);
    gone = shared->lock.owner;
    cr_assert_not(loam_lock_take(&shared->lock));
    shared->lock.next = gone;
    loam_lock_give(&shared->lock);
    cr_assert_eq(shared->lock.owner, gone);
    cr_assert_not(loam_lock_take(&shared->lock));
    loam_lock_give(&shared->lock);
    cr_assert(is_free(&shared->lock));
}

static pid_t die_with_the_lock(void)
{
    pid_t child = fork();
    siginfo_t ended;

    if (child == 0) {
        _exit(!loam_lock_take(&shared->lock));
    }
    cr_assert_eq(waitid(P_PID, (id_t)child, &ended, WEXITED | WNOWAIT), 0);
    cr_assert_eq(ended.si_status, 0);
    return child;
}

/* Its parent has not waited for it, and does so only later: its number is still taken. */
Test(lock, a_lock_is_taken_over_from_a_process_that_ended)
{
    pid_t child = die_with_the_lock();
    int status;

    cr_assert_not(loam_lock_take(&shared->lock));
    loam_lock_give(&shared->lock);
    cr_assert_eq(waitpid(child, &status, 0), child);

    child = die_with_the_lock();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_not(loam_lock_take(&shared->lock));
    loam_lock_give(&shared->lock);
}

/* Time flies, and the holder is there all the same: in another thread, then in another process. */
Test(lock, a_lock_is_not_taken_over_from_one_that_lives)
{
    pthread_t thread;
    bool in_order;
    pid_t child;
    int status;

    atomic_store(&sleep_kind, SLEEP_NOT);
    cr_assert(loam_lock_take(&shared->lock));
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    await(&asked, 20);
    cr_assert_eq(shared->sum, 0);
    child = fork();
    if (child == 0) {
        atomic_store(&asked, 0);
        asked_often = &shared->stage;
        take_and_add(&in_order);
        _exit(!in_order);
    }
    while (shared->stage != 1) {
        sched_yield();
    }
    cr_assert_eq(shared->sum, 0);
    loam_lock_give(&shared->lock);
    pthread_join(thread, NULL);
    cr_assert(in_order);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    cr_assert_eq(shared->sum, 2);
}

/* A number of another PID namespace says nothing: here that of a thread which is not there. */
Test(lock, a_lock_is_not_taken_over_from_another_namespace)
{
    uint32_t foreign;
    pthread_t thread;
    bool in_order;

    cr_assert(loam_lock_take(&shared->lock));
    foreign = ((shared->lock.owner >> 22) ^ 1) << 22 | 0x3ffff0;
    loam_lock_give(&shared->lock);
    atomic_store(&sleep_kind, SLEEP_NOT);
    atomic_store(&shared->lock.owner, foreign);
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    await(&asked, 20);
    cr_assert_eq(shared->lock.owner, foreign);
    atomic_store(&shared->lock.owner, 0);
    pthread_join(thread, NULL);
    cr_assert(in_order);
}

/* --- Names of threads ---------------------------------------------------------------------------------------------- */

Test(lock, a_name_is_asked_for_once_a_thread)
{
    pthread_t thread;
    bool in_order;

    for (int i = 0; i < 2; i++) {
        cr_assert(loam_lock_take(&shared->lock));
        cr_expect_eq(shared->lock.owner, loam_lock_self);
        loam_lock_give(&shared->lock);
    }
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    pthread_join(thread, NULL);
    cr_expect_eq(at_fork_count, 1, "children are told once a process");
    cr_expect_eq(space_count, 1);
}

/* Where a child cannot be told to forget them, names are not kept at all. */
Test(lock, a_name_that_a_child_would_keep_is_asked_for_each_time)
{
    atomic_store(&at_fork_refused, true);
    for (unsigned i = 1; i <= 3; i++) {
        cr_assert(loam_lock_take(&shared->lock));
        cr_expect_eq(loam_lock_self, 0);
        cr_expect_eq(space_count, i);
        loam_lock_give(&shared->lock);
    }
}

/* What a waiter asks of the system while another thread has the lock. */
static void wait_for_a_holder(void)
{
    pthread_t thread;
    bool in_order;

    atomic_store(&sleep_kind, SLEEP_NOT);
    cr_assert(loam_lock_take(&shared->lock));
    atomic_store(&id_is_largest, false);
    cr_assert_eq(pthread_create(&thread, NULL, take_and_add, &in_order), 0);
    await(&asked, 20);
    loam_lock_give(&shared->lock);
    pthread_join(thread, NULL);
    cr_assert(in_order);
}

Test(lock, a_name_without_a_namespace_is_not_one_of_ours)
{
    atomic_store(&space_refused, true);
    wait_for_a_holder();
    cr_expect_eq(last_asked, loam_prim_real_thread_id());
    cr_expect_not(last_same_space);
}

Test(lock, a_name_holds_the_largest_thread_id)
{
    atomic_store(&id_is_largest, true);
    wait_for_a_holder();
    cr_expect_eq(last_asked, LARGEST_ID);
    cr_expect(last_same_space);
}

/* --- fork(2) ----------------------------------------------------------------------------------------------------- */

static struct loam_lock own_lock; /* private memory */
static sem_t held, enough;

static void *hold(void *unused)
{
    cr_assert(loam_lock_take(&own_lock));
    sem_post(&held);
    sem_wait(&enough);
    loam_lock_give(&own_lock);
    return unused;
}

/* Another thread holds it, which the child does not have: it does not wait for a thread of its parent. */
Test(lock, a_child_takes_over_a_lock_that_was_held_when_it_was_forked)
{
    pthread_t thread;
    int status;
    pid_t child;

    sem_init(&held, 0, 0);
    sem_init(&enough, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, hold, NULL), 0);
    sem_wait(&held);
    child = fork();
    if (child == 0) {
        bool in_order = loam_lock_take(&own_lock);

        loam_lock_give(&own_lock);
        _exit(in_order || !loam_lock_take(&own_lock));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %#x", (unsigned)status);
    sem_post(&enough);
    pthread_join(thread, NULL);
    cr_assert(loam_lock_take(&own_lock));
}

Test(lock, a_lock_held_over_a_fork_is_given_up_in_both)
{
    uint32_t name;
    int status;
    pid_t child;

    cr_assert(loam_lock_take(&own_lock));
    name = own_lock.owner;
    own_lock.asleep = 1;
    child = fork();
    if (child == 0) {
        /* As if a waiter of the parent's had claimed it. */
        own_lock.next = name + 1;
        loam_lock_give_after_fork(&own_lock);
        _exit(own_lock.owner != 0 || !loam_lock_take(&own_lock) || own_lock.owner == name);
    }
    loam_lock_give_after_fork(&own_lock);
    cr_assert_eq(own_lock.owner, 0);
    cr_assert_geq(wakes, 1);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %#x", (unsigned)status);
}

/* --- Waiting for what nobody wakes for ------------------------------------------------------------------------------ */

Test(lock, patience_spins_then_sleeps_and_ends)
{
    struct loam_lock_patience patience = {0};
    unsigned turns = 1;

    atomic_store(&sleep_kind, SLEEP_NOT);
    cr_assert(loam_lock_pass_time(&patience));
    cr_assert_eq(waits, 0);
    while (turns < 1000000 && loam_lock_pass_time(&patience)) {
        turns++;
    }
    cr_assert_lt(turns, 1000000, "it waits for ever");
    cr_assert_gt(waits, turns / 2, "it spins");
}
