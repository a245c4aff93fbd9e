// SPDX-License-Identifier: Apache-2.0
/* Text that is put together piece by piece in a caller's array, and cut where that ends. Pure; a text is one thread's. */
#ifndef LOAM_VMM_TEXT_H
#define LOAM_VMM_TEXT_H

#include "loam/error.h"

#include <stddef.h>

/* used < bytes; data[used] == 0 */
struct text {
    char *data;
    size_t bytes;
    size_t used;
};

/* An empty text in data, of bytes, 1 or more. */
struct text text_in(char *data, size_t bytes);

/* As printf, behind what is there. */
LOAM_PRINTF(2, 3)
void text_put(struct text *text, const char *format, ...);

#endif
