// SPDX-License-Identifier: Apache-2.0
/*
 * The identity map beyond the first GiB, which start.S has made: made GiB by GiB, of what the table names.
 *
 * With pages of 1 GiB it reaches 512 GiB; without, 64 GiB in all, wherever they lie below 512 GiB.
 */
#ifndef LOAM_GUEST_PAGING_H
#define LOAM_GUEST_PAGING_H

#include <stdbool.h>
#include <stdint.h>

/* Find out whether the processor has pages of 1 GiB. Exceptions are installed. */
void paging_init(void);

/* Map [start, start + bytes). False, with nothing promised, if it is empty, wraps, or lies out of reach. */
bool paging_map(uint64_t start, uint64_t bytes);

#endif
