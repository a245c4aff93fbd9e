// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * The page-frame allocator: sections of frames, two zones, blocks of exact size under constraints.
 *
 * It hands out frame numbers and never touches the frames. Its metadata lies out of band in memory that the caller
 * supplies (ask for the size, then init), holds indexes and offsets but no pointers, and stays the caller's: the
 * allocator does not call malloc, and the system only to wait for its lock (allocator/host/prim.h: futex(2), which a guest
 * brings in its own way). So it can run inside a guest, in shared memory or under a model checker.
 *
 * PFNs are absolute, so an alignment of frames is an alignment of guest-physical addresses.
 *
 * Threads: every call may come from any thread at any time, but loam_frame_init wants the allocator to itself. The
 * calls hold one internal lock and wait, asleep, for nothing but its holder, and for a cache's owner to leave a call under
 * way: a thread that wants to take no lock has a cache, loam/frame_cache.h.
 *
 * Teardown: destroy the caches (any thread, once their owners use them no more), remove the sections or leave them,
 * then free the metadata. Frames are numbers: whether a block's memory is mapped, and where, is for loam/gpa_map.h to
 * say, and a block that is freed may be handed to another at once.
 *
 * NULL where an object or an output is wanted is LOAM_ERROR_INVALID; what cannot fail answers 0, false or nothing.
 * Misuse (double free, free inside a block, wrong count, foreign frame, free of what lies free in a cache) is always
 * detected and refused with an error, the state unchanged; loam_frame_check says in a line what was found. Metadata that
 * was damaged is found by loam_frame_validate; the other calls trust it. After a thread has died in a call, perhaps one of
 * another process that shares the allocator, every call that would change something answers LOAM_ERROR_CORRUPT until
 * loam_frame_validate has found everything in order.
 */
#ifndef LOAM_FRAME_H
#define LOAM_FRAME_H

#include "loam/error.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOAM_FRAME_ORDER_MAX      20        /**< the largest block: 2^20 frames, 4 GiB of 4 KiB frames */
#define LOAM_FRAME_COUNT_MAX      1048576ul /**< frames: 2^LOAM_FRAME_ORDER_MAX */
#define LOAM_FRAME_ALIGN_MAX      1048576ul /**< frames */
#define LOAM_FRAME_CHUNK_FRAMES   512       /**< what one 2 MiB hugepage backs */
#define LOAM_FRAME_SECTION_MAX    65536     /**< sections at once */
#define LOAM_FRAME_CACHE_MAX      1024      /**< caches at once */
#define LOAM_FRAME_METADATA_ALIGN 64        /**< of every piece of metadata memory, in bytes */

/** Opaque; lies at the start of the metadata memory given to loam_frame_init. */
struct loam_frame;

/** What a limit can name: reserve, watermarks and pressure are kept for each. */
enum loam_frame_zone {
    LOAM_FRAME_ZONE_DMA32,  /**< frames below 4 GiB */
    LOAM_FRAME_ZONE_NORMAL, /**< frames from 4 GiB up */
    LOAM_FRAME_ZONE_COUNT
};

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/** When a zone is short of free frames, those in caches not counted: from free < low on, until free >= high. */
struct loam_frame_watermarks {
    uint64_t low_frames;  /**< 0: never */
    uint64_t high_frames; /**< at least low_frames; 0 if that is */
};

/** Zero members mean what their comment says. */
struct loam_frame_config {
    uint32_t frame_shift;          /**< 12, 14 or 16; 0: 12 */
    uint32_t section_capacity;     /**< sections there can ever be at once, 1 to LOAM_FRAME_SECTION_MAX; 0: 16 */
    uint32_t cache_capacity;       /**< caches there can ever be at once, 1 to LOAM_FRAME_CACHE_MAX; 0: 4 */
    uint64_t dma32_reserve_frames; /**< free frames below 4 GiB that requests without a limit must leave; 0: none */
    struct loam_frame_watermarks watermarks[LOAM_FRAME_ZONE_COUNT];
};

