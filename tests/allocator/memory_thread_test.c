// SPDX-License-Identifier: Apache-2.0
/* Each thread finds its cache, whatever ends first: the thread, the memory, or the process that forked. */
#include "allocator/memory_thread.h"
#include "loam/memory.h"
#include "tests/allocator/prim_fake.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MANY = 96 };

static struct loam_memory *memory;

static struct loam_memory *make_memory(void)
{
    /* Without a reserve, caches serve from their own chunks. */
    struct loam_memory_request request = {
        .bytes = 8 * LOAM_MIB, .pages = LOAM_PAGES_4K, .dma32_reserve_bytes = UINT64_MAX, .cache_capacity = MANY};
    struct loam_memory *made;
    struct loam_diag diag = {0};
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &made, &diag), LOAM_OK, "%s", diag.text);
    return made;
}

static void set_up(void)
{
    memory = make_memory();
}

static void tear_down(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
    loam_memory_destroy(memory);
    cr_assert(prim_fake_clean());
}

TestSuite(memory_thread, .init = set_up, .fini = tear_down, .timeout = 120);

static uint32_t cache_count(void)
{
    return loam_frame_get_stats(loam_memory_frame(memory)).cache_count;
}

/* A frame comes and goes; in a child, where a failed assertion would be the parent's, false says what one would. */
static bool serves(struct loam_frame_cache *cache)
{
    loam_pfn start;

    return cache != NULL && loam_frame_cache_alloc(cache, 0, loam_pfn_from_u64(0), &start) == LOAM_OK &&
           loam_frame_cache_free(cache, start, 1) == LOAM_OK;
}

static void *find(void *from)
{
    struct loam_frame_cache *cache = loam_memory_thread_cache(from);

    return serves(cache) && loam_memory_thread_cache(from) == cache ? cache : NULL;
}

static struct loam_frame_cache *find_in_thread(struct loam_memory *from)
{
    pthread_t thread;
    void *cache;

    if (pthread_create(&thread, NULL, find, from) != 0) {
        return NULL;
    }
    pthread_join(thread, &cache);
    return cache;
}

/* --- Found again, given back ------------------------------------------------------------------------------------------ */

Test(memory_thread, a_thread_finds_its_cache_again)
{
    struct loam_frame_cache *cache = loam_memory_thread_cache(memory), *other = find_in_thread(memory);

    cr_assert(serves(cache));
    cr_expect_eq(loam_memory_thread_cache(memory), cache);
    cr_expect(other != NULL && other != cache);
    cr_expect_eq(cache_count(), 1, "the other thread's is given back");
    cr_expect_null(loam_memory_thread_cache(NULL));
}

Test(memory_thread, buffers_are_carved_out_of_it)
{
    struct loam_dma_request request = {.owner = "x", .bytes = 4096, .cache = loam_memory_thread_cache(memory)};
    struct loam_dma_buffer buffer;

    cr_assert_eq(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, NULL), LOAM_OK);
    cr_expect_gt(loam_frame_get_stats(loam_memory_frame(memory)).cached_frames, 0);
    cr_expect_eq(loam_dma_release_into(loam_memory_dma(memory), buffer.id, request.cache), LOAM_OK);
}

/* More than a thread remembers, so that one is found in the list again. */
Test(memory_thread, each_memory_has_its_own)
{
    struct loam_memory *memories[9];
    struct loam_frame_cache *caches[9];

    for (int i = 0; i < 9; i++) {
        memories[i] = make_memory();
        caches[i] = loam_memory_thread_cache(memories[i]);
        cr_assert(serves(caches[i]));
    }
    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < 9; i++) {
            cr_expect_eq(loam_memory_thread_cache(memories[i]), caches[i]);
        }
    }
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memories[3])).cache_count, 1);
    for (int i = 0; i < 9; i += 2) {
        loam_memory_destroy(memories[i]);
    }
    for (int i = 1; i < 9; i += 2) {
        cr_expect_eq(loam_memory_thread_cache(memories[i]), caches[i], "the others' are there still");
        loam_memory_destroy(memories[i]);
    }
}

Test(memory_thread, many_threads_one_after_the_other_use_none_up)
{
    for (int i = 0; i < 3 * MANY; i++) {
        cr_assert_not_null(find_in_thread(memory), "thread %d", i);
    }
    cr_expect_eq(cache_count(), 0);
    cr_expect_eq(loam_frame_get_stats(loam_memory_frame(memory)).cached_frames, 0);
}

/* --- The memory goes first ----------------------------------------------------------------------------------------- */

static pthread_barrier_t found, gone;

/* The next memory may well lie where the last one did: the cache of that one is not to be found. */
static void *outlive(void *unused)
{
    struct loam_frame_cache *cache = find(memory);

    pthread_barrier_wait(&found);
    pthread_barrier_wait(&gone);
    return cache != NULL && find(memory) != NULL ? memory : unused;
}

Test(memory_thread, a_memory_may_go_before_its_threads)
{
    pthread_t thread;
    void *result;

    pthread_barrier_init(&found, NULL, 2);
    pthread_barrier_init(&gone, NULL, 2);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, outlive, NULL), 0);
        pthread_barrier_wait(&found);
        cr_expect_eq(cache_count(), 1);
        loam_memory_destroy(memory);
        cr_expect(prim_fake_live().key_count == 0, "nothing is left");
        memory = make_memory();
        cr_expect_eq(cache_count(), 0);
        pthread_barrier_wait(&gone);
        pthread_join(thread, &result);
        cr_expect_eq(result, memory);
        cr_expect_eq(cache_count(), 0, "the thread has given the new one's back");
    }
}

