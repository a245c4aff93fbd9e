// SPDX-License-Identifier: Apache-2.0
/* The four functions that a compiler calls unasked, also where there is no library (GCC manual, section 2.1). */
#ifndef LOAM_GUEST_MEMORY_H
#define LOAM_GUEST_MEMORY_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *left, const void *right, size_t bytes);

#endif