/** Bytes of metadata memory that loam_frame_init wants, sections not counted; 0 if config is invalid. NULL: all zero. */
size_t loam_frame_bytes(const struct loam_frame_config *config);

/**
 * Make an allocator without sections in memory, which is aligned to LOAM_FRAME_METADATA_ALIGN and stays the caller's,
 * at a fixed address, until no call uses the allocator any more; there is nothing else to destroy.
 * *frame is memory itself, or NULL on failure.
 * LOAM_ERROR_INVALID: config or alignment; bytes below loam_frame_bytes(config).
 */
LOAM_MUST_USE enum loam_error loam_frame_init(void *memory, size_t bytes, const struct loam_frame_config *config,
                                              struct loam_frame **frame);

/**
 * Use an allocator that another process made, or this one at another address: memory is its metadata, mapped at any
 * aligned address, with all sections' metadata at the same distance from it as where they were added. *frame is memory
 * itself, or NULL on failure. LOAM_ERROR_INVALID: alignment; fewer bytes than the allocator has; another version of the
 * layout. LOAM_ERROR_UNINITIALISED: there is no allocator. LOAM_ERROR_CORRUPT: its constants are damaged. diag says
 * what was found.
 */
LOAM_MUST_USE enum loam_error loam_frame_attach(void *memory, size_t bytes, struct loam_frame **frame,
                                                struct loam_diag *diag);

/* --- Sections -------------------------------------------------------------------------------------------------- */

/** Who gets frames of a section. Frees are taken from all, whatever it is. */
enum loam_frame_use {
    LOAM_FRAME_USE_OPEN,   /**< every request */
    LOAM_FRAME_USE_APART,  /**< one that names it: LOAM_FRAME_IN_SECTION, LOAM_FRAME_AT, or a block there that grows */
    LOAM_FRAME_USE_CLOSED, /**< none: LOAM_ERROR_NOT_PERMITTED for those that name it */
    LOAM_FRAME_USE_COUNT
};

/** A section as a caller sees it. */
struct loam_frame_section {
    uint32_t id;             /**< stays with the section for its life; ids of removed sections are used again */
    loam_pfn start;          /**< first managed frame */
    uint64_t managed_frames; /**< frames that can be handed out */
    uint64_t total_frames;   /**< and with them those that metadata in the section's prefix takes */
    uint64_t free_frames;    /**< those in caches not counted */
    uint64_t metadata_bytes;
    enum loam_frame_use use;
};

/**
 * Bytes of metadata for a section of count_frames frames from start: at most 0.32 bytes a frame for large sections.
 * 0 if the range is empty or does not lie below LOAM_GPA_END.
 */
size_t loam_frame_section_bytes(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames);

/**
 * Put the frames [start, start + count_frames) under the allocator, all free. metadata is out of band: never in memory
 * that a guest can write. It stays the caller's, at its place relative to the allocator, until the section is removed.
 * Any start and count will do; neither is rounded. section (NULL: not wanted) receives the section's id.
 * LOAM_ERROR_INVALID: empty range, beyond LOAM_GPA_END, metadata too small or misaligned. LOAM_ERROR_OVERLAP: a frame
 * is managed already. LOAM_ERROR_EXHAUSTED: section_capacity sections are there.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_add(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                                     void *metadata, size_t metadata_bytes, uint32_t *section);

/** The same, and the section is closed: nobody gets a frame of it before loam_frame_section_set_use says so. */
LOAM_MUST_USE enum loam_error loam_frame_section_add_closed(struct loam_frame *frame, loam_pfn start,
                                                            uint64_t count_frames, void *metadata,
                                                            size_t metadata_bytes, uint32_t *section);

