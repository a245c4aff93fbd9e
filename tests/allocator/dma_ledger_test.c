// SPDX-License-Identifier: Apache-2.0
#include "allocator/dma_ledger.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define FIRST             DMA_LEDGER_SEGMENT_FIRST
#define COME_AND_GO_COUNT 100000u

/* --- Heap that fails when told to, is counted, and shows who writes past its end; linked with --wrap -------------- */

void *__real_calloc(size_t count, size_t bytes);
void __real_free(void *memory);
void *__wrap_calloc(size_t count, size_t bytes);
void __wrap_free(void *memory);

#define CANARY UINT64_C(0x5ca1ab1e0ddba11)

static atomic_int heap_failure; /* fails the n-th call from now; 0: none */
static atomic_int block_count;
static char *_Atomic end_of_latest;

void *__wrap_calloc(size_t count, size_t bytes)
{
    const uint64_t canary = CANARY;
    char *memory;

    if (atomic_load(&heap_failure) > 0 && atomic_fetch_sub(&heap_failure, 1) == 1) {
        errno = ENOMEM;
        return NULL;
    }
    memory = __real_calloc(1, count * bytes + sizeof canary);
    end_of_latest = memcpy(memory + count * bytes, &canary, sizeof canary);
    atomic_fetch_add(&block_count, 1);
    return memory;
}

void __wrap_free(void *memory)
{
    atomic_fetch_sub(&block_count, memory != NULL);
    __real_free(memory);
}

/* --- A ledger ---------------------------------------------------------------------------------------------------- */

static struct dma_ledger ledger;

/* A thread's first lock gives it its name, which says in which stripe its entries lie from then on. */
static void set_up(void)
{
    cr_assert_eq(loam_dma_ledger_count(&ledger), 0);
}

static void tear_down(void)
{
    loam_dma_ledger_clear(&ledger);
}

TestSuite(dma_ledger, .init = set_up, .fini = tear_down);

static enum loam_error try_enter(uint64_t frame, struct loam_dma_buffer *buffer)
{
    *buffer = (struct loam_dma_buffer){
        .gpa = {frame * LOAM_FRAME_BYTES}, .bytes = LOAM_FRAME_BYTES, .hva = (void *)(uintptr_t)(frame + 1)};
    return loam_dma_ledger_enter(&ledger, buffer, "owner", 5, 0);
}

static uint64_t enter(uint64_t frame)
{
    struct loam_dma_buffer buffer;

    cr_assert_eq(try_enter(frame, &buffer), LOAM_OK);
    return buffer.id;
}

static void strike(uint64_t id)
{
    struct loam_dma_entry *entry;

    cr_assert_eq(loam_dma_ledger_take(&ledger, id, &entry), LOAM_OK, "%#lx", id);
    loam_dma_ledger_strike(&ledger, entry);
}

static enum loam_error look_up(uint64_t id)
{
    struct loam_dma_entry *entry;
    enum loam_error error = loam_dma_ledger_take(&ledger, id, &entry);

    cr_assert_eq(entry != NULL, error == LOAM_OK);
    if (entry != NULL) {
        loam_dma_ledger_give(&ledger, entry);
    }
    return error;
}

static enum loam_error validate(struct loam_diag *diag)
{
    enum loam_error error;

    loam_dma_ledger_take_all(&ledger);
    error = loam_dma_ledger_validate(&ledger, diag);
    loam_dma_ledger_give_all(&ledger, error == LOAM_OK);
    return error;
}

static void assert_valid(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(validate(&diag), LOAM_OK, "%s", diag.text);
}

/* The stripe that entries of this thread lie in. */
static struct dma_stripe *own_stripe(void)
{
    uint64_t id = enter(0);

    strike(id);
    return &ledger.stripes[((uint32_t)id - 1) % DMA_LEDGER_STRIPES];
}

/* --- Ids --------------------------------------------------------------------------------------------------------- */

