// SPDX-License-Identifier: Apache-2.0
/*
 * Processors: the second one's way into 64-bit mode, an IDT for vectors of chance, MSRs that may be refused.
 *
 * SDM volume 3A, sections 6.14.2 (the stack of an interrupt in 64-bit mode), 9.4.4 (INIT and SIPI), 9.8.5 (into IA-32e mode).
 */

#define START_GPA  0x8000
#define STACK_BYTES 16384

#define LOCAL_APIC    0xfee00000
#define APIC_EOI      0xb0
#define APIC_COMMAND  0x300
#define COMMAND_INIT  0xc4500 /* to all but this one */
#define COMMAND_START 0xc4600
#define COMMAND_PENDING 0x1000

#define CR0_PE   0x01
#define CR0_PG   0x80000000
#define CR4_PAE  0x20
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100

#define SELECTOR_CODE   0x08
#define SELECTOR_DATA   0x10
#define SELECTOR_CODE32 0x18

#define FLAG_INTERRUPTS 0x200
#define WITH_ERROR_CODE 0x08 /* of RSP: 16 bytes aligned before what is pushed, 5 words or 6 */
#define MSR_INSTRUCTION_BYTES 2

#define VECTOR_COUNT 256

/* --- The second processor --- */

#define AT(label) (START_GPA + (label - start_second))

    .section .rodata
    .code16
start_second:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl AT(start_descriptor_pointer)
    movl %cr0, %eax
    orl $CR0_PE, %eax
    movl %eax, %cr0
    ljmpl $SELECTOR_CODE32, $AT(start_protected)

    .code32
start_protected:
    movl $SELECTOR_DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %cr4, %eax
    orl $CR4_PAE, %eax
    movl %eax, %cr4
    movl second_page_map, %eax
    movl %eax, %cr3
    movl $MSR_EFER, %ecx
    rdmsr
    orl $EFER_LME, %eax
    wrmsr
    movl %cr0, %eax
    orl $CR0_PG, %eax
    movl %eax, %cr0
    ljmp $SELECTOR_CODE, $start_second_long

    .balign 8
start_descriptors:
    .quad 0
    .quad 0x00af9b000000ffff /* code, 64-bit */
    .quad 0x00cf93000000ffff /* data */
    .quad 0x00cf9b000000ffff /* code, 32-bit */
start_descriptor_pointer:
    .word start_descriptor_pointer - start_descriptors - 1
    .long AT(start_descriptors)
start_second_end:

    .text
    .code64
start_second_long:
    movl $SELECTOR_DATA, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl $second_stack_end, %esp
    xorl %ebp, %ebp
    call second_main
1:  cli
    hlt
    jmp 1b

/* void cpu_start_second(void) */
    .globl cpu_start_second
cpu_start_second:
    movq %cr3, %rax
    movl %eax, second_page_map
    movl $start_second, %esi
    movl $START_GPA, %edi
    movl $(start_second_end - start_second), %ecx
    cld
    rep movsb
    movl $LOCAL_APIC, %edi
    movl $COMMAND_INIT, APIC_COMMAND(%rdi)
2:  pause
    testl $COMMAND_PENDING, APIC_COMMAND(%rdi)
    jnz 2b
    movl $(COMMAND_START | START_GPA >> 12), APIC_COMMAND(%rdi)
3:  pause
    testl $COMMAND_PENDING, APIC_COMMAND(%rdi)
    jnz 3b
    ret

/* --- Interrupts and exceptions --- */

/* void cpu_load_gates(void): each gate leads to interrupt; made once, the same for both. */
    .globl cpu_load_gates
cpu_load_gates:
    movl $gates, %edi
    movl $VECTOR_COUNT, %ecx
    movl $interrupt, %eax
    movl %eax, %edx
    shrl $16, %edx
4:  movw %ax, (%rdi)
    movw $SELECTOR_CODE, 2(%rdi)
    movw $0x8e00, 4(%rdi) /* an interrupt gate, present */
    movw %dx, 6(%rdi)
    movq $0, 8(%rdi)
    addq $16, %rdi
    decl %ecx
    jnz 4b
    lidt gates_pointer
    ret

interrupt:
    testb $WITH_ERROR_CODE, %spl
    jz refused
    pushq %rax
    incq cpu_interrupts(%rip)
    movl $LOCAL_APIC, %eax
    movl $0, APIC_EOI(%rax)
    andq $~FLAG_INTERRUPTS, 24(%rsp) /* of the flags that IRET restores */
    popq %rax
    iretq

refused:
    pushq %rax
    leaq read_msr(%rip), %rax
    cmpq %rax, 16(%rsp)
    je 5f
    leaq write_msr(%rip), %rax
    cmpq %rax, 16(%rsp)
    je 5f
    movq 8(%rsp), %rdx
    movq 16(%rsp), %rdi
    movq %cr2, %rsi
    call cpu_fault
5:  addq $MSR_INSTRUCTION_BYTES, 16(%rsp)
    incq cpu_refusals(%rip)
    popq %rax
    addq $8, %rsp
    iretq

/* uint64_t cpu_read_msr(uint32_t msr) */
    .globl cpu_read_msr
cpu_read_msr:
    movl %edi, %ecx
    xorl %eax, %eax
    xorl %edx, %edx
read_msr:
    rdmsr
    shlq $32, %rdx
    orq %rdx, %rax
    ret

/* void cpu_write_msr(uint32_t msr, uint64_t value) */
    .globl cpu_write_msr
cpu_write_msr:
    movl %edi, %ecx
    movl %esi, %eax
    movq %rsi, %rdx
    shrq $32, %rdx
write_msr:
    wrmsr
    ret

    .section .rodata
    .balign 8
gates_pointer:
    .word VECTOR_COUNT * 16 - 1
    .quad gates

    .bss
    .balign 16
gates:
    .skip VECTOR_COUNT * 16
    .skip STACK_BYTES
second_stack_end:
second_page_map:
    .skip 8
    .globl cpu_interrupts
cpu_interrupts:
    .skip 8
    .globl cpu_refusals
cpu_refusals:
    .skip 8

    .section .note.GNU-stack, "", @progbits
