// SPDX-License-Identifier: Apache-2.0
/*
 * Names of code: which function of a kernel an address lies in, by the symbol table of an ELF file that nobody vouches for
 * (System V ABI, chapter 4, "Sections" and "Symbol Table").
 *
 * Nothing is made ready: whoever asks reads the table from end to end, some milliseconds for Linux. A kernel that runs
 * where it was loaded, before it maps itself to where it was linked, is found by its program headers' physical addresses.
 *
 * Pure but for the file's bytes, each of which is fetched once; any thread.
 */
#ifndef LOAM_VMM_SYMBOLS_H
#define LOAM_VMM_SYMBOLS_H

#include "vmm/boot.h"

#include <stdbool.h>
#include <stdint.h>

#define SYMBOLS_NAME_BYTES 64u
#define SYMBOLS_MAX        (UINT32_C(1) << 22) /* of a table, those behind are not looked at; Linux has some 100,000 */

struct symbols_place {
    char name[SYMBOLS_NAME_BYTES]; /* ASCII that can be printed, without spaces; cut where it is longer */
    uint64_t offset;               /* of the address, from the function's first byte */
};

/*
 * The function, or the label without a size, that address lies in. false: none, or no ELF file for x86 with a symbol table
 * and sections; *place is empty then.
 */
bool symbols_find(const struct boot_file *file, uint64_t address, struct symbols_place *place);

#endif
