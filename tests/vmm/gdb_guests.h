/* SPDX-License-Identifier: Apache-2.0 */
/* Guest-physical addresses that gdb_test and its guests share; for C and for the assembler. */
#ifndef LOAM_TESTS_VMM_GDB_GUESTS_H
#define LOAM_TESTS_VMM_GDB_GUESTS_H

#define GUEST_BASE    0x200000
#define GUEST_STACK   (GUEST_BASE + 0x2000)
#define GUEST_IDT     (GUEST_BASE + 0x2000)
#define GUEST_COUNTER (GUEST_BASE + 0x3800)
#define GUEST_BYTES   0x4000
#define OTHER_BASE    0x8000 /* where the second vCPU begins, in real mode */
#define OTHER_COUNTER (OTHER_BASE + 0x800)

#endif
