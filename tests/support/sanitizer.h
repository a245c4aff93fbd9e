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

/* First in a case that leaves the process no address space. */
#define SKIP_WHERE_A_SANITIZER_MAPS()                                                                                  \
    do {                                                                                                               \
        if (SANITIZER_MAPS) {                                                                                          \
            cr_skip("the sanitizer needs address space of its own for each thread");                                   \
        }                                                                                                              \
    } while (0)

#endif
