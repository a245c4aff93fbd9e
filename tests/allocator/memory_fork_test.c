// SPDX-License-Identifier: Apache-2.0
/*
 * fork(2) while other threads are in the library. The child, which has none of them, must neither hang nor find anything
 * half done; and nothing that it does comes back to its parent.
 *
 * A sanitizer's heap and its list of threads have locks that a child finds held for ever if a thread of its parent was there
 * at the fork. So with a sanitizer no thread takes heap or starts others while a fork may come.
 */
#include "loam/frame_cache.h"
#include "loam/memory.h"
#include "loam/slab.h"
#include "tests/allocator/slab_fixture.h"
#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 40, THREADS = 8 };

static struct loam_memory *memory;
static atomic_bool enough;
static atomic_ulong turns[THREADS];

static struct loam_memory *made_memory(void)
{
    /* Without a reserve, caches serve from their own chunks. */
    struct loam_memory_request request = {
        .bytes = 64 * LOAM_MIB, .pages = LOAM_PAGES_4K, .dma32_reserve_bytes = UINT64_MAX};
    struct loam_memory *made;
    struct loam_diag diag = {0};
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &made, &diag), LOAM_OK, "%s", diag.text);
    return made;
}

static void make_memory(void)
{
    memory = made_memory();
}

static void destroy_memory(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(loam_memory_validate(memory, &diag), LOAM_OK, "%s", diag.text);
    loam_memory_destroy(memory);
}

TestSuite(memory_fork, .init = make_memory, .fini = destroy_memory, .timeout = 300);

static void require(bool condition, int line)
{
    if (!condition) {
        fprintf(stderr, "line %d is wrong\n", line);
        _exit(line % 200 + 1);
    }
}

#define REQUIRE(condition) require(condition, __LINE__)

/* --- Threads that are always in a call ------------------------------------------------------------------------------- */

static void use_frames(void)
{
    struct loam_frame_request request = {.count_frames = 3};
    struct loam_frame_block block;

    REQUIRE(loam_frame_alloc(loam_memory_frame(memory), &request, &block) == LOAM_OK);
    REQUIRE(loam_frame_free(loam_memory_frame(memory), block.start, 3) == LOAM_OK);
}

static void use_ledger(void)
{
    struct loam_dma_request request = {.owner = "thread", .bytes = 4096};
    struct loam_dma_buffer buffer;

    REQUIRE(loam_dma_alloc(loam_memory_dma(memory), &request, &buffer, NULL) == LOAM_OK);
    REQUIRE(loam_dma_release(loam_memory_dma(memory), buffer.id) == LOAM_OK);
}

/* Two threads change the map at once, each its own place: a change of the one that undoes the other's is seen. */
static void use_map(uint64_t place)
{
    struct loam_region device = {.start = {(64 + place) * LOAM_GIB}, .bytes = 4096, .type = LOAM_REGION_DEVICE};

    for (int i = 0; i < 100; i++) {
        enum loam_error error = loam_gpa_map_insert(loam_memory_map(memory), &device);

        if (error != LOAM_OK) {
            continue;
        }
        do {
            error = loam_gpa_map_remove(loam_memory_map(memory), device.start, 4096);
            REQUIRE(error == LOAM_OK || error == LOAM_ERROR_BUSY);
        } while (error != LOAM_OK);
    }
}

static void use_cache(struct loam_frame_cache *cache)
{
    loam_pfn pfns[64];
    unsigned count = 0;

    while (count < 64 && loam_frame_cache_alloc(cache, count % 5, loam_pfn_from_u64(0), &pfns[count]) == LOAM_OK) {
        count++;
    }
    for (unsigned i = 0; i < count; i++) {
        REQUIRE(loam_frame_cache_free(cache, pfns[i], UINT64_C(1) << i % 5) == LOAM_OK);
    }
}

static void *use_found_cache(void *of)
{
    REQUIRE(loam_memory_thread_cache(of) != NULL);
    use_cache(loam_memory_thread_cache(of));
    return NULL;
}

/* A thread that leaves its cache behind. */
static void use_thread(void)
{
    pthread_t thread;

    REQUIRE(pthread_create(&thread, NULL, use_found_cache, memory) == 0 && pthread_join(thread, NULL) == 0);
}

static void use_other_memory(void)
{
    struct loam_memory *made = made_memory();

    use_found_cache(made);
    loam_memory_destroy(made);
}

static void *work(void *number)
{
    struct loam_frame_cache *cache = NULL;

    REQUIRE((uintptr_t)number < 6 || loam_frame_cache_make(loam_memory_frame(memory), &cache) == LOAM_OK);
    while (!enough) {
        switch ((uintptr_t)number) {
        case 0:
            use_frames();
            break;
        case 1:
            use_ledger();
            break;
        case 2:
        case 3:
            use_map((uintptr_t)number);
            break;
        case 4:
            if (!SANITIZER_MAPS) {
                use_thread();
            }
            break;
        case 5:
            if (!SANITIZER_MAPS) {
                use_other_memory();
            }
            break;
        default:
            use_cache(cache);
            break;
        }
        turns[(uintptr_t)number]++;
    }
    REQUIRE(cache == NULL || loam_frame_cache_destroy(cache) == LOAM_OK);
    return NULL;
}

