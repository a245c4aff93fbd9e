/* SPDX-License-Identifier: Apache-2.0
 *
 * Guests of a few instructions each, for machine_test. A guest is copied to GUEST_BASE and started at its first byte: by the
 * PVH protocol in 32-bit protected mode without a stack, or in 64-bit mode. It names its own places by AT.
 */
#include "tests/vmm/machine_guests.h"

#define EXIT_PORT   0xf4
#define SERIAL_PORT 0x3f8
#define LINE_STATUS 0x3fd

    .section .rodata

/* guest NAME ... end_guest NAME */
    .macro guest name
    .globl guest_\name, guest_\name\()_end
guest_\name:
    .code32
    .endm
    .macro end_guest name
guest_\name\()_end:
    .endm

#define AT(guest, label) (GUEST_BASE + label - guest)

    /* Exit with what is in al. */
    .macro exit_al
    outb %al, $EXIT_PORT
9:  hlt
    jmp 9b
    .endm

    /* Say one character on the serial line. Uses al, dx. */
    .macro say character
    movw $SERIAL_PORT, %dx
    movb $\character, %al
    outb %al, %dx
    .endm

guest exit_byte
    movl $0xffffff2a, %eax
    exit_al
end_guest exit_byte

guest exit_long
    movl $0x12345678, %eax
    outl %eax, $EXIT_PORT
1:  hlt
    jmp 1b
end_guest exit_long

guest exit_word
    movl $0xffff1234, %eax
    outw %ax, $EXIT_PORT
1:  hlt
    jmp 1b
end_guest exit_word

/* Writes elsewhere in its range, and reads, stop nothing. */
guest exit_odd
    movl $0x11111111, %eax
    outb %al, $(EXIT_PORT + 1)
    inb $EXIT_PORT, %al
    cmpb $0xff, %al
    movb $1, %al
    jne 1f
    movb $7, %al
1:  exit_al
end_guest exit_odd

/* The first of many counts. */
guest exit_twice
    movb $3, %al
    outb %al, $EXIT_PORT
    movb $4, %al
    exit_al
end_guest exit_twice

/* ebx -> the parameters: gives their first byte. */
guest parameters
    movb (%ebx), %al
    exit_al
end_guest parameters

guest serial_out
    say 'L'
    say 'o'
    say 'a'
    say 'm'
    movb $0, %al
    exit_al
end_guest serial_out

guest serial_string
    cld
    movl $AT(guest_serial_string, 2f), %esi
    movl $(3f - 2f), %ecx
    movw $SERIAL_PORT, %dx
    rep outsb
    movb $0, %al
    exit_al
2:  .ascii "The quick brown fox jumps over the lazy dog."
3:
end_guest serial_string

/* Says each byte that comes in, until a q. */
guest serial_echo
1:  movw $LINE_STATUS, %dx
    inb %dx, %al
    testb $1, %al
    jz 1b
    movw $SERIAL_PORT, %dx
    inb %dx, %al
    outb %al, %dx
    cmpb $'q', %al
    jne 1b
    movb $0, %al
    exit_al
end_guest serial_echo

/* Reads 1, 2 and 4 bytes of the test device, and writes them back to other places of it. */
guest mmio
    movl $TEST_DEVICE, %ebx
    movb 0x01(%ebx), %al
    movb %al, 0x11(%ebx)
    movw 0x02(%ebx), %ax
    movw %ax, 0x22(%ebx)
    movl 0x04(%ebx), %eax
    movl %eax, 0x44(%ebx)
    movb $0, %al
    exit_al
end_guest mmio

/* The same with 8 bytes, in 64-bit mode. */
guest mmio_long
    .code64
    movl $TEST_DEVICE, %ebx
    movq 0x08(%rbx), %rax
    movq %rax, 0x88(%rbx)
    movb $0, %al
    exit_al
    .code32
end_guest mmio_long

/* rsi -> the parameters; says by its code that it is 64-bit code in the segments of the protocol. */
guest parameters_long
    .code64
    xorl %eax, %eax
    movw %cs, %cx
    cmpw $0x10, %cx
    jne 1f
    movw %ss, %cx
    cmpw $0x18, %cx
    jne 1f
    movq $0x100000000, %rcx
    shrq $32, %rcx
    cmpl $1, %ecx
    jne 1f
    movb (%rsi), %al
