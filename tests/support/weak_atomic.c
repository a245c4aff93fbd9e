// SPDX-License-Identifier: Apache-2.0
/*
 * A place's stores are numbered in their order, which is that in which they were made; number 0 is what lay there before.
 * A view says of each place the number of the first store that may still be seen.
 */
#include "tests/support/weak_atomic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

enum { PLACE_MAX = 512, STORE_MAX = 192, STACK_BYTES = 256 * 1024 };

struct view {
    uint16_t first[PLACE_MAX];
};

struct store {
    uint64_t value;
    struct view carried;
};

struct place {
    const volatile void *address;
    unsigned store_count;
    struct store *stores;
};

static struct place places[PLACE_MAX];
static unsigned place_count;

static struct view thread_views[WEAK_THREAD_MAX], common_view; /* the last sequentially consistent stores */

static ucontext_t contexts[WEAK_THREAD_MAX], caller;
static void (*functions[WEAK_THREAD_MAX])(void);
static bool ended[WEAK_THREAD_MAX];
static unsigned thread_count, current;
static unsigned stall_one_in, stall_most, stalled[WEAK_THREAD_MAX]; /* operations of others to wait for */
static bool running;
static uint64_t random_state;

static unsigned random_below(unsigned limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 20) % limit);
}

/* --- Threads ---------------------------------------------------------------------------------------------------------------- */

static uint32_t *own_variable, own_values[WEAK_THREAD_MAX];

void weak_make_own(uint32_t *variable)
{
    own_variable = variable;
}

unsigned weak_thread(void)
{
    return current;
}

/* The variable is the next thread's. */
static void change_own(unsigned before, unsigned next)
{
    if (own_variable != NULL) {
        own_values[before] = *own_variable;
        *own_variable = own_values[next];
    }
}

void weak_stall(unsigned one_in, unsigned most)
{
    stall_one_in = one_in;
    stall_most = most;
}

/* Where all that have not ended stand still, none does any more. */
static bool is_stalled(unsigned thread)
{
    bool all = true;

    for (unsigned i = 0; i < thread_count; i++) {
        all &= ended[i] || stalled[i] > 0;
    }
    stalled[thread] = all ? 0 : stalled[thread];
    return stalled[thread] > 0;
}

/* Some thread that has not ended goes on: with others about, not always the same. */
static void switch_thread(unsigned next)
{
    unsigned before = current;

    while (ended[next] || is_stalled(next)) {
        next = (next + 1) % thread_count;
    }
    if (next != before) {
        current = next;
        change_own(before, next);
        swapcontext(&contexts[before], &contexts[next]);
    }
}

void weak_yield(void)
{
    if (running) {
        switch_thread((current + 1 + random_below(thread_count)) % thread_count);
    }
}

static void maybe_switch(void)
{
    for (unsigned i = 0; i < thread_count; i++) {
        stalled[i] -= stalled[i] > 0;
    }
    if (stall_one_in > 0 && random_below(stall_one_in) == 0) {
        stalled[current] = random_below(stall_most);
    }
    if (stalled[current] > 0 || random_below(3) == 0) {
        switch_thread(random_below(thread_count));
    }
}

static void run_one(void)
{
    bool all = true;

    functions[current]();
    ended[current] = true;
    for (unsigned i = 0; i < thread_count; i++) {
        all &= ended[i];
    }
    if (all) {
        running = false;
        setcontext(&caller);
    }
    switch_thread(random_below(thread_count));
}

static void make_thread(ucontext_t *context, char *stack)
{
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = STACK_BYTES;
    context->uc_link = NULL;
    makecontext(context, run_one, 0);
}

void weak_run(uint64_t seed, unsigned count, void (*const *threads)(void))
{
    static char stacks[WEAK_THREAD_MAX][STACK_BYTES];

    random_state = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    place_count = 0;
    thread_count = count;
    memset(thread_views, 0, sizeof thread_views);
    memset(&common_view, 0, sizeof common_view);
    memset(ended, 0, sizeof ended);
    memset(stalled, 0, sizeof stalled);
    for (unsigned i = 0; i < count; i++) {
        functions[i] = threads[i];
        make_thread(&contexts[i], stacks[i]);
    }
    current = random_below(count);
    running = true;
    memset(own_values, 0, sizeof own_values);
    if (own_variable != NULL) {
        *own_variable = 0;
    }
    swapcontext(&caller, &contexts[current]);
}

/* --- Places and views ---------------------------------------------------------------------------------------------------------- */

static uint64_t read_memory(const volatile void *address, size_t bytes)
{
    uint64_t value = 0;

    memcpy(&value, (const void *)(uintptr_t)address, bytes); /* little-endian */
    return value;
}

static struct place *place_of(const volatile void *address, size_t bytes)
{
    struct place *place = places;

