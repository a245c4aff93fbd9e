// SPDX-License-Identifier: Apache-2.0
/* The self-test guest as a file in memory: an ELF without symbols, made by //guest:embedded. Constant; any thread. */
#ifndef LOAM_GUEST_EMBEDDED_H
#define LOAM_GUEST_EMBEDDED_H

#include <stddef.h>

extern const unsigned char loam_guest_selftest[];
extern const size_t loam_guest_selftest_bytes;

#endif
