// SPDX-License-Identifier: Apache-2.0
/*
 * An ELF file as loaders see it: its segments, its entry and its notes, checked without any memory at hand; and its segments
 * put into guest memory.
 *
 * ELF64 for x86-64, and ELF32 for i386 or x86-64 (as GRUB and kernels that begin in 32-bit code have it), little-endian.
 * Position-independent files are not taken, since nothing says where they want to be.
 *
 * Threads: any; a load wants its memory's ledger as loam_dma does.
 */
#ifndef LOAM_VMM_BOOT_ELF_H
#define LOAM_VMM_BOOT_ELF_H

#include "loam/error.h"
#include "loam/types.h"
#include "vmm/boot.h"
#include "vmm/boot_memory.h"
#include "vmm/boot_notes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOT_ELF_SEGMENT_MAX 128u /* program headers of a file */

struct boot_elf_segment {
    loam_gpa start;
    uint64_t memory_bytes;
    uint64_t file_offset;
    uint64_t file_bytes;      /* the rest of memory_bytes is zero */
    uint64_t virtual_address; /* of start, as the file has it */
};

/*
 * For each segment: memory_bytes > 0, file_bytes <= memory_bytes, loam_gpa_range_valid(start, memory_bytes),
 *   loam_fits(file_offset, file_bytes, file.bytes) || file_bytes == 0
 * segments[i].start + segments[i].memory_bytes <= segments[i + 1].start
 */
struct boot_elf_image {
    bool is_64;
    uint64_t entry;         /* e_entry as it stands there */
    uint32_t segment_count; /* 1 to BOOT_ELF_SEGMENT_MAX */
    struct boot_elf_segment segments[BOOT_ELF_SEGMENT_MAX];
    struct boot_notes notes; /* entry BOOT_NOTES_NO_ENTRY: there is no PVH note */
};

bool boot_elf_is(const struct boot_file *file);

/* Check a file. *image is zero on failure. LOAM_ERROR_INVALID: diag names the field and what is wrong with it. */
LOAM_MUST_USE enum loam_error boot_elf_inspect(const struct boot_file *file, struct boot_elf_image *image,
                                               struct loam_diag *diag);

/* Whether a segment holds that address. */
bool boot_elf_holds(const struct boot_elf_image *image, uint64_t address);

/* e_entry as a physical address: as it is where a segment holds it, else by the segment whose virtual addresses do. false: none does, or it is 0. */
bool boot_elf_entry(const struct boot_elf_image *image, uint64_t *entry);

/* Carve the segments for "kernel", and copy them; state->image_start and image_bytes are set. As boot_memory_carve. */
LOAM_MUST_USE enum loam_error boot_elf_load(struct boot_memory *carved, const struct boot_file *file,
                                            const struct boot_elf_image *image, struct boot_state *state,
                                            struct loam_diag *diag);

/* Whose kernel it is: a note says so or says another; without one, its banner lies in a segment. */
bool boot_elf_is_linux(const struct boot_file *file, const struct boot_elf_image *image);

#endif
