// SPDX-License-Identifier: Apache-2.0
/*
 * Which buffer starts at a frame: a tree from frame numbers to pointers, in ascending order. For dma_ledger.
 *
 * A frame number of 40 bits is four digits of 10 bits, one a level, so a place is found in four loads. A node that was
 * made stays until the end, and so does a place: each call may come from any thread without a lock, also while others
 * make nodes and set places. Whoever reads a pointer from a place sees what was written before it was put there.
 */
#ifndef LOAM_DMA_INDEX_H
#define LOAM_DMA_INDEX_H

#include "allocator/atomic.h"

#include <stddef.h>

#define DMA_INDEX_DIGIT_BITS 10
#define DMA_INDEX_LEVELS     4
#define DMA_INDEX_KEY_END    (UINT64_C(1) << (DMA_INDEX_DIGIT_BITS * DMA_INDEX_LEVELS))

#define DMA_INDEX_DIGITS     (1u << DMA_INDEX_DIGIT_BITS)
#define DMA_INDEX_NEAR       16u
#define DMA_INDEX_NEAR_SHIFT (2 * DMA_INDEX_DIGIT_BITS)

typedef void *dma_index_place; /* (shared) */

/* On level 0 the places are the keys', above it they lead to nodes one level down. */
struct dma_index_node {
    dma_index_place places[DMA_INDEX_DIGITS];
    uint64_t first; /* of level 1: the lowest key below it */
};

/* Empty when all zero. */
struct dma_index {
    dma_index_place root;
    dma_index_place near[DMA_INDEX_NEAR]; /* nodes of level 1 that were asked for: [first >> NEAR_SHIFT % NEAR] */
};

/* The place of key, made if it is not there. */
dma_index_place *loam_dma_index_make(struct dma_index *index, uint64_t key);

/* The place of key, which is below DMA_INDEX_KEY_END, made if it is not there. NULL: no heap memory. */
static inline dma_index_place *loam_dma_index_place(struct dma_index *index, uint64_t key)
{
    /* Acquire: pairs with the release of whoever made the node. */
    struct dma_index_node *node = shared_load_acquire(index->near[(key >> DMA_INDEX_NEAR_SHIFT) % DMA_INDEX_NEAR]);
    struct dma_index_node *leaf;

    if (node == NULL || node->first != key >> DMA_INDEX_NEAR_SHIFT << DMA_INDEX_NEAR_SHIFT) {
        return loam_dma_index_make(index, key);
    }
    leaf = shared_load_acquire(node->places[(key >> DMA_INDEX_DIGIT_BITS) % DMA_INDEX_DIGITS]);
    return leaf != NULL ? &leaf->places[key % DMA_INDEX_DIGITS] : loam_dma_index_make(index, key);
}

/* The lowest key at or above *key with a pointer in its place: the pointer, and *key is that key. NULL: there is none. */
void *loam_dma_index_next(const struct dma_index *index, uint64_t *key);

/* Whoever found that pointer at that key takes it out, unless another has been put there since. */
void loam_dma_index_take_out(struct dma_index *index, uint64_t key, void *found);

/* Free all nodes; the pointers are their owner's. The index is empty afterwards. */
void loam_dma_index_clear(struct dma_index *index);

#endif
