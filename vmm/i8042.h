// SPDX-License-Identifier: Apache-2.0
/*
 * The keyboard controller that is not there (Intel 8042, as the IBM Personal System/2 Hardware Interface Technical
 * Reference has it), but for its wire to the processor's reset.
 *
 *     0x60  data: reads all ones; written, the output port if command 0xd1 came before
 *     0x64  status: all ones but bit 1; written, a command
 *
 * Status is that of a port where nobody is, in which drivers find a byte to be read however many they have read, and
 * so know at once that there is no controller (Linux: i8042_flush). Bit 1, which says that a command is still waited
 * for, is clear: who resets or opens A20 by this controller waits for that first, for 0x10000 reads or for ever (Linux:
 * kb_wait).
 *
 * A command of 0xf0 to 0xff pulses the lines of which bits 0 to 3 are clear, and 0xd1 sets the output port from the next
 * byte of data. Line 0 of either is the processor's reset. All other commands are lost.
 *
 * Threads: the access functions come from the bus, one at a time.
 */
#ifndef LOAM_VMM_I8042_H
#define LOAM_VMM_I8042_H

#include "vmm/bus.h"

#include <stdbool.h>

#define I8042_DATA_PORT   0x60u
#define I8042_STATUS_PORT 0x64u

struct i8042 {
    bool awaits_output_port;
    void (*reset)(void *self);
    void *self;
};

/* reset: the guest asks for it; from within an access. There is nothing to destroy. */
void i8042_init(struct i8042 *i8042, void (*reset)(void *self), void *self);

/* bus_access_fn for one port each. */
void i8042_data_access(void *i8042, struct bus_access *access);
void i8042_status_access(void *i8042, struct bus_access *access);

#endif
