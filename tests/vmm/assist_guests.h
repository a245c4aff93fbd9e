/* SPDX-License-Identifier: Apache-2.0 */
/* Guest-physical addresses that assist_test and its guests share; for C and for the assembler. */
#ifndef LOAM_TESTS_VMM_ASSIST_GUESTS_H
#define LOAM_TESTS_VMM_ASSIST_GUESTS_H

#define GUEST_BASE    0x200000
#define GUEST_BYTES   0x4000 /* code, IDT, stack */
#define RESULTS_BASE  0x300000
#define RESULTS_BYTES 0x4000

#endif
