// SPDX-License-Identifier: Apache-2.0
/*
 * Decode: what a vCPU's exit means, as text for a person: the exit's name and a plain sentence on it, the registers,
 * and the bytes of the instruction.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned; the pure functions from any.
 */
#ifndef LOAM_VMM_DECODE_H
#define LOAM_VMM_DECODE_H

#include "loam/gpa_map.h"
#include "vmm/kvm.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes of code shown: before RIP, and from RIP on (the longest instruction of x86 has 15). */
#define DECODE_BEFORE_BYTES 8u
#define DECODE_AFTER_BYTES  15u

/* What is to be decoded. */
struct decode_subject {
    uint32_t vcpu;
    int vcpu_fd; /* asked for registers and translation; -1: neither is shown */
    const struct kvm_run *run;
    int run_errno;                    /* of KVM_RUN; 0: it returned an exit */
    const struct loam_gpa_view *view; /* NULL: no code is shown */
};

/*
 * Write several lines into text, each ended by a newline, the whole by a zero and cut at bytes (at least 1). Returns
 * the length.
 */
size_t decode_exit(const struct decode_subject *subject, char *text, size_t bytes);

/* "KVM_EXIT_IO" and the like; "KVM_EXIT_?" for a number that this VMM does not know. Static. */
const char *decode_exit_name(uint32_t exit_reason);

/*
 * What hardware_entry_failure_reason says, as VT-x (Intel SDM volume 3C, sections 27.8 and 31.4) and SVM (AMD manual
 * volume 2, appendix C) number it. Static.
 */
const char *decode_entry_failure(uint64_t reason);

/* Why KVM_RUN fails with that errno, and what to do about it. Static. */
const char *decode_run_error(int run_errno);

/*
 * Of an emulation failure: the instruction's bytes, if KVM says them (KVM API, section 5, emulation_failure). Returns how
 * many; 0: it does not.
 */
uint32_t decode_failed_bytes(const struct kvm_run *run, uint8_t bytes[DECODE_AFTER_BYTES]);

/* The linear address of the next instruction. */
uint64_t decode_linear_rip(const struct kvm_regs *regs, const struct kvm_sregs *sregs);

#endif
