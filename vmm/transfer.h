// SPDX-License-Identifier: Apache-2.0
/*
 * A guest as a stream of bytes, from who has it to who will (STATE.md): a word about its RAM, pages of RAM in any order, the
 * later before the earlier, and last what the machine is.
 *
 *     transfer_send_plan -> transfer_send_memory ... -> transfer_send_state
 *     transfer_receive
 *
 * Over a stream that goes both ways, who receives can say at the end that it has the guest, and who sends wait for that: it keeps
 * its own until then. Nothing else is sent back.
 *
 * Threads: one at each end. A thread that waits for the other end is called back by a kick (kick.h) once *must_end is true.
 */
#ifndef LOAM_VMM_TRANSFER_H
#define LOAM_VMM_TRANSFER_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/snapshot.h"
#include "vmm/state.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define TRANSFER_VERSION 1u

/* How far it is, for others to look at. */
struct transfer_progress {
    atomic_uint_fast64_t total_bytes; /* of RAM */
    atomic_uint_fast64_t looked_bytes;
    atomic_uint_fast64_t moved_bytes; /* of pages, that went over the stream */
};

struct transfer {
    int fd;                      /* of a socket, a pipe or a file; the caller's */
    const atomic_bool *must_end; /* NULL: never */
    struct transfer_progress *progress;
};

/* The guest's RAM, and the shape of its machine. The guest may run. */
LOAM_MUST_USE enum loam_error transfer_send_plan(const struct transfer *transfer, const struct snapshot_source *source,
                                                 struct loam_diag *diag);

/*
 * Pages of RAM as they are now, also those that are zeros: what was written since they were sent. Errors as transfer_send_memory.
 */
LOAM_MUST_USE enum loam_error transfer_send_pages(const struct transfer *transfer, struct loam_memory *memory,
                                                  uint64_t gpa, uint64_t bytes, struct loam_diag *diag);

/*
 * All RAM that is there; zeros of what is fresh are not sent. LOAM_ERROR_SYSTEM: the other end has gone, or cannot be written
 * to. LOAM_ERROR_CANCELLED: *must_end.
 */
LOAM_MUST_USE enum loam_error transfer_send_memory(const struct transfer *transfer, struct loam_memory *memory,
                                                   struct loam_diag *diag);

/* All that the machine is, and the end. It stands, as snapshot_source has it. */
LOAM_MUST_USE enum loam_error transfer_send_state(const struct transfer *transfer, const struct snapshot_source *source,
                                                  struct loam_diag *diag);

/* That it has been taken in there, for good. LOAM_ERROR_INVALID: it was not. LOAM_ERROR_SYSTEM, LOAM_ERROR_CANCELLED. */
LOAM_MUST_USE enum loam_error transfer_await_word(const struct transfer *transfer, struct loam_diag *diag);

/* The other end of that. */
LOAM_MUST_USE enum loam_error transfer_give_word(const struct transfer *transfer, struct loam_diag *diag);

/* What came of the machine, checked as far as state_open does. */
struct transfer_state {
    void *bytes; /* heap */
    struct state_reader reader;
};

/*
 * Take a guest: its RAM into fresh memory, whose plan has to be that of the sender. The stream is hostile.
 * LOAM_ERROR_INVALID: it is no such stream, damaged, of another guest's RAM, or ends too early. LOAM_ERROR_NOT_FOUND: of another
 * version. LOAM_ERROR_SYSTEM, LOAM_ERROR_CANCELLED as above. memory is worth nothing then.
 */
LOAM_MUST_USE enum loam_error transfer_receive(const struct transfer *transfer, struct loam_memory *memory,
                                               struct transfer_state *state, struct loam_diag *diag);

/* One of zeros is none. */
void transfer_state_release(struct transfer_state *state);

#endif
