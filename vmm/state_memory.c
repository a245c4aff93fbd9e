// SPDX-License-Identifier: Apache-2.0
#include "vmm/state_memory.h"

#include <inttypes.h>
#include <string.h>

enum { ENTRY_KEPT = 1u << 0, ENTRY_RESERVED = 1u << 1 };

/* --- Saving ------------------------------------------------------------------------------------------------------- */

uint32_t state_memory_ranges(const struct loam_plan *plan, struct state_range ranges[STATE_RANGE_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];
        struct state_range *last = &ranges[count > 0 ? count - 1 : 0];

        if (count > 0 && last->start + last->bytes == part->start.value) {
            last->bytes += part->bytes;
        } else {
            ranges[count++] = (struct state_range){part->start.value, part->bytes};
        }
    }
    return count;
}

void state_memory_save_plan(const struct loam_plan *plan, struct state_writer *writer)
{
    struct state_range ranges[STATE_RANGE_MAX];
    uint32_t count = state_memory_ranges(plan, ranges);

    state_begin(writer, STATE_PLAN, 0);
    state_put_u64(writer, plan->request.bytes);
    state_put_u64(writer, plan->request.low_limit_bytes);
    state_put_u64(writer, plan->request.dma32_reserve_bytes);
    state_put_u32(writer, plan->pages);
    state_put_u32(writer, count);
    state_put(writer, ranges, count * sizeof ranges[0]);
    state_end(writer);
}

/* RAM that the guest may not write: all else follows from plan and ledger. */
static void save_map(struct loam_memory *memory, struct state_writer *writer)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    struct loam_region region;

    state_begin(writer, STATE_MAP, 0);
    for (uint32_t i = 0; loam_gpa_view_region(view, i, &region) == LOAM_OK; i++) {
        if (region.type == LOAM_REGION_RAM && region.access != LOAM_ACCESS_WRITE) {
            state_put_u64(writer, region.start.value);
            state_put_u64(writer, region.bytes);
            state_put_u32(writer, region.access);
        }
    }
    state_end(writer);
    loam_gpa_map_release(map, view);
}

static void save_ledger(struct loam_memory *memory, struct state_writer *writer)
{
    struct loam_dma *dma = loam_memory_dma(memory);
    struct loam_dma_entry entry;

    state_begin(writer, STATE_LEDGER, 0);
    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        state_put_u64(writer, entry.buffer.gpa.value);
        state_put_u64(writer, entry.buffer.bytes);
        state_put_u32(writer, entry.pin_count);
        state_put_u32(writer, (entry.kept ? ENTRY_KEPT : 0u) | (entry.reserved ? ENTRY_RESERVED : 0u));
        state_put_text(writer, entry.owner, strlen(entry.owner));
    }
    state_end(writer);
}

void state_memory_save(struct loam_memory *memory, struct state_writer *writer)
{
    state_memory_save_plan(loam_memory_plan(memory), writer);
    save_map(memory, writer);
    save_ledger(memory, writer);
}

/* --- The plan ------------------------------------------------------------------------------------------------------- */

struct saved_plan {
    struct loam_memory_request request;
    uint32_t range_count;
    struct state_range ranges[STATE_RANGE_MAX];
};

static enum loam_error take_plan(struct state_reader *reader, struct saved_plan *plan, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_PLAN, 0, &record, diag);

    *plan = (struct saved_plan){.range_count = 0};
    if (error != LOAM_OK) {
        return error;
    }
    plan->request.bytes = state_take_u64(record);
    plan->request.low_limit_bytes = state_take_u64(record);
    plan->request.dma32_reserve_bytes = state_take_u64(record);
    plan->request.pages = state_take_u32(record);
    plan->range_count = state_take_u32(record);
    if (plan->request.pages >= LOAM_PAGES_COUNT || plan->range_count > STATE_RANGE_MAX) {
        return state_refuse(record, diag, "pages of kind %u, and %" PRIu32 " ranges", plan->request.pages,
                            plan->range_count);
    }
    state_take(record, plan->ranges, plan->range_count * sizeof plan->ranges[0]);
    return state_done(record, diag);
}

enum loam_error state_memory_request(struct state_reader *reader, struct loam_memory_request *request,
                                     struct loam_diag *diag)
{
    struct saved_plan saved;
    enum loam_error error = take_plan(reader, &saved, diag);

    if (error == LOAM_OK) {
        request->bytes = saved.request.bytes;
        request->low_limit_bytes = saved.request.low_limit_bytes;
        request->dma32_reserve_bytes = saved.request.dma32_reserve_bytes;
        request->pages = request->pages == LOAM_PAGES_AUTO ? saved.request.pages : request->pages;
    }
    return error;
}

enum loam_error state_memory_check(struct state_reader *reader, const struct loam_plan *plan, struct loam_diag *diag)
{
    struct state_range here[STATE_RANGE_MAX];
    const uint32_t count = state_memory_ranges(plan, here);
    struct saved_plan saved;
    enum loam_error error = take_plan(reader, &saved, diag);