/* Each thread has gone on since, so that forks meet it in another place. */
static void await_turns(void)
{
    for (int i = 0; i < THREADS; i++) {
        unsigned long before = turns[i];

        while (turns[i] == before) {
            sched_yield();
        }
    }
}

/* --- Children ------------------------------------------------------------------------------------------------------------ */

static void use_all_in_child(void)
{
    struct loam_frame_cache *cache;
    struct loam_diag diag = {0};

    alarm(60);
    if (loam_memory_validate(memory, &diag) != LOAM_OK) {
        fprintf(stderr, "%s\n", diag.text);
        _exit(201);
    }
    use_frames();
    use_ledger();
    use_map(9);
    use_found_cache(memory);
    use_thread();
    REQUIRE(loam_frame_cache_make(loam_memory_frame(memory), &cache) == LOAM_OK);
    use_cache(cache);
    REQUIRE(loam_frame_validate(loam_memory_frame(memory), &diag) == LOAM_OK);
    REQUIRE(loam_frame_cache_destroy(cache) == LOAM_OK);
    loam_memory_destroy(memory);
    _exit(0);
}

static void await_child(pid_t child)
{
    int status;

    cr_assert_gt(child, 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0, "status %#x", (unsigned)status);
}

Test(memory_fork, a_child_uses_what_other_threads_were_using)
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    }
    for (int i = 0; i < FORKS; i++) {
        pid_t child;

        await_turns();
        child = fork();
        if (child == 0) {
            use_all_in_child();
        }
        await_child(child);
    }
    enough = true;
    for (int i = 0; i < THREADS; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
}

/* A child's child, memories made in a child, and memories that are gone when it is forked. */
Test(memory_fork, memories_come_and_go_on_both_sides)
{
    struct loam_memory *first = memory;
    pid_t child;

    make_memory();
    loam_memory_destroy(first);
    child = fork();
    if (child == 0) {
        pid_t grandchild;

        first = memory;
        make_memory();
        grandchild = fork();
        if (grandchild == 0) {
            loam_memory_destroy(first);
            use_all_in_child();
        }
        await_child(grandchild);
        loam_memory_destroy(first);
        use_all_in_child();
    }
    await_child(child);
}

static void *plug_and_unplug(void *argument)
{
    struct loam_plug_request request = {.backing = {.bytes = 4 * LOAM_MIB, .pages = LOAM_PAGES_4K}};
    struct loam_backing_info info;

    (void)argument;
    while (!enough) {
        cr_assert_eq(loam_memory_plug(memory, &request, &info, NULL), LOAM_OK);
        cr_assert_eq(loam_memory_unplug(memory, info.gpa, NULL, NULL), LOAM_OK);
        atomic_fetch_add(&turns[0], 1);
    }
    return NULL;
}

