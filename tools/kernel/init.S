// SPDX-License-Identifier: Apache-2.0
/*
 * /init of the test kernels: says in user mode that it is there, and has the kernel end the machine. No C library, nothing
 * to load: Linux's own system calls.
 *
 * The first letter of its last argument says how to end: "r" restart, "h" halt, "e" exit, which the kernel answers with a
 * panic; else power off. Whatever follows "--" on the kernel's command line is an argument.
 */
#include <asm/unistd_64.h>
#include <linux/reboot.h>

#define STANDARD_OUTPUT 1
#define EXIT_STATUS     7

    .section .rodata
hello:
    .ascii "init: user mode\n"
    .set hello_bytes, . - hello

    .text
    .globl _start
_start:
    mov $__NR_write, %eax
    mov $STANDARD_OUTPUT, %edi
    mov $hello, %esi
    mov $hello_bytes, %edx
    syscall

    mov (%rsp), %rax         /* argc; argv[0] is at 8(%rsp) */
    mov (%rsp, %rax, 8), %rax
    mov (%rax), %al
    mov $LINUX_REBOOT_CMD_RESTART, %edx
    cmp $'r', %al
    je reboot
    mov $LINUX_REBOOT_CMD_HALT, %edx
    cmp $'h', %al
    je reboot
    mov $LINUX_REBOOT_CMD_POWER_OFF, %edx
    cmp $'e', %al
    jne reboot

    mov $__NR_exit, %eax
    mov $EXIT_STATUS, %edi
    syscall
reboot:
    mov $__NR_reboot, %eax
    mov $LINUX_REBOOT_MAGIC1, %edi
    mov $LINUX_REBOOT_MAGIC2, %esi
    syscall
    ud2 /* it came back */

    .section .note.GNU-stack, "", @progbits
