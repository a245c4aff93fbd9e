// SPDX-License-Identifier: Apache-2.0
/*
 * When to look whether a guest rests for good (rest.h): a look calls every vCPU out of the guest, so it is made when they
 * have been asleep, and seldom where that is a guest's ordinary state.
 *
 * The clock of the processor time that the vCPU threads have taken tells whether they were: it costs a system call a thread,
 * and a guest that runs pays nothing else. Times of turns:
 *
 *     it has run since the last turn      another turn in LOOKOUT_MIN_MILLISECONDS, and no look
 *     it has slept since the last turn    a look; and another turn in twice the time that it was, up to LOOKOUT_MAX_...
 *
 * So a guest that halts for good is found within two of the shortest turns, some 40 ms, and one that waits for an interrupt
 * for hours is called out twice a second. A look takes some processor time of its own, which counts as sleep.
 *
 * It decides when, not whether: a thread that found no processor looks asleep as well, and is found awake.
 *
 * Pure; the owner's thread.
 */
#ifndef LOAM_VMM_LOOKOUT_H
#define LOAM_VMM_LOOKOUT_H

#include <stdbool.h>
#include <stdint.h>

#define LOOKOUT_MIN_MILLISECONDS 20
#define LOOKOUT_MAX_MILLISECONDS 250

/* Between two turns, a guest that has taken more than this has run; one that took less was woken for a moment, by a look too. */
#define LOOKOUT_RUN_NANOSECONDS UINT64_C(1000000)

/* Starts as zeros: the first turn is due at once. */
struct lookout {
    int64_t next_milliseconds;
    int wait_milliseconds; /* from the last turn to the next */
    uint64_t taken_nanoseconds;
};

/* Whether a turn is due, and the vCPU threads' processor time worth asking for. */
bool lookout_is_due(const struct lookout *lookout, int64_t now_milliseconds);

/* A turn that is due. Returns whether to look. */
bool lookout_turn(struct lookout *lookout, int64_t now_milliseconds, uint64_t taken_nanoseconds);

/* Until the next turn; 0: it is due. */
int lookout_wait_milliseconds(const struct lookout *lookout, int64_t now_milliseconds);

#endif
