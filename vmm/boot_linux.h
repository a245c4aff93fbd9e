// SPDX-License-Identifier: Apache-2.0
/*
 * The Linux boot protocol at its 64-bit entry, or at its 32-bit entry where the kernel has no other
 * (Documentation/arch/x86/boot.rst): a bzImage, or anything that looks like one, such as memtest86+.
 *
 * boot_linux_inspect checks a file without any memory at hand; boot_linux_load carves what it wants, copies
 * it, and hands over boot_params, page tables and descriptors.
 *
 * What is asked of a header: protocol 2.10 or later with LOADED_HIGH, and fields that
 * agree with each other and with the file. memtest86+ 6.10 as Debian ships it says: version 2.12,
 * setup_sects 2, relocatable_kernel 0, pref_address and kernel_alignment 1 MiB and 4 KiB, initrd_addr_max 0xffffffff,
 * cmdline_size 255; its syssize is rounded up to whole paragraphs of 16 bytes, so that it ends up
 * to 15 bytes beyond the file. Signed kernels carry bytes beyond syssize: those are not loaded.
 *
 * Threads: any; a load wants its memory's ledger as loam_dma does.
 */
#ifndef LOAM_VMM_BOOT_LINUX_H
#define LOAM_VMM_BOOT_LINUX_H

#include "loam/error.h"
#include "loam/memory.h"
#include "loam/types.h"
#include "vmm/boot.h"
#include "vmm/boot_zero_page.h"

#include <stdbool.h>
#include <stdint.h>

#define BOOT_LINUX_ENTRY_OFFSET 0x200u /* of the 64-bit entry in the loaded kernel; the 32-bit entry is its beginning */
#define BOOT_LINUX_VERSION_MIN                                                                                         \
    0x020au /* from it on a header says where the kernel wants to be, and in how much memory */
#define BOOT_LINUX_VERSION_64 0x020cu

/*
 * What a file wants.
 * loam_fits(payload_offset, payload_bytes, file.bytes), BOOT_LINUX_ENTRY_OFFSET < payload_bytes <= init_bytes,
 * loam_fits(pref_address, init_bytes, 4 GiB), align_bytes is a power of two, at least a frame.
 */
struct boot_linux_image {
    uint8_t header[BOOT_LINUX_HEADER_ROOM]; /* as in the file; zero beyond header_bytes */
    uint32_t header_bytes;
    uint64_t payload_offset; /* the protected-mode part of the file */
    uint64_t payload_bytes;
    uint64_t pref_address;
    uint64_t init_bytes; /* memory that the kernel works in before it has read the memory map */
    uint64_t align_bytes;
    bool relocatable;
    bool is_long;              /* it has a 64-bit entry, which is taken */
    uint32_t command_line_max; /* characters */
    uint64_t initrd_limit;     /* the initrd ends at or below */
};

/* Check a file. *image is zero on failure. LOAM_ERROR_INVALID: diag names the field and what is wrong with it. */
LOAM_MUST_USE enum loam_error boot_linux_inspect(const struct boot_file *file, struct boot_linux_image *image,
                                                 struct loam_diag *diag);

/*
 * boot_load for a Linux image. The kernel goes to its preferred address, or, if it is relocatable, to the
 * lowest free place above that: below, it would move itself up over whatever is there. Everything lies
 * below 4 GiB, which the page tables of the 64-bit entry map one to one. Owners: "kernel", and boot_zero_page's.
 */
LOAM_MUST_USE enum loam_error boot_linux_load(struct loam_memory *memory, const struct boot_request *request,
                                              struct boot_state *state, struct loam_diag *diag);

#endif
