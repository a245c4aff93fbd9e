// SPDX-License-Identifier: Apache-2.0
/*
 * References: Intel 8254 data sheet (231164), programming; ICH9 data sheet (316972), section 13.7.1 (NMI_SC: port 0x61).
 *
 * seen is the clock up to which every rise of counter 0's output has been handed on, and is_high what the line was left at.
 * Whatever changes counter 0 first hands on what has come till then. At first the output is high and the line was never set:
 * the first tick is the first that anybody hears of it.
 */
#include "vmm/pit.h"

#include <stddef.h>
#include <sys/prctl.h>
#include <time.h>

#define SECOND 1000000000

#define CONTROL_PORT 3u
#define SPEAKER      2u /* the counter */
#define REFRESH      18u

/* Control words: counter in bits 6 and 7, 3 is for reading back; 0 in bits 4 and 5 latches. */
#define CONTROL_COUNTER_BIT 6u
#define CONTROL_ACCESS      0x30u
#define CONTROL_RATE        0x34u /* low byte, then high; mode 2 */
#define CONTROL_REFRESH     0x14u /* low byte; mode 2 */

/* Reading back: counters in bits 1 to 3; a 0 in bit 5 latches counts, in bit 4 the status. */
#define BACK_NO_COUNT  0x20u
#define BACK_NO_STATUS 0x10u

/* Port B. */
#define PORT_GATE    0x01u
#define PORT_SPEAKER 0x02u
#define PORT_REFRESH 0x10u
#define PORT_OUT     0x20u

/* --- Time -------------------------------------------------------------------------------------------------------- */

int64_t pit_clocks(int64_t nanoseconds)
{
    return nanoseconds / SECOND * PIT_HERTZ + nanoseconds % SECOND * PIT_HERTZ / SECOND;
}

int64_t pit_nanoseconds(int64_t clocks)
{
    return clocks / PIT_HERTZ * SECOND + (clocks % PIT_HERTZ * SECOND + PIT_HERTZ - 1) / PIT_HERTZ;
}

static int64_t monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

static int64_t clock_now(const struct pit *pit)
{
    return pit_clocks((pit->is_held ? pit->held : monotonic()) - pit->zero);
}

/* --- The line ---------------------------------------------------------------------------------------------------- */

static void set_line(struct pit *pit, bool is_high)
{
    if (is_high != pit->is_high) {
        pit->is_high = is_high;
        irq_set(&pit->irq, is_high);
    }
}

/* Of a rate or a square wave the line stays high until the next. */
static void raise_line(struct pit *pit)
{
    set_line(pit, false);
    set_line(pit, true);
}

/* How often the output has risen since seen, as far as anybody minds. Counter 0 has not been written to. */
static uint32_t count_rises(const struct pit *pit, int64_t now)
{
    int64_t at = pit->seen;
    uint32_t count = 0;

    while (count <= PIT_OWED_MAX && pit_counter_next_rise(&pit->state.counters[0], at, &at) && at <= now) {
        count++;
    }
    return count;
}

/* Some are taken meanwhile. */
static void add_untaken(struct pit *pit, uint32_t due)
{
    unsigned int before = atomic_load(&pit->untaken), after;

    do {
        after = before + due < PIT_OWED_MAX + 1 ? before + due : PIT_OWED_MAX + 1;
    } while (!atomic_compare_exchange_weak(&pit->untaken, &before, after));
}

/* Nobody is owed what nobody hears, nor what comes faster than it should. */
static void hand_on(struct pit *pit, int64_t now)
{
    const bool is_slow = pit->state.counters[0].count >= pit_clocks(PIT_SHORTEST_NANOSECONDS);
    const uint32_t due = count_rises(pit, now);

    pit->seen = now;
    if (due == 0) {
        return;
    }
    if (is_slow && pit->is_heard(pit->self)) {
        add_untaken(pit, due);
    } else {
        atomic_store(&pit->untaken, 1);
    }
    raise_line(pit);
}

/* When the thread has something to do again, in nanoseconds of CLOCK_MONOTONIC. false: when it is called. */
static bool find_deadline(const struct pit *pit, int64_t *deadline)
{
    int64_t rise;

    if (pit->is_held || !pit->is_heard(pit->self) ||
        !pit_counter_next_rise(&pit->state.counters[0], pit->seen, &rise)) {
        return false;
    }
    *deadline = pit->zero + pit_nanoseconds(rise);
    if (*deadline < pit->next_raise) {
        *deadline = pit->next_raise;
    }
    return true;
}

