// SPDX-License-Identifier: Apache-2.0
#include "allocator/host/host_size.h"

#include "loam/types.h"

#include <inttypes.h>
#include <stdio.h>

struct loam_host_size loam_host_size(uint64_t bytes, bool round_up)
{
    struct loam_host_size size;
    uint64_t unit = bytes < LOAM_MIB ? LOAM_KIB : LOAM_MIB;
    const char *name = bytes < LOAM_MIB ? "KiB" : "MiB";
    uint64_t count = bytes / unit + (round_up && bytes % unit != 0);

    if (bytes % LOAM_GIB == 0 && bytes != 0) {
        count = bytes / LOAM_GIB;
        name = "GiB";
    }
    snprintf(size.text, sizeof size.text, "%" PRIu64 " %s", count, name);
    return size;
}

struct loam_host_size loam_host_size_exact(uint64_t bytes)
{
    struct loam_host_size size;

    if (bytes % LOAM_MIB == 0) {
        return loam_host_size(bytes, false);
    }
    if (bytes % LOAM_KIB == 0) {
        snprintf(size.text, sizeof size.text, "%" PRIu64 " KiB", bytes / LOAM_KIB);
    } else {
        snprintf(size.text, sizeof size.text, "%" PRIu64 " bytes", bytes);
    }
    return size;
}
