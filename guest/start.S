// SPDX-License-Identifier: Apache-2.0
/*
 * From the PVH entry to guest_main (guest.h) in 64-bit mode, and the exception stubs.
 *
 * PVH hands over (Xen: docs/misc/pvh.pandoc): 32-bit protected mode, paging off, flat segments, interrupts off, ebx ->
 * hvm_start_info. Everything here is mapped one to one; the first GiB is mapped from the start, the rest by paging.c.
 */

#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define CR0_PG        0x80000000
#define CR4_PAE       0x20
#define MSR_EFER      0xc0000080
#define EFER_LME      0x100
#define CPUID_EXTEND  0x80000000
#define CPUID_FEATURE 0x80000001
#define EDX_LM_BIT    29

#define PTE_TABLE 0x03 /* present, writable */
#define PTE_2M    0x83 /* and a page of its own: PS */

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10

#define PORT_EXIT 0xf4
#define EXIT_FAIL 1

    /* Eight bytes of descriptor, as Linux has them: some loaders read that many from a 64-bit file. */
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
    cli
    cld
    movl $stack_end, %esp
    movl %ebx, %ebp /* cpuid takes ebx */
    movl $CPUID_EXTEND, %eax
    cpuid
    cmpl $CPUID_FEATURE, %eax
    jb no_long_mode
    movl $CPUID_FEATURE, %eax
    cpuid
    btl $EDX_LM_BIT, %edx
    jnc no_long_mode

    movl $page_directory_pointers + PTE_TABLE, page_map
    movl $page_directory_first + PTE_TABLE, page_directory_pointers

    /* SDM volume 3A, section 9.8.5: PAE, CR3, LME, PG, in this order. */
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl $page_map, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    lgdt descriptor_pointer
    ljmp $SELECTOR_CODE, $start_long

no_long_mode:
    movb $EXIT_FAIL, %al
    outb %al, $PORT_EXIT
1:  hlt
    jmp 1b

    .code64
start_long:
    movl $SELECTOR_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movl $stack_end, %esp /* the upper halves are undefined after the switch */
    movl %ebp, %edi
    xorl %ebp, %ebp
    call guest_main
2:  cli
    hlt
    jmp 2b

/* bool platform_probe(uint64_t gpa) */
    .text
    .globl platform_probe
platform_probe:
    movq %rsp, probe_stack(%rip)
    leaq 3f(%rip), %rax
    movq %rax, probe_resume(%rip)
    movb (%rdi), %al
    movl $1, %eax
    jmp 4f
3:  movq probe_stack(%rip), %rsp
    xorl %eax, %eax
4:  movq $0, probe_resume(%rip)
    ret

/*
 * Exceptions 0 to 31, EXCEPTION_STUB_BYTES each. Every stub leaves vector, error code (0 where the processor pushes
 * none: SDM volume 3A, table 6-1), RIP on the stack. Nothing returns, so nothing is saved; a probe is resumed.
 */
#define EXCEPTION_COUNT      32
#define EXCEPTION_STUB_BYTES 16
#define HAS_ERROR_CODE       0x60227d00

    .globl exception_stubs
    .balign EXCEPTION_STUB_BYTES
exception_stubs:
    .set vector, 0
    .rept EXCEPTION_COUNT
    .balign EXCEPTION_STUB_BYTES
    .if ((HAS_ERROR_CODE >> vector) & 1) == 0
    pushq $0
    .endif
    pushq $vector
    jmp exception_common
    .set vector, vector + 1
    .endr

exception_common:
    movq probe_resume(%rip), %rax
    testq %rax, %rax
    jz 5f
    jmp *%rax
5:  movq (%rsp), %rdi
    movq 8(%rsp), %rsi
    movq 16(%rsp), %rdx
    movq %cr2, %rcx
    cld
    andq $-16, %rsp
    call exception_report
6:  cli
    hlt
    jmp 6b

    .section .rodata
    .balign 8
descriptors:
    .quad 0
    .quad 0x00af9b000000ffff /* code, 64-bit */
    .quad 0x00cf93000000ffff /* data */
descriptors_end:
descriptor_pointer:
    .word descriptors_end - descriptors - 1
    .quad descriptors

    .data
    .balign 4096
page_directory_first: /* made here: 512 entries at run time cost 2 ms where instructions are emulated */
    .set frame, 0
    .rept 512
    .quad frame + PTE_2M
    .set frame, frame + 0x200000
    .endr

    .bss
    .balign 4096
page_map:
    .skip 4096
    .globl page_directory_pointers
page_directory_pointers:
    .skip 4096
    .skip 16384
stack_end:
probe_stack:
    .skip 8
probe_resume:
    .skip 8

    .section .note.GNU-stack, "", @progbits
