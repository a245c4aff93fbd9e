/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests of a few instructions for domain_run_test: entered by the PVH protocol at GUEST_BASE, in 32-bit protected mode,
 * flat, with ebx -> hvm_start_info and without a stack.
 */
#define EXIT_PORT   0xf4
#define RESET_PORT  0x64
#define SERIAL_PORT 0x3f8
#define LINE_STATUS 0x3fd

#define START_INFO_COMMAND_LINE 24
#define START_INFO_MODULES      16

    .section .rodata

/* Says its command line and its first module, and ends with code 42. */
    .globl guest_tells, guest_tells_end
guest_tells:
    .code32
    cld
    movw $SERIAL_PORT, %dx
    movl START_INFO_COMMAND_LINE(%ebx), %esi
1:  lodsb
    testb %al, %al
    jz 2f
    outb %al, %dx
    jmp 1b
2:  cmpl $0, 12(%ebx)
    je 3f
    movl START_INFO_MODULES(%ebx), %ebx
    movl (%ebx), %esi
    movl 8(%ebx), %ecx
    rep outsb
3:  movl $42, %eax
    outl %eax, $EXIT_PORT
4:  hlt
    jmp 4b
guest_tells_end:

/* Resets itself. */
    .globl guest_resets, guest_resets_end
guest_resets:
    .code32
    movb $0xfe, %al
    outb %al, $RESET_PORT
1:  hlt
    jmp 1b
guest_resets_end:

/* Code 9 if something is typed within a while, else 0. */
    .globl guest_listens, guest_listens_end
guest_listens:
    .code32
    movl $20000, %ecx
    movw $LINE_STATUS, %dx
    xorl %eax, %eax
1:  inb %dx, %al
    andb $1, %al
    jnz 2f
    loop 1b
    jmp 3f
2:  movl $9, %eax
3:  outl %eax, $EXIT_PORT
4:  hlt
    jmp 4b
guest_listens_end:

    .section .note.GNU-stack, "", @progbits
