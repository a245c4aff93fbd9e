// SPDX-License-Identifier: Apache-2.0
/*
 * Time is the real one: what has to have passed is bounded by looks at the clock before and after, however slow the machine.
 * What counters do clock by clock is pit_counter_test's; that guests get interrupts from it, machine_test's.
 */
#include "vmm/pit.h"

#include "tests/support/waiter.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define SECOND INT64_C(1000000000)
#define MILLI  INT64_C(1000000)
#define SEED   UINT64_C(1193182)

#define CONTROL 3
#define LATCH   0x00
#define BACK    0xc0

static struct pit pit;
static atomic_bool is_heard, level;
static atomic_uint rise_count;

static void set_line(void *controller, unsigned int number, bool is_high)
{
    cr_assert_eq(controller, &level);
    cr_assert_eq(number, 0);
    cr_assert_neq(atomic_exchange(&level, is_high), is_high, "only changes are told");
    atomic_fetch_add(&rise_count, is_high);
}

static bool hear(void *self)
{
    cr_assert_eq(self, &is_heard);
    return atomic_load(&is_heard);
}

/* The line is high, as far as the PIT knows, which nobody was told. */
static void set_up(void)
{
    const struct irq_line irq = {.set = set_line, .controller = &level, .number = 0};

    atomic_store(&level, true);
    atomic_store(&is_heard, false);
    pit_init(&pit, irq, hear, &is_heard);
}

static void tear_down(void)
{
    pit_destroy(&pit);
}

TestSuite(pit, .init = set_up, .fini = tear_down, .timeout = 60);

static void start(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(pit_start(&pit, &diag), LOAM_OK, "%s", diag.text);
}

static void set_heard(bool heard)
{
    atomic_store(&is_heard, heard);
    pit_attend(&pit);
}

static int64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

static void await_time(int64_t nanoseconds)
{
    while (now_nanoseconds() < nanoseconds) {
    }
}

static void out(uint64_t port, uint8_t value)
{
    struct bus_access access = {.offset = port, .bytes = 1, .is_write = true, .value = value};

    pit_access(&pit, &access);
}

static uint8_t in(uint64_t port)
{
    struct bus_access access = {.offset = port, .bytes = 1, .value = UINT64_MAX};

    pit_access(&pit, &access);
    return (uint8_t)access.value;
}

static void out_speaker(uint8_t value)
{
    struct bus_access access = {.bytes = 1, .is_write = true, .value = value};

    pit_speaker_access(&pit, &access);
}

static uint8_t in_speaker(void)
{
    struct bus_access access = {.bytes = 1, .value = UINT64_MAX};

    pit_speaker_access(&pit, &access);
    return (uint8_t)access.value;
}

static uint32_t latched(uint64_t counter)
{
    uint32_t low;

    out(CONTROL, (uint8_t)(counter << 6 | LATCH));
    low = in(counter);
    return low | (uint32_t)in(counter) << 8;
}

static void program(uint64_t counter, uint8_t mode, uint32_t count)
{
    out(CONTROL, (uint8_t)(counter << 6 | 0x30 | (unsigned int)mode << 1));
    out(counter, (uint8_t)count);
    out(counter, (uint8_t)(count >> 8));
}

static uint8_t status(uint64_t counter)
{
    out(CONTROL, (uint8_t)(BACK | 0x20 | 2 << counter));
    return in(counter);
}

/* --- Time -------------------------------------------------------------------------------------------------------- */

Test(pit, counts_at_its_frequency_without_drifting)
{
    struct random random = {SEED};

    cr_expect_eq(pit_clocks(0), 0);
    cr_expect_eq(pit_clocks(SECOND), 1193182);
    cr_expect_eq(pit_clocks(838), 0);
    cr_expect_eq(pit_clocks(839), 1);
    cr_expect_eq(pit_nanoseconds(1), 839);
    cr_expect_eq(pit_nanoseconds(1193182), SECOND);
    cr_expect_eq(pit_clocks(INT64_C(31557600) * 100 * SECOND), INT64_C(31557600) * 100 * 1193182, "in a hundred years");
    for (uint32_t i = 0; i < 100000; i++) {
        int64_t clocks = (int64_t)(random_u64(&random) >> (12 + i % 40));
        int64_t begin = pit_nanoseconds(clocks);

        cr_assert_eq(pit_clocks(begin), clocks, "clock %" PRId64 " of seed %" PRIu64, clocks, SEED);
        cr_assert(begin == 0 || pit_clocks(begin - 1) == clocks - 1, "clock %" PRId64, clocks);
    }
}

