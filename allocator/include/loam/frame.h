// SPDX-License-Identifier: Apache-2.0
/*
 * The page-frame allocator: sections of frames, two zones, blocks of exact size under constraints.
 *
 * It hands out frame numbers and never touches the frames. Its metadata lies out of band in memory that the caller
 * supplies (ask for the size, then init), holds indexes and offsets but no pointers, and stays the caller's: the
 * allocator calls neither malloc nor the system. So it can run inside a guest, in shared memory or under a model
 * checker.
 *
 * PFNs are absolute, so an alignment of frames is an alignment of guest-physical addresses.
 *
 * Threads: every call may come from any thread at any time, except those under Lifecycle, which want the allocator to
 * themselves. A call holds one internal lock for its duration and waits for nothing else.
 *
 * Misuse (double free, free inside a block, wrong count, foreign frame) is always detected and refused with an error,
 * the state unchanged; loam_frame_describe says what stands there.
 */
#ifndef LOAM_FRAME_H
#define LOAM_FRAME_H

#include "loam/error.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOAM_FRAME_ORDER_MAX      20 /* the largest block: 2^20 frames, 4 GiB of 4 KiB frames */
#define LOAM_FRAME_COUNT_MAX      (UINT64_C(1) << LOAM_FRAME_ORDER_MAX)
#define LOAM_FRAME_ALIGN_MAX      (UINT64_C(1) << LOAM_FRAME_ORDER_MAX) /* in frames */
#define LOAM_FRAME_CHUNK_FRAMES   512                                   /* what one 2 MiB hugepage backs */
#define LOAM_FRAME_SECTION_MAX    65536
#define LOAM_FRAME_METADATA_ALIGN 64 /* of every piece of metadata memory, in bytes */

/* Opaque; lies at the start of the metadata memory given to loam_frame_init. */
struct loam_frame;

enum loam_frame_zone {
    LOAM_FRAME_ZONE_DMA32,  /* frames below 4 GiB */
    LOAM_FRAME_ZONE_NORMAL, /* frames from 4 GiB up */
    LOAM_FRAME_ZONE_COUNT
};

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/* Zero members mean what their comment says. */
struct loam_frame_config {
    uint32_t frame_shift;          /* 12, 14 or 16; 0: 12 */
    uint32_t section_capacity;     /* sections there can ever be at once, 1 to LOAM_FRAME_SECTION_MAX; 0: 16 */
    uint64_t dma32_reserve_frames; /* free frames below 4 GiB that requests without a limit must leave; 0: none */
};

/* Bytes of metadata memory that loam_frame_init wants, sections not counted; 0 if config is invalid. NULL: all zero. */
size_t loam_frame_bytes(const struct loam_frame_config *config);

/*
 * Make an allocator without sections in memory, which is aligned to LOAM_FRAME_METADATA_ALIGN and stays the caller's,
 * at a fixed address, until no call uses the allocator any more; there is nothing else to destroy.
 * *frame is memory itself, or NULL on failure.
 * LOAM_ERROR_INVALID: config or alignment; bytes below loam_frame_bytes(config).
 */
LOAM_MUST_USE enum loam_error loam_frame_init(void *memory, size_t bytes, const struct loam_frame_config *config,
                                              struct loam_frame **frame);

/* --- Sections -------------------------------------------------------------------------------------------------- */

/* A section as a caller sees it. */
struct loam_frame_section {
    uint32_t id;             /* stays with the section for its life; ids of removed sections are used again */
    loam_pfn start;          /* first managed frame */
    uint64_t managed_frames; /* frames that can be handed out */
    uint64_t total_frames;   /* and with them those that metadata in the section's prefix takes */
    uint64_t free_frames;
    uint64_t metadata_bytes;
};

/*
 * Bytes of metadata for a section of count_frames frames from start: at most 0.32 bytes a frame for large sections.
 * 0 if the range is empty or does not lie below LOAM_GPA_END.
 */
size_t loam_frame_section_bytes(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames);

