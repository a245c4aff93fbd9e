// SPDX-License-Identifier: Apache-2.0
#include "tests/allocator/gpa_map_oracle.h"

#include <string.h>

#define TOP_WINDOW_START (LOAM_GPA_END - ORACLE_WINDOW_PAGES * ORACLE_PAGE_BYTES)

loam_gpa oracle_gpa(uint32_t page)
{
    uint64_t in_window = page % ORACLE_WINDOW_PAGES * ORACLE_PAGE_BYTES;

    return loam_gpa_from_u64(page < ORACLE_WINDOW_PAGES ? in_window : TOP_WINDOW_START + in_window);
}

/* The page that holds gpa; ORACLE_PAGES if no window does. */
static uint32_t page_of(uint64_t gpa)
{
    if (gpa < ORACLE_WINDOW_PAGES * ORACLE_PAGE_BYTES) {
        return (uint32_t)(gpa / ORACLE_PAGE_BYTES);
    }
    if (gpa >= TOP_WINDOW_START && gpa < LOAM_GPA_END) {
        return ORACLE_WINDOW_PAGES + (uint32_t)((gpa - TOP_WINDOW_START) / ORACLE_PAGE_BYTES);
    }
    return ORACLE_PAGES;
}

static const struct oracle_page *present_page(const struct oracle *oracle, uint64_t gpa)
{
    uint32_t page = page_of(gpa);

    return page < ORACLE_PAGES && oracle->pages[page].present ? &oracle->pages[page] : NULL;
}

static bool range_valid(loam_gpa start, uint64_t bytes)
{
    return bytes > 0 && (unsigned __int128)start.value + bytes <= LOAM_GPA_END;
}

static bool page_range_valid(loam_gpa start, uint64_t bytes)
{
    return range_valid(start, bytes) && start.value % ORACLE_PAGE_BYTES == 0 && bytes % ORACLE_PAGE_BYTES == 0;
}

static bool region_valid(const struct loam_region *region)
{
    uintptr_t hva = (uintptr_t)region->hva;

    if (!page_range_valid(region->start, region->bytes)) {
        return false;
    }
    if (region->type == LOAM_REGION_DEVICE) {
        return hva == 0 && region->backing == 0 && region->backing_offset == 0 && region->access == LOAM_ACCESS_NONE &&
               !region->log_dirty;
    }
    return (region->type == LOAM_REGION_RAM || region->type == LOAM_REGION_RESERVED) && hva != 0 &&
           hva % ORACLE_PAGE_BYTES == 0 && region->backing_offset % ORACLE_PAGE_BYTES == 0 &&
           (unsigned __int128)hva + region->bytes <= UINTPTR_MAX &&
           (unsigned __int128)region->backing_offset + region->bytes <= UINT64_MAX &&
           (region->access == LOAM_ACCESS_READ || region->access == LOAM_ACCESS_WRITE);
}

/* Whether page and the page behind it are one region. */
static bool joined_with_next(const struct oracle *oracle, uint32_t page)
{
    const struct oracle_page *a = &oracle->pages[page], *b = a + 1;

    if (page % ORACLE_WINDOW_PAGES == ORACLE_WINDOW_PAGES - 1 || !a->present || !b->present || a->type != b->type ||
        a->access != b->access || a->log_dirty != b->log_dirty) {
        return false;
    }
    return a->type == LOAM_REGION_DEVICE || (a->hva + ORACLE_PAGE_BYTES == b->hva && a->backing == b->backing &&
                                             a->backing_offset + ORACLE_PAGE_BYTES == b->backing_offset);
}

static struct loam_region region_from(const struct oracle *oracle, uint32_t first)
{
    const struct oracle_page *page = &oracle->pages[first];
    uint32_t last = first;

    while (joined_with_next(oracle, last)) {
        last++;
    }
    return (struct loam_region){.start = oracle_gpa(first),
                                .bytes = (last - first + 1) * ORACLE_PAGE_BYTES,
                                .hva = (void *)page->hva,
                                .backing_offset = page->backing_offset,
                                .backing = page->backing,
                                .type = page->type,
                                .access = page->access,
                                .log_dirty = page->log_dirty};
}

uint32_t oracle_regions(const struct oracle *oracle, struct loam_region *regions)
{
    uint32_t count = 0;

    for (uint32_t page = 0; page < ORACLE_PAGES; page++) {
        if (oracle->pages[page].present && (page == 0 || !joined_with_next(oracle, page - 1))) {
            regions[count++] = region_from(oracle, page);
        }
    }
    return count;
}

