// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Which pages of the guest's memory the host has written: what KVM's dirty log does not see, since no vCPU wrote it.
 *
 * A bit a page, over one range of guest-physical addresses, of any page size. Who writes to guest memory marks the range
 * afterwards: whoever called loam_gpa_view_write or a loam_gpa_io_... call, or wrote by an HVA or let a device do so. A
 * migration takes the bits, clears them by that, and sends those pages again; together with KVM's log it has them all.
 *
 * Memory is the caller's (size query, then init), may be shared between processes at different addresses, and is freed
 * when nobody uses it any more. Nothing here calls the system, and no call waits.
 *
 * Threads: any number mark, test, take and reset at once. What was written before its range was marked is seen by whoever
 * takes the mark: marking releases, taking acquires. So a page that is written again after it was taken is taken again.
 *
 * NULL where an object, memory or an output is wanted is LOAM_ERROR_INVALID.
 */
#ifndef LOAM_DIRTY_H
#define LOAM_DIRTY_H

#include "loam/error.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Opaque; lies in the memory given to loam_dirty_init. */
struct loam_dirty;

/** What a bitmap is of. */
struct loam_dirty_config {
    loam_gpa start;      /**< a multiple of page_bytes */
    uint64_t bytes;      /**< rounded up to whole pages */
    uint64_t page_bytes; /**< a power of two, at least 64; 0: 4096 */
};

/** Bytes that loam_dirty_init wants; 0 if config is invalid. */
size_t loam_dirty_bytes(const struct loam_dirty_config *config);

/**
 * Make a clean bitmap in memory (aligned to 8). *dirty is NULL on failure. LOAM_ERROR_INVALID: config, alignment, or too
 * few bytes.
 */
LOAM_MUST_USE enum loam_error loam_dirty_init(void *memory, size_t bytes, const struct loam_dirty_config *config,
                                              struct loam_dirty **dirty);

/**
 * All pages that the range touches are dirty. Zero bytes: nothing is. LOAM_ERROR_NOT_FOUND: part of the range is not the
 * bitmap's; the rest is marked all the same, for a mark too many does no harm, and one too few loses data.
 */
enum loam_error loam_dirty_mark(struct loam_dirty *dirty, loam_gpa start, uint64_t bytes);

/** Whether the page that holds gpa is marked; false outside the bitmap. */
bool loam_dirty_test(const struct loam_dirty *dirty, loam_gpa gpa);

/** How many pages are marked. O(pages / 64). */
uint64_t loam_dirty_count(const struct loam_dirty *dirty);

/**
 * The lowest run of marked pages at or above from, of at most limit_bytes rounded up to a page (0: no limit), and clear
 * it: so each mark is taken by one caller. *start and *bytes are 0 on failure. LOAM_ERROR_NOT_FOUND: nothing is marked
 * there. Everything, once:
 *     for (loam_gpa at = {0}; loam_dirty_take(dirty, at, 0, &start, &bytes) == LOAM_OK; at.value = start.value + bytes)
 */
LOAM_MUST_USE enum loam_error loam_dirty_take(struct loam_dirty *dirty, loam_gpa from, uint64_t limit_bytes,
                                              loam_gpa *start, uint64_t *bytes);

/**
 * The marks of all pages, cleared, in the form of KVM_GET_DIRTY_LOG: the bit of page n is bit n % 64 of word n / 64.
 * LOAM_ERROR_EXHAUSTED: word_count is too few words, and nothing is cleared.
 */
LOAM_MUST_USE enum loam_error loam_dirty_take_all(struct loam_dirty *dirty, uint64_t *words, uint64_t word_count);

/** No page that lies wholly or partly in the range is marked any more. Errors as loam_dirty_mark. */
enum loam_error loam_dirty_reset(struct loam_dirty *dirty, loam_gpa start, uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
