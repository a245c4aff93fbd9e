// SPDX-License-Identifier: Apache-2.0
#include "vmm/park.h"

#include "tests/support/waiter.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>

#define THREAD_COUNT 4u
#define SEED         UINT64_C(0x9a4c105ed)

static struct park park;
static struct loam_diag diag;

static void set_up(void)
{
    cr_assert_eq(park_init(&park, &diag), LOAM_OK, "%s", diag.text);
}

static void tear_down(void)
{
    park_destroy(&park);
}

TestSuite(park, .init = set_up, .fini = tear_down, .timeout = 60);

static bool is_readable(void)
{
    struct pollfd fd = {.fd = park_fd(&park), .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

/* --- Threads that work in rounds ---------------------------------------------------------------------------------- */

struct worker {
    pthread_t thread;
    atomic_uint rounds;
    atomic_bool is_in_round;
};

static struct worker workers[THREAD_COUNT];
static atomic_bool leaving;

static void *work(void *self)
{
    struct worker *worker = self;

    park_come(&park);
    while (!atomic_load(&leaving)) {
        atomic_store(&worker->is_in_round, true);
        atomic_fetch_add(&worker->rounds, 1);
        atomic_store(&worker->is_in_round, false);
        if (park_is_closed(&park)) {
            park_rest(&park);
        }
        sched_yield();
    }
    park_go(&park);
    return NULL;
}

static void start_workers(void)
{
    for (uint32_t i = 0; i < THREAD_COUNT; i++) {
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
}

static void join_workers(void)
{
    atomic_store(&leaving, true);
    park_end(&park);
    for (uint32_t i = 0; i < THREAD_COUNT; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    cr_assert_eq(park.busy_count, 0);
}

static void await_round(struct worker *worker)
{
    for (uint32_t before = atomic_load(&worker->rounds); atomic_load(&worker->rounds) == before;) {
        sched_yield();
    }
}

/* Nobody is in a round, none begins, and afterwards each goes on. */
Test(park, stands_still_from_closing_to_opening)
{
    struct random random = {SEED};

    start_workers();
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t before[THREAD_COUNT];

        cr_assert(park_close(&park));
        park_await(&park);
        for (uint32_t t = 0; t < THREAD_COUNT; t++) {
            cr_assert_not(atomic_load(&workers[t].is_in_round));
            before[t] = atomic_load(&workers[t].rounds);
        }
        for (uint32_t yields = random_below(&random, 20); yields > 0; yields--) {
            sched_yield();
        }
        for (uint32_t t = 0; t < THREAD_COUNT; t++) {
            cr_assert_eq(atomic_load(&workers[t].rounds), before[t], "seed 0x%llx", (unsigned long long)SEED);
        }
        park_open(&park);
        await_round(&workers[random_below(&random, THREAD_COUNT)]);
    }
    join_workers();
}

Test(park, holds_who_comes_while_it_is_closed)
{
    cr_assert(park_close(&park));
    start_workers();
    park_await(&park);
    for (uint32_t t = 0; t < THREAD_COUNT; t++) {
        cr_assert_eq(atomic_load(&workers[t].rounds), 0);
    }
    park_open(&park);
    for (uint32_t t = 0; t < THREAD_COUNT; t++) {
        await_round(&workers[t]);
    }
    join_workers();
}

Test(park, lets_everybody_go_at_its_end)
{
    start_workers();
    cr_assert(park_close(&park));
    park_await(&park);
    join_workers();
    cr_assert(park_is_closed(&park), "until it is opened");
    cr_assert(is_readable());
}

static void await_all(void *self)
{
    park_await(self);
}

/* Who is in a round is waited for, until he rests or goes. */
Test(park, waits_for_who_is_in_a_round)
{
    struct waiter waiter;

    park_come(&park);
    cr_assert(park_close(&park));
    waiter_start(&waiter, await_all, &park);
    cr_assert(waiter_sleeps(&waiter));
    park_go(&park);
    waiter_join(&waiter);
}

static void rest(void *self)
{
    park_rest(self);
}

Test(park, rests_until_it_is_opened)
{
    struct waiter waiter;

    park_come(&park);
    cr_assert(park_close(&park));
    waiter_start(&waiter, rest, &park);
    park_await(&park);
    cr_assert(waiter_sleeps(&waiter));
    park_open(&park);
    waiter_join(&waiter);
    cr_assert_eq(park.busy_count, 1, "it is in a round again");
    park_rest(&park);
    cr_assert_eq(park.busy_count, 1, "where it is open nobody rests");
    park_go(&park);
}

Test(park, shows_by_its_descriptor_whether_it_is_closed)
{
    cr_assert_not(is_readable());
    cr_assert(park_close(&park));
    cr_assert(is_readable());
    cr_assert_not(park_close(&park), "it is closed already");
    park_open(&park);
    cr_assert_not(is_readable());
    cr_assert_not(park_is_closed(&park));
    park_open(&park);
    cr_assert(park_close(&park));
    park_end(&park);
    park_open(&park);
    cr_assert(is_readable(), "the end is the last word");
    cr_assert_not(park_close(&park));
    cr_assert_not(park_is_closed(&park));
    cr_assert(is_readable());
}

Test(park, says_that_there_is_no_descriptor)
{
    struct rlimit limit, none;
    struct park refused;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    cr_expect_eq(park_init(&refused, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_expect_eq(diag.system_errno, EMFILE);
    cr_expect_eq(refused.fd, -1);
}
