// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_index.h"

#include <stdlib.h>

static unsigned shift_of(unsigned level)
{
    return level * DMA_INDEX_DIGIT_BITS;
}

static dma_index_place *place_in(struct dma_index_node *node, uint64_t key, unsigned level)
{
    return &node->places[(key >> shift_of(level)) % DMA_INDEX_DIGITS];
}

/* Acquire: pairs with the release of whoever put the pointer there. */
static void *look(const dma_index_place *place)
{
    return shared_load_acquire(*place);
}

/* The node that place leads to, made if there is none: first is the lowest key below it. NULL: no heap memory. */
static struct dma_index_node *node_at(dma_index_place *place, uint64_t first)
{
    void *node = look(place);
    struct dma_index_node *made;

    if (__builtin_expect(node != NULL, 1)) {
        return node;
    }
    made = calloc(1, sizeof *made);
    if (made == NULL) {
        return NULL;
    }
    made->first = first;
    /* Another thread may have been faster: its node counts. */
    if (shared_swap_both(*place, &node, made)) {
        return made;
    }
    free(made);
    return node;
}

dma_index_place *loam_dma_index_make(struct dma_index *index, uint64_t key)
{
    dma_index_place *place = &index->root;

    for (unsigned level = DMA_INDEX_LEVELS; level-- > 0;) {
        unsigned shift = shift_of(level + 1);
        struct dma_index_node *node = node_at(place, key >> shift << shift);

        if (node == NULL) {
            return NULL;
        }
        if (level == 1) {
            /* Release: pairs with the acquire of whoever finds the node here. */
            shared_store_release(index->near[(key >> DMA_INDEX_NEAR_SHIFT) % DMA_INDEX_NEAR], node);
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

void loam_dma_index_take_out(struct dma_index *index, uint64_t key, void *found)
{
    shared_swap(*loam_dma_index_place(index, key), &found, NULL);
}

/* As deep as there are levels. */
static void free_node(struct dma_index_node *node, unsigned level)
{
    for (unsigned i = 0; node != NULL && level > 0 && i < DMA_INDEX_DIGITS; i++) {
        free_node(look(&node->places[i]), level - 1);
    }
    free(node);
}

void loam_dma_index_clear(struct dma_index *index)
{
    free_node(look(&index->root), DMA_INDEX_LEVELS - 1);
    *index = (struct dma_index){0};
}
