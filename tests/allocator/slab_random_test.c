// SPDX-License-Identifier: Apache-2.0
/*
 * Random operations against an oracle, which is a table of what is live and the bytes in it; and threads that free each
 * other's objects while caches come and go. Every object is filled with bytes of its own and looked at before it is
 * freed: no two may ever overlap.
 */
#include "loam/slab.h"
#include "tests/allocator/slab_fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CACHES     3u
#define LIVE_MAX   6000u
#define LOW_SLABS  12u
#define HIGH_SLABS 12u

struct random {
    uint64_t state; /* not 0 */
};

static uint32_t below(struct random *random, uint32_t end)
{
    random->state ^= random->state << 13;
    random->state ^= random->state >> 7;
    random->state ^= random->state << 17;
    return (uint32_t)((random->state >> 32) * end >> 32);
}

/* --- The oracle ------------------------------------------------------------------------------------------------ */

struct live {
    struct loam_slab_object object;
    size_t bytes;
    uint64_t stamp;
};

static size_t class_bytes(size_t bytes)
{
    size_t size = LOAM_SLAB_OBJECT_MIN;

    while (size < bytes) {
        size *= 2;
    }
    return size;
}

static void fill(const struct live *live)
{
    for (size_t i = 0; i < class_bytes(live->bytes) / 8; i++) {
        ((uint64_t *)live->object.hva)[i] = live->stamp + i;
    }
}

static bool is_filled(const struct live *live)
{
    for (size_t i = 0; i < class_bytes(live->bytes) / 8; i++) {
        if (((const uint64_t *)live->object.hva)[i] != live->stamp + i) {
            return false;
        }
    }
    return true;
}

struct play {
    struct world world;
    struct loam_slab_cache *caches[CACHES];
    struct live live[LIVE_MAX];
    uint32_t live_count;
    uint64_t stamp;
    struct random random;
    uint64_t seed;
};

static bool overlaps_live(const struct play *play, uint64_t gpa, size_t bytes)
{
    for (uint32_t i = 0; i < play->live_count; i++) {
        const struct live *live = &play->live[i];

        if (gpa < live->object.gpa.value + class_bytes(live->bytes) && live->object.gpa.value < gpa + bytes) {
            return true;
        }
    }
    return false;
}

static void play_alloc(struct play *play, struct loam_slab_cache *cache)
{
    struct live *live = &play->live[play->live_count];
    enum loam_error error;

    if (play->live_count == LIVE_MAX) {
        return;
    }
    live->bytes = 1 + below(&play->random, 1u << below(&play->random, 12));
    live->bytes = live->bytes > LOAM_SLAB_OBJECT_MAX ? LOAM_SLAB_OBJECT_MAX : live->bytes;
    error = loam_slab_alloc(cache, live->bytes, &live->object);
    if (error == LOAM_ERROR_EXHAUSTED) {
        cr_assert_null(live->object.hva);
        return;
    }
    cr_assert_eq(error, LOAM_OK);
    cr_assert_eq(live->object.gpa.value % class_bytes(live->bytes), 0);
    cr_assert(!overlaps_live(play, live->object.gpa.value, class_bytes(live->bytes)), "seed %llu",
              (unsigned long long)play->seed);
    live->stamp = play->stamp += 1u << 20;
    fill(live);
    play->live_count++;
}

static void play_free(struct play *play, struct loam_slab_cache *cache)
{
    struct live live;
    uint32_t i;

    if (play->live_count == 0) {
        return;
    }
    i = below(&play->random, play->live_count);
    live = play->live[i];
    cr_assert(is_filled(&live), "seed %llu: somebody wrote into a live object", (unsigned long long)play->seed);
    cr_assert_eq(below(&play->random, 2) == 0 ? loam_slab_free(cache, live.object.gpa, live.bytes)
                                              : loam_slab_free_hva(cache, live.object.hva, live.bytes),
                 LOAM_OK, "seed %llu", (unsigned long long)play->seed);
    play->live[i] = play->live[--play->live_count];
    /* And once more, by whoever. */
    if (below(&play->random, 4) == 0) {
        cr_assert_neq(loam_slab_free(play->caches[below(&play->random, CACHES)], live.object.gpa, live.bytes), LOAM_OK,
                      "seed %llu", (unsigned long long)play->seed);
    }
}

