// SPDX-License-Identifier: Apache-2.0
/*
 * An ELF64 file without a note, by the 64-bit Linux protocol: entered at e_entry in long mode, RSI = boot_params, as
 * Firecracker enters it (Linux: Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"). A vmlinux without PVH, and
 * unikernels that are built for it.
 *
 * Threads: any; a load wants its memory's ledger as loam_dma does.
 */
#ifndef LOAM_VMM_BOOT_VMLINUX_H
#define LOAM_VMM_BOOT_VMLINUX_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/boot_elf.h"

#define BOOT_VMLINUX_COMMAND_LINE_MAX 2047u /* characters: what Linux keeps */

/*
 * Check a file; *entry is where it is entered, below 4 GiB, which the page tables map. *image is zero on failure.
 * LOAM_ERROR_INVALID: diag names the field, or what kind of file it is that has another way to be booted.
 */
LOAM_MUST_USE enum loam_error boot_vmlinux_inspect(const struct boot_file *file, struct boot_elf_image *image,
                                                   uint64_t *entry, struct loam_diag *diag);

/* boot_load for such a file. Owners: "kernel", and those of boot_zero_page.h. */
LOAM_MUST_USE enum loam_error boot_vmlinux_load(struct loam_memory *memory, const struct boot_request *request,
                                                struct boot_state *state, struct loam_diag *diag);

#endif
