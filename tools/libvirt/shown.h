// SPDX-License-Identifier: Apache-2.0
/*
 * Words of others (hosts' names, URIs, libvirt's messages) as a person or a program is shown them.
 *
 * Threads: any.
 */
#ifndef LOAM_LIBVIRT_SHOWN_H
#define LOAM_LIBVIRT_SHOWN_H

#include "tools/libvirt/words.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

/* A text as a value: one line, nothing in it that a terminal obeys, cut after SHOWN_BYTES bytes of the original. */
#define SHOWN_BYTES 2048u
struct shown {
    char text[SHOWN_BYTES * 4 + 4];
};
struct shown shown_line(const char *text);

/* The figure, or "unknown" where it is UINT64_MAX. */
struct word shown_count(uint64_t count);
struct word shown_amount(uint64_t bytes);

/* A new reference: the text as UTF-8; NULL where it is empty, and where the figure is UINT64_MAX: null. */
json_t *shown_json_text(const char *text);
json_t *shown_json_figure(uint64_t figure);

/*
 * Print an object to standard output, and let go of it; have all that was printed written. Returns status, or 3, with one
 * line on standard error, where that cannot be done.
 */
int shown_finish(json_t *object, int status);

#endif
