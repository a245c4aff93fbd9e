// SPDX-License-Identifier: Apache-2.0
/*
 * No wake-up is missed. The writer says that it sleeps, and then looks once more at every lane; a vCPU puts its record, and
 * then looks whether the writer sleeps. So does a vCPU that waits for room, with the parts exchanged. All of these accesses
 * are sequentially consistent.
 */
#include "vmm/trace.h"

#include "vmm/kick.h"
#include "vmm/printable.h"
#include "vmm/trace_file.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A vCPU waits with less room than this, which holds what may still come of it once it does not wait any more. */
#define SLACK_BYTES  (TRACE_RING_BYTES / 4)
#define BUSY_BYTES   (TRACE_RING_BYTES / 2) /* so much is worth to be written at once */
#define OUTPUT_BYTES (64u << 10)            /* of one write(2), before a line that crosses it */

#define GATHER_MILLISECONDS    4    /* from the first line of a batch on, for others to come */
#define LATE_MILLISECONDS      2000 /* for which a vCPU without room waits, though it was not to wait */
#define GRACE_MILLISECONDS     250  /* at the end, for the writer to get on */
#define GRACE_MAX_MILLISECONDS 2000

static_assert(SLACK_BYTES >= 8 * (TRACE_DATA_BYTES_MAX + sizeof(struct trace_exit)), "room for what is left to do");
static_assert(TRACE_BYTES >= OUTPUT_BYTES + TRACE_LINE_BYTES_MAX + TRACE_DATA_BYTES_MAX, "planned for");

struct trace_lane {
    struct trace_ring ring;
    struct trace *trace;
    uint32_t vcpu;
    int room_fd;            /* an eventfd: readable when there is room again */
    atomic_bool is_waiting; /* for that */
    _Atomic uint64_t lost_count;

    /* The writer's. */
    size_t left_bytes; /* of this batch, in the ring */
    bool has_next;     /* next is the record with which they begin */
    struct trace_exit next;
};

struct trace {
    const char *path;
    int fd;
    struct outlet *teller;
    struct timespec began;
    int news_fd;              /* an eventfd: what the writer sleeps on */
    int done_fd;              /* an eventfd: readable when the writer has left */
    atomic_bool is_asleep;    /* the writer is, or is about to look a last time */
    atomic_bool is_finishing; /* nothing more comes */
    atomic_bool is_leaving;   /* nothing more is to be written */
    atomic_int error;         /* errno of the write that failed for good; 0: none */
    _Atomic uint64_t written_bytes;
    bool has_thread;
    bool is_abandoned; /* the writer is in a call that does not end, and uses all of this */
    bool is_finished;
    bool is_cut; /* the writer's: the last write was not of all there was */
    struct kick_thread thread;
    size_t output_bytes;
    char output[OUTPUT_BYTES + TRACE_LINE_BYTES_MAX];
    uint8_t data[TRACE_DATA_BYTES_MAX];
    uint32_t lane_count;
    struct trace_lane lanes[];
};

static void ring_bell(int fd)
{
    /* It fails only where the counter is full, and then it is readable already. */
    (void)eventfd_write(fd, 1);
}

static void silence_bell(int fd)
{
    eventfd_t count;

    (void)eventfd_read(fd, &count);
}

/* --- The writer: out ---------------------------------------------------------------------------------------------- */

/* From now on vCPUs do not wait: what they say is lost. */
static void give_up(struct trace *trace, int error)
{
    char text[PRINTABLE_BYTES], shown[sizeof text * PRINTABLE_GROWTH + 1];

    atomic_store(&trace->error, error);
    for (uint32_t i = 0; i < trace->lane_count; i++) {
        ring_bell(trace->lanes[i].room_fd);
    }
    snprintf(text, sizeof text, "loam: --trace %.3500s: cannot be written: %s: what comes from here on is lost\n",
             trace->path, strerror(error));
    if (trace->teller != NULL) {
        outlet_append(trace->teller, shown, printable_escape(text, strlen(text), shown));
    }
}

