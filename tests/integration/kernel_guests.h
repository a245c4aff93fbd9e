/* SPDX-License-Identifier: Apache-2.0 */
/* Guest-physical addresses that kernel_test and its guests share; for C and for the assembler. */
#ifndef LOAM_TESTS_INTEGRATION_KERNEL_GUESTS_H
#define LOAM_TESTS_INTEGRATION_KERNEL_GUESTS_H

#define GUEST_BASE  0x200000
#define GUEST_SCRAP 0x300000 /* RAM that nothing of the loader's uses */

#define GUEST_FAR 0x2000000 /* behind 16 MiB, and behind all that a first choice of --memory gives */

#define GUEST_LATE 0x800000 /* far from all that anybody touches before, by 2 MiB pages too */

#endif