Test(pit, begins_as_firmware_leaves_it)
{
    uint32_t before;
    int64_t begin;

    cr_expect_eq(status(0) & 0x7e, 0x34, "mode 2, both bytes, counting");
    cr_expect_eq(status(1) & 0x3e, 0x14, "mode 2, low byte");
    cr_expect_eq(in_speaker() & 0x2f, 0, "closed, silent, low");
    do {
        before = latched(0);
        begin = now_nanoseconds();
        await_time(begin + 100000);
    } while (latched(0) > before); /* it began anew */
    cr_expect_lt(latched(0), before, "it counts");
    cr_expect_lt(in(1), 19);
}

/* 11,932 clocks are 10 ms: not less, and not more but for the time between two looks. */
Test(pit, times_what_linux_calibrates_by)
{
    int64_t written, begun, low, high;

    out_speaker(1);
    out(CONTROL, 0xb0);
    out(2, 11932 & 0xff);
    written = now_nanoseconds();
    out(2, 11932 >> 8);
    begun = low = now_nanoseconds();
    while (true) {
        int64_t before = now_nanoseconds();

        if ((in_speaker() & 0x20) != 0) {
            break;
        }
        low = before;
    }
    high = now_nanoseconds();
    cr_expect_geq(high - written, pit_nanoseconds(11932));
    cr_expect_leq(low - begun, pit_nanoseconds(11932 + 2));
    cr_expect_eq(in_speaker() & 0x2f, 0x21);
}

Test(pit, counts_down_in_step_with_the_clock)
{
    int64_t written, begun;

    out_speaker(1);
    written = now_nanoseconds();
    program(2, 0, 0xffff);
    begun = now_nanoseconds();
    for (uint32_t i = 0; i < 1000; i++) {
        int64_t before = now_nanoseconds(), after;
        uint32_t count = latched(2);

        after = now_nanoseconds();
        if (after - written > 50 * MILLI) {
            break;
        }
        cr_assert_leq(0xffff - count, pit_clocks(after - written) + 1);
        cr_assert_geq(0xffff - count + 2, pit_clocks(before - begun));
    }
}

Test(pit, has_its_third_gate_at_port_b)
{
    uint32_t before;

    out_speaker(3);
    cr_expect_eq(in_speaker() & 0x0f, 3);
    program(2, 0, 0);
    await_time(now_nanoseconds() + 10000);
    out_speaker(2);
    cr_expect_eq(in_speaker() & 0x0f, 2);
    before = latched(2);
    await_time(now_nanoseconds() + 100000);
    cr_expect_eq(latched(2), before, "closed");
    out_speaker(1);
    await_time(now_nanoseconds() + 100000);
    cr_expect_neq(latched(2), before);
}

Test(pit, toggles_a_bit_with_memorys_refresh)
{
    uint32_t toggled = 0;
    uint8_t last = in_speaker() & 0x10;

    while (toggled < 10) {
        uint8_t now = in_speaker() & 0x10;

        toggled += now != last;
        last = now;
    }
}

/* --- Ports ------------------------------------------------------------------------------------------------------- */

Test(pit, carries_out_each_byte_of_an_access)
{
    struct bus_access write = {.bytes = 4, .is_write = true, .value = 0x54332211};
    struct bus_access read = {.bytes = 4, .value = 0};

    out_speaker(1);
    out(CONTROL, 0x10); /* low bytes alone */
    out(CONTROL, 0x50);
    out(CONTROL, 0x90);
    pit_access(&pit, &write); /* the control word for counter 1 comes last */
    cr_expect_eq(pit.state.counters[0].initial, 0x11);
    cr_expect_eq(pit.state.counters[2].initial, 0x33);
    cr_expect_eq(pit.state.counters[1].mode, 2);
    cr_expect_not(pit.state.counters[1].is_begun);
    pit_access(&pit, &read);
    cr_expect_eq(read.value >> 24, 0xff, "the control word is not read");
    write = (struct bus_access){.offset = 0, .bytes = 1, .is_write = true, .value = 0x9944};
    pit_access(&pit, &write);
    cr_expect_eq(pit.state.counters[0].initial, 0x44);
    cr_expect_eq(write.value, 0x9944);
}

