// SPDX-License-Identifier: Apache-2.0
/*
 * A terminal's screen, as a test reads it: 80 by 25 characters, kept up from what a program writes. Knows the sequences
 * of a VT100 that full-screen programs use: cursor position, erase; colours and modes are passed over. Pure.
 */
#ifndef LOAM_TEST_SCREEN_H
#define LOAM_TEST_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#define SCREEN_ROWS    25
#define SCREEN_COLUMNS 80

struct screen {
    char rows[SCREEN_ROWS][SCREEN_COLUMNS + 1];
    unsigned row, column;
    char sequence[32]; /* the escape sequence that is being read */
    size_t sequence_length;
};

void screen_init(struct screen *screen);
void screen_write(struct screen *screen, const char *bytes, size_t count);

/* The first row that holds text, or NULL. */
const char *screen_find(const struct screen *screen, const char *text);

#endif