/* One write(2). false: nothing more can be written, or is to be. */
static bool write_some(struct trace *trace, size_t *gone)
{
    struct pollfd writable = {.fd = trace->fd, .events = POLLOUT};
    ssize_t written = write(trace->fd, trace->output + *gone, trace->output_bytes - *gone);

    if (written > 0) {
        *gone += (size_t)written;
        atomic_fetch_add(&trace->written_bytes, (uint64_t)written);
    } else if (written < 0 && errno == EAGAIN) {
        (void)poll(&writable, 1, -1);
    } else if (written == 0 || errno != EINTR) {
        give_up(trace, written == 0 ? EIO : errno);
    }
    return atomic_load(&trace->error) == 0 && !atomic_load(&trace->is_leaving);
}

static void write_output(struct trace *trace)
{
    size_t gone = 0;

    while (gone < trace->output_bytes && write_some(trace, &gone)) {
    }
    trace->is_cut = trace->is_cut || gone < trace->output_bytes;
    trace->output_bytes = 0;
}

/* --- The writer: in ----------------------------------------------------------------------------------------------- */

static size_t record_bytes(const struct trace_exit *exit)
{
    return sizeof *exit + exit->data_bytes;
}

static void look_at_next(struct trace_lane *lane)
{
    lane->has_next = lane->left_bytes > 0;
    if (lane->has_next) {
        trace_ring_look(&lane->ring, 0, &lane->next, sizeof lane->next);
    }
}

static struct trace_lane *earliest(struct trace *trace)
{
    struct trace_lane *found = NULL;

    for (uint32_t i = 0; i < trace->lane_count; i++) {
        struct trace_lane *lane = &trace->lanes[i];

        if (lane->has_next && (found == NULL || lane->next.nanoseconds < found->next.nanoseconds)) {
            found = lane;
        }
    }
    return found;
}

static void tell_room(struct trace_lane *lane)
{
    if (trace_ring_free(&lane->ring) >= BUSY_BYTES && atomic_exchange(&lane->is_waiting, false)) {
        ring_bell(lane->room_fd);
    }
}

static void write_record(struct trace *trace, struct trace_lane *lane)
{
    const struct trace_exit *exit = &lane->next;
    size_t bytes = record_bytes(exit);

    trace_ring_look(&lane->ring, sizeof *exit, trace->data, exit->data_bytes);
    trace->output_bytes += trace_exit_line(exit, trace->data, trace->output + trace->output_bytes);
    if (trace->output_bytes >= OUTPUT_BYTES) {
        write_output(trace);
    }
    trace_ring_drop(&lane->ring, bytes);
    lane->left_bytes -= bytes;
    tell_room(lane);
    look_at_next(lane);
}

static bool has_failed(struct trace *trace)
{
    return atomic_load(&trace->error) != 0;
}

/* All that lies in the lanes now. */
static void write_batch(struct trace *trace)
{
    struct trace_lane *lane;

    for (uint32_t i = 0; i < trace->lane_count; i++) {
        lane = &trace->lanes[i];
        lane->left_bytes = trace_ring_used(&lane->ring);
        look_at_next(lane);
    }
    while (!has_failed(trace) && !atomic_load(&trace->is_leaving) && (lane = earliest(trace)) != NULL) {
        write_record(trace, lane);
    }
    write_output(trace);
}

static bool is_at_rest(struct trace *trace)
{
    bool is_empty = true;

    for (uint32_t i = 0; i < trace->lane_count; i++) {
        is_empty = is_empty && trace_ring_used(&trace->lanes[i].ring) == 0;
    }
    return is_empty && !atomic_load(&trace->is_finishing) && !atomic_load(&trace->is_leaving);
}

static void await_bell(const struct trace *trace, int milliseconds)
{
    struct pollfd news = {.fd = trace->news_fd, .events = POLLIN};

    (void)poll(&news, 1, milliseconds);
    silence_bell(trace->news_fd);
}

/* Until something is there; and then a little longer, so that a write is worth its while. */
static void await_news(struct trace *trace)
{
    atomic_store(&trace->is_asleep, true);
    if (is_at_rest(trace)) {
        await_bell(trace, -1);
    }
    atomic_store(&trace->is_asleep, false);
    if (!atomic_load(&trace->is_finishing) && !atomic_load(&trace->is_leaving)) {
        await_bell(trace, GATHER_MILLISECONDS);
    }
}

