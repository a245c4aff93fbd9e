// SPDX-License-Identifier: Apache-2.0
/*
 * What the frame allocator does when an owner cannot be stopped: the barrier is refused, or the owner does not leave its
 * call. Nothing that was not made sure of is assumed, nothing is lost, and once the cause is gone all goes on. And what it
 * does when the holder of its lock has died.
 */
#include "allocator/frame_cache/frame_cache.h"
#include "tests/allocator/frame_fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static bool refuses;
static unsigned barriers;

/* One thread plays owner and others, so a barrier is nothing but its answer. */
static bool barrier(void)
{
    barriers++;
    return !refuses;
}

static void begin(void)
{
    loam_frame_set_barrier(barrier);
}

TestSuite(frame_stop, .init = begin, .fini = free_kept, .timeout = 120);

enum { START = 512 * 10, FRAMES = 512 * 2 };

struct user {
    struct loam_frame *frame;
    struct loam_frame_cache *cache;
    loam_pfn own; /* a block of the cache's */
};

/* An allocator whose chunks are the cache's, all but one. */
static struct user user_make(void)
{
    struct user user = {.frame = make_with(START, FRAMES)};

    cr_assert_eq(loam_frame_cache_make(user.frame, &user.cache), LOAM_OK);
    cr_assert_eq(loam_frame_cache_alloc(user.cache, 0, pfn(0), &user.own), LOAM_OK);
    return user;
}

/* Every call that wants the owner stopped is refused, or does without, and changes nothing. */
static void assert_left_alone(struct user *user)
{
    struct loam_frame_request all = {.count_frames = FRAMES}, at = {.count_frames = 1, .flags = LOAM_FRAME_AT};
    struct loam_frame_cache before = *user->cache;
    struct loam_frame_stats stats = loam_frame_get_stats(user->frame), after;
    struct loam_diag diag = {0};
    struct loam_frame_block block;

    at.at = pfn(user->own.value + 1);
    cr_assert_eq(loam_frame_validate(user->frame, &diag), LOAM_ERROR_BUSY, "%s", diag.text);
    cr_assert_not_null(strstr(diag.text, "could not be stopped"), "%s", diag.text);
    cr_assert_eq(loam_frame_alloc(user->frame, &all, &block), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_alloc(user->frame, &at, &block), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_split(user->frame, user->own, 1, 1), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_set_backed(user->frame, user->own, 1), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_tag_set(user->frame, user->own, LOAM_FRAME_TAG_SLAB), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_free(user->frame, pfn(user->own.value + 1), 1), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_cache_drain(user->cache), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_section_remove(user->frame, 0, NULL), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_query(user->frame, user->own).state, LOAM_FRAME_ALLOCATED);
    after = loam_frame_get_stats(user->frame);
    cr_assert_eq(memcmp(&stats, &after, sizeof stats), 0);
    cr_assert_eq(memcmp(&before, user->cache, sizeof before), 0, "the cache was touched");
}

Test(frame_stop, a_refused_barrier_leaves_caches_alone)
{
    struct user user = user_make();
    loam_pfn start;

    refuses = true;
    assert_left_alone(&user);
    cr_assert_gt(barriers, 0);
    cr_assert_eq(loam_frame_cache_alloc(user.cache, 0, pfn(0), &start), LOAM_OK);
    cr_assert_eq(loam_frame_cache_free(user.cache, start, 1), LOAM_OK);
    refuses = false;
    cr_assert_eq(loam_frame_free(user.frame, user.own, 1), LOAM_OK);
    assert_valid(user.frame);
    cr_assert_eq(loam_frame_get_stats(user.frame).allocated_frames, 0);
}

/* What the owner does himself needs no barrier: misuse is told, and a batch that is not served whole leaves nothing. */
Test(frame_stop, an_owner_needs_no_barrier_for_himself)
{
    struct user user = user_make();
    struct loam_frame_stats before, after;
    loam_pfn starts[FRAMES];
    size_t done;

    refuses = true;
    before = loam_frame_get_stats(user.frame);
    cr_assert_eq(loam_frame_cache_alloc_batch(user.cache, 0, pfn(0), starts, FRAMES), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_alloc_batch(user.cache, 3, pfn(0), starts, FRAMES / 8), LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_alloc_batch(user.cache, 9, pfn(0), starts, 2), LOAM_ERROR_EXHAUSTED);
    after = loam_frame_get_stats(user.frame);
    cr_assert_eq(memcmp(&before, &after, sizeof before), 0);
    cr_assert_eq(loam_frame_cache_free(user.cache, pfn(user.own.value + 1), 1), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_free_batch(user.cache, 0, &(loam_pfn){user.own.value + 1}, 1, &done),
                 LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_free(user.cache, user.own, 2), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_free(user.cache, user.own, 1), LOAM_OK);
    cr_assert_eq(loam_frame_cache_free(user.cache, user.own, 1), LOAM_ERROR_INVALID);
    refuses = false;
    assert_valid(user.frame);
    cr_assert_eq(loam_frame_get_stats(user.frame).allocated_frames, 0);
}

