// SPDX-License-Identifier: Apache-2.0
/* A guest that holds the runtime's memory functions (guest/memory.h) against loops of single bytes. */
#include "guest/guest.h"

#include <stdbool.h>

enum { AREA_BYTES = 32, FILL = 0xa5 };

static volatile unsigned char area[AREA_BYTES], expected[AREA_BYTES]; /* volatile: no loop here becomes such a call */

static void fill(void)
{
    for (unsigned i = 0; i < AREA_BYTES; i++) {
        area[i] = expected[i] = (unsigned char)(i * 7 + 1);
    }
}

static bool same(void)
{
    for (unsigned i = 0; i < AREA_BYTES; i++) {
        if (area[i] != expected[i]) {
            return false;
        }
    }
    return true;
}

/* Every move of up to 16 bytes within the area, whether or not the two places overlap. */
static bool moves(unsigned to, unsigned from, unsigned bytes)
{
    unsigned char before[AREA_BYTES];
    bool apart = to + bytes <= from || from + bytes <= to;

    fill();
    for (unsigned i = 0; i < AREA_BYTES; i++) {
        before[i] = area[i];
    }
    for (unsigned i = 0; i < bytes; i++) {
        expected[to + i] = before[from + i];
    }
    if (memmove((void *)&area[to], (void *)&area[from], bytes) != &area[to] || !same()) {
        return false;
    }
    for (unsigned i = 0; i < AREA_BYTES; i++) {
        area[i] = before[i];
    }
    return !apart || (memcpy((void *)&area[to], (void *)&area[from], bytes) == &area[to] && same());
}

static bool sets(unsigned to, unsigned bytes)
{
    fill();
    for (unsigned i = 0; i < bytes; i++) {
        expected[to + i] = FILL;
    }
    return memset((void *)&area[to], FILL | 0x100, bytes) == &area[to] && same();
}

/* Two stretches that differ at one place, or not at all. */
static bool compares(unsigned bytes, unsigned at)
{
    unsigned char left[AREA_BYTES], right[AREA_BYTES];
    bool differ = at < bytes;

    for (unsigned i = 0; i < AREA_BYTES; i++) {
        left[i] = right[i] = 0x80;
    }
    left[at] = 0x7f;
    return differ ? memcmp(left, right, bytes) < 0 && memcmp(right, left, bytes) > 0 : memcmp(left, right, bytes) == 0;
}

_Noreturn void guest_main(uint64_t start_info)
{
    bool good = pvh_valid(start_info);

    exceptions_install("runtime");
    for (unsigned bytes = 0; bytes <= 16; bytes++) {
        for (unsigned to = 0; to < 16; to++) {
            for (unsigned from = 0; from < 16; from++) {
                good = good && moves(to, from, bytes);
            }
            good = good && sets(to, bytes) && compares(bytes, to);
        }
    }
    platform_exit(good ? LOAM_ABI_EXIT_PASS : LOAM_ABI_EXIT_FAIL);
}
