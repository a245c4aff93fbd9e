// SPDX-License-Identifier: Apache-2.0
/* References: mincore(2); lseek(2), SEEK_DATA; Linux, Documentation/admin-guide/mm/pagemap.rst. */
#include "vmm/resident.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE_BYTES  UINT64_C(4096)
#define WINDOW      512u                /* pages that are asked for at once */
#define PAGEMAP_ANY (UINT64_C(3) << 62) /* present, or swapped */

struct resident {
    uint32_t count;
    int pagemap_fd; /* -1: nothing is private */
    struct loam_backing_info parts[LOAM_PLAN_PART_MAX];
};

/* From at up to end the first that may be there, and where it ends, in bytes of the part. *start is end if there is none. */
typedef bool find_fn(const struct resident *resident, const struct loam_backing_info *part, uint64_t at, uint64_t end,
                     uint64_t *start, uint64_t *stop);

static bool find_all(const struct resident *resident, const struct loam_backing_info *part, uint64_t at, uint64_t end,
                     uint64_t *start, uint64_t *stop)
{
    (void)resident;
    (void)part;
    *start = at;
    *stop = end;
    return true;
}

static bool find_in_file(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                         uint64_t end, uint64_t *start, uint64_t *stop)
{
    off_t data = lseek(part->fd, (off_t)(part->fd_offset + at), SEEK_DATA), hole;

    (void)resident;
    *start = *stop = end;
    if (data < 0) {
        return errno == ENXIO;
    }
    if ((uint64_t)data - part->fd_offset >= end) {
        return true;
    }
    hole = lseek(part->fd, data, SEEK_HOLE);
    *start = (uint64_t)data - part->fd_offset;
    *stop = hole < 0 || (uint64_t)hole - part->fd_offset > end ? end : (uint64_t)hole - part->fd_offset;
    return true;
}

/* Which of up to WINDOW pages from at on are there. */
typedef bool window_fn(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                       uint64_t count, bool is_there[WINDOW]);

static bool ask_mincore(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                        uint64_t count, bool is_there[WINDOW])
{
    unsigned char answer[WINDOW];

    (void)resident;
    if (mincore((char *)part->hva + at, count * PAGE_BYTES, answer) < 0) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        is_there[i] = (answer[i] & 1) != 0;
    }
    return true;
}

static bool ask_pagemap(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                        uint64_t count, bool is_there[WINDOW])
{
    uint64_t entries[WINDOW];
    off_t offset = (off_t)(((uintptr_t)part->hva + at) / PAGE_BYTES * sizeof entries[0]);

    if (pread(resident->pagemap_fd, entries, count * sizeof entries[0], offset) !=
        (ssize_t)(count * sizeof entries[0])) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        is_there[i] = (entries[i] & PAGEMAP_ANY) != 0;
    }
    return true;
}

static bool find_by(window_fn *ask, const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                    uint64_t end, uint64_t *start, uint64_t *stop)
{
    bool is_there[WINDOW];

    for (*start = *stop = end; at < end; at += WINDOW * PAGE_BYTES) {
        const uint64_t left = (end - at) / PAGE_BYTES, count = left < WINDOW ? left : WINDOW;

        if (!ask(resident, part, at, count, is_there)) {
            return false;
        }
        for (uint64_t i = 0; i < count; i++) {
            if (is_there[i] && *start == end) {
                *start = at + i * PAGE_BYTES;
            } else if (!is_there[i] && *start != end) {
                *stop = at + i * PAGE_BYTES;
                return true;
            }
        }
    }
    return true;
}

static bool find_mincore(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                         uint64_t end, uint64_t *start, uint64_t *stop)
{
    return find_by(ask_mincore, resident, part, at, end, start, stop);
}

static bool find_pagemap(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                         uint64_t end, uint64_t *start, uint64_t *stop)
{
    return find_by(ask_pagemap, resident, part, at, end, start, stop);
}

static find_fn *finder_of(const struct loam_backing_info *part)
{
    if (part->adoption != LOAM_ADOPTION_NONE) {
        return find_all;
    }
    if (part->pages == LOAM_PAGES_2M || part->pages == LOAM_PAGES_1G) {
        return find_mincore;
    }
    return part->sharing == LOAM_SHARING_SHARED ? find_in_file : find_pagemap;
}

/* --- Public ------------------------------------------------------------------------------------------------------- */

enum loam_error resident_open(struct loam_memory *memory, struct resident **resident, struct loam_diag *diag)
{
    struct resident *made = calloc(1, sizeof *made);

