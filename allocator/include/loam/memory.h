// SPDX-License-Identifier: Apache-2.0
/**
 * @file
 * Guest memory as a whole: the facade over plan, backing, map, frame allocator, ledger and slots.
 *
 *     loam_plan_make(&request, &plan, &diag)        what will be taken, what falls short
 *     loam_memory_create(&plan, &memory, &diag)     plan -> back -> map -> carve
 *     loam_dma_alloc(loam_memory_dma(memory), ...)  buffers with an owner, GPA and HVA together
 *     loam_memory_plug, loam_memory_unplug          more of it, and less, while the guest runs
 *     loam_memory_destroy(memory)                   everything back, to the last page
 *
 * Threads: create and destroy want the object to themselves; everything between may come from any thread. Destroy may
 * be called by another thread than create. Nothing may be called from a signal handler.
 *
 * fork(2): may be called at any time, by a thread that is in no call of the library; the library holds its locks and stops
 * the owners of caches meanwhile (pthread_atfork), so the child gets whole copies of map, allocator and ledger, all its
 * own, in which other threads' buffers, views and caches are as they were. The guest's memory is not copied with them:
 * shared memory is one for both, private memory is copied as either side writes, and with keep_from_children the child
 * has none. So a child may look, and may destroy, which takes nothing from its parent; it allocates, in shared memory, what
 * its parent may allocate too. A cache in the child is nobody's: the child may use it as its own, or destroy it. Neither
 * vfork(2) nor a raw clone(2) is told to the library: such a child may only exec or exit. A block that was on its way in or out
 * stays so in the child, until destroy.
 *
 * What the host writes at a GPA that it has not carved is nobody's: loam_dma_alloc may hand it out, zeroed. A kernel, its
 * boot parameters, an initrd are carved where they are wanted (LOAM_DMA_AT, loam_dma_alloc_ranges), then written.
 *
 * HVAs, from a buffer, a view or a backing, are good until loam_memory_destroy, or loam_memory_unplug of the block that
 * they lie in, and for no longer; so are the parts that the calls below hand out. The guest's contents change under them while a vCPU runs: see loam_gpa_view_read.
 *
 * Teardown: stop the vCPUs and devices; delete the hypervisor's slots, or close its VM; end the caches that you made over
 * the frame allocator (loam_frame_cache_destroy, loam_slab_destroy); release the views; loam_memory_destroy. What is still
 * carved then is given back with the rest: walk it with loam_dma_next before, to name it.
 *
 * NULL where an object or an output is wanted is LOAM_ERROR_INVALID; a part of NULL is NULL.
 */
#ifndef LOAM_MEMORY_H
#define LOAM_MEMORY_H

#include "loam/backing.h"
#include "loam/dma.h"
#include "loam/error.h"
#include "loam/frame.h"
#include "loam/frame_cache.h"
#include "loam/gpa_map.h"
#include "loam/plan.h"
#include "loam/slots.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Opaque. */
struct loam_memory;

/**
 * Carry out a plan: every part backed and mapped, its frames under the allocator. The legacy window and the frame at
 * GPA 0 are carved for the owners "legacy" and "null", so that nothing else gets them. *memory is NULL on failure, and
 * nothing is left. LOAM_ERROR_EXHAUSTED: the plan falls short, or the host has changed since it was made.
 * LOAM_ERROR_INVALID: plan is not one of loam_plan_make. LOAM_ERROR_CANCELLED: the request's cancel said so.
 * LOAM_ERROR_SYSTEM: a call failed.
 */
LOAM_MUST_USE enum loam_error loam_memory_create(const struct loam_plan *plan, struct loam_memory **memory,
                                                 struct loam_diag *diag);

/** Give everything back. Pointers into guest memory are dangling afterwards; a hypervisor's slots must be gone. NULL is
 * allowed. */
void loam_memory_destroy(struct loam_memory *memory);

