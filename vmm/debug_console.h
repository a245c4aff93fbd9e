// SPDX-License-Identifier: Apache-2.0
/*
 * The debug console of Bochs and QEMU (QEMU: isa-debugcon): one port, at which a guest says bytes without setting
 * anything up, and by whose answer it knows that somebody hears. There is nothing to read and nothing to wait for.
 *
 * Threads: debug_console_access comes from the bus.
 */
#ifndef LOAM_VMM_DEBUG_CONSOLE_H
#define LOAM_VMM_DEBUG_CONSOLE_H

#include "vmm/bus.h"

#include <stddef.h>
#include <stdint.h>

#define DEBUG_CONSOLE_PORT   0xe9u
#define DEBUG_CONSOLE_ANSWER 0xe9u

struct debug_console {
    void (*output)(void *self, const uint8_t *bytes, size_t count);
    void *self;
};

/* output: what the guest says; from within an access. There is nothing to destroy. */
void debug_console_init(struct debug_console *console, void (*output)(void *self, const uint8_t *bytes, size_t count),
                        void *self);

/* A bus_access_fn for one port. */
void debug_console_access(void *console, struct bus_access *access);

#endif