/* An address and a size from anywhere: free says yes exactly if the oracle does. */
static void play_misuse(struct play *play, struct loam_slab_cache *cache)
{
    uint32_t window = below(&play->random, 2);
    uint64_t gpa = play->world.config.windows[window].start.value +
                   (below(&play->random, (uint32_t)play->world.config.windows[window].bytes) & ~UINT64_C(7));
    size_t bytes = (size_t)8 << below(&play->random, LOAM_SLAB_CLASS_COUNT);
    enum loam_error check = loam_slab_check(&play->world.slab, loam_gpa_from_u64(gpa), bytes, NULL), error;
    char text[160];

    for (uint32_t i = 0; i < play->live_count; i++) {
        if (play->live[i].object.gpa.value == gpa && class_bytes(play->live[i].bytes) == bytes) {
            cr_assert_eq(check, LOAM_OK);
            return;
        }
    }
    cr_assert_neq(check, LOAM_OK);
    error = loam_slab_free(cache, loam_gpa_from_u64(gpa), bytes);
    loam_slab_describe(&play->world.slab, loam_gpa_from_u64(gpa), text, sizeof text);
    cr_assert_eq(error, check, "seed %llu: freed as %zu bytes: %s, but check says %s, of this: %s",
                 (unsigned long long)play->seed, bytes, loam_error_name(error), loam_error_name(check), text);
}

static void play_renew(struct play *play, uint32_t i)
{
    if (below(&play->random, 2) == 0) {
        cr_assert_eq(loam_slab_cache_drain(&play->world.slab, play->caches[i]), LOAM_OK);
    } else {
        world_cache_end(&play->world, play->caches[i]);
        play->caches[i] = world_cache(&play->world);
    }
}

static void compare(const struct play *play)
{
    uint64_t live_count = 0, frame_bytes = 0;

    for (size_t bytes = 8; bytes <= LOAM_SLAB_OBJECT_MAX; bytes *= 2) {
        uint64_t wanted = 0;

        for (uint32_t i = 0; i < play->live_count; i++) {
            wanted += class_bytes(play->live[i].bytes) == bytes;
        }
        cr_assert_eq(stats_of(&play->world, bytes).live_count, wanted, "seed %llu: %zu bytes: %llu live, %llu wanted",
                     (unsigned long long)play->seed, bytes,
                     (unsigned long long)stats_of(&play->world, bytes).live_count, (unsigned long long)wanted);
        live_count += wanted;
        frame_bytes += stats_of(&play->world, bytes).frame_bytes;
    }
    cr_assert_eq(live_count, play->live_count);
    cr_assert_eq(frame_bytes, world_taken(&play->world) * LOAM_FRAME_BYTES);
    world_validate(&play->world);
}

static void play_run(uint64_t seed, uint32_t steps, uint64_t limit)
{
    struct play *play = calloc(1, sizeof *play);

    play->random.state = play->seed = seed;
    world_make(&play->world, LOW_SLABS, HIGH_SLABS, &(struct loam_slab_config){.limit = {limit}, .slab_capacity = 40});
    for (uint32_t i = 0; i < CACHES; i++) {
        play->caches[i] = world_cache(&play->world);
    }
    for (uint32_t step = 0; step < steps; step++) {
        /* Phases in which the live grow, and such in which they shrink. */
        uint32_t grow = step / 3000 % 2 == 0 ? 58 : 38, what = below(&play->random, 100);
        struct loam_slab_cache *cache = play->caches[below(&play->random, CACHES)];

        if (what < grow) {
            play_alloc(play, cache);
        } else if (what < 96) {
            play_free(play, cache);
        } else {
            play_misuse(play, cache);
        }
        if (below(&play->random, 500) == 0) {
            play_renew(play, below(&play->random, CACHES));
        }
        if (step % 1000 == 0) {
            compare(play);
        }
    }
    while (play->live_count > 0) {
        play_free(play, play->caches[below(&play->random, CACHES)]);
    }
    compare(play);
    for (uint32_t i = 0; i < CACHES; i++) {
        world_cache_end(&play->world, play->caches[i]);
    }
    world_end(&play->world);
    free(play);
}

