// SPDX-License-Identifier: Apache-2.0
/*
 * Bytes as a kernel that is to be booted: inspected by every way, and loaded by the one that it wants, with as much beside it as its
 * last four bytes say. What does not hold ends the process by a trap, which a fuzzer and a test see alike.
 *
 * Threads: one.
 */
#ifndef LOAM_FUZZ_BOOT_PLAY_H
#define LOAM_FUZZ_BOOT_PLAY_H

#include <stddef.h>
#include <stdint.h>

/* The way by which it was loaded (boot_way's text), or NULL: it was refused. */
const char *boot_play(const uint8_t *data, size_t size);

#endif