static void wait_until(struct pit *pit, int64_t deadline)
{
    const struct timespec end = {.tv_sec = deadline / SECOND, .tv_nsec = deadline % SECOND};

    pthread_cond_timedwait(&pit->changed, &pit->lock, &end);
}

static void tick(void *self)
{
    struct pit *pit = self;
    int64_t deadline;

    pthread_mutex_lock(&pit->lock);
    while (!pit->is_leaving) {
        if (!find_deadline(pit, &deadline)) {
            pthread_cond_wait(&pit->changed, &pit->lock);
        } else if (monotonic() < deadline) {
            wait_until(pit, deadline);
        } else {
            hand_on(pit, clock_now(pit));
            pit->next_raise = monotonic() + PIT_SHORTEST_NANOSECONDS;
        }
    }
    pthread_mutex_unlock(&pit->lock);
}

/* A vCPU that was woken by a tick comes here before the thread that woke it has gone on. */
void pit_catch_up(struct pit *pit)
{
    if (pthread_mutex_trylock(&pit->lock) == 0) {
        hand_on(pit, clock_now(pit));
        pthread_mutex_unlock(&pit->lock);
    }
}

void pit_attend(struct pit *pit)
{
    pthread_mutex_lock(&pit->lock);
    if (!pit->is_heard(pit->self)) {
        atomic_store(&pit->untaken, 0);
    }
    pthread_cond_signal(&pit->changed);
    pthread_mutex_unlock(&pit->lock);
}

/* Whoever takes a tick may have been woken by it, while the thread that raised it has the lock still. */
void pit_taken(struct pit *pit)
{
    unsigned int before = atomic_load(&pit->untaken);

    while (before > 0 && !atomic_compare_exchange_weak(&pit->untaken, &before, before - 1)) {
    }
    if (before > 1) {
        pthread_mutex_lock(&pit->lock);
        raise_line(pit);
        pthread_mutex_unlock(&pit->lock);
    }
}

/* --- The guest's accesses ----------------------------------------------------------------------------------------- */

static void read_back(struct pit *pit, int64_t now, uint8_t word)
{
    for (uint32_t i = 0; i < PIT_COUNTERS; i++) {
        bool is_chosen = (word >> (i + 1) & 1) != 0;

        if (is_chosen && (word & BACK_NO_COUNT) == 0) {
            pit_counter_latch(&pit->state.counters[i], now);
        }
        if (is_chosen && (word & BACK_NO_STATUS) == 0) {
            pit_counter_latch_status(&pit->state.counters[i], now);
        }
    }
}

static void write_control(struct pit *pit, int64_t now, uint8_t word)
{
    const uint32_t counter = word >> CONTROL_COUNTER_BIT;

    if (counter == PIT_COUNTERS) {
        read_back(pit, now, word);
    } else if ((word & CONTROL_ACCESS) == 0) {
        pit_counter_latch(&pit->state.counters[counter], now);
    } else {
        pit_counter_control(&pit->state.counters[counter], word);
    }
}

/* Counter 0 begins anew, and its output may change with that. */
static void write_ticking(struct pit *pit, int64_t now, bool was_high)
{
    const bool is_high = pit_counter_out(&pit->state.counters[0], now);

    atomic_store(&pit->untaken, 0);
    if (is_high && !was_high) {
        raise_line(pit);
    } else if (!is_high) {
        set_line(pit, false);
    }
}

static void write_port(struct pit *pit, int64_t now, uint64_t offset, uint8_t value)
{
    const bool was_high = pit_counter_out(&pit->state.counters[0], now);

    if (offset == CONTROL_PORT) {
        write_control(pit, now, value);
    } else {
        pit_counter_write(&pit->state.counters[offset], now, value);
    }
    if (offset == 0 || (offset == CONTROL_PORT && value >> CONTROL_COUNTER_BIT == 0 && (value & CONTROL_ACCESS) != 0)) {
        write_ticking(pit, now, was_high);
    }
}

static uint8_t read_port(struct pit *pit, int64_t now, uint64_t offset)
{
    return offset == CONTROL_PORT ? 0xff : pit_counter_read(&pit->state.counters[offset], now);
}

