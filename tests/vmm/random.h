// SPDX-License-Identifier: Apache-2.0
/* Random numbers that a seed gives again: splitmix64 (Steele, Lea and Flood, OOPSLA 2014). For tests. */
#ifndef LOAM_TESTS_VMM_RANDOM_H
#define LOAM_TESTS_VMM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state; /* starts as the seed */
};

static inline uint64_t random_u64(struct random *random)
{
    uint64_t x = random->state += UINT64_C(0x9e3779b97f4a7c15);

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* From 0 to count - 1. */
static inline uint32_t random_below(struct random *random, uint32_t count)
{
    return (uint32_t)(random_u64(random) % count);
}

static inline bool random_one_in(struct random *random, uint32_t count)
{
    return random_below(random, count) == 0;
}

#endif
