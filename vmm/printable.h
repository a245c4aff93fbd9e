// SPDX-License-Identifier: Apache-2.0
/*
 * Text that others chose (names of files, arguments, what a kernel says of itself), made fit to be shown.
 *
 * A terminal obeys control bytes: what could do harm there is shown as \xNN, a byte at a time, and all else stays as it
 * is. For JSON, which has a form of its own for them, see utf8.h.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_PRINTABLE_H
#define LOAM_VMM_PRINTABLE_H

#include <stdbool.h>
#include <stddef.h>

/* What each byte can become: \xNN. */
#define PRINTABLE_GROWTH 4u

/*
 * For a person: control characters (C0 but line feed and tab, DEL, C1) and bytes that are no UTF-8 (RFC 3629) are shown
 * as \xNN. text has count bytes, output room for PRINTABLE_GROWTH times as many and a NUL. Returns the length without
 * the NUL.
 */
size_t printable_escape(const char *text, size_t count, char *output);

/* Whether printable_escape would change nothing. */
bool printable_is_clean(const char *text, size_t count);

#define PRINTABLE_BYTES 4096u /* no message is longer */

/* A message as a value. */
struct printable {
    char text[PRINTABLE_BYTES * PRINTABLE_GROWTH + 1];
};

/* printable_escape of a string, of PRINTABLE_BYTES at most. */
struct printable printable_of(const char *text);

#endif
