// SPDX-License-Identifier: Apache-2.0
#include "tests/vmm/boot_fixture.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct loam_memory *fixture_memory(void)
{
    struct loam_memory_request request = {.bytes = FIXTURE_LOW_BYTES + FIXTURE_HIGH_BYTES,
                                          .low_limit_bytes = FIXTURE_LOW_BYTES,
                                          .pages = LOAM_PAGES_4K,
                                          .commit = LOAM_COMMIT_LAZY};
    struct loam_diag diag = {0};
    struct loam_memory *memory = NULL;
    struct loam_plan plan;

    cr_assert_eq(loam_plan_make(&request, &plan, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(loam_memory_create(&plan, &memory, &diag), LOAM_OK, "%s", diag.text);
    return memory;
}

void *fixture_hva(struct loam_memory *memory, uint64_t gpa, uint64_t bytes)
{
    struct loam_gpa_map *map = loam_memory_map(memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    void *hva = NULL;

    cr_assert_eq(loam_gpa_view_translate(view, loam_gpa_from_u64(gpa), bytes, LOAM_ACCESS_READ, &hva), LOAM_OK,
                 "0x%" PRIx64 " + 0x%" PRIx64 " is no RAM", gpa, bytes);
    loam_gpa_map_release(map, view);
    return hva;
}

struct fixture_ids fixture_ids(struct loam_memory *memory)
{
    struct fixture_ids ids = {.count = 0};
    struct loam_dma_entry entry;

    for (loam_gpa at = {0}; loam_dma_next(loam_memory_dma(memory), at, &entry) == LOAM_OK;
         at = loam_dma_entry_end(&entry)) {
        cr_assert_lt(ids.count, FIXTURE_IDS_MAX);
        ids.ids[ids.count++] = entry.buffer.id;
    }
    return ids;
}

bool fixture_ids_hold(const struct fixture_ids *ids, uint64_t id)
{
    for (uint32_t i = 0; i < ids->count; i++) {
        if (ids->ids[i] == id) {
            return true;
        }
    }
    return false;
}

void fixture_release_beyond(struct loam_memory *memory, const struct fixture_ids *ids)
{
    struct loam_dma *dma = loam_memory_dma(memory);
    struct loam_dma_entry entry;

    for (loam_gpa at = {0}; loam_dma_next(dma, at, &entry) == LOAM_OK; at = loam_dma_entry_end(&entry)) {
        if (!fixture_ids_hold(ids, entry.buffer.id)) {
            cr_assert_eq(loam_dma_release(dma, entry.buffer.id), LOAM_OK);
        }
    }
}

uint32_t fixture_owned(struct loam_memory *memory, const char *owner)
{
    struct loam_dma_entry entry;
    uint32_t count = 0;

    for (loam_gpa at = {0}; loam_dma_next(loam_memory_dma(memory), at, &entry) == LOAM_OK;
         at = loam_dma_entry_end(&entry)) {
        count += strcmp(entry.owner, owner) == 0;
    }
    return count;
}

struct boot_file fixture_file(const void *bytes, size_t size, const char *name)
{
    uint8_t *copy = malloc(size);

    cr_assert(copy != NULL || size == 0);
    if (size > 0) {
        memcpy(copy, bytes, size);
    }
    return (struct boot_file){copy, size, name};
}

void fixture_file_free(struct boot_file *file)
{
    free((void *)(uintptr_t)file->data);
    file->data = NULL;
}

void fixture_poke(uint8_t *file, const struct fixture_poke *poke)
{
    for (size_t i = 0; i < poke->bytes; i++) {
        file[poke->offset + i] = (uint8_t)(poke->value >> (8 * i));
    }
}

void fixture_apply(uint8_t *file, size_t *size, const struct fixture_case *wanted)
{
    for (size_t i = 0; i < FIXTURE_POKE_MAX; i++) {
        fixture_poke(file, &wanted->pokes[i]);
    }
    *size = wanted->size != 0 ? wanted->size : *size;
}

void fixture_check_refusal(const char *name, enum loam_error error, const struct loam_diag *diag, const char *expected)
{
    cr_assert(error == LOAM_ERROR_INVALID || error == LOAM_ERROR_EXHAUSTED, "%s: %s", name, loam_error_name(error));
    cr_assert_eq(diag->error, error, "%s", name);
    cr_assert(diag->text[0] != '\0' && strchr(diag->text, '\n') == NULL, "%s: '%s'", name, diag->text);
    cr_assert(strstr(diag->text, expected) != NULL, "%s: '%s' does not name '%s'", name, diag->text, expected);
}

enum loam_error fixture_refused_load(struct loam_memory *memory, const struct boot_request *request, const char *name,
                                     const char *expected)
{
    static const struct boot_state zero;
    uint32_t before = loam_dma_count(loam_memory_dma(memory));
    uint64_t free_before = loam_frame_get_stats(loam_memory_frame(memory)).free_frames;
    struct loam_diag diag = {0};
    struct boot_state state;
    enum loam_error error;

    memset(&state, 0xff, sizeof state);
    error = boot_load(memory, request, &state, &diag);
    fixture_check_refusal(name, error, &diag, expected);
    cr_assert_eq(loam_dma_count(loam_memory_dma(memory)), before, "%s: buffers are left", name);
    cr_assert_eq(loam_frame_get_stats(loam_memory_frame(memory)).free_frames, free_before, "%s: frames are lost", name);
    cr_assert(state.entry == zero.entry && state.parameters.value == 0 && state.image_bytes == 0, "%s", name);
    return error;
}
