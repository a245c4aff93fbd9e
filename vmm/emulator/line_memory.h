// SPDX-License-Identifier: Apache-2.0
/*
 * RAM as the command line has it: -m, -object memory-backend-*, -machine memory-backend=, -numa, -overcommit and -x-loam.
 * One backend is the request itself; several are its parts, in the order of nodeid.
 */
#ifndef LOAM_VMM_EMULATOR_LINE_MEMORY_H
#define LOAM_VMM_EMULATOR_LINE_MEMORY_H

#include "vmm/emulator/arguments.h"
#include "vmm/emulator/line.h"

/* Fill in the line's members for memory, x_pages among them. LOAM_ERROR_INVALID, LOAM_ERROR_SYSTEM: line_release frees. */
LOAM_MUST_USE enum loam_error line_memory_read(const struct arguments *arguments, struct line *line,
                                               struct loam_diag *diag);

#endif