Test(slab_random, agrees_with_the_oracle, .timeout = 240)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        play_run(seed, 40000, seed % 2 == 0 ? LOAM_DMA32_END_BYTES : 0);
    }
}

/* --- Threads --------------------------------------------------------------------------------------------------- */

#define THREADS   4u
#define SLOTS     512u
#define EXCHANGES 60000u

/* Places where threads leave objects for each other: the object's own first 16 bytes say what it is. */
struct exchange {
    struct world world;
    _Atomic uintptr_t slots[SLOTS];
    _Atomic unsigned failures;
    uint32_t exchanges;
};

struct worker {
    struct exchange *exchange;
    struct random random;
    struct loam_slab_cache *cache;
};

/* The object's owner by turns: fills it with its size and address. */
static void *worker_make(struct worker *worker)
{
    size_t bytes = (size_t)16 << below(&worker->random, 8);
    struct loam_slab_object object;

    if (loam_slab_alloc(worker->cache, bytes, &object) != LOAM_OK) {
        return NULL;
    }
    for (size_t i = 0; i < bytes / 8; i += 2) {
        ((uint64_t *)object.hva)[i] = bytes;
        ((uint64_t *)object.hva)[i + 1] = object.gpa.value;
    }
    return object.hva;
}

static void worker_free(struct worker *worker, void *object)
{
    size_t bytes = ((uint64_t *)object)[0];
    uint64_t gpa = ((uint64_t *)object)[1];
    bool good = bytes >= 16 && bytes <= LOAM_SLAB_OBJECT_MAX;

    for (size_t i = 0; good && i < bytes / 8; i += 2) {
        good = ((uint64_t *)object)[i] == bytes && ((uint64_t *)object)[i + 1] == gpa;
    }
    for (size_t i = 0; good && i < bytes / 8; i++) {
        ((uint64_t *)object)[i] = 0;
    }
    if (!good || loam_slab_free_hva(worker->cache, object, bytes) != LOAM_OK) {
        atomic_fetch_add(&worker->exchange->failures, 1);
    }
}

/* Make an object, leave it in a slot, free what lay there; now and then drain, or take another cache. */
static void *worker_run(void *argument)
{
    struct worker *worker = argument;
    struct exchange *exchange = worker->exchange;

    for (uint32_t i = 0; i < exchange->exchanges; i++) {
        void *object = worker_make(worker);
        /* Acquire and release: what the other thread wrote into the object. */
        uintptr_t other = atomic_exchange_explicit(&exchange->slots[below(&worker->random, SLOTS)], (uintptr_t)object,
                                                   memory_order_acq_rel);

        if (other != 0) {
            worker_free(worker, (void *)other);
        }
        if (below(&worker->random, 3000) == 0 &&
            loam_slab_cache_drain(&exchange->world.slab, worker->cache) != LOAM_OK) {
            atomic_fetch_add(&exchange->failures, 1);
        }
        if (below(&worker->random, 3000) == 0 &&
            (loam_slab_cache_destroy(&exchange->world.slab, worker->cache) != LOAM_OK ||
             loam_slab_cache_make(&exchange->world.slab, &worker->cache) != LOAM_OK)) {
            atomic_fetch_add(&exchange->failures, 1);
        }
        if (below(&worker->random, 1000) == 0) {
            struct loam_slab_class_stats stats;
            loam_gpa gpa = loam_gpa_from_u64(LOW_START + 64 * (uint64_t)below(&worker->random, 4096));

            if (loam_slab_stats(&exchange->world.slab, below(&worker->random, LOAM_SLAB_CLASS_COUNT), &stats) !=
                    LOAM_OK ||
                loam_slab_check(&exchange->world.slab, gpa, 64, NULL) == LOAM_ERROR_CORRUPT) {
                atomic_fetch_add(&exchange->failures, 1);
            }
        }
    }
    return NULL;
}

