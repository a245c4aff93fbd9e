/* SPDX-License-Identifier: Apache-2.0
 *
 * Each form of assist_sse_forms.h as subroutines, and the way there and back. The register that ModRM reg names is xmm0 or
 * eax, the one that rm names is xmm1 or ecx: which of them counts is the opcode's affair.
 */
#include "vmm/assist_sse_host.h"

    .text

/* void assist_sse_host_run(struct assist_sse_frame *frame): rdi -> frame, aligned to 16. */
    .globl assist_sse_host_run
    .type assist_sse_host_run, @function
    .balign 16
assist_sse_host_run:
    .cfi_startproc
    pushq %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
    movq %rdi, %rbx
    stmxcsr ASSIST_SSE_HOST_MXCSR(%rbx)
    movaps ASSIST_SSE_TARGET(%rbx), %xmm0
    movaps ASSIST_SSE_SOURCE(%rbx), %xmm1
    movq ASSIST_SSE_REG(%rbx), %rax
    movq ASSIST_SSE_RM(%rbx), %rcx
    ldmxcsr ASSIST_SSE_MXCSR(%rbx)
    pushq ASSIST_SSE_FLAGS(%rbx)
    .cfi_adjust_cfa_offset 8
    popfq
    .cfi_adjust_cfa_offset -8
    call *ASSIST_SSE_CODE(%rbx)
    pushfq
    .cfi_adjust_cfa_offset 8
    popq ASSIST_SSE_FLAGS(%rbx)
    .cfi_adjust_cfa_offset -8
    stmxcsr ASSIST_SSE_MXCSR(%rbx)
    ldmxcsr ASSIST_SSE_HOST_MXCSR(%rbx)
    movq %rax, ASSIST_SSE_REG(%rbx)
    movaps %xmm0, ASSIST_SSE_TARGET(%rbx)
    movaps %xmm1, ASSIST_SSE_SOURCE(%rbx)
    popq %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size assist_sse_host_run, . - assist_sse_host_run

    .macro thunk prefix, rex, opcode, extension
    .balign ASSIST_SSE_THUNK_BYTES
    .if \prefix
    .byte \prefix
    .endif
    .if \rex
    .byte \rex
    .endif
    .byte 0x0f, \opcode, 0xc1 | \extension << 3
    .endm

/* The code of all forms, one after the other in the order of the rows. */
    .globl assist_sse_host_code
    .type assist_sse_host_code, @function
    .balign 16
assist_sse_host_code:

    .macro code_plain prefix, opcode, extension
    thunk \prefix, 0, \opcode, \extension
    ret
    .endm

    .macro code_wide prefix, opcode, extension
    thunk \prefix, 0, \opcode, \extension
    ret
    thunk \prefix, 0x48, \opcode, \extension
    ret
    .endm

    .macro code_immediate prefix, opcode, extension
    .set immediate, 0
    .rept 256
    thunk \prefix, 0, \opcode, \extension
    .byte immediate
    ret
    .set immediate, immediate + 1
    .endr
    .endm

#define CODE_PLAIN     code_plain
#define CODE_WIDE      code_wide
#define CODE_IMMEDIATE code_immediate
#define SSE_FORM(prefix, opcode, extension, source, bytes, result, code, tiny) CODE_##code prefix, opcode, extension;
#include "vmm/assist_sse_forms.h"
#undef SSE_FORM

    .balign ASSIST_SSE_THUNK_BYTES
    .size assist_sse_host_code, . - assist_sse_host_code

    .section .note.GNU-stack, "", @progbits