/*
 * Put the frames [start, start + count_frames) under the allocator, all free. metadata is out of band: never in memory
 * that a guest can write. It stays the caller's, at its place relative to the allocator, until the section is removed.
 * Any start and count will do; neither is rounded. section (NULL: not wanted) receives the section's id.
 * LOAM_ERROR_INVALID: empty range, beyond LOAM_GPA_END, metadata too small or misaligned. LOAM_ERROR_OVERLAP: a frame
 * is managed already. LOAM_ERROR_EXHAUSTED: section_capacity sections are there.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_add(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                                     void *metadata, size_t metadata_bytes, uint32_t *section);

/*
 * The same, with the metadata in the head of the region itself: for host regions that no guest can write, only.
 * region points to the memory of the frames [start, start + count_frames); the frames that the metadata fills are
 * never handed out, and count as total but not as managed.
 * LOAM_ERROR_INVALID also: the region is too small to hold its metadata and one frame.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_add_in_prefix(struct loam_frame *frame, void *region, loam_pfn start,
                                                               uint64_t count_frames, uint32_t *section);

/*
 * Take a wholly free section away; its metadata is the caller's again.
 * LOAM_ERROR_NOT_FOUND: no such section. LOAM_ERROR_BUSY: blocks in it are allocated; blocker (NULL: not wanted)
 * receives the first frame of the lowest of them.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_remove(struct loam_frame *frame, uint32_t section, loam_pfn *blocker);

/* Sections there are now. */
uint32_t loam_frame_section_count(const struct loam_frame *frame);

/* The index-th section in ascending order of frames. LOAM_ERROR_NOT_FOUND: index >= loam_frame_section_count. */
LOAM_MUST_USE enum loam_error loam_frame_section_at(const struct loam_frame *frame, uint32_t index,
                                                    struct loam_frame_section *section);

/* The section that manages pfn. O(log sections). LOAM_ERROR_NOT_FOUND: none does; a prefix of metadata is not managed.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_find(const struct loam_frame *frame, loam_pfn pfn,
                                                      struct loam_frame_section *section);

/* --- Allocation ------------------------------------------------------------------------------------------------ */

enum {
    LOAM_FRAME_AT = 1u << 0,         /* exactly at request.at, wherever that is: also inside the DMA32 reserve */
    LOAM_FRAME_IN_SECTION = 1u << 1, /* only in request.section */
};

/* What is wanted. Everything but count_frames may stay zero. */
struct loam_frame_request {
    uint64_t count_frames;    /* exactly so many contiguous frames: 1 to LOAM_FRAME_COUNT_MAX */
    uint64_t align_frames;    /* the block starts at a multiple: a power of two to LOAM_FRAME_ALIGN_MAX; 0: 1 */
    uint64_t boundary_frames; /* the block crosses no multiple: a power of two, at least count_frames; 0: none */
    loam_pfn limit;           /* the block ends at or below this frame; 0: no limit */
    uint32_t flags;           /* LOAM_FRAME_... */
    uint32_t section;         /* with LOAM_FRAME_IN_SECTION */
    loam_pfn at;              /* with LOAM_FRAME_AT */
};

/* What was got. */
struct loam_frame_block {
    loam_pfn start;
    uint64_t count_frames;
    uint32_t section;
    uint32_t flags; /* 0 for now */
};

/*
 * Allocate one block. It never spans two sections, and alignment costs no frames. The highest zone that the limit
 * allows serves first. A request whose limit is 4 GiB or less, or that carries LOAM_FRAME_AT, may enter the DMA32
 * reserve; any other must leave it untouched. A request that some free block can serve is served.
 * LOAM_ERROR_INVALID: a member is out of its range, or members contradict each other (at misaligned, at beyond the
 * limit, at crossing the boundary, at in another section). LOAM_ERROR_NOT_FOUND: there is no such section, or the
 * frames from at on are not all managed by one. LOAM_ERROR_BUSY: at is taken in part or in whole. LOAM_ERROR_EXHAUSTED:
 * no free block fits.
 */
LOAM_MUST_USE enum loam_error loam_frame_alloc(struct loam_frame *frame, const struct loam_frame_request *request,
                                               struct loam_frame_block *block);