/**
 * Take [start, start + bytes) of the RAM, of the plan or plugged, away from the guest for good: its frames from the allocator, then its rows from the
 * map. Nothing of it may be in use. The host memory stays the backing's until destroy, and is not read or written.
 * Slots have to be derived from the map again: until then the guest goes on reaching it. So does whoever holds an older
 * view. LOAM_ERROR_INVALID: the range is empty or no multiple of 4 KiB. LOAM_ERROR_NOT_FOUND: not all of it is RAM of
 * one part of the plan or of one plugged block, or it was taken away before. LOAM_ERROR_NOT_PERMITTED: its section is closed. LOAM_ERROR_BUSY: a buffer lies in it, which diag names with its
 * owner, or frames allocated past the ledger; or readers hold every other table of the map. LOAM_ERROR_EXHAUSTED: the
 * map has no room for more rows.
 */
LOAM_MUST_USE enum loam_error loam_memory_remove(struct loam_memory *memory, loam_gpa start, uint64_t bytes,
                                                 struct loam_diag *diag);

/** Show the hypervisor what the map says now: loam_slots_update, with a view of this moment, and its errors. */
LOAM_MUST_USE enum loam_error loam_memory_update_slots(struct loam_memory *memory, struct loam_slots *slots,
                                                       struct loam_diag *diag);

/**
 * The E820 map of this moment in rows of LOAM_E820_ROW_BYTES, as Linux's boot_params takes it: loam_gpa_view_e820 and
 * loam_e820_write. *count: how many there are, also when room_bytes is too little for them (LOAM_ERROR_EXHAUSTED, and
 * nothing is written); 0 on any other failure. LOAM_ERROR_SYSTEM: no heap.
 */
LOAM_MUST_USE enum loam_error loam_memory_e820(struct loam_memory *memory, void *rows, uint64_t room_bytes,
                                               uint32_t *count);

/** What is plugged. */
struct loam_plug_request {
    /**
     * Its memory; all as loam_backing_create has it. gpa: where it goes, at 4 GiB or above; 0: behind all that is there,
     * at the next multiple of 128 MiB, or of 1 GiB for pages of that size. name NULL: "loam-plugged".
     */
    struct loam_backing_request backing;
    bool open; /**< its frames serve every request; else only one that names it: LOAM_DMA_AT, LOAM_DMA_IN */
    struct loam_slots *slots; /**< shown the map with it, and nobody else is at them; NULL: the caller does it later */
};

/**
 * Give the guest more memory while it runs: backing, metadata of its frames, a row of the map and the hypervisor's slot,
 * all or nothing; the slots get whatever else they lack, too. It is prepared first; the slots' set is called last, while every other change of the map waits, so it
 * must neither make one nor validate, nor fork. How the guest learns of it is its devices' business. *info (NULL: not wanted) is what was got, with its
 * GPA; zero on failure.
 * LOAM_ERROR_INVALID: as loam_backing_create; gpa lies below 4 GiB. LOAM_ERROR_OVERLAP: something is there already.
 * LOAM_ERROR_EXHAUSTED: also, as many blocks, rows of the map or slots as there can be. LOAM_ERROR_BUSY: readers hold
 * every other table of the map. LOAM_ERROR_CANCELLED, LOAM_ERROR_SYSTEM: as loam_backing_create, or the hypervisor
 * refused its slot. LOAM_ERROR_CORRUPT: as loam_slots_commit.
 */
LOAM_MUST_USE enum loam_error loam_memory_plug(struct loam_memory *memory, const struct loam_plug_request *request,
                                               struct loam_backing_info *info, struct loam_diag *diag);

