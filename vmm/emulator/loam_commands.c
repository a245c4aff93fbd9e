// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/loam_commands.h"

#include "loam/dma.h"
#include "vmm/emulator/smaps.h"
#include "vmm/report.h"

static const char *const region_names[LOAM_REGION_TYPE_COUNT] = {
    [LOAM_REGION_RAM] = "ram", [LOAM_REGION_RESERVED] = "reserved", [LOAM_REGION_DEVICE] = "device"};

json_t *loam_commands_plan(const struct launch *launch)
{
    return report_plan_json(&launch->plan);
}

json_t *loam_commands_ledger(const struct launch *launch)
{
    const struct loam_dma *dma = loam_memory_dma(launch->memory);
    json_t *entries = json_array();
    struct loam_dma_entry entry;

    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        json_array_append_new(entries, json_pack("{sssIsIsIsbsb}", "owner", entry.owner, "gpa",
                                                 (json_int_t)entry.buffer.gpa.value, "bytes",
                                                 (json_int_t)entry.buffer.bytes, "pins", (json_int_t)entry.pin_count,
                                                 "kept", entry.kept, "reserved", entry.reserved));
    }
    return entries;
}

json_t *loam_commands_memory_map(const struct launch *launch)
{
    struct loam_gpa_map *map = loam_memory_map(launch->memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    json_t *rows = json_array();
    struct loam_region region;

    for (uint32_t i = 0; loam_gpa_view_region(view, i, &region) == LOAM_OK; i++) {
        json_array_append_new(
            rows, json_pack("{sIsIsssbsbsI}", "gpa", (json_int_t)region.start.value, "bytes", (json_int_t)region.bytes,
                            "type", region_names[region.type], "readable", region.access >= LOAM_ACCESS_READ,
                            "writable", region.access >= LOAM_ACCESS_WRITE, "backing", (json_int_t)region.backing));
    }
    loam_gpa_map_release(map, view);
    return rows;
}

json_t *loam_commands_pages(const struct launch *launch)
{
    const struct loam_plan *plan = &launch->plan;
    json_t *parts = json_array();
    struct loam_backing_info info;
    struct smaps sum;

    for (uint32_t i = 0; i < plan->part_count && loam_memory_backing(launch->memory, i, &info) == LOAM_OK; i++) {
        if (smaps_of(info.hva, info.bytes, &sum)) {
            json_array_append_new(
                parts, json_pack("{sIsIsssIsIsIsI}", "gpa", (json_int_t)info.gpa.value, "bytes", (json_int_t)info.bytes,
                                 "pages", loam_pages_name(info.pages), "page_bytes", (json_int_t)sum.page,
                                 "resident_bytes", (json_int_t)sum.resident, "huge_bytes",
                                 (json_int_t)sum.resident_huge, "locked_bytes", (json_int_t)sum.locked));
        }
    }
    return parts;
}
