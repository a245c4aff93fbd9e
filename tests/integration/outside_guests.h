/* SPDX-License-Identifier: Apache-2.0 */
/* What outside_test and its guests share; for C and for the assembler. */
#ifndef LOAM_TESTS_INTEGRATION_OUTSIDE_GUESTS_H
#define LOAM_TESTS_INTEGRATION_OUTSIDE_GUESTS_H

#define OUTSIDE_BYTES 100000

#endif
