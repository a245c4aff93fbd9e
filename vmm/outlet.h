// SPDX-License-Identifier: Apache-2.0
/*
 * An outlet: the way of bytes to a descriptor of the outside, on which nobody who has something to say ever waits.
 *
 * What is appended is gathered in memory, and a thread of the outlet's own writes it: it looks every
 * OUTLET_QUIET_MICROSECONDS whether OUTLET_FLUSH_BYTES are there or nothing has come since, and waits no longer than
 * OUTLET_GATHER_MICROSECONDS. The
 * descriptor's open file is left as it is, since others share it: it may block, may be O_NONBLOCK, may be turned
 * from one to the other.
 *
 * Memory is bounded by its callers: one that produces without end, such as a guest, waits with outlet_wait_room where it
 * holds no lock. A write that fails for good (a full disk, a reader that is gone) is remembered; from then on everything
 * is lost, and counted, so that what did arrive is whole up to one point.
 *
 *     outlet_open -> outlet_append: the caller writes himself, until it is written
 *                 -> outlet_start  -> outlet_append, outlet_wait_room ... -> outlet_drain -> outlet_stop
 *
 * Threads: any, but outlet_open, outlet_start, outlet_stop and outlet_close belong to one.
 */
#ifndef LOAM_VMM_OUTLET_H
#define LOAM_VMM_OUTLET_H

#include "loam/error.h"
#include "vmm/kick.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OUTLET_FLUSH_BYTES         4096u
#define OUTLET_HIGH_BYTES          (64u << 10) /* more is waiting than who can wait should add to */
#define OUTLET_QUIET_MICROSECONDS  1000
#define OUTLET_GATHER_MICROSECONDS 4000

struct outlet_bytes {
    uint8_t *at;
    size_t count, room;
};

/* Bytes that wait: gathered.count + going.count - gone. All under lock but what says otherwise. */
struct outlet {
    int fd;
    const char *name;      /* for messages; static */
    struct outlet *teller; /* where to say at once that writing has failed; NULL or itself: nowhere */
    pthread_mutex_t lock;
    pthread_cond_t news; /* for the thread */
    struct outlet_bytes gathered, going;
    size_t gone;
    size_t mark; /* low_fd is readable while no more than so many bytes wait */
    int low_fd;
    bool is_low;    /* what low_fd says */
    bool is_urgent; /* gather no longer */
    bool has_thread;
    bool is_abandoned;   /* the owner's: the thread is in a call that does not end, and uses all of this */
    bool is_stopped;     /* nothing is taken any more */
    atomic_bool leaving; /* the thread is to leave; without the lock */
    int error;           /* errno of the first write that failed for good */
    uint64_t lost_bytes;
    struct kick_thread thread;
};

/* fd stays the caller's and open. LOAM_ERROR_SYSTEM: a call failed, and there is nothing to close. */
LOAM_MUST_USE enum loam_error outlet_open(struct outlet *outlet, int fd, const char *name, struct loam_diag *diag);

/* Stops it first; what still waits is lost. */
void outlet_close(struct outlet *outlet);

/* From now on the outlet writes by itself. LOAM_ERROR_SYSTEM: no thread, and nothing has changed. */
LOAM_MUST_USE enum loam_error outlet_start(struct outlet *outlet, struct loam_diag *diag);

/*
 * count bytes to be written after all that came before. Started, it returns at once; else when they are written.
 * Any thread, under any lock but the outlet's own.
 */
void outlet_append(struct outlet *outlet, const void *bytes, size_t count);

/* Wait until no more than OUTLET_HIGH_BYTES wait, or stop_fd is readable. Holds no lock; a signal may end it early. */
void outlet_wait_room(struct outlet *outlet, int stop_fd);

/*
 * Write what waits, now. Returns whether all of it is gone; false: stop_fd (-1: none) is readable, or
 * patience_milliseconds (-1: any time) have passed.
 */
bool outlet_drain(struct outlet *outlet, int stop_fd, int64_t patience_milliseconds);

/* End the thread, in whatever call it is. What still waits, and what is appended from now on, is lost. */
void outlet_stop(struct outlet *outlet);

/* Bytes that wait. */
size_t outlet_waiting(struct outlet *outlet);

/* Bytes lost so far; *error is the errno of the first write that failed, 0 if none has. */
uint64_t outlet_lost(struct outlet *outlet, int *error);

/*
 * An unbuffered stream into the outlet for text to people: control bytes, and what is no UTF-8, are shown as printable.h
 * says. The caller closes it before the outlet. NULL: no memory.
 */
FILE *outlet_text_stream(struct outlet *outlet);

/* A buffered stream, whose bytes go out as they are. */
FILE *outlet_raw_stream(struct outlet *outlet);

#endif