1:  exit_al
    .code32
end_guest parameters_long

/* Writes to the read-only page, and exits with what is there then. */
guest readonly
    movl $READONLY_PAGE, %ebx
    movl $0xa5a5a5a5, (%ebx)
    movl (%ebx), %eax
    outl %eax, $EXIT_PORT
1:  hlt
    jmp 1b
end_guest readonly

/* Paging of 4 MiB pages outside long mode; code 0 if there is such. The table is one page of zeros but for one row. */
guest legacy_paging
    movl $READONLY_PAGE, %ebx
    movl $0x00000083, (%ebx)
    movl %ebx, %cr3
    movl %cr4, %eax
    orl $0x10, %eax
    movl %eax, %cr4
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    movb $0, %al
    exit_al
end_guest legacy_paging

/* RAM that the host does not supply, each time with code 0 if that went unnoticed. */
guest lost_write
    movl $LOST_RAM, %ebx
    movl $1, (%ebx)
    movb $0, %al
    exit_al
end_guest lost_write

guest lost_read
    movl $LOST_RAM, %ebx
    movl (%ebx), %eax
    movb $0, %al
    exit_al
end_guest lost_read

/* Two bytes in RAM that is there, two in RAM that is not. */
guest lost_straddle
    movl $(LOST_RAM - 2), %ebx
    movl $0x11223344, (%ebx)
    movb $0, %al
    exit_al
end_guest lost_straddle

/* Two bytes in RAM that is not there, two in a hole. */
guest lost_last
    movl $(LOST_RAM + LOST_BYTES - 2), %ebx
    movl $0x11223344, (%ebx)
    movb $0, %al
    exit_al
end_guest lost_last

guest lost_code
    movl $LOST_RAM, %ebx
    jmp *%ebx
end_guest lost_code

guest lost_stack
    movl $(LOST_RAM + 0x1000), %esp
    pushl $1
    movb $0, %al
    exit_al
end_guest lost_stack

guest lost_string_in
    cld
    movl $LOST_RAM, %edi
    movw $LINE_STATUS, %dx
    movl $4, %ecx
    rep insb
    movb $0, %al
    exit_al
end_guest lost_string_in

guest lost_string_out
    cld
    movl $LOST_RAM, %esi
    movw $SERIAL_PORT, %dx
    movl $4, %ecx
    rep outsb
    movb $0, %al
    exit_al
end_guest lost_string_out

/* From RAM that is there into RAM that is not. */
guest lost_string
    cld
    movl $(LOST_RAM - 16), %edi
    movl $8, %ecx
    movl $0x55555555, %eax
    rep stosl
    movb $0, %al
    exit_al
end_guest lost_string

/* Writes and reads where nothing is: memory, then a port. */
guest unclaimed
    movl $0xe0000000, %ebx
    movl $0, (%ebx)
    movl (%ebx), %ecx
    movw $0x999, %dx
    outl %eax, %dx
    inl %dx, %eax
    andl %ecx, %eax
    outl %eax, $EXIT_PORT
1:  hlt
    jmp 1b
end_guest unclaimed

guest virtio_magic
    movl $0xd0000000, %ebx
    movl (%ebx), %eax
    outl %eax, $EXIT_PORT
1:  hlt
    jmp 1b
end_guest virtio_magic

guest halt
    say '!'
    cli
1:  hlt
    jmp 1b
end_guest halt

guest loop
    say '!'
1:  jmp 1b
end_guest loop

/* No IDT: an exception has no handler, nor has the double fault that follows. */
guest triple_fault
    movl $0x600d600d, %esi
    movl $0xdeadbeef, %eax
    ud2
end_guest triple_fault

/* Code where no memory is: no KVM can fetch it, and none can emulate it. */
guest no_code
    movl $0x600d600d, %esi
    movl $0xe0000000, %eax
    jmp *%eax
end_guest no_code

/* Needs an instruction that software seldom emulates. */
guest rare_instruction
    movl $0x600d600d, %esi
    paddb %mm0, %mm0
    movb $0, %al
    exit_al
end_guest rare_instruction

guest reset_control
    movw $0xcf9, %dx
    movb $0x02, %al
    outb %al, %dx
    movb $0x06, %al
    outb %al, %dx
