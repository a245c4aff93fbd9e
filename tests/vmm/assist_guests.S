/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests for assist_test: instructions that KVM's emulator may lack. Each is copied to GUEST_BASE and started at its first
 * byte. assist_sequence is 64-bit code that runs anywhere: the test runs it itself, too, and compares.
 */
#include "tests/vmm/assist_guests.h"

#define EXIT_PORT 0xf4
#define STACK     (GUEST_BASE + GUEST_BYTES)
#define IDT       (GUEST_BASE + 0x2000)

    .text

    .macro guest name
    .globl guest_\name, guest_\name\()_end
    .balign 16
guest_\name:
    .endm
    .macro end_guest name
guest_\name\()_end:
    .endm

    .macro exit code
    movb $\code, %al
    outb %al, $EXIT_PORT
9:  hlt
    jmp 9b
    .endm

/* --- 64-bit: rdi -> results, each of 16 bytes ----------------------------------------------------------------------- */

    /* st(0), popped; the status word beside it. */
    .macro save
    fnstsw %ax
    movw %ax, 12(%rdi)
    fstpt (%rdi)
    addq $16, %rdi
    .endm

    /* ZF, PF and CF, as FCOMI leaves them. */
    .macro save_flags
    setz (%rdi)
    setp 1(%rdi)
    setc 2(%rdi)
    sets 3(%rdi)
    seto 4(%rdi)
    leaq 16(%rdi), %rdi
    .endm

    .macro unary instruction, value
    fldl \value(%rip)
    \instruction
    save
    .endm

    /* st(1) first, then st(0). */
    .macro binary instruction, value1, value0
    fldl \value1(%rip)
    fldl \value0(%rip)
    \instruction
    save
    fninit
    .endm

guest long
    .code64
    movl $RESULTS_BASE, %edi
    movl $STACK, %esp
    call assist_sequence
    exit 0

    .globl assist_sequence
    .type assist_sequence, @function
assist_sequence:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    fninit
    fnstcw (%rdi)
    fnstsw 2(%rdi)
    addq $16, %rdi

    /* Constants, and what is done to them. */
    fld1
    save
    fldl2t
    save
    fldl2e
    save
    fldpi
    save
    fldlg2
    save
    fldln2
    save
    fldz
    save
    unary fchs, number_third
    unary fabs, number_minus
    unary fsqrt, number_large
    unary frndint, number_third
    unary f2xm1, number_third
    unary fsin, number_third
    unary fcos, number_third
    fldl number_third(%rip)
    fsincos
    save
    save
    fldl number_third(%rip)
    fptan
    save
    save
    fldl number_large(%rip)
    fxtract
    save
    save
    binary fpatan, number_third, number_large
    binary fyl2x, number_third, number_large
    binary fyl2xp1, number_large, number_third
    binary fprem, number_third, number_large
    binary fprem1, number_third, number_large
    binary fscale, number_third, number_large
    binary faddp, number_third, number_large
    binary fsubp, number_third, number_large
    binary fsubrp, number_third, number_large
    binary fmulp, number_third, number_large
    binary fdivp, number_third, number_large
    binary fdivrp, number_third, number_large
    binary fcompp, number_third, number_large
    binary ftst, number_third, number_minus
    binary fxam, number_third, number_minus
    binary "fxch %st(1)", number_third, number_minus
    binary "fadd %st(1), %st", number_third, number_minus

    /* Every type of operand in memory, by every kind of address. */
    leaq number_third(%rip), %rbx
    leaq number_third(%rip), %rbp
    leaq number_third - 0x12345(%rip), %r12
    movq %rbp, %r13
    movl $1, %ecx
    flds number_single(%rip)
    fadds 16(%rbx)
    fimuls number_word(%rip)
    fimull number_long(%rip)
    faddl (%rbx,%rcx,8)
    faddl -8(%rbp,%rcx,8)
    fsubl 0x12345(%r12,%rcx,8)
    fmull (%r13)
    fsubrl 0x12345(%r12)
    pushq number_large(%rip)
    faddl (%rsp)
    popq %rax
    save
    fildll number_quad(%rip)
    save
    fildl number_long(%rip)
    save
    filds number_word(%rip)
    save
    fldt number_extended(%rip)
    save
    fbld number_decimal(%rip)
    save
    fldl number_large(%rip)
    fsts (%rdi)
    fstl 4(%rdi)
    fistps 12(%rdi)
    fldl number_minus(%rip)
    fistl 16(%rdi)
    fisttpl 20(%rdi)
    fldl number_large(%rip)
    fistpll 24(%rdi)
    fldl number_large(%rip)
    fisttpll 32(%rdi)
    fldl number_minus(%rip)
    fisttps 40(%rdi)
    fldl number_large(%rip)
    fbstp 42(%rdi)
    addq $64, %rdi

    /* Each rounding, and each precision. */
    xorl %ecx, %ecx
