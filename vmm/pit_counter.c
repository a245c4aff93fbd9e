// SPDX-License-Identifier: Apache-2.0
/*
 * At the clock start + e the counter has counted e clocks: what it holds and whether its output is high follow from e, count
 * and mode, by "Mode Definitions" of the data sheet.
 */
#include "vmm/pit_counter.h"

#define BINARY_COUNTS  65536u
#define DECIMAL_COUNTS 10000u
#define SHORTEST       2u /* a period; 1 is none (data sheet, "minimum and maximum initial counts") */

/* Control word: access in bits 4 and 5, mode in 1 to 3 (6 and 7 mean 2 and 3), BCD in 0. */
#define CONTROL_ACCESS_BIT 4u
#define CONTROL_MODE_BIT   1u
#define CONTROL_DECIMAL    1u

static bool is_periodic(const struct pit_counter *counter)
{
    return counter->mode == PIT_RATE || counter->mode == PIT_SQUARE_WAVE;
}

static bool is_triggered(const struct pit_counter *counter)
{
    return counter->mode == PIT_ONE_SHOT || counter->mode == PIT_HARDWARE_STROBE;
}

static uint32_t count_limit(const struct pit_counter *counter)
{
    return counter->is_decimal ? DECIMAL_COUNTS : BINARY_COUNTS;
}

/* --- Numbers ---------------------------------------------------------------------------------------------------- */

static uint32_t from_decimal(uint32_t digits)
{
    return (digits >> 12 & 15) * 1000 + (digits >> 8 & 15) * 100 + (digits >> 4 & 15) * 10 + (digits & 15);
}

static uint16_t to_decimal(uint32_t value)
{
    return (uint16_t)(value / 1000 % 10 << 12 | value / 100 % 10 << 8 | value / 10 % 10 << 4 | value % 10);
}

/* What the written bits mean; 0 is the most that there is. */
static uint32_t count_of(const struct pit_counter *counter, uint32_t bits)
{
    uint32_t value = counter->is_decimal ? from_decimal(bits) : bits;

    return value != 0 ? value : count_limit(counter);
}

/* --- Time ------------------------------------------------------------------------------------------------------- */

/* Of a square wave the clocks for which it is high. */
static int64_t high_clocks(uint32_t count)
{
    return (count + 1) / 2;
}

/* Have the count that was written last take its turn, if that has come. */
static void settle(struct pit_counter *counter, int64_t now)
{
    bool is_half;

    if (!counter->has_next || now < counter->next_at) {
        return;
    }
    is_half = counter->mode == PIT_SQUARE_WAVE && (counter->next_at - counter->start) % counter->count != 0;
    counter->count = counter->initial;
    counter->start = counter->next_at - (is_half ? high_clocks(counter->count) : 0);
    counter->has_next = false;
    counter->is_loaded = true;
}

/* Clocks that have been counted; 0 before the first. */
static int64_t elapsed(const struct pit_counter *counter, int64_t now)
{
    if (counter->is_stopped) {
        return counter->elapsed;
    }
    return now > counter->start ? now - counter->start : 0;
}

/* The first clock after now of start, start + period, start + 2 * period... */
static int64_t next_of(int64_t start, int64_t period, int64_t now)
{
    return now < start ? start : start + ((now - start) / period + 1) * period;
}

/* The end of the cycle, or of the half of a square wave, that runs at now. */
static int64_t end_of_cycle(const struct pit_counter *counter, int64_t now)
{
    const int64_t end = next_of(counter->start, counter->count, now);
    const int64_t half = end - counter->count + high_clocks(counter->count);

    return counter->mode == PIT_SQUARE_WAVE && half > now ? half : end;
}

static bool settled_out(const struct pit_counter *counter, int64_t now)
{
    const int64_t counted = elapsed(counter, now);

    if (!counter->is_begun) {
        return counter->mode != PIT_TERMINAL_COUNT;
    }
    if (!counter->is_stopped && now < counter->start) {
        return counter->was_high;
    }
    switch (counter->mode) {
    case PIT_TERMINAL_COUNT:
    case PIT_ONE_SHOT:
        return counted >= counter->count;
    case PIT_RATE:
        return counter->is_stopped || counted % counter->count != counter->count - 1;
    case PIT_SQUARE_WAVE:
        return counter->is_stopped || counted % counter->count < high_clocks(counter->count);
    default:
        return counted != counter->count;
    }
}

static uint32_t settled_count(const struct pit_counter *counter, int64_t now)
{
    const int64_t counted = elapsed(counter, now);
    const int64_t limit = count_limit(counter), count = counter->count;
    int64_t place;

    switch (counter->mode) {
    case PIT_RATE:
        return (uint32_t)(count - counted % count);
    case PIT_SQUARE_WAVE: /* by two, from an even number, through each half */
        place = counted % count;
        place -= place < high_clocks(counter->count) ? 0 : high_clocks(counter->count);
        return (uint32_t)(count - count % 2 - 2 * place);
    default: /* on and on, after the end as well */
        return (uint32_t)(((count - counted) % limit + limit) % limit);
    }
}

static bool settled_next_rise(const struct pit_counter *counter, int64_t now, int64_t *when)
{
    const bool is_strobe = counter->mode == PIT_SOFTWARE_STROBE || counter->mode == PIT_HARDWARE_STROBE;
    const int64_t end = counter->start + counter->count;

    *when = end;
    if (!counter->is_begun || counter->is_stopped) {
        return false;
    }
    if (is_periodic(counter)) {
        *when = next_of(end, counter->count, now);
        return counter->count >= SHORTEST;
    }
    if (is_strobe) { /* one that was on ends when the next is begun */
        *when = !counter->was_high && now < counter->start ? counter->start : end + 1;
    }
    return *when > now;
}