Test(dma_ledger, an_entry_is_found_by_id_as_it_was_entered)
{
    struct loam_dma_buffer buffer = {.gpa = {4096}, .bytes = 8192, .hva = &buffer};
    struct loam_dma_entry *entry;

    cr_assert_eq(loam_dma_ledger_enter(&ledger, &buffer, "rings", 5, LOAM_DMA_KEEP), LOAM_OK);
    cr_assert_eq(loam_dma_ledger_take(&ledger, buffer.id, &entry), LOAM_OK);
    cr_expect_eq(memcmp(&entry->buffer, &buffer, sizeof buffer), 0);
    cr_expect_str_eq(entry->owner, "rings");
    cr_expect(entry->kept);
    entry->pin_count = 7;
    loam_dma_ledger_strike(&ledger, entry);
    cr_expect_eq(look_up(buffer.id), LOAM_ERROR_NOT_FOUND);
    cr_assert_eq(loam_dma_ledger_enter(&ledger, &buffer, "x", 1, 0), LOAM_OK);
    cr_assert_eq(loam_dma_ledger_take(&ledger, buffer.id, &entry), LOAM_OK);
    cr_expect_eq(entry->pin_count, 0);
    cr_expect_not(entry->kept);
    cr_expect_str_eq(entry->owner, "x");
    loam_dma_ledger_give(&ledger, entry);
}

Test(dma_ledger, an_id_comes_once_though_its_slot_is_used_again)
{
    uint64_t first = enter(1), second;

    strike(first);
    second = enter(1);
    cr_expect_eq((uint32_t)first, (uint32_t)second);
    cr_expect_eq(second - first, DMA_LEDGER_ID_STEP);
    cr_expect_eq(look_up(first), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(look_up(second + DMA_LEDGER_ID_STEP), LOAM_ERROR_NOT_FOUND);
    strike(second);
    cr_expect_eq(look_up(second + DMA_LEDGER_ID_STEP), LOAM_ERROR_NOT_FOUND, "the next id is nobody's yet");
}

Test(dma_ledger, ids_that_nothing_has)
{
    uint64_t id = enter(1);
    const uint64_t none[] = {0, UINT32_MAX, UINT64_MAX, DMA_LEDGER_ID_STEP, id + 1, id + DMA_LEDGER_STRIPES};

    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        cr_expect_eq(look_up(none[i]), LOAM_ERROR_NOT_FOUND, "%#lx", none[i]);
    }
}

Test(dma_ledger, a_slot_whose_ids_are_used_up_is_left_alone)
{
    struct loam_dma_entry *entry;
    uint64_t id = enter(1), last = id | (UINT64_MAX - UINT32_MAX);

    cr_assert_eq(loam_dma_ledger_take(&ledger, id, &entry), LOAM_OK);
    entry->buffer.id = last;
    loam_dma_ledger_give(&ledger, entry);
    assert_valid();
    strike(last);
    cr_expect_neq((uint32_t)enter(1), (uint32_t)id);
    assert_valid();
}

/* --- Growth ------------------------------------------------------------------------------------------------------ */

Test(dma_ledger, grows_by_segments_and_entries_stay)
{
    static uint64_t ids[5 * FIRST];
    const uint64_t canary = CANARY;
    struct loam_dma_entry *first, *again;
    int before = block_count;

    ids[0] = enter(0);
    cr_assert_eq(loam_dma_ledger_take(&ledger, ids[0], &first), LOAM_OK);
    loam_dma_ledger_give(&ledger, first);
    for (uint64_t i = 1; i < 5 * FIRST; i++) {
        ids[i] = enter(i);
        cr_assert_eq(memcmp(end_of_latest, &canary, sizeof canary), 0, "entry %lu", i);
        cr_assert_eq(look_up(ids[i]), LOAM_OK);
    }
    cr_expect_eq(block_count - before, DMA_INDEX_LEVELS + 3, "segments of 64, 128 and 256 slots");
    cr_expect_eq(loam_dma_ledger_count(&ledger), 5 * FIRST);
    cr_assert_eq(loam_dma_ledger_take(&ledger, ids[0], &again), LOAM_OK);
    loam_dma_ledger_give(&ledger, again);
    cr_expect_eq(first, again);
    assert_valid();
    for (uint64_t i = 0; i < 5 * FIRST; i++) {
        strike(ids[i]);
    }
    cr_expect_eq(loam_dma_ledger_count(&ledger), 0);
    for (uint64_t i = 0; i < 5 * FIRST; i++) {
        enter(i);
    }
    cr_expect_eq(block_count - before, DMA_INDEX_LEVELS + 3, "free slots are used before new ones are made");
    loam_dma_ledger_clear(&ledger);
    cr_expect_eq(block_count, before);
    cr_expect_eq(loam_dma_ledger_count(&ledger), 0);
}