1:  movl %ecx, %eax
    shll $10, %eax
    orl $0x37f, %eax
    movw %ax, (%rdi)
    fldcw (%rdi)
    fldl number_minus(%rip)
    fistpl 4(%rdi)
    addq $16, %rdi
    fldl number_third(%rip)
    fdivl number_large(%rip)
    save
    movw $0x07f, -2(%rdi)
    fldcw -2(%rdi)
    fldl number_third(%rip)
    fdivl number_large(%rip)
    save
    incl %ecx
    cmpl $4, %ecx
    jne 1b
    fninit

    /* Comparisons that leave flags, and moves that take them. */
    fldl number_third(%rip)
    fldl number_large(%rip)
    fcomi %st(1), %st
    save_flags
    fucomi %st(0), %st
    save_flags
    fxch
    fucomi %st(1), %st
    save_flags
    fcmovb %st(1), %st
    save
    fninit
    fldz
    fdiv %st(0), %st
    fcomi %st(0), %st
    save_flags
    save
    fnclex
    fnstsw %ax
    movw %ax, (%rdi)
    addq $16, %rdi

    /* Masked exceptions. */
    unary fsqrt, number_minus
    fldz
    fdivrl number_third(%rip)
    save
    fnclex
    fninit
    fstpt (%rdi)
    fnstsw 12(%rdi)
    addq $16, %rdi
    movl $9, %ecx
1:  fld1
    loop 1b
    save
    fninit
    ffree %st(3)
    fincstp
    fdecstp
    fnop
    fnstsw (%rdi)
    addq $16, %rdi

    /* An instruction that goes on in the next page: after 0xffb bytes of guest. */
    jmp 2f
    .skip 0xffb - (. - guest_long), 0x90
2:  nop
    nop
    fldt number_extended(%rip)
    save

    /* A result that does. */
    fldl number_third(%rip)
    fldl number_large(%rip)
    addq $4095, %rdi
    andq $-4096, %rdi
    fstpt -3(%rdi)
    fistpll 4096 - 1(%rdi)
    fninit
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
    .size assist_sequence, . - assist_sequence

    .balign 16
number_third:
    .double 0.33333333333333331
    .double 1.25
    .float 7.5
    .balign 8
number_large:
    .double 12345.678
number_minus:
    .double -2.5
number_single:
    .float 1.5
number_long:
    .long -123456
number_quad:
    .quad 0x123456789abcdef
number_word:
    .short -321
number_extended:
    .quad 0xc90fdaa22168c235
    .short 0xc001
number_decimal:
    .byte 0x21, 0x43, 0x65, 0x87, 0x09, 0, 0, 0, 0, 0x80
end_guest long

/* Writes to where it may not. */
guest protected
    .code64
    movl $RESULTS_BASE, %edi
    movq %cr0, %rax
    orl $0x10000, %eax
    movq %rax, %cr0
    fninit
    fld1
    fstpl (%rdi)
    exit 0
end_guest protected

/* --- 32-bit, started by the PVH protocol --------------------------------------------------------------------------------- */

#define AT(guest, label) (GUEST_BASE + label - guest)

guest short
    .code32
    movl $STACK, %esp
    movl $RESULTS_BASE, %edi
    fninit
    fildl AT(guest_short, 1f)
    movl $AT(guest_short, 1f), %ebp
    fimull 4(%ebp)
    fistpl (%edi)
    pushl $1000
    fildl (%esp)
    xorl %eax, %eax
    fildl %es:AT(guest_short, 1f)(,%eax,8)
    fsubrp
    fistpll 8(%edi)
    fwait
    fld1
    fstps 16(%edi)
    fldpi
    data16 fistps 20(%edi)
    fnstsw %ax
    movw %ax, 24(%edi)
    exit 0
    .balign 4
1:  .long 6, -7
end_guest short

