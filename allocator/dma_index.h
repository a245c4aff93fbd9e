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

#include <stdatomic.h>
#include <stdint.h>

#define DMA_INDEX_DIGIT_BITS 10
#define DMA_INDEX_LEVELS     4
#define DMA_INDEX_KEY_END    (UINT64_C(1) << (DMA_INDEX_DIGIT_BITS * DMA_INDEX_LEVELS))

typedef _Atomic(void *) dma_index_place;

/* Empty when all zero. */
struct dma_index {
    dma_index_place root;
};

/* The place of key, which is below DMA_INDEX_KEY_END, made if it is not there. NULL: no heap memory. */
dma_index_place *loam_dma_index_place(struct dma_index *index, uint64_t key);

/* The lowest key at or above *key with a pointer in its place: the pointer, and *key is that key. NULL: there is none. */
void *loam_dma_index_next(const struct dma_index *index, uint64_t *key);

/* Free all nodes; the pointers are their owner's. The index is empty afterwards. */
void loam_dma_index_clear(struct dma_index *index);

#endif
