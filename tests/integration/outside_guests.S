/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests of a few instructions for outside_test: entered as those of kernel_test (tiny_kernel.h).
 */
#include "tests/integration/kernel_guests.h"
#include "tests/integration/outside_guests.h"

#define EXIT_PORT     0xf4
#define SERIAL_PORT   0x3f8
#define FIFO_CONTROL  0x3fa
#define LINE_STATUS   0x3fd
#define APIC_SPURIOUS 0xfee000f0
#define APIC_COMMAND  0xfee00300
#define AP_START      0x8000

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

    .macro say character
    movw $SERIAL_PORT, %dx
    movb $\character, %al
    outb %al, %dx
    .endm

    .macro wait_a_while
    movl $4000, %ecx
8:  decl %ecx
    jnz 8b
    .endm

/* One byte after the other, for ever. */
guest prints
1:  say 'a'
    jmp 1b
end_guest prints

/* As many as one exit carries, for ever. */
guest floods
    movw $SERIAL_PORT, %dx
    cld
1:  movl $GUEST_BASE, %esi
    movl $4096, %ecx
    rep outsb
    jmp 1b
end_guest floods

/* Two processors, for ever: INIT and two SIPI to all but itself. The other's code: mov dx, 3f8h; mov al, 'b'; out; jmp. */
guest prints_from_two
    movl $0xb003f8ba, AP_START
    movl $0xfdebee62, AP_START + 4
    orl $0x100, APIC_SPURIOUS
    movl $0x000c4500, APIC_COMMAND
    wait_a_while
    movl $0x000c4608, APIC_COMMAND
    wait_a_while
    movl $0x000c4608, APIC_COMMAND
1:  say 'a'
    jmp 1b
end_guest prints_from_two

/* OUTSIDE_BYTES bytes, each the lowest 8 bits of its number. */
guest counts
    movw $SERIAL_PORT, %dx
    xorl %eax, %eax
1:  outb %al, %dx
    incl %eax
    cmpl $OUTSIDE_BYTES, %eax
    jne 1b
    exit_with 0
end_guest counts

/* Says L, and never reads its line. */
guest never_reads
    say 'L'
1:  inb $0x80, %al
    jmp 1b
end_guest never_reads

/* FIFOs on as drivers turn them on, a prompt, and back what comes, up to the end of a line. */
guest echoes
    movw $FIFO_CONTROL, %dx
    movb $7, %al
    outb %al, %dx
    say '>'
1:  movw $LINE_STATUS, %dx
    inb %dx, %al
    testb $1, %al
    jz 1b
    movw $SERIAL_PORT, %dx
    inb %dx, %al
    outb %al, %dx
    cmpb $'\n', %al
    jne 1b
    exit_with 0
end_guest echoes

/* Prints, and looks whether RAM that nobody wrote meanwhile has changed: code 5. */
guest watches_its_memory
    movl $0x11111111, 0x2000
    movw $SERIAL_PORT, %dx
    cld
    movl $GUEST_BASE, %esi
    movl $4096, %ecx
    rep outsb
    movl $GUEST_BASE, %esi
    movl $4096, %ecx
    rep outsb
    movl $GUEST_BASE, %esi
    movl $4096, %ecx
    rep outsb
    cmpl $0x11111111, 0x2000
    je 1f
    exit_with 5
1:  exit_with 0
end_guest watches_its_memory

    .section .note.GNU-stack, "", @progbits
