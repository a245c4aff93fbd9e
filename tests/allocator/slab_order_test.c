// SPDX-License-Identifier: Apache-2.0
/*
 * The slab allocator's orders of memory, on a machine that keeps none but those which the code names
 * (tests/support/weak_atomic.h). Each test is one protocol of slab_layout.h, run thousands of times with other
 * interleavings and other stale values; each order that is made weaker than it has to be fails one of them.
 */
#include "tests/support/weak_atomic.h"

#include "allocator/slab/slab_pool.h"
#include "tests/allocator/slab_fixture.h"

#include <criterion/criterion.h>

/* The lock of the weak machine: who waits lets others go on. Linked in place of what lock.h leaves to lock.c. */
bool weak_lock_take_slowly(struct loam_lock *lock);
void weak_lock_wake(struct loam_lock *lock);
void weak_lock_hand_over(struct loam_lock *lock);
bool weak_lock_pass_time(struct loam_lock_patience *patience);

bool weak_lock_take_slowly(struct loam_lock *lock)
{
    uint32_t none = 0;

    while (
        !atomic_compare_exchange_strong_explicit(&lock->owner, &none, 1, memory_order_acquire, memory_order_relaxed)) {
        none = 0;
        weak_yield();
    }
    return true;
}

void weak_lock_wake(struct loam_lock *lock)
{
    cr_assert_fail("nobody sleeps at %p", (void *)lock);
}

void weak_lock_hand_over(struct loam_lock *lock)
{
    cr_assert_fail("nobody claims %p", (void *)lock);
}

bool weak_lock_pass_time(struct loam_lock_patience *patience)
{
    weak_yield();
    return patience->turns++ < 100000;
}

TestSuite(slab_order, .timeout = 300);

enum { RUNS = 8000, LEAD_MAX = 48 };

static struct world world;
static struct loam_slab_cache *a, *b, *c;
static struct loam_slab_object objects[128], x;
static enum loam_error error_a, error_b, error_c;
static struct loam_slab_object got_a;
static unsigned lead; /* how much a is to be ahead of b */

/* Cache a has taken count objects of bytes. */
static void begin(uint64_t seed, uint32_t slabs, unsigned count, size_t bytes)
{
    lead = (unsigned)(seed % LEAD_MAX);
    world_make(&world, slabs, 0, NULL);
    a = world_cache(&world);
    b = world_cache(&world);
    c = world_cache(&world);
    for (unsigned i = 0; i < count; i++) {
        objects[i] = take(a, bytes);
    }
}

/* In every run, whatever is checked, all must add up. */
static void end(void)
{
    world_validate(&world);
    world_drop(&world);
}

static void a_takes(void)
{
    error_a = loam_slab_alloc(a, 2048, &got_a);
}

static void a_drains(void)
{
    error_a = loam_slab_cache_drain(&world.slab, a);
}

static void let_a_lead(void)
{
    for (unsigned i = 0; i < lead; i++) {
        weak_yield();
    }
}

static void b_frees_x(void)
{
    let_a_lead();
    error_b = loam_slab_free(b, x.gpa, 2048);
}

static void c_frees_x(void)
{
    error_c = loam_slab_free(c, x.gpa, 2048);
}

/* x was freed by its owner, and goes from F to the owner's hand while another frees it again. */
Test(slab_order, a_second_free_is_refused_while_the_word_is_held_again)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 32, 2048);
        for (unsigned i = 0; i < 20; i++) {
            give(a, objects[i], 2048);
        }
        x = objects[19];
        weak_run(seed, 2, (void (*const[])(void)){a_takes, b_frees_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_ERROR_INVALID, "seed %lu", seed);
        end();
    }
}

static void a_takes_from_the_next_word(void)
{
    error_a = loam_slab_alloc(a, 512, &got_a);
}

static void b_frees_small_x(void)
{
    let_a_lead();
    error_b = loam_slab_free(b, x.gpa, 512);
}

/* x is live, in the first word; the owner goes on to the second, where the object of that bit is free. */
Test(slab_order, a_live_object_is_not_taken_for_one_of_another_word)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 64, 512);
        x = objects[10];
        weak_run(seed, 2, (void (*const[])(void)){a_takes_from_the_next_word, b_frees_small_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_OK, "seed %lu", seed);
        cr_assert_neq(loam_slab_check(&world.slab, x.gpa, 512, NULL), LOAM_OK);
        end();
    }
}

/* The owner holds one word after the other: the first again, and again; x is live in one of them all the while. */
static void a_changes_words(void)
{
    for (int i = 0; i < 2; i++) {
        error_a = loam_slab_alloc(a, 512, &got_a);
        cr_assert_eq(error_a, LOAM_OK);
    }
    for (unsigned i = 20; i < 24; i++) {
        give(a, objects[i], 512);
    }
    error_a = loam_slab_alloc(a, 512, &got_a);
    for (unsigned i = 30; i < 50; i++) {
        give(a, objects[i], 512);
    }
    for (int i = 0; i < 5 && error_a == LOAM_OK; i++) {
        error_a = loam_slab_alloc(a, 512, &got_a);
    }
}

