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

/* Writes to two ports at which nobody is, as others' test kernels do to end. */
guest halts
    say 'L'
    movb $0x2a, %al
    outb %al, $0xed
    outb %al, $0xed
    movw $0x300, %dx
    outw %ax, %dx
    cli
end_guest halts

/* What software seldom emulates; and the processor has no leave to carry it out either (CR4.OSXSAVE). */
guest restores
    movl $GUEST_SCRAP, %edi
    xrstor (%edi)
    exit_with 0
end_guest restores

/* Code where no memory is. */
guest leaps
    movl $0xe0000000, %eax
    jmp *%eax
end_guest leaps

/* Paging of 4 MiB pages outside long mode; code 0 if there is such. The table is one page of zeros but for one row. */
guest legacy_paging
    movl $GUEST_SCRAP, %ebx
    movl $0x00000083, (%ebx)
    movl %ebx, %cr3
    movl %cr4, %eax
    orl $0x10, %eax
    movl %eax, %cr4
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    exit_with 0
end_guest legacy_paging

/* Uses RAM that a guest of 16 MiB does not have, says L, and waits. */
guest reaches_far
    movl $1, GUEST_FAR
    say 'L'
    sti
end_guest reaches_far

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

/* Says in the words of Linux that it has panicked. */
    .macro say_panic guest
    cld
    movl $(GUEST_BASE + 7f - guest_\guest), %esi
    movl $(8f - 7f), %ecx
    movw $SERIAL_PORT, %dx
    rep outsb
    jmp 8f
7:  .ascii "Oops\n[    0.5] Kernel panic - not syncing: Attempted to kill init!\r\nCPU: 0\n"
8:
    .endm

guest panics_and_resets
    say_panic panics_and_resets
    reset
end_guest panics_and_resets

guest panics_aloud
    say_panic panics_aloud
    movw $0x505, %dx
    movb $1, %al
    outb %al, %dx
end_guest panics_aloud

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

/* Says a byte that is no text, and a word that is, of which the middle at the debug console. */
guest says
    say 0xff
    say 'h'
    movb $'e', %al
    outb %al, $0xe9
    say 'y'
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
