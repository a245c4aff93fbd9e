// SPDX-License-Identifier: Apache-2.0
/*
 * What C and the assembler share of running one x87 instruction on the host's own FPU. Offsets and sizes in bytes.
 */
#ifndef LOAM_VMM_ASSIST_X87_HOST_H
#define LOAM_VMM_ASSIST_X87_HOST_H

/* struct assist_x87_frame */
#define ASSIST_X87_GUEST   0
#define ASSIST_X87_HOST    512
#define ASSIST_X87_CODE    1024
#define ASSIST_X87_OPERAND 1032
#define ASSIST_X87_FLAGS   1040
#define ASSIST_X87_BYTES   1056

/* One instruction and its RET, padded. */
#define ASSIST_X87_THUNK_BYTES 4

#endif
