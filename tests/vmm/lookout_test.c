// SPDX-License-Identifier: Apache-2.0
#include "vmm/lookout.h"

#include <criterion/criterion.h>

#define MILLISECOND UINT64_C(1000000)

static struct lookout lookout;
static int64_t now = 1000000;
static uint64_t taken;

/* The next turn, before which the guest takes so much; whether it is a look. */
static bool turn(uint64_t takes)
{
    now += lookout_wait_milliseconds(&lookout, now);
    taken += takes;
    cr_assert(lookout_is_due(&lookout, now));
    return lookout_turn(&lookout, now, taken);
}

static int wait_now(void)
{
    return lookout_wait_milliseconds(&lookout, now);
}

Test(lookout, disturbs_no_guest_that_runs)
{
    cr_expect_eq(wait_now(), 0);
    for (uint32_t i = 0; i < 1000; i++) {
        cr_assert_not(turn(20 * MILLISECOND));
        cr_assert_eq(wait_now(), LOOKOUT_MIN_MILLISECONDS);
    }
}

/* From the moment on at which it stops: to the end of that turn, and one more. */
Test(lookout, finds_a_guest_that_has_stopped_within_two_turns)
{
    turn(20 * MILLISECOND);
    cr_expect_not(turn(1 * MILLISECOND));
    cr_expect(turn(0));
}

Test(lookout, asks_for_no_turn_before_its_time)
{
    turn(MILLISECOND);
    cr_expect_not(lookout_is_due(&lookout, now));
    cr_expect_not(lookout_is_due(&lookout, now + LOOKOUT_MIN_MILLISECONDS - 1));
    cr_expect(lookout_is_due(&lookout, now + LOOKOUT_MIN_MILLISECONDS));
    cr_expect_eq(lookout_wait_milliseconds(&lookout, now + 15), LOOKOUT_MIN_MILLISECONDS - 15);
    cr_expect_eq(lookout_wait_milliseconds(&lookout, now + 100000), 0);
}

/* Each look costs a guest that sleeps a little time of its own, which is no sign of life. */
Test(lookout, lets_a_guest_that_waits_sleep_longer_and_longer)
{
    uint32_t looks = 0;

    turn(20 * MILLISECOND);
    for (uint32_t i = 0; i < 20; i++) {
        looks += turn(i % 2 == 0 ? 0 : MILLISECOND / 5);
    }
    cr_expect_eq(looks, 10);
    cr_expect_eq(wait_now(), LOOKOUT_MAX_MILLISECONDS);
    cr_expect_not(turn(LOOKOUT_RUN_NANOSECONDS + 1));
    cr_expect_eq(wait_now(), LOOKOUT_MIN_MILLISECONDS, "it runs again");
}

/* A thread's clock begins anew with the thread. */
Test(lookout, bears_a_clock_that_goes_back)
{
    turn(20 * MILLISECOND);
    taken = 0;
    cr_expect_not(turn(0));
    cr_expect_eq(wait_now(), LOOKOUT_MIN_MILLISECONDS);
    cr_expect(turn(0));
}