/* Take over changed, if that is allowed. */
static enum loam_error adopt(struct oracle *oracle, const struct oracle *changed, uint32_t capacity, bool busy)
{
    struct loam_region regions[ORACLE_PAGES];

    if (busy) {
        return LOAM_ERROR_BUSY;
    }
    if (oracle_regions(changed, regions) > capacity) {
        return LOAM_ERROR_EXHAUSTED;
    }
    *oracle = *changed;
    return LOAM_OK;
}

enum loam_error oracle_insert(struct oracle *oracle, const struct loam_region *region, uint32_t capacity, bool busy)
{
    struct oracle changed = *oracle;
    bool memory = region->type != LOAM_REGION_DEVICE;

    if (!region_valid(region)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint64_t offset = 0; offset < region->bytes; offset += ORACLE_PAGE_BYTES) {
        if (present_page(oracle, region->start.value + offset) != NULL) {
            return LOAM_ERROR_OVERLAP;
        }
        changed.pages[page_of(region->start.value + offset)] = (struct oracle_page){
            true,
            region->type,
            region->access,
            region->log_dirty,
            memory ? (uintptr_t)region->hva + offset : 0,
            memory ? region->backing_offset + offset : 0,
            region->backing,
        };
    }
    return adopt(oracle, &changed, capacity, busy);
}

enum loam_error oracle_remove(struct oracle *oracle, loam_gpa start, uint64_t bytes, uint32_t capacity, bool busy)
{
    struct oracle changed = *oracle;

    if (!page_range_valid(start, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint64_t offset = 0; offset < bytes; offset += ORACLE_PAGE_BYTES) {
        if (present_page(oracle, start.value + offset) == NULL) {
            return LOAM_ERROR_NOT_FOUND;
        }
        changed.pages[page_of(start.value + offset)].present = false;
    }
    return adopt(oracle, &changed, capacity, busy);
}

/* Whether a range is all memory. */
static enum loam_error all_memory(const struct oracle *oracle, loam_gpa start, uint64_t bytes)
{
    if (!page_range_valid(start, bytes)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint64_t offset = 0; offset < bytes; offset += ORACLE_PAGE_BYTES) {
        const struct oracle_page *page = present_page(oracle, start.value + offset);

        if (page == NULL) {
            return LOAM_ERROR_NOT_FOUND;
        }
        if (page->type == LOAM_REGION_DEVICE) {
            return LOAM_ERROR_INVALID;
        }
    }
    return LOAM_OK;
}

enum loam_error oracle_protect(struct oracle *oracle, loam_gpa start, uint64_t bytes, enum loam_access access,
                               uint32_t capacity, bool busy)
{
    bool wanted = access == LOAM_ACCESS_READ || access == LOAM_ACCESS_WRITE;
    enum loam_error error = wanted ? all_memory(oracle, start, bytes) : LOAM_ERROR_INVALID;
    struct oracle changed = *oracle;

    for (uint64_t offset = 0; error == LOAM_OK && offset < bytes; offset += ORACLE_PAGE_BYTES) {
        changed.pages[page_of(start.value + offset)].access = access;
    }
    return error == LOAM_OK ? adopt(oracle, &changed, capacity, busy) : error;
}

enum loam_error oracle_retype(struct oracle *oracle, loam_gpa start, uint64_t bytes, enum loam_region_type type,
                              uint32_t capacity, bool busy)
{
    bool wanted = type == LOAM_REGION_RAM || type == LOAM_REGION_RESERVED;
    enum loam_error error = wanted ? all_memory(oracle, start, bytes) : LOAM_ERROR_INVALID;
    struct oracle changed = *oracle;

    for (uint64_t offset = 0; error == LOAM_OK && offset < bytes; offset += ORACLE_PAGE_BYTES) {
        changed.pages[page_of(start.value + offset)].type = type;
    }
    return error == LOAM_OK ? adopt(oracle, &changed, capacity, busy) : error;
}

enum loam_error oracle_log(struct oracle *oracle, loam_gpa start, uint64_t bytes, bool log_dirty, uint32_t capacity,
                           bool busy)
{
    enum loam_error error = all_memory(oracle, start, bytes);
    struct oracle changed = *oracle;

    for (uint64_t offset = 0; error == LOAM_OK && offset < bytes; offset += ORACLE_PAGE_BYTES) {
        changed.pages[page_of(start.value + offset)].log_dirty = log_dirty;
    }
    return error == LOAM_OK ? adopt(oracle, &changed, capacity, busy) : error;
}

static enum loam_error change_one(struct oracle *oracle, const struct loam_gpa_change *change, uint32_t capacity,
                                  bool busy)
{
    const struct loam_region *region = &change->region;

    switch (change->kind) {
    case LOAM_CHANGE_INSERT:
        return oracle_insert(oracle, region, capacity, busy);
    case LOAM_CHANGE_REMOVE:
        return oracle_remove(oracle, region->start, region->bytes, capacity, busy);
    case LOAM_CHANGE_PROTECT:
        return oracle_protect(oracle, region->start, region->bytes, region->access, capacity, busy);
    case LOAM_CHANGE_RETYPE:
        return oracle_retype(oracle, region->start, region->bytes, region->type, capacity, busy);
    default:
        return oracle_log(oracle, region->start, region->bytes, region->log_dirty, capacity, busy);
    }
}

enum loam_error oracle_change(struct oracle *oracle, const struct loam_gpa_change *changes, uint32_t count,
                              uint32_t capacity, bool busy, uint32_t *refused)
{
    struct oracle changed = *oracle;

    for (uint32_t i = 0; i < count; i++) {
        enum loam_error error = change_one(&changed, &changes[i], capacity, busy && i == 0);

        if (error != LOAM_OK) {
            *refused = error == LOAM_ERROR_BUSY ? count : i;
            return error;
        }
    }
    *refused = count;
    *oracle = changed;
    return LOAM_OK;
}

enum loam_error oracle_find(const struct oracle *oracle, loam_gpa gpa, struct loam_region *region)
{
    uint32_t page = page_of(gpa.value);

