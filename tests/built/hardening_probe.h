// SPDX-License-Identifier: Apache-2.0
/* What hardening_test looks for in the object file of hardening_probe.c. Never called. */
#ifndef TESTS_BUILT_HARDENING_PROBE_H
#define TESTS_BUILT_HARDENING_PROBE_H

#include <stddef.h>

int hardening_probe_address_leaves(void (*use)(int *value));
void hardening_probe_copy(size_t room_bytes, const char *from, size_t bytes, void (*use)(char *to));
void hardening_probe_copy_into_array(const char *from, size_t bytes, void (*use)(char *to));
void hardening_probe_large_frame(void (*use)(char *to));

#endif
