// SPDX-License-Identifier: Apache-2.0
/*
 * Multiboot 1 (Multiboot Specification 0.6.96): a header within the first 8 KiB of a file says that it is entered in 32-bit
 * protected mode without paging. The file is ELF32 or ELF64, and then its segments are loaded, or anything else whose header has
 * the address fields.
 *
 * The kernel is told of the memory map, its command line, modules, and the name of its loader. It finds no video mode, no
 * drives, no APM, whether it asks for them or not. The command line's first word is the file's name, as it is by GRUB Legacy
 * and QEMU: kernels pass over it.
 *
 * Threads: any; a load wants its memory's ledger as loam_dma does.
 */
#ifndef LOAM_VMM_BOOT_MULTIBOOT_H
#define LOAM_VMM_BOOT_MULTIBOOT_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/boot_elf.h"

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- What the guest reads (section 3.3) ---------------------------------------------------------------------------- */

#define BOOT_MULTIBOOT_MAGIC 0x2badb002u /* in eax */

#define BOOT_MULTIBOOT_INFO_MEMORY       (1u << 0)
#define BOOT_MULTIBOOT_INFO_COMMAND_LINE (1u << 2)
#define BOOT_MULTIBOOT_INFO_MODULES      (1u << 3)
#define BOOT_MULTIBOOT_INFO_MEMORY_MAP   (1u << 6)
#define BOOT_MULTIBOOT_INFO_LOADER       (1u << 9)

struct boot_multiboot_info {
    uint32_t flags;
    uint32_t lower_kib, upper_kib; /* from 0, at most 640; and from 1 MiB to the first gap */
    uint32_t boot_device;
    uint32_t command_line;
    uint32_t module_count, modules;
    uint32_t symbols[4];
    uint32_t memory_map_bytes, memory_map;
    uint32_t drives_bytes, drives;
    uint32_t config_table;
    uint32_t loader;
    uint32_t rest[13]; /* APM, VBE, frame buffer */
};

struct boot_multiboot_module {
    uint32_t start, end;
    uint32_t text;
    uint32_t reserved;
};

/* As E820; bytes is what follows that member itself. */
struct boot_multiboot_memory {
    uint32_t bytes;
    uint64_t start, length;
    uint32_t type;
} __attribute__((packed));

static_assert(offsetof(struct boot_multiboot_info, modules) == 24, "mods_addr");
static_assert(offsetof(struct boot_multiboot_info, memory_map_bytes) == 44, "mmap_length");
static_assert(offsetof(struct boot_multiboot_info, loader) == 64, "boot_loader_name");
static_assert(sizeof(struct boot_multiboot_info) == 120, "with room for the frame buffer's");
static_assert(sizeof(struct boot_multiboot_memory) == 24, "mmap entry");

/* --- What a file wants ---------------------------------------------------------------------------------------------- */

#define BOOT_MULTIBOOT_COMMAND_LINE_MAX 4095u /* characters, without the file's name */
#define BOOT_MULTIBOOT_MODULE_MAX       16u   /* with the initrd */

/* entry lies in a segment, and all below 4 GiB. */
struct boot_multiboot_image {
    bool has_addresses; /* the header says where everything goes, and image has one segment */
    bool wants_video;
    uint32_t entry;
    struct boot_elf_image image;
};

/* Whether there is a header, its checksum right; it may still be malformed. */
bool boot_multiboot_is(const struct boot_file *file);

/* Check a file. *image is zero on failure. LOAM_ERROR_INVALID: diag names the field and what is wrong with it. */
LOAM_MUST_USE enum loam_error boot_multiboot_inspect(const struct boot_file *file, struct boot_multiboot_image *image,
                                                     struct loam_diag *diag);

/*
 * boot_load for a multiboot kernel. The initrd is the last module, on the lowest frames behind the kernel that have room.
 * The information lies below 640 KiB, or, if nothing is free there, as high as may be below 1 GiB. Owners: "kernel", "initrd",
 * "multiboot".
 */
LOAM_MUST_USE enum loam_error boot_multiboot_load(struct loam_memory *memory, const struct boot_request *request,
                                                  struct boot_state *state, struct loam_diag *diag);

#endif