/* Where others have freed once they may free on, and whatever a cache borrows after a refusal is everybody's. */
Test(frame_stop, what_is_shared_already_is_freed_without_a_barrier)
{
    struct user user = user_make();
    loam_pfn starts[FRAMES];

    add(user.frame, START + 2 * FRAMES, FRAMES);
    for (int i = 0; i < 700; i++) {
        cr_assert_eq(loam_frame_cache_alloc(user.cache, 0, pfn(0), &starts[i]), LOAM_OK);
    }
    cr_assert_eq(loam_frame_free(user.frame, starts[0], 1), LOAM_OK);
    refuses = true;
    cr_assert_eq(loam_frame_free(user.frame, starts[1], 1), LOAM_OK);
    cr_assert_eq(loam_frame_free(user.frame, starts[1], 1), LOAM_ERROR_INVALID);
    cr_assert_eq(loam_frame_cache_drain(user.cache), LOAM_ERROR_BUSY);
    cr_assert_eq(loam_frame_free(user.frame, user.own, 1), LOAM_OK, "the same chunk");
    cr_assert_eq(loam_frame_free(user.frame, starts[600], 1), LOAM_ERROR_BUSY, "its neighbour, borrowed before");
    for (int i = 700; i < FRAMES; i++) {
        cr_assert_eq(loam_frame_cache_alloc(user.cache, 0, pfn(0), &starts[i]), LOAM_OK);
    }
    cr_assert_eq(loam_frame_free(user.frame, starts[FRAMES - 1], 1), LOAM_OK, "borrowed after");
    refuses = false;
    assert_valid(user.frame);
}

/* Who may destroy a cache has no owner to fear. */
Test(frame_stop, a_cache_is_destroyed_without_a_barrier)
{
    struct user user = user_make();

    refuses = true;
    cr_assert_eq(loam_frame_cache_destroy(user.cache), LOAM_OK);
    cr_assert_eq(loam_frame_free(user.frame, user.own, 1), LOAM_OK);
    assert_valid(user.frame);
    cr_assert_eq(loam_frame_get_stats(user.frame).cache_count, 0);
}

/* As an owner that was stopped by a signal, or died, between the first and the last store of a call. */
Test(frame_stop, an_owner_that_stays_in_its_call_is_waited_for_in_vain_but_not_for_ever)
{
    struct user user = user_make();
    struct loam_frame_block block;

    user.cache->busy = 1;
    cr_assert_eq(loam_frame_alloc(user.frame, &(struct loam_frame_request){.count_frames = FRAMES}, &block),
                 LOAM_ERROR_EXHAUSTED);
    cr_assert_eq(loam_frame_cache_destroy(user.cache), LOAM_ERROR_BUSY);
    cr_assert_eq(user.cache->forbidden, FRAME_RUNNING);
    user.cache->busy = 0;
    assert_valid(user.frame);
    cr_assert_eq(loam_frame_cache_destroy(user.cache), LOAM_OK);
    cr_assert_eq(loam_frame_free(user.frame, user.own, 1), LOAM_OK);
    assert_valid(user.frame);
}

/*
 * The owner and another free one block at the same moment: the other took it out of what is made after the owner had
 * looked, and the owner's store came after that. It is free once.
 */
Test(frame_stop, a_store_of_the_owner_that_comes_late_counts_for_nothing)
{
    static bool had[FRAMES];
    struct user user = user_make();
    struct frame_window *window = &user.cache->window[0][FRAME_SET_ANY];
    uint64_t bit = user.own.value - window->base;
    loam_pfn start;

    cr_assert_lt(bit, 64);
    cr_assert_eq(loam_frame_free(user.frame, user.own, 1), LOAM_OK);
    window->back |= UINT64_C(1) << bit;
    assert_valid(user.frame);
    window->back |= UINT64_C(1) << bit;
    for (int i = 0; i < FRAMES; i++) {
        cr_assert_eq(loam_frame_cache_alloc(user.cache, 0, pfn(0), &start), LOAM_OK, "frame %d", i);
        cr_assert_not(had[start.value - START], "frame %#llx is given twice", (unsigned long long)start.value);
        had[start.value - START] = true;
    }
    assert_valid(user.frame);
}

/* --- Chunks that come on loan again -------------------------------------------------------------------------------- */

