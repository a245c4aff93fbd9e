// SPDX-License-Identifier: Apache-2.0
/*
 * The line in which a Linux kernel says on its console that it has panicked: "Kernel panic - not syncing: " and why
 * (Linux: kernel/panic.c). It is how a guest without pvpanic is known to have reset itself for that reason. The first
 * such line counts: others follow from it, and its end repeats it.
 *
 * The guest chose the text: it is shown as printable.h says.
 *
 * Threads: one at a time.
 */
#ifndef LOAM_VMM_PANIC_LINE_H
#define LOAM_VMM_PANIC_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PANIC_LINE_BYTES 160u

/* text[0 .. length) is the line as far as it has come, of which fewer bytes than the phrase's are kept if they are its. */
struct panic_line {
    size_t length;
    bool is_whole; /* its end has come, or it is cut */
    char text[PANIC_LINE_BYTES + 1];
};

/* Starts as {0}. */
void panic_line_add(struct panic_line *line, const uint8_t *bytes, size_t count);

/* The line, cut at PANIC_LINE_BYTES; "": there was none. line's own. */
const char *panic_line_text(const struct panic_line *line);

#endif
