// SPDX-License-Identifier: Apache-2.0
#include "allocator/backing_adopt.h"

#include "allocator/host/host_size.h"
#include "allocator/host/prim.h"

#include <inttypes.h>

static enum loam_error fault(const char *what, struct loam_diag *diag)
{
    return loam_fail(diag, LOAM_ERROR_INVALID, "backing: adoption wanted: %s", what);
}

/* --- A file -------------------------------------------------------------------------------------------------------- */

static enum loam_pages pages_of_file(uint64_t page_bytes, enum loam_pages wanted)
{
    enum loam_pages ordinary = wanted == LOAM_PAGES_THP ? LOAM_PAGES_THP : LOAM_PAGES_4K;

    return page_bytes == LOAM_GIB       ? LOAM_PAGES_1G
           : page_bytes == 2 * LOAM_MIB ? LOAM_PAGES_2M
           : page_bytes == 4 * LOAM_KIB ? ordinary
                                        : LOAM_PAGES_COUNT;
}

static enum loam_error check_file(const struct loam_backing_request *request, enum loam_pages *pages,
                                  struct loam_diag *diag)
{
    uint64_t file_bytes, page_bytes;

    if (request->hva != NULL || request->name != NULL || request->sharing == LOAM_SHARING_PRIVATE) {
        return fault("a file has no hva and no new name, and is shared: leave them zero", diag);
    }
    if (!loam_prim_file_size(request->fd, &file_bytes, &page_bytes)) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "backing: fstat of descriptor %d, which is to be adopted",
                         request->fd);
    }
    *pages = pages_of_file(page_bytes, request->pages);
    if (*pages == LOAM_PAGES_COUNT || (request->pages != LOAM_PAGES_AUTO && request->pages != *pages)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: pages of kind %s wanted of descriptor %d: its file has pages of %s: ask for AUTO",
                         loam_pages_name(request->pages), request->fd, loam_host_size_exact(page_bytes).text);
    }
    if (!loam_is_aligned(request->fd_offset | request->bytes | request->gpa.value, page_bytes)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: %#" PRIx64 " bytes at %#" PRIx64 " of descriptor %d for GPA %#" PRIx64
                         ": all must be multiples of %s",
                         request->bytes, request->fd_offset, request->fd, request->gpa.value,
                         loam_host_size_exact(page_bytes).text);
    }
    return loam_fits(request->fd_offset, request->bytes, file_bytes)
               ? LOAM_OK
               : loam_fail(diag, LOAM_ERROR_INVALID,
                           "backing: %#" PRIx64 " bytes at %#" PRIx64 " of descriptor %d wanted: its file has %#" PRIx64
                           ": make it larger first",
                           request->bytes, request->fd_offset, request->fd, file_bytes);
}

/* --- A mapping ------------------------------------------------------------------------------------------------------ */

static enum loam_error check_mapping(const struct loam_backing_request *request, enum loam_pages *pages,
                                     struct loam_diag *diag)
{
    uintptr_t hva = (uintptr_t)request->hva;
    uint64_t unit;

    *pages = request->pages == LOAM_PAGES_AUTO ? LOAM_PAGES_4K : request->pages;
    unit = *pages == LOAM_PAGES_THP ? LOAM_FRAME_BYTES : loam_pages_bytes(*pages);
    if (request->fd != 0 || request->fd_offset != 0 || request->name != NULL || request->sharing != LOAM_SHARING_ANY ||
        request->commit != LOAM_COMMIT_RESERVE || request->placement != LOAM_PLACEMENT_ANY || request->lock ||
        request->keep_from_children || request->keep_from_dumps || request->thread_count != 0) {
        return fault("a mapping is taken as it is: leave all but bytes, gpa, pages and hva zero", diag);
    }
    if (hva == 0 || hva > UINTPTR_MAX - request->bytes || !loam_is_aligned(hva, LOAM_FRAME_BYTES) ||
        !loam_is_aligned(hva - request->gpa.value, unit)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "backing: %#" PRIx64 " bytes mapped at HVA %p for GPA %#" PRIx64
                         ": the two must be congruent modulo %s",
                         request->bytes, request->hva, request->gpa.value, loam_host_size_exact(unit).text);
    }
    return LOAM_OK;
}

enum loam_error loam_backing_adopt_check(const struct loam_backing_request *request, enum loam_pages *pages,
                                         struct loam_diag *diag)
{
    *pages = request->pages;
    switch (request->adoption) {
    case LOAM_ADOPTION_NONE:
        return request->fd == 0 && request->fd_offset == 0 && request->hva == NULL
                   ? LOAM_OK
                   : fault("which kind? fd, fd_offset and hva count only with one: set adoption, or leave them zero",
                           diag);
    case LOAM_ADOPTION_FD:
        return check_file(request, pages, diag);
    case LOAM_ADOPTION_MAPPING:
        return check_mapping(request, pages, diag);
    default:
        return fault("there is none of that number", diag);
    }
}