    *region = (struct loam_region){0};
    if (present_page(oracle, gpa.value) == NULL) {
        return LOAM_ERROR_NOT_FOUND;
    }
    while (page > 0 && joined_with_next(oracle, page - 1)) {
        page--;
    }
    *region = region_from(oracle, page);
    return LOAM_OK;
}

/* Why the byte at gpa does not grant access; LOAM_OK if it does. */
static enum loam_error byte_granted(const struct oracle *oracle, uint64_t gpa, enum loam_access access)
{
    const struct oracle_page *page = present_page(oracle, gpa);

    if (page == NULL || page->type == LOAM_REGION_DEVICE) {
        return LOAM_ERROR_NOT_FOUND;
    }
    return access == LOAM_ACCESS_WRITE && page->access == LOAM_ACCESS_READ ? LOAM_ERROR_NOT_PERMITTED : LOAM_OK;
}

/* Whether the bytes from gpa on, which is in a region, end in the same one. */
static bool in_one_region(const struct oracle *oracle, uint64_t gpa, uint64_t bytes)
{
    uint32_t page = page_of(gpa);
    uint64_t here = ORACLE_PAGE_BYTES - gpa % ORACLE_PAGE_BYTES;

    while (bytes > here) {
        if (!joined_with_next(oracle, page)) {
            return false;
        }
        page++;
        bytes -= here;
        here = ORACLE_PAGE_BYTES;
    }
    return true;
}

enum loam_error oracle_translate(const struct oracle *oracle, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                                 void **hva)
{
    enum loam_error error;

    *hva = NULL;
    if (!range_valid(gpa, bytes) || (access != LOAM_ACCESS_READ && access != LOAM_ACCESS_WRITE)) {
        return LOAM_ERROR_INVALID;
    }
    error = byte_granted(oracle, gpa.value, access);
    if (error == LOAM_OK && !in_one_region(oracle, gpa.value, bytes)) {
        error = LOAM_ERROR_OVERLAP;
    }
    if (error == LOAM_OK) {
        *hva = (void *)(present_page(oracle, gpa.value)->hva + gpa.value % ORACLE_PAGE_BYTES);
    }
    return error;
}

enum loam_error oracle_pieces(const struct oracle *oracle, loam_gpa gpa, uint64_t bytes, enum loam_access access,
                              struct loam_piece *pieces, uint32_t *count)
{
    *count = 0;
    if (!range_valid(gpa, bytes) || (access != LOAM_ACCESS_READ && access != LOAM_ACCESS_WRITE)) {
        return LOAM_ERROR_INVALID;
    }
    for (uint64_t at = gpa.value, left = bytes; left > 0;) {
        uint64_t here = ORACLE_PAGE_BYTES - at % ORACLE_PAGE_BYTES;
        enum loam_error error = byte_granted(oracle, at, access);
        uintptr_t hva;

        if (error != LOAM_OK) {
            *count = 0;
            return error;
        }
        here = here < left ? here : left;
        hva = present_page(oracle, at)->hva + at % ORACLE_PAGE_BYTES;
        if (*count > 0 && (uintptr_t)pieces[*count - 1].hva + pieces[*count - 1].bytes == hva) {
            pieces[*count - 1].bytes += here;
        } else {
            pieces[(*count)++] = (struct loam_piece){loam_gpa_from_u64(at), (void *)hva, here};
        }
        at += here;
        left -= here;
    }
    return LOAM_OK;
}

enum loam_error oracle_gpa_from_hva(const struct oracle *oracle, const void *hva, uint64_t bytes, loam_gpa *gpa)
{
    uintptr_t at = (uintptr_t)hva;

