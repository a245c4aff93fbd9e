// SPDX-License-Identifier: Apache-2.0
/*
 * A guest in a directory: DIR/state, what its machine is (STATE.md), and DIR/memory, what is in its RAM (image.h).
 *
 * Who writes one is handed the two files open, so that a confined process can; the state file is written last, and a directory
 * without a whole one is none. Who reads one takes both for hostile.
 *
 * Threads: as image.h; a snapshot that is open belongs to one.
 */
#ifndef LOAM_VMM_SNAPSHOT_H
#define LOAM_VMM_SNAPSHOT_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/image.h"
#include "vmm/machine.h"
#include "vmm/state.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SNAPSHOT_STATE_NAME  "state"
#define SNAPSHOT_MEMORY_NAME "memory"
#define SNAPSHOT_CHAIN_MAX   64u /* parents of parents */

/* --- Writing ------------------------------------------------------------------------------------------------------ */

/* A guest that stands: its machine is paused, its devices are at rest, and nobody else writes to its memory. */
struct snapshot_source {
    struct loam_memory *memory;
    struct machine *machine;
    const atomic_bool *must_end; /* looked at now and then; true: it fails. NULL: never */
    /* Records of what the caller has added to the machine. NULL: nothing. */
    enum loam_error (*save)(void *self, struct state_writer *writer, struct loam_diag *diag);
    void *self;
};

/* All records but memory's. The writer is initialised. LOAM_ERROR_SYSTEM, and errors of save's. */
LOAM_MUST_USE enum loam_error snapshot_save_state(const struct snapshot_source *source, struct state_writer *writer,
                                                  struct loam_diag *diag);

struct snapshot_figures {
    struct image_tally memory;
    uint64_t state_bytes;
    uint64_t nanoseconds;
};

/*
 * All of it into two empty files, which stay the caller's: what is in them after a failure is worth nothing. Errors as
 * image_write, machine_save, and save's.
 */
LOAM_MUST_USE enum loam_error snapshot_write(const struct snapshot_source *source, int memory_fd, int state_fd,
                                             struct snapshot_figures *figures, struct loam_diag *diag);

/* --- Reading ------------------------------------------------------------------------------------------------------ */

struct snapshot {
    void *bytes; /* heap, of the state file */
    struct state_reader reader;
    struct image image;
    int memory_fd;
    struct snapshot *parent; /* heap; NULL: it has none */
};

/*
 * Look at all of it but RAM's contents: the state, and those of its parents, whose RAM is the same and whose ids are those that
 * it was made from. LOAM_ERROR_NOT_FOUND: no such directory, or a version that this program does not know. LOAM_ERROR_INVALID: it
 * is damaged. LOAM_ERROR_SYSTEM: it cannot be read. diag names directory and fault; there is nothing to close then.
 */
LOAM_MUST_USE enum loam_error snapshot_open(const char *directory, struct snapshot *snapshot, struct loam_diag *diag);

/* A snapshot of zeros is none. */
void snapshot_close(struct snapshot *snapshot);

#endif
