// SPDX-License-Identifier: Apache-2.0
/*
 * What a Linux kernel is told on its command line so that it leaves out what this host's KVM lacks.
 *
 * A KVM that emulates every instruction shows the machine's own CPUID to its guests, XSAVE among it, and lacks XRSTOR,
 * which Linux then uses at every switch of tasks. There is one word for that. All else that Linux needs and such a KVM
 * lacks is carried out by assists (assist.h).
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_TUNE_H
#define LOAM_VMM_TUNE_H

#include "loam/error.h"
#include "vmm/boot.h"
#include "vmm/kvm.h"

#include <stdbool.h>

/* Linux: Documentation/admin-guide/kernel-parameters.txt. */
#define TUNE_WORD "noxsave"

enum tune_wish {
    TUNE_IGNORE, /* nothing is asked, and nothing changes */
    TUNE_ASK,    /* whether the word is wanted is found out, and it is left out */
    TUNE_ADD,
};

enum tune_state {
    TUNE_NEEDLESS, /* no Linux kernel, or KVM has what it uses, or its command line says so already */
    TUNE_LEFT_OUT,
    TUNE_ADDED,
};

/* command_line: what the kernel is to be given, on the heap; NULL unless TUNE_ADDED. */
struct tune {
    enum tune_state state;
    char *command_line;
};

/*
 * Whether a kernel of that command line (its end is a zero) wants the word, and with TUNE_ADD the command line that has
 * it. What KVM does not answer is not wanted: who starts the guest hears of it. LOAM_ERROR_SYSTEM: no memory.
 */
LOAM_MUST_USE enum loam_error tune_kernel(const struct kvm *kvm, const struct boot_file *kernel,
                                          const char *command_line, enum tune_wish wish, struct tune *tune,
                                          struct loam_diag *diag);

/* No effect on one that is all zero. */
void tune_release(struct tune *tune);

/* The parts. */

/* A Linux kernel by its own words: the banner of an ELF file, the version that a bzImage's header names. Pure. */
bool tune_is_linux(const struct boot_file *kernel);

/* Whether word stands by itself on the command line, before the "--" behind which words are for init. Pure. */
bool tune_has_word(const char *command_line, const char *word);

/* KVM says that guests have XSAVE: then it runs XRSTOR. */
bool tune_declares_xsave(const struct kvm *kvm);

/* XRSTOR is tried in a VM of its own, and KVM's emulator gives up on it. A millisecond, where it does. */
bool tune_lacks_xrstor(const struct kvm *kvm);

#endif
