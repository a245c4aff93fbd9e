// SPDX-License-Identifier: Apache-2.0
/*
 * Guest memory as a debugger reads and writes it: by linear address through a vCPU's page tables, or by physical address.
 *
 * What is no memory is not touched: a device's registers change by being read. Nor is RAM that the host does not supply.
 *
 * Threads: any, while the vCPU does not run.
 */
#ifndef LOAM_VMM_GDB_MEMORY_H
#define LOAM_VMM_GDB_MEMORY_H

#include "loam/dirty.h"
#include "loam/gpa_map.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whose memory, and by which addresses. */
struct gdb_memory {
    struct loam_gpa_map *map;
    struct loam_dirty *dirty; /* what is written is marked in it; NULL: nobody asks */
    int vcpu_fd;
    bool is_physical;
};

/* Where the byte at address lies. false: nowhere. */
bool gdb_memory_find(const struct gdb_memory *memory, uint64_t address, loam_gpa *gpa);

/* Returns how many of count bytes could be read, from the first on. */
size_t gdb_memory_read(const struct gdb_memory *memory, uint64_t address, uint8_t *bytes, size_t count);

/* Returns how many of count bytes could be written: none where the map grants the guest no writing. */
size_t gdb_memory_write(const struct gdb_memory *memory, uint64_t address, const uint8_t *bytes, size_t count);

#endif
