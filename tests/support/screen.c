// SPDX-License-Identifier: Apache-2.0
#include "tests/support/screen.h"

#include <stdio.h>
#include <string.h>

static void erase(struct screen *screen, unsigned row, unsigned from, unsigned to)
{
    memset(screen->rows[row] + from, ' ', to - from);
}

void screen_init(struct screen *screen)
{
    memset(screen, 0, sizeof *screen);
    for (unsigned row = 0; row < SCREEN_ROWS; row++) {
        erase(screen, row, 0, SCREEN_COLUMNS);
    }
}

static void erase_screen(struct screen *screen, unsigned mode)
{
    for (unsigned row = mode == 2 ? 0 : screen->row; row < SCREEN_ROWS; row++) {
        erase(screen, row, mode == 2 || row > screen->row ? 0 : screen->column, SCREEN_COLUMNS);
    }
}

static unsigned within(unsigned value, unsigned end)
{
    return value == 0 ? 0 : value - 1 < end ? value - 1 : end - 1;
}

/* ESC [ parameters letter, the last of which has just come. */
static void obey(struct screen *screen)
{
    unsigned first = 0, second = 0;

    screen->sequence[screen->sequence_length] = '\0';
    sscanf(screen->sequence + 1, "[%u;%u", &first, &second);
    switch (screen->sequence[screen->sequence_length - 1]) {
    case 'H':
    case 'f':
        screen->row = within(first, SCREEN_ROWS);
        screen->column = within(second, SCREEN_COLUMNS);
        break;
    case 'J':
        erase_screen(screen, first);
        break;
    case 'K':
        erase(screen, screen->row, screen->column, SCREEN_COLUMNS);
        break;
    default:
        break;
    }
}

static void read_sequence(struct screen *screen, char byte)
{
    bool is_first = screen->sequence_length == 1;

    screen->sequence[screen->sequence_length++] = byte;
    if (is_first ? byte != '[' : byte >= '@' && byte <= '~') {
        if (!is_first) {
            obey(screen);
        }
        screen->sequence_length = 0;
    } else if (screen->sequence_length == sizeof screen->sequence - 1) {
        screen->sequence_length = 0;
    }
}

static void put(struct screen *screen, char byte)
{
    if (byte == '\r') {
        screen->column = 0;
    } else if (byte == '\n') {
        screen->row += screen->row + 1 < SCREEN_ROWS;
    } else if (byte == '\b') {
        screen->column -= screen->column > 0;
    } else if (byte >= ' ' && screen->column < SCREEN_COLUMNS) {
        screen->rows[screen->row][screen->column++] = byte;
    }
}

void screen_write(struct screen *screen, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (screen->sequence_length > 0 || bytes[i] == '\033') {
            if (screen->sequence_length == 0) {
                screen->sequence[screen->sequence_length++] = bytes[i];
            } else {
                read_sequence(screen, bytes[i]);
            }
        } else {
            put(screen, bytes[i]);
        }
    }
}

const char *screen_find(const struct screen *screen, const char *text)
{
    for (unsigned row = 0; row < SCREEN_ROWS; row++) {
        if (strstr(screen->rows[row], text) != NULL) {
            return screen->rows[row];
        }
    }
    return NULL;
}