1:  jmp 1b
end_guest reset_control

/* As Linux resets: the controller takes commands, and then a pulse of the line. */
guest reset
    inb $0x64, %al
    testb $2, %al
    movb $1, %al
    jnz 1f
    movb $0xfe, %al
    outb %al, $0x64
1:  exit_al
end_guest reset

/* As Linux flushes a keyboard controller, up to its patience: exits with the bytes that it read. */
guest flush_keyboard
    xorl %ecx, %ecx
1:  inb $0x64, %al
    testb $1, %al
    jz 2f
    inb $0x60, %al
    incl %ecx
    cmpl $17, %ecx
    jne 1b
2:  movl %ecx, %eax
    exit_al
end_guest flush_keyboard

/* The port where QEMU's isa-debug-exit is by default: one byte beside it, which is nothing, then what the name says. */
    .macro isa_exit name, instruction, register
guest isa_exit_\name
    movl $0x12345678, %eax
    movw $0x502, %dx
    outb %al, %dx
    movw $0x501, %dx
    \instruction \register, %dx
    movb $1, %al
    exit_al
end_guest isa_exit_\name
    .endm

    isa_exit byte, outb, %al
    isa_exit word, outw, %ax
    isa_exit long, outl, %eax

/* By the value that QEMU's machines of PCs take, with nothing looked at before. */
guest power_off
    movw $0x604, %dx
    movw $0x2000, %ax
    outw %ax, %dx
    movb $1, %al
    exit_al
end_guest power_off

/* Looks whether somebody hears, and speaks: a byte, then the rest at once. */
guest debug_console
    inb $0xe9, %al
    cmpb $0xe9, %al
    movb $1, %al
    jne 1f
    movb $'T', %al
    outb %al, $0xe9
    cld
    movl $AT(guest_debug_console, 2f), %esi
    movl $(3f - 2f), %ecx
    movw $0xe9, %dx
    rep outsb
    say '.'
    movb $0, %al
1:  exit_al
2:  .ascii "his is it"
3:
end_guest debug_console

/* Waits until no update is near, and copies registers of the clock to BUFFERS, then again the first. */
guest clock
    cld
1:  movb $0x0a, %al
    outb %al, $0x70
    inb $0x71, %al
    testb $0x80, %al
    jnz 1b
    movl $AT(guest_clock, 4f), %esi
    movl $BUFFERS, %edi
    movl $(5f - 4f), %ecx
2:  lodsb
    outb %al, $0x70
    inb $0x71, %al
    stosb
    loop 2b
    cmpb BUFFERS, %al
    jne 1b
    movb $0, %al
    exit_al
4:  .byte 0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32, 0x0b, 0x0d, 0x30, 0x31, 0x5f, 0x00
5:
end_guest clock

/* As kvm-unit-tests ask QEMU's configuration device: signature, RAM and processors, copied to BUFFERS. */
guest fw_cfg
    movl $(GUEST_BASE + 0x2000), %esp
    cld
    movl $BUFFERS, %edi
    movl $4, %ecx
    xorl %eax, %eax
    call 1f
    movl $8, %ecx
    movl $3, %eax
    call 1f
    movl $2, %ecx
    movl $5, %eax
    call 1f
    movb $0, %al
    exit_al
1:  movw $0x510, %dx
    outw %ax, %dx
    incw %dx
2:  inb %dx, %al
    stosb
    loop 2b
    ret
end_guest fw_cfg

/* Wakes the second processor, which starts at START_PAGE in real mode, and waits. */
guest wake
    movl $0xfee00000, %ebx
    movl $(1 << 24), 0x310(%ebx)
    movl $0x4500, 0x300(%ebx)
    movl $(1 << 24), 0x310(%ebx)
    movl $(0x4600 | START_PAGE >> 12), 0x300(%ebx)
1:  pause
    jmp 1b
end_guest wake

guest woken
    .code16
    movb $0x55, %al
    exit_al
    .code32
end_guest woken

/* Wakes the second processor as well, and halts with interrupts off. */
guest both_halt
    say '!'
    movl $0xfee00000, %ebx
    movl $(1 << 24), 0x310(%ebx)
    movl $0x4500, 0x300(%ebx)
    movl $(1 << 24), 0x310(%ebx)
    movl $(0x4600 | START_PAGE >> 12), 0x300(%ebx)
    cli
