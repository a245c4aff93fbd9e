// SPDX-License-Identifier: Apache-2.0
/*
 * A server of GDB's remote serial protocol for a machine's guest, on a thread of its own:
 *
 *     gdb_open -> gdb_begin -> [machine_start -> gdb_start] ... -> gdb_end -> gdb_close
 *
 * The guest stands before its first instruction until a debugger has come and lets it go on. One debugger is served at a
 * time; another waits until that one is gone. One that detaches leaves a guest that goes on; one that is lost, or does not keep to
 * the protocol, leaves its breakpoints nowhere, and the guest as it was: stopped, until another comes, or on its way. Each
 * that comes stops the guest.
 *
 * A guest that is about to end badly (a triple fault, an instruction that KVM lacks) is shown to a debugger first, as a signal.
 *
 * It alone pauses the machine and lets it go on.
 *
 * Threads: gdb_was_killed from any; all else from the machine's creating thread.
 */
#ifndef LOAM_VMM_GDB_H
#define LOAM_VMM_GDB_H

#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/machine.h"
#include "vmm/outlet.h"

#include <stdbool.h>
#include <stdint.h>

#define GDB_BYTES (256u << 10) /* heap, for plans */

/* Opaque. */
struct gdb;

/*
 * Listen at where (listener.h), find out what this host has for debuggers, and say on teller, which outlives it, that the guest
 * will wait. vcpu_count is that of the machine. *gdb is NULL on failure. Errors as listener_open and gdb_vcpu_try.
 */
LOAM_MUST_USE enum loam_error gdb_open(const char *where, uint32_t vcpu_count, struct outlet *teller, struct gdb **gdb,
                                       struct loam_diag *diag);

/* The machine, on the memory of map, stands still from now on, also when it is started. Both outlive gdb_end. */
void gdb_begin(struct gdb *gdb, struct machine *machine, struct loam_gpa_map *map);

/* Serve, once the machine is started. LOAM_ERROR_SYSTEM: no thread. */
LOAM_MUST_USE enum loam_error gdb_start(struct gdb *gdb, struct loam_diag *diag);

/* The machine has ended, and the run with this status, of which a debugger is told. No effect on one that was not started. */
void gdb_end(struct gdb *gdb, int exit_status);

/* Whether it was a debugger that ended the machine. */
bool gdb_was_killed(const struct gdb *gdb);

/* Its socket goes too. NULL is allowed. */
void gdb_close(struct gdb *gdb);

#endif
