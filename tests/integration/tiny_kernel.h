// SPDX-License-Identifier: Apache-2.0
/* A kernel of a few instructions as a PVH ELF file. */
#ifndef LOAM_TESTS_INTEGRATION_TINY_KERNEL_H
#define LOAM_TESTS_INTEGRATION_TINY_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/*
 * Write to path a kernel whose code, 4 KiB at most, lies at GUEST_BASE (kernel_guests.h) and is entered at its beginning;
 * system is what its Xen note calls it. Its symbol table has all of the code as the function "guest". A failure fails the test.
 */
void tiny_kernel_write(const char *path, const char *system, const uint8_t *code, const uint8_t *end);

/* Write bytes to a new file. A failure fails the test. */
void tiny_kernel_write_file(const char *path, const void *bytes, size_t count);

#endif
