// SPDX-License-Identifier: Apache-2.0
/*
 * The notes of an ELF file that concern a loader: where PVH enters, whose kernel it is, what Loam's own note says.
 *
 * The System V ABI (chapter 5, "Note Section") pads names and descriptors of ELF64 to 8 bytes; nearly all that writes
 * notes pads them to 4, whatever p_align says, and linkers put notes of several alignments into one segment with zeros
 * between and behind them. So p_align is a hint: a segment is read with 4, and with 8 where that makes more sense.
 *
 * Pure but for the file's bytes, which are fetched once; any thread.
 */
#ifndef LOAM_VMM_BOOT_NOTES_H
#define LOAM_VMM_BOOT_NOTES_H

#include "loam/error.h"
#include "loam/types.h"
#include "vmm/boot.h"

#include <stdbool.h>
#include <stdint.h>

#define BOOT_NOTES_MAX_BYTES LOAM_MIB   /* of one segment */
#define BOOT_NOTES_NO_ENTRY  UINT64_MAX /* no PVH note yet */

/* A PT_NOTE program header; index is for messages. The range lies in the file. */
struct boot_notes_segment {
    uint32_t index;
    uint64_t offset;
    uint64_t bytes;
    uint64_t align;
};

/* What all segments together have said. Starts as {.entry = BOOT_NOTES_NO_ENTRY}. */
struct boot_notes {
    uint64_t entry;          /* of PVH, below 4 GiB */
    bool without_interrupts; /* guest/abi.h */
    bool has_system;         /* a note names the operating system: */
    bool is_linux;
    uint32_t known_count; /* notes that are none of others' */
};

/*
 * Read one segment's notes. *notes is as before on failure. LOAM_ERROR_INVALID: its alignment or size is none, a note
 * does not lie within it, or one that is known is malformed or contradicts another; diag names the field.
 */
LOAM_MUST_USE enum loam_error boot_notes_read(const struct boot_file *file, const struct boot_notes_segment *segment,
                                              struct boot_notes *notes, struct loam_diag *diag);

#endif
