// SPDX-License-Identifier: Apache-2.0
#include "vmm/lost_memory.h"

#include "loam/types.h"

#include <errno.h>
#include <sys/mman.h>

/* Linux 5.14; Debian 12's C library has them, older ones do not. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#define PAGE_BYTES LOAM_FRAME_BYTES

/* Pages asked of mincore(2) at once, and pages of a region that are tried. */
#define VECTOR_PAGES 4096u
#define TRY_MAX      8u

/* --- One access --------------------------------------------------------------------------------------------------- */

static bool grants(const struct loam_gpa_view *view, loam_gpa gpa, bool is_write)
{
    struct loam_region region;

    return loam_gpa_view_find(view, gpa, &region) == LOAM_OK && region.type != LOAM_REGION_DEVICE &&
           (!is_write || region.access == LOAM_ACCESS_WRITE);
}

bool lost_memory_contradicts(const struct loam_gpa_view *view, loam_gpa gpa, uint32_t bytes, bool is_write,
                             loam_gpa *lost)
{
    loam_gpa last = loam_gpa_from_u64(gpa.value + bytes - 1);

    /* Regions are whole pages: 8 bytes lie in two at most. */
    *lost = grants(view, gpa, is_write) ? gpa : loam_gpa_from_u64(loam_align_down(last.value, PAGE_BYTES));
    return grants(view, gpa, is_write) || grants(view, last, is_write);
}

/* --- Pages -------------------------------------------------------------------------------------------------------- */

/* 0, or the errno with which the host refuses the page. EINVAL: a kernel that cannot be asked. */
static int populate(const struct loam_region *region, void *page)
{
    int advice = region->access == LOAM_ACCESS_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    int error;

    do {
        error = madvise(page, PAGE_BYTES, advice) == 0 ? 0 : errno;
    } while (error == EINTR || error == EAGAIN);
    return error == EINVAL ? 0 : error;
}

static void *page_of(const struct loam_region *region, loam_gpa gpa)
{
    return (uint8_t *)region->hva + loam_align_down(gpa.value - region->start.value, PAGE_BYTES);
}

int lost_memory_ask(const struct loam_gpa_view *view, loam_gpa gpa)
{
    struct loam_region region;

    if (loam_gpa_view_find(view, gpa, &region) != LOAM_OK || region.type == LOAM_REGION_DEVICE) {
        return 0;
    }
    return populate(&region, page_of(&region, gpa));
}

/* The first page from *offset on that is not populated; false: there is none. */
static bool find_absent(const struct loam_region *region, uint64_t *offset)
{
    unsigned char resident[VECTOR_PAGES];

    while (*offset < region->bytes) {
        uint64_t left = region->bytes - *offset;
        uint64_t part = left < VECTOR_PAGES * PAGE_BYTES ? left : VECTOR_PAGES * PAGE_BYTES;

        if (mincore((uint8_t *)region->hva + *offset, part, resident) != 0) {
            return false;
        }
        for (uint64_t i = 0; i < part / PAGE_BYTES; i++, *offset += PAGE_BYTES) {
            if ((resident[i] & 1) == 0) {
                return true;
            }
        }
    }
    return false;
}

/* A page that can be had makes its neighbours resident with it, where pages are large: so mincore(2) is asked anew. */
static bool find_in_region(const struct loam_region *region, loam_gpa *gpa)
{
    uint64_t offset = 0;

    for (uint32_t tries = 0; tries < TRY_MAX && find_absent(region, &offset); tries++) {
        *gpa = loam_gpa_from_u64(region->start.value + offset);
        if (populate(region, page_of(region, *gpa)) != 0) {
            return true;
        }
    }
    return false;
}

bool lost_memory_find(const struct loam_gpa_view *view, loam_gpa *gpa)
{
    struct loam_region region;

    for (uint32_t i = 0; loam_gpa_view_region(view, i, &region) == LOAM_OK; i++) {
        if (region.type != LOAM_REGION_DEVICE && find_in_region(&region, gpa)) {
            return true;
        }
    }
    *gpa = loam_gpa_from_u64(0);
    return false;
}
