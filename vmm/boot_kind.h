// SPDX-License-Identifier: Apache-2.0
/*
 * What a file is that cannot be booted, and what its owner can do: for the refusal. Pure; any thread.
 */
#ifndef LOAM_VMM_BOOT_KIND_H
#define LOAM_VMM_BOOT_KIND_H

#include "vmm/boot.h"

#include <stdbool.h>

/* "Linux version " with a figure behind it: the banner that a Linux kernel prints, in [offset, offset + bytes) of file. */
bool boot_kind_has_banner(const struct boot_file *file, uint64_t offset, uint64_t bytes);

/* Of an ELF file that has another entry than those that are known here: a sentence without its end. NULL: none is seen. Static. */
const char *boot_kind_of_elf(const struct boot_file *file);

/* Of a file that is neither ELF nor a Linux image: likewise, and never NULL. */
const char *boot_kind_of_other(const struct boot_file *file);

#endif
