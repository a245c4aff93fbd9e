/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests of a few instructions for kernel_test: entered by the PVH protocol at GUEST_BASE, in 32-bit protected mode, flat, with
 * ebx -> hvm_start_info and without a stack.
 */
#include "tests/integration/kernel_guests.h"

#define EXIT_PORT   0xf4
#define RESET_PORT  0x64
#define SERIAL_PORT 0x3f8
#define LINE_STATUS 0x3fd

    .section .rodata

    .macro guest name
    .globl guest_\name, guest_\name\()_end
guest_\name:
    .code32
    .endm
    .macro end_guest name
9:  hlt
    jmp 9b
guest_\name\()_end:
    .endm

    .macro exit_with code
    movl $\code, %eax
    outl %eax, $EXIT_PORT
    .endm

    .macro reset
    movb $0xfe, %al
    outb %al, $RESET_PORT
    .endm

    .macro say character
    movw $SERIAL_PORT, %dx
    movb $\character, %al
    outb %al, %dx
    .endm

guest code_0
    exit_with 0
end_guest code_0

guest code_2
    exit_with 2
end_guest code_2

guest code_42
    exit_with 42
end_guest code_42

guest code_298
    exit_with (256 + 42)
end_guest code_298

guest halts
    say 'L'
    cli
end_guest halts

/* No IDT: an exception has no handler, nor has the double fault that follows. */
guest triple_fault
    ud2
end_guest triple_fault

guest turns_off
    movw $0x604, %dx
    movw $0x2000, %ax
    outw %ax, %dx
end_guest turns_off

guest panics
    movw $0x505, %dx
    movb $1, %al
    outb %al, %dx
end_guest panics

guest reset
    reset
end_guest reset

/* Says L; code 9 if a former life's word is still in RAM; else leaves one there and resets. */
guest forgets
    say 'L'
    movl $GUEST_SCRAP, %edi
    cmpl $0, (%edi)
    je 1f
    exit_with 9
1:  movl $0x600d600d, (%edi)
    reset
end_guest forgets

/* Says L, and resets when something is typed. */
guest waits
    say 'L'
1:  movw $LINE_STATUS, %dx
    inb %dx, %al
    testb $1, %al
    jz 1b
    reset
end_guest waits

/* Says L, waits for something typed, and then writes to RAM that it has not touched yet; code 0 if nothing came of it. */
    .macro wait_for_a_key
    say 'L'
1:  movw $LINE_STATUS, %dx
    inb %dx, %al
    testb $1, %al
    jz 1b
    .endm

guest writes_late
    wait_for_a_key
    movl $GUEST_LATE, %ebx
    movl $1, (%ebx)
    exit_with 0
end_guest writes_late

/* The same by an instruction of the x87, which some KVMs leave to the VMM. */
guest stores_late
    fninit
    fld1
    wait_for_a_key
    movl $GUEST_LATE, %ebx
    fstps (%ebx)
    exit_with 0
end_guest stores_late

/* Says a byte that is no text, and a word that is. */
guest says
    say 0xff
    say 'h'
    say 'i'
    exit_with 0
end_guest says

/* Says the bytes of its first module; code 7 if there is none. */
guest module
    cmpl $0, 12(%ebx)
    jne 1f
    exit_with 7
1:  movl 16(%ebx), %ebx
    movl (%ebx), %esi
    movl 8(%ebx), %ecx
    movw $SERIAL_PORT, %dx
    cld
    rep outsb
    exit_with 0
end_guest module

/* Says its command line; the banner is Linux's. */
guest repeats
    movl 24(%ebx), %esi
    movw $SERIAL_PORT, %dx
    cld
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  exit_with 0
    .asciz "Linux version 6.1.0 (who@where)"
end_guest repeats

    .section .note.GNU-stack, "", @progbits