    if (error != LOAM_OK) {
        return error;
    }
    for (uint32_t i = 0; i < count && i < saved.range_count; i++) {
        const struct state_range *there = &saved.ranges[i];

        if (there->start != here[i].start || there->bytes != here[i].bytes) {
            return loam_fail(diag, LOAM_ERROR_INVALID,
                             "state: RAM of 0x%" PRIx64 " bytes at GPA 0x%" PRIx64 " wanted, and 0x%" PRIx64
                             " at 0x%" PRIx64 " found here: give it as much as it had",
                             there->bytes, there->start, here[i].bytes, here[i].start);
        }
    }
    return count == saved.range_count ? LOAM_OK
                                      : loam_fail(diag, LOAM_ERROR_INVALID,
                                                  "state: %" PRIu32 " ranges of RAM wanted, and %" PRIu32
                                                  " found here: give it as much as it had",
                                                  saved.range_count, count);
}

/* --- Loading -------------------------------------------------------------------------------------------------------- */

struct saved_entry {
    uint64_t start, bytes;
    uint32_t pin_count, flags;
    char owner[LOAM_DMA_OWNER_MAX + 1];
};

/* What every memory has from its creation on. */
static bool is_there(const struct loam_dma *dma, const struct saved_entry *saved)
{
    struct loam_dma_entry entry;

    return loam_dma_find(dma, (loam_gpa){saved->start}, &entry) == LOAM_OK && entry.buffer.gpa.value == saved->start &&
           entry.buffer.bytes == saved->bytes && strcmp(entry.owner, saved->owner) == 0;
}

static enum loam_error carve(struct loam_dma *dma, const struct saved_entry *saved, struct state_record *record,
                             struct loam_diag *diag)
{
    const struct loam_dma_request request = {.owner = saved->owner,
                                             .bytes = saved->bytes,
                                             .at = {saved->start},
                                             .flags = LOAM_DMA_AT | LOAM_DMA_NO_ZERO |
                                                      ((saved->flags & ENTRY_KEPT) != 0 ? LOAM_DMA_KEEP : 0u) |
                                                      ((saved->flags & ENTRY_RESERVED) != 0 ? LOAM_DMA_RESERVED : 0u)};
    struct loam_dma_buffer buffer;
    struct loam_diag why = {0};
    enum loam_error error = loam_dma_alloc(dma, &request, &buffer, &why);

    if (error != LOAM_OK) {
        return state_refuse(record, diag, "%s", why.text);
    }
    for (uint32_t i = 0; error == LOAM_OK && i < saved->pin_count; i++) {
        error = loam_dma_pin(dma, buffer.id);
    }
    return error;
}

static enum loam_error load_ledger(struct loam_dma *dma, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_LEDGER, 0, &record, diag);

    while (error == LOAM_OK && state_left(record) > 0) {
        struct saved_entry saved = {.start = state_take_u64(record)};

        saved.bytes = state_take_u64(record);
        saved.pin_count = state_take_u32(record);
        saved.flags = state_take_u32(record);
        state_take_text(record, saved.owner, sizeof saved.owner);
        if (record->is_short || saved.pin_count > UINT16_MAX) {
            return state_refuse(record, diag, "an entry is cut, or pinned %" PRIu32 " times", saved.pin_count);
        }
        error = is_there(dma, &saved) ? LOAM_OK : carve(dma, &saved, record, diag);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}

static enum loam_error protect(struct loam_gpa_map *map, struct state_record *record, struct loam_diag *diag)
{
    const uint64_t start = state_take_u64(record), bytes = state_take_u64(record);
    const uint32_t access = state_take_u32(record);
    struct loam_region region = {.type = LOAM_REGION_DEVICE};
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    bool is_ram = loam_gpa_view_find(view, (loam_gpa){start}, &region) == LOAM_OK && region.type == LOAM_REGION_RAM &&
                  loam_fits(start - region.start.value, bytes, region.bytes);

    loam_gpa_map_release(map, view);
    if (record->is_short || !is_ram || access >= LOAM_ACCESS_WRITE ||
        loam_gpa_map_protect(map, (loam_gpa){start}, bytes, access) != LOAM_OK) {
        return state_refuse(record, diag,
                            "access %" PRIu32 " to 0x%" PRIx64 " bytes at GPA 0x%" PRIx64 " cannot be had", access,
                            bytes, start);
    }
    return LOAM_OK;
}

static enum loam_error load_map(struct loam_gpa_map *map, struct state_reader *reader, struct loam_diag *diag)
{
    struct state_record *record;
    enum loam_error error = state_find(reader, STATE_MAP, 0, &record, diag);

    while (error == LOAM_OK && state_left(record) > 0) {
        error = protect(map, record, diag);
    }
    return error == LOAM_OK ? state_done(record, diag) : error;
}

enum loam_error state_memory_load(struct loam_memory *memory, struct state_reader *reader, struct loam_diag *diag)
{
    enum loam_error error = state_memory_check(reader, loam_memory_plan(memory), diag);

    if (error == LOAM_OK) {
        error = load_ledger(loam_memory_dma(memory), reader, diag);
    }
    return error == LOAM_OK ? load_map(loam_memory_map(memory), reader, diag) : error;
}
