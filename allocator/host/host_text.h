// SPDX-License-Identifier: Apache-2.0
/*
 * Small files of figures, as /proc and /sys have them, read with every figure checked.
 *
 * A figure that is none, or does not fit, is LOAM_ERROR_SYSTEM with EBADMSG, and diag names the file. A file that is
 * not there, or not for this process to read, is no error but has no figures: the caller knows what that means.
 *
 * Private to the allocator. Threads: any.
 */
#ifndef LOAM_HOST_TEXT_H
#define LOAM_HOST_TEXT_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOAM_HOST_TEXT_FIGURE_MAX 64u                /* characters of a file that holds one figure */
#define LOAM_HOST_TEXT_TABLE_MAX  ((size_t)16 << 10) /* characters of meminfo, memory.stat, status */

/* Whether this errno of a read means that the file is not there for us. */
bool loam_host_text_absent(int read_errno);

/* *present is false, and text empty, where the file is not there. */
LOAM_MUST_USE enum loam_error loam_host_text_file(const char *path, char *text, size_t bytes, bool *present,
                                                  struct loam_diag *diag);

/* A list of any length, to be freed with loam_prim_heap_free; empty where the file is not there. */
LOAM_MUST_USE enum loam_error loam_host_text_list(const char *path, char **text, struct loam_diag *diag);

/* A file of one figure; 0 where it is not there. */
LOAM_MUST_USE enum loam_error loam_host_text_figure(const char *path, uint64_t *value, bool *present,
                                                    struct loam_diag *diag);

/*
 * A figure of a table that was read from path, in bytes: the one after label, times unit_bytes. Where the table lacks
 * it, *bytes is 0, and needed says whether that is an error.
 */
LOAM_MUST_USE enum loam_error loam_host_text_labelled(const char *path, const char *text, const char *label,
                                                      uint64_t unit_bytes, bool needed, uint64_t *bytes,
                                                      struct loam_diag *diag);

/* Digits up to a blank, a line's end or the text's end: no sign, nothing beyond 64 bits. */
bool loam_host_text_parse(const char *text, uint64_t *value);

enum loam_error loam_host_text_malformed(const char *path, struct loam_diag *diag);

/* Sums and differences of figures that need not fit together, since the host changes between two reads. */
static inline uint64_t loam_add_capped(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static inline uint64_t loam_subtract_floored(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

#endif
