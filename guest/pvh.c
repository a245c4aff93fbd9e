// SPDX-License-Identifier: Apache-2.0
#include "guest/pvh.h"

#include "guest/paging.h"
#include "guest/platform.h"

#include <stddef.h>

/* Whether the string at gpa is text; read no further than the first difference. */
static bool text_equals(uint64_t gpa, const char *text)
{
    for (;; gpa++, text++) {
        if (!paging_map(gpa, 1) || platform_load8(gpa) != (uint8_t)*text) {
            return false;
        }
        if (*text == '\0') {
            return true;
        }
    }
}

bool pvh_valid(uint64_t start_info)
{
    return paging_map(start_info, sizeof(struct pvh_start_info)) &&
           platform_load32(start_info + offsetof(struct pvh_start_info, magic)) == PVH_MAGIC;
}

bool pvh_find_module(uint64_t start_info, const char *command_line, struct pvh_module *module)
{
    uint32_t count = platform_load32(start_info + offsetof(struct pvh_start_info, module_count));
    uint64_t entry = platform_load64(start_info + offsetof(struct pvh_start_info, modules));

    for (; count > 0 && paging_map(entry, sizeof *module); count--, entry += sizeof *module) {
        module->start = platform_load64(entry + offsetof(struct pvh_module, start));
        module->bytes = platform_load64(entry + offsetof(struct pvh_module, bytes));
        module->command_line = platform_load64(entry + offsetof(struct pvh_module, command_line));
        if (module->command_line != 0 && text_equals(module->command_line, command_line)) {
            return true;
        }
    }
    return false;
}

#define VERSION_OFFSET     4u
#define MAP_OFFSET         40u
#define ENTRY_COUNT_OFFSET 48u
#define ENTRY_COUNT_MAX    128u /* of an E820 map */

uint32_t pvh_memory_map(uint64_t start_info, const struct pvh_memory **entries)
{
    uint64_t map;
    uint32_t count;

    if (platform_load32(start_info + VERSION_OFFSET) < 1 || !paging_map(start_info + MAP_OFFSET, 16)) {
        return 0;
    }
    map = platform_load64(start_info + MAP_OFFSET);
    count = platform_load32(start_info + ENTRY_COUNT_OFFSET);
    if (count == 0 || count > ENTRY_COUNT_MAX || !paging_map(map, count * sizeof **entries)) {
        return 0;
    }
    *entries = (const struct pvh_memory *)(uintptr_t)map;
    return count;
}