static void write_as_it_comes(void *self)
{
    struct trace *trace = self;

    for (bool is_last = false; !is_last && !has_failed(trace) && !atomic_load(&trace->is_leaving);) {
        is_last = atomic_load(&trace->is_finishing); /* looked at before the lanes, which are at rest then */
        write_batch(trace);
        if (!is_last) {
            await_news(trace);
        }
    }
    ring_bell(trace->done_fd);
}

/* --- Lanes -------------------------------------------------------------------------------------------------------- */

struct trace_lane *trace_lane(struct trace *trace, uint32_t vcpu)
{
    return &trace->lanes[vcpu];
}

uint64_t trace_now(const struct trace_lane *lane)
{
    const struct timespec *began = &lane->trace->began;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)((now.tv_sec - began->tv_sec) * INT64_C(1000000000) + now.tv_nsec - began->tv_nsec);
}

/* One sleep of a vCPU. false: it is over. */
static bool await_writer(struct trace_lane *lane, size_t wanted_bytes, int stop_fd, int milliseconds)
{
    struct pollfd fds[] = {{.fd = lane->room_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    bool is_over = false;

    atomic_store(&lane->is_waiting, true);
    if (trace_ring_free(&lane->ring) < wanted_bytes && !has_failed(lane->trace)) {
        is_over = poll(fds, 2, milliseconds) == 0 || fds[1].revents != 0;
    }
    atomic_store(&lane->is_waiting, false);
    silence_bell(lane->room_fd);
    return !is_over;
}

void trace_await_room(struct trace_lane *lane, int stop_fd)
{
    while (trace_ring_free(&lane->ring) < SLACK_BYTES && !has_failed(lane->trace) &&
           await_writer(lane, SLACK_BYTES, stop_fd, -1)) {
    }
}

/* The writer looks after a while by itself once it has been woken; when much has come, now. */
static void wake_writer(struct trace_lane *lane, size_t added_bytes)
{
    struct trace *trace = lane->trace;
    size_t used = trace_ring_used(&lane->ring);
    bool is_much = used >= BUSY_BYTES && used - added_bytes < BUSY_BYTES;

    if ((atomic_load(&trace->is_asleep) && atomic_exchange(&trace->is_asleep, false)) || is_much) {
        ring_bell(trace->news_fd);
    }
}

static bool put(struct trace_lane *lane, const struct trace_exit *exit, const uint8_t *data)
{
    return trace_ring_put(&lane->ring, exit, sizeof *exit, data, exit->data_bytes);
}

void trace_add(struct trace_lane *lane, const struct trace_exit *exit, const uint8_t *data)
{
    struct trace_exit record = *exit;
    bool is_put;

    record.vcpu = lane->vcpu;
    is_put = !has_failed(lane->trace) && put(lane, &record, data);
    while (!is_put && !has_failed(lane->trace) && await_writer(lane, record_bytes(&record), -1, LATE_MILLISECONDS)) {
        is_put = put(lane, &record, data);
    }
    if (is_put) {
        wake_writer(lane, record_bytes(&record));
    } else {
        atomic_fetch_add(&lane->lost_count, 1);
    }
}

/* --- Lifecycle ---------------------------------------------------------------------------------------------------- */

static enum loam_error open_lanes(struct trace *trace, uint32_t count, struct loam_diag *diag)
{
    for (uint32_t i = 0; i < count; i++) {
        struct trace_lane *lane = &trace->lanes[i];

        lane->trace = trace;
        lane->vcpu = i;
        lane->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        trace->lane_count++;
        if (lane->room_fd < 0 || !trace_ring_init(&lane->ring)) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace: vCPU %" PRIu32 ": eventfd, or memory", i);
        }
    }
    return LOAM_OK;
}

static enum loam_error furnish(struct trace *trace, uint32_t lane_count, struct loam_diag *diag)
{
    enum loam_error error = trace_file_open(trace->path, &trace->fd, diag);

    if (error != LOAM_OK) {
        return error;
    }
    trace->news_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    trace->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (trace->news_fd < 0 || trace->done_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace: eventfd");
    }
    error = open_lanes(trace, lane_count, diag);
    if (error == LOAM_OK) {
        error = kick_start(&trace->thread, write_as_it_comes, trace, "--trace", diag);
        trace->has_thread = error == LOAM_OK;
    }
    return error;
}

enum loam_error trace_open(const char *path, uint32_t lane_count, struct outlet *teller, struct trace **trace,
                           struct loam_diag *diag)
{
    struct trace *made;
    enum loam_error error;

    *trace = NULL;
    /* A multiple of the alignment of lanes, whose counters lie in cache lines of their own. */
    made = aligned_alloc(_Alignof(struct trace), sizeof *made + lane_count * sizeof made->lanes[0]);
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace: no memory");
    }
    memset(made, 0, sizeof *made + lane_count * sizeof made->lanes[0]);
    made->path = path;
    made->teller = teller;
    made->fd = made->news_fd = made->done_fd = -1;
    clock_gettime(CLOCK_MONOTONIC, &made->began);
    error = furnish(made, lane_count, diag);
    if (error != LOAM_OK) {
        trace_close(made);
        return error;
    }
    *trace = made;
    return LOAM_OK;
}