    *gpa = loam_gpa_from_u64(0);
    if (bytes == 0) {
        return LOAM_ERROR_INVALID;
    }
    for (uint32_t page = 0; page < ORACLE_PAGES; page++) {
        const struct oracle_page *p = &oracle->pages[page];

        if (p->present && p->type != LOAM_REGION_DEVICE && at / ORACLE_PAGE_BYTES == p->hva / ORACLE_PAGE_BYTES &&
            in_one_region(oracle, oracle_gpa(page).value + at % ORACLE_PAGE_BYTES, bytes)) {
            *gpa = loam_gpa_from_u64(oracle_gpa(page).value + at % ORACLE_PAGE_BYTES);
            return LOAM_OK;
        }
    }
    return LOAM_ERROR_NOT_FOUND;
}

uint32_t oracle_slots(const struct oracle *oracle, struct loam_slot *slots)
{
    uint32_t count = 0;

    for (uint32_t page = 0; page < ORACLE_PAGES; page++) {
        const struct oracle_page *p = &oracle->pages[page];
        struct loam_slot *last = count > 0 ? &slots[count - 1] : NULL;
        bool read_only = p->access == LOAM_ACCESS_READ;

        if (!p->present || p->type == LOAM_REGION_DEVICE) {
            continue;
        }
        if (last != NULL && last->start.value + last->bytes == oracle_gpa(page).value &&
            (uintptr_t)last->hva + last->bytes == p->hva && last->read_only == read_only &&
            last->log_dirty == p->log_dirty) {
            last->bytes += ORACLE_PAGE_BYTES;
        } else {
            slots[count++] =
                (struct loam_slot){oracle_gpa(page), ORACLE_PAGE_BYTES, (void *)p->hva, read_only, p->log_dirty};
        }
    }
    return count;
}

uint32_t oracle_shares(const struct oracle *oracle, const int *fds, uint32_t fd_count, struct loam_share *shares)
{
    uint32_t count = 0;

    for (uint32_t page = 0; page < ORACLE_PAGES; page++) {
        const struct oracle_page *p = &oracle->pages[page];
        struct loam_share *last = count > 0 ? &shares[count - 1] : NULL;
        bool read_only = p->access == LOAM_ACCESS_READ;

        if (!p->present || p->type == LOAM_REGION_DEVICE) {
            continue;
        }
        if (last != NULL && last->start.value + last->bytes == oracle_gpa(page).value &&
            (uintptr_t)last->hva + last->bytes == p->hva && last->read_only == read_only &&
            last->backing == p->backing && last->backing_offset + last->bytes == p->backing_offset) {
            last->bytes += ORACLE_PAGE_BYTES;
        } else {
            int fd = p->backing >= 1 && p->backing <= fd_count ? fds[p->backing - 1] : -1;

            shares[count++] = (struct loam_share){
                oracle_gpa(page), ORACLE_PAGE_BYTES, (void *)p->hva, p->backing_offset, p->backing, fd, read_only};
        }
    }
    return count;
}

uint32_t oracle_e820(const struct oracle *oracle, struct loam_e820_entry *entries)
{
    uint32_t count = 0;

    for (uint32_t page = 0; page < ORACLE_PAGES; page++) {
        const struct oracle_page *p = &oracle->pages[page];
        struct loam_e820_entry *last = count > 0 ? &entries[count - 1] : NULL;
        uint32_t type = p->type == LOAM_REGION_RESERVED || p->access == LOAM_ACCESS_READ ? 2 : 1;

        if (!p->present || p->type == LOAM_REGION_DEVICE) {
            continue;
        }
        if (last != NULL && last->start + last->bytes == oracle_gpa(page).value && last->type == type) {
            last->bytes += ORACLE_PAGE_BYTES;
        } else {
            entries[count++] = (struct loam_e820_entry){oracle_gpa(page).value, ORACLE_PAGE_BYTES, type};
        }
    }
    return count;
}
