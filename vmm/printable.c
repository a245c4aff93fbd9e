// SPDX-License-Identifier: Apache-2.0
#include "vmm/printable.h"

#include "vmm/utf8.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* What a terminal takes for a command: C0 but line feed and tab, DEL, C1. */
static bool is_control(const uint8_t *text, size_t bytes)
{
    return bytes == 1 ? (text[0] < 0x20 && text[0] != '\n' && text[0] != '\t') || text[0] == 0x7f
                      : bytes == 2 && text[0] == 0xc2 && text[1] < 0xa0;
}

/* How many bytes belong together; *fit: they can be shown as they are. */
static size_t measure(const char *text, size_t count, bool *fit)
{
    size_t bytes = utf8_measure(text, count, fit);

    *fit = *fit && !is_control((const uint8_t *)text, bytes);
    return bytes;
}

size_t printable_escape(const char *text, size_t count, char *output)
{
    size_t length = 0;

    for (size_t at = 0, step; at < count; at += step) {
        bool fit;

        step = measure(text + at, count - at, &fit);
        for (size_t i = at; i < at + step; i++) {
            if (fit) {
                output[length++] = text[i];
            } else {
                length += (size_t)snprintf(output + length, PRINTABLE_GROWTH + 1, "\\x%02x", (uint8_t)text[i]);
            }
        }
    }
    output[length] = '\0';
    return length;
}

bool printable_is_clean(const char *text, size_t count)
{
    bool fit = true;

    for (size_t at = 0; fit && at < count;) {
        at += measure(text + at, count - at, &fit);
    }
    return fit;
}

struct printable printable_of(const char *text)
{
    struct printable message;

    printable_escape(text, strnlen(text, PRINTABLE_BYTES), message.text);
    return message;
}
