// SPDX-License-Identifier: Apache-2.0
/*
 * One counter of an 8254 (Intel data sheet, 231164), told what time it is: in clocks, by which it counts.
 *
 * What was written takes effect with the next clock, as on the chip. Between two calls nothing happens that cannot be
 * worked out, so there is nothing to be called at every clock; whoever wants to know when the output rises asks.
 *
 * The state is plain. Threads: the caller's lock; pure but for *counter. now is never less than in the call before.
 */
#ifndef LOAM_VMM_PIT_COUNTER_H
#define LOAM_VMM_PIT_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

enum pit_mode {
    PIT_TERMINAL_COUNT,
    PIT_ONE_SHOT, /* begun by the gate */
    PIT_RATE,
    PIT_SQUARE_WAVE,
    PIT_SOFTWARE_STROBE,
    PIT_HARDWARE_STROBE, /* begun by the gate */
    PIT_MODE_COUNT
};

/* Which bytes of a count are written and read: bits 4 and 5 of a control word. */
#define PIT_ACCESS_LOW  1u
#define PIT_ACCESS_HIGH 2u
#define PIT_ACCESS_BOTH 3u /* low, then high */

/* Reads: bits of a status. */
#define PIT_STATUS_OUT  0x80u
#define PIT_STATUS_NULL 0x40u /* what was written last does not count yet */

/* 1 <= initial, count <= 65536, with is_begun */
struct pit_counter {
    uint8_t mode; /* enum pit_mode */
    uint8_t access;
    bool is_decimal;
    bool gate;
    bool is_begun;    /* since the control word it was given a count and, in modes that want one, a trigger */
    bool has_initial; /* a count was written since the control word */
    bool is_loaded;   /* and is the one that it counts down */
    uint32_t initial; /* the count that was written last */
    uint32_t count;   /* the one that it counts down */
    int64_t start;    /* the clock at which it held that count */
    bool was_high;    /* the output, before that clock */
    bool is_stopped;  /* the gate is closed, and the mode stops then */
    int64_t elapsed;  /* clocks that it had counted then */
    bool has_next;    /* initial takes the place of count at the clock next_at */
    int64_t next_at;
    bool awaits_high; /* the low byte in low was written, of two */
    uint8_t low;
    bool gives_high; /* the low byte was read, of two */
    bool has_latched;
    uint16_t latched;
    bool has_status;
    uint8_t status;
};

/* Not programmed: mode 0 without a count. */
void pit_counter_reset(struct pit_counter *counter, bool gate);

/* A control word: bits 0 to 5 count. One that latches (bits 4 and 5 are 0) is pit_counter_latch's. */
void pit_counter_control(struct pit_counter *counter, uint8_t word);

/* A byte of a count. */
void pit_counter_write(struct pit_counter *counter, int64_t now, uint8_t value);

/* A byte of the status, if it was latched, else of the count. */
uint8_t pit_counter_read(struct pit_counter *counter, int64_t now);

/* Keep the count, and the status, until they are read. No effect on what is kept already. */
void pit_counter_latch(struct pit_counter *counter, int64_t now);
void pit_counter_latch_status(struct pit_counter *counter, int64_t now);

void pit_counter_set_gate(struct pit_counter *counter, int64_t now, bool is_open);

/* The output. */
bool pit_counter_out(const struct pit_counter *counter, int64_t now);

/* The first clock after now at which the output rises by itself; false: it does not. */
bool pit_counter_next_rise(const struct pit_counter *counter, int64_t now, int64_t *when);

#endif
