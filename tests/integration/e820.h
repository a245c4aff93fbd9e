// SPDX-License-Identifier: Apache-2.0
/* The memory map that Linux says it was given, held against the plan. Pure. */
#ifndef LOAM_TEST_E820_H
#define LOAM_TEST_E820_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define E820_ENTRY_MAX 32u

struct e820 {
    size_t count;
    struct e820_entry {
        uint64_t start, end; /* half open */
        bool is_usable;
    } entries[E820_ENTRY_MAX]; /* sorted, none overlaps another: Linux saw to it */
};

/* From the lines "BIOS-e820: ..." of a kernel's log. Those beyond E820_ENTRY_MAX are left out. */
void e820_read(const char *log, struct e820 *map);

/* Bytes of entries in [start, end), of those that are usable alone or of all. */
uint64_t e820_bytes(const struct e820 *map, uint64_t start, uint64_t end, bool usable_alone);

/*
 * Whether the map is the plan's, as `loam plan --json` has it: each byte of its parts is in an entry, what is usable lies
 * in its parts, and of them all is usable but the PC's 384 KiB at 0xa0000 and tables_max bytes, in which the machine's
 * tables are. NULL: it is; else why not, which stays until the next call.
 */
const char *e820_differs(const struct e820 *map, const json_t *plan, uint64_t tables_max);

#endif