Test(dma_ledger, a_full_heap_leaves_the_ledger_as_it_was)
{
    struct loam_dma_buffer buffer;
    uint64_t last_id = 0;

    for (int n = 1; n <= DMA_INDEX_LEVELS + 1; n++) {
        heap_failure = n;
        cr_expect_eq(try_enter(1, &buffer), LOAM_ERROR_SYSTEM, "call %d", n);
        cr_expect_eq(heap_failure, 0);
        cr_expect_eq(loam_dma_ledger_count(&ledger), 0);
        assert_valid();
        loam_dma_ledger_clear(&ledger);
    }
    for (uint64_t i = 0; i < FIRST; i++) {
        last_id = enter(i);
    }
    cr_expect_eq(look_up(last_id + DMA_LEDGER_STRIPES), LOAM_ERROR_NOT_FOUND, "there is no segment for it");
    heap_failure = 1;
    cr_expect_eq(try_enter(FIRST, &buffer), LOAM_ERROR_SYSTEM, "the second segment");
    assert_valid();
    enter(FIRST);
    assert_valid();
}

Test(dma_ledger, slots_end)
{
    struct dma_stripe *stripe = own_stripe();
    struct dma_slot *spare = stripe->free;
    struct loam_dma_buffer buffer;

    stripe->free = NULL;
    stripe->made = DMA_LEDGER_SLOTS_MAX;
    cr_expect_eq(try_enter(1, &buffer), LOAM_ERROR_SYSTEM);
    stripe->free = spare;
    cr_expect_eq(try_enter(1, &buffer), LOAM_OK);
    stripe->made = 1;
}

/* --- In order of GPA --------------------------------------------------------------------------------------------- */

Test(dma_ledger, next_copies_the_lowest_entry_at_or_above)
{
    struct loam_dma_entry entry = {.pin_count = 9};
    uint64_t low, high;

    cr_expect_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(entry.pin_count, 9, "untouched");
    high = enter(9);
    low = enter(3);
    cr_expect_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, low);
    cr_expect_eq(loam_dma_ledger_next(&ledger, entry.buffer.gpa, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, low);
    cr_expect_eq(loam_dma_ledger_next(&ledger, loam_dma_entry_end(&entry), &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, high);
    cr_expect_eq(loam_dma_ledger_held_next(&ledger, (loam_gpa){4 * 4096})->buffer.id, high);
    cr_expect_null(loam_dma_ledger_held_next(&ledger, (loam_gpa){10 * 4096}));
    strike(low);
    cr_expect_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, high);
}

/* While an entry's frames are freed, they may become another's, which stays where it is. */
Test(dma_ledger, who_is_struck_out_takes_no_other_along)
{
    uint64_t old = enter(5), new = enter(5);
    struct loam_dma_entry entry;

    cr_assert_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, new);
    strike(old);
    cr_assert_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, new);
    cr_expect_eq(loam_dma_ledger_count(&ledger), 1);
    assert_valid();
}

/* The first key at or above that the index has anything at. */
static uint64_t indexed_from(uint64_t key)
{
    return loam_dma_index_next(&ledger.index, &key) != NULL ? key : UINT64_MAX;
}