/**
 * loam_frame_section_add, with the metadata in the head of the region itself: for host regions that no guest can write, only.
 * region points to the memory of the frames [start, start + count_frames); the frames that the metadata fills are
 * never handed out, and count as total but not as managed.
 * LOAM_ERROR_INVALID also: the region is too small to hold its metadata and one frame.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_add_in_prefix(struct loam_frame *frame, void *region, loam_pfn start,
                                                               uint64_t count_frames, uint32_t *section);

/**
 * Take a wholly free section away, what lies free in caches included; its metadata is the caller's again.
 * LOAM_ERROR_NOT_FOUND: no such section. LOAM_ERROR_BUSY: blocks in it are allocated; blocker (NULL: not wanted)
 * receives the first frame of the lowest of them.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_remove(struct loam_frame *frame, uint32_t section, loam_pfn *blocker);

/**
 * Say who gets frames of a section from now on; blocks that are allocated stay. What caches have borrowed of it is called
 * back before it is set apart or closed, so they hand out nothing of it afterwards. O(chunks of the section).
 * LOAM_ERROR_INVALID: use is none. LOAM_ERROR_NOT_FOUND: no such section. LOAM_ERROR_BUSY: a cache's owner cannot be
 * stopped; the section is used as before.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_set_use(struct loam_frame *frame, uint32_t section,
                                                         enum loam_frame_use use);

/** Sections there are now. */
uint32_t loam_frame_section_count(const struct loam_frame *frame);

/** The index-th section in ascending order of frames. LOAM_ERROR_NOT_FOUND: index >= loam_frame_section_count. */
LOAM_MUST_USE enum loam_error loam_frame_section_at(const struct loam_frame *frame, uint32_t index,
                                                    struct loam_frame_section *section);

/** The section that manages pfn. O(log sections). LOAM_ERROR_NOT_FOUND: none does; a prefix of metadata is not managed.
 */
LOAM_MUST_USE enum loam_error loam_frame_section_find(const struct loam_frame *frame, loam_pfn pfn,
                                                      struct loam_frame_section *section);

/* --- Allocation ------------------------------------------------------------------------------------------------ */

enum {
    LOAM_FRAME_AT = 1u << 0,         /**< exactly at request.at, wherever that is: also inside the DMA32 reserve */
    LOAM_FRAME_IN_SECTION = 1u << 1, /**< only in request.section */
    LOAM_FRAME_BACKED = 1u << 2,     /**< only where there is backing: see Reclaim */
    LOAM_FRAME_RELEASED = 1u << 3,   /**< only where there is none; excludes LOAM_FRAME_BACKED */
};

/** What a block says of itself. */
enum {
    LOAM_FRAME_BLOCK_RELEASED = 1u << 0, /**< a chunk that it touches has no backing: populate it before use */
    LOAM_FRAME_BLOCK_PRESSURE = 1u << 1, /**< its zone is between its watermarks: reclaim */
};

/** What is wanted. Everything but count_frames may stay zero; a member that would have no effect is refused. */
struct loam_frame_request {
    uint64_t count_frames;    /**< exactly so many contiguous frames: 1 to LOAM_FRAME_COUNT_MAX */
    uint64_t align_frames;    /**< the block starts at a multiple: a power of two to LOAM_FRAME_ALIGN_MAX; 0: 1 */
    uint64_t boundary_frames; /**< the block crosses no multiple: a power of two, at least count_frames; 0: none */
    loam_pfn limit;           /**< the block ends at or below this frame; 0: no limit */
    uint32_t flags;           /**< LOAM_FRAME_... */
    uint32_t section;         /**< with LOAM_FRAME_IN_SECTION, else 0 */
    loam_pfn at;              /**< with LOAM_FRAME_AT, else 0 */
};

/** What was got. */
struct loam_frame_block {
    loam_pfn start;
    uint64_t count_frames;
    uint32_t section;
    uint32_t flags; /**< LOAM_FRAME_BLOCK_... */
};

