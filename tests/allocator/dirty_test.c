// SPDX-License-Identifier: Apache-2.0
#include "loam/dirty.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PAGE  UINT64_C(4096)
#define START UINT64_C(0x100000)

enum { PAGES = 200, TRIALS = 20000, MARKERS = 3, TAKERS = 3, ROUNDS = 400, MANY = 1000 };

static struct loam_dirty *dirty;
static void *memory;

static void make(struct loam_dirty_config config)
{
    size_t bytes = loam_dirty_bytes(&config);

    cr_assert_gt(bytes, 0);
    free(memory);
    memory = malloc(bytes); /* filled with what is not zero */
    memset(memory, 0xa5, bytes);
    cr_assert_eq(loam_dirty_init(memory, bytes - 1, &config, &dirty), LOAM_ERROR_INVALID);
    cr_assert_null(dirty);
    cr_assert_eq(loam_dirty_init(memory, bytes, &config, &dirty), LOAM_OK);
}

static void set_up(void)
{
    make((struct loam_dirty_config){.start = {START}, .bytes = PAGES * PAGE});
}

static void tear_down(void)
{
    free(memory);
}

TestSuite(dirty, .init = set_up, .fini = tear_down, .timeout = 120);

static loam_gpa at(uint64_t gpa)
{
    return loam_gpa_from_u64(gpa);
}

static loam_gpa page_at(uint64_t page)
{
    return at(START + page * PAGE);
}

/* xorshift64*: Vigna, 2016. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(0x2545f4914f6cdd1d);
}

/* --- One thread ------------------------------------------------------------------------------------------------------- */

Test(dirty, malformed_configurations_are_refused)
{
    static const struct loam_dirty_config bad[] = {
        {.start = {START}, .bytes = 0},
        {.start = {START + 1}, .bytes = PAGE},
        {.start = {LOAM_GPA_END - PAGE}, .bytes = PAGE + 1},
        {.start = {UINT64_MAX}, .bytes = PAGE},
        {.start = {START}, .bytes = PAGE, .page_bytes = 3 * PAGE},
        {.start = {START}, .bytes = PAGE, .page_bytes = 32},
        {.start = {START}, .bytes = PAGE, .page_bytes = UINT64_C(1) << 63},
    };
    const struct loam_dirty_config good = {.bytes = PAGE};
    _Alignas(8) char room[256];
    struct loam_dirty *made;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(loam_dirty_bytes(&bad[i]), 0, "%zu", i);
        cr_expect_eq(loam_dirty_init(room, sizeof room, &bad[i], &made), LOAM_ERROR_INVALID);
    }
    cr_expect_eq(loam_dirty_bytes(NULL), 0);
    cr_expect_eq(loam_dirty_init(room, sizeof room, NULL, &made), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_init(NULL, sizeof room, &good, &made), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_init(room + 4, sizeof room - 4, &good, &made), LOAM_ERROR_INVALID, "misaligned");
    cr_expect_eq(loam_dirty_init(room, sizeof room, &good, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_init(room, sizeof room, &good, &made), LOAM_OK);
}

