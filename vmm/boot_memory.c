// SPDX-License-Identifier: Apache-2.0
#include "vmm/boot_memory.h"

#include "loam/dma.h"
#include "loam/gpa_map.h"

#include <inttypes.h>
#include <string.h>

/* --- All or nothing ---------------------------------------------------------------------------------------------- */

void boot_memory_begin(struct boot_memory *carved, struct loam_memory *memory)
{
    carved->memory = memory;
    carved->buffer_count = 0;
}

void boot_memory_undo(struct boot_memory *carved)
{
    while (carved->buffer_count > 0) {
        uint64_t id = carved->ids[--carved->buffer_count];
        enum loam_error error = loam_dma_release(loam_memory_dma(carved->memory), id);

        /* Nobody else has seen the id: nobody can have pinned or released the buffer. */
        (void)error;
    }
}

/* --- Carving ----------------------------------------------------------------------------------------------------- */

/* What a refusal of the ledger means to a caller of boot_load. */
static enum loam_error error_from_dma(enum loam_error error)
{
    switch (error) {
    case LOAM_ERROR_NOT_FOUND:
    case LOAM_ERROR_NOT_PERMITTED:
        return LOAM_ERROR_INVALID;
    case LOAM_ERROR_BUSY:
        return LOAM_ERROR_EXHAUSTED;
    default:
        return error;
    }
}

static enum loam_error explain(const struct loam_dma_request *request, enum loam_error error,
                               const struct loam_diag *found, struct loam_diag *diag)
{
    if (error == LOAM_ERROR_SYSTEM) {
        if (diag != NULL) {
            *diag = *found;
        }
        return error;
    }
    if ((request->flags & LOAM_DMA_AT) != 0) {
        return loam_fail(diag, error_from_dma(error),
                         "%s: guest memory [0x%" PRIx64 ", 0x%" PRIx64 ") wanted, but it cannot be had: %s",
                         request->owner, request->at.value, request->at.value + request->bytes, found->text);
    }
    return loam_fail(diag, error_from_dma(error), "%s: %" PRIu64 " bytes of guest memory wanted: %s", request->owner,
                     request->bytes, found->text);
}

enum loam_error boot_memory_carve(struct boot_memory *carved, const struct loam_dma_request *request,
                                  struct loam_dma_buffer *buffer, struct loam_diag *diag)
{
    struct loam_diag found = {0};
    enum loam_error error;

    *buffer = (struct loam_dma_buffer){0};
    if (carved->buffer_count == BOOT_MEMORY_BUFFER_MAX) {
        return loam_fail(diag, LOAM_ERROR_EXHAUSTED, "%s: more than %d separate ranges of guest memory wanted",
                         request->owner, BOOT_MEMORY_BUFFER_MAX);
    }
    error = loam_dma_alloc(loam_memory_dma(carved->memory), request, buffer, &found);
    if (error != LOAM_OK) {
        return explain(request, error, &found, diag);
    }
    carved->ids[carved->buffer_count++] = buffer->id;
    return LOAM_OK;
}

/* --- What both loaders place ------------------------------------------------------------------------------------- */

enum loam_error boot_memory_load_initrd(struct boot_memory *carved, const struct boot_file *initrd, loam_gpa limit,
                                        loam_gpa *start, struct loam_diag *diag)
{
    struct loam_dma_request request = {
        .owner = "initrd", .bytes = initrd->bytes, .limit = limit, .flags = LOAM_DMA_NO_ZERO};
    struct loam_dma_buffer buffer;
    enum loam_error error;

    *start = loam_gpa_from_u64(0);
    if (initrd->bytes == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "initrd: the file is empty: give one with contents, or none");
    }
    error = boot_memory_carve(carved, &request, &buffer, diag);
    if (error != LOAM_OK) {
        return error;
    }
    memcpy(buffer.hva, initrd->data, initrd->bytes);
    memset((uint8_t *)buffer.hva + initrd->bytes, 0, buffer.bytes - initrd->bytes);
    *start = buffer.gpa;
    return LOAM_OK;
}

enum loam_error boot_memory_e820(const struct boot_memory *carved, struct loam_e820_entry entries[BOOT_MEMORY_E820_MAX],
                                 uint32_t *count, struct loam_diag *diag)
{
    struct loam_gpa_map *map = loam_memory_map(carved->memory);
    const struct loam_gpa_view *view = loam_gpa_map_acquire(map);
    enum loam_error error = loam_gpa_view_e820(view, entries, BOOT_MEMORY_E820_MAX, count);

    loam_gpa_map_release(map, view);
    if (error != LOAM_OK) {
        error = loam_fail(diag, error, "E820 map: %u rows, and boot parameters hold %d: use fewer memory ranges",
                          *count, BOOT_MEMORY_E820_MAX);
        *count = 0;
    }
    return error;
}
