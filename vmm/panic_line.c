// SPDX-License-Identifier: Apache-2.0
#include "vmm/panic_line.h"

#include <string.h>

static const char phrase[] = "Kernel panic - not syncing";

#define PHRASE_BYTES (sizeof phrase - 1)

static bool is_end(char byte)
{
    return byte == '\n' || byte == '\r' || byte == '\0';
}

static void keep(struct panic_line *line, char byte)
{
    line->text[line->length++] = byte;
    line->is_whole = line->length == PANIC_LINE_BYTES;
}

/* No part of the phrase but its first byte begins it anew. */
static void look(struct panic_line *line, char byte)
{
    if (byte != phrase[line->length]) {
        line->length = 0;
    }
    if (byte == phrase[line->length]) {
        keep(line, byte);
    }
}

void panic_line_add(struct panic_line *line, const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count && !line->is_whole; i++) {
        const char byte = (char)bytes[i];

        if (line->length < PHRASE_BYTES) {
            look(line, byte);
        } else if (is_end(byte)) {
            line->is_whole = true;
        } else {
            keep(line, byte);
        }
    }
}

const char *panic_line_text(const struct panic_line *line)
{
    return line->length >= PHRASE_BYTES ? line->text : "";
}