/* --- The end ------------------------------------------------------------------------------------------------------ */

/* Until the writer has left, stop_fd is readable, or the time has passed. Returns whether it has left. */
static bool await_end(const struct trace *trace, int stop_fd, int64_t milliseconds)
{
    struct pollfd fds[] = {{.fd = trace->done_fd, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};
    int wait = milliseconds < 0 ? -1 : milliseconds > 1000000 ? 1000000 : (int)milliseconds;

    while (poll(fds, 2, wait) < 0 && errno == EINTR) {
    }
    return fds[0].revents != 0;
}

static void end_writer(struct trace *trace)
{
    if (trace->has_thread) {
        atomic_store(&trace->is_leaving, true);
        ring_bell(trace->news_fd);
        trace->is_abandoned = !kick_end(&trace->thread);
        trace->has_thread = false;
    }
}

static void finish(struct trace *trace, int stop_fd, int64_t patience_milliseconds)
{
    uint64_t before = UINT64_MAX;
    bool is_done;

    atomic_store(&trace->is_finishing, true);
    ring_bell(trace->news_fd);
    is_done = await_end(trace, stop_fd, patience_milliseconds);
    for (int waited = 0; !is_done && waited < GRACE_MAX_MILLISECONDS && atomic_load(&trace->written_bytes) != before;
         waited += GRACE_MILLISECONDS) {
        before = atomic_load(&trace->written_bytes);
        is_done = await_end(trace, -1, GRACE_MILLISECONDS);
    }
    end_writer(trace);
}

/* The writer has left, or is where it does not touch this. */
static bool has_lost(struct trace *trace)
{
    bool has = has_failed(trace) || trace->is_abandoned || trace->is_cut;

    for (uint32_t i = 0; i < trace->lane_count; i++) {
        has = has || trace_ring_used(&trace->lanes[i].ring) > 0 || atomic_load(&trace->lanes[i].lost_count) > 0;
    }
    return has;
}

enum loam_error trace_finish(struct trace *trace, int stop_fd, int64_t patience_milliseconds, struct loam_diag *diag)
{
    int error;

    if (!trace->is_finished) {
        trace->is_finished = true;
        finish(trace, stop_fd, patience_milliseconds);
    }
    if (!has_lost(trace)) {
        return LOAM_OK;
    }
    error = atomic_load(&trace->error);
    errno = error; /* for loam_fail */
    return loam_fail(diag, LOAM_ERROR_SYSTEM, "--trace %s: lines are missing%s", trace->path,
                     error == 0 ? ": nobody reads it, or the disk is too slow" : ": write");
}

void trace_close(struct trace *trace)
{
    if (trace == NULL) {
        return;
    }
    end_writer(trace);
    if (trace->is_abandoned) {
        return;
    }
    for (uint32_t i = 0; i < trace->lane_count; i++) {
        trace_ring_destroy(&trace->lanes[i].ring);
        if (trace->lanes[i].room_fd >= 0) {
            close(trace->lanes[i].room_fd);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        const int fds[] = {trace->fd, trace->news_fd, trace->done_fd};

        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    free(trace);
}
