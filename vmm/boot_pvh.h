// SPDX-License-Identifier: Apache-2.0
/*
 * PVH: an ELF file that says in a Xen note where it is entered in 32-bit protected mode without paging.
 *
 * boot_pvh_inspect checks a file without any memory at hand, and says in plain numbers what it wants;
 * boot_pvh_load carves that, copies it, and hands over hvm_start_info. ELF64 for x86-64 and ELF32 for i386
 * are taken; position-independent files are not, since nothing says where they want to be.
 *
 * The structures are those of Xen's public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc; little-endian.
 *
 * Threads: any; a load wants its memory's ledger as loam_dma does.
 */
#ifndef LOAM_VMM_BOOT_PVH_H
#define LOAM_VMM_BOOT_PVH_H

#include "loam/error.h"
#include "loam/memory.h"
#include "loam/types.h"
#include "vmm/boot.h"
#include "vmm/boot_elf.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* --- What the guest reads ----------------------------------------------------------------------------------------- */

#define BOOT_PVH_MAGIC   0x336ec578u
#define BOOT_PVH_VERSION 1u /* with the memory map */

struct boot_pvh_start_info {
    uint32_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t module_count;
    uint64_t modules;      /* GPA of boot_pvh_module[module_count]; 0: none */
    uint64_t command_line; /* GPA of a string that ends in a zero byte */
    uint64_t rsdp;         /* GPA of ACPI's root pointer; 0: none */
    uint64_t memory_map;   /* GPA of boot_pvh_memory[memory_count] */
    uint32_t memory_count;
    uint32_t reserved;
};

struct boot_pvh_module {
    uint64_t start;
    uint64_t bytes;
    uint64_t command_line; /* as above; 0: none */
    uint64_t reserved;
};

/* The types are those of E820. */
struct boot_pvh_memory {
    uint64_t start;
    uint64_t bytes;
    uint32_t type;
    uint32_t reserved;
};

static_assert(sizeof(struct boot_pvh_start_info) == 56, "hvm_start_info, version 1");
static_assert(offsetof(struct boot_pvh_start_info, modules) == 16, "modlist_paddr");
static_assert(offsetof(struct boot_pvh_start_info, command_line) == 24, "cmdline_paddr");
static_assert(offsetof(struct boot_pvh_start_info, rsdp) == 32, "rsdp_paddr");
static_assert(offsetof(struct boot_pvh_start_info, memory_map) == 40, "memmap_paddr");
static_assert(offsetof(struct boot_pvh_start_info, memory_count) == 48, "memmap_entries");
static_assert(sizeof(struct boot_pvh_module) == 32, "hvm_modlist_entry");
static_assert(sizeof(struct boot_pvh_memory) == 24, "hvm_memmap_table_entry");

/* --- What a file wants -------------------------------------------------------------------------------------------- */

#define BOOT_PVH_MODULE_MAX       16u   /* with the initrd */
#define BOOT_PVH_COMMAND_LINE_MAX 4095u /* characters */

/* What Linux keeps of it, and drops the rest without a word (arch/x86/include/asm/setup.h: COMMAND_LINE_SIZE). */
#define BOOT_PVH_LINUX_COMMAND_LINE 2047u

/* A kernel by PVH: one of the segments holds notes.entry, which is below 4 GiB. */

/* Check a file. *image is zero on failure. LOAM_ERROR_INVALID: diag names the field and what is wrong with it. */
LOAM_MUST_USE enum loam_error boot_pvh_inspect(const struct boot_file *file, struct boot_elf_image *image,
                                               struct loam_diag *diag);

/*
 * boot_load for a PVH kernel; hvm_start_info names request->rsdp. The segments are carved for "kernel", the initrd for "initrd" below 4 GiB,
 * and hvm_start_info with all that it points to for "pvh boot" below 1 GiB, both as high as may be. state->descriptors is 0: the
 * segment registers of PVH are set by their hidden parts.
 */
LOAM_MUST_USE enum loam_error boot_pvh_load(struct loam_memory *memory, const struct boot_request *request,
                                            struct boot_state *state, struct loam_diag *diag);

#endif
