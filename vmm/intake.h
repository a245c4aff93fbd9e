// SPDX-License-Identifier: Apache-2.0
/*
 * An intake: reading from a descriptor that others may read as well.
 *
 * That poll(2) calls it readable does not mean that read(2) returns: another process may have taken the bytes between
 * the two. So it is a thread of the intake's own that reads, one read at a time and only when asked, and the caller
 * polls for its answer as he polls for everything else. The descriptor's open file is left as it is.
 *
 * Threads: one, the owner's.
 */
#ifndef LOAM_VMM_INTAKE_H
#define LOAM_VMM_INTAKE_H

#include "loam/error.h"
#include "vmm/kick.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define INTAKE_BYTES 256u /* of one read */

struct intake {
    int fd;
    bool may_wait;   /* neither a regular file nor the null device */
    bool has_thread; /* from the first read on */
    bool is_reading; /* the thread has been asked, and its answer not been taken */
    int done_fd;     /* readable when there is an answer */
    pthread_mutex_t lock;
    pthread_cond_t asked;
    bool is_asked;       /* under lock */
    atomic_bool leaving; /* the thread is to leave */
    ssize_t got;         /* the answer, with error and bytes: the thread's while is_asked */
    int error;
    uint8_t bytes[INTAKE_BYTES];
    struct kick_thread thread;
};

/* fd stays the caller's and open. LOAM_ERROR_SYSTEM: a call failed, and there is nothing to close. */
LOAM_MUST_USE enum loam_error intake_open(struct intake *intake, int fd, struct loam_diag *diag);

/* Ends a read that waits. */
void intake_close(struct intake *intake);

/* The descriptor to poll for POLLIN: fd itself, or while a read goes on what becomes readable at its end. */
int intake_poll_fd(const struct intake *intake);

/*
 * To be called when intake_poll_fd is readable; never waits. Returns how many bytes came, 0 at the end of the input, -1
 * with errno: EAGAIN when nothing is there yet (poll again, the descriptor may have changed), or why it cannot be read.
 */
ssize_t intake_take(struct intake *intake, uint8_t bytes[INTAKE_BYTES]);

#endif