Test(pit, reads_back_counts_and_statuses_of_those_it_is_asked_for)
{
    out_speaker(1);
    program(0, 2, 0x1000);
    program(2, 2, 0x2000);
    await_time(now_nanoseconds() + 10000);
    out(CONTROL, BACK | 2 | 8); /* counts and statuses of 0 and 2 */
    cr_expect_eq(in(0) & 0x7f, 0x34);
    cr_expect_eq(in(2) & 0x7f, 0x34);
    cr_expect(pit.state.counters[0].has_latched && pit.state.counters[2].has_latched);
    cr_expect_not(pit.state.counters[1].has_latched || pit.state.counters[1].has_status);
    (void)in(0);
    (void)in(0);
    out(CONTROL, BACK | 0x10 | 2); /* the count of 0 */
    cr_expect(pit.state.counters[0].has_latched);
    cr_expect_not(pit.state.counters[0].has_status);
    out(CONTROL, BACK | 0x30 | 4); /* nothing of 1 */
    cr_expect_not(pit.state.counters[1].has_latched || pit.state.counters[1].has_status);
}

/* --- The line ---------------------------------------------------------------------------------------------------- */

Test(pit, ticks_for_who_hears_it)
{
    int64_t begin = now_nanoseconds();
    uint32_t count;

    start();
    set_heard(true);
    program(0, 2, 1193); /* a thousand times a second */
    while (atomic_load(&rise_count) < 50) {
    }
    set_heard(false);
    count = atomic_load(&rise_count);
    cr_expect_leq(count, (now_nanoseconds() - begin) / pit_nanoseconds(1193) + 1, "no more than there were");
    await_time(now_nanoseconds() + 5 * MILLI);
    cr_expect_leq(atomic_load(&rise_count), count + 1, "nobody hears it");
}

Test(pit, ticks_by_itself_as_firmware_leaves_it)
{
    int64_t begin = now_nanoseconds();

    start();
    set_heard(true);
    while (atomic_load(&rise_count) < 2) {
    }
    cr_expect_geq(now_nanoseconds() - begin, pit_nanoseconds(65536), "from one tick to the next");
}

/* What nobody has heard is one tick when it is looked for, and none if there was none. */
Test(pit, makes_up_for_what_nobody_heard_by_one_tick)
{
    uint32_t before;

    start();
    out(CONTROL, 0x34); /* counts no more, and not yet again */
    before = atomic_load(&rise_count);
    pit_catch_up(&pit);
    cr_expect_eq(atomic_load(&rise_count), before);
    out(0, 1193 & 0xff);
    out(0, 1193 >> 8);
    await_time(now_nanoseconds() + 5 * MILLI);
    cr_expect_eq(atomic_load(&rise_count), before, "nobody hears it");
    pit_catch_up(&pit);
    cr_expect_eq(atomic_load(&rise_count), before + 1);
    cr_expect(atomic_load(&level));
}

Test(pit, counts_down_once)
{
    int64_t begin;

    start();
    set_heard(true);
    begin = now_nanoseconds();
    program(0, 0, 5966); /* 5 ms */
    cr_expect_not(atomic_load(&level), "mode 0 is low until then");
    while (atomic_load(&rise_count) == 0) {
    }
    cr_expect_geq(now_nanoseconds() - begin, 5 * MILLI);
    begin = now_nanoseconds();
    program(0, 4, 5966);
    while (atomic_load(&rise_count) == 1) {
    }
    cr_expect_geq(now_nanoseconds() - begin, 5 * MILLI);
    await_time(now_nanoseconds() + 7 * MILLI);
    cr_expect_eq(atomic_load(&rise_count), 2);
}

/* A guest that asks for half a million interrupts a second. */
Test(pit, ticks_no_faster_than_it_should)
{
    uint8_t modes[] = {2, 3};

    start();
    set_heard(true);
    for (size_t i = 0; i < sizeof modes; i++) {
        int64_t begin = now_nanoseconds();
        uint32_t before = atomic_load(&rise_count), count;

        program(0, modes[i], 2);
        await_time(begin + 20 * MILLI);
        count = atomic_load(&rise_count) - before;
        cr_expect_leq(count, (now_nanoseconds() - begin) / PIT_SHORTEST_NANOSECONDS + 4, "%" PRIu32, count);
        cr_expect_gt(count, 0);
    }
    program(0, 2, 1);
}

/* --- What is owed ------------------------------------------------------------------------------------------------ */

#define TICK INT64_C(1193) /* clocks of about a millisecond */

/* Time is the test's own: the clock is held, and moved by whole ticks. */
static void begin_ticks(uint32_t count)
{
    atomic_store(&is_heard, true);
    pit_hold(&pit);
    program(0, 2, count);
    pit.held += pit_nanoseconds(2); /* into the first cycle */
}

