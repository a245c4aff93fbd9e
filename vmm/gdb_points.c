// SPDX-License-Identifier: Apache-2.0
/* Those that are no software breakpoints have the debug registers in the order of the table. */
#include "vmm/gdb_points.h"

#include <string.h>

/* DR7 (Intel SDM volume 3B, section 18.2.4): enabled for all tasks; kind and length of each. */
#define DR7_ENABLE(index)       (UINT64_C(2) << 2 * (index))
#define DR7_KIND(index, kind)   ((uint64_t)(kind) << (16 + 4 * (index)))
#define DR7_LENGTH(index, code) ((uint64_t)(code) << (18 + 4 * (index)))
#define DR7_FIXED               (UINT64_C(1) << 10)
#define DR7_EXACT               (UINT64_C(1) << 9) /* not that processors of today look at it */

const struct gdb_point *gdb_points_find(const struct gdb_points *points, enum gdb_point_kind kind, uint64_t address,
                                        uint32_t bytes)
{
    for (uint32_t i = 0; i < points->count; i++) {
        const struct gdb_point *point = &points->points[i];

        if (point->kind == kind && point->address == address && (point->bytes == bytes || kind <= GDB_POINT_EXECUTE)) {
            return point;
        }
    }
    return NULL;
}

const struct gdb_point *gdb_points_at(const struct gdb_points *points, loam_gpa gpa)
{
    for (uint32_t i = 0; i < points->count; i++) {
        const struct gdb_point *point = &points->points[i];

        if (point->kind == GDB_POINT_SOFTWARE && point->gpa.value == gpa.value) {
            return point;
        }
    }
    return NULL;
}

bool gdb_points_can_hold(enum gdb_point_kind kind, uint64_t address, uint32_t bytes)
{
    bool is_length = bytes == 1 || bytes == 2 || bytes == 4 || bytes == 8;

    return kind == GDB_POINT_EXECUTE || (is_length && (address & (bytes - 1)) == 0);
}

const struct gdb_point *gdb_points_in_register(const struct gdb_points *points, uint32_t index)
{
    for (uint32_t i = 0; i < points->count; i++) {
        if (points->points[i].kind != GDB_POINT_SOFTWARE && index-- == 0) {
            return &points->points[i];
        }
    }
    return NULL;
}

bool gdb_points_add(struct gdb_points *points, const struct gdb_point *point)
{
    bool is_hardware = point->kind != GDB_POINT_SOFTWARE;

    if (points->count == GDB_POINT_MAX ||
        (is_hardware && gdb_points_in_register(points, GDB_HARDWARE_MAX - 1) != NULL)) {
        return false;
    }
    points->points[points->count++] = *point;
    return true;
}

void gdb_points_remove(struct gdb_points *points, const struct gdb_point *point)
{
    size_t index = (size_t)(point - points->points);

    points->count--;
    memmove(&points->points[index], &points->points[index + 1], (points->count - index) * sizeof points->points[0]);
}

/* An instruction's is 0, whatever its length. */
static uint64_t length_code(const struct gdb_point *point)
{
    if (point->kind == GDB_POINT_EXECUTE) {
        return 0;
    }
    return point->bytes == 8 ? 2 : point->bytes - 1;
}

static uint64_t kind_code(const struct gdb_point *point)
{
    return point->kind == GDB_POINT_EXECUTE ? 0 : point->kind == GDB_POINT_WRITE ? 1 : 3;
}

bool gdb_points_registers(const struct gdb_points *points, uint64_t registers[8])
{
    const struct gdb_point *point;
    uint32_t count = 0;

    memset(registers, 0, 8 * sizeof registers[0]);
    registers[7] = DR7_FIXED;
    for (; count < GDB_HARDWARE_MAX && (point = gdb_points_in_register(points, count)) != NULL; count++) {
        registers[count] = point->address;
        registers[7] |=
            DR7_EXACT | DR7_ENABLE(count) | DR7_KIND(count, kind_code(point)) | DR7_LENGTH(count, length_code(point));
    }
    return count > 0;
}
