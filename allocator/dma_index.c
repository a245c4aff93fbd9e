// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_index.h"

#include <stddef.h>
#include <stdlib.h>

#define DIGIT_COUNT (1u << DMA_INDEX_DIGIT_BITS)

/* On level 0 the places are the keys', above it they lead to nodes one level down. */
struct node {
    dma_index_place places[DIGIT_COUNT];
};

static unsigned shift_of(unsigned level)
{
    return level * DMA_INDEX_DIGIT_BITS;
}

static dma_index_place *place_in(struct node *node, uint64_t key, unsigned level)
{
    return &node->places[(key >> shift_of(level)) % DIGIT_COUNT];
}

/* Acquire: pairs with the release of whoever put the pointer there. */
static void *look(const dma_index_place *place)
{
    return atomic_load_explicit((dma_index_place *)(uintptr_t)place, memory_order_acquire);
}

/* The node that place leads to, made if there is none. NULL: no heap memory. */
static struct node *node_at(dma_index_place *place)
{
    void *node = look(place);
    struct node *made;

    if (__builtin_expect(node != NULL, 1)) {
        return node;
    }
    made = calloc(1, sizeof *made);
    /* Another thread may have been faster: its node counts. */
    if (made == NULL ||
        atomic_compare_exchange_strong_explicit(place, &node, made, memory_order_acq_rel, memory_order_acquire)) {
        return made;
    }
    free(made);
    return node;
}

dma_index_place *loam_dma_index_place(struct dma_index *index, uint64_t key)
{
    dma_index_place *place = &index->root;

    for (unsigned level = DMA_INDEX_LEVELS; level-- > 0;) {
        struct node *node = node_at(place);

        if (node == NULL) {
            return NULL;
        }
        place = place_in(node, key, level);
    }
    return place;
}

/* What stands in the place of *key. NULL: nothing, and *key is the next key that may have something. */
static void *look_at(const struct dma_index *index, uint64_t *key)
{
    void *found = look(&index->root);
    unsigned level = DMA_INDEX_LEVELS;

    while (found != NULL && level > 0) {
        level--;
        found = look(place_in(found, *key, level));
    }
    if (found == NULL) {
        *key = ((*key >> shift_of(level)) + 1) << shift_of(level);
    }
    return found;
}

void *loam_dma_index_next(const struct dma_index *index, uint64_t *key)
{
    while (*key < DMA_INDEX_KEY_END) {
        void *found = look_at(index, key);

        if (found != NULL) {
            return found;
        }
    }
    return NULL;
}

/* As deep as there are levels. */
static void free_node(struct node *node, unsigned level)
{
    for (unsigned i = 0; node != NULL && level > 0 && i < DIGIT_COUNT; i++) {
        free_node(look(&node->places[i]), level - 1);
    }
    free(node);
}

void loam_dma_index_clear(struct dma_index *index)
{
    free_node(look(&index->root), DMA_INDEX_LEVELS - 1);
    /* Relaxed: nobody else uses the index any more. */
    atomic_store_explicit(&index->root, NULL, memory_order_relaxed);
}