/* Object n is the n-th of the first word, 64 + n of the second. Free are 3 and, of the second, what x is of the first. */
static void change_words(unsigned number_of_x, unsigned other)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 128, 512);
        give(a, objects[3], 512);
        give(a, objects[other], 512);
        x = objects[number_of_x];
        weak_run(seed, 2, (void (*const[])(void)){a_changes_words, b_frees_small_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_OK, "seed %lu", seed);
        end();
    }
}

Test(slab_order, a_live_object_is_not_taken_for_one_of_a_word_that_was_held_between)
{
    change_words(10, 64 + 10);
}

Test(slab_order, a_live_object_is_not_taken_for_one_of_a_word_that_is_held_again)
{
    change_words(64 + 35, 64 + 12);
}

/* x is free, and in the owner's hand, which drains its cache. */
Test(slab_order, a_second_free_is_refused_while_the_word_is_let_go)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 2, 2048);
        x = objects[1];
        x.gpa.value += 2048;
        weak_run(seed, 2, (void (*const[])(void)){a_drains, b_frees_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_ERROR_INVALID, "seed %lu", seed);
        end();
    }
}

/* x was freed by another, and its owner takes it back. */
Test(slab_order, a_second_free_is_refused_while_the_first_is_taken_back)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 32, 2048);
        give(b, objects[3], 2048);
        give(b, objects[5], 2048);
        x = objects[5];
        weak_run(seed, 2, (void (*const[])(void)){a_takes, b_frees_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(got_a.gpa.value, objects[3].gpa.value);
        cr_assert_eq(error_b, LOAM_ERROR_INVALID, "seed %lu", seed);
        end();
    }
}

static _Atomic uint64_t content; /* of x */
static uint64_t content_seen;

static void b_writes_x_and_frees_it(void)
{
    atomic_store_explicit(&content, 7, memory_order_relaxed);
    b_frees_x();
}

static void a_takes_x_and_reads_it(void)
{
    a_takes();
    content_seen = atomic_load_explicit(&content, memory_order_relaxed);
}

Test(slab_order, the_freer_is_done_with_an_object_before_its_next_life)
{
    unsigned met = 0;

    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 32, 2048);
        x = objects[9];
        atomic_store_explicit(&content, 0, memory_order_relaxed);
        weak_run(seed, 2, (void (*const[])(void)){a_takes_x_and_reads_it, b_writes_x_and_frees_it});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_OK);
        if (got_a.gpa.value == x.gpa.value) {
            met++;
            cr_assert_eq(content_seen, 7, "seed %lu", seed);
        }
        end();
    }
    cr_assert_gt(met, RUNS / 100);
}

/* The only slab there can be is full, and gets its first free object: its owner finds it, now or the next time. */
Test(slab_order, a_first_free_into_a_full_slab_is_noticed)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 1, 32, 2048);
        x = objects[9];
        weak_run(seed, 2, (void (*const[])(void)){a_takes, b_frees_x});
        cr_assert_eq(error_b, LOAM_OK);
        if (error_a != LOAM_OK) {
            cr_assert_eq(error_a, LOAM_ERROR_EXHAUSTED);
            a_takes();
        }
        cr_assert_eq(error_a, LOAM_OK, "lost, seed %lu", seed);
        end();
    }
}

static struct loam_slab_object y;

static void c_frees_y(void)
{
    error_c = loam_slab_free(c, y.gpa, 2048);
}

/* Two full slabs get their first free object at the same time, each from another thread. */
Test(slab_order, all_slabs_in_an_inbox_are_found)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        unsigned found = 0;

        begin(seed, 3, 96, 2048);
        x = objects[9];
        y = objects[32 + 9];
        weak_run(seed, 3, (void (*const[])(void)){a_takes, b_frees_x, c_frees_y});
        cr_assert_eq(error_b, LOAM_OK);
        cr_assert_eq(error_c, LOAM_OK);
        while (error_a == LOAM_OK) {
            found++;
            a_takes();
        }
        for (a_takes(); error_a == LOAM_OK; a_takes()) {
            found++;
        }
        cr_assert_eq(found, 2, "seed %lu: %u", seed, found);
        end();
    }
}

Test(slab_order, all_slabs_in_an_inbox_are_given_up)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 3, 96, 2048);
        x = objects[9];
        y = objects[32 + 9];
        weak_run(seed, 3, (void (*const[])(void)){a_drains, b_frees_x, c_frees_y});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_OK);
        cr_assert_eq(error_c, LOAM_OK);
        cr_assert_eq(stats_of(&world, 2048).unowned_count, 3);
        cr_assert_eq(stats_of(&world, 2048).uncollected_count, 0, "seed %lu", seed);
        end();
    }
}

