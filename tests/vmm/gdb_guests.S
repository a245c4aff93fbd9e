/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests for gdb_test, in 64-bit mode on a map of the first 4 GiB one to one, started at their first byte at GUEST_BASE. Labels with
 * a name are where the debugger stops.
 */
#include "tests/vmm/gdb_guests.h"

#define EXIT_PORT 0xf4
#define ROUNDS    50

    .section .rodata

    .macro guest name
    .globl guest_\name, guest_\name\()_end
guest_\name:
    .code64
    .endm
    .macro end_guest name
guest_\name\()_end:
    .endm

#define AT(guest, label) (GUEST_BASE + label - guest)

    .macro at name
    .globl at_\name
at_\name:
    .endm

    .macro exit_with code
    movl $\code, %eax
    outl %eax, $EXIT_PORT
9:  hlt
    jmp 9b
    .endm

/* ROUNDS times: counts, writes the count down, tells a port, waits for the x87. Code 0x11. */
guest rounds
    xorl %eax, %eax
    at loop
    incl %eax
    at store
    movl %eax, GUEST_COUNTER
    at out
    outb %al, $0x80
    at after_out
    fwait
    at after_fwait
    inb $0x81, %al
    at after_in
    movl GUEST_COUNTER, %eax
    at after_load
    cmpl $ROUNDS, %eax
    jne at_loop
    exit_with 0x11
end_guest rounds

/* Code 0x33 from its own handler of INT3; 0x44 if it does not come there. */
guest own_int3
    movl $GUEST_STACK, %esp
    movl $(GUEST_IDT + 3 * 16), %edi
    movl $AT(guest_own_int3, 1f), %eax
    movw %ax, (%rdi)
    movw $0x10, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shrl $16, %eax
    movw %ax, 6(%rdi)
    movq $0, 8(%rdi)
    lidt AT(guest_own_int3, 2f)
    at before_int3
    nop
    int3
    exit_with 0x44
1:  exit_with 0x33
2:  .word 0xfff
    .quad GUEST_IDT
end_guest own_int3

/* Counts for ever. */
guest spins
    at spin
1:  incl GUEST_COUNTER
    jmp 1b
end_guest spins

/* No IDT: an exception has no handler, nor has the double fault that follows. */
guest faults
    movl $0x600d600d, %esi
    at fault
    ud2
end_guest faults

/* Starts the other vCPU, and counts for ever, as that does. */
guest two
    movl $0xfee00000, %ebx
    movl $(1 << 24), 0x310(%rbx)
    movl $0x4500, 0x300(%rbx)
    movl $(1 << 24), 0x310(%rbx)
    movl $(0x4600 | OTHER_BASE >> 12), 0x300(%rbx)
    at first
1:  incl GUEST_COUNTER
    jmp 1b
end_guest two

guest other
    .code16
    movw %cs, %ax
    movw %ax, %ds
    at second
    incl (OTHER_COUNTER - OTHER_BASE)
    jmp at_second
end_guest other

    .section .note.GNU-stack, "", @progbits
