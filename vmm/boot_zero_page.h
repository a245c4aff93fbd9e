// SPDX-License-Identifier: Apache-2.0
/*
 * What a Linux kernel finds beside itself, whichever way it is entered: boot_params (the zero page), command line, initrd,
 * descriptors, and page tables for the 64-bit entry (Linux: Documentation/arch/x86/boot.rst, zero-page.rst).
 *
 * Everything lies below 4 GiB, as high as may be. Owners: "boot parameters", "command line", "page tables",
 * "descriptors", "initrd".
 *
 * Threads: as a load.
 */
#ifndef LOAM_VMM_BOOT_ZERO_PAGE_H
#define LOAM_VMM_BOOT_ZERO_PAGE_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/boot_memory.h"

#include <asm/bootparam.h>
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The setup header starts here in a file and in boot_params alike, and may grow up to the end of its room. */
#define BOOT_LINUX_HEADER_OFFSET  0x1f1u
#define BOOT_LINUX_HEADER_ROOM    (0x290u - BOOT_LINUX_HEADER_OFFSET)
#define BOOT_LINUX_LOADER_UNKNOWN 0xffu /* type_of_loader for one without a registered number */

static_assert(sizeof(struct setup_header) <= BOOT_LINUX_HEADER_ROOM, "the header has room in boot_params");
static_assert(sizeof(struct boot_params) == 4096, "the zero page");
static_assert(offsetof(struct boot_params, hdr) == BOOT_LINUX_HEADER_OFFSET, "where the header is in both");
static_assert(offsetof(struct boot_params, edd_mbr_sig_buffer) == BOOT_LINUX_HEADER_OFFSET + BOOT_LINUX_HEADER_ROOM,
              "what follows the header's room");

struct boot_zero_page {
    bool is_long;                           /* for the 64-bit entry */
    uint8_t header[BOOT_LINUX_HEADER_ROOM]; /* as the kernel has it; zero beyond header_bytes */
    uint32_t header_bytes;
    uint32_t command_line_max; /* characters */
    uint64_t initrd_limit;     /* the initrd ends at or below */
};

/*
 * Carve and write all of it; state->parameters, page_tables and descriptors are set. Errors are those of boot_load; what was
 * carved is the caller's to undo.
 */
LOAM_MUST_USE enum loam_error boot_zero_page_load(struct boot_memory *carved, const struct boot_request *request,
                                                  const struct boot_zero_page *wanted, struct boot_state *state,
                                                  struct loam_diag *diag);

#endif