Test(slab_order, a_free_while_its_slab_loses_its_owner_is_settled)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 1, 32, 2048);
        x = objects[9];
        weak_run(seed, 2, (void (*const[])(void)){a_drains, b_frees_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_OK);
        cr_assert_eq(stats_of(&world, 2048).uncollected_count, 0, "seed %lu", seed);
        cr_assert_eq(stats_of(&world, 2048).live_count, 31);
        end();
    }
}

/* The slab has no owner at first, and is taken up by another. Two free one object. */
Test(slab_order, one_of_two_frees_is_refused_while_the_slab_is_taken_up)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 1, 32, 2048);
        cr_assert_eq(loam_slab_cache_drain(&world.slab, a), LOAM_OK);
        give(b, objects[3], 2048);
        x = objects[9];
        weak_run(seed, 3, (void (*const[])(void)){a_takes, b_frees_x, c_frees_x});
        cr_assert_eq(error_a, LOAM_OK);
        if (got_a.gpa.value == objects[3].gpa.value) {
            cr_assert_eq((error_b == LOAM_OK) + (error_c == LOAM_OK), 1, "seed %lu: %s, %s", seed,
                         loam_error_name(error_b), loam_error_name(error_c));
        }
        end();
    }
}

/* --- Looking on -------------------------------------------------------------------------------------------------------- */

static uint64_t live_seen;

static void b_counts(void)
{
    struct loam_slab_class_stats stats = {0};

    let_a_lead();
    error_b = loam_slab_stats(&world.slab, slab_class_of(2048), &stats);
    live_seen = stats.live_count;
}

static void b_checks_x(void)
{
    let_a_lead();
    error_b = loam_slab_check(&world.slab, x.gpa, 2048, NULL);
}

/* Objects that another freed are taken back, and one of them is handed out again; never do they look live meanwhile. */
static void look_on_while_objects_are_taken_back(void (*look)(void), enum loam_error answer)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin(seed, 2, 32, 2048);
        give(b, objects[3], 2048);
        give(b, objects[5], 2048);
        x = objects[5];
        live_seen = 0;
        weak_run(seed, 2, (void (*const[])(void)){a_takes, look});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, answer, "seed %lu", seed);
        cr_assert_leq(live_seen, 31, "seed %lu: %lu", seed, live_seen);
        end();
    }
}

Test(slab_order, what_is_taken_back_is_not_checked_as_live)
{
    look_on_while_objects_are_taken_back(b_checks_x, LOAM_ERROR_INVALID);
}

Test(slab_order, what_is_taken_back_is_not_counted_as_live)
{
    look_on_while_objects_are_taken_back(b_counts, LOAM_OK);
}

/* --- A slab in the making ------------------------------------------------------------------------------------------------------ */

/* Its unit was used before: for a slab whose objects were all live. */
static void begin_with_a_used_unit(uint64_t seed)
{
    begin(seed, 1, 32, 2048);
    for (unsigned i = 0; i < 32; i++) {
        give(a, objects[i], 2048);
    }
    cr_assert_eq(loam_slab_cache_drain(&world.slab, a), LOAM_OK);
    cr_assert_eq(loam_slab_trim(&world.slab), LOAM_OK);
    for (unsigned word = 0; word < SLAB_UNIT_WORDS; word++) {
        slab_units(world.slab.shared)[1].free[word] = 0;
        slab_units(world.slab.shared)[1].remote[word] = 0;
    }
}

/* An object that was never handed out: somebody has its address all the same. */
Test(slab_order, nothing_is_freed_in_a_slab_in_the_making)
{
    unsigned answers[LOAM_ERROR_COUNT] = {0};

    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin_with_a_used_unit(seed);
        x = objects[7];
        weak_run(seed, 2, (void (*const[])(void)){a_takes, b_frees_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_neq(error_b, LOAM_OK, "seed %lu", seed);
        answers[error_b]++;
        end();
    }
    cr_assert_gt(answers[LOAM_ERROR_NOT_FOUND], RUNS / 100);
    cr_assert_gt(answers[LOAM_ERROR_INVALID], RUNS / 100);
}

Test(slab_order, nothing_is_live_in_a_slab_in_the_making)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin_with_a_used_unit(seed);
        x = objects[7];
        weak_run(seed, 2, (void (*const[])(void)){a_takes, b_checks_x});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_neq(error_b, LOAM_OK, "seed %lu", seed);
        end();
    }
}

Test(slab_order, nothing_is_counted_in_a_slab_in_the_making)
{
    for (uint64_t seed = 0; seed < RUNS; seed++) {
        begin_with_a_used_unit(seed);
        weak_run(seed, 2, (void (*const[])(void)){a_takes, b_counts});
        cr_assert_eq(error_a, LOAM_OK);
        cr_assert_eq(error_b, LOAM_OK);
        cr_assert_leq(live_seen, 1, "seed %lu: %lu", seed, live_seen);
        end();
    }
}
