// SPDX-License-Identifier: Apache-2.0
#include "vmm/utf8.h"

#include <stdint.h>
#include <string.h>

/* What a sequence may look like, by its first byte; the second has bounds of its own, those after it 0x80 to 0xbf. */
struct sequence {
    uint8_t first_least, first_most;
    uint8_t bytes;
    uint8_t second_least, second_most;
};

static const struct sequence sequences[] = {
    {0x01, 0x7f, 1, 0, 0},       {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
    {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, /* no surrogates */
    {0xee, 0xef, 3, 0x80, 0xbf}, {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf},
    {0xf4, 0xf4, 4, 0x80, 0x8f}, /* up to U+10FFFF */
    {0x00, 0xff, 0, 0, 0},       /* any other: never good */
};

static const struct sequence *sequence_of(uint8_t first)
{
    const struct sequence *sequence = sequences;

    while (first < sequence->first_least || first > sequence->first_most) {
        sequence++;
    }
    return sequence;
}

size_t utf8_measure(const void *bytes, size_t count, bool *good)
{
    const uint8_t *at = bytes;
    const struct sequence *sequence = sequence_of(at[0]);
    size_t length = 1;

    *good = false;
    for (; length < sequence->bytes && length < count; length++) {
        uint8_t least = length == 1 ? sequence->second_least : 0x80, most = length == 1 ? sequence->second_most : 0xbf;

        if (at[length] < least || at[length] > most) {
            return length;
        }
    }
    *good = length == sequence->bytes;
    return length;
}

size_t utf8_repair(const void *bytes, size_t count, char *text)
{
    const uint8_t *from = bytes;
    size_t length = 0;

    for (size_t at = 0, step; at < count; at += step) {
        bool good;
        size_t written;

        step = utf8_measure(from + at, count - at, &good);
        written = good ? step : sizeof UTF8_REPLACEMENT - 1;
        memcpy(text + length, good ? (const void *)(from + at) : UTF8_REPLACEMENT, written);
        length += written;
    }
    text[length] = '\0';
    return length;
}
