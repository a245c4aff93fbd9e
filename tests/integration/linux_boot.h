// SPDX-License-Identifier: Apache-2.0
/*
 * The Linux test kernels of tools/kernel/build, booted by the program. The cache has them, or the folder that LOAM_KERNELS
 * names (with folders up and smp, in each vmlinux, bzImage and initrd); or the case is skipped with the command that builds
 * them.
 */
#ifndef LOAM_TEST_LINUX_BOOT_H
#define LOAM_TEST_LINUX_BOOT_H

#include "tests/support/process.h"

#include <stdbool.h>

/* Where every instruction is emulated, a boot takes 20 s of an idle processor, by an image 40, and memtest as long again. */
#define LINUX_BOOT_MILLISECONDS 900000

/*
 * What the kernel is told of a KVM that emulates: instructions that such a KVM lacks (numbers: smap, smep, cx16, popcnt,
 * fsgsbase), and that a bounce buffer for devices that reach no higher than 4 GiB is not wanted.
 */
#define LINUX_BOOT_WORDS "noxsave clearcpuid=308,295,141,151,288 nopcid noinvpcid swiotlb=noforce"

enum linux_way {
    LINUX_BY_PVH,   /* vmlinux */
    LINUX_BY_IMAGE, /* bzImage */
    LINUX_BY_ELF64, /* vmlinux without its notes */
};

/* What is booted, and how; NULL-terminated options go to the program. */
struct linux_boot {
    const char *kind; /* "up" or "smp" */
    enum linux_way way;
    const char *words; /* for the kernel, after "console=ttyS0", LINUX_BOOT_WORDS and "panic=-1" */
    bool without_initrd;
    const char *program; /* NULL: the program itself */
    const char *options[8];
};

/* Start it, or skip the case. End it by linux_boot_end. */
void linux_boot_start(const struct linux_boot *boot, struct process *process);

/* Start it and wait for its end. Returns its status. */
int linux_boot_run(const struct linux_boot *boot, struct process *process);

/* End the process, if it is not over, and remove what was made for it. Right also if nothing was started. */
void linux_boot_end(struct process *process);

/*
 * Whether a program in user mode can call the kernel. A KVM without hardware virtualization emulates SYSCALL there with
 * the jump to the kernel's entry and without the change to privilege level 0: the program dies of where it is.
 */
bool linux_boot_has_user_mode(void);

/* Skip the case unless long ones are asked for (LOAM_TEST_LONG, which tools/test --all sets). */
void linux_boot_need_long(void);

#endif
