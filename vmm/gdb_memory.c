// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_memory.h"

#include "vmm/gdb_vcpu.h"
#include "vmm/lost_memory.h"

#define PAGE_BYTES UINT64_C(4096)

bool gdb_memory_find(const struct gdb_memory *memory, uint64_t address, loam_gpa *gpa)
{
    if (!memory->is_physical) {
        return gdb_vcpu_translate(memory->vcpu_fd, address, gpa);
    }
    *gpa = loam_gpa_from_u64(address);
    return address < LOAM_GPA_END;
}

/* Bytes of count that lie in address's page. */
static size_t in_page(uint64_t address, size_t count)
{
    uint64_t left = PAGE_BYTES - address % PAGE_BYTES;

    return count < left ? count : (size_t)left;
}

/* One page's part; exactly one of read and written is there. */
static bool copy(const struct gdb_memory *memory, uint64_t address, uint8_t *read, const uint8_t *written, size_t count)
{
    const struct loam_gpa_view *view;
    enum loam_error error = LOAM_ERROR_NOT_FOUND;
    loam_gpa gpa;

    if (!gdb_memory_find(memory, address, &gpa)) {
        return false;
    }
    view = loam_gpa_map_acquire(memory->map);
    if (lost_memory_ask(view, gpa) == 0) {
        error =
            read != NULL ? loam_gpa_view_read(view, gpa, read, count) : loam_gpa_view_write(view, gpa, written, count);
    }
    loam_gpa_map_release(memory->map, view);
    if (error == LOAM_OK && written != NULL && memory->dirty != NULL) {
        (void)loam_dirty_mark(memory->dirty, gpa, count);
    }
    return error == LOAM_OK;
}

size_t gdb_memory_read(const struct gdb_memory *memory, uint64_t address, uint8_t *bytes, size_t count)
{
    size_t done = 0;

    for (size_t part; done < count; done += part) {
        part = in_page(address + done, count - done);
        if (!copy(memory, address + done, bytes + done, NULL, part)) {
            break;
        }
    }
    return done;
}

size_t gdb_memory_write(const struct gdb_memory *memory, uint64_t address, const uint8_t *bytes, size_t count)
{
    size_t done = 0;

    for (size_t part; done < count; done += part) {
        part = in_page(address + done, count - done);
        if (!copy(memory, address + done, NULL, bytes + done, part)) {
            break;
        }
    }
    return done;
}