Test(dirty, null_is_refused)
{
    loam_gpa start;
    uint64_t bytes, word;

    cr_expect_eq(loam_dirty_mark(NULL, at(0), 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_reset(NULL, at(0), 1), LOAM_ERROR_INVALID);
    cr_expect(!loam_dirty_test(NULL, at(0)));
    cr_expect_eq(loam_dirty_count(NULL), 0);
    cr_expect_eq(loam_dirty_take(NULL, at(0), 0, &start, &bytes), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_take(dirty, at(0), 0, NULL, &bytes), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_take(dirty, at(0), 0, &start, NULL), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_take_all(NULL, &word, 1), LOAM_ERROR_INVALID);
    cr_expect_eq(loam_dirty_take_all(dirty, NULL, 100), LOAM_ERROR_INVALID);
}

Test(dirty, a_range_marks_each_page_that_it_touches)
{
    cr_expect_eq(loam_dirty_count(dirty), 0, "it begins clean");
    cr_expect_eq(loam_dirty_mark(dirty, at(START + 63 * PAGE + 4095), 2), LOAM_OK);
    cr_expect(!loam_dirty_test(dirty, page_at(62)) && loam_dirty_test(dirty, page_at(63)));
    cr_expect(loam_dirty_test(dirty, at(START + 65 * PAGE - 1)) && !loam_dirty_test(dirty, page_at(65)));
    cr_expect_eq(loam_dirty_mark(dirty, page_at(70), 0), LOAM_OK);
    cr_expect_eq(loam_dirty_count(dirty), 2);
    cr_expect_eq(loam_dirty_reset(dirty, page_at(64), 1), LOAM_OK);
    cr_expect_eq(loam_dirty_count(dirty), 1);
}

Test(dirty, what_is_outside_is_said_and_the_rest_is_marked)
{
    cr_expect_eq(loam_dirty_mark(dirty, at(START - 1), 1), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_dirty_mark(dirty, page_at(PAGES), 1), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_dirty_mark(dirty, at(UINT64_MAX), UINT64_MAX), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_dirty_count(dirty), 0);
    cr_expect(!loam_dirty_test(dirty, at(START - 1)) && !loam_dirty_test(dirty, page_at(PAGES)));
    cr_expect_eq(loam_dirty_mark(dirty, at(START - 1), 2), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_dirty_mark(dirty, page_at(PAGES - 1), UINT64_MAX), LOAM_ERROR_NOT_FOUND, "no sum wraps");
    cr_expect(loam_dirty_test(dirty, page_at(0)) && loam_dirty_test(dirty, page_at(PAGES - 1)));
    cr_expect_eq(loam_dirty_count(dirty), 2);
    cr_expect_eq(loam_dirty_mark(dirty, at(0), UINT64_MAX), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_dirty_count(dirty), PAGES);
    cr_expect_eq(loam_dirty_reset(dirty, at(0), UINT64_MAX), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(loam_dirty_count(dirty), 0);
}

Test(dirty, runs_are_taken_once_across_words)
{
    loam_gpa start;
    uint64_t bytes;

    loam_dirty_mark(dirty, page_at(60), 140 * PAGE);
    loam_dirty_mark(dirty, page_at(3), PAGE);
    cr_expect_eq(loam_dirty_take(dirty, at(0), 0, &start, &bytes), LOAM_OK);
    cr_expect(start.value == START + 3 * PAGE && bytes == PAGE);
    cr_expect_eq(loam_dirty_take(dirty, start, 10 * PAGE, &start, &bytes), LOAM_OK);
    cr_expect(start.value == START + 60 * PAGE && bytes == 10 * PAGE, "no more than is wanted");
    cr_expect_eq(loam_dirty_take(dirty, at(START + 100 * PAGE + 7), 0, &start, &bytes), LOAM_OK);
    cr_expect(start.value == START + 100 * PAGE && bytes == 100 * PAGE, "from the page that holds it");
    cr_expect_eq(loam_dirty_take(dirty, at(0), 0, &start, &bytes), LOAM_OK);
    cr_expect(start.value == START + 70 * PAGE && bytes == 30 * PAGE);
    cr_expect_eq(loam_dirty_take(dirty, at(0), 0, &start, &bytes), LOAM_ERROR_NOT_FOUND);
    cr_expect(start.value == 0 && bytes == 0);
    loam_dirty_mark(dirty, page_at(5), 1);
    cr_expect_eq(loam_dirty_take(dirty, page_at(6), 0, &start, &bytes), LOAM_ERROR_NOT_FOUND, "below");
    cr_expect_eq(loam_dirty_take(dirty, at(UINT64_MAX), 0, &start, &bytes), LOAM_ERROR_NOT_FOUND);
}

Test(dirty, all_marks_are_taken_as_kvm_gives_its_own)
{
    uint64_t words[5] = {0};

    loam_dirty_mark(dirty, page_at(1), PAGE);
    loam_dirty_mark(dirty, page_at(64), PAGE);
    loam_dirty_mark(dirty, page_at(PAGES - 1), PAGE);
    words[4] = 77;
    cr_expect_eq(loam_dirty_take_all(dirty, words, 3), LOAM_ERROR_EXHAUSTED);
    cr_expect_eq(loam_dirty_count(dirty), 3);
    cr_expect_eq(loam_dirty_take_all(dirty, words, 5), LOAM_OK);
    cr_expect(words[0] == 2 && words[1] == 1 && words[2] == 0 && words[3] == UINT64_C(1) << (PAGES - 1) % 64);
    cr_expect_eq(words[4], 77);
    cr_expect_eq(loam_dirty_count(dirty), 0);
}

Test(dirty, pages_are_of_any_power_of_two)
{
    make((struct loam_dirty_config){.start = {LOAM_GIB}, .bytes = 5 * LOAM_GIB - 1, .page_bytes = LOAM_GIB});
    cr_expect_eq(loam_dirty_mark(dirty, at(6 * LOAM_GIB - 1), 1), LOAM_OK, "rounded up to whole pages");
    cr_expect(loam_dirty_test(dirty, at(5 * LOAM_GIB)) && !loam_dirty_test(dirty, at(5 * LOAM_GIB - 1)));
    make((struct loam_dirty_config){.bytes = 128, .page_bytes = 64});
    cr_expect_eq(loam_dirty_mark(dirty, at(63), 1), LOAM_OK);
    cr_expect_eq(loam_dirty_count(dirty), 1);
}

/* Held against a flag a page. */
Test(dirty, random_calls_agree_with_flags)
{
    bool flags[PAGES] = {false};
    uint64_t random = 20261127;

    for (int i = 0; i < TRIALS; i++) {
        uint64_t offset = next_random(&random) % (PAGES * PAGE), bytes = next_random(&random) % (70 * PAGE) + 1;
        uint64_t first = offset / PAGE, end = (offset + bytes - 1) / PAGE + 1, kind = next_random(&random) % 4;
        loam_gpa start;

        if (kind < 2) {
            enum loam_error error = kind == 0 ? loam_dirty_mark(dirty, at(START + offset), bytes)
                                              : loam_dirty_reset(dirty, at(START + offset), bytes);

            cr_assert_eq(error, end > PAGES ? LOAM_ERROR_NOT_FOUND : LOAM_OK);
            for (uint64_t page = first; page < end && page < PAGES; page++) {
                flags[page] = kind == 0;
            }
        } else if (kind == 2) {
            while (first < PAGES && !flags[first]) {
                first++;
            }
            for (end = first; end < PAGES && flags[end] && end - first < (bytes + PAGE - 1) / PAGE; end++) {
                flags[end] = false;
            }
            cr_assert_eq(loam_dirty_take(dirty, at(START + offset), bytes, &start, &bytes),
                         first < PAGES ? LOAM_OK : LOAM_ERROR_NOT_FOUND);
            cr_assert_eq(start.value, first < PAGES ? START + first * PAGE : 0);
            cr_assert_eq(bytes, (end - first) * PAGE);
        }
        cr_assert_eq(loam_dirty_test(dirty, page_at(first % PAGES)), flags[first % PAGES]);
    }
}

/* --- Many threads ------------------------------------------------------------------------------------------------------- */

static uint64_t contents[MANY]; /* what "the guest's page" holds; who marks it has written it before */
static atomic_uint marked[MANY], taken[MANY], markers_left, stale;

static void *mark(void *number)
{
    uint64_t random = (uintptr_t)number + 1;

    for (int round = 0; round < ROUNDS; round++) {
        for (uint64_t i = 0; i < MANY / MARKERS; i++) {
            /* Each marker has pages of its own, which lie in everybody's words. */
            uint64_t page = (next_random(&random) % (MANY / MARKERS)) * MARKERS + (uintptr_t)number;

            __atomic_store_n(&contents[page], __atomic_load_n(&contents[page], __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
            marked[page]++;
            loam_dirty_mark(dirty, page_at(page), 1);
        }
    }
    markers_left--;
    return NULL;
}

/* What is seen of a page when its last mark is taken is what was written last. */
static uint64_t seen[TAKERS][MANY];

static void *take(void *number)
{
    loam_gpa start;
    uint64_t bytes;
    bool last;

    do {
        last = markers_left == 0;
        for (loam_gpa from = {0}; loam_dirty_take(dirty, from, 0, &start, &bytes) == LOAM_OK;
             from.value = start.value + bytes) {
            for (uint64_t page = (start.value - START) / PAGE; page < (start.value + bytes - START) / PAGE; page++) {
                seen[(uintptr_t)number][page] = __atomic_load_n(&contents[page], __ATOMIC_RELAXED);
                taken[page]++;
            }
        }
    } while (!last);
    return NULL;
}

Test(dirty, no_mark_is_lost_and_none_is_taken_twice)
{
    pthread_t markers[MARKERS], takers[TAKERS];
    uint64_t newest;

    make((struct loam_dirty_config){.start = {START}, .bytes = MANY * PAGE});
    markers_left = MARKERS;
    for (uintptr_t i = 0; i < TAKERS; i++) {
        cr_assert_eq(pthread_create(&takers[i], NULL, take, (void *)i), 0);
    }
    for (uintptr_t i = 0; i < MARKERS; i++) {
        cr_assert_eq(pthread_create(&markers[i], NULL, mark, (void *)i), 0);
    }
    for (int i = 0; i < MARKERS; i++) {
        pthread_join(markers[i], NULL);
    }
    for (int i = 0; i < TAKERS; i++) {
        pthread_join(takers[i], NULL);
    }
    cr_expect_eq(loam_dirty_count(dirty), 0);
    for (uint64_t page = 0; page < MANY; page++) {
        newest = 0;
        for (int i = 0; i < TAKERS; i++) {
            newest = seen[i][page] > newest ? seen[i][page] : newest;
        }
        stale += newest != contents[page];
        cr_expect_leq(taken[page], marked[page], "page %lu", page);
    }
    cr_expect_eq(stale, 0, "pages whose last write nobody saw");
}

static pthread_barrier_t turn;

/* All begin at the lowest page, so that they meet there; what one takes too much of, another has to find. */
static void *take_in_bites(void *number)
{
    uint64_t random = (uintptr_t)number + 1, bytes;
    loam_gpa start;

    for (int round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&turn);
        while (loam_dirty_take(dirty, at(0), (next_random(&random) % 20 + 1) * PAGE, &start, &bytes) == LOAM_OK) {
            for (uint64_t page = (start.value - START) / PAGE; page < (start.value + bytes - START) / PAGE; page++) {
                taken[page]++;
            }
        }
        pthread_barrier_wait(&turn);
    }
    return NULL;
}

Test(dirty, takers_that_meet_share_what_is_there)
{
    pthread_t takers[TAKERS];

    make((struct loam_dirty_config){.start = {START}, .bytes = MANY * PAGE});
    pthread_barrier_init(&turn, NULL, TAKERS + 1);
    for (uintptr_t i = 0; i < TAKERS; i++) {
        cr_assert_eq(pthread_create(&takers[i], NULL, take_in_bites, (void *)i), 0);
    }
    for (unsigned round = 1; round <= ROUNDS; round++) {
        loam_dirty_mark(dirty, page_at(0), MANY * PAGE);
        pthread_barrier_wait(&turn);
        pthread_barrier_wait(&turn);
        for (uint64_t page = 0; page < MANY; page++) {
            cr_assert_eq(taken[page], round, "page %lu, round %u", page, round);
        }
    }
    for (int i = 0; i < TAKERS; i++) {
        pthread_join(takers[i], NULL);
    }
}
