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
    /*
     * Of migration's capabilities, the one that libvirt sets before it starts any domain: that MIGRATION tells how far it
     * is. There is none yet that could be told of.
     */
    bool has_migration_events;
};

/* All of them, but for qmp_capabilities, which is the server's. */
const struct qmp_command *commands_table(size_t *count);

#endif