/**
 * Allocate one block. It never spans two sections, and alignment costs no frames. The highest zone that the limit
 * allows serves first. A request whose limit is 4 GiB or less, or that carries LOAM_FRAME_AT, may enter the DMA32
 * reserve; any other must leave it untouched. Chunks with backing serve before released ones. A request that some free
 * block can serve is served: what lies free in caches is fetched back when nothing else will do.
 * LOAM_ERROR_INVALID: a member is out of its range, or members contradict each other (at misaligned, at beyond the
 * limit, at crossing the boundary, at in another section). LOAM_ERROR_NOT_FOUND: there is no such section, or the
 * frames from at on are not all managed by one. LOAM_ERROR_BUSY: at is taken in part or in whole. LOAM_ERROR_EXHAUSTED:
 * no free block fits. LOAM_ERROR_NOT_PERMITTED: the section that at or section names is closed.
 */
LOAM_MUST_USE enum loam_error loam_frame_alloc(struct loam_frame *frame, const struct loam_frame_request *request,
                                               struct loam_frame_block *block);

/**
 * 2^order frames at their natural alignment, order 0 to LOAM_FRAME_ORDER_MAX, with backing: it could not say of a
 * released chunk. Errors as loam_frame_alloc.
 */
LOAM_MUST_USE enum loam_error loam_frame_alloc_order(struct loam_frame *frame, uint32_t order, loam_pfn *start);

/** The same, ending at or below limit (LOAM_DMA32_END_BYTES >> frame shift for the DMA32 zone; 0: no limit). */
LOAM_MUST_USE enum loam_error loam_frame_alloc_order_below(struct loam_frame *frame, uint32_t order, loam_pfn limit,
                                                           loam_pfn *start);

/**
 * Free the block that was allocated at start with count_frames frames; its tag goes with it.
 * LOAM_ERROR_NOT_FOUND: start is not managed. LOAM_ERROR_INVALID: start is free already, lies inside a block, or its
 * block has another count; loam_frame_describe says which. LOAM_ERROR_BUSY: it lies in a cache whose owner cannot be
 * stopped (see below). The state is unchanged then.
 */
LOAM_MUST_USE enum loam_error loam_frame_free(struct loam_frame *frame, loam_pfn start, uint64_t count_frames);

/**
 * count blocks of 2^order frames, ending at or below limit (0: no limit), into starts: all or none.
 * Errors as loam_frame_alloc_order_below.
 */
LOAM_MUST_USE enum loam_error loam_frame_alloc_batch(struct loam_frame *frame, uint32_t order, loam_pfn limit,
                                                     loam_pfn *starts, size_t count);

/**
 * Free count blocks of 2^order frames each, in their order. On an error starts[*done_count] is at fault: those before
 * it are freed, it and the rest are as they were. Errors as loam_frame_free.
 */
LOAM_MUST_USE enum loam_error loam_frame_free_batch(struct loam_frame *frame, uint32_t order, const loam_pfn *starts,
                                                    size_t count, size_t *done_count);

/**
 * Make the block at start longer where it stands; its tag stays. Only a block that then ends at or below 4 GiB may
 * enter the DMA32 reserve. *flags (NULL: not wanted) receives LOAM_FRAME_BLOCK_... of the whole.
 * LOAM_ERROR_NOT_FOUND: start is not managed, or the section ends before new_count_frames do. LOAM_ERROR_INVALID: as
 * loam_frame_free; new_count_frames is not above count_frames or beyond LOAM_FRAME_COUNT_MAX. LOAM_ERROR_BUSY: the
 * frames behind it are taken. LOAM_ERROR_EXHAUSTED: they are the reserve's. LOAM_ERROR_NOT_PERMITTED: the section is
 * closed.
 */
LOAM_MUST_USE enum loam_error loam_frame_grow(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                              uint64_t new_count_frames, uint32_t *flags);

/**
 * Free the tail of the block at start, all but new_count_frames; its tag stays.
 * LOAM_ERROR_NOT_FOUND, LOAM_ERROR_INVALID: as loam_frame_free; new_count_frames is 0 or not below count_frames.
 */
LOAM_MUST_USE enum loam_error loam_frame_trim(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                              uint64_t new_count_frames);

/**
 * Make two blocks of one: [start, start + first_frames) and the rest; both bear its tag.
 * LOAM_ERROR_NOT_FOUND, LOAM_ERROR_INVALID: as loam_frame_free; first_frames is 0 or not below count_frames.
 */
