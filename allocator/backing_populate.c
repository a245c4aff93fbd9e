// SPDX-License-Identifier: Apache-2.0
#include "allocator/backing_populate.h"
#include "allocator/atomic.h"

#include "allocator/host/prim.h"
#include "loam/backing.h"

#include <errno.h>

/* What a worker takes at a time, unless a page is larger: small enough that all end together, and soon when told to. */
#define SLICE_BYTES_MAX  (2 * LOAM_MIB)
#define BYTES_PER_THREAD (64 * LOAM_MIB)

/* Slice number i is [start + i * slice_bytes, start + min(bytes, (i + 1) * slice_bytes)). */
struct populate_job {
    char *start;
    uint64_t bytes;
    uint64_t slice_bytes;
    uint64_t slice_count;
    _Atomic uint64_t next; /* slice that nobody has claimed */
    _Atomic bool cancelled;
    struct loam_cancel cancel; /* asked by the calling thread alone */
};

/* What one worker saw; its own until it is joined. */
struct populate_worker {
    struct populate_job *job;
    bool is_caller; /* it runs on the thread that made the call */
    pthread_t thread;
    uint64_t failed_count;
    uint64_t first_failed; /* slice, with the lowest address; slice_count: none */
    int error_number;      /* of it */
};

static void populate_slice(struct populate_worker *worker, uint64_t slice)
{
    struct populate_job *job = worker->job;
    uint64_t offset = slice * job->slice_bytes;
    uint64_t rest = job->bytes - offset;

    if (loam_prim_populate(job->start + offset, rest < job->slice_bytes ? rest : job->slice_bytes)) {
        return;
    }
    worker->failed_count++;
    if (slice < worker->first_failed) {
        worker->first_failed = slice;
        worker->error_number = errno;
    }
}

/* relaxed: nothing else is told by it */
static bool is_cancelled(const struct populate_worker *worker)
{
    struct populate_job *job = worker->job;

    if (worker->is_caller && job->cancel.asked != NULL && job->cancel.asked(job->cancel.self)) {
        shared_store(job->cancelled, true);
    }
    return shared_load(job->cancelled);
}

static void *populate_run(void *argument)
{
    struct populate_worker *worker = argument;
    struct populate_job *job = worker->job;

    for (;;) {
        uint64_t slice;

        if (is_cancelled(worker)) {
            return NULL;
        }
        /* relaxed: it only shares out numbers; results are read after the join */
        slice = shared_add(job->next, 1);

        if (slice >= job->slice_count) {
            return NULL;
        }
        populate_slice(worker, slice);
    }
}

static uint32_t worker_count(const struct backing_populate_range *range)
{
    uint64_t count = range->thread_count;
    uint64_t useful = range->bytes / BYTES_PER_THREAD;

    if (count == 0) {
        count = loam_prim_cpu_count();
        count = count < useful ? count : useful;
    }
    count = count < LOAM_BACKING_THREAD_MAX ? count : LOAM_BACKING_THREAD_MAX;
    return count > 0 ? (uint32_t)count : 1;
}

static struct populate_job make_job(const struct backing_populate_range *range, uint32_t workers)
{
    uint64_t unit = range->page_bytes;
    uint64_t slice_bytes = range->bytes / workers < SLICE_BYTES_MAX ? range->bytes / workers : SLICE_BYTES_MAX;

    slice_bytes = slice_bytes > unit ? loam_align_down(slice_bytes, unit) : unit;
    return (struct populate_job){
        .start = range->start,
        .bytes = range->bytes,
        .slice_bytes = slice_bytes,
        .slice_count = range->bytes / slice_bytes + (range->bytes % slice_bytes != 0),
        .cancel = range->cancel,
    };
}

/* Run on this thread and up to count - 1 more. Where a thread does not start, the others do its share. */
static void run_workers(struct populate_worker *workers, uint32_t count)
{
    uint32_t started = 1;

    while (started < count && loam_prim_thread_start(&workers[started].thread, populate_run, &workers[started])) {
        started++;
    }
    populate_run(&workers[0]);
    for (uint32_t i = 1; i < started; i++) {
        loam_prim_thread_join(workers[i].thread);
    }
}

static struct backing_populate_result collect(struct populate_job *job, const struct populate_worker *workers,
                                              uint32_t count)
{
    struct backing_populate_result result = {.cancelled = job->cancelled, .part_count = job->slice_count};
    const struct populate_worker *first = &workers[0];

    for (uint32_t i = 0; i < count; i++) {
        result.failed_count += workers[i].failed_count;
        first = workers[i].first_failed < first->first_failed ? &workers[i] : first;
    }
    if (result.failed_count != 0) {
        result.first_failed_offset = first->first_failed * job->slice_bytes;
        result.error_number = first->error_number;
    }
    return result;
}

struct backing_populate_result loam_backing_populate_range(const struct backing_populate_range *range)
{
    struct populate_worker workers[LOAM_BACKING_THREAD_MAX];
    uint32_t count = worker_count(range);
    struct populate_job job = make_job(range, count);

    count = count < job.slice_count ? count : (uint32_t)job.slice_count;
    count = count != 0 ? count : 1; /* the caller's own thread, also of a range without a slice */
    for (uint32_t i = 0; i < count; i++) {
        workers[i] = (struct populate_worker){.job = &job, .is_caller = i == 0, .first_failed = job.slice_count};
    }
    run_workers(workers, count);
    return collect(&job, workers, count);
}
