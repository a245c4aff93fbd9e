// SPDX-License-Identifier: Apache-2.0
/*
 * The PIT of a PC: an 8254's three counters (pit_counter.h), the port beside it that has the gate and the output of the third,
 * and a clock that drives them: CLOCK_MONOTONIC, at 1.193182 MHz, less the time for which the PIT was held.
 *
 * It starts as a PC's firmware leaves it: counter 0 ticks every 65,536 clocks, 18.2 times a second; counter 1 every 18, for
 * memory's refresh; counter 2, the speaker's, is not programmed, and its gate is closed.
 *
 * The interrupt line rises when counter 0's output does. A thread waits for that while anybody hears the line; when nobody
 * does, what has happened is made up for by whoever is about to look (pit_catch_up).
 *
 * A guest whose vCPU does not run for a while counts on ticks all the same. The line rises for each, but of those that come
 * before the last was taken only one is kept, as on a PC. So each time that one is taken (pit_taken) the line rises once more
 * for one that was not, up to PIT_OWED_MAX of them; where it is kept already, that does nothing. Nobody has to say when a tick is
 * taken: then what is lost is lost. Ticks do not come more often than PIT_SHORTEST_NANOSECONDS apart, whatever the guest asks for.
 *
 * Threads: pit_init to pit_start and pit_destroy from one; all else from any. The line is set under the PIT's lock.
 */
#ifndef LOAM_VMM_PIT_H
#define LOAM_VMM_PIT_H

#include "loam/error.h"
#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/kick.h"
#include "vmm/pit_counter.h"
#include "vmm/state.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define PIT_PORT         0x40u /* counters 0 to 2, and the control word */
#define PIT_BYTES        4u
#define PIT_SPEAKER_PORT 0x61u /* system control port B */

#define PIT_COUNTERS             3u
#define PIT_HERTZ                1193182
#define PIT_SHORTEST_NANOSECONDS 200000
#define PIT_OWED_MAX             20u

/* All that a guest can tell. */
struct pit_state {
    struct pit_counter counters[PIT_COUNTERS];
    bool has_speaker; /* bit 1 of port B */
};

struct pit {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct irq_line irq;
    bool (*is_heard)(void *self); /* the line; with no lock of its own that is held while the line is set */
    void *self;
    struct pit_state state;
    int64_t zero; /* nanoseconds of CLOCK_MONOTONIC at which the clock was 0, had it never been held */
    bool is_held; /* the clock stands at held */
    int64_t held; /* nanoseconds of CLOCK_MONOTONIC */
    int64_t seen; /* the clock up to which the line has risen */
    bool is_high; /* the line */
    atomic_uint
        untaken; /* ticks that have come and were not taken, up to PIT_OWED_MAX + 1; lowered by pit_taken alone */
    int64_t next_raise; /* nanoseconds of CLOCK_MONOTONIC before which the thread raises nothing */
    bool is_leaving;
    bool has_thread;
    struct kick_thread thread;
};

/* is_heard(self): whether a rise of the line does anything; called from any thread, under the PIT's lock. */
void pit_init(struct pit *pit, struct irq_line irq, bool (*is_heard)(void *self), void *self);

/* No other thread uses it any more. */
void pit_destroy(struct pit *pit);

/* From now on the line rises by itself. LOAM_ERROR_SYSTEM: no thread can be had. */
LOAM_MUST_USE enum loam_error pit_start(struct pit *pit, struct loam_diag *diag);

/* bus_access_fn for PIT_BYTES ports from PIT_PORT, and for the one at PIT_SPEAKER_PORT. */
void pit_access(void *pit, struct bus_access *access);
void pit_speaker_access(void *pit, struct bus_access *access);

/* Have the line as it would be by now, or leave it to whoever is about that already: waits for nobody. */
void pit_catch_up(struct pit *pit);

/* is_heard may say something else than before. */
void pit_attend(struct pit *pit);

/* The guest has taken a tick. Waits for the PIT only if there is one to be made up for. */
void pit_taken(struct pit *pit);

/* The clock stands still, and no line rises; and it goes on. */
void pit_hold(struct pit *pit);
void pit_go_on(struct pit *pit);

/* Whole clocks in so many nanoseconds; nanoseconds until a clock begins. Pure; neither is negative. */
int64_t pit_clocks(int64_t nanoseconds);
int64_t pit_nanoseconds(int64_t clocks);

/* Written down, and read again: state.h. While no vCPU runs; loading is for one that was just made and is held. Errors as
 * state_take_fields. */
void pit_save(struct pit *pit, struct state_writer *writer);
LOAM_MUST_USE enum loam_error pit_load(struct pit *pit, struct state_reader *reader, struct loam_diag *diag);

#endif
