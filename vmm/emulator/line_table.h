// SPDX-License-Identifier: Apache-2.0
/*
 * Every option of the command line, every type of object and device, every key: what is not here is refused by name.
 * What has no effect says so. A static table; any thread.
 */
#ifndef LOAM_VMM_EMULATOR_LINE_TABLE_H
#define LOAM_VMM_EMULATOR_LINE_TABLE_H

#include "vmm/emulator/arguments.h"

/* Indices of types. */
enum line_machine_type { LINE_MACHINE_NONE, LINE_MACHINE_MICROVM };

enum line_object_type {
    LINE_OBJECT_MEMORY_RAM,
    LINE_OBJECT_MEMORY_MEMFD,
    LINE_OBJECT_MEMORY_FILE, /* the last of memory */
    LINE_OBJECT_RNG_RANDOM,
    LINE_OBJECT_SECRET,
};

enum line_device_type {
    LINE_DEVICE_SERIAL,
    LINE_DEVICE_BLK,
    LINE_DEVICE_NET,
    LINE_DEVICE_RNG,
    LINE_DEVICE_BALLOON,
    LINE_DEVICE_PANIC,
};

enum line_blockdev_type { LINE_BLOCKDEV_FILE, LINE_BLOCKDEV_HOST_DEVICE, LINE_BLOCKDEV_RAW };

enum line_netdev_type { LINE_NETDEV_USER, LINE_NETDEV_TAP };

#define LINE_VCPU_MAX 1024u

const struct argument_table *line_table(void);

/* The next -object or the like of a type after `after`; NULL: no more. */
const struct argument *line_next_of(const struct arguments *arguments, const char *name, uint32_t type,
                                    const struct argument *after);

#endif