/* 2^order frames at their natural alignment, order 0 to LOAM_FRAME_ORDER_MAX. Errors as loam_frame_alloc. */
LOAM_MUST_USE enum loam_error loam_frame_alloc_order(struct loam_frame *frame, uint32_t order, loam_pfn *start);

/* The same, ending at or below limit (LOAM_DMA32_END_BYTES >> frame shift for the DMA32 zone; 0: no limit). */
LOAM_MUST_USE enum loam_error loam_frame_alloc_order_below(struct loam_frame *frame, uint32_t order, loam_pfn limit,
                                                           loam_pfn *start);

/*
 * Free the block that was allocated at start with count_frames frames; its tag goes with it.
 * LOAM_ERROR_NOT_FOUND: start is not managed. LOAM_ERROR_INVALID: start is free already, lies inside a block, or its
 * block has another count; loam_frame_describe says which. The state is unchanged then.
 */
LOAM_MUST_USE enum loam_error loam_frame_free(struct loam_frame *frame, loam_pfn start, uint64_t count_frames);

/* --- What stands where ----------------------------------------------------------------------------------------- */

enum loam_frame_state {
    LOAM_FRAME_UNMANAGED, /* in no section, or taken by metadata in a prefix */
    LOAM_FRAME_FREE,
    LOAM_FRAME_ALLOCATED,
};

/* What an allocated block is used for: one mark a block, kept without a byte a frame. */
enum loam_frame_tag {
    LOAM_FRAME_TAG_NONE,
    LOAM_FRAME_TAG_SLAB, /* divided into objects by the slab allocator */
};

struct loam_frame_info {
    enum loam_frame_state state;
    enum loam_frame_tag tag;       /* LOAM_FRAME_ALLOCATED only */
    uint32_t section;              /* not with LOAM_FRAME_UNMANAGED */
    struct loam_frame_block block; /* LOAM_FRAME_ALLOCATED: the whole block that holds the frame */
};

/* What stands at pfn. Never fails: frames that are not managed have a state of their own. */
struct loam_frame_info loam_frame_query(const struct loam_frame *frame, loam_pfn pfn);

/* Tag the allocated block that starts at start. LOAM_ERROR_INVALID: no allocated block starts there, or bad tag. */
LOAM_MUST_USE enum loam_error loam_frame_tag_set(struct loam_frame *frame, loam_pfn start, enum loam_frame_tag tag);

/*
 * Write into text a line (no newline; cut at bytes) on what stands at pfn, such as
 * "frame 0x1234 is inside the allocated block [0x1230, 0x1238) of section 0". Returns the line's whole length.
 */
size_t loam_frame_describe(const struct loam_frame *frame, loam_pfn pfn, char *text, size_t bytes);

/* One free range for loam_frame_next_free. */
struct loam_frame_range {
    loam_pfn start;
    uint64_t count_frames;
};

/*
 * The lowest maximal range of free frames within one section that ends above from; ranges do not join across sections.
 * A range that holds from starts at from. LOAM_ERROR_NOT_FOUND: there is none. Between two calls others may allocate.
 */
LOAM_MUST_USE enum loam_error loam_frame_next_free(const struct loam_frame *frame, loam_pfn from,
                                                   struct loam_frame_range *range);

struct loam_frame_stats {
    uint32_t section_count;
    uint64_t total_frames;
    uint64_t managed_frames;
    uint64_t free_frames;
    uint64_t allocated_frames; /* managed_frames - free_frames */
    uint64_t free_frames_in_zone[LOAM_FRAME_ZONE_COUNT];
    uint64_t dma32_reserve_frames;
    uint64_t free_chunks;    /* wholly free aligned chunks */
    uint64_t metadata_bytes; /* all of it, the allocator's own included */
};

/* The figures of one moment. O(sections). */
struct loam_frame_stats loam_frame_stats(const struct loam_frame *frame);

uint32_t loam_frame_shift(const struct loam_frame *frame);

/*
 * Recount everything from the bitmaps up and hold it against the counters and lists. LOAM_ERROR_CORRUPT: they disagree,
 * and diag says where first. O(metadata), with the lock held: for tests and for suspicion.
 */
LOAM_MUST_USE enum loam_error loam_frame_validate(const struct loam_frame *frame, struct loam_diag *diag);

#endif
