// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/e820.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PC_START UINT64_C(0xa0000)
#define PC_END   UINT64_C(0x100000)

void e820_read(const char *log, struct e820 *map)
{
    static const char label[] = "BIOS-e820: [mem ";

    map->count = 0;
    for (const char *at = log; (at = strstr(at, label)) != NULL && map->count < E820_ENTRY_MAX; at++) {
        struct e820_entry *entry = &map->entries[map->count];
        uint64_t last;
        char kind[16];

        if (sscanf(at + strlen(label), "%" SCNx64 "-%" SCNx64 "] %15s", &entry->start, &last, kind) == 3) {
            entry->end = last + 1;
            entry->is_usable = strcmp(kind, "usable") == 0;
            map->count++;
        }
    }
}

uint64_t e820_bytes(const struct e820 *map, uint64_t start, uint64_t end, bool usable_alone)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < map->count; i++) {
        const struct e820_entry *entry = &map->entries[i];
        uint64_t from = entry->start > start ? entry->start : start, to = entry->end < end ? entry->end : end;

        if (from < to && (entry->is_usable || !usable_alone)) {
            bytes += to - from;
        }
    }
    return bytes;
}

/* What one part of the plan has in the map, added up. */
struct sums {
    uint64_t planned, usable;
};

static bool add_part(const struct e820 *map, const json_t *part, struct sums *sums)
{
    uint64_t start = (uint64_t)json_integer_value(json_object_get(part, "gpa"));
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(part, "bytes"));

    sums->planned += bytes;
    sums->usable += e820_bytes(map, start, start + bytes, true);
    return e820_bytes(map, start, start + bytes, false) == bytes;
}

const char *e820_differs(const struct e820 *map, const json_t *plan, uint64_t tables_max)
{
    const json_t *parts = json_object_get(json_object_get(plan, "plan"), "parts");
    static char reason[160];
    struct sums sums = {0};
    uint64_t usable = e820_bytes(map, 0, UINT64_MAX, true), left;

    for (size_t i = 0; i < json_array_size(parts); i++) {
        if (!add_part(map, json_array_get(parts, i), &sums)) {
            snprintf(reason, sizeof reason, "part %zu of the plan is not all in the map", i);
            return reason;
        }
    }
    left = sums.planned - sums.usable;
    if (sums.planned == 0 || usable != sums.usable) {
        snprintf(reason, sizeof reason, "%" PRIu64 " bytes are usable, %" PRIu64 " of them planned", usable,
                 sums.usable);
        return reason;
    }
    if (e820_bytes(map, PC_START, PC_END, true) != 0 || left > PC_END - PC_START + tables_max) {
        snprintf(reason, sizeof reason, "%" PRIu64 " bytes of the plan are not usable", left);
        return reason;
    }
    return NULL;
}
