// SPDX-License-Identifier: Apache-2.0
/*
 * A car park for threads that work in rounds: whoever closes it waits until every one of them rests between two rounds,
 * and until it is opened none begins another.
 *
 *     a thread:  park_come -> { a round; if park_is_closed: park_rest } ... -> park_go
 *     another:   park_close -> [call back whoever waits in his round] -> park_await -> ... -> park_open
 *
 * park_end is the last word: whoever rests goes on, and nobody rests any more.
 *
 * Threads: each of those that rest calls for itself; park_is_closed, park_fd and park_end from any; closing, awaiting and
 * opening from any, one after the other.
 */
#ifndef LOAM_VMM_PARK_H
#define LOAM_VMM_PARK_H

#include "loam/error.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct park {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fd;                /* an eventfd: readable while it is closed, and once it has ended */
    atomic_bool is_closed; /* written under lock */
    bool has_ended;        /* under lock */
    uint32_t busy_count;   /* who has come, has not gone and does not rest; under lock */
};

/* Open, and nobody there. LOAM_ERROR_SYSTEM: no descriptor, and there is nothing to destroy. */
LOAM_MUST_USE enum loam_error park_init(struct park *park, struct loam_diag *diag);

/* Everybody has gone. */
void park_destroy(struct park *park);

/* The calling thread takes part from now on; where it is closed, it rests first. */
void park_come(struct park *park);

/* Rest while it is closed. */
void park_rest(struct park *park);

/* The calling thread takes part no more. */
void park_go(struct park *park);

/* From now on whoever looks rests. false: it was closed already, or has ended, and nothing has changed. */
bool park_close(struct park *park);

/* Wait until nobody is in a round. */
void park_await(struct park *park);

void park_open(struct park *park);

void park_end(struct park *park);

/* From park_close to park_open, whether it has ended meanwhile or not. */
bool park_is_closed(const struct park *park);

/* What a thread polls that waits in its round. The park's. */
int park_fd(const struct park *park);

#endif
