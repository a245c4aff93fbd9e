// SPDX-License-Identifier: Apache-2.0
/*
 * Loops over pages, in as few instructions a page as there can be: on the weakest host, which emulates each, one costs
 * 0.8 to 1.9 us, and a guest of 6 GiB has 1.6 million pages. Bodies are unrolled, so that counting costs next to
 * nothing.
 *
 * A sweep that compares stops at the first difference and says where; the caller looks closer.
 */
#ifndef LOAM_GUEST_SWEEP_H
#define LOAM_GUEST_SWEEP_H

#include "guest/platform.h"

#include <stdint.h>

#define SWEEP_UNROLL 16u
#define SWEEP_BYTES  (SWEEP_UNROLL * PLATFORM_PAGE_BYTES)

/* Each page of [gpa, end) gets its own address in its first word: 2 instructions a page. Both are page-aligned. */
#define SWEEP_WRITE_OWN(gpa, end, unroll)                                                                              \
    __asm__ volatile("1:\n\t"                                                                                          \
                     ".rept " unroll "\n\t"                                                                            \
                     "movq %0, (%0)\n\t"                                                                               \
                     "addq $4096, %0\n\t"                                                                              \
                     ".endr\n\t"                                                                                       \
                     "cmpq %1, %0\n\t"                                                                                 \
                     "jb 1b"                                                                                           \
                     : "+r"(gpa)                                                                                       \
                     : "r"(end)                                                                                        \
                     : "memory", "cc")

static inline void sweep_write_own(uint64_t gpa, uint64_t end)
{
    uint64_t unrolled_end = gpa + (end - gpa) / SWEEP_BYTES * SWEEP_BYTES;

    if (gpa < unrolled_end) {
        SWEEP_WRITE_OWN(gpa, unrolled_end, "16");
    }
    if (gpa < end) {
        SWEEP_WRITE_OWN(gpa, end, "1");
    }
}

/* Where the first page of [gpa, end) lies whose first word is not its own address, or end: 3 instructions a page. */
#define SWEEP_CHECK_OWN(gpa, end, unroll)                                                                              \
    __asm__ volatile("1:\n\t"                                                                                          \
                     ".rept " unroll "\n\t"                                                                            \
                     "cmpq %0, (%0)\n\t"                                                                               \
                     "jne 2f\n\t"                                                                                      \
                     "addq $4096, %0\n\t"                                                                              \
                     ".endr\n\t"                                                                                       \
                     "cmpq %1, %0\n\t"                                                                                 \
                     "jb 1b\n"                                                                                         \
                     "2:"                                                                                              \
                     : "+r"(gpa)                                                                                       \
                     : "r"(end)                                                                                        \
                     : "memory", "cc")

static inline uint64_t sweep_check_own(uint64_t gpa, uint64_t end)
{
    uint64_t unrolled_end = gpa + (end - gpa) / SWEEP_BYTES * SWEEP_BYTES;

    if (gpa < unrolled_end) {
        SWEEP_CHECK_OWN(gpa, unrolled_end, "16");
    }
    if (gpa == unrolled_end && gpa < end) {
        SWEEP_CHECK_OWN(gpa, end, "1");
    }
    return gpa;
}

/*
 * Write and read back at SWEEP_UNROLL page boundaries, from gpa on: 8 bytes astride each, so that one access tests the
 * end of a page and the start of the next: 3 instructions a page. gpa and end are page-aligned, a multiple of
 * SWEEP_BYTES apart, and mapped from 4 bytes before gpa on. Each block has a value of its own, from its address.
 * Returns the first block with a difference in it, or end.
 */
static inline uint64_t sweep_seam_value(uint64_t block)
{
    uint64_t page = block / PLATFORM_PAGE_BYTES; /* 40 bits; the low 32 tell blocks apart within 16 TiB */

    return ~page << 32 | (page & UINT32_MAX);
}

static inline uint64_t sweep_seams(uint64_t gpa, uint64_t end)
{
    uint64_t value = sweep_seam_value(gpa);
    /* (~page << 32) + page grows by this when page grows by SWEEP_UNROLL. */
    uint64_t step = SWEEP_UNROLL - ((uint64_t)SWEEP_UNROLL << 32);

    if (gpa < end) {
        __asm__ volatile("1:\n\t"
                         ".set displacement, -4\n\t"
                         ".rept 16\n\t"
                         "movq %1, displacement(%0)\n\t"
                         "cmpq %1, displacement(%0)\n\t"
                         "jne 2f\n\t"
                         ".set displacement, displacement + 4096\n\t"
                         ".endr\n\t"
                         "addq %3, %1\n\t"
                         "addq $65536, %0\n\t"
                         "cmpq %2, %0\n\t"
                         "jb 1b\n"
                         "2:"
                         : "+r"(gpa), "+r"(value)
                         : "r"(end), "r"(step)
                         : "memory", "cc");
    }
    return gpa;
}

/* Where the first word of [gpa, end) lies that is not zero, or end. Both are multiples of 8; gpa < end. */
static inline uint64_t sweep_zero(uint64_t gpa, uint64_t end)
{
    uint64_t count = (end - gpa) / 8;
    bool zero;

    __asm__ volatile("repe scasq" : "+D"(gpa), "+c"(count), "=@cce"(zero) : "a"(UINT64_C(0)) : "memory");
    return zero ? end : gpa - 8;
}

#endif
