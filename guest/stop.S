// SPDX-License-Identifier: Apache-2.0
/* The smallest PVH guest: one byte on COM1, then the end. What its launch takes is what a launch costs at least. */

#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define PORT_SERIAL              0x3f8
#define PORT_EXIT                0xf4

    .section .note.pvh, "a", @note
    .balign 4
    .long 4
    .long 8
    .long XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad start

#ifndef LOAM_GUEST_INTERRUPTS
    /* guest/abi.h: LOAM_ABI_NOTE_WITHOUT, LOAM_ABI_WITHOUT_INTERRUPTS */
    .balign 4
    .long 5
    .long 4
    .long 1
    .asciz "Loam"
    .balign 4
    .long 1
#endif

    .section .text.start, "ax", @progbits
    .code32
    .globl start
start:
    movl $PORT_SERIAL, %edx
    movb $'L', %al
    outb %al, %dx
    xorl %eax, %eax
    outb %al, $PORT_EXIT
1:  cli
    hlt
    jmp 1b

    .section .note.GNU-stack, "", @progbits