Test(dma_ledger, what_was_struck_out_is_not_found_and_leaves_the_index)
{
    struct loam_dma_entry entry;
    uint64_t moved, gone;

    strike(enter(3)); /* its slot is the next entry's */
    moved = enter(9);
    gone = enter(4);
    strike(gone);
    assert_valid();
    cr_expect_eq(loam_dma_ledger_held_next(&ledger, (loam_gpa){0})->buffer.id, moved);
    cr_expect_eq(indexed_from(1), 3, "nobody came upon it");
    cr_assert_eq(loam_dma_ledger_next(&ledger, (loam_gpa){4096}, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, moved);
    cr_expect_eq(indexed_from(1), 9);
    strike(moved);
    cr_expect_null(loam_dma_ledger_held_next(&ledger, (loam_gpa){0}));
    cr_expect_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_ERROR_NOT_FOUND);
    cr_expect_eq(indexed_from(0), UINT64_MAX);
    assert_valid();
}

/* --- Validate ---------------------------------------------------------------------------------------------------- */

Test(dma_ledger, validate_counts)
{
    struct loam_diag diag = {0};
    struct dma_stripe *stripe = own_stripe();

    enter(1);
    stripe->count++;
    cr_expect_eq(validate(&diag), LOAM_ERROR_CORRUPT);
    cr_expect_str_eq(diag.text, "dma ledger: 1 entries are found by GPA, and 2 are counted");
    stripe->count--;
    assert_valid();
    enter(1);
    cr_expect_eq(validate(&diag), LOAM_ERROR_CORRUPT, "two at one place");
}

Test(dma_ledger, validate_knows_slots_that_are_free)
{
    struct loam_diag diag = {0};
    struct loam_dma_entry *entry;
    uint64_t id = enter(1);

    cr_assert_eq(loam_dma_ledger_take(&ledger, id, &entry), LOAM_OK);
    loam_dma_ledger_give(&ledger, entry);
    entry->buffer.bytes = 0;
    cr_expect_eq(validate(&diag), LOAM_ERROR_CORRUPT);
    entry->buffer.bytes = 4096;
    assert_valid();
}

/* --- Threads ----------------------------------------------------------------------------------------------------- */

/* A thread is asked for entries one at a time, and stays until the end: so each has a name of its own. */
static void *enter_one(void *argument)
{
    struct loam_dma_buffer buffer;

    cr_expect_eq(loam_dma_ledger_count(&ledger), *(uint32_t *)argument);
    cr_expect_eq(try_enter(*(uint32_t *)argument, &buffer), LOAM_OK);
    return NULL;
}

Test(dma_ledger, counts_and_frees_over_all_stripes)
{
    uint32_t used = 0;
    int before = block_count;

    for (uint32_t i = 0; i < 2 * DMA_LEDGER_STRIPES; i++) {
        pthread_t thread;

        cr_assert_eq(pthread_create(&thread, NULL, enter_one, &i), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        assert_valid();
    }
    for (uint32_t i = 0; i < DMA_LEDGER_STRIPES; i++) {
        used += ledger.stripes[i].count != 0;
    }
    cr_expect_gt(used, 1, "threads lie in stripes of their own");
    cr_expect_eq(loam_dma_ledger_count(&ledger), 2 * DMA_LEDGER_STRIPES);
    loam_dma_ledger_clear(&ledger);
    cr_expect_leq(block_count, before + 1, "all but what a thread's end leaves to the C library");
}

static atomic_bool stop;

/* Entries come and go at one end of the ledger. */
static void *come_and_go(void *argument)
{
    uint64_t frame = *(uint32_t *)argument;

    for (uint32_t i = 0; i < COME_AND_GO_COUNT; i++) {
        strike(enter(frame + i % 3));
    }
    return NULL;
}

/* What stays is always found, with what comes and goes below and above it. */
static void *look_on(void *argument)
{
    uint64_t *wrong = argument;
    struct loam_dma_entry entry;

    while (!atomic_load(&stop)) {
        *wrong += loam_dma_ledger_next(&ledger, (loam_gpa){4 * 4096}, &entry) != LOAM_OK ||
                  entry.buffer.gpa.value != 4 * 4096 || entry.pin_count != 0;
        *wrong += loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry) != LOAM_OK ||
                  entry.buffer.gpa.value > 4 * 4096 || entry.buffer.bytes != 4096;
        *wrong += loam_dma_ledger_count(&ledger) > 3;
        *wrong += validate(NULL) != LOAM_OK;
    }
    return NULL;
}