/* Bytes of a wide access go to ports one after the other, as on the PC's bus. */
void pit_access(void *self, struct bus_access *access)
{
    struct pit *pit = self;
    uint64_t value = 0;
    int64_t now;

    pthread_mutex_lock(&pit->lock);
    now = clock_now(pit);
    hand_on(pit, now);
    for (uint32_t i = 0; i < access->bytes; i++) {
        if (access->is_write) {
            write_port(pit, now, access->offset + i, (uint8_t)(access->value >> 8 * i));
        } else {
            value |= (uint64_t)read_port(pit, now, access->offset + i) << 8 * i;
        }
    }
    if (access->is_write) {
        pthread_cond_signal(&pit->changed);
    } else {
        access->value = value;
    }
    pthread_mutex_unlock(&pit->lock);
}

static uint8_t read_speaker(const struct pit *pit, int64_t now)
{
    const struct pit_counter *counter = &pit->state.counters[SPEAKER];

    return (uint8_t)((counter->gate ? PORT_GATE : 0) | (pit->state.has_speaker ? PORT_SPEAKER : 0) |
                     (now / REFRESH % 2 != 0 ? PORT_REFRESH : 0) | (pit_counter_out(counter, now) ? PORT_OUT : 0));
}

void pit_speaker_access(void *self, struct bus_access *access)
{
    struct pit *pit = self;
    int64_t now;

    pthread_mutex_lock(&pit->lock);
    now = clock_now(pit);
    if (access->is_write) {
        pit_counter_set_gate(&pit->state.counters[SPEAKER], now, (access->value & PORT_GATE) != 0);
        pit->state.has_speaker = (access->value & PORT_SPEAKER) != 0;
    } else {
        access->value = read_speaker(pit, now);
    }
    pthread_mutex_unlock(&pit->lock);
}

/* --- Lifecycle ---------------------------------------------------------------------------------------------------- */

static void leave_as_firmware_does(struct pit *pit)
{
    for (uint32_t i = 0; i < PIT_COUNTERS; i++) {
        pit_counter_reset(&pit->state.counters[i], i != SPEAKER);
    }
    pit_counter_control(&pit->state.counters[0], CONTROL_RATE);
    pit_counter_write(&pit->state.counters[0], 0, 0);
    pit_counter_write(&pit->state.counters[0], 0, 0);
    pit_counter_control(&pit->state.counters[1], CONTROL_REFRESH);
    pit_counter_write(&pit->state.counters[1], 0, REFRESH);
}

