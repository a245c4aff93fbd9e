// SPDX-License-Identifier: Apache-2.0
/*
 * Text that nobody vouches for, made fit for JSON: whatever is no UTF-8 becomes the replacement character.
 *
 * Reference: RFC 3629; the Unicode Standard, section 3.9, for how much of a broken sequence one replacement stands for.
 * Pure; any thread.
 */
#ifndef LOAM_VMM_UTF8_H
#define LOAM_VMM_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Room that utf8_repair wants for count bytes, with the zero byte at the end: each may become a replacement. */
#define UTF8_REPAIRED_BYTES(count) ((count)*3 + 1)

/*
 * How many of count bytes, 1 or more, belong together, at least 1. *good: they are one character; else they stand for one
 * replacement, and so does a zero byte.
 */
size_t utf8_measure(const void *bytes, size_t count, bool *good);

/*
 * Copy count bytes to text as UTF-8 that holds no zero byte but its last: a zero and each broken sequence become one
 * replacement. Returns the length.
 */
size_t utf8_repair(const void *bytes, size_t count, char *text);

#endif
