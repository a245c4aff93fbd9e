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

/* A guest; nobody writes to its memory but its machine, with its devices. */
struct snapshot_source {
    struct loam_memory *memory;
    struct machine *machine;
    const atomic_bool *must_end; /* looked at now and then; true: it fails. NULL: never */
    /* Records of what the caller has added to the machine. NULL: nothing. */
    enum loam_error (*save)(void *self, struct state_writer *writer, struct loam_diag *diag);
    void *self;
};

/* All records but memory's, of a machine that is paused, with its devices at rest. The writer is initialised. LOAM_ERROR_SYSTEM, and errors of save's. */
LOAM_MUST_USE enum loam_error snapshot_save_state(const struct snapshot_source *source, struct state_writer *writer,
                                                  struct loam_diag *diag);

struct snapshot_figures {
    struct image_tally memory;
    uint64_t state_bytes;
    uint64_t nanoseconds;       /* of all */
    uint64_t pause_nanoseconds; /* for which the guest stood */
    uint32_t round_count;       /* in which what it wrote meanwhile was written */
};

/* Of a snapshot that another is the difference to. */
struct snapshot_base {
    uint8_t id[IMAGE_ID_BYTES];
    char name[IMAGE_NAME_BYTES]; /* its directory, from the other's own */
};

struct snapshot_request {
    const struct snapshot_base
        *base;      /* the last one that was written of this guest, with keeps_log; NULL: it stands alone */
    bool keeps_log; /* what is written from then on is logged, so that another can be the difference to it */
    int memory_fd,
        state_fd; /* empty files, which stay the caller's: after a failure what is in them is worth nothing */
};

/*
 * All of it, while the guest runs: it stands only for as long as machine_save takes, and copying what it has written last (machine_hold). id: of the
 * snapshot, for a base. After a failure nothing is logged. Errors as capture_begin and what follows it, machine_save, and save's.
 */
LOAM_MUST_USE enum loam_error snapshot_write(const struct snapshot_source *source,
                                             const struct snapshot_request *request, uint8_t id[IMAGE_ID_BYTES],
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