1:  hlt
    jmp 1b
end_guest both_halt

/* What the second processor does then: it says a character and halts, and by an NMI it exits with 0x66. */
guest sleeper
    .code16
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw $(2f - guest_sleeper), 8
    movw $(START_PAGE >> 4), 10
    say '2'
1:  hlt
    jmp 1b
2:  movb $0x66, %al
    exit_al
    .code32
end_guest sleeper

/* Wakes the second processor, as above, and reads from the test device. */
guest wake_and_read
    movl $0xfee00000, %ebx
    movl $(1 << 24), 0x310(%ebx)
    movl $0x4500, 0x300(%ebx)
    movl $(1 << 24), 0x310(%ebx)
    movl $(0x4600 | START_PAGE >> 12), 0x300(%ebx)
    movl TEST_DEVICE, %eax
    exit_al
end_guest wake_and_read

/* The second processor waits for its page's last byte, then says something and exits. */
guest woken_to_go
    .code16
1:  pause
    cmpb $0, %cs:0xfff
    je 1b
    say '!'
    movb $0x55, %al
    exit_al
    .code32
end_guest woken_to_go

/* Sets up an IDT and the 8259s, and masks lines; line 0 exits with 0x20, line 4 with 0x24. */
    .macro interrupts guest, mask
    movl $(GUEST_BASE + 0x2000), %esp
    lgdt AT(\guest, 7f)
    lidt AT(\guest, 8f)
    movl $AT(\guest, 5f), %eax
    movl $0x24, %ecx
    call 4f
    movl $AT(\guest, 6f), %eax
    movl $0x20, %ecx
    call 4f
    movb $0x11, %al
    outb %al, $0x20
    movb $0x20, %al
    outb %al, $0x21
    movb $0x04, %al
    outb %al, $0x21
    movb $0x01, %al
    outb %al, $0x21
    movb $\mask, %al
    outb %al, $0x21
    jmp 3f
4:  movl $(GUEST_BASE + 0x3000), %edi
    movw %ax, (%edi, %ecx, 8)
    movw $0x10, 2(%edi, %ecx, 8)
    movw $0x8e00, 4(%edi, %ecx, 8)
    shrl $16, %eax
    movw %ax, 6(%edi, %ecx, 8)
    ret
5:  movb $0x24, %al
    outb %al, $EXIT_PORT
    iret
6:  movb $0x20, %al
    outb %al, $EXIT_PORT
    iret
    .balign 8
2:  .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
7:  .word 31
    .long AT(\guest, 2b)
    .balign 8
8:  .word 0x7ff
    .long GUEST_BASE + 0x3000
3:
    .endm

guest interrupt
    interrupts guest_interrupt, 0xef
    say '!'
1:  sti
    hlt
    jmp 1b
end_guest interrupt

/* Waits for the serial line's interrupt; by that the second processor, which has been started before, gets an NMI. */
guest alarm
    interrupts guest_alarm, 0xef
    movl $AT(guest_alarm, 2f), %eax
    movl $0x24, %ecx
    call 4b
    movl $0xfee00000, %ebx
    movl $(1 << 24), 0x310(%ebx)
    movl $0x4500, 0x300(%ebx)
    movl $(1 << 24), 0x310(%ebx)
    movl $(0x4600 | START_PAGE >> 12), 0x300(%ebx)
1:  sti
    hlt
    jmp 1b
2:  movl $0xfee00000, %ebx
    movl $(1 << 24), 0x310(%ebx)
    movl $0x4400, 0x300(%ebx)
    cli
3:  hlt
    jmp 3b
end_guest alarm

/* Halts with interrupts off, and exits with 0x22 by the NMI that the serial line's interrupt is, through the I/O APIC. */
guest line_nmi
    interrupts guest_line_nmi, 0xff
    movl $AT(guest_line_nmi, 2f), %eax
    movl $2, %ecx
    call 4b
    movl $0xfec00000, %ebx
    movl $0x19, (%ebx)
    movl $0, 0x10(%ebx)
    movl $0x18, (%ebx)
    movl $0x400, 0x10(%ebx)
    say '!'
    cli
