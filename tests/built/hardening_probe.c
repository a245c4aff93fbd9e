// SPDX-License-Identifier: Apache-2.0
/*
 * Functions that the compiler guards only where it was told to. They are compiled as all modules are and never run: the
 * test reads what became of them.
 */
#include "tests/built/hardening_probe.h"

#include <string.h>

/* No array, but a local whose address leaves: guarded by -fstack-protector-strong, not by -fstack-protector. */
int hardening_probe_address_leaves(void (*use)(int *value))
{
    int value = 0;

    use(&value);
    return value;
}

/* The room is known when it runs, and not before: checked from _FORTIFY_SOURCE 3 on. */
void hardening_probe_copy(size_t room_bytes, const char *from, size_t bytes, void (*use)(char *to))
{
    char to[room_bytes];

    memcpy(to, from, bytes);
    use(to);
}

/* The room is known when it is compiled: checked from _FORTIFY_SOURCE 1 on. */
void hardening_probe_copy_into_array(const char *from, size_t bytes, void (*use)(char *to))
{
    char to[64];

    memcpy(to, from, bytes);
    use(to);
}

/* A frame of many pages, each of which must be touched on the way down. */
void hardening_probe_large_frame(void (*use)(char *to))
{
    char to[1 << 16];

    use(to);
}
