/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests for trace_run_test: entered by the PVH protocol at GUEST_BASE, in 32-bit protected mode, flat, without a stack.
 */
#include "tests/integration/kernel_guests.h"

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

/* One access of each kind, and code 0. */
guest accesses
    cld
    movw $0x3f8, %dx
    movb $'L', %al
    outb %al, %dx
    movl $(GUEST_BASE + 2f - guest_accesses), %esi
    movl $3, %ecx
    rep outsb
    movw $0x81, %dx
    movl $GUEST_SCRAP, %edi
    movl $3, %ecx
    rep insw
    inw $0xed, %ax /* nobody answers there */
    movl $0xe0000010, %ebx
    movl $0x12345678, (%ebx)
    movzbl 2(%ebx), %eax
    movl $0xd0000000, %ebx
    movl (%ebx), %eax /* virtio-mmio: "virt" */
    fwait
    xorl %eax, %eax
    outl %eax, $0xf4
2:  .ascii "oam"
end_guest accesses

/* Writes to a port for ever. */
guest babbles
1:  outb %al, $0x80
    jmp 1b
end_guest babbles

/* So often, and code 0. */
guest writes_much
    movl $20000, %ecx
1:  movl %ecx, %eax
    outl %eax, $0x80
    decl %ecx
    jnz 1b
    movl %ecx, %eax
    outl %eax, $0xf4
end_guest writes_much

    .section .note.GNU-stack, "", @progbits