1:  hlt
    jmp 1b
2:  movb $0x22, %al
    exit_al
end_guest line_nmi

/* Channel 0 every 1,193 ticks: a thousand times a second. */
guest timer
    interrupts guest_timer, 0xfe
    movb $0x34, %al
    outb %al, $0x43
    movb $(1193 & 0xff), %al
    outb %al, $0x40
    movb $(1193 >> 8), %al
    outb %al, $0x40
1:  sti
    hlt
    jmp 1b
end_guest timer

/* With interrupts off until the byte at COUNTERS says so; with a 1 in the byte after it, masked at the local APIC till then. */
guest late
    interrupts guest_late, 0xef
    movl $0x1ff, 0xfee000f0
    movl $0x700, %eax
    cmpb $1, COUNTERS + 1
    jne 1f
    movl $0x10700, %eax
1:  movl %eax, 0xfee00350
    je 2f
    cli
    jmp 3f
2:  sti
3:  say '!'
4:  pause
    cmpb $0, COUNTERS
    je 4b
    movl $0x700, 0xfee00350
    sti
5:  jmp 5b
end_guest late

/*
 * Takes interrupts of the I/O APIC: the entry for vector 0x2a at register COUNTERS[2] is COUNTERS[3]. Counts them, tells the
 * test device of each before it ends it, and writes down what is in service till then.
 */
guest lines
    interrupts guest_lines, 0xff
    movl $AT(guest_lines, 2f), %eax
    movl $0x2a, %ecx
    call 4b
    movl $0x1ff, 0xfee000f0
    movl COUNTERS + 8, %eax
    incl %eax
    movl %eax, 0xfec00000
    movl $0, 0xfec00010
    decl %eax
    movl %eax, 0xfec00000
    movl COUNTERS + 12, %eax
    movl %eax, 0xfec00010
    say '!'
1:  sti
    hlt
    jmp 1b
2:  incl COUNTERS
    movl COUNTERS, %eax
    movw $TEST_PORT, %dx
    outl %eax, %dx
    movl 0xfee00110, %eax
    movl %eax, COUNTERS + 4
    movl $0, 0xfee000b0
    movl $(GUEST_BASE + 0x2000), %esp
    jmp 1b
end_guest lines

/* Counts in memory. */
guest count
    say '!'
1:  incl COUNTERS
    jmp 1b
end_guest count

/*
 * Takes numbers from the test device, which counts, and gives it numbers: each has to be the next. By memory accesses within a
 * page and across two, by ports one at a time and four, and by an instruction that reads and writes. ebx: which vCPU's
 * numbers; it begins at the second line, where the other vCPU comes in.
 */
guest sequence
    xorl %ebx, %ebx
    jmp 1f
    .org guest_sequence + SEQUENCE_OTHER
    movl $1, %ebx
    jmp 2f
1:  movl $0xfee00000, %ecx
    movl $(1 << 24), 0x310(%ecx)
    movl $0x4500, 0x300(%ecx)
    movl $(1 << 24), 0x310(%ecx)
    movl $(0x4600 | START_PAGE >> 12), 0x300(%ecx)
2:  movl %ebx, %esi
    shll $13, %esi
    addl $TEST_DEVICE, %esi
    movl %ebx, %edx
    shll $2, %edx
    addl $TEST_PORT, %edx
    xorl %ebp, %ebp
3:  movl (%esi), %eax
    cmpl %ebp, %eax
    jne 4f
    incl %ebp
    inl %dx, %eax
    cmpl %ebp, %eax
    jne 4f
    incl %ebp
    movl %ebp, 4(%esi)
    incl %ebp
    movl %ebp, %eax
    outl %eax, %dx
    incl %ebp
    incl 8(%esi)
    addl $2, %ebp
    movl 0xffe(%esi), %eax
    cmpw %bp, %ax
    jne 4f
    incl %ebp
    shrl $16, %eax
    cmpw %bp, %ax
    jne 4f
    incl %ebp
    movl %ebx, %edi
    shll $4, %edi
    addl $BUFFERS, %edi
    movl $4, %ecx
    cld
    rep insl
    movl $4, %ecx