static uint32_t rises_after(uint32_t ticks)
{
    const uint32_t before = atomic_load(&rise_count);

    pit.held += pit_nanoseconds(ticks * TICK);
    pit_catch_up(&pit);
    return atomic_load(&rise_count) - before;
}

static uint32_t rises_when_taken(void)
{
    const uint32_t before = atomic_load(&rise_count);

    pit_taken(&pit);
    return atomic_load(&rise_count) - before;
}

/* Each rises; and once more for each that came before the last was taken. */
Test(pit, makes_up_for_ticks_that_were_not_taken)
{
    begin_ticks(TICK);
    cr_expect_eq(rises_after(1), 1);
    cr_expect_eq(rises_when_taken(), 0);
    cr_expect_eq(rises_when_taken(), 0, "nothing came meanwhile");
    cr_expect_eq(rises_after(1), 1);
    cr_expect_eq(rises_after(1), 1);
    cr_expect_eq(rises_after(2), 1);
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect_eq(rises_when_taken(), 1, "tick %" PRIu32 " of those not taken", i);
    }
    cr_expect_eq(rises_when_taken(), 0);
    cr_expect_eq(rises_after(4), 1);
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect_eq(rises_when_taken(), 1, "tick %" PRIu32 " of four at once", i);
    }
    cr_expect_eq(rises_when_taken(), 0);
}

Test(pit, makes_up_for_no_more_than_it_should)
{
    uint32_t count = 0;

    begin_ticks(TICK);
    cr_expect_eq(rises_after(1000), 1);
    cr_expect_eq(rises_after(1), 1);
    while (rises_when_taken() > 0) {
        count++;
    }
    cr_expect_eq(count, PIT_OWED_MAX);
}

Test(pit, owes_nothing_of_what_is_over)
{
    begin_ticks(TICK);
    cr_expect_eq(rises_after(5), 1);
    program(0, 2, TICK); /* a new count */
    cr_expect_eq(rises_when_taken(), 0);
    pit.held += pit_nanoseconds(2);
    cr_expect_eq(rises_after(5), 1);
    set_heard(false);
    cr_expect_eq(rises_when_taken(), 0);
    cr_expect_eq(rises_after(5), 1, "for who looks");
    set_heard(true);
    cr_expect_eq(rises_when_taken(), 0);
}

Test(pit, owes_nothing_of_ticks_that_are_too_fast)
{
    begin_ticks(2);
    for (uint32_t i = 0; i < 10; i++) {
        cr_expect_eq(rises_after(1), 1);
        cr_expect_eq(rises_after(1), 1);
        cr_expect_eq(rises_when_taken(), 0);
    }
}

/* By a mode whose output is high, where it was low; and not where it was high. */
Test(pit, rises_by_a_control_word)
{
    uint32_t before;

    atomic_store(&is_heard, true);
    before = atomic_load(&rise_count);
    out(CONTROL, 0x34);
    cr_expect_eq(atomic_load(&rise_count), before);
    cr_expect(atomic_load(&level));
    out(CONTROL, 0x30);
    cr_expect_not(atomic_load(&level));
    out(CONTROL, 0x00); /* latches */
    out(CONTROL, BACK | 2);
    out(CONTROL, 0x70); /* another counter's */
    cr_expect_eq(atomic_load(&rise_count), before);
    out(CONTROL, 0x34);
    cr_expect_eq(atomic_load(&rise_count), before + 1);
}

/* --- Standing still ---------------------------------------------------------------------------------------------- */

Test(pit, stands_still_while_it_is_held)
{
    int64_t begun, held;
    uint32_t before, count;

    start();
    set_heard(true);
    out_speaker(1);
    program(0, 2, 1193);
    begun = now_nanoseconds();
    program(2, 0, 0xffff);
    while (atomic_load(&rise_count) < 3) {
    }
    pit_hold(&pit);
    held = now_nanoseconds();
    before = latched(2);
    count = atomic_load(&rise_count);
    await_time(held + 30 * MILLI);
    cr_expect_eq(latched(2), before);
    cr_expect_leq(atomic_load(&rise_count), count + 1, "a tick that was due by then");
    pit_go_on(&pit);
    if (now_nanoseconds() - begun < 80 * MILLI) {
        cr_expect_leq(before - latched(2), pit_clocks(now_nanoseconds() - held) - pit_clocks(30 * MILLI) + 1);
    }
    count = atomic_load(&rise_count);
    while (atomic_load(&rise_count) < count + 3) {
    }
}

