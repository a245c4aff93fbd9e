// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_points.h"

#include <criterion/criterion.h>
#include <string.h>

static struct gdb_points points;
static uint64_t registers[8];

TestSuite(gdb_points, .timeout = 30);

static bool add(enum gdb_point_kind kind, uint64_t address, uint32_t bytes)
{
    return gdb_points_add(&points, &(struct gdb_point){kind, address, bytes, {address}, 0x90});
}

Test(gdb_points, are_found_by_what_they_are)
{
    cr_expect(add(GDB_POINT_SOFTWARE, 0x1000, 1) && add(GDB_POINT_EXECUTE, 0x1000, 1) &&
              add(GDB_POINT_WRITE, 0x1000, 4));
    cr_expect_eq(gdb_points_find(&points, GDB_POINT_SOFTWARE, 0x1000, 9), &points.points[0]);
    cr_expect_eq(gdb_points_find(&points, GDB_POINT_EXECUTE, 0x1000, 0), &points.points[1]);
    cr_expect_eq(gdb_points_find(&points, GDB_POINT_WRITE, 0x1000, 4), &points.points[2]);
    cr_expect_null(gdb_points_find(&points, GDB_POINT_WRITE, 0x1000, 2));
    cr_expect_null(gdb_points_find(&points, GDB_POINT_ACCESS, 0x1000, 4));
    cr_expect_null(gdb_points_find(&points, GDB_POINT_SOFTWARE, 0x1001, 1));
    cr_expect_eq(gdb_points_at(&points, loam_gpa_from_u64(0x1000)), &points.points[0]);
    cr_expect_null(gdb_points_at(&points, loam_gpa_from_u64(0x1001)));
    gdb_points_remove(&points, &points.points[0]);
    cr_expect_null(gdb_points_at(&points, loam_gpa_from_u64(0x1000)));
    cr_expect_eq(points.points[0].kind, GDB_POINT_EXECUTE);
}

/* Intel SDM volume 3B, section 18.2.4: L and G of each, then R/W and LEN in four bits. */
Test(gdb_points, become_debug_registers)
{
    cr_expect_not(gdb_points_registers(&points, registers));
    cr_expect(add(GDB_POINT_EXECUTE, 0xffffffff81000000, 1) && add(GDB_POINT_SOFTWARE, 0x1, 1) &&
              add(GDB_POINT_WRITE, 0x2000, 4) && add(GDB_POINT_ACCESS, 0x3000, 8) && add(GDB_POINT_ACCESS, 0x4002, 2));
    cr_expect(gdb_points_registers(&points, registers));
    cr_expect_eq(registers[0], 0xffffffff81000000);
    cr_expect_eq(registers[1], 0x2000);
    cr_expect_eq(registers[2], 0x3000);
    cr_expect_eq(registers[3], 0x4002);
    cr_expect_eq(registers[6], 0);
    cr_expect_eq(registers[7], 0x7bd006aa, "0x%lx", registers[7]);
    cr_expect_eq(gdb_points_in_register(&points, 1)->address, 0x2000);
}

Test(gdb_points, have_four_debug_registers)
{
    for (uint64_t i = 0; i < 4; i++) {
        cr_expect(add(GDB_POINT_EXECUTE, i, 1));
    }
    cr_expect_not(add(GDB_POINT_EXECUTE, 4, 1));
    cr_expect_not(add(GDB_POINT_WRITE, 8, 1));
    cr_expect(add(GDB_POINT_SOFTWARE, 5, 1), "which needs none");
    gdb_points_remove(&points, gdb_points_find(&points, GDB_POINT_EXECUTE, 2, 1));
    cr_expect(add(GDB_POINT_WRITE, 8, 1));
    cr_expect_eq(gdb_points_in_register(&points, 2)->address, 3, "those behind it have moved up");
}

Test(gdb_points, have_a_bound)
{
    for (uint64_t i = 0; i < GDB_POINT_MAX; i++) {
        cr_assert(add(GDB_POINT_SOFTWARE, i, 1));
    }
    cr_expect_not(add(GDB_POINT_SOFTWARE, GDB_POINT_MAX, 1));
    cr_expect_not(add(GDB_POINT_EXECUTE, 0, 1));
}

Test(gdb_points, watch_what_a_register_can)
{
    cr_expect(gdb_points_can_hold(GDB_POINT_WRITE, 0x1008, 8));
    cr_expect(gdb_points_can_hold(GDB_POINT_ACCESS, 0x1003, 1));
    cr_expect_not(gdb_points_can_hold(GDB_POINT_WRITE, 0x1004, 8));
    cr_expect_not(gdb_points_can_hold(GDB_POINT_WRITE, 0x1000, 3));
    cr_expect_not(gdb_points_can_hold(GDB_POINT_WRITE, 0x1000, 16));
    cr_expect_not(gdb_points_can_hold(GDB_POINT_WRITE, 0x1000, 0));
    cr_expect(gdb_points_can_hold(GDB_POINT_EXECUTE, 0x1003, 5));
}
