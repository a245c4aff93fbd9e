// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/bench.h"

#include "loam/frame.h"
#include "loam/frame_cache.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define THREAD_MAX 16u
#define NOTE_MAX   32u

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_now(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

void bench_fail(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fputs("bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void bench_note(const char *format, ...)
{
    static char notes[NOTE_MAX][256];
    static unsigned note_count;
    char text[sizeof notes[0]];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (unsigned i = 0; i < note_count; i++) {
        if (strcmp(notes[i], text) == 0) {
            return;
        }
    }
    if (note_count < NOTE_MAX) {
        memcpy(notes[note_count++], text, sizeof text);
    }
    fprintf(stderr, "bench: %s\n", text);
}

void bench_expect(enum loam_error error, const char *what)
{
    if (error != LOAM_OK) {
        bench_fail("%s: %s", what, loam_error_name(error));
    }
}

void *bench_map(size_t bytes, bool populate)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (populate ? MAP_POPULATE : 0);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);

    if (memory == MAP_FAILED) {
        bench_fail("%zu bytes of memory wanted: %s", bytes, strerror(errno));
    }
    return memory;
}

void bench_unmap(void *memory, size_t bytes)
{
    munmap(memory, bytes);
}

void bench_random_order(struct bench_random *random, uint32_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = bench_random_below(random, i + 1);

        order[i] = order[at];
        order[at] = i;
    }
}

/* --- Threads --------------------------------------------------------------------------------------------------- */

/* The processors that the program was given; read before the first thread is pinned. */
static cpu_set_t allowed;

void bench_pin(unsigned number)
{
    cpu_set_t one;

    if (CPU_COUNT(&allowed) == 0 && sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return;
    }
    int wanted = (int)number % CPU_COUNT(&allowed);
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && wanted-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            sched_setaffinity(0, sizeof one, &one);
        }
    }
}

struct started {
    struct bench_thread *thread;
    pthread_barrier_t *barrier;
    unsigned number;
    uint64_t start, end;
};

static void *run_thread(void *argument)
{
    struct started *started = argument;

    bench_pin(started->number);
    pthread_barrier_wait(started->barrier);
    started->start = read_clock(CLOCK_MONOTONIC);
    started->thread->run(started->thread->argument);
    started->end = read_clock(CLOCK_MONOTONIC);
    started->thread->taken = started->end - started->start;
    return NULL;
}

uint64_t bench_threads(struct bench_thread *threads, unsigned count)
{
    struct started started[THREAD_MAX];
    pthread_t ids[THREAD_MAX];
    pthread_barrier_t barrier;
    uint64_t first = UINT64_MAX, last = 0;

    if (count == 0 || count > THREAD_MAX) {
        bench_fail("%u threads wanted: 1 to %u can be had", count, THREAD_MAX);
    }
    pthread_barrier_init(&barrier, NULL, count);
    for (unsigned i = 0; i < count; i++) {
        started[i] = (struct started){.thread = &threads[i], .barrier = &barrier, .number = i};
        int failed = pthread_create(&ids[i], NULL, run_thread, &started[i]);

        if (failed != 0) {
            bench_fail("a thread wanted: %s", strerror(failed));
        }
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(ids[i], NULL);
        first = started[i].start < first ? started[i].start : first;
        last = started[i].end > last ? started[i].end : last;
    }
    pthread_barrier_destroy(&barrier);
    return last - first;
}

static bool barrier(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        bench_fail("membarrier: %s", strerror(errno));
    }
    return true;
}

void bench_barrier_init(void)
{
    static bool registered;

    if (!registered) {
        if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
            bench_fail("membarrier: the kernel refuses to register: %s", strerror(errno));
        }
        loam_frame_set_barrier(barrier);
        registered = true;
    }
}