LOAM_MUST_USE enum loam_error loam_frame_split(struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                               uint64_t first_frames);

/* --- Reclaim --------------------------------------------------------------------------------------------------- */

/*
 * A chunk is backed, or released: without host memory behind it. Released is a property that a chunk keeps while it is
 * allocated from, until loam_frame_set_backed. To reclaim: allocate chunks with LOAM_FRAME_BACKED, discard their
 * backing, free them with loam_frame_free_released. To give back: allocate with LOAM_FRAME_RELEASED, populate,
 * loam_frame_set_backed, free.
 */

/** As loam_frame_free, and its chunks are released. LOAM_ERROR_INVALID also: the block is not made of whole chunks. */
LOAM_MUST_USE enum loam_error loam_frame_free_released(struct loam_frame *frame, loam_pfn start, uint64_t count_frames);

/**
 * Every chunk that the allocated block touches has backing now. Where blocks of several owners share a chunk, each is
 * told that it is released, and the first to populate says so. Errors as loam_frame_free.
 */
LOAM_MUST_USE enum loam_error loam_frame_set_backed(struct loam_frame *frame, loam_pfn start, uint64_t count_frames);

/** Whether the zone is short of free frames. Takes no lock. */
bool loam_frame_pressure(const struct loam_frame *frame, enum loam_frame_zone zone);

/* --- What stands where ----------------------------------------------------------------------------------------- */

/** Whether somebody has a frame. */
enum loam_frame_state {
    LOAM_FRAME_UNMANAGED, /**< in no section, or taken by metadata in a prefix */
    LOAM_FRAME_FREE,
    LOAM_FRAME_ALLOCATED,
};

/** What an allocated block is used for: one mark a block, kept without a byte a frame. */
enum loam_frame_tag {
    LOAM_FRAME_TAG_NONE,
    LOAM_FRAME_TAG_SLAB, /**< divided into objects by the slab allocator */
};

/** What is known of one frame; the rest of it is 0 where a member does not apply. */
struct loam_frame_info {
    enum loam_frame_state state;
    enum loam_frame_tag tag;       /**< LOAM_FRAME_ALLOCATED only */
    uint32_t section;              /**< not with LOAM_FRAME_UNMANAGED */
    bool cached;                   /**< LOAM_FRAME_FREE only: it lies in a cache */
    bool released;                 /**< its chunk has no backing */
    struct loam_frame_block block; /**< LOAM_FRAME_ALLOCATED: the whole block that holds the frame */
};

/**
 * What stands at pfn. Never fails: frames that are not managed have a state of their own. In a cache whose owner cannot
 * be stopped, it is what is seen in passing.
 */
struct loam_frame_info loam_frame_query(const struct loam_frame *frame, loam_pfn pfn);

/** Tag the allocated block that starts at start. LOAM_ERROR_INVALID: no allocated block starts there, or bad tag. */
LOAM_MUST_USE enum loam_error loam_frame_tag_set(struct loam_frame *frame, loam_pfn start, enum loam_frame_tag tag);

/**
 * Write into text a line (no newline; cut at bytes) on what stands at pfn, such as
 * "frame 0x1234 is inside the allocated block [0x1230, 0x1238) of section 0". Returns the line's whole length.
 */
size_t loam_frame_describe(const struct loam_frame *frame, loam_pfn pfn, char *text, size_t bytes);

/**
 * Whether exactly the allocated block [start, start + count_frames) stands there, so that it could be freed; diag says
 * what is wrong otherwise, such as "block [0x1234, 0x1238): frame 0x1234 is free in section 0". Errors as
 * loam_frame_free.
 */
LOAM_MUST_USE enum loam_error loam_frame_check(const struct loam_frame *frame, loam_pfn start, uint64_t count_frames,
                                               struct loam_diag *diag);

/** A range of free frames. */
struct loam_frame_range {
    loam_pfn start;
    uint64_t count_frames;
};

