// SPDX-License-Identifier: Apache-2.0
/*
 * What a run is told from outside: QMP (qmp.h) at a socket of its own, which only its user can open.
 *
 *     query-status, stop, cont, system_powerdown, quit        as QEMU has them
 *     loam-snapshot      with two descriptors, of empty files for memory and state (snapshot.h); {"track": true}: what is written
 *                        from then on is logged; {"parent": {"id", "name"}}: the difference to the last one; the answer comes at once, and
 *                        when all is written, or cannot be, LOAM_SNAPSHOT {"status": "completed", figures} or
 *                        {"status": "failed", "error": why}
 *
 *     control_open -> control_begin -> { [control_fd readable] -> control_turn } ... -> control_end ... -> control_close
 *
 * Threads: one; a snapshot is written by another, which is control's own.
 */
#ifndef LOAM_VMM_CONTROL_H
#define LOAM_VMM_CONTROL_H

#include "loam/error.h"
#include "vmm/launch.h"

#include <stdbool.h>

/* Heap, and threads, that it takes (launch_config). */
#define CONTROL_BYTES   (256 * LOAM_KIB)
#define CONTROL_THREADS 4u

/* Opaque. */
struct control;

/* Listen at path, which outlives it. Errors as listener_open. *control is NULL on failure. */
LOAM_MUST_USE enum loam_error control_open(const char *path, struct control **control, struct loam_diag *diag);

/* NULL is allowed. */
void control_close(struct control *control);

/* The guest that is meant, whose machine is there, until control_end. */
void control_begin(struct control *control, struct launch *launch);

/* Its machine is about to go: what is being written fails. */
void control_end(struct control *control);

/* Readable when control_turn has something to do; control's. */
int control_fd(const struct control *control);

/* Do what there is to do, without waiting. */
void control_turn(struct control *control);

/* Somebody has said quit. */
bool control_has_quit(const struct control *control);

#endif
