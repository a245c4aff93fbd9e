// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/smaps.h"

#include <inttypes.h>
#include <string.h>

#define KIB UINT64_C(1024)

/* Figures of one mapping (proc(5)) by what they are added to. Pages of the pool are not among "Rss". */
static void add_figure(struct smaps *sum, const char *name, uint64_t bytes)
{
    static const char *const pool[] = {"Shared_Hugetlb", "Private_Hugetlb"};
    static const char *const joined[] = {"AnonHugePages", "ShmemPmdMapped", "FilePmdMapped"};

    for (size_t i = 0; i < sizeof pool / sizeof pool[0]; i++) {
        if (strcmp(name, pool[i]) == 0) {
            sum->resident += bytes;
            sum->resident_huge += bytes;
        }
    }
    for (size_t i = 0; i < sizeof joined / sizeof joined[0]; i++) {
        sum->resident_huge += strcmp(name, joined[i]) == 0 ? bytes : 0;
    }
    if (strcmp(name, "Rss") == 0) {
        sum->resident += bytes;
    } else if (strcmp(name, "Locked") == 0) {
        sum->locked += bytes;
    } else if (strcmp(name, "Size") == 0) {
        sum->mapped += bytes;
    } else if (strcmp(name, "KernelPageSize") == 0 && bytes > sum->page) {
        sum->page = bytes;
    }
}

bool smaps_sum(FILE *file, uint64_t start, uint64_t bytes, struct smaps *sum)
{
    char line[512], name[32];
    bool is_within = false;
    uint64_t from, to, kib;

    *sum = (struct smaps){0};
    while (fgets(line, sizeof line, file) != NULL) {
        /* A mapping's first line has no colon before its first space; a figure's has. */
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &from, &to) == 2) {
            is_within = from >= start && to <= start + bytes;
        } else if (is_within && sscanf(line, "%31[A-Za-z_]: %" SCNu64 " kB", name, &kib) == 2) {
            add_figure(sum, name, kib * KIB);
        }
    }
    return ferror(file) == 0;
}

bool smaps_of(const void *start, size_t bytes, struct smaps *sum)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    bool is_read = file != NULL && smaps_sum(file, (uintptr_t)start, bytes, sum);

    if (file != NULL) {
        fclose(file);
    }
    return is_read;
}
