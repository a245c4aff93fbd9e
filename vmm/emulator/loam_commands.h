// SPDX-License-Identifier: Apache-2.0
/*
 * Loam's own queries: what the library knows of a guest's memory, as JSON. New references. Threads: any, while the guest
 * has its memory.
 */
#ifndef LOAM_VMM_EMULATOR_LOAM_COMMANDS_H
#define LOAM_VMM_EMULATOR_LOAM_COMMANDS_H

#include "vmm/launch.h"

#include <jansson.h>

/* x-loam-plan: as `loam plan --json` has it under "plan". */
json_t *loam_commands_plan(const struct launch *launch);

/* x-loam-ledger: who has carved what. */
json_t *loam_commands_ledger(const struct launch *launch);

/* x-loam-memory-map: the regions of the guest's address space. */
json_t *loam_commands_memory_map(const struct launch *launch);

/* x-loam-pages: for each part of RAM, what it is made of by the kernel's own account. */
json_t *loam_commands_pages(const struct launch *launch);

#endif