Test(memory_fork, a_child_destroys_what_was_coming_and_going)
{
    pthread_t thread;

    if (SANITIZER_MAPS) {
        cr_skip("a block that is plugged takes the sanitizer's heap");
    }
    cr_assert_eq(pthread_create(&thread, NULL, plug_and_unplug, NULL), 0);
    while (turns[0] == 0) {
        sched_yield();
    }
    for (int i = 0; i < 10 * FORKS; i++) {
        pid_t child = fork();

        if (child == 0) {
            loam_memory_destroy(memory);
            _exit(0);
        }
        await_child(child);
    }
    enough = true;
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* --- Modules by themselves: nobody freezes them, and their memory is private ----------------------------------------------- */

static struct world world; /* a slab allocator on a frame allocator */
static struct loam_gpa_map *map;
static struct loam_dma *dma;

static void freeze_frame(void)
{
    loam_frame_freeze(world.frame);
}

static void freeze_slab(void)
{
    loam_slab_freeze(&world.slab);
}

static void freeze_map(void)
{
    loam_gpa_map_freeze(map);
}

static void freeze_ledger(void)
{
    loam_dma_freeze(dma);
}

static void make_modules(void)
{
    static _Alignas(64) char map_memory[1 << 20];

    world_make(&world, 16, 0, &(struct loam_slab_config){0});
    cr_assert_leq(loam_gpa_map_bytes(NULL), sizeof map_memory);
    cr_assert_eq(loam_gpa_map_init(map_memory, sizeof map_memory, NULL, &map), LOAM_OK);
    cr_assert_eq(loam_gpa_map_insert(map, &(struct loam_region){.start = {LOW_START},
                                                                .bytes = 16 * LOAM_SLAB_BYTES,
                                                                .hva = world.memory[0],
                                                                .type = LOAM_REGION_RAM,
                                                                .access = LOAM_ACCESS_WRITE}),
                 LOAM_OK);
    cr_assert_eq(loam_dma_create(world.frame, map, &dma), LOAM_OK);
}

static void end_modules(void)
{
    cr_assert_eq(loam_dma_destroy(dma), 0);
    world_drop(&world);
}

TestSuite(module_fork, .init = make_modules, .fini = end_modules, .timeout = 300);

static void (*freeze)(void);
static void (*thaw_again)(void);
static sem_t is_frozen, thaws;

static void *freeze_for_a_while(void *unused)
{
    freeze();
    sem_post(&is_frozen);
    sem_wait(&thaws);
    thaw_again();
    return unused;
}

/* Run check in a child, while another thread, which the child has not, is in a call that holds a lock. */
static void fork_while(void (*how)(void), void (*thaw)(void), void (*check)(void))
{
    pthread_t thread;
    pid_t child;

    freeze = how;
    thaw_again = thaw;
    sem_init(&is_frozen, 0, 0);
    sem_init(&thaws, 0, 0);
    cr_assert_eq(pthread_create(&thread, NULL, freeze_for_a_while, NULL), 0);
    sem_wait(&is_frozen);
    child = fork();
    if (child == 0) {
        alarm(60);
        check();
        _exit(0);
    }
    await_child(child);
    sem_post(&thaws);
    pthread_join(thread, NULL);
}

static void check_frame(void)
{
    struct loam_diag diag = {0};
    loam_pfn start;

    REQUIRE(loam_frame_alloc_order(world.frame, 0, &start) == LOAM_ERROR_CORRUPT);
    REQUIRE(loam_frame_validate(world.frame, &diag) == LOAM_OK);
    REQUIRE(loam_frame_alloc_order(world.frame, 0, &start) == LOAM_OK);
}

static void thaw_frame(void)
{
    loam_frame_thaw(world.frame);
}

Test(module_fork, a_frame_allocator_is_suspect_in_the_child)
{
    fork_while(freeze_frame, thaw_frame, check_frame);
    cr_assert_eq(loam_frame_validate(world.frame, NULL), LOAM_OK);
}

static void check_slab(void)
{
    struct loam_diag diag = {0};
    struct loam_slab_cache *cache;
    struct loam_slab_object object;

    REQUIRE(loam_slab_cache_make(&world.slab, &cache) == LOAM_OK);
    REQUIRE(loam_slab_alloc(cache, 64, &object) == LOAM_ERROR_CORRUPT);
    REQUIRE(loam_slab_alloc(cache, 64, &object) == LOAM_ERROR_CORRUPT);
    REQUIRE(loam_slab_validate(&world.slab, &diag) == LOAM_OK);
    REQUIRE(loam_slab_alloc(cache, 64, &object) == LOAM_OK);
}

static void thaw_slab(void)
{
    loam_slab_thaw(&world.slab);
}

Test(module_fork, a_slab_allocator_is_suspect_in_the_child)
{
    fork_while(freeze_slab, thaw_slab, check_slab);
    world_validate(&world);
}

static void check_map(void)
{
    struct loam_region device = {.start = {64 * LOAM_GIB}, .bytes = 4096, .type = LOAM_REGION_DEVICE};
    struct loam_diag diag = {0};

    REQUIRE(loam_gpa_map_insert(map, &device) == LOAM_OK);
    REQUIRE(loam_gpa_map_validate(map, &diag) == LOAM_OK);
}

static void thaw_map(void)
{
    loam_gpa_map_thaw(map);
}

/* A change is one store: it was made, or it was not. */
Test(module_fork, a_map_goes_on_in_the_child)
{
    fork_while(freeze_map, thaw_map, check_map);
    check_map();
}

static void check_ledger(void)
{
    struct loam_dma_request request = {.owner = "child", .bytes = 4096};
    struct loam_dma_buffer buffer;
    struct loam_diag diag = {0};

    REQUIRE(loam_dma_alloc(dma, &request, &buffer, &diag) == LOAM_ERROR_CORRUPT);
    REQUIRE(strstr(diag.text, "the ledger says corrupt: loam_dma_validate knows more") != NULL);
    REQUIRE(loam_dma_release(dma, 1) == LOAM_ERROR_CORRUPT);
    REQUIRE(loam_dma_pin(dma, 1) == LOAM_ERROR_CORRUPT);
    REQUIRE(loam_dma_unpin(dma, 1) == LOAM_ERROR_CORRUPT);
    REQUIRE(loam_dma_count(dma) == 0);
    REQUIRE(loam_dma_validate(dma, &diag) == LOAM_OK);
    REQUIRE(loam_dma_alloc(dma, &request, &buffer, &diag) == LOAM_OK);
    REQUIRE(loam_dma_release(dma, buffer.id) == LOAM_OK);
}

static void thaw_ledger(void)
{
    loam_dma_thaw(dma);
}

Test(module_fork, a_ledger_is_suspect_in_the_child)
{
    fork_while(freeze_ledger, thaw_ledger, check_ledger);
    cr_assert_eq(loam_dma_count(dma), 0);
}
