// SPDX-License-Identifier: Apache-2.0
/*
 * The frame allocator on two threads, each with a cache of its own, on a section of 8 GiB. Unless a case says otherwise
 * the reference is Loam itself: the same work on one thread.
 */
#include "tools/bench/subject.h"

#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define GIB_FRAMES  (LOAM_GIB / LOAM_FRAME_BYTES)
#define LIVE        64u
#define BATCHES     200000u
#define HANDED_ON   30000u /* batches from one thread to the other */
#define SLOTS       16u    /* a power of two */
#define SPINS       1000u
#define THREAD_MOST 2u

/* One thread's work: its own view of the shared allocator, and whether every call was served. */
struct worker {
    struct subject subject;
    bool served;
    bool in_batches; /* LIVE frames a call, or one */
    struct ring *ring;
    struct subject *common; /* what both threads use, where they share one */
    uint64_t padding[16];   /* no line of the processor's caches is shared */
};

struct run {
    struct subject subject;
    struct worker workers[THREAD_MOST];
    struct bench_thread threads[THREAD_MOST];
};

static bool has_two_processors(void)
{
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        bench_note("threads: two processors wanted, one found: no figures");
        return false;
    }
    return true;
}

static void make_run(struct run *run, unsigned count, void (*work)(void *worker), bool in_batches)
{
    static const struct subject_sections sections = {.frames = 8 * GIB_FRAMES};

    subject_make_loam(&run->subject, &sections);
    for (unsigned i = 0; i < count; i++) {
        run->workers[i] = (struct worker){.subject = run->subject, .in_batches = in_batches};
        if (i > 0) {
            bench_expect(loam_frame_cache_make(run->subject.frame, &run->workers[i].subject.cache), "a cache");
        }
        run->threads[i] = (struct bench_thread){.run = work, .argument = &run->workers[i]};
    }
}

/* Returns millions of done a second. */
static double end_run(struct run *run, const struct bench_case *bench, unsigned count, double done, uint64_t taken)
{
    for (unsigned i = 0; i < count; i++) {
        if (!run->workers[i].served) {
            bench_fail("%s: a call was refused", bench->name);
        }
    }
    subject_unmake(&run->subject);
    return done * 1e3 / (double)taken;
}

/* LIVE frames in. */
static inline bool take(struct worker *worker, uint64_t *places)
{
    bool served = true;

    if (worker->in_batches) {
        return cached_alloc_batch(&worker->subject, places, LIVE);
    }
    for (uint32_t i = 0; i < LIVE; i++) {
        served &= cached_alloc(&worker->subject, 0, false, &places[i]);
    }
    return served;
}

/* And out. */
static inline bool give(struct worker *worker, const uint64_t *places)
{
    bool served = true;

    if (worker->in_batches) {
        return cached_free_batch(&worker->subject, places, LIVE);
    }
    for (uint32_t i = 0; i < LIVE; i++) {
        served &= cached_free(&worker->subject, 0, places[i]);
    }
    return served;
}

/* --- Each thread for itself ------------------------------------------------------------------------------------ */

static void work_alone(void *argument)
{
    struct worker *worker = argument;
    uint64_t places[LIVE];
    bool served = true;

    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        served &= take(worker, places);
        served &= give(worker, places);
    }
    worker->served = served;
}

/* parameter: whether in batches. */
static double alone(const struct bench_case *bench, unsigned count)
{
    struct run run;

    if (count > 1 && !has_two_processors()) {
        return NAN;
    }
    make_run(&run, count, work_alone, bench->parameter != 0);
    uint64_t taken = bench_threads(run.threads, count);
    return end_run(&run, bench, count, (double)LIVE * BATCHES * count, taken);
}

static double two_alone(const struct bench_case *bench)
{
    return alone(bench, 2);
}

static double one_alone(const struct bench_case *bench)
{
    return alone(bench, 1);
}

/* --- Both in one, without caches -------------------------------------------------------------------------------- */

/* LIVE frames in and out, one a call. */
SUBJECT_INLINE void work_in_common(void *argument, const struct subject_calls *calls)
{
    struct worker *worker = argument;
    uint64_t places[LIVE];
    bool served = true;

    for (uint32_t batch = 0; batch < HANDED_ON; batch++) {
        for (uint32_t i = 0; i < LIVE; i++) {
            served &= calls->alloc(worker->common, 0, false, &places[i]);
        }
        for (uint32_t i = 0; i < LIVE; i++) {
            served &= calls->free(worker->common, 0, places[i]);
        }
    }
    worker->served = served;
}

static void work_in_common_loam(void *argument)
{
    work_in_common(argument, &subject_shared);
}

static void work_in_common_seed(void *argument)
{
    work_in_common(argument, &subject_locked);
}

