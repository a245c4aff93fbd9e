// SPDX-License-Identifier: Apache-2.0
/*
 * Work that may never come back, done in processes of its own: one each, side by side, and killed when time is up.
 *
 * What such a process finds out it writes into its slot, memory that it shares with the caller. It has a session of its
 * own, so that nothing that it starts (ssh) can ask the terminal for a password, no standard streams, and it dies with the
 * caller. Slots are zero at first, and are to be read only where the end says ASIDE_DONE: others may be half written.
 *
 * Threads: the caller has no other, because it forks.
 */
#ifndef LOAM_LIBVIRT_ASIDE_H
#define LOAM_LIBVIRT_ASIDE_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define ASIDE_MAX     64u
#define ASIDE_FOREVER (-1)

enum aside_end {
    ASIDE_DONE,
    ASIDE_LATE, /* killed when time was up */
    ASIDE_DIED, /* ended by a signal that was not the caller's */
};

struct aside_task {
    pid_t pid;
    int end_fd; /* pidfd, -1 once it ended */
    void *slot;
    enum aside_end end;
    int signal;           /* ASIDE_DIED */
    int64_t milliseconds; /* until its end */
};

struct aside {
    uint32_t count;
    size_t slot_bytes;
    void *slots;
    struct aside_task tasks[ASIDE_MAX];
};

/* The work of task index, whose context is the caller's as it was. */
typedef void (*aside_work)(uint32_t index, void *slot, const void *context);

/*
 * Do count pieces of work, 1 to ASIDE_MAX, side by side, for so long at most (ASIDE_FOREVER: for any time), and then no
 * process is left. Release with aside_release. LOAM_ERROR_SYSTEM: no memory or no process, and nothing is left.
 */
LOAM_MUST_USE enum loam_error aside_run(struct aside *aside, uint32_t count, size_t slot_bytes, aside_work work,
                                        const void *context, int64_t patience_milliseconds, struct loam_diag *diag);

void aside_release(struct aside *aside);

#endif
