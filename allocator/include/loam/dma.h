// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Carved guest memory: buffers under constraints, each with an owner, all in one ledger.
 *
 * Whatever in a guest's RAM has a purpose before the guest runs is carved here: virtqueue rings, a kernel image, boot
 * parameters, page tables. A buffer is whole frames, contiguous in guest-physical and in host memory, and comes with
 * its GPA and its HVA together. Release refuses what is pinned; what is still there at the end is named with its owner.
 *
 * The ledger itself is on the heap. Threads: every call may come from any thread at any time, but create and destroy
 * want the ledger to themselves. A buffer belongs to whoever carved it: two threads that release the same id race, and
 * one of them is told LOAM_ERROR_NOT_FOUND.
 *
 * A buffer's HVA and GPA are good until it is released, or its backing is unmapped: loam_memory_destroy does both. What
 * a device or a guest may still write is pinned, and unpinned when it cannot any more; release does not wait.
 *
 * Teardown: whatever uses buffers stops (vCPUs, devices), then loam_dma_destroy, then the map and the frame allocator
 * that it was made over, then the memory behind them. A ledger that belongs to a struct loam_memory is destroyed by
 * loam_memory_destroy alone.
 *
 * NULL where an object or an output is wanted is LOAM_ERROR_INVALID.
 */
#ifndef LOAM_DMA_H
#define LOAM_DMA_H

#include "loam/error.h"
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "loam/gpa_map.h"
#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LOAM_DMA_OWNER_MAX 63 /**< characters of an owner's name */

/** Opaque. */
struct loam_dma;

/* --- Lifecycle ------------------------------------------------------------------------------------------------- */

/**
 * Make a ledger over an allocator and the map that says where its frames are; both outlive it and stay the caller's.
 * *dma is NULL on failure. LOAM_ERROR_INVALID: an argument is NULL. LOAM_ERROR_SYSTEM: no memory.
 */
LOAM_MUST_USE enum loam_error loam_dma_create(struct loam_frame *frame, struct loam_gpa_map *map,
                                              struct loam_dma **dma);

/**
 * How memory comes behind frames that were released (loam/frame.h, Reclaim): populate gives all of [gpa, gpa + bytes) its
 * memory, or fails. It is called by the thread that carves, by several at once, with no lock held.
 */
struct loam_dma_supply {
    enum loam_error (*populate)(void *self, loam_gpa gpa, uint64_t bytes, struct loam_diag *diag);
    void *self;
};

/**
 * Carve from released frames too, and have them populated first. Without a supply, buffers are carved from frames that
 * have memory. loam_memory_create gives its ledger one. Before other threads have the ledger.
 */
void loam_dma_set_supply(struct loam_dma *dma, struct loam_dma_supply supply);

/**
 * Release every buffer, pinned ones too, and the ledger. NULL is allowed. What was reserved is RAM again, unless the map
 * refuses. Returns how many buffers were still there;
 * walk it with loam_dma_next before, if their owners are to be named.
 */
uint32_t loam_dma_destroy(struct loam_dma *dma);

/* --- Buffers --------------------------------------------------------------------------------------------------- */

enum {
    LOAM_DMA_AT = 1u << 0,      /**< exactly at request.at */
    LOAM_DMA_NO_ZERO = 1u << 1, /**< leave the contents as they are */
    LOAM_DMA_KEEP = 1u << 2,    /**< for as long as the ledger lives: loam_dma_release refuses it */
    /**
     * Until it is released, the map has it as LOAM_REGION_RESERVED, and the E820 map with it: ACPI tables, boot pages. The
     * map may refuse that, when carved and when released: LOAM_ERROR_BUSY, readers hold every other table;
     * LOAM_ERROR_EXHAUSTED, it has no room for more rows. Nothing has changed then.
     */
    LOAM_DMA_RESERVED = 1u << 3,
    LOAM_DMA_IN = 1u << 4 /**< anywhere in the section that has request.at: how plugged memory is asked for */
};

