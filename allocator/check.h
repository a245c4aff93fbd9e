// SPDX-License-Identifier: Apache-2.0
/*
 * Broken invariants of Loam itself. Never for what a guest, a file, a socket or a caller supplies: that is an error.
 * CHECK is always compiled; ASSERT only in debug builds, and its condition has no side effects.
 */
#ifndef LOAM_CHECK_H
#define LOAM_CHECK_H

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0)) {                                                                       \
            __builtin_trap();                                                                                          \
        }                                                                                                              \
    } while (0)

#ifdef NDEBUG
#define ASSERT(condition) ((void)sizeof(condition))
#else
#define ASSERT(condition) CHECK(condition)
#endif

#endif
