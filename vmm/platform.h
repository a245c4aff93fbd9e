// SPDX-License-Identifier: Apache-2.0
/*
 * What guests look for at the ports of a PC and of the machines they were made for, beside what machine.h lists: clock
 * and CMOS, the keyboard controller, the debug console, QEMU's configuration device. A page of each is in its header.
 *
 * Threads: platform_init and platform_add from one; the devices are the bus's from then on.
 */
#ifndef LOAM_VMM_PLATFORM_H
#define LOAM_VMM_PLATFORM_H

#include "loam/error.h"
#include "loam/plan.h"
#include "vmm/bus.h"
#include "vmm/cmos.h"
#include "vmm/debug_console.h"
#include "vmm/fw_cfg.h"
#include "vmm/i8042.h"
#include "vmm/state.h"

#include <stddef.h>
#include <stdint.h>

struct platform_config {
    const struct loam_plan *plan; /* of the guest's memory; read by platform_init alone */
    uint32_t vcpu_count;
    /* From within an access, with self: the guest asks for a reset; it said something at the debug console. */
    void (*reset)(void *self);
    void (*output)(void *self, const uint8_t *bytes, size_t count);
    void *self;
};

struct platform {
    struct cmos cmos;
    struct fw_cfg fw_cfg;
    struct i8042 i8042;
    struct debug_console debug_console;
};

/* There is nothing to destroy. */
void platform_init(struct platform *platform, const struct platform_config *config);

/* Put all of them on the bus. As bus_add; diag names the device. */
LOAM_MUST_USE enum loam_error platform_add(struct platform *platform, struct bus *bus, struct loam_diag *diag);

/* Written down, and read again: state.h. While no vCPU runs; loading is for one that was just made. Errors as state_take_fields. */
void platform_save(struct platform *platform, struct state_writer *writer);
LOAM_MUST_USE enum loam_error platform_load(struct platform *platform, struct state_reader *reader,
                                            struct loam_diag *diag);

#endif