Test(pit, owes_no_ticks_after_it_was_held)
{
    int64_t resumed;
    uint32_t before, count;

    start();
    set_heard(true);
    program(0, 3, 1193);
    while (atomic_load(&rise_count) < 3) {
    }
    pit_hold(&pit);
    await_time(now_nanoseconds() + 50 * MILLI);
    before = atomic_load(&rise_count);
    resumed = now_nanoseconds();
    pit_go_on(&pit);
    await_time(resumed + 5 * MILLI);
    count = atomic_load(&rise_count) - before;
    cr_expect_leq(count, (now_nanoseconds() - resumed) / pit_nanoseconds(1193) + 2, "%" PRIu32, count);
}

Test(pit, counts_down_once_and_is_held_meanwhile)
{
    int64_t begin, held;

    start();
    set_heard(true);
    begin = now_nanoseconds();
    program(0, 0, 11932);
    pit_hold(&pit);
    held = now_nanoseconds();
    await_time(held + 20 * MILLI);
    cr_expect_eq(atomic_load(&rise_count), 0);
    held = now_nanoseconds() - held;
    pit_go_on(&pit);
    while (atomic_load(&rise_count) == 0) {
    }
    cr_expect_geq(now_nanoseconds() - begin - held, 10 * MILLI);
}

Test(pit, goes_on_once)
{
    uint32_t before;

    out_speaker(1);
    program(2, 0, 0xffff);
    await_time(now_nanoseconds() + MILLI);
    before = latched(2);
    pit_go_on(&pit);
    cr_expect_leq(latched(2), before, "it was not held");
}

/* --- Threads ----------------------------------------------------------------------------------------------------- */

static void access_ports(void *self)
{
    (void)self;
    (void)in(0);
}

static void access_speaker(void *self)
{
    (void)self;
    (void)in_speaker();
}

static void attend(void *self)
{
    pit_attend(self);
}

/* One that is to be made up for; and one that is not, which is nobody's affair. */
static void take_one(void *self)
{
    atomic_store(&pit.untaken, 2);
    pit_taken(self);
}

static void hold(void *self)
{
    pit_hold(self);
}

static void go_on(void *self)
{
    pit_go_on(self);
}

Test(pit, is_used_by_one_thread_at_a_time)
{
    void (*const calls[])(void *) = {access_ports, access_speaker, attend, take_one, hold, go_on};

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        struct waiter waiter;

        pthread_mutex_lock(&pit.lock);
        pit_taken(&pit);
        pit_catch_up(&pit); /* neither waits */
        waiter_start(&waiter, calls[i], &pit);
        cr_expect(waiter_sleeps(&waiter), "call %zu", i);
        pthread_mutex_unlock(&pit.lock);
        waiter_join(&waiter);
    }
}

static void compare_slack(void *self)
{
    *(int *)self = prctl(PR_GET_TIMERSLACK);
}

/* Threads of this process whose timers come to the nanosecond. */
static uint32_t count_exact_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    uint32_t count = 0;

    cr_assert_not_null(tasks);
    while ((task = readdir(tasks)) != NULL) {
        char path[300], text[32] = "";
        FILE *file;

        snprintf(path, sizeof path, "/proc/%s/timerslack_ns", task->d_name);
        file = fopen(path, "r");
        count += file != NULL && fgets(text, sizeof text, file) != NULL && strcmp(text, "1\n") == 0;
        if (file != NULL) {
            fclose(file);
        }
    }
    closedir(tasks);
    return count;
}

/* Whoever starts it keeps his own, and hands it on to others. */
Test(pit, is_exact_and_leaves_others_as_they_are)
{
    int before = prctl(PR_GET_TIMERSLACK), after = 0;
    struct waiter waiter;

    start();
    cr_expect_eq(prctl(PR_GET_TIMERSLACK), before);
    waiter_start(&waiter, compare_slack, &after);
    waiter_join(&waiter);
    cr_expect_eq(after, before);
    cr_expect_eq(count_exact_threads(), 1);
}

/* Whatever its thread waits for. */
Test(pit, ends_at_once)
{
    const struct irq_line irq = {.set = set_line, .controller = &level, .number = 0};

    for (uint32_t i = 0; i < 100; i++) {
        pit_destroy(&pit);
        atomic_store(&level, true);
        pit_init(&pit, irq, hear, &is_heard);
        atomic_store(&is_heard, i % 2 != 0);
        start();
    }
}
