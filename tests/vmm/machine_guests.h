/* SPDX-License-Identifier: Apache-2.0 */
/* Guest-physical addresses that machine_test and its guests share; for C and for the assembler. */
#ifndef LOAM_TESTS_VMM_MACHINE_GUESTS_H
#define LOAM_TESTS_VMM_MACHINE_GUESTS_H

#define GUEST_BASE    0x200000
#define READONLY_PAGE 0x300000
#define START_PAGE    0x8000
#define TEST_DEVICE   0xd0100000
#define TEST_PORT     0x700
#define COUNTERS      (GUEST_BASE + 0x3800)
#define BUFFERS       (GUEST_BASE + 0x3900)
#define LOST_RAM      0x800000 /* right behind the RAM: two pages that the host does not supply, and a hole */
#define LOST_BYTES    0x2000

/* Of the guest `sequence`: where its other vCPU begins. */
#define SEQUENCE_OTHER 0x20

#endif
