// SPDX-License-Identifier: Apache-2.0
/*
 * What a struct loam_memory is made of: blocks, each with one backing, one section of frames and its rows in the map. The
 * parts of the plan are the first of them, in its order; those that are plugged later take the places behind them.
 *
 * Invariants, of each block that is THERE:
 *   backing holds [start, start + bytes), byte for byte
 *   section is the same range, frame for frame
 *   the rows of the map whose backing is 1 + the block's index lie in it: hva == backing's hva + backing_offset,
 *                                                                         start == the block's start + backing_offset
 *   no two blocks overlap, whatever their state
 * A block that is LEFT has no rows, its section is closed and free, and some view from before left_generation may be held.
 *
 * Private to memory*.c.
 */
#ifndef LOAM_MEMORY_BLOCK_H
#define LOAM_MEMORY_BLOCK_H

#include "allocator/lock.h"
#include "allocator/memory_fork.h"
#include "allocator/memory_thread.h"
#include "loam/memory.h"

/* COMING and GOING: one thread is at it, and changes what stands there without the lock. */
enum memory_block_state {
    MEMORY_BLOCK_NONE,
    MEMORY_BLOCK_COMING,
    MEMORY_BLOCK_THERE,
    MEMORY_BLOCK_GOING,
    MEMORY_BLOCK_LEFT, /* out of the map, and somebody holds a view from before, or a cache */
};

struct memory_block {
    enum memory_block_state state;
    bool has_section;
    uint32_t section;
    loam_gpa start;
    uint64_t bytes;
    struct loam_backing *backing;
    void *section_memory;
    uint64_t left_generation; /* of the map, from which on it has no rows of the block */
};

/* Creation goes from top to bottom, destruction from bottom to top; what is NULL was not reached. */
struct loam_memory {
    struct loam_plan plan;
    struct memory_block *blocks;
    uint32_t block_capacity;
    struct loam_lock lock; /* of state, start, bytes and backing of the blocks; nothing is waited for under it */
    void *frame_memory;
    struct loam_frame *frame;
    void *map_memory;
    struct loam_gpa_map *map;
    struct loam_dma *dma;
    struct memory_fork fork; /* its dma is NULL: not reached */
    struct memory_thread threads;
};

void loam_memory_block_lock(struct loam_memory *memory);
void loam_memory_block_unlock(struct loam_memory *memory);

/* Heap, zeroed. */
LOAM_MUST_USE enum loam_error loam_memory_block_heap(size_t bytes, const char *what, void **memory,
                                                     struct loam_diag *diag);

/* The block whose range holds gpa, whatever its state; NULL if none does. With the lock. */
struct memory_block *loam_memory_block_holding(struct loam_memory *memory, loam_gpa gpa);

/*
 * Back a block whose start and bytes are set, and put its frames under the allocator, closed. On failure the block is as
 * it was. By the thread that is at it, without the lock.
 */
LOAM_MUST_USE enum loam_error loam_memory_block_make(struct loam_memory *memory, struct memory_block *block,
                                                     const struct loam_backing_request *request,
                                                     struct loam_diag *diag);

/* The reverse, of a block without rows in the map. LOAM_ERROR_BUSY: its section does not go; the block is as it was. */
LOAM_MUST_USE enum loam_error loam_memory_block_unmake(struct loam_memory *memory, struct memory_block *block,
                                                       struct loam_diag *diag);

/* The end of a block whatever stands there: the allocator is used no more. */
void loam_memory_block_drop(struct memory_block *block);

/* Frames of the range are allocated, so it cannot go: say whose. what: "to be removed". Returns LOAM_ERROR_BUSY. */
enum loam_error loam_memory_block_held(struct loam_memory *memory, loam_gpa start, uint64_t bytes, const char *what,
                                       struct loam_diag *diag);

#endif
