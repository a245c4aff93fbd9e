// SPDX-License-Identifier: Apache-2.0
/*
 * A guest without a machine, for the commands of the protocol: memory at two kinds of addresses, registers, breakpoints that are
 * only noted. What it is asked for beyond that is there, and what it is asked for wrongly ends the program.
 */
#ifndef LOAM_TESTS_VMM_GDB_TOY_H
#define LOAM_TESTS_VMM_GDB_TOY_H

#include "vmm/gdb_command.h"

#define GDB_TOY_BYTES  0x4000u
#define GDB_TOY_BASE   UINT64_C(0xffffffff80000000) /* where its memory lies by page tables; from 0 on physically */
#define GDB_TOY_VCPUS  3u
#define GDB_TOY_BROKEN 2u /* a vCPU whose registers cannot be read */

struct gdb_toy {
    struct gdb_target target;
    uint8_t memory[GDB_TOY_BYTES];
    struct gdb_registers registers[GDB_TOY_VCPUS];
    struct gdb_points points;
    bool has_watch;
    bool has_registers_refused; /* KVM does not take them */
};

/* All of it is zero but the target; the second vCPU's rax is 1. */
void gdb_toy_init(struct gdb_toy *toy);

#endif
