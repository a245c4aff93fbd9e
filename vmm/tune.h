// SPDX-License-Identifier: Apache-2.0
/*
 * What a Linux kernel is told on its command line so that it leaves out what this host's KVM lacks.
 *
 * A KVM that emulates every instruction shows its guests features of the machine that it lacks, whatever it is told by
 * KVM_SET_CPUID2. Two of them have a word:
 *
 *     noxsave   XSAVE, whose XRSTOR Linux uses at every switch of tasks
 *     nopv      hypercalls, by which processors of a guest wake each other: only where there is more than one
 *
 * All else that Linux needs and such a KVM lacks is carried out by assists (assist.h).
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_TUNE_H
#define LOAM_VMM_TUNE_H

#include "loam/error.h"
#include "vmm/boot.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stdint.h>

/* Linux: Documentation/admin-guide/kernel-parameters.txt. */
#define TUNE_NOXSAVE "noxsave"
#define TUNE_NOPV    "nopv"

enum tune_wish {
    TUNE_IGNORE, /* nothing is asked, and nothing changes */
    TUNE_ASK,    /* which words are wanted is found out, and they are left out */
    TUNE_ADD,
};

/* What a KVM lacks of what it shows. */
struct tune_lacks {
    bool xrstor, hypercalls;
};

/*
 * lacks: for which a word is wanted, since the command line does not have it. words: those, with a
 * space between; "": none. command_line: what the kernel is to be given, on the heap; NULL: as it was.
 */
struct tune {
    struct tune_lacks lacks;
    char words[sizeof TUNE_NOXSAVE + sizeof TUNE_NOPV];
    char *command_line;
};

/*
 * Which words a Linux kernel (tune_is_linux) wants beside its command line, and with TUNE_ADD the command line that has them
 * in front. What KVM does not answer is not lacking: who starts the guest hears of it. LOAM_ERROR_SYSTEM: no memory.
 */
LOAM_MUST_USE enum loam_error tune_ask(const struct kvm *kvm, const char *command_line, uint32_t vcpu_count,
                                       enum tune_wish wish, struct tune *tune, struct loam_diag *diag);

/* "XRSTOR", "hypercalls" or both; static. */
const char *tune_lacks_text(const struct tune_lacks *lacks);

/* No effect on one that is all zero. */
void tune_release(struct tune *tune);

/* The parts. */

/*
 * A Linux kernel by its own words: the banner of an ELF file, for which all of it is searched, or the version that a
 * bzImage's header names. Pure.
 */
bool tune_is_linux(const struct boot_file *kernel);

/* Whether word stands by itself on the command line, before the "--" behind which words are for init. Pure. */
bool tune_has_word(const char *command_line, const char *word);

/* KVM says that guests have XSAVE: then it runs XRSTOR, and emulates nothing that it shows. */
bool tune_declares_xsave(const struct kvm *kvm);

/*
 * XRSTOR is tried in a VM of its own; where KVM's emulator gives up on it, a hypercall is, too. A millisecond. Hypercalls are
 * taken to be there where KVM cannot be kept from patching the instruction (before Linux 5.19).
 */
struct tune_lacks tune_try(const struct kvm *kvm);

#endif