/** What is wanted. Everything but owner and bytes may stay zero; a member that would have no effect is refused. */
struct loam_dma_request {
    const char *owner;    /**< 1 to LOAM_DMA_OWNER_MAX printable ASCII characters; copied */
    uint64_t bytes;       /**< rounded up to whole frames; LOAM_FRAME_COUNT_MAX frames at most */
    uint64_t align_bytes; /**< a power of two up to 4 GiB; 0 or below a frame: a frame */
    uint64_t
        boundary_bytes; /**< the buffer crosses no multiple: a power of two, at least bytes; 0 or below a frame: none */
    loam_gpa
        limit;   /**< the buffer ends at or below; rounded down to whole frames; 0: no limit; LOAM_DMA32_END_BYTES for
                       32-bit devices */
    loam_gpa at; /**< with LOAM_DMA_AT or LOAM_DMA_IN, else 0: a multiple of the frame size */
    uint32_t flags;                 /**< LOAM_DMA_... */
    struct loam_frame_cache *cache; /**< the calling thread's: 2^n frames come from it, without a lock; NULL: none */
};

/** Carved memory, on both sides: where the guest and where the host sees it. */
struct loam_dma_buffer {
    uint64_t id; /**< never used twice in a ledger; 0 is none */
    loam_gpa gpa;
    void *hva;
    uint64_t bytes; /**< whole frames */
};

/**
 * Carve one buffer, zeroed unless the request says otherwise. *buffer is zero on failure.
 * LOAM_ERROR_INVALID: a member is out of its range or has no effect, or at contradicts another. LOAM_ERROR_BUSY: at is
 * taken. LOAM_ERROR_NOT_FOUND: at is no RAM, or the range from there on is not all RAM in one piece.
 * LOAM_ERROR_EXHAUSTED: no free range fits, or the host has no memory for it. LOAM_ERROR_NOT_PERMITTED: the frames are not
 * writable memory in one region of the map, or the section that at names is closed. LOAM_ERROR_SYSTEM: no heap memory for the ledger, and only then is there an errno (ENOMEM).
 * LOAM_ERROR_CORRUPT: the frame allocator's metadata is damaged. diag (NULL: not wanted) names the owner and the
 * constraint.
 */
LOAM_MUST_USE enum loam_error loam_dma_alloc(struct loam_dma *dma, const struct loam_dma_request *request,
                                             struct loam_dma_buffer *buffer, struct loam_diag *diag);

/** A range of the guest's memory, of any bytes. */
struct loam_dma_range {
    loam_gpa start;
    uint64_t bytes;
};

/** Ranges that are wanted as they are: the segments of an ELF file, the parts of an image that is restored. */
struct loam_dma_ranges {
    const char *owner; /**< as in struct loam_dma_request */
    const struct loam_dma_range *ranges;
    uint32_t range_count; /**< ranges in any order, which may share frames, and overlap */
    uint32_t flags;       /**< LOAM_DMA_NO_ZERO, LOAM_DMA_KEEP */
};

/**
 * Carve all frames that the ranges touch, or none: one buffer for each run of frames that follow each other, in ascending
 * order. *count receives how many there are, also when capacity is too small for them (LOAM_ERROR_EXHAUSTED, with *count
 * above capacity); on any other failure it is 0, and on every failure all capacity buffers are. A run has
 * LOAM_FRAME_COUNT_MAX frames at most, and lies in one region. LOAM_ERROR_INVALID also: a range is empty or no range of
 * GPAs. Else as loam_dma_alloc with LOAM_DMA_AT, of the first run that is refused, which diag names. O(range_count^2).
 */
LOAM_MUST_USE enum loam_error loam_dma_alloc_ranges(struct loam_dma *dma, const struct loam_dma_ranges *wanted,
                                                    struct loam_dma_buffer *buffers, uint32_t capacity, uint32_t *count,
                                                    struct loam_diag *diag);

/**
 * Give a buffer back. LOAM_ERROR_NOT_FOUND: no such buffer, or released already. LOAM_ERROR_BUSY: it is pinned.
 * LOAM_ERROR_NOT_PERMITTED: it was carved with LOAM_DMA_KEEP, as loam_memory_create carves "null" and "legacy".
 * LOAM_ERROR_CORRUPT: its frames were freed past the ledger; the entry stays, for loam_dma_validate to name.
 */
LOAM_MUST_USE enum loam_error loam_dma_release(struct loam_dma *dma, uint64_t id);

/**
 * The same, and the frames go to the calling thread's cache, or by it to the cache that they came from; NULL: none. Who
 * carves with a cache and releases into it waits for no other thread.
 */
LOAM_MUST_USE enum loam_error loam_dma_release_into(struct loam_dma *dma, uint64_t id, struct loam_frame_cache *cache);

