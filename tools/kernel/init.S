// SPDX-License-Identifier: Apache-2.0
/*
 * The first program of the test kernels: says in user mode that it is there, and has the kernel end the machine. No C
 * library, nothing to load: Linux's own system calls.
 *
 * It is assembled twice. /init enters the kernel by INT 0x80, with the calls and structures of 32-bit programs, because a
 * KVM that emulates takes SYSCALL in user mode to the kernel's entry but leaves the processor at privilege level 3.
 * /init-syscall (SYSCALL is defined) enters by SYSCALL.
 *
 * The first letter of its last argument says how to end: "r" restart, "h" halt, "e" exit, which the kernel answers with a
 * panic; else power off. Whatever follows "--" on the kernel's command line is an argument.
 */
#include <linux/reboot.h>

#ifdef SYSCALL
#define CALL         syscall
#define CALL_WRITE   1
#define CALL_EXIT    60
#define CALL_REBOOT  169
#define FIRST        %edi
#define SECOND       %esi
#define THIRD        %edx
#else
#define CALL         int $0x80
#define CALL_WRITE   4
#define CALL_EXIT    1
#define CALL_REBOOT  88
#define FIRST        %ebx
#define SECOND       %ecx
#define THIRD        %edx
#endif

#define STANDARD_OUTPUT 1
#define EXIT_STATUS     7

    .section .rodata
hello:
    .ascii "init: user mode\n"
    .set hello_bytes, . - hello

    .text
    .globl _start
_start:
    mov $CALL_WRITE, %eax
    mov $STANDARD_OUTPUT, FIRST
    mov $hello, SECOND
    mov $hello_bytes, THIRD
    CALL

    mov (%rsp), %rax        /* argc; argv[0] is at 8(%rsp) */
    mov (%rsp, %rax, 8), %r8
    mov (%r8), %r8b
    mov $LINUX_REBOOT_CMD_RESTART, THIRD
    cmp $'r', %r8b
    je reboot
    mov $LINUX_REBOOT_CMD_HALT, THIRD
    cmp $'h', %r8b
    je reboot
    mov $LINUX_REBOOT_CMD_POWER_OFF, THIRD
    cmp $'e', %r8b
    jne reboot

    mov $CALL_EXIT, %eax
    mov $EXIT_STATUS, FIRST
    CALL
reboot:
    mov $CALL_REBOOT, %eax
    mov $LINUX_REBOOT_MAGIC1, FIRST
    mov $LINUX_REBOOT_MAGIC2, SECOND
    CALL
    ud2 /* it came back */

    .section .note.GNU-stack, "", @progbits
