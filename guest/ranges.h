// SPDX-License-Identifier: Apache-2.0
/*
 * Arithmetic on the table's ranges. Pure and freestanding: the guest runs it, and tests run it on the host.
 */
#ifndef LOAM_GUEST_RANGES_H
#define LOAM_GUEST_RANGES_H

#include "guest/abi.h"

#include <stdbool.h>
#include <stdint.h>

/* A half-open range. */
struct ranges_piece {
    uint64_t start;
    uint64_t end;
};

/* Whether range is not empty, does not wrap, and starts and ends at multiples of align_bytes, a power of two. */
bool ranges_valid(const struct loam_abi_range *range, uint64_t align_bytes);

/* Whether two ranges share a byte; both are ranges_valid. */
bool ranges_overlap(const struct loam_abi_range *a, const struct loam_abi_range *b);

/* Where a walk over RAM stands; start one with {0}. */
struct ranges_cursor {
    uint32_t index; /* of the KIND_RAM range at hand, or of what precedes it */
    uint64_t next;  /* where to go on in it; 0: at its start */
};

/*
 * The next piece of a KIND_RAM range without its KIND_KEPT pages: whole pages, as long as possible, in the table's
 * order, ascending within a range. A page of which any byte is kept is left out. RAM that is not ranges_valid for whole
 * pages is passed over, as is every kept range that is not ranges_valid for bytes. Returns false after the last.
 * range_count is at most LOAM_ABI_RANGE_MAX.
 */
bool ranges_next_piece(const struct loam_abi_table *table, struct ranges_cursor *cursor, struct ranges_piece *piece);

#endif
