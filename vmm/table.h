// SPDX-License-Identifier: Apache-2.0
/*
 * Tables of bytes while they are written: ACPI's and those of the MultiProcessor Specification. Numbers are little-endian.
 *
 * What does not fit is counted and not written, so that whoever writes asks once, at the end (table_is_whole). Until then
 * places beyond the room read as zero.
 *
 * Threads: a table belongs to one at a time.
 */
#ifndef LOAM_VMM_TABLE_H
#define LOAM_VMM_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table {
    uint8_t *bytes; /* the caller's; where the first byte goes */
    size_t room_bytes;
    size_t used_bytes; /* so many were put, whether there was room or not */
};

void table_init(struct table *table, void *bytes, size_t room_bytes);

/* All that was put has found room. */
bool table_is_whole(const struct table *table);

/* A number of 1 to 8 bytes; what is beyond them of value is left out. */
void table_put(struct table *table, uint64_t value, uint32_t bytes);

void table_put_bytes(struct table *table, const void *bytes, size_t count);

/* text in a field of width bytes: the beginning of it, or with spaces after it. */
void table_put_text(struct table *table, const char *text, size_t width);

void table_put_zeros(struct table *table, size_t count);

/* Zeros up to a multiple of align, which is not 0, from the table's first byte on. */
void table_align(struct table *table, size_t align);

/* Put a number where one was put before, or zeros: all of it lies within what was put. */
void table_patch(struct table *table, size_t offset, uint64_t value, uint32_t bytes);

/* Move what was put from offset on up by count bytes, so that as many can be patched there. */
void table_make_way(struct table *table, size_t offset, size_t count);

/* The byte that makes those of [start, end), which were put, add up to a multiple of 256. */
uint8_t table_checksum(const struct table *table, size_t start, size_t end);

#endif
