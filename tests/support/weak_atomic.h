// SPDX-License-Identifier: Apache-2.0
/*
 * Atomics of a weaker machine than any that the tests run on, to be compiled into the code under test in place of
 * <stdatomic.h>: gcc -include tests/support/weak_atomic.h. While weak_run runs, every atomic operation is a point at
 * which another thread may go on, and a load may answer with any value that its memory order lets it see, not only with
 * the latest. So an order that is weaker than the code needs shows as a wrong answer of the code.
 *
 * The model: each place has a history of stores. A thread knows, of each place, a store that it must not look behind. A
 * releasing store carries what its thread knows, an acquiring load that reads it learns that; a read-modify-write reads
 * the last store and hands on what that carried. A sequentially consistent operation does not look behind the last such
 * store to its place. Fences are not modelled, nor are plain accesses, which see the latest value.
 *
 * Outside weak_run the operations are ordinary. One thread of the system only.
 */
#ifndef LOAM_WEAK_ATOMIC_H
#define LOAM_WEAK_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WEAK_THREAD_MAX 3

/*
 * Run the functions as threads, each on a stack of its own, in an order and with values that seed chooses. Memory is as
 * the functions left it afterwards: each place has its last store.
 */
void weak_run(uint64_t seed, unsigned count, void (*const *threads)(void));

/*
 * From now on, before one operation in one_in, the thread stands still while the others make up to most operations: for
 * what goes wrong only if much happens between two operations of one thread. one_in 0: never, as at first.
 */
void weak_stall(unsigned one_in, unsigned most);

/* Let another thread go on: for loops that wait for it. */
void weak_yield(void);

/* Time passes, for all threads: whatever was stored before is seen from now on. */
void weak_settle(void);

/* The number of the thread that runs, from 0; and a variable of which each thread has one of its own, 0 at first. */
unsigned weak_thread(void);
void weak_make_own(uint32_t *variable);

uint64_t weak_load(const volatile void *place, size_t bytes, memory_order order);
void weak_store(volatile void *place, size_t bytes, uint64_t value, memory_order order);
/* *place = ((*place & keep) | set) + add; returns what was there. */
uint64_t weak_modify(volatile void *place, size_t bytes, uint64_t keep, uint64_t set, uint64_t add, memory_order order);
bool weak_swap(volatile void *place, size_t bytes, uint64_t *expected, uint64_t value, memory_order success,
               memory_order failure);

#define WEAK_VALUE(place) __typeof__((void)0, *(place))

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit

#define atomic_load_explicit(place, order) ((WEAK_VALUE(place))weak_load((place), sizeof *(place), (order)))
#define atomic_store_explicit(place, value, order)                                                                     \
    weak_store((place), sizeof *(place), (uint64_t)(WEAK_VALUE(place))(value), (order))
#define atomic_exchange_explicit(place, value, order)                                                                  \
    ((WEAK_VALUE(place))weak_modify((place), sizeof *(place), 0, (uint64_t)(value), 0, (order)))
#define atomic_fetch_add_explicit(place, value, order)                                                                 \
    ((WEAK_VALUE(place))weak_modify((place), sizeof *(place), UINT64_MAX, 0, (uint64_t)(value), (order)))
#define atomic_fetch_sub_explicit(place, value, order)                                                                 \
    ((WEAK_VALUE(place))weak_modify((place), sizeof *(place), UINT64_MAX, 0, -(uint64_t)(value), (order)))
#define atomic_fetch_or_explicit(place, value, order)                                                                  \
    ((WEAK_VALUE(place))weak_modify((place), sizeof *(place), UINT64_MAX, (uint64_t)(value), 0, (order)))
#define atomic_fetch_and_explicit(place, value, order)                                                                 \
    ((WEAK_VALUE(place))weak_modify((place), sizeof *(place), (uint64_t)(value), 0, 0, (order)))
#define atomic_compare_exchange_strong_explicit(place, expected, value, success, failure)                              \
    __extension__({                                                                                                    \
        uint64_t weak_expected = *(expected);                                                                          \
        bool weak_swapped =                                                                                            \
            weak_swap((place), sizeof *(place), &weak_expected, (uint64_t)(value), (success), (failure));              \
        *(expected) = (WEAK_VALUE(place))weak_expected;                                                                \
        weak_swapped;                                                                                                  \
    })
#define atomic_compare_exchange_weak_explicit atomic_compare_exchange_strong_explicit

#endif