void pit_init(struct pit *pit, struct irq_line irq, bool (*is_heard)(void *self), void *self)
{
    pthread_condattr_t attributes;

    *pit = (struct pit){.irq = irq, .is_heard = is_heard, .self = self, .zero = monotonic()};
    pthread_mutex_init(&pit->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&pit->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    leave_as_firmware_does(pit);
    pit->is_high = pit_counter_out(&pit->state.counters[0], 0);
}

/*
 * What comes due is not gathered with other timers, which the kernel does by 50 us where it is let. A thread has that from the
 * one that starts it, and asks for nothing itself.
 */
enum loam_error pit_start(struct pit *pit, struct loam_diag *diag)
{
    int slack = prctl(PR_GET_TIMERSLACK);
    enum loam_error error;

    (void)prctl(PR_SET_TIMERSLACK, 1);
    error = kick_start(&pit->thread, tick, pit, "the timer", diag);
    (void)prctl(PR_SET_TIMERSLACK, slack > 0 ? slack : 0);
    pit->has_thread = error == LOAM_OK;
    return error;
}

void pit_destroy(struct pit *pit)
{
    pthread_mutex_lock(&pit->lock);
    pit->is_leaving = true;
    pthread_cond_signal(&pit->changed);
    pthread_mutex_unlock(&pit->lock);
    if (pit->has_thread) {
        kick_join(&pit->thread);
    }
    pthread_cond_destroy(&pit->changed);
    pthread_mutex_destroy(&pit->lock);
}

void pit_hold(struct pit *pit)
{
    pthread_mutex_lock(&pit->lock);
    pit->held = pit->is_held ? pit->held : monotonic();
    pit->is_held = true;
    pthread_mutex_unlock(&pit->lock);
}

void pit_go_on(struct pit *pit)
{
    pthread_mutex_lock(&pit->lock);
    if (pit->is_held) {
        pit->zero += monotonic() - pit->held;
        pit->is_held = false;
        pthread_cond_signal(&pit->changed);
    }
    pthread_mutex_unlock(&pit->lock);
}

/* --- Written down --------------------------------------------------------------------------------------------------- */

/* A clock that began so long ago was never right: thirty years. */
#define NANOSECOND_MAX (UINT64_C(1) << 60)
#define CLOCK_MAX      (UINT64_C(1) << 50)
#define COUNT_MAX      65536u

static const struct state_field fields[] = {
    STATE_BOOL(struct pit, state.has_speaker),
    STATE_FIELD(struct pit, seen, CLOCK_MAX),
    STATE_BOOL(struct pit, is_high),
};

static const struct state_field counter_fields[] = {
    STATE_FIELD(struct pit_counter, mode, PIT_MODE_COUNT - 1),
    STATE_FIELD(struct pit_counter, access, PIT_ACCESS_BOTH),
    STATE_BOOL(struct pit_counter, is_decimal),
    STATE_BOOL(struct pit_counter, gate),
    STATE_BOOL(struct pit_counter, is_begun),
    STATE_BOOL(struct pit_counter, has_initial),
    STATE_BOOL(struct pit_counter, is_loaded),
    STATE_FIELD(struct pit_counter, initial, COUNT_MAX),
    STATE_FIELD(struct pit_counter, count, COUNT_MAX),
    STATE_FIELD(struct pit_counter, start, CLOCK_MAX),
    STATE_BOOL(struct pit_counter, was_high),
    STATE_BOOL(struct pit_counter, is_stopped),
    STATE_FIELD(struct pit_counter, elapsed, CLOCK_MAX),
    STATE_BOOL(struct pit_counter, has_next),
    STATE_FIELD(struct pit_counter, next_at, CLOCK_MAX),
    STATE_BOOL(struct pit_counter, awaits_high),
    STATE_ANY(struct pit_counter, low),
    STATE_BOOL(struct pit_counter, gives_high),
    STATE_BOOL(struct pit_counter, has_latched),
    STATE_ANY(struct pit_counter, latched),
    STATE_BOOL(struct pit_counter, has_status),
    STATE_ANY(struct pit_counter, status),
};

/* The clock itself is written as the nanoseconds that it has run. */
void pit_save(struct pit *pit, struct state_writer *writer)
{
    pthread_mutex_lock(&pit->lock);
    state_begin(writer, STATE_PIT, 0);
    state_put_u64(writer, (uint64_t)((pit->is_held ? pit->held : monotonic()) - pit->zero));
    state_put_u32(writer, atomic_load(&pit->untaken));
    state_put_fields(writer, STATE_FIELDS(fields), pit);
    for (uint32_t i = 0; i < PIT_COUNTERS; i++) {
        state_put_fields(writer, STATE_FIELDS(counter_fields), &pit->state.counters[i]);
    }
    state_end(writer);
    pthread_mutex_unlock(&pit->lock);
}

/* What counts down, or will, is never 0. */
static enum loam_error take_counter(struct state_record *record, struct pit_counter *counter, struct loam_diag *diag)
{
    enum loam_error error = state_take_fields(record, STATE_FIELDS(counter_fields), counter, diag);

    if (error == LOAM_OK && ((counter->is_begun && counter->count == 0) ||
                             ((counter->has_initial || counter->has_next) && counter->initial == 0))) {
        return state_refuse(record, diag, "a counter counts down from 0, at least 1");
    }
    return error;
}

enum loam_error pit_load(struct pit *pit, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_PIT, 0, &record, diag);
    uint64_t nanoseconds;
    uint32_t untaken;

    if (error != LOAM_OK) {
        return error;
    }
    nanoseconds = state_take_u64(record);
    untaken = state_take_u32(record);
    if (nanoseconds > NANOSECOND_MAX || untaken > PIT_OWED_MAX + 1) {
        return state_refuse(record, diag, "%llu ns and %u ticks, at most %llu and %u", (unsigned long long)nanoseconds,
                            untaken, (unsigned long long)NANOSECOND_MAX, PIT_OWED_MAX + 1);
    }
    pthread_mutex_lock(&pit->lock);
    pit->zero = pit->held - (int64_t)nanoseconds;
    atomic_store(&pit->untaken, untaken);
    error = state_take_fields(record, STATE_FIELDS(fields), pit, diag);
    for (uint32_t i = 0; error == LOAM_OK && i < PIT_COUNTERS; i++) {
        error = take_counter(record, &pit->state.counters[i], diag);
    }
    pthread_mutex_unlock(&pit->lock);
    return error == LOAM_OK ? state_done(record, diag) : error;
}
