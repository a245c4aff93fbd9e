// SPDX-License-Identifier: Apache-2.0
/*
 * A thread of a virtio device's own, for work that may wait: it takes the chains of the device's queues one after the
 * other, has each served without the transport's lock, and gives it back. No vCPU waits for it but at a reset.
 *
 *     virtio_worker_start -> { virtio_worker_ring | virtio_worker_drop | hold, resume } -> virtio_worker_end
 *
 * Queues that were rung take turns, chain by chain, in the order of their numbers. A view of the GPA map is held while a
 * chain is served, so that its pieces are good until it is done.
 *
 * A queue that stops while one of its chains is served waits for the serving to end, for what is read late must not land
 * in memory that the driver uses for something else by then. Serving that looks at virtio_worker_must_stop ends soon;
 * a system call that a signal ends is kicked. One that does not end within patience_milliseconds (a file system that hangs)
 * is waited for no longer: what it reads may land late, but its chain is never given back, and nothing else is served until
 * it has returned.
 *
 * Threads: as each call says. Lock order: as the transport's; serving is done with no lock held.
 */
#ifndef LOAM_VMM_VIRTIO_WORKER_H
#define LOAM_VMM_VIRTIO_WORKER_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/kick.h"
#include "vmm/virtio_mmio.h"
#include "vmm/virtqueue.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define VIRTIO_WORKER_QUEUE_SIZE_MAX 256u
/* Twice the queue: each of a longest chain's buffers may go across one end of a region. */
#define VIRTIO_WORKER_PIECE_MAX             (2 * VIRTIO_WORKER_QUEUE_SIZE_MAX)
#define VIRTIO_WORKER_PATIENCE_MILLISECONDS 10000u

/* A chain that is being served. */
struct virtio_job {
    uint32_t queue;
    uint64_t features;                /* agreed upon when it was taken */
    const struct loam_gpa_view *view; /* held until it is done */
    struct virtqueue_chain chain;
};

/*
 * Do what the chain asks for, on the worker's thread, with no lock held. Returns the count of bytes written to its
 * writable pieces, from the first one on. Bounded work, or work that looks at virtio_worker_must_stop.
 */
typedef uint32_t virtio_serve_fn(void *self, const struct virtio_job *job);

/*
 * All but must_stop, the thread and job's inside is under the transport's lock.
 * is_serving: job is the thread's, and is the job_count-th.
 */
struct virtio_worker {
    struct virtio_mmio *mmio;
    virtio_serve_fn *serve;
    void *self;
    uint32_t patience_milliseconds;
    uint32_t rung;  /* bit n: there may be chains in queue n */
    uint32_t after; /* the queue that was served last */
    bool is_serving;
    bool is_held;
    bool is_leaving;
    uint64_t job_count;
    atomic_bool must_stop; /* the chain being served is given back no more */
    pthread_cond_t news;   /* for the thread: rung, is_held or is_leaving has changed */
    pthread_cond_t done;   /* is_serving has become false */
    struct virtio_job job;
    struct kick_thread thread;
    struct loam_piece pieces[VIRTIO_WORKER_PIECE_MAX];
};

/*
 * mmio is initialised, its queues are no larger than VIRTIO_WORKER_QUEUE_SIZE_MAX, and it outlives the worker. name:
 * whose thread it is, for messages. LOAM_ERROR_SYSTEM: no thread, and there is nothing to end.
 */
LOAM_MUST_USE enum loam_error virtio_worker_start(struct virtio_worker *worker, struct virtio_mmio *mmio,
                                                  virtio_serve_fn *serve, void *self, const char *name,
                                                  struct loam_diag *diag);

/*
 * The chain that is served is dropped, and the thread ends. Nobody rings any more. false: the thread is in a call that
 * does not end; it is left behind, and with it the worker, the transport, and the guest's memory that its call uses.
 */
bool virtio_worker_end(struct virtio_worker *worker);

/* The driver rang for a queue: what a device's notify does. Locked. */
void virtio_worker_ring(struct virtio_worker *worker, uint32_t queue);

/* A queue has stopped: what a device's stop does. Its chains are forgotten; see above for one that is served. Locked. */
void virtio_worker_drop(struct virtio_worker *worker, uint32_t queue);

/*
 * Return when no chain is served; none is from then on until virtio_worker_resume, and what is rung meanwhile waits for
 * it. Counted by nobody: held is held. Any thread that holds no lock.
 */
void virtio_worker_hold(struct virtio_worker *worker);
void virtio_worker_resume(struct virtio_worker *worker);

/* For serving that takes long: whether it is in vain by now. */
bool virtio_worker_must_stop(const struct virtio_worker *worker);

#endif