/* --- Counts ----------------------------------------------------------------------------------------------------- */

/* With the next clock. */
static void begin(struct pit_counter *counter, int64_t now)
{
    counter->was_high = counter->mode != PIT_TERMINAL_COUNT && settled_out(counter, now);
    counter->count = counter->initial;
    counter->start = now + 1;
    counter->elapsed = 0;
    counter->has_next = false;
    counter->is_begun = true;
    counter->is_loaded = true;
}

static void load(struct pit_counter *counter, int64_t now, uint32_t bits)
{
    const bool is_running = counter->is_begun && is_periodic(counter) && !counter->is_stopped && now >= counter->start;

    counter->initial = count_of(counter, bits);
    counter->has_initial = true;
    counter->is_loaded = false;
    if (is_running && !counter->has_next) {
        counter->has_next = true;
        counter->next_at = end_of_cycle(counter, now);
    }
    if (!is_running && !is_triggered(counter)) {
        begin(counter, now);
    }
}

/* --- What is called --------------------------------------------------------------------------------------------- */

void pit_counter_reset(struct pit_counter *counter, bool gate)
{
    *counter = (struct pit_counter){.access = PIT_ACCESS_BOTH, .gate = gate, .is_stopped = !gate};
}

void pit_counter_control(struct pit_counter *counter, uint8_t word)
{
    const uint8_t mode = word >> CONTROL_MODE_BIT & 7;
    const bool gate = counter->gate;

    pit_counter_reset(counter, gate);
    counter->access = word >> CONTROL_ACCESS_BIT & PIT_ACCESS_BOTH;
    counter->mode = mode < PIT_MODE_COUNT ? mode : mode & 3;
    counter->is_decimal = (word & CONTROL_DECIMAL) != 0;
    counter->is_stopped = !gate && !is_triggered(counter);
}

void pit_counter_write(struct pit_counter *counter, int64_t now, uint8_t value)
{
    settle(counter, now);
    if (counter->access != PIT_ACCESS_BOTH) {
        load(counter, now, counter->access == PIT_ACCESS_HIGH ? (uint32_t)value << 8 : value);
    } else if (counter->awaits_high) {
        counter->awaits_high = false;
        load(counter, now, counter->low | (uint32_t)value << 8);
    } else {
        counter->awaits_high = true;
        counter->low = value;
        counter->is_begun = counter->is_begun && counter->mode != PIT_TERMINAL_COUNT;
    }
}

uint8_t pit_counter_read(struct pit_counter *counter, int64_t now)
{
    const bool is_high =
        counter->access == PIT_ACCESS_HIGH || (counter->access == PIT_ACCESS_BOTH && counter->gives_high);
    uint16_t value;

    if (counter->has_status) {
        counter->has_status = false;
        return counter->status;
    }
    if (!counter->has_latched) {
        pit_counter_latch(counter, now);
        counter->has_latched = false;
    }
    value = counter->latched;
    counter->gives_high = counter->access == PIT_ACCESS_BOTH && !counter->gives_high;
    counter->has_latched = counter->has_latched && counter->gives_high;
    return (uint8_t)(value >> (is_high ? 8 : 0));
}

void pit_counter_latch(struct pit_counter *counter, int64_t now)
{
    if (!counter->has_latched) {
        uint32_t count;

        settle(counter, now);
        count = counter->is_begun ? settled_count(counter, now) : 0;
        counter->latched = counter->is_decimal ? to_decimal(count) : (uint16_t)count;
        counter->has_latched = true;
    }
}

void pit_counter_latch_status(struct pit_counter *counter, int64_t now)
{
    bool is_null;

    if (counter->has_status) {
        return;
    }
    settle(counter, now);
    is_null = !counter->is_loaded || (!counter->is_stopped && now < counter->start);
    counter->status =
        (uint8_t)((settled_out(counter, now) ? PIT_STATUS_OUT : 0) | (is_null ? PIT_STATUS_NULL : 0) |
                  (uint32_t)counter->access << CONTROL_ACCESS_BIT | (uint32_t)counter->mode << CONTROL_MODE_BIT |
                  (counter->is_decimal ? CONTROL_DECIMAL : 0));
    counter->has_status = true;
}

void pit_counter_set_gate(struct pit_counter *counter, int64_t now, bool is_open)
{
    if (is_open == counter->gate) {
        return;
    }
    settle(counter, now);
    counter->gate = is_open;
    if (is_triggered(counter)) {
        if (is_open && counter->has_initial) {
            begin(counter, now);
        }
        return;
    }
    if (is_open && is_periodic(counter) && counter->is_begun) {
        begin(counter, now);
        counter->is_stopped = false;
    } else if (is_open) {
        counter->start = now - counter->elapsed;
        counter->is_stopped = false;
    } else {
        counter->elapsed = elapsed(counter, now);
        counter->is_stopped = true;
        counter->has_next = false;
    }
}

bool pit_counter_out(const struct pit_counter *counter, int64_t now)
{
    struct pit_counter settled = *counter;

    settle(&settled, now);
    return settled_out(&settled, now);
}

bool pit_counter_next_rise(const struct pit_counter *counter, int64_t now, int64_t *when)
{
    struct pit_counter settled = *counter;

    settle(&settled, now);
    if (settled_next_rise(&settled, now, when) && (!settled.has_next || *when <= settled.next_at)) {
        return true;
    }
    settle(&settled, settled.has_next ? settled.next_at : now);
    return settled_next_rise(&settled, now, when);
}
