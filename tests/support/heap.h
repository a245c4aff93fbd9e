// SPDX-License-Identifier: Apache-2.0
/*
 * The heap of the code under test, seen and failed: with this linked, malloc, calloc, realloc and free of all that is
 * linked statically pass here. Libraries that are linked dynamically keep theirs. Whoever writes just behind a block is
 * found out when it is freed, and the program aborts.
 *
 *     uint32_t before = heap_block_count();
 *
 *     heap_fail(2);
 *     ... the second allocation from here on fails, and only that ...
 *     cr_assert_eq(heap_block_count(), before);
 *
 * Threads: any.
 */
#ifndef LOAM_TEST_HEAP_H
#define LOAM_TEST_HEAP_H

#include <stdint.h>

/* From now on the allocation number `call`, counted from 1, fails. 0: none does. */
void heap_fail(uint32_t call);

/* Allocations asked for since heap_fail, the failed one too. */
uint32_t heap_call_count(void);

/* Blocks that were allocated and not freed. */
uint32_t heap_block_count(void);

#endif