    while (place < places + place_count && place->address != address) {
        place++;
    }
    if (place == places + place_count) {
        if (place_count == PLACE_MAX) {
            fprintf(stderr, "weak_atomic: more than %d places\n", PLACE_MAX);
            abort();
        }
        place_count++;
        place->address = address;
        place->store_count = 1;
        if (place->stores == NULL) {
            place->stores = calloc(STORE_MAX, sizeof *place->stores);
        }
        place->stores[0].value = read_memory(address, bytes);
        memset(&place->stores[0].carried, 0, sizeof place->stores[0].carried);
    }
    return place;
}

static void learn(struct view *view, const struct view *other)
{
    for (unsigned i = 0; i < place_count; i++) {
        view->first[i] = view->first[i] > other->first[i] ? view->first[i] : other->first[i];
    }
}

static bool acquires(memory_order order)
{
    return order == memory_order_acquire || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

static bool releases(memory_order order)
{
    return order == memory_order_release || order == memory_order_acq_rel || order == memory_order_seq_cst;
}

/* A sequentially consistent operation does not look behind the last sequentially consistent store to its place. */
static struct place *begin(const volatile void *address, size_t bytes, memory_order order)
{
    struct place *place;
    unsigned number;

    maybe_switch();
    place = place_of(address, bytes);
    number = (unsigned)(place - places);
    if (order == memory_order_seq_cst && thread_views[current].first[number] < common_view.first[number]) {
        thread_views[current].first[number] = common_view.first[number];
    }
    return place;
}

/* The thread reads the store of that number. */
static uint64_t read_store(struct place *place, unsigned number, memory_order order)
{
    struct view *view = &thread_views[current];

    view->first[place - places] = (uint16_t)number;
    if (acquires(order)) {
        learn(view, &place->stores[number].carried);
    }
    return place->stores[number].value;
}

/* Handed on: what the store that a read-modify-write replaces carried; NULL: nothing. */
static void append(struct place *place, size_t bytes, uint64_t value, memory_order order, const struct view *handed_on)
{
    struct view *view = &thread_views[current];
    unsigned number = place->store_count++;
    struct store *store = &place->stores[number];

    if (number == STORE_MAX) {
        fprintf(stderr, "weak_atomic: more than %d stores to a place\n", STORE_MAX);
        abort();
    }
    view->first[place - places] = (uint16_t)number;
    store->value = value;
    memset(&store->carried, 0, sizeof store->carried);
    if (releases(order)) {
        store->carried = *view;
    }
    if (handed_on != NULL) {
        learn(&store->carried, handed_on);
    }
    if (order == memory_order_seq_cst) {
        common_view.first[place - places] = (uint16_t)number;
    }
    memcpy((void *)(uintptr_t)place->address, &value, bytes);
}

void weak_settle(void)
{
    for (unsigned i = 0; running && i < thread_count; i++) {
        for (unsigned n = 0; n < place_count; n++) {
            thread_views[i].first[n] = (uint16_t)(places[n].store_count - 1);
        }
    }
}

/* --- Operations ---------------------------------------------------------------------------------------------------------------- */

uint64_t weak_load(const volatile void *address, size_t bytes, memory_order order)
{
    struct place *place;
    unsigned first, last;

    if (!running) {
        return read_memory(address, bytes);
    }
    place = begin(address, bytes, order);
    first = thread_views[current].first[place - places];
    last = place->store_count - 1;
    switch (random_below(3)) {
    case 0:
        return read_store(place, last, order);
    case 1:
        return read_store(place, first, order);
    default:
        return read_store(place, first + random_below(last - first + 1), order);
    }
}

void weak_store(volatile void *address, size_t bytes, uint64_t value, memory_order order)
{
    if (!running) {
        memcpy((void *)(uintptr_t)address, &value, bytes);
        return;
    }
    append(begin(address, bytes, order), bytes, value, order, NULL);
}

uint64_t weak_modify(volatile void *address, size_t bytes, uint64_t keep, uint64_t set, uint64_t add,
                     memory_order order)
{
    uint64_t before, mask = bytes == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * bytes) - 1;
    struct place *place;
    unsigned last;

    if (!running) {
        before = read_memory(address, bytes);
        set = (((before & keep) | set) + add) & mask;
        memcpy((void *)(uintptr_t)address, &set, bytes);
        return before;
    }
    place = begin(address, bytes, order);
    last = place->store_count - 1;
    before = read_store(place, last, order);
    append(place, bytes, (((before & keep) | set) + add) & mask, order, &place->stores[last].carried);
    return before;
}

bool weak_swap(volatile void *address, size_t bytes, uint64_t *expected, uint64_t value, memory_order success,
               memory_order failure)
{
    struct place *place;
    unsigned last;

    if (!running) {
        uint64_t found = read_memory(address, bytes);
        bool equal = found == *expected;

        memcpy((void *)(uintptr_t)address, equal ? &value : &found, bytes);
        *expected = found;
        return equal;
    }
    place = begin(address, bytes, success);
    last = place->store_count - 1;
    if (place->stores[last].value != *expected) {
        *expected = read_store(place, last, failure);
        return false;
    }
    read_store(place, last, success);
    append(place, bytes, value, success, &place->stores[last].carried);
    return true;
}