/**
 * The reverse, of the block that was plugged at start: its section is closed, the hypervisor's slot and the rows of the
 * map go, and its host memory is given back once nobody holds a view from before. HVAs of it are dangling then, so
 * whoever translates while others unplug holds the view as long as he uses what it said. The guest must have given it up:
 * what it does there later is an access to no memory.
 * LOAM_ERROR_NOT_FOUND: no block starts there. LOAM_ERROR_NOT_PERMITTED: it is a part of the plan: loam_memory_remove.
 * LOAM_ERROR_BUSY: a buffer lies in it, which diag names with its owner, or frames allocated past the ledger, or part of it
 * was taken away by loam_memory_remove, or another thread is at it; or a cache's owner cannot be stopped; or readers hold every other table. LOAM_ERROR_SYSTEM,
 * LOAM_ERROR_CORRUPT: as loam_slots_update. All is as it was then; but for LOAM_ERROR_BUSY after four seconds, where a
 * view from before is still held: the guest has the memory no more, and diag says so; call again once it is released,
 * to give it back to the host. The slots are brought up to date then too.
 * To let a block drain first, loam_frame_section_set_use closes the section of its first frame.
 */
LOAM_MUST_USE enum loam_error loam_memory_unplug(struct loam_memory *memory, loam_gpa start, struct loam_slots *slots,
                                                 struct loam_diag *diag);

/**
 * Give free memory back to the host while the guest runs: up to bytes of it, in whole chunks of 2 MiB (whole pages where
 * these are larger), the highest memory first, and of that the largest free blocks; of adopted and of
 * locked memory nothing. It stays the allocator's, and is marked released (loam/frame.h,
 * Reclaim): other free memory serves before it, and a buffer that is carved from it is populated again before its
 * caller sees it. For a guest that uses no memory that the allocator has not handed out: to any
 * other, what it keeps in free frames would be lost. *given_bytes: how much was given back, also on an error; less than
 * bytes where no more is free. LOAM_ERROR_INVALID: all memory is locked. LOAM_ERROR_SYSTEM: the host refuses.
 */
LOAM_MUST_USE enum loam_error loam_memory_reclaim(struct loam_memory *memory, uint64_t bytes, uint64_t *given_bytes,
                                                  struct loam_diag *diag);

/**
 * The parts; they live as long as memory does, and are not the caller's to destroy. Never NULL, but of NULL.
 * @{
 */
struct loam_frame *loam_memory_frame(struct loam_memory *memory);
struct loam_gpa_map *loam_memory_map(struct loam_memory *memory);
struct loam_dma *loam_memory_dma(struct loam_memory *memory);
/** @} */

/**
 * The calling thread's cache over the memory's frames, for loam_frame_cache_alloc and struct loam_dma_request: made when
 * the thread first asks, the same whenever it asks again, and given back when the thread ends or the memory is destroyed.
 * It is not the caller's to destroy, nor another thread's to use. NULL: as many threads have one as the request has room for, or the system has no more
 * room for what a thread leaves behind: what takes a cache takes NULL for none. In a child of fork(2) the thread that
 * forked has its own still. Asking again waits for nobody, and makes no system call.
 */
struct loam_frame_cache *loam_memory_thread_cache(struct loam_memory *memory);

/** The plan that it was made from. */
const struct loam_plan *loam_memory_plan(const struct loam_memory *memory);

/**
 * Backings, by their number in the map less 1: one a part of the plan, in its order, and behind them those that were
 * plugged, wherever one is free. LOAM_ERROR_NOT_FOUND: there is none of that index.
 */
LOAM_MUST_USE enum loam_error loam_memory_backing(struct loam_memory *memory, uint32_t index,
                                                  struct loam_backing_info *info);

/**
 * All of the guest's memory as others take it, with the descriptors of the backings (-1 where they are private): see
 * loam_gpa_view_shares, whose answers they are for the table of this moment; backing_offset is that in the file, also of
 * one that was adopted. LOAM_ERROR_SYSTEM also: no heap.
 */
LOAM_MUST_USE enum loam_error loam_memory_shares(struct loam_memory *memory, struct loam_share *shares,
                                                 uint32_t capacity, uint32_t *count);

/** Hold map, allocator, ledger and backings against each other. LOAM_ERROR_CORRUPT: diag says what disagrees. */
LOAM_MUST_USE enum loam_error loam_memory_validate(struct loam_memory *memory, struct loam_diag *diag);

#ifdef __cplusplus
}
#endif

#endif