/* --- The limit --------------------------------------------------------------------------------------------------------- */

static void *hold(void *unused)
{
    struct loam_frame_cache *cache = loam_memory_thread_cache(memory);

    pthread_barrier_wait(&found);
    pthread_barrier_wait(&gone);
    return cache != NULL ? memory : unused;
}

Test(memory_thread, as_many_threads_as_said_have_one_at_once)
{
    pthread_t threads[MANY];
    void *result;

    pthread_barrier_init(&found, NULL, MANY + 1);
    pthread_barrier_init(&gone, NULL, MANY + 1);
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, hold, NULL), 0);
    }
    pthread_barrier_wait(&found);
    cr_expect_eq(cache_count(), MANY);
    cr_expect_null(loam_memory_thread_cache(memory), "one too many");
    pthread_barrier_wait(&gone);
    for (int i = 0; i < MANY; i++) {
        pthread_join(threads[i], &result);
        cr_expect_eq(result, memory, "thread %d", i);
    }
    cr_expect_eq(cache_count(), 0);
    cr_expect(serves(loam_memory_thread_cache(memory)), "it is served once there is room");
}

/* --- What ends after it ------------------------------------------------------------------------------------------------ */

/* A destructor of the program's own that runs after Loam's, and frees what the thread had with it. */
static void free_late(void *unused)
{
    (void)unused;
    if (!serves(loam_memory_thread_cache(memory))) {
        abort();
    }
}

static void *end_late(void *late)
{
    void *cache = find(memory);

    pthread_setspecific(*(pthread_key_t *)late, late);
    return cache;
}

Test(memory_thread, what_a_dying_thread_still_takes_is_given_back)
{
    pthread_key_t late;
    pthread_t thread;
    void *cache;

    cr_assert(serves(loam_memory_thread_cache(memory)), "Loam's key is made first");
    cr_assert_eq(pthread_key_create(&late, free_late), 0);
    for (int i = 0; i < 2 * MANY; i++) {
        cr_assert_eq(pthread_create(&thread, NULL, end_late, &late), 0);
        pthread_join(thread, &cache);
        cr_assert_not_null(cache);
        cr_assert_eq(cache_count(), 1, "this thread's alone");
    }
    pthread_key_delete(late);
}

/* --- A system that refuses --------------------------------------------------------------------------------------------- */

Test(memory_thread, without_a_key_there_is_no_cache_and_later_one)
{
    static const enum prim_kind kinds[] = {PRIM_KEY_MAKE, PRIM_KEY_SET};

    for (int i = 0; i < 2; i++) {
        prim_fake_fail(kinds[i], 1, 1, i == 0 ? EAGAIN : ENOMEM);
        cr_expect_null(loam_memory_thread_cache(memory));
        cr_expect_eq(prim_fake_failed_count(), 1);
        cr_expect_eq(cache_count(), 0);
        prim_fake_fail_none();
    }
    cr_expect(serves(loam_memory_thread_cache(memory)));
}

/* The program has made so many of its own that the allocator has no room. */
Test(memory_thread, caches_of_the_program_count)
{
    struct loam_frame_cache *caches[MANY];

    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(loam_frame_cache_make(loam_memory_frame(memory), &caches[i]), LOAM_OK);
    }
    cr_expect_null(loam_memory_thread_cache(memory));
    for (int i = 0; i < MANY; i++) {
        cr_assert_eq(loam_frame_cache_destroy(caches[i]), LOAM_OK);
    }
    cr_expect(serves(loam_memory_thread_cache(memory)));
}

/* --- fork(2) ------------------------------------------------------------------------------------------------------------ */

#define REQUIRE(condition) require(condition, __LINE__)

static void require(bool condition, int line)
{
    if (!condition) {
        fprintf(stderr, "line %d is wrong\n", line);
        _exit(1);
    }
}

static void assert_ended_well(pid_t child)
{
    int status;

    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %#x", (unsigned)status);
}

/* In the midst of calls: see memory_fork_test. All other threads' caches are a child's to use: as many threads as ever get one there. */
Test(memory_thread, a_child_has_its_own_threads_only)
{
    struct loam_frame_cache *cache = loam_memory_thread_cache(memory);
    pthread_t threads[MANY];
    void *result;
    pid_t child;

    pthread_barrier_init(&found, NULL, MANY);
    pthread_barrier_init(&gone, NULL, MANY);
    for (int i = 1; i < MANY; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, hold, NULL), 0);
    }
    pthread_barrier_wait(&found);
    cr_assert_eq(cache_count(), MANY);
    child = fork();
    if (child == 0) {
        struct loam_diag diag = {0};

        REQUIRE(loam_memory_thread_cache(memory) == cache && serves(cache));
        pthread_barrier_init(&found, NULL, MANY);
        pthread_barrier_init(&gone, NULL, MANY);
        for (int i = 1; i < MANY; i++) {
            REQUIRE(pthread_create(&threads[i], NULL, hold, NULL) == 0);
        }
        pthread_barrier_wait(&found);
        pthread_barrier_wait(&gone);
        for (int i = 1; i < MANY; i++) {
            REQUIRE(pthread_join(threads[i], &result) == 0 && result == memory);
        }
        REQUIRE(cache_count() == 1);
        REQUIRE(loam_memory_validate(memory, &diag) == LOAM_OK);
        loam_memory_destroy(memory);
        _exit(0);
    }
    assert_ended_well(child);
    cr_expect_eq(cache_count(), MANY, "the parent's are as they were");
    pthread_barrier_wait(&gone);
    for (int i = 1; i < MANY; i++) {
        pthread_join(threads[i], &result);
    }
    cr_expect_eq(cache_count(), 1);
}
