// SPDX-License-Identifier: Apache-2.0
/* What a test can not do under a sanitizer, which maps memory and starts threads of its own. */
#ifndef LOAM_TESTS_SANITIZER_H
#define LOAM_TESTS_SANITIZER_H

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZER_MAPS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZER_MAPS 1
#endif
#endif
#ifndef SANITIZER_MAPS
#define SANITIZER_MAPS 0
#endif

#if defined(__SANITIZE_THREAD__)
#define SANITIZER_THREADS 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZER_THREADS 1
#endif
#endif
#ifndef SANITIZER_THREADS
#define SANITIZER_THREADS 0
#endif

/* First in a case that runs one instruction at a time. */
#define SKIP_WHERE_A_SANITIZER_CALLS()                                                                                 \
    do {                                                                                                               \
        if (SANITIZER_THREADS) {                                                                                       \
            cr_skip("each access calls ThreadSanitizer, which would be interrupted half-way");                         \
        }                                                                                                              \
    } while (0)

/*
 * First in a case of a program that has little more memory or threads than it says, or whose faults raise signals. A case
 * that is skipped does not tear down by itself.
 */
#define SKIP_WHERE_A_SANITIZER_RUNS_THE_PROGRAM(tear_down)                                                             \
    do {                                                                                                               \
        if (SANITIZER_MAPS) {                                                                                          \
            tear_down();                                                                                               \
            cr_skip("the sanitizer takes memory and threads of its own, and signals later");                           \
        }                                                                                                              \
    } while (0)

/* First in a case that leaves the process no address space. */
#define SKIP_WHERE_A_SANITIZER_MAPS()                                                                                  \
    do {                                                                                                               \
        if (SANITIZER_MAPS) {                                                                                          \
            cr_skip("the sanitizer needs address space of its own for each thread");                                   \
        }                                                                                                              \
    } while (0)

#endif