/**
 * The lowest maximal range of free frames within one section that ends above from; ranges do not join across sections.
 * A range that holds from starts at from. What lies free in caches counts as free. LOAM_ERROR_NOT_FOUND: there is none.
 * Between two calls others may allocate, and while the call looks for a start: it never holds the lock for long.
 */
LOAM_MUST_USE enum loam_error loam_frame_next_free(const struct loam_frame *frame, loam_pfn from,
                                                   struct loam_frame_range *range);

/**
 * The lowest range of wholly free chunks that ends above from, all of them backed or all released; a range that holds
 * from starts at the chunk that does. What caches hold is left out. Otherwise as loam_frame_next_free.
 */
LOAM_MUST_USE enum loam_error loam_frame_next_free_chunks(const struct loam_frame *frame, loam_pfn from,
                                                          struct loam_frame_range *range, bool *released);

/**
 * The largest range of free frames that ends at or below limit (0: no limit) within one section; of equals the lowest.
 * O(chunks), by loam_frame_next_free. LOAM_ERROR_NOT_FOUND: no frame is free there.
 */
LOAM_MUST_USE enum loam_error loam_frame_largest_free(const struct loam_frame *frame, loam_pfn limit,
                                                      struct loam_frame_range *range);

/** 1 - usable_frames[n] / free_frames is the part of free memory that blocks of order n cannot have. */
struct loam_frame_fragmentation {
    uint64_t free_frames;
    uint64_t usable_frames[LOAM_FRAME_ORDER_MAX + 1]; /**< free frames in naturally aligned free blocks of the order */
};

/**
 * Of all free memory, caches included. O(chunks), a few thousand at a time with the lock held: others go on in between.
 */
struct loam_frame_fragmentation loam_frame_get_fragmentation(const struct loam_frame *frame);

/** Figures of the whole allocator; frames unless they say otherwise. */
struct loam_frame_stats {
    uint32_t section_count;
    uint32_t cache_count;
    uint64_t total_frames;
    uint64_t managed_frames;
    uint64_t free_frames;                                /**< those in caches included */
    uint64_t allocated_frames;                           /**< managed_frames - free_frames */
    uint64_t free_frames_in_zone[LOAM_FRAME_ZONE_COUNT]; /**< of open sections; those in caches included */
    uint64_t withheld_frames;                            /**< free frames of sections that are apart or closed */
    uint64_t cached_frames;                              /**< free frames in caches */
    uint64_t dma32_reserve_frames;
    uint64_t free_chunks;     /**< wholly free aligned chunks, those in caches not counted */
    uint64_t released_chunks; /**< those of them that are released */
    uint64_t metadata_bytes;  /**< all of it, the allocator's own included */
};

/** The figures of one moment, but that owners of caches go on meanwhile. O(sections + caches). */
struct loam_frame_stats loam_frame_get_stats(const struct loam_frame *frame);

/** log2 of a frame's bytes, as configured. */
uint32_t loam_frame_shift(const struct loam_frame *frame);

/* --- fork(2) ---------------------------------------------------------------------------------------------------- */

/**
 * For who forks with an allocator in private memory while other threads use it, so that the child's copy is whole:
 * freeze before fork(2), thaw after it, in the parent and in the child. In between nobody is in a call, but an owner who
 * cannot be stopped. loam/memory.h does it for its own. Not for an allocator in shared memory, of which there is no copy.
 * @{
 */
void loam_frame_freeze(struct loam_frame *frame);
void loam_frame_thaw(struct loam_frame *frame);
/** @} */

/**
 * Recount everything from the bitmaps up and hold it against the counters and lists. LOAM_ERROR_CORRUPT: they disagree,
 * and diag says where first. LOAM_ERROR_BUSY: the owner of a cache cannot be stopped; LOAM_ERROR_UNINITIALISED: and the
 * process has set no barrier. O(metadata), with the lock held and all caches stopped: for tests and for suspicion.
 */
LOAM_MUST_USE enum loam_error loam_frame_validate(const struct loam_frame *frame, struct loam_diag *diag);

#ifdef __cplusplus
}
#endif

#endif