static double in_common(const struct bench_case *bench, const struct subject_calls *calls, void (*work)(void *worker))
{
    static const struct subject_sections sections = {.frames = 8 * GIB_FRAMES, .in_prefix = true};
    struct run run = {0};

    if (!has_two_processors()) {
        return NAN;
    }
    calls->make(&run.subject, &sections);
    for (unsigned i = 0; i < 2; i++) {
        run.workers[i].common = &run.subject;
        run.threads[i] = (struct bench_thread){.run = work, .argument = &run.workers[i]};
    }
    uint64_t taken = bench_threads(run.threads, 2);
    return end_run(&run, bench, 2, 2.0 * LIVE * HANDED_ON, taken);
}

static double in_common_loam(const struct bench_case *bench)
{
    return in_common(bench, &subject_shared, work_in_common_loam);
}

static double in_common_seed(const struct bench_case *bench)
{
    return in_common(bench, &subject_locked, work_in_common_seed);
}

/* --- One allocates, the other frees ---------------------------------------------------------------------------- */

/*
 * Slots with LIVE frames each: tail - head of them are full, from 0 to SLOTS. The producer writes a slot, then tail
 * with release; the consumer reads tail with acquire, then the slot; head goes the other way alike.
 */
struct ring {
    _Alignas(128) atomic_uint tail; /* the producer's */
    _Alignas(128) atomic_uint head; /* the consumer's */
    _Alignas(128) uint64_t places[SLOTS][LIVE];
};

/* Between two looks; yields once in a while, lest the other thread has no processor. */
static void relax(unsigned *spins)
{
    if (++*spins % SPINS == 0) {
        sched_yield();
    }
    __builtin_ia32_pause();
}

static void produce(void *argument)
{
    struct worker *worker = argument;
    struct ring *ring = worker->ring;
    unsigned spins = 0;
    bool served = true;

    for (unsigned tail = 0; tail < HANDED_ON; tail++) {
        while (tail - atomic_load_explicit(&ring->head, memory_order_acquire) == SLOTS) {
            relax(&spins);
        }
        served &= take(worker, ring->places[tail % SLOTS]);
        atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    }
    worker->served = served;
}

static void consume(void *argument)
{
    struct worker *worker = argument;
    struct ring *ring = worker->ring;
    unsigned spins = 0;
    bool served = true;

    for (unsigned head = 0; head < HANDED_ON; head++) {
        while (atomic_load_explicit(&ring->tail, memory_order_acquire) == head) {
            relax(&spins);
        }
        served &= give(worker, ring->places[head % SLOTS]);
        atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    }
    worker->served = served;
}

static double remote(const struct bench_case *bench)
{
    struct ring *ring;
    struct run run;

    if (!has_two_processors()) {
        return NAN;
    }
    ring = bench_map(sizeof *ring, true);
    make_run(&run, 2, produce, bench->parameter != 0);
    run.threads[1].run = consume;
    run.workers[0].ring = run.workers[1].ring = ring;
    uint64_t taken = bench_threads(run.threads, 2);
    bench_unmap(ring, sizeof *ring);
    return end_run(&run, bench, 2, (double)LIVE * HANDED_ON, taken);
}

/*
 * What local is: the same calls by one thread that does both, and no ring between; or two such threads, each with
 * frames of its own. In calls of one frame as well as of 64: a batch that is allocated and freed by one thread moves
 * whole words of a bitmap in its own processor's cache, which no frame that changes hands can.
 */
const struct bench_case thread_cases[] = {
    {.name = "frame.threads2",
     .what = "frames a second in and out by two threads, each with 64 live, one a call; reference: by one thread",
     .unit = "M/s",
     .better = BENCH_MORE,
     .goal = 1.9,
     .loam = two_alone,
     .reference = one_alone},
    {.name = "frame.shared.threads2",
     .what = "the same without caches; reference: two threads under a spin lock",
     .unit = "M/s",
     .better = BENCH_MORE,
     .goal = 1.5,
     .loam = in_common_loam,
     .reference = in_common_seed},
    {.name = "frame.threads2.remote",
     .what = "frames a second that one thread allocates and another frees, 64 a call; reference: one thread does both",
     .unit = "M/s",
     .better = BENCH_MORE,
     .goal = 0.1,
     .parameter = 1,
     .loam = remote,
     .reference = one_alone},
    {.name = "frame.threads2.remote.2",
     .what = "the same; reference: two threads, each of which does both",
     .unit = "M/s",
     .better = BENCH_MORE,
     .parameter = 1,
     .loam = remote,
     .reference = two_alone},
    {.name = "frame.threads2.remote.singly",
     .what = "frames a second that one thread allocates and another frees, one a call; reference: one thread does both",
     .unit = "M/s",
     .better = BENCH_MORE,
     .goal = 0.3,
     .loam = remote,
     .reference = one_alone},
    {.name = NULL},
};
