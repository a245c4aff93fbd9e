// SPDX-License-Identifier: Apache-2.0
/* A range of this process's memory by the kernel's account: /proc/self/smaps. Threads: any. */
#ifndef LOAM_VMM_EMULATOR_SMAPS_H
#define LOAM_VMM_EMULATOR_SMAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Sums over the mappings that lie within the range, in bytes. */
struct smaps {
    uint64_t mapped;
    uint64_t resident;      /* in pages of any kind */
    uint64_t resident_huge; /* in pages that the processor maps as one of 2 MiB or more */
    uint64_t page;          /* of the pool, the largest; 4 KiB where it is none */
    uint64_t locked;
};

/* Of a file of smaps' form, as far as it makes sense. false: it cannot be read. Closes nothing. */
bool smaps_sum(FILE *file, uint64_t start, uint64_t bytes, struct smaps *sum);

/* Of this process. false: there is no such file. */
bool smaps_of(const void *start, size_t bytes, struct smaps *sum);

#endif
