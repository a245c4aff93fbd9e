// SPDX-License-Identifier: Apache-2.0
/* Members that wait in ppoll(2) as a vCPU does in KVM_RUN: what holds them is looked at when the call begins. */
#include "vmm/crew.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#define MEMBER_COUNT 3u
#define SEED         UINT64_C(0xc4e3)

/* How many threads there are to be had yet; below 0: any number. */
static int threads_left = -1;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *), void *argument)
{
    if (threads_left == 0) {
        return EAGAIN;
    }
    threads_left -= threads_left > 0;
    return __real_pthread_create(thread, attributes, work, argument);
}

static struct crew crew;
static struct loam_diag diag;
static atomic_bool is_held[MEMBER_COUNT], is_over, waits;
static atomic_uint rounds[MEMBER_COUNT];

/* The kick is open in the call alone: it ends one that has begun, and none is lost before it. */
static void wait_as_kvm_does(uint32_t member)
{
    const struct timespec none = {.tv_sec = 0};
    sigset_t kick, before;

    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_BLOCK, &kick, &before);
    sigdelset(&before, KICK_SIGNAL);
    if (!atomic_load(&is_held[member])) {
        atomic_fetch_add(&rounds[member], 1);
        (void)ppoll(NULL, 0, atomic_load(&waits) ? NULL : &none, &before);
    }
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
}

static bool go_round(void *self, uint32_t member)
{
    cr_assert_eq(self, rounds);
    if (atomic_load(&is_over)) {
        return false;
    }
    wait_as_kvm_does(member);
    if (crew_is_pausing(&crew)) {
        crew_rest(&crew);
    }
    return true;
}

static void hold(void *self, uint32_t member, bool is_to_be_held)
{
    cr_assert_eq(self, rounds);
    cr_assert_lt(member, MEMBER_COUNT);
    cr_assert_neq(pthread_mutex_trylock(&crew.lock), 0, "under the lock");
    atomic_store(&is_held[member], is_to_be_held);
}

static void set_up(void)
{
    const struct crew_work work = {go_round, hold, rounds, NULL};

    cr_assert_eq(crew_init(&crew, &work, MEMBER_COUNT, &diag), LOAM_OK, "%s", diag.text);
}

static void end(void)
{
    atomic_store(&is_over, true);
    crew_end(&crew);
    crew_join(&crew);
}

static void tear_down(void)
{
    end();
    crew_destroy(&crew);
    crew_destroy(&crew);
}

TestSuite(crew, .init = set_up, .fini = tear_down, .timeout = 60);

static void start(void)
{
    cr_assert_eq(crew_start(&crew, &diag), LOAM_OK, "%s", diag.text);
}

static void await_round(uint32_t member)
{
    for (uint32_t before = atomic_load(&rounds[member]); atomic_load(&rounds[member]) == before;) {
        sched_yield();
    }
}

static void check_held(bool is_wanted)
{
    for (uint32_t i = 0; i < MEMBER_COUNT; i++) {
        cr_assert_eq(atomic_load(&is_held[i]), is_wanted);
    }
}

Test(crew, has_a_thread_for_each_member)
{
    for (uint32_t i = 0; i < MEMBER_COUNT; i++) {
        cr_assert_eq(crew_thread(&crew, i), 0);
    }
    start();
    for (uint32_t i = 0; i < MEMBER_COUNT; i++) {
        cr_assert_gt(crew_thread(&crew, i), 0);
        cr_assert_neq(crew_thread(&crew, i), getpid());
        cr_assert_neq(crew_thread(&crew, i), crew_thread(&crew, (i + 1) % MEMBER_COUNT));
    }
    cr_assert_eq(crew_thread(&crew, MEMBER_COUNT), 0);
    end();
    cr_assert_eq(crew_thread(&crew, 0), 0);
}

static void check_pauses(void)
{
    struct random random = {SEED};

    start();
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t before[MEMBER_COUNT];

        cr_assert(crew_pause(&crew));
        cr_assert_not(crew_pause(&crew));
        cr_assert(crew_is_pausing(&crew));
        check_held(true);
        for (uint32_t m = 0; m < MEMBER_COUNT; m++) {
            before[m] = atomic_load(&rounds[m]);
        }
        for (uint32_t yields = random_below(&random, 20); yields > 0; yields--) {
            sched_yield();
        }
        for (uint32_t m = 0; m < MEMBER_COUNT; m++) {
            cr_assert_eq(atomic_load(&rounds[m]), before[m], "seed 0x%" PRIx64, SEED);
        }
        crew_resume(&crew);
        check_held(false);
        if (random_one_in(&random, 2)) {
            await_round(random_below(&random, MEMBER_COUNT));
        }
    }
}

