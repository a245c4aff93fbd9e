/* SPDX-License-Identifier: Apache-2.0
 *
 * Every x87 instruction as a subroutine, and the way there and back. Whether an encoding is an instruction at all is decided
 * by the caller: what is none, and what touches more than 10 bytes, must not be called.
 */
#include "vmm/assist_x87_host.h"

    .text

/* void assist_x87_host_run(struct assist_x87_frame *frame): rdi -> frame, aligned to 16. */
    .globl assist_x87_host_run
    .type assist_x87_host_run, @function
    .balign 16
assist_x87_host_run:
    .cfi_startproc
    pushq %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
    movq %rdi, %rbx
    fxsave64 ASSIST_X87_HOST(%rbx)
    fxrstor64 ASSIST_X87_GUEST(%rbx)
    movq ASSIST_X87_OPERAND(%rbx), %rax
    pushq ASSIST_X87_FLAGS(%rbx)
    .cfi_adjust_cfa_offset 8
    popfq
    .cfi_adjust_cfa_offset -8
    call *ASSIST_X87_CODE(%rbx)
    pushfq
    .cfi_adjust_cfa_offset 8
    popq ASSIST_X87_FLAGS(%rbx)
    .cfi_adjust_cfa_offset -8
    fxsave64 ASSIST_X87_GUEST(%rbx)
    fxrstor64 ASSIST_X87_HOST(%rbx)
    popq %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size assist_x87_host_run, . - assist_x87_host_run

/* Memory forms: opcode 0xd8 + n / 8, ModRM reg n % 8, operand at [rax]. */
    .globl assist_x87_host_memory
    .type assist_x87_host_memory, @function
    .balign 16
assist_x87_host_memory:
    .set number, 0
    .rept 8 * 8
    .balign ASSIST_X87_THUNK_BYTES
    .byte 0xd8 + number / 8, number % 8 * 8
    ret
    .set number, number + 1
    .endr
    .size assist_x87_host_memory, . - assist_x87_host_memory

/* Register forms: opcode 0xd8 + n / 64, ModRM 0xc0 + n % 64. */
    .globl assist_x87_host_register
    .type assist_x87_host_register, @function
    .balign 16
assist_x87_host_register:
    .set number, 0
    .rept 8 * 64
    .balign ASSIST_X87_THUNK_BYTES
    .byte 0xd8 + number / 64, 0xc0 + number % 64
    ret
    .set number, number + 1
    .endr
    .size assist_x87_host_register, . - assist_x87_host_register

    .section .note.GNU-stack, "", @progbits
