// SPDX-License-Identifier: Apache-2.0
/*
 * The reference that Loam's frame allocator is measured against, and an oracle for differential tests: a model, in
 * plain C, of the binary buddy allocator that Loam replaces. It keeps a 12-byte record for each frame, doubly linked
 * free lists for each order and section, and its sections in a list in the order of registration. It behaves as a
 * release build of that allocator does:
 *
 * - A count is rounded up to a power of two, and the rest of the block is lost until it is freed.
 * - The smallest order whose list holds a block that fits serves; within a list, the block freed last comes first;
 *   within a section, blocks are aligned to their size relative to the section's start and not to address 0.
 * - An alignment greater than the block is found inside a larger one, and the rest of that one stays free.
 * - An alignment up to the block's own size is refused by a section whose start does not have it.
 * - Below 4 GiB: the lists are walked until a part lies low enough; it is the part that is looked at, not the whole
 *   free block around it.
 * - Nothing is checked when a block is freed: an address in no section is ignored, any other misuse corrupts.
 *
 * It works on addresses and never touches the memory that they name; records and descriptors are the caller's memory.
 * Addresses are physical ones. Threads: one at a time.
 */
#ifndef LOAM_BENCH_SEED_H
#define LOAM_BENCH_SEED_H

#include "loam/error.h"

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define SEED_FRAME_BYTES UINT64_C(4096)
#define SEED_ORDER_MAX   20u
#define SEED_LOW_END     (UINT64_C(1) << 32) /* where low memory ends */
#define SEED_NONE        UINT32_MAX          /* no frame */

enum seed_flags { SEED_FREE, SEED_ALLOCATED };

/* Of each frame; it means something for the first frame of a block only. */
struct seed_record {
    uint32_t previous; /* on a free list: indexes within the section, or SEED_NONE */
    uint32_t next;
    uint8_t flags; /* enum seed_flags */
    uint8_t order;
    uint8_t unused[2];
};

static_assert(sizeof(struct seed_record) == 12, "12 bytes a frame");

/* free_frames == sum over free blocks of 2^order; managed_frames == heap_bytes / SEED_FRAME_BYTES */
struct seed_section {
    struct seed_section *next;
    uint64_t region_start;
    uint64_t region_bytes;
    struct seed_record *records;
    uint64_t record_count;
    uint64_t heap_start;
    uint64_t heap_bytes;
    uint32_t free_lists[SEED_ORDER_MAX + 1];
    uint64_t free_frames;
    uint64_t managed_frames;
};

static_assert(sizeof(struct seed_section) == 160, "as much as the prefix of a region gives it");

struct seed {
    struct seed_section *first, *last;
    size_t section_count;
};

/* What lies where in a region: the heap that is handed out, and before it, as a prefix, what metadata takes. */
struct seed_layout {
    uint64_t region_start, region_bytes;
    uint64_t heap_start, heap_bytes;
};

/* No sections yet. */
void seed_init(struct seed *seed);

/* Bytes of records for a heap. */
size_t seed_record_bytes(uint64_t heap_bytes);

/*
 * How a region is divided when its metadata lies in its head, as the allocator modelled has it.
 * LOAM_ERROR_INVALID: the range wraps or has no room for a frame; *layout is zero.
 */
LOAM_MUST_USE enum loam_error seed_layout_in_prefix(uint64_t region_start, uint64_t region_bytes,
                                                    struct seed_layout *layout);

/* The same range as region and heap: all of it is handed out. start and bytes are multiples of SEED_FRAME_BYTES. */
struct seed_layout seed_layout_out_of_band(uint64_t start, uint64_t bytes);

/*
 * Add a section, all free, behind those that are there. section and records stay the caller's, in place.
 * LOAM_ERROR_INVALID: heap empty, misaligned or beyond the region, or too few records. LOAM_ERROR_OVERLAP: the region
 * meets another.
 */
LOAM_MUST_USE enum loam_error seed_section_add(struct seed *seed, struct seed_section *section,
                                               const struct seed_layout *layout, struct seed_record *records,
                                               size_t records_bytes);

/*
 * Allocate count_frames at a multiple of align_bytes (0: of a frame). *address is 0 on failure.
 * LOAM_ERROR_INVALID: count 0 or above 2^SEED_ORDER_MAX, align no power of two or less than a frame.
 * LOAM_ERROR_EXHAUSTED: no section has a block that fits.
 */
LOAM_MUST_USE enum loam_error seed_alloc(struct seed *seed, uint64_t count_frames, uint64_t align_bytes,
                                         uint64_t *address);

/* The same, ending at or below SEED_LOW_END. */
LOAM_MUST_USE enum loam_error seed_alloc_low(struct seed *seed, uint64_t count_frames, uint64_t align_bytes,
                                             uint64_t *address);

/*
 * Free the block at address, all of it, whatever count_frames says. address comes from seed_alloc or seed_alloc_low.
 */
void seed_free(struct seed *seed, uint64_t address, uint64_t count_frames);

/* In all sections. O(sections) */
uint64_t seed_free_frames(const struct seed *seed);
uint64_t seed_managed_frames(const struct seed *seed);

/* Free frames in free blocks of the order and above. O(blocks) */
uint64_t seed_usable_frames(const struct seed *seed, uint32_t order);

/* The block that holds address: where it starts, its order, whether it is free. O(blocks) */
struct seed_block {
    uint64_t start;
    uint32_t order;
    enum seed_flags flags;
};

/* LOAM_ERROR_NOT_FOUND: no section holds address; *block is zero. */
LOAM_MUST_USE enum loam_error seed_find(const struct seed *seed, uint64_t address, struct seed_block *block);

#endif
