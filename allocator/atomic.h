// SPDX-License-Identifier: Apache-2.0
/*
 * Memory that several threads, or processes, read and write at once: one way to say so. Each takes the member itself, an
 * integer or a pointer, declared _Atomic or not. Without a suffix the order is relaxed: no tearing, and no order with
 * anything else. _ordered is sequentially consistent. Who has a member to himself uses it as any other.
 *
 * Every order but relaxed has a comment where it stands, which says what it pairs with.
 */
#ifndef LOAM_ATOMIC_H
#define LOAM_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SHARED_TYPE(member)  __typeof__((void)0, (member))
#define SHARED_PLACE(member) ((_Atomic(SHARED_TYPE(member)) *)(uintptr_t) & (member))

#define shared_load(member)         atomic_load_explicit(SHARED_PLACE(member), memory_order_relaxed)
#define shared_load_acquire(member) atomic_load_explicit(SHARED_PLACE(member), memory_order_acquire)
#define shared_load_ordered(member) atomic_load_explicit(SHARED_PLACE(member), memory_order_seq_cst)

#define shared_store(member, value)         atomic_store_explicit(SHARED_PLACE(member), (value), memory_order_relaxed)
#define shared_store_release(member, value) atomic_store_explicit(SHARED_PLACE(member), (value), memory_order_release)
#define shared_store_ordered(member, value) atomic_store_explicit(SHARED_PLACE(member), (value), memory_order_seq_cst)

/* These return what was there. */
#define shared_exchange_acquire(member, value)                                                                         \
    atomic_exchange_explicit(SHARED_PLACE(member), (value), memory_order_acquire)
#define shared_exchange_ordered(member, value)                                                                         \
    atomic_exchange_explicit(SHARED_PLACE(member), (value), memory_order_seq_cst)
#define shared_add(member, value)         atomic_fetch_add_explicit(SHARED_PLACE(member), (value), memory_order_relaxed)
#define shared_add_release(member, value) atomic_fetch_add_explicit(SHARED_PLACE(member), (value), memory_order_release)
#define shared_add_ordered(member, value) atomic_fetch_add_explicit(SHARED_PLACE(member), (value), memory_order_seq_cst)
#define shared_subtract(member, value)    atomic_fetch_sub_explicit(SHARED_PLACE(member), (value), memory_order_relaxed)
#define shared_subtract_release(member, value)                                                                         \
    atomic_fetch_sub_explicit(SHARED_PLACE(member), (value), memory_order_release)
#define shared_or_release(member, value) atomic_fetch_or_explicit(SHARED_PLACE(member), (value), memory_order_release)
#define shared_or_ordered(member, value) atomic_fetch_or_explicit(SHARED_PLACE(member), (value), memory_order_seq_cst)
#define shared_and_both(member, value)   atomic_fetch_and_explicit(SHARED_PLACE(member), (value), memory_order_acq_rel)

/*
 * Store value if the member is *found; else *found receives what is there, relaxed but for _both, where it is acquired.
 * Returns whether it was stored.
 */
#define shared_swap(member, found, value)                                                                              \
    atomic_compare_exchange_strong_explicit(SHARED_PLACE(member), (found), (value), memory_order_relaxed,              \
                                            memory_order_relaxed)
#define shared_swap_acquire(member, found, value)                                                                      \
    atomic_compare_exchange_strong_explicit(SHARED_PLACE(member), (found), (value), memory_order_acquire,              \
                                            memory_order_relaxed)
#define shared_swap_release(member, found, value)                                                                      \
    atomic_compare_exchange_strong_explicit(SHARED_PLACE(member), (found), (value), memory_order_release,              \
                                            memory_order_relaxed)
#define shared_swap_both(member, found, value)                                                                         \
    atomic_compare_exchange_strong_explicit(SHARED_PLACE(member), (found), (value), memory_order_acq_rel,              \
                                            memory_order_acquire)

#endif