/* What is found among them was there when it was copied. */
static void *find(void *argument)
{
    uint64_t *wrong = argument;
    struct loam_dma_entry entry;

    while (!atomic_load(&stop)) {
        *wrong += loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry) != LOAM_OK || entry.buffer.bytes != 4096;
        *wrong += loam_dma_ledger_next(&ledger, (loam_gpa){2 * 4096}, &entry) != LOAM_OK ||
                  entry.buffer.gpa.value < 2 * 4096 || entry.buffer.bytes != 4096;
    }
    return NULL;
}

Test(dma_ledger, what_is_found_is_there, .timeout = 120)
{
    uint32_t below = 0;
    uint64_t wrong = 0;
    pthread_t threads[2];

    enter(4);
    cr_assert_eq(pthread_create(&threads[0], NULL, find, &wrong), 0);
    cr_assert_eq(pthread_create(&threads[1], NULL, come_and_go, &below), 0);
    pthread_join(threads[1], NULL);
    atomic_store(&stop, true);
    pthread_join(threads[0], NULL);
    cr_expect_eq(wrong, 0);
}

Test(dma_ledger, entries_come_and_go_while_others_look, .timeout = 120)
{
    uint32_t below = 0, above = 5;
    uint64_t wrong = 0;
    pthread_t threads[3];

    enter(4);
    cr_assert_eq(pthread_create(&threads[0], NULL, look_on, &wrong), 0);
    cr_assert_eq(pthread_create(&threads[1], NULL, come_and_go, &below), 0);
    cr_assert_eq(pthread_create(&threads[2], NULL, come_and_go, &above), 0);
    pthread_join(threads[1], NULL);
    pthread_join(threads[2], NULL);
    atomic_store(&stop, true);
    pthread_join(threads[0], NULL);
    cr_expect_eq(wrong, 0);
    cr_expect_eq(loam_dma_ledger_count(&ledger), 1);
}

static void *take_all(void *unused)
{
    loam_dma_ledger_take_all(&ledger);
    return unused;
}

Test(dma_ledger, after_a_holder_died_nothing_changes_until_all_is_in_order, .timeout = 60)
{
    struct loam_dma_buffer buffer;
    struct loam_dma_entry entry;
    uint64_t id = enter(1);
    pthread_t thread;

    strike(enter(0));
    cr_expect_not(loam_dma_ledger_suspect(&ledger));
    cr_assert_eq(pthread_create(&thread, NULL, take_all, NULL), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_expect_eq(look_up(id), LOAM_ERROR_CORRUPT);
    cr_expect(loam_dma_ledger_suspect(&ledger));
    cr_expect_eq(try_enter(2, &buffer), LOAM_ERROR_CORRUPT);
    cr_expect_eq(loam_dma_ledger_count(&ledger), 1);
    cr_expect_eq(loam_dma_ledger_next(&ledger, (loam_gpa){0}, &entry), LOAM_OK);
    cr_expect_eq(entry.buffer.id, id);
    cr_expect_eq(indexed_from(0), 0, "what was struck out stays too");
    loam_dma_ledger_take_all(&ledger);
    loam_dma_ledger_give_all(&ledger, false);
    cr_expect(loam_dma_ledger_suspect(&ledger));
    assert_valid();
    cr_expect_not(loam_dma_ledger_suspect(&ledger));
    cr_expect_eq(look_up(id), LOAM_OK);
    cr_expect_eq(try_enter(2, &buffer), LOAM_OK);
}
