// SPDX-License-Identifier: Apache-2.0
/*
 * What C and the assembler share of running one SSE instruction on the host's own unit. Offsets and sizes in bytes.
 */
#ifndef LOAM_VMM_ASSIST_SSE_HOST_H
#define LOAM_VMM_ASSIST_SSE_HOST_H

/* struct assist_sse_frame */
#define ASSIST_SSE_TARGET     0
#define ASSIST_SSE_SOURCE     16
#define ASSIST_SSE_CODE       32
#define ASSIST_SSE_REG        40
#define ASSIST_SSE_RM         48
#define ASSIST_SSE_FLAGS      56
#define ASSIST_SSE_MXCSR      64
#define ASSIST_SSE_HOST_MXCSR 68
#define ASSIST_SSE_BYTES      80

/* One instruction and its RET, padded. */
#define ASSIST_SSE_THUNK_BYTES 8

/* Pieces of code of a form. */
#define ASSIST_SSE_PLAIN     1
#define ASSIST_SSE_WIDE      2
#define ASSIST_SSE_IMMEDIATE 256

#endif
