// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_index.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

/* --- Heap that fails when told to, and is counted; linked with --wrap -------------------------------------------- */

void *__real_calloc(size_t count, size_t bytes);
void __real_free(void *memory);
void *__wrap_calloc(size_t count, size_t bytes);
void __wrap_free(void *memory);

#define NODE_BYTES sizeof(struct dma_index_node)

static atomic_int heap_failure; /* fails the n-th call from now; 0: none */
static atomic_int node_count;
static void
    *_Atomic slipped_in; /* not NULL: another thread's node that appears in *slip_place during the next calloc */
static dma_index_place *slip_place;

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *slipping = atomic_exchange(&slipped_in, NULL);

    if (atomic_load(&heap_failure) > 0 && atomic_fetch_sub(&heap_failure, 1) == 1) {
        errno = ENOMEM;
        return NULL;
    }
    if (slipping != NULL) {
        shared_store_ordered(*slip_place, slipping);
    }
    atomic_fetch_add(&node_count, count * bytes == NODE_BYTES);
    return __real_calloc(count, bytes);
}

void __wrap_free(void *memory)
{
    atomic_fetch_sub(&node_count, memory != NULL);
    __real_free(memory);
}

/* --- One thread -------------------------------------------------------------------------------------------------- */

static int things[4];

static void put(struct dma_index *index, uint64_t key, void *thing)
{
    dma_index_place *place = loam_dma_index_place(index, key);

    cr_assert_not_null(place);
    shared_store_ordered(*place, thing);
}

static void expect_next(const struct dma_index *index, uint64_t from, uint64_t key, const void *thing)
{
    uint64_t at = from;

    cr_expect_eq(loam_dma_index_next(index, &at), thing, "from %#lx", from);
    cr_expect(thing == NULL || at == key, "from %#lx: %#lx instead of %#lx", from, at, key);
}

Test(dma_index, finds_the_next_across_all_levels)
{
    static const uint64_t keys[4] = {0, 1023, UINT64_C(1) << 30, DMA_INDEX_KEY_END - 1};
    struct dma_index index = {0};

    expect_next(&index, 0, 0, NULL);
    for (int i = 0; i < 4; i++) {
        put(&index, keys[i], &things[i]);
    }
    expect_next(&index, 0, 0, &things[0]);
    expect_next(&index, 1, 1023, &things[1]);
    expect_next(&index, 1023, 1023, &things[1]);
    expect_next(&index, 1024, keys[2], &things[2]);
    expect_next(&index, keys[2], keys[2], &things[2]);
    expect_next(&index, keys[2] + 1, keys[3], &things[3]);
    expect_next(&index, keys[3], keys[3], &things[3]);
    expect_next(&index, DMA_INDEX_KEY_END, 0, NULL);
    expect_next(&index, UINT64_MAX, 0, NULL);
    put(&index, keys[3], NULL);
    expect_next(&index, keys[2] + 1, 0, NULL);
    loam_dma_index_clear(&index);
    expect_next(&index, 0, 0, NULL);
}

Test(dma_index, a_place_stays_and_is_made_once)
{
    struct dma_index index = {0};
    int before = node_count;
    dma_index_place *place = loam_dma_index_place(&index, 5);

    cr_expect_eq(node_count - before, DMA_INDEX_LEVELS);
    cr_expect_eq(loam_dma_index_place(&index, 5), place);
    cr_expect_eq(loam_dma_index_place(&index, 6), place + 1);
    cr_expect_eq(node_count - before, DMA_INDEX_LEVELS);
    cr_expect_neq(loam_dma_index_place(&index, 5 + 1024), place);
    cr_expect_eq(node_count - before, DMA_INDEX_LEVELS + 1);
    loam_dma_index_clear(&index);
    cr_expect_eq(node_count, before);
}

Test(dma_index, takes_out_only_what_was_found)
{
    struct dma_index index = {0};

    put(&index, 5, &things[0]);
    loam_dma_index_take_out(&index, 5, &things[1]);
    expect_next(&index, 0, 5, &things[0]);
    loam_dma_index_take_out(&index, 5, &things[0]);
    expect_next(&index, 0, 0, NULL);
    loam_dma_index_clear(&index);
}

/* Nodes so far apart that the index remembers one of them at a time. */
Test(dma_index, places_far_apart_are_not_taken_for_each_other)
{
    const uint64_t apart = (uint64_t)DMA_INDEX_NEAR << DMA_INDEX_NEAR_SHIFT;
    struct dma_index index = {0};
    dma_index_place *near = loam_dma_index_place(&index, 5), *far = loam_dma_index_place(&index, 5 + apart);

    cr_expect_neq(near, far);
    for (int n = 0; n < 2; n++) {
        cr_expect_eq(loam_dma_index_place(&index, 5), near);
        cr_expect_eq(loam_dma_index_place(&index, 5 + apart), far);
    }
    put(&index, 5 + apart, &things[1]);
    expect_next(&index, 0, 5 + apart, &things[1]);
    loam_dma_index_clear(&index);
}

Test(dma_index, a_full_heap_at_every_level)
{
    struct dma_index index = {0};
    int before = node_count;

    put(&index, 0, &things[0]);
    for (int n = 1; n < DMA_INDEX_LEVELS; n++) {
        heap_failure = n;
        cr_expect_null(loam_dma_index_place(&index, (uint64_t)n << 30));
        cr_expect_eq(heap_failure, 0);
        expect_next(&index, 0, 0, &things[0]);
        expect_next(&index, 1, 0, NULL);
    }
    loam_dma_index_clear(&index);
    cr_expect_eq(node_count, before);
    heap_failure = 1;
    cr_expect_null(loam_dma_index_place(&index, 0));
}

/* --- Others make nodes meanwhile --------------------------------------------------------------------------------- */

Test(dma_index, the_node_of_who_was_faster_counts)
{
    struct dma_index index = {0};
    int before = node_count;
    void *others = calloc(1, NODE_BYTES);
    dma_index_place *place;

    slip_place = &index.root;
    slipped_in = others;
    place = loam_dma_index_place(&index, 7);
    cr_assert_not_null(place);
    cr_expect_eq(index.root, others);
    shared_store_ordered(*place, &things[0]);
    expect_next(&index, 0, 7, &things[0]);
    cr_expect_eq(node_count - before, DMA_INDEX_LEVELS, "one's own is freed");
    loam_dma_index_clear(&index);
    cr_expect_eq(node_count, before);
}

#define KEYS_EACH 2000u

static struct dma_index shared;

/* Threads put their own keys, which lie in each other's nodes. */
static void *fill(void *argument)
{
    uint64_t first = (uintptr_t)argument;

    for (uint64_t i = 0; i < KEYS_EACH; i++) {
        dma_index_place *place = loam_dma_index_place(&shared, first + i * 700);

        if (place != NULL) {
            shared_store_release(*place, &things[first]);
        }
    }
    return NULL;
}

Test(dma_index, threads_fill_it_together)
{
    pthread_t threads[3];
    uint64_t key = 0, count = 0;

    for (uintptr_t i = 0; i < 3; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, fill, (void *)i), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    for (const void *found; (found = loam_dma_index_next(&shared, &key)) != NULL; key++) {
        cr_assert_eq(key, count / 3 * 700 + count % 3);
        cr_assert_eq(found, &things[count % 3]);
        count++;
    }
    cr_expect_eq(count, 3 * KEYS_EACH);
    loam_dma_index_clear(&shared);
}
