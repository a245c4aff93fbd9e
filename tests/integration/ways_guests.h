/* SPDX-License-Identifier: Apache-2.0 */
/* What ways_test and its guests share; for C and for the assembler. */
#ifndef LOAM_TESTS_INTEGRATION_WAYS_GUESTS_H
#define LOAM_TESTS_INTEGRATION_WAYS_GUESTS_H

#define WAYS_INITRD_BYTES 5000
#define WAYS_INITRD_WORD  0x55444f4d
#define WAYS_RAM_KIB      16384

#endif
