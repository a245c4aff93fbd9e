// SPDX-License-Identifier: Apache-2.0
/*
 * The port by which a guest says that it has panicked, as QEMU has it (QEMU: docs/specs/pvpanic.rst): one byte, of which
 * a read says which events are understood, and a write which have happened.
 *
 * Threads: the access comes from the bus.
 */
#ifndef LOAM_VMM_PVPANIC_H
#define LOAM_VMM_PVPANIC_H

#include "vmm/bus.h"

#include <stdint.h>

#define PVPANIC_BYTES        1u
#define PVPANIC_PANICKED     (1u << 0)
#define PVPANIC_CRASH_LOADED (1u << 1) /* it has, and runs a kernel for crashes: it goes on, and nobody is told */

struct pvpanic {
    void (*panicked)(void *self, uint8_t events);
    void *self;
};

/* panicked: a write had PVPANIC_PANICKED; events is all of it. From within an access. */
void pvpanic_init(struct pvpanic *pvpanic, void (*panicked)(void *self, uint8_t events), void *self);

/* A bus_access_fn for PVPANIC_BYTES. */
void pvpanic_access(void *pvpanic, struct bus_access *access);

#endif