struct borrower {
    struct loam_frame_cache *cache;
    atomic_bool begun;
    enum loam_error error;
};

static void *borrow(void *argument)
{
    struct borrower *borrower = argument;
    loam_pfn start;

    atomic_store(&borrower->begun, true);
    borrower->error = loam_frame_cache_alloc(borrower->cache, 0, pfn(0), &start);
    return NULL;
}

/* Who had found the chunk on loan, and has its lock, looks whether it still is: it is not lent again before he has. */
Test(frame_stop, a_chunk_is_not_lent_while_somebody_is_in_it)
{
    struct loam_frame *frame = make_with(START, FRAMES);
    struct frame_chunk *chunks = frame_chunks(frame, &frame_sections(frame)[0]);
    struct borrower borrower = {.error = LOAM_ERROR_INVALID};
    pthread_t thread;

    cr_assert_eq(loam_frame_cache_make(frame, &borrower.cache), LOAM_OK);
    for (int n = 0; n < FRAMES / 512; n++) {
        shared_store(chunks[n].lock, FRAME_LOCK_HELD);
    }
    cr_assert_eq(pthread_create(&thread, NULL, borrow, &borrower), 0);
    while (!atomic_load(&borrower.begun)) {
        sched_yield();
    }
    for (int i = 0; i < 2000; i++) {
        sched_yield();
        cr_assert_eq(shared_load(chunks[0].owner) + shared_load(chunks[1].owner), 0);
    }
    for (int n = 0; n < FRAMES / 512; n++) {
        frame_lend_unlock(&chunks[n]);
    }
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(borrower.error, LOAM_OK);
    assert_valid(frame);
}

/* Before fork(2): what caches have ready is settled, so that the child's copy is whole. */
Test(frame_stop, owners_stand_still_while_all_is_frozen)
{
    struct user user = user_make();

    loam_frame_freeze(user.frame);
    cr_assert_eq(barriers, 1);
    cr_assert_eq(user.cache->forbidden, FRAME_STOPPED);
    cr_assert_eq(user.cache->window[0][LOAM_FRAME_ZONE_DMA32].made, 0);
    loam_frame_thaw(user.frame);
    cr_assert_eq(user.cache->forbidden, FRAME_RUNNING);
    cr_assert_eq(loam_frame_cache_free(user.cache, user.own, 1), LOAM_OK);
    assert_valid(user.frame);
}

/* --- The lock's holder died ---------------------------------------------------------------------------------------- */

static struct loam_frame *in_shared_memory(void)
{
    size_t bytes = loam_frame_bytes(NULL) + loam_align_up(1 << 20, 64);
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct loam_frame *frame;

    cr_assert_neq(memory, MAP_FAILED);
    cr_assert_eq(loam_frame_init(memory, loam_frame_bytes(NULL), NULL, &frame), LOAM_OK);
    cr_assert_eq(loam_frame_section_add(frame, pfn(START), FRAMES, memory + loam_align_up(loam_frame_bytes(NULL), 64),
                                        1 << 20, NULL),
                 LOAM_OK);
    return frame;
}

static void die_with_the_lock(struct loam_frame *frame)
{
    pid_t child = fork();

    if (child == 0) {
        loam_frame_freeze(frame);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, NULL, 0), child);
}

Test(frame_stop, after_a_holder_died_nothing_changes_until_all_was_found_in_order)
{
    struct loam_frame *frame = in_shared_memory();
    struct loam_frame_stats stats = loam_frame_get_stats(frame), after;
    struct loam_diag diag = {0};
    loam_pfn start;

    die_with_the_lock(frame);
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_ERROR_CORRUPT);
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_ERROR_CORRUPT);
    after = loam_frame_get_stats(frame);
    cr_assert_eq(memcmp(&stats, &after, sizeof stats), 0);
    cr_assert_eq(loam_frame_validate(frame, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_OK);
}

/* It died in the middle of something. */
Test(frame_stop, what_a_dead_holder_left_undone_is_found)
{
    struct loam_frame *frame = in_shared_memory();
    struct loam_diag diag = {0};
    loam_pfn start;

    cr_assert_eq(loam_frame_alloc_order(frame, 0, &start), LOAM_OK);
    frame->free_frames[LOAM_FRAME_ZONE_DMA32]--;
    die_with_the_lock(frame);
    cr_assert_eq(loam_frame_free(frame, start, 1), LOAM_ERROR_CORRUPT);
    cr_assert_eq(loam_frame_validate(frame, &diag), LOAM_ERROR_CORRUPT);
    cr_assert_eq(loam_frame_free(frame, start, 1), LOAM_ERROR_CORRUPT);
}
