// SPDX-License-Identifier: Apache-2.0
/*
 * The breakpoints and watchpoints of a debugger: a table, and what the debug registers are to hold.
 *
 * A software breakpoint is an INT3 in guest memory, known by the GPA of its byte, because the guest may reach that by several
 * linear addresses. All others take one of four debug registers, which hold linear addresses.
 *
 * Source: Intel SDM volume 3B, sections 18.2.4 to 18.2.6 (debug registers). Threads: changed by one while no vCPU runs; read by
 * any while they do.
 */
#ifndef LOAM_VMM_GDB_POINTS_H
#define LOAM_VMM_GDB_POINTS_H

#include "loam/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GDB_POINT_MAX    256u
#define GDB_HARDWARE_MAX 4u
#define GDB_INT3         0xccu

enum gdb_point_kind {
    GDB_POINT_SOFTWARE,
    GDB_POINT_EXECUTE, /* before the instruction at address; bytes is 1 */
    GDB_POINT_WRITE,   /* after a write to any of bytes: 1, 2, 4 or 8, and address a multiple of it */
    GDB_POINT_ACCESS,  /* or a read */
};

struct gdb_point {
    enum gdb_point_kind kind;
    uint64_t address; /* linear */
    uint32_t bytes;
    loam_gpa gpa;     /* SOFTWARE: where the INT3 lies */
    uint8_t original; /* SOFTWARE: what it took the place of */
};

/* Starts as {0}. */
struct gdb_points {
    uint32_t count;
    struct gdb_point points[GDB_POINT_MAX];
};

/* NULL: there is none. bytes says nothing of GDB_POINT_SOFTWARE and GDB_POINT_EXECUTE. */
const struct gdb_point *gdb_points_find(const struct gdb_points *points, enum gdb_point_kind kind, uint64_t address,
                                        uint32_t bytes);

/* Of kind GDB_POINT_SOFTWARE, wherever the guest sees it; NULL: there is none. */
const struct gdb_point *gdb_points_at(const struct gdb_points *points, loam_gpa gpa);

/* Whether a debug register can hold such a one at all. */
bool gdb_points_can_hold(enum gdb_point_kind kind, uint64_t address, uint32_t bytes);

/* false: there is no room, in the table or in the debug registers, and nothing has changed. */
bool gdb_points_add(struct gdb_points *points, const struct gdb_point *point);

/* point is one of the table's. */
void gdb_points_remove(struct gdb_points *points, const struct gdb_point *point);

/* DR0 to DR3, DR6 (0) and DR7, by number; 4 and 5 are 0. Returns whether any are in use. */
bool gdb_points_registers(const struct gdb_points *points, uint64_t registers[8]);

/* The point in debug register index; NULL: it is free. */
const struct gdb_point *gdb_points_in_register(const struct gdb_points *points, uint32_t index);

#endif
