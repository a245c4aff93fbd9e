// SPDX-License-Identifier: Apache-2.0
/*
 * The transport's lock is the worker's. The thread gives it up only to serve and to wait; a chain is taken and given back
 * under it, so a queue that has been stopped is never touched: its bit in rung is gone, and must_stop says of the chain
 * that is out that nobody wants it back.
 */
#include "vmm/virtio_worker.h"

#include <time.h>

#define KICK_MILLISECONDS 10 /* from one kick to the next */

static struct timespec after_milliseconds(int64_t milliseconds)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_sec += milliseconds / 1000;
    time.tv_nsec += milliseconds % 1000 * 1000000;
    if (time.tv_nsec >= 1000000000) {
        time.tv_sec++;
        time.tv_nsec -= 1000000000;
    }
    return time;
}

/* --- The thread ------------------------------------------------------------------------------------------------- */

/* The device works: section 2.1.2 wants nothing more of one that failed or has to be reset. */
static bool running(const struct virtio_mmio *mmio)
{
    return (mmio->status & (VIRTIO_STATUS_DRIVER_OK | VIRTIO_STATUS_FAILED | VIRTIO_STATUS_NEEDS_RESET)) ==
           VIRTIO_STATUS_DRIVER_OK;
}

/* The next that was rung, behind the one that was served last. rung is not 0. */
static uint32_t next_queue(const struct virtio_worker *worker)
{
    const uint32_t behind = worker->rung & ~((UINT32_C(2) << worker->after) - 1);

    return (uint32_t)__builtin_ctz(behind != 0 ? behind : worker->rung);
}

static bool take(struct virtio_worker *worker, uint32_t queue, const struct loam_gpa_view *view)
{
    struct virtio_mmio *mmio = worker->mmio;

    worker->job = (struct virtio_job){
        .queue = queue,
        .features = virtio_mmio_features(mmio),
        .view = view,
        .chain = {.pieces = worker->pieces, .capacity = VIRTIO_WORKER_PIECE_MAX},
    };
    return running(mmio) && virtqueue_pop(virtio_mmio_queue(mmio, queue), view, &worker->job.chain) == LOAM_OK;
}

/* Returns whether the chain went back to the driver. */
static bool serve_taken(struct virtio_worker *worker)
{
    struct virtio_mmio *mmio = worker->mmio;
    uint32_t written;
    bool is_given;

    worker->is_serving = true;
    worker->job_count++;
    atomic_store(&worker->must_stop, false);
    virtio_mmio_unlock(mmio);
    written = worker->serve(worker->self, &worker->job);
    virtio_mmio_lock(mmio);
    worker->is_serving = false;
    pthread_cond_broadcast(&worker->done);
    is_given =
        !atomic_load(&worker->must_stop) && virtqueue_push(virtio_mmio_queue(mmio, worker->job.queue), worker->job.view,
                                                           worker->job.chain.head, written) == LOAM_OK;
    virtio_mmio_wrote(mmio, worker->job.queue, &worker->job.chain);
    return is_given;
}

static void serve_next(struct virtio_worker *worker)
{
    struct virtio_mmio *mmio = worker->mmio;
    const struct loam_gpa_view *view = loam_gpa_map_acquire(mmio->map);
    const uint32_t queue = next_queue(worker);
    bool pushed = false;

    worker->after = queue;
    if (take(worker, queue, view)) {
        pushed = serve_taken(worker);
    } else {
        worker->rung &= ~(UINT32_C(1) << queue);
    }
    virtio_mmio_settle(mmio, queue, view, pushed);
    loam_gpa_map_release(mmio->map, view);
}

static void serve_as_rung(void *self)
{
    struct virtio_worker *worker = self;

    virtio_mmio_lock(worker->mmio);
    while (!worker->is_leaving) {
        if (worker->is_held || worker->rung == 0) {
            pthread_cond_wait(&worker->news, &worker->mmio->lock);
        } else {
            serve_next(worker);
        }
    }
    virtio_mmio_unlock(worker->mmio);
}

/* --- Public ------------------------------------------------------------------------------------------------------ */

static void init_conditions(struct virtio_worker *worker)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&worker->news, NULL);
    pthread_cond_init(&worker->done, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void destroy_conditions(struct virtio_worker *worker)
{
    pthread_cond_destroy(&worker->news);
    pthread_cond_destroy(&worker->done);
}

enum loam_error virtio_worker_start(struct virtio_worker *worker, struct virtio_mmio *mmio, virtio_serve_fn *serve,
                                    void *self, const char *name, struct loam_diag *diag)
{
    enum loam_error error;

    *worker = (struct virtio_worker){
        .mmio = mmio,
        .serve = serve,
        .self = self,
        .patience_milliseconds = VIRTIO_WORKER_PATIENCE_MILLISECONDS,
    };
    init_conditions(worker);
    error = kick_start(&worker->thread, serve_as_rung, worker, name, diag);
    if (error != LOAM_OK) {
        destroy_conditions(worker);
    }
    return error;
}

bool virtio_worker_end(struct virtio_worker *worker)
{
    virtio_mmio_lock(worker->mmio);
    worker->is_leaving = true;
    atomic_store(&worker->must_stop, true);
    pthread_cond_signal(&worker->news);
    virtio_mmio_unlock(worker->mmio);
    if (!kick_end(&worker->thread)) {
        return false;
    }
    destroy_conditions(worker);
    return true;
}

void virtio_worker_ring(struct virtio_worker *worker, uint32_t queue)
{
    worker->rung |= UINT32_C(1) << queue;
    pthread_cond_signal(&worker->news);
}

/* Wait for the chain that is served now, while patience lasts; the lock is given up meanwhile. */
static void await_job(struct virtio_worker *worker)
{
    const uint64_t job = worker->job_count;

    for (int64_t left = worker->patience_milliseconds; worker->is_serving && worker->job_count == job && left > 0;
         left -= KICK_MILLISECONDS) {
        const struct timespec until = after_milliseconds(KICK_MILLISECONDS);

        kick_send(&worker->thread);
        (void)pthread_cond_timedwait(&worker->done, &worker->mmio->lock, &until);
    }
}

void virtio_worker_drop(struct virtio_worker *worker, uint32_t queue)
{
    worker->rung &= ~(UINT32_C(1) << queue);
    if (worker->is_serving && worker->job.queue == queue) {
        atomic_store(&worker->must_stop, true);
        await_job(worker);
    }
}

void virtio_worker_hold(struct virtio_worker *worker)
{
    virtio_mmio_lock(worker->mmio);
    worker->is_held = true;
    while (worker->is_serving) {
        pthread_cond_wait(&worker->done, &worker->mmio->lock);
    }
    virtio_mmio_unlock(worker->mmio);
}

void virtio_worker_resume(struct virtio_worker *worker)
{
    virtio_mmio_lock(worker->mmio);
    worker->is_held = false;
    pthread_cond_signal(&worker->news);
    virtio_mmio_unlock(worker->mmio);
}

bool virtio_worker_must_stop(const struct virtio_worker *worker)
{
    return atomic_load(&worker->must_stop);
}
