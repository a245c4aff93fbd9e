/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests for ways_test, at GUEST_BASE: what they are handed over is checked from the inside. They end with 0, or with a number
 * from 10 on that says which check failed.
 */
#include "tests/integration/kernel_guests.h"
#include "tests/integration/ways_guests.h"

#define EXIT_PORT   0xf4
#define SERIAL_PORT 0x3f8

#define MAGIC 0x1badb002
#define FLAGS 0x10003 /* whole pages, a memory map; the address fields, which an ELF file may have as well */

    .macro fail_unless condition code
    movl $\code, %eax
    j\condition 1f
    outl %eax, $EXIT_PORT
1:
    .endm

    .section .rodata

/* With the address fields or without them. Then ebx -> multiboot information; no stack. */
    .macro multiboot_guest name flags
    .balign 4
    .globl guest_\name, guest_\name\()_end
guest_\name:
    .code32
    jmp begin_\name
    .balign 4
header_\name:
    .long MAGIC, \flags, -(MAGIC + \flags)
    .long GUEST_BASE + header_\name - guest_\name, GUEST_BASE, 0, GUEST_SCRAP, GUEST_BASE
begin_\name:
    cmpl $0x2badb002, %eax
    fail_unless e 10
    movl (%ebx), %ecx
    andl $0x24d, %ecx /* memory, command line, modules, memory map, loader */
    cmpl $0x24d, %ecx
    fail_unless e 11
    cmpl $640, 4(%ebx)
    fail_unless e 12

    movl 24(%ebx), %esi /* one module: what the test gave */
    cmpl $1, 20(%ebx)
    fail_unless e 13
    movl (%esi), %edi
    movl 4(%esi), %ecx
    subl %edi, %ecx
    cmpl $WAYS_INITRD_BYTES, %ecx
    fail_unless e 14
    cmpl $WAYS_INITRD_WORD, (%edi)
    fail_unless e 15

    movl 48(%ebx), %esi /* RAM, by its entries, in KiB */
    movl 44(%ebx), %edx
    addl %esi, %edx
    xorl %ecx, %ecx
2:  cmpl $1, 20(%esi)
    jne 3f
    movl 12(%esi), %eax
    shrl $10, %eax
    addl %eax, %ecx
3:  addl (%esi), %esi
    addl $4, %esi
    cmpl %edx, %esi
    jb 2b
    cmpl $(WAYS_RAM_KIB - 384), %ecx
    fail_unless e 16

    cmpl $0, GUEST_SCRAP - 4 /* the zeros behind what was loaded */
    fail_unless e 17
    movl 16(%ebx), %esi
    movw $SERIAL_PORT, %dx
    cld
4:  lodsb
    testb %al, %al
    jz 5f
    outb %al, %dx
    jmp 4b
5:  xorl %eax, %eax
    outl %eax, $EXIT_PORT
6:  hlt
    jmp 6b
guest_\name\()_end:
    .endm

multiboot_guest multiboot 3
multiboot_guest multiboot_addresses FLAGS
multiboot_guest multiboot_video 7

/* The 64-bit Linux protocol: rsi -> boot_params, long mode. */
    .globl guest_vmlinux, guest_vmlinux_end
guest_vmlinux:
    .code64
    movabsq $0x123456789abcdef0, %rax /* in 32-bit code that would be something else */
    shrq $60, %rax
    cmpl $1, %eax
    fail_unless e 20
    cmpl $0x53726448, 0x202(%rsi)
    fail_unless e 21
    cmpb $2, 0x1e8(%rsi) /* rows of the E820 map */
    fail_unless ae 22
    cmpl $WAYS_INITRD_BYTES, 0x21c(%rsi)
    fail_unless e 23
    movl 0x218(%rsi), %edi
    cmpl $WAYS_INITRD_WORD, (%rdi)
    fail_unless e 24
    movl 0x228(%rsi), %esi
    movw $SERIAL_PORT, %dx
    cld
4:  lodsb
    testb %al, %al
    jz 5f
    outb %al, %dx
    jmp 4b
5:  xorl %eax, %eax
    outl %eax, $EXIT_PORT
6:  hlt
    jmp 6b
guest_vmlinux_end:

    .section .note.GNU-stack, "", @progbits