Test(crew, pauses_members_that_are_busy)
{
    check_pauses();
}

Test(crew, pauses_members_that_wait)
{
    struct random random = {SEED};

    atomic_store(&waits, true);
    start();
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t before = atomic_load(&rounds[0]);

        for (uint32_t yields = random_below(&random, 20); yields > 0; yields--) {
            sched_yield();
        }
        cr_assert(crew_pause(&crew));
        crew_resume(&crew);
        while (atomic_load(&rounds[0]) == before) {
            sched_yield();
        }
    }
}

Test(crew, starts_paused)
{
    cr_assert(crew_pause(&crew));
    start();
    for (uint32_t i = 0; i < MEMBER_COUNT; i++) {
        cr_assert_gt(crew_thread(&crew, i), 0);
        cr_assert_eq(atomic_load(&rounds[i]), 0);
    }
    crew_resume(&crew);
    for (uint32_t i = 0; i < MEMBER_COUNT; i++) {
        await_round(i);
    }
}

/* What is held for the end is not let go by who resumes. */
Test(crew, stays_held_once_it_has_ended)
{
    struct pollfd pause = {.fd = crew_pause_fd(&crew), .events = POLLIN};

    atomic_store(&waits, true);
    start();
    cr_assert(crew_pause(&crew));
    end();
    crew_resume(&crew);
    check_held(true);
    cr_assert_not(crew_is_pausing(&crew));
    cr_assert_not(crew_pause(&crew));
    cr_assert_eq(poll(&pause, 1, 0), 1);
}

Test(crew, ends_members_that_wait)
{
    atomic_store(&waits, true);
    for (uint32_t i = 0; i < 100; i++) {
        start();
        end();
        crew_destroy(&crew);
        atomic_store(&is_over, false);
        check_held(true);
        set_up();
        for (uint32_t m = 0; m < MEMBER_COUNT; m++) {
            atomic_store(&is_held[m], false);
        }
    }
}

Test(crew, kicks_one_out_of_its_call)
{
    atomic_store(&waits, true);
    start();
    while (atomic_load(&rounds[1]) == 0) {
        sched_yield();
    }
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t before = atomic_load(&rounds[1]);

        while (atomic_load(&rounds[1]) == before) {
            crew_kick(&crew, 1);
            sched_yield();
        }
    }
    end();
    crew_kick(&crew, 1);
}

/* Who waits takes none; who goes round does, and his clock is the crew's. */
Test(crew, tells_the_time_that_its_members_take)
{
    uint64_t before, after = 0;

    cr_assert_eq(crew_taken_nanoseconds(&crew), 0);
    atomic_store(&waits, true);
    start();
    do {
        before = after;
        cr_assert_eq(usleep(20000), 0); /* for all of them to have gone to sleep: of time, not for anything to happen */
        after = crew_taken_nanoseconds(&crew);
    } while (after != before);
    cr_assert_gt(after, 0);
    atomic_store(&waits, false);
    cr_assert(crew_pause(&crew));
    crew_resume(&crew);
    while (crew_taken_nanoseconds(&crew) < after + 1000000) {
        sched_yield();
    }
    end();
    cr_assert_eq(crew_taken_nanoseconds(&crew), 0);
}

/* The one that could not be started is not waited for, and those that were are joined. */
Test(crew, says_that_a_thread_cannot_be_had)
{
    for (uint32_t i = 0; i < MEMBER_COUNT; i++) {
        threads_left = (int)i;
        cr_assert_eq(crew_start(&crew, &diag), LOAM_ERROR_SYSTEM);
        cr_assert_not_null(strstr(diag.text, "a thread is wanted"), "%s", diag.text);
        end();
        for (uint32_t m = 0; m < MEMBER_COUNT; m++) {
            cr_assert_eq(crew_thread(&crew, m), 0);
        }
        crew_destroy(&crew);
        atomic_store(&is_over, false);
        set_up();
    }
}
