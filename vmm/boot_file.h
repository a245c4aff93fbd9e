// SPDX-License-Identifier: Apache-2.0
/*
 * Reading a boot file that nobody vouches for: bounded fetches, and refusals that name the file.
 *
 * The caller may have mapped the file, so that its bytes can change at any moment: what is checked is
 * fetched once, and what is used is what was checked. Pure; any thread.
 */
#ifndef LOAM_VMM_BOOT_FILE_H
#define LOAM_VMM_BOOT_FILE_H

#include "loam/error.h"
#include "vmm/boot.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Copy [offset, offset + bytes) of the file into target. False, and target untouched: the file does not hold it all. */
bool boot_file_read(const struct boot_file *file, uint64_t offset, void *target, size_t bytes);

/*
 * Refuse the kernel: LOAM_ERROR_INVALID, and the line "kernel NAME: REASON" in diag, which may be NULL. The
 * name is cut to fit, and its control characters are replaced, so that the line stays one.
 */
LOAM_PRINTF(3, 4)
enum loam_error boot_file_refuse(const struct boot_file *file, struct loam_diag *diag, const char *format, ...);

#endif