    *resident = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "resident");
    }
    made->count = loam_memory_plan(memory)->part_count;
    made->pagemap_fd = -1;
    for (uint32_t i = 0; i < made->count; i++) {
        if (loam_memory_backing(memory, i, &made->parts[i]) != LOAM_OK) {
            made->count = i;
        }
        if (finder_of(&made->parts[i]) == find_pagemap && made->pagemap_fd < 0) {
            made->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
            if (made->pagemap_fd < 0) {
                resident_close(made);
                return loam_fail(diag, LOAM_ERROR_SYSTEM, "/proc/self/pagemap: cannot be opened");
            }
        }
    }
    *resident = made;
    return LOAM_OK;
}

void resident_close(struct resident *resident)
{
    if (resident->pagemap_fd >= 0) {
        close(resident->pagemap_fd);
    }
    free(resident);
}

/* The part that holds gpa; NULL: none. */
static const struct loam_backing_info *part_of(const struct resident *resident, uint64_t gpa)
{
    for (uint32_t i = 0; i < resident->count; i++) {
        if (gpa - resident->parts[i].gpa.value < resident->parts[i].bytes) {
            return &resident->parts[i];
        }
    }
    return NULL;
}

static enum loam_error walk_part(const struct resident *resident, const struct loam_backing_info *part, uint64_t at,
                                 uint64_t end, resident_run_fn *run, void *self, struct loam_diag *diag)
{
    find_fn *find = finder_of(part);
    enum loam_error error = LOAM_OK;
    uint64_t start, stop;

    while (error == LOAM_OK && at < end) {
        if (!find(resident, part, at, end, &start, &stop)) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "which pages are there from GPA 0x%" PRIx64 " on",
                             part->gpa.value + at);
        }
        if (start < end) {
            error = run(self, part->gpa.value + start, (const uint8_t *)part->hva + start, stop - start, diag);
        }
        at = stop;
    }
    return error;
}

enum loam_error resident_walk(const struct resident *resident, uint64_t gpa, uint64_t bytes, resident_run_fn *run,
                              void *self, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    for (uint64_t end = gpa + bytes, next; error == LOAM_OK && gpa < end; gpa = next) {
        const struct loam_backing_info *part = part_of(resident, gpa);

        if (part == NULL) {
            return loam_fail(diag, LOAM_ERROR_NOT_FOUND, "GPA 0x%" PRIx64 " is no RAM", gpa);
        }
        next = part->gpa.value + part->bytes < end ? part->gpa.value + part->bytes : end;
        error = walk_part(resident, part, gpa - part->gpa.value, next - part->gpa.value, run, self, diag);
    }
    return error;
}

uint8_t *resident_hva(const struct resident *resident, uint64_t gpa, uint64_t bytes)
{
    const struct loam_backing_info *part = part_of(resident, gpa);

    return part != NULL && bytes <= part->gpa.value + part->bytes - gpa ? (uint8_t *)part->hva + (gpa - part->gpa.value)
                                                                        : NULL;
}

bool resident_gpa(const struct resident *resident, uint64_t hva, uint64_t *gpa)
{
    for (uint32_t i = 0; i < resident->count; i++) {
        uint64_t offset = hva - (uintptr_t)resident->parts[i].hva;

        if (offset < resident->parts[i].bytes) {
            *gpa = resident->parts[i].gpa.value + offset;
            return true;
        }
    }
    return false;
}

uint64_t resident_page_bytes(const struct resident *resident, uint64_t gpa)
{
    const struct loam_backing_info *part = part_of(resident, gpa);

    return part == NULL ? 0 : part->pages == LOAM_PAGES_THP ? PAGE_BYTES : part->page_bytes;
}

/* In assembly: the guest, and the kernel for a device, write while it is read, which C has no name for. */
void resident_take(void *to, const uint8_t *hva, uint64_t count)
{
    for (uint64_t at = 0; at < count; at += 64) {
        __asm__ volatile("movups (%1), %%xmm0\n\t"
                         "movups 16(%1), %%xmm1\n\t"
                         "movups 32(%1), %%xmm2\n\t"
                         "movups 48(%1), %%xmm3\n\t"
                         "movups %%xmm0, (%0)\n\t"
                         "movups %%xmm1, 16(%0)\n\t"
                         "movups %%xmm2, 32(%0)\n\t"
                         "movups %%xmm3, 48(%0)"
                         :
                         : "r"((uint8_t *)to + at), "r"(hva + at)
                         : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
    }
}

void resident_copy(const struct resident *resident, uint64_t gpa, const uint8_t *bytes, uint64_t count)
{
    while (count > 0) {
        const struct loam_backing_info *part = part_of(resident, gpa);
        uint64_t room = part != NULL ? part->gpa.value + part->bytes - gpa : 0;
        uint64_t here = room < count ? room : count;

        if (part == NULL) {
            return;
        }
        memcpy((uint8_t *)part->hva + (gpa - part->gpa.value), bytes, here);
        gpa += here;
        bytes += here;
        count -= here;
    }
}
