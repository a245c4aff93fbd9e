// SPDX-License-Identifier: Apache-2.0
/*
 * /init of a Linux that is saved and goes on: counts in all of its memory, in its registers and in those of the FPU, checks at each step that
 * it finds what it left, says so, and turns the machine off. What is not as it was it names, and ends, which the kernel answers with a panic.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/reboot.h>

#define WORD_COUNT  (UINT64_C(1) << 20)
#define ROUND_COUNT 400u

static uint64_t words[WORD_COUNT];

static uint64_t expected(uint64_t round, size_t at)
{
    return round == 0 ? 0 : round * UINT64_C(0x9e3779b97f4a7c15) ^ at;
}

/* How many words are not as they were left; all have the next round's value afterwards. */
static size_t count_on(uint64_t round, double *steps)
{
    size_t wrong = 0;

    for (size_t at = 0; at < WORD_COUNT; at++) {
        wrong += words[at] != expected(round - 1, at);
        words[at] = expected(round, at);
        *steps += 1.0;
    }
    return wrong;
}

int main(void)
{
    double steps = 0;

    for (uint64_t round = 1; round <= ROUND_COUNT; round++) {
        const size_t wrong = count_on(round, &steps);

        if (wrong != 0 || steps != (double)(round * WORD_COUNT)) {
            printf("counting: %zu words wrong in round %" PRIu64 ", after %f steps\n", wrong, round, steps);
            return 1;
        }
        printf("counting: round %" PRIu64 "\n", round);
        fflush(stdout);
    }
    puts("counting: whole");
    fflush(stdout);
    return reboot(RB_POWER_OFF);
}