5:  subl $4, %edi
    leal -1(%ebp, %ecx), %eax
    cmpl (%edi), %eax
    jne 4f
    loop 5b
    addl $4, %ebp
    incl COUNTERS(, %ebx, 4)
    jmp 3b
4:  movb $1, %al
    exit_al
end_guest sequence

/* The other vCPU's way from real mode at START_PAGE into the sequence. */
guest join
    .code16
    lgdtl %cs:(7f - guest_join)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x10, $(START_PAGE + 2f - guest_join)
    .code32
2:  movl $0x18, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $(GUEST_BASE + SEQUENCE_OTHER), %eax
    jmp *%eax
    .balign 8
6:  .quad 0, 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
7:  .word 31
    .long START_PAGE + 6b - guest_join
end_guest join

/* Takes numbers from the test device straight into memory: by a port, and from two pages at once. */
guest fetch
    cld
1:  movl $BUFFERS, %edi
    movw $TEST_PORT, %dx
    insl
    movl $(TEST_DEVICE + 0xffe), %esi
    movsl
    jmp 1b
end_guest fetch

/* Counts what the timer ticks. A KVM that emulates everything may lack IRET: the stack begins anew instead. */
guest ticks
    interrupts guest_ticks, 0xfe
    movl $AT(guest_ticks, 3f), %eax
    movl $0x20, %ecx
    call 4b
    movb $0x34, %al
    outb %al, $0x43
    movb $(1193 & 0xff), %al
    outb %al, $0x40
    movb $(1193 >> 8), %al
    outb %al, $0x40
    say '!'
1:  sti
    hlt
    jmp 1b
3:  incl COUNTERS
    movb $0x20, %al
    outb %al, $0x20
    movl $(GUEST_BASE + 0x2000), %esp
    jmp 1b
end_guest ticks

/* Writes the time down, again and again. */
guest time
    say '!'
1:  incl COUNTERS
    rdtsc
    movl %eax, COUNTERS + 8
    movl %edx, COUNTERS + 12
    incl COUNTERS
    jmp 1b
end_guest time

/* Listens to the power button, sleeps, and turns itself off once it is pressed; else its code says what was wrong. */
guest power_button
    interrupts guest_power_button, 0xff
    movl $AT(guest_power_button, 2f), %eax
    movl $0x29, %ecx
    call 4b
    movb $0x11, %al
    outb %al, $0xa0
    movb $0x28, %al
    outb %al, $0xa1
    movb $0x02, %al
    outb %al, $0xa1
    movb $0x01, %al
    outb %al, $0xa1
    movb $0xfd, %al
    outb %al, $0xa1
    movb $0xfb, %al
    outb %al, $0x21
    movw $0x4d1, %dx
    movb $0x02, %al
    outb %al, %dx
    movw $0x602, %dx
    movw $0x0100, %ax
    outw %ax, %dx
    say '!'
1:  sti
    hlt
    jmp 1b
2:  movw $0x600, %dx
    inw %dx, %ax
    cmpw $0x0100, %ax
    movb $1, %cl
    jne 3f
    outw %ax, %dx
    inw %dx, %ax
    testw %ax, %ax
    movb $2, %cl
    jnz 3f
    movb $0x20, %al
    outb %al, $0xa0
    outb %al, $0x20
    movw $0x604, %dx
    movw $0x2000, %ax
    outw %ax, %dx
    movb $3, %cl
3:  movb %cl, %al
    exit_al
end_guest power_button

/* First that a kernel for crashes is there, which ends nothing, then that it panicked. */
guest panic
    movw $0x505, %dx
    inb %dx, %al
    cmpb $3, %al
    movb $1, %al
    jne 1f
    movb $2, %al
    outb %al, %dx
    movb $5, %al
    outb %al, %dx
    movb $2, %al
1:  exit_al
end_guest panic

/* Gives by its bits at which transports there is an entropy source. */
guest virtio_places
    movl $0xd0000008, %esi
    xorl %eax, %eax
    movl $1, %ecx
1:  cmpl $4, (%esi)
    jne 2f
    orl %ecx, %eax
2:  addl $0x1000, %esi
    shll $1, %ecx
    cmpl $0x200, %ecx
    jne 1b
    outl %eax, $EXIT_PORT
3:  hlt
    jmp 3b
end_guest virtio_places

    .section .note.GNU-stack, "", @progbits