/* The threads end without a word; another drains and ends what they leave. */
static void exchange_run(uint32_t slabs, uint32_t exchanges)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    struct worker workers[THREADS];
    pthread_t threads[THREADS];
    struct worker last = {.exchange = exchange};

    world_make(&exchange->world, slabs, 0, &(struct loam_slab_config){.cache_capacity = THREADS + 1});
    exchange->exchanges = exchanges;
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){exchange, {i + 1}, world_cache(&exchange->world)};
        cr_assert_eq(pthread_create(&threads[i], NULL, worker_run, &workers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_assert_eq(exchange->failures, 0);
    world_validate(&exchange->world);
    last.cache = world_cache(&exchange->world);
    for (uint32_t i = 0; i < THREADS; i++) {
        for (uint32_t slot = i * (SLOTS / THREADS); slot < (i + 1) * (SLOTS / THREADS); slot++) {
            if (exchange->slots[slot] != 0) {
                worker_free(&last, (void *)exchange->slots[slot]);
            }
        }
        world_cache_end(&exchange->world, workers[i].cache);
        world_validate(&exchange->world);
    }
    world_cache_end(&exchange->world, last.cache);
    cr_assert_eq(exchange->failures, 0);
    world_end(&exchange->world);
    free(exchange);
}

Test(slab_random, threads_free_each_others_objects, .timeout = 240)
{
    exchange_run(200, EXCHANGES);
}

/* So little memory that allocation fails all the time, and slabs change hands. */
Test(slab_random, threads_share_too_little_memory, .timeout = 240)
{
    exchange_run(10, EXCHANGES / 4);
}

/* --- A queue --------------------------------------------------------------------------------------------------- */

#define QUEUE_SLOTS 256u
#define QUEUE_COUNT 300000u

struct queue {
    struct world world;
    struct loam_slab_cache *producer, *consumer;
    void *slots[QUEUE_SLOTS];
    _Atomic uint32_t written, read;
    _Atomic unsigned failures;
};

static void *produce(void *argument)
{
    struct queue *queue = argument;

    for (uint32_t i = 0; i < QUEUE_COUNT; i++) {
        struct loam_slab_object object;

        while (i - atomic_load_explicit(&queue->read, memory_order_acquire) == QUEUE_SLOTS) {
            sched_yield();
        }
        if (loam_slab_alloc(queue->producer, 256, &object) != LOAM_OK) {
            atomic_fetch_add(&queue->failures, 1);
            object.hva = NULL;
        } else {
            *(uint32_t *)object.hva = i;
        }
        queue->slots[i % QUEUE_SLOTS] = object.hva;
        atomic_store_explicit(&queue->written, i + 1, memory_order_release);
    }
    return NULL;
}

static void *consume(void *argument)
{
    struct queue *queue = argument;

    for (uint32_t i = 0; i < QUEUE_COUNT; i++) {
        void *object;

        while (atomic_load_explicit(&queue->written, memory_order_acquire) == i) {
            sched_yield();
        }
        object = queue->slots[i % QUEUE_SLOTS];
        if (object != NULL &&
            (*(uint32_t *)object != i || loam_slab_free_hva(queue->consumer, object, 256) != LOAM_OK)) {
            atomic_fetch_add(&queue->failures, 1);
        }
        atomic_store_explicit(&queue->read, i + 1, memory_order_release);
    }
    return NULL;
}

/* One allocates, the other frees: what it frees is used again, so that the few slabs suffice. */
Test(slab_random, a_queue_needs_no_more_slabs_than_it_has_objects, .timeout = 240)
{
    struct queue *queue = calloc(1, sizeof *queue);
    pthread_t threads[2];

    world_make(&queue->world, 6, 0, NULL);
    queue->producer = world_cache(&queue->world);
    queue->consumer = world_cache(&queue->world);
    cr_assert_eq(pthread_create(&threads[0], NULL, produce, queue), 0);
    cr_assert_eq(pthread_create(&threads[1], NULL, consume, queue), 0);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    cr_assert_eq(queue->failures, 0);
    cr_assert_eq(stats_of(&queue->world, 256).live_count, 0);
    cr_assert_eq(stats_of(&queue->world, 256).remote_free_count, QUEUE_COUNT);
    world_cache_end(&queue->world, queue->consumer);
    world_cache_end(&queue->world, queue->producer);
    world_end(&queue->world);
    free(queue);
}

/* --- Rounds that meet in the rare places ----------------------------------------------------------------------- */

#define ROUNDS      20000u
#define ROUND_BYTES 2048u
#define ROUND_LIVE  (LOAM_SLAB_BYTES / ROUND_BYTES)

/* The owner fills a slab; then both run at once, and afterwards everything must be in its place. */
struct rounds {
    struct world world;
    struct loam_slab_cache *owner, *other;
    struct loam_slab_object objects[ROUND_LIVE];
    _Atomic uint32_t started, ended; /* rounds, by the other thread and by the owner */
    uint32_t count;                  /* of objects that the other thread frees in a round */
    struct random random;
    _Atomic unsigned failures;
};

static void *free_in_rounds(void *argument)
{
    struct rounds *rounds = argument;

    for (uint32_t round = 1; round <= ROUNDS; round++) {
        while (atomic_load_explicit(&rounds->started, memory_order_acquire) != round) {
            sched_yield();
        }
        for (uint32_t i = 0; i < rounds->count; i++) {
            if (loam_slab_free(rounds->other, rounds->objects[i].gpa, ROUND_BYTES) != LOAM_OK) {
                atomic_fetch_add(&rounds->failures, 1);
            }
        }
        atomic_store_explicit(&rounds->ended, round, memory_order_release);
    }
    return NULL;
}

static void wait_a_little(struct random *random, uint32_t most)
{
    for (volatile uint32_t i = below(random, most); i > 0; i--) {
    }
}

static void rounds_run(void (*meanwhile)(struct rounds *rounds), uint32_t count)
{
    struct rounds *rounds = calloc(1, sizeof *rounds);
    pthread_t thread;

    world_make(&rounds->world, 8, 0, NULL);
    rounds->owner = world_cache(&rounds->world);
    rounds->other = world_cache(&rounds->world);
    rounds->random.state = 9;
    rounds->count = count;
    cr_assert_eq(pthread_create(&thread, NULL, free_in_rounds, rounds), 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        for (uint32_t i = 0; i < ROUND_LIVE; i++) {
            rounds->objects[i] = take(rounds->owner, ROUND_BYTES);
        }
        atomic_store_explicit(&rounds->started, round, memory_order_release);
        wait_a_little(&rounds->random, 300 + 50 * count);
        meanwhile(rounds);
        while (atomic_load_explicit(&rounds->ended, memory_order_acquire) != round) {
            sched_yield();
        }
        world_validate(&rounds->world);
        for (uint32_t i = count; i < ROUND_LIVE; i++) {
            give(rounds->owner, rounds->objects[i], ROUND_BYTES);
        }
        cr_assert_eq(stats_of(&rounds->world, ROUND_BYTES).live_count, 0);
        if (count == ROUND_LIVE) {
            cr_assert_eq(stats_of(&rounds->world, ROUND_BYTES).unowned_count, 0, "round %u", round);
        }
    }
    pthread_join(thread, NULL);
    cr_assert_eq(rounds->failures, 0);
    world_cache_end(&rounds->world, rounds->owner);
    world_cache_end(&rounds->world, rounds->other);
    world_end(&rounds->world);
    free(rounds);
}

static void drain_meanwhile(struct rounds *rounds)
{
    cr_assert_eq(loam_slab_cache_drain(&rounds->world.slab, rounds->owner), LOAM_OK);
}

/* A slab loses its owner while its last objects are freed: it is empty, and somebody must notice. */
Test(slab_random, an_owner_goes_while_its_objects_are_freed, .timeout = 240)
{
    rounds_run(drain_meanwhile, ROUND_LIVE);
}

/* The slab is full: that is found out while the first object comes back. */
static void fill_up_meanwhile(struct rounds *rounds)
{
    struct loam_slab_object object = take(rounds->owner, ROUND_BYTES);

    give(rounds->owner, object, ROUND_BYTES);
}

Test(slab_random, a_slab_fills_up_while_an_object_is_freed, .timeout = 240)
{
    rounds_run(fill_up_meanwhile, 1);
}

/* It has been found out before, so that the first free queues the slab, while the owner goes. */
static void go_full_meanwhile(struct rounds *rounds)
{
    fill_up_meanwhile(rounds);
    drain_meanwhile(rounds);
}

Test(slab_random, an_owner_goes_while_its_full_slab_is_queued, .timeout = 240)
{
    rounds_run(go_full_meanwhile, 2);
}
