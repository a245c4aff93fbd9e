// SPDX-License-Identifier: Apache-2.0
/*
 * The benchmarks: what a case is, and what cases share.
 *
 * A file of cases defines one table, ended by a case without a name, and bench.c lists the tables. A case's functions
 * each run one round from a fresh start (make, prepare, time, unmake) and return its figure, so that rounds of Loam
 * and of the reference can alternate. The harness pins the main thread to the first processor, runs one warm-up round
 * of each, then the rounds asked for in turn, and reports medians. What is random is drawn before the clock
 * starts, and alike for both.
 *
 * Threads: a case runs on the main thread; it may start threads with bench_threads. Cases never run beside each other.
 */
#ifndef LOAM_BENCH_H
#define LOAM_BENCH_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum bench_better { BENCH_LESS, BENCH_MORE };

struct bench_case;

/* One round. The figure in the case's unit; NAN: it cannot run on this host (bench_note has said why). */
typedef double bench_round(const struct bench_case *bench);

/* reference and group exclude each other. */
struct bench_case {
    const char *name; /* dotted, such as "frame.pair.order0"; NULL ends a table */
    const char *what; /* what is measured, for people: one line */
    const char *unit; /* "ns", "us", "ms", "B", "%", "M/s" */
    enum bench_better better;
    double goal;            /* the ratio to reach; 0: none */
    double goal_figure;     /* the figure to reach itself; 0: none */
    bool once;              /* one long round: no warm-up, no medians */
    uint64_t parameter;     /* the functions' own */
    bench_round *loam;      /* never NULL */
    bench_round *reference; /* NULL: none */
    const char *group;      /* not NULL: the reference is the best figure that Loam has in the group's cases */
};

extern const struct bench_case frame_cases[];  /* frame_bench.c: one thread */
extern const struct bench_case thread_cases[]; /* thread_bench.c: two threads */
extern const struct bench_case scale_cases[];  /* scale_bench.c: much memory, many sections */
extern const struct bench_case map_cases[];    /* map_bench.c */
extern const struct bench_case slab_cases[];   /* slab_bench.c */
extern const struct bench_case dma_cases[];    /* dma_bench.c */
extern const struct bench_case bus_cases[];    /* bus_bench.c: two threads */
extern const struct bench_case exit_cases[];   /* exit_bench.c */

/*
 * Nanoseconds that the calling thread has run, in the kernel too: what one thread does waits for nobody, and what
 * others do on the machine meanwhile does not count. Where threads meet, bench_threads measures what passed.
 */
uint64_t bench_now(void);

/* Memory for metadata and tables: zero, page-aligned, and if populate every page of it is there. Never NULL. */
void *bench_map(size_t bytes, bool populate);
void bench_unmap(void *memory, size_t bytes);

/* A sequence of numbers that is the same in every run (xorshift64*); seed is not 0. */
struct bench_random {
    uint64_t state;
};

static inline uint64_t bench_random_next(struct bench_random *random)
{
    uint64_t x = random->state;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random->state = x;
    return x * UINT64_C(0x2545F4914F6CDD1D);
}

/* Evenly in [0, end); end is not 0. */
static inline uint32_t bench_random_below(struct bench_random *random, uint32_t end)
{
    return (uint32_t)(((bench_random_next(random) >> 32) * end) >> 32);
}

/* 0 to count - 1 in random order. */
void bench_random_order(struct bench_random *random, uint32_t *order, uint32_t count);

/*
 * Pin the calling thread to the number-th processor, modulo how many there are. The main thread's is 0, at the start.
 */
void bench_pin(unsigned number);

/* A thread of a case. */
struct bench_thread {
    void (*run)(void *argument); /* its timed part */
    void *argument;
    uint64_t taken; /* out: nanoseconds that run took */
};

/*
 * Run count threads, the n-th on the n-th processor (modulo how many there are), let them start together, and wait for
 * all. Returns the nanoseconds from the common start to the last end.
 */
uint64_t bench_threads(struct bench_thread *threads, unsigned count);

/* End the program with one line on standard error: what was asked, what was found. */
LOAM_PRINTF(1, 2) _Noreturn void bench_fail(const char *format, ...);

/* One line on standard error, once for each text: why a figure is missing. */
LOAM_PRINTF(1, 2) void bench_note(const char *format, ...);

/* bench_fail unless error is LOAM_OK. */
void bench_expect(enum loam_error error, const char *what);

/* Give the frame allocator membarrier(2) as its barrier; calls after the first do nothing. */
void bench_barrier_init(void);

/* Keep the compiler from dropping the computation of value. */
static inline void bench_keep(uint64_t value)
{
    __asm__ volatile("" : : "r"(value) : "memory");
}

#endif