/* SSE, POPCNT and MXCSR in 32-bit code, through a segment with a base, and across a page. */
guest short_sse
    .code32
    movl $STACK, %esp
    movl $RESULTS_BASE, %edi
    movl %cr4, %eax
    orl $0x600, %eax
    movl %eax, %cr4
    movl $-7, %eax
    cvtsi2sdl %eax, %xmm1
    movl $AT(guest_short_sse, 1f), %ebp
    mulsd (%ebp), %xmm1
    movsd %xmm1, (%edi)
    cvttsd2si %xmm1, %ecx
    movl %ecx, 8(%edi)
    movd %ecx, %xmm7
    pshufd $0, %xmm7, %xmm6
    paddd AT(guest_short_sse, 1f) + 16, %xmm6
    movhlps %xmm6, %xmm5
    movlps %xmm5, 12(%edi)
    popcntl 16(%ebp), %eax
    movl %eax, 20(%edi)
    popcntw 16(%ebp), %ax
    movl %eax, 24(%edi)
    stmxcsr 28(%edi)
    leal 4093(%edi), %ebx
    movq %xmm6, (%ebx)
    xorps %xmm0, %xmm0
    ucomisd %xmm1, %xmm0
    seta 32(%edi)
    exit 0
    .balign 16
1:  .double 1.5
    .double 0
    .long 0x0f0f1111, 2, 3, 4
end_guest short_sse

    /* IRET within ring 0, which the emulator lacks as well. */
    .macro return
    popl %edx
    addl $4, %esp
    popfl
    jmpl *%edx
    .endm

/* Exceptions: each handler adds its vector to the list at RESULTS_BASE and takes the reason away. */
guest traps
    .code32
    movl $STACK, %esp
    movl $RESULTS_BASE, %edi
    lgdt AT(guest_traps, 7f)
    lidt AT(guest_traps, 8f)
    movl $3, %ecx
    movl $AT(guest_traps, 3f), %eax
    call 2f
    movl $7, %ecx
    movl $AT(guest_traps, 4f), %eax
    call 2f
    movl $16, %ecx
    movl $AT(guest_traps, 5f), %eax
    call 2f
    movl $64, %ecx
    movl $AT(guest_traps, 6f), %eax
    call 2f
    int $64
    movb $0xa6, (%edi)
    incl %edi
    int3
    movb $0xa0, (%edi)
    incl %edi
    /* The task was switched: WAIT with MP, and x87, raise #NM; WAIT without MP does not. */
    fninit
    movl %cr0, %eax
    andl $~0x2, %eax
    orl $0x28, %eax
    movl %eax, %cr0
    fwait
    movb $0xa1, (%edi)
    incl %edi
    orl $0xa, %eax
    movl %eax, %cr0
    fwait
    movb $0xa2, (%edi)
    incl %edi
    movl %eax, %cr0
    fld1
    movb $0xa3, (%edi)
    incl %edi
    /* 1 / 0 under its mask; then the mask goes. */
    fldz
    fdivrp
    fnstsw %ax
    movb %al, (%edi)
    incl %edi
    fldcw AT(guest_traps, 9f)
    fnstsw %ax
    movb %al, (%edi)
    incl %edi
    fwait
    movb $0xa4, (%edi)
    incl %edi
    fldcw AT(guest_traps, 9f) + 2
    fld1
    fldz
    fdivrp
    fldcw AT(guest_traps, 9f)
    fld1
    movb $0xa5, (%edi)
    incl %edi
    movb $0, %al
    outb %al, $EXIT_PORT
1:  hlt
    jmp 1b
    /* Gate ecx leads to eax. */
2:  movw %ax, IDT(, %ecx, 8)
    movw $0x10, IDT + 2(, %ecx, 8)
    movw $0x8e00, IDT + 4(, %ecx, 8)
    shrl $16, %eax
    movw %ax, IDT + 6(, %ecx, 8)
    ret
3:  movb $3, (%edi)
    incl %edi
    return
4:  movb $7, (%edi)
    incl %edi
    clts
    return
5:  movb $16, (%edi)
    incl %edi
    fnclex
    return
6:  movb $64, (%edi)
    incl %edi
    return
    .balign 8
10: .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
7:  .word 31
    .long AT(guest_traps, 10b)
8:  .word 0x7ff
    .long IDT
9:  .word 0x37b, 0x37f
end_guest traps

/* Division by zero, not masked: done by the processor, or refused. */
guest unmasked
    .code32
    movl $RESULTS_BASE, %edi
    fninit
    fldcw AT(guest_unmasked, 1f)
    fld1
    fldz
    fdivrp
    exit 0
1:  .word 0x37b
end_guest unmasked

/* x87 where no memory is. */
guest nowhere
    .code32
    fninit
    flds 0xe0000000
    exit 0
end_guest nowhere

    .section .note.GNU-stack, "", @progbits
