// SPDX-License-Identifier: Apache-2.0
/*
 * QMP's commands, for a domain and for a probe: one table, which is what is announced and what is answered.
 *
 * Threads: the server's.
 */
#ifndef LOAM_VMM_EMULATOR_COMMANDS_H
#define LOAM_VMM_EMULATOR_COMMANDS_H

#include "vmm/emulator/domain.h"
#include "vmm/emulator/fdsets.h"
#include "vmm/qmp.h"

#include <stdbool.h>
#include <stddef.h>

/* What the commands work on: their self. */
struct commands {
    struct domain *domain; /* NULL: a probe, whose commands on a guest are refused */
    struct fdsets *fdsets;
    uint32_t downtime_milliseconds; /* as migrate-set-parameters has it; 0: it has not been */
    bool migration_capabilities[3]; /* commands.c says which; MIGRATION tells how far it is with the first */
};

/* All of them, but for qmp_capabilities, which is the server's. */
const struct qmp_command *commands_table(size_t *count);

#endif
