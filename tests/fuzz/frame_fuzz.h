// SPDX-License-Identifier: Apache-2.0
/* A program of operations on the frame allocator, read from bytes. One thread. */
#ifndef LOAM_FRAME_FUZZ_H
#define LOAM_FRAME_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/*
 * The first byte chooses a geometry; all others are operations, their arguments and their misuse, as far as they go:
 * any bytes are a program. NULL: the oracle agreed to every answer; otherwise what was wrong, until the next call.
 */
const char *frame_fuzz_run(const uint8_t *data, size_t size);

#endif
