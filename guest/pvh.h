// SPDX-License-Identifier: Apache-2.0
/* The PVH start info and its boot modules (Xen: xen/include/public/arch-x86/hvm/start_info.h). */
#ifndef LOAM_GUEST_PVH_H
#define LOAM_GUEST_PVH_H

#include <stdbool.h>
#include <stdint.h>

#define PVH_MAGIC UINT32_C(0x336ec578)

struct pvh_start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules; /* GPA of so many struct pvh_module */
    uint64_t command_line;
    uint64_t rsdp;
};

struct pvh_module {
    uint64_t start;
    uint64_t bytes;
    uint64_t command_line; /* GPA of a string, or 0 */
    uint64_t reserved;
};

_Static_assert(sizeof(struct pvh_start_info) == 40, "version 0 of the structure");
_Static_assert(sizeof(struct pvh_module) == 32, "as Xen has it");

#define PVH_MEMORY_RAM 1u

/* A row of the memory map, which version 1 of the start info has. */
struct pvh_memory {
    uint64_t start;
    uint64_t bytes;
    uint32_t type; /* as in the E820 map */
    uint32_t reserved;
};

_Static_assert(sizeof(struct pvh_memory) == 24, "as Xen has it");

/* The rows, and how many there are; 0: the start info, which is valid, has none. */
uint32_t pvh_memory_map(uint64_t start_info, const struct pvh_memory **entries);

/* Whether start_info is what the PVH protocol promises. */
bool pvh_valid(uint64_t start_info);

/* The first boot module with exactly this command line, into *module; false if there is none. */
bool pvh_find_module(uint64_t start_info, const char *command_line, struct pvh_module *module);

#endif
