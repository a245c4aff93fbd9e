// SPDX-License-Identifier: Apache-2.0
/*
 * One instruction of x86 in words, by libcapstone: for reports, not for carrying anything out.
 *
 * Intel's syntax. The bytes may be a hostile guest's. The library is asked anew each time and nothing stays open: whoever
 * reports does so once.
 *
 * Threads: any. It takes memory from the heap, and gives it back.
 */
#ifndef LOAM_VMM_DISASSEMBLY_H
#define LOAM_VMM_DISASSEMBLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISASSEMBLY_NAME_BYTES 32u
#define DISASSEMBLY_TEXT_BYTES 200u

/* How the processor reads code: what an operand and an address have without a prefix. */
enum disassembly_width { DISASSEMBLY_16, DISASSEMBLY_32, DISASSEMBLY_64 };

/* Printable ASCII. */
struct disassembly {
    char name[DISASSEMBLY_NAME_BYTES]; /* "popcnt"; without LOCK and REP */
    char text[DISASSEMBLY_TEXT_BYTES]; /* "popcnt eax, ecx" */
    uint32_t bytes;                    /* 1 to 15 */
};

/*
 * The instruction at the beginning of count bytes of code, which lie at address. false: they are none that the library knows,
 * or only a part of one, or there is no memory; *disassembly is empty then.
 */
bool disassembly_of(const uint8_t *code, size_t count, uint64_t address, enum disassembly_width width,
                    struct disassembly *disassembly);

#endif
