// SPDX-License-Identifier: Apache-2.0
/*
 * The terminal's side of a guest's serial line: raw mode, and the keys that are meant for Loam instead of the
 * guest.
 *
 * console_raw hands every key to the program as it is pressed, Ctrl-c too; what the program writes is treated
 * as before. The terminal's old state comes back on console_restore, on exit(3), and before any signal ends the process:
 * from the first console_raw on, each signal that would end it and that nobody handles is caught, the terminal is
 * restored, and the signal does what it would have done. What is ignored stays ignored.
 *
 * A terminal that others have set anew meanwhile (a shell, when the program was stopped) is theirs, and left alone.
 *
 * Threads: console_restore from any and from signal handlers; the filter's calls on one filter one at a time;
 * else one thread.
 */
#ifndef LOAM_VMM_CONSOLE_H
#define LOAM_VMM_CONSOLE_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <termios.h>

/* --- The terminal ------------------------------------------------------------------------------------------------ */

/* The caller's, and in place until console_restore or exit(3). */
struct console {
    int fd;
    struct termios saved;
    struct termios raw; /* as it was told to be */
};

/* Whether this process may read fd's terminal now: it is in its foreground, or is not controlled by it. */
bool console_is_foreground(int fd);

/*
 * Put the terminal behind fd into raw mode and remember in console how it was. A process has one such
 * terminal at a time. LOAM_ERROR_NOT_FOUND: fd is no terminal, and nothing has changed. LOAM_ERROR_BUSY:
 * there is one already. LOAM_ERROR_SYSTEM: a call failed, and nothing has changed.
 */
LOAM_MUST_USE enum loam_error console_raw(struct console *console, int fd, struct loam_diag *diag);

/*
 * Bring the terminal's old state back, unless others have changed it; no effect without console_raw before, or a second
 * time. Async-signal-safe.
 */
void console_restore(void);

/* --- The filter -------------------------------------------------------------------------------------------------- */

#define CONSOLE_ESCAPE 0x01u /* Ctrl-a */

/* For a person, one line, no newline at its end. */
#define CONSOLE_HELP                                                                                                   \
    "Ctrl-a x: leave; Ctrl-a p: pause, and go on; Ctrl-a c: drop the keys that wait for the guest; "                   \
    "Ctrl-a Ctrl-a or Ctrl-a a: send Ctrl-a to the guest; Ctrl-a h: this help"

enum console_command {
    CONSOLE_COMMAND_NONE,
    CONSOLE_COMMAND_LEAVE, /* Ctrl-a x */
    CONSOLE_COMMAND_CLEAR, /* Ctrl-a c */
    CONSOLE_COMMAND_PAUSE, /* Ctrl-a p */
    CONSOLE_COMMAND_HELP,  /* Ctrl-a h */
    CONSOLE_COMMAND_COUNT
};

/* State across reads; starts as {0}. */
struct console_filter {
    bool escaped; /* the last byte was Ctrl-a, and is not yet given to anybody */
};

/*
 * Sort count keys: those for the guest go to output, which has room for count + 1. Stops after a command.
 * Ctrl-a Ctrl-a and Ctrl-a a give one Ctrl-a; any other key after Ctrl-a goes to the guest together with it.
 * Returns how many of the keys were taken: all of them, unless *command is one; the caller then calls again
 * with the rest.
 */
size_t console_filter(struct console_filter *filter, const uint8_t *keys, size_t count, uint8_t *output,
                      size_t *output_count, enum console_command *command);

#endif