/**
 * Pins nest. pin: LOAM_ERROR_NOT_FOUND; LOAM_ERROR_EXHAUSTED at UINT32_MAX. unpin: also LOAM_ERROR_INVALID: not pinned.
 * @{
 */
LOAM_MUST_USE enum loam_error loam_dma_pin(struct loam_dma *dma, uint64_t id);
LOAM_MUST_USE enum loam_error loam_dma_unpin(struct loam_dma *dma, uint64_t id);
/** @} */

/* --- Virtqueue rings ------------------------------------------------------------------------------------------- */

#define LOAM_VIRTQUEUE_SIZE_MAX 32768u /**< descriptors (virtio 1.2, section 2.7) */

/** Split virtqueue (virtio 1.2, section 2.7): three parts of one buffer. */
struct loam_virtqueue_layout {
    uint64_t descriptors_offset_bytes; /**< aligned to 16 */
    uint64_t available_offset_bytes;   /**< aligned to 2 */
    uint64_t used_offset_bytes;        /**< aligned to 4 */
    uint64_t bytes;                    /**< of all three */
};

/** Where the parts lie for a queue size: a power of two from 1 to LOAM_VIRTQUEUE_SIZE_MAX; else LOAM_ERROR_INVALID. */
LOAM_MUST_USE enum loam_error loam_virtqueue_get_layout(uint32_t queue_size, struct loam_virtqueue_layout *layout);

/** The rings of one queue, and where the guest and the host see each part. */
struct loam_virtqueue_rings {
    struct loam_dma_buffer buffer; /**< holds all three; release it by its id */
    uint32_t queue_size;
    loam_gpa descriptors;
    loam_gpa available;
    loam_gpa used;
    void *descriptors_hva;
    void *available_hva;
    void *used_hva;
};

/** Carve the rings of one queue, zeroed, ending at or below limit (0: none). Errors as the two calls above. */
LOAM_MUST_USE enum loam_error loam_dma_alloc_virtqueue(struct loam_dma *dma, const char *owner, uint32_t queue_size,
                                                       loam_gpa limit, struct loam_virtqueue_rings *rings,
                                                       struct loam_diag *diag);

/* --- The ledger ------------------------------------------------------------------------------------------------ */

/** A row of the ledger, as it was when asked for. */
struct loam_dma_entry {
    struct loam_dma_buffer buffer;
    uint32_t pin_count;
    bool kept;     /**< LOAM_DMA_KEEP */
    bool reserved; /**< LOAM_DMA_RESERVED */
    char owner[LOAM_DMA_OWNER_MAX + 1];
};

/** Entries in the ledger at this moment. */
uint32_t loam_dma_count(const struct loam_dma *dma);

/** Where the entry's buffer ends: to go on from there. */
static inline loam_gpa loam_dma_entry_end(const struct loam_dma_entry *entry)
{
    loam_gpa end = {entry->buffer.gpa.value + entry->buffer.bytes};

    return end;
}

/**
 * The lowest entry that ends above gpa: the one that holds it, else the first above. LOAM_ERROR_NOT_FOUND: none. The whole
 * ledger in ascending order, but for what others carve and release meanwhile:
 *     for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry))
 */
LOAM_MUST_USE enum loam_error loam_dma_next(const struct loam_dma *dma, loam_gpa gpa, struct loam_dma_entry *entry);

/** The entry that holds gpa. LOAM_ERROR_NOT_FOUND: none. */
LOAM_MUST_USE enum loam_error loam_dma_find(const struct loam_dma *dma, loam_gpa gpa, struct loam_dma_entry *entry);

/**
 * Hold the ledger against the allocator (each entry is exactly one allocated block) and the map (each lies whole where
 * its HVA says; the guest may meanwhile be denied to write it). LOAM_ERROR_CORRUPT: diag says what disagrees.
 */
LOAM_MUST_USE enum loam_error loam_dma_validate(const struct loam_dma *dma, struct loam_diag *diag);

/**
 * For who forks while other threads use the ledger: freeze before fork(2), thaw after it, in the parent and in the child.
 * First the ledger, then its map and its frame allocator; they thaw the other way round. loam/memory.h does it for its
 * own.
 * @{
 */
void loam_dma_freeze(struct loam_dma *dma);
void loam_dma_thaw(struct loam_dma *dma);
/** @} */

#ifdef __cplusplus
}
#endif

#endif
