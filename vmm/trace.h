// SPDX-License-Identifier: Apache-2.0
/*
 * A trace: a line of JSON (trace_exit.h) in a file for each exit of each vCPU.
 *
 * A vCPU's thread puts what it has to say into a ring of its own, its lane, and takes no lock; a thread of the trace makes
 * lines of it and writes them. The guest waits rather than that a line is lost: a vCPU whose lane is three quarters full enters
 * the guest again only when the writer has made room, and others go on. Lines of one vCPU stand in their order; of several
 * they are merged by time as far as they were there when the writer looked.
 *
 *     trace_open -> trace_await_room, trace_now, trace_add ... -> trace_finish -> trace_close
 *
 * A write that fails for good is said at once; from then on nobody waits, and lines are lost, and counted.
 *
 * Threads: a lane is one thread's at a time; all else belongs to one.
 */
#ifndef LOAM_VMM_TRACE_H
#define LOAM_VMM_TRACE_H

#include "loam/error.h"
#include "vmm/outlet.h"
#include "vmm/trace_exit.h"
#include "vmm/trace_ring.h"

#include <stdbool.h>
#include <stdint.h>

/* Heap, for plans: of a trace, and of each lane. */
#define TRACE_BYTES      (256u << 10)
#define TRACE_LANE_BYTES (TRACE_RING_BYTES + 4096u)

/* Opaque. */
struct trace;
struct trace_lane;

/*
 * Begin a trace of lane_count vCPUs in the file at path. It is made with mode 0600, for it tells what the guest is told; one
 * that is there is emptied if it is empty or begins as a trace does. A FIFO has its reader already. Symbolic links are not
 * followed, and other files not written to, but for devices of characters. Failures are said on teller (NULL: nowhere),
 * which outlives the trace. *trace is NULL on failure. LOAM_ERROR_INVALID: path. LOAM_ERROR_SYSTEM: a call failed.
 */
LOAM_MUST_USE enum loam_error trace_open(const char *path, uint32_t lane_count, struct outlet *teller,
                                         struct trace **trace, struct loam_diag *diag);

/* Lane number vcpu, which is below lane_count; the trace's. */
struct trace_lane *trace_lane(struct trace *trace, uint32_t vcpu);

/* Before a vCPU enters the guest: wait for room for what comes of it, until stop_fd is readable at the latest. */
void trace_await_room(struct trace_lane *lane, int stop_fd);

/* Nanoseconds of CLOCK_MONOTONIC since the trace was opened. */
uint64_t trace_now(const struct trace_lane *lane);

/*
 * One more line, of exit as trace_exit_read made it, and of exit->data_bytes bytes at data; vcpu is the lane's. It waits only
 * where the caller went on without room, and then for two seconds at most, after which the line is lost.
 */
void trace_add(struct trace_lane *lane, const struct trace_exit *exit, const uint8_t *data);

/*
 * All lanes are at rest: have everything written, until stop_fd (-1: none) is readable or patience_milliseconds (-1: any time)
 * have passed, and then for as long as something moves, two seconds at most. Says in diag what is lost.
 * LOAM_ERROR_SYSTEM: something is. A second call finds what the first found.
 */
LOAM_MUST_USE enum loam_error trace_finish(struct trace *trace, int stop_fd, int64_t patience_milliseconds,
                                           struct loam_diag *diag);

/* What waits still is lost. NULL is allowed. */
void trace_close(struct trace *trace);

#endif
