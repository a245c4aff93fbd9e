// SPDX-License-Identifier: Apache-2.0
/*
 * A stand: where a vCPU is that has left KVM_RUN, and in which mode, for reports.
 *
 * References: Intel SDM volume 3A, sections 2.2 (modes) and 4.1.1 (paging modes).
 *
 * Threads: the vCPU's, or any while it is not in KVM_RUN.
 */
#ifndef LOAM_VMM_STAND_H
#define LOAM_VMM_STAND_H

#include "vmm/disassembly.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stdint.h>

struct vcpu;
struct loam_gpa_view;

#define STAND_CODE_BYTES 15u /* x86 has no longer instruction */

enum stand_activity {
    STAND_UNKNOWN, /* KVM does not tell; nothing else is known then */
    STAND_RUNNING,
    STAND_WAITING,   /* HLT, until an interrupt comes */
    STAND_HALTED,    /* HLT with interrupts off */
    STAND_UNSTARTED, /* for INIT or SIPI it waits; nothing else is worth telling */
    STAND_ACTIVITY_COUNT
};

enum stand_mode {
    STAND_REAL,
    STAND_VIRTUAL_8086,
    STAND_PROTECTED_16,
    STAND_PROTECTED,
    STAND_COMPATIBILITY,
    STAND_LONG,
    STAND_MODE_COUNT
};

enum stand_paging {
    STAND_PAGING_NONE,
    STAND_PAGING_32,
    STAND_PAGING_PAE,
    STAND_PAGING_4,
    STAND_PAGING_5,
    STAND_PAGING_COUNT
};

struct stand {
    enum stand_activity activity;
    enum stand_mode mode;
    enum stand_paging paging;
    uint64_t rip; /* linear; behind HLT, the next instruction's */
    uint8_t code[STAND_CODE_BYTES];
    uint32_t code_bytes; /* that are there, from rip on */
    /* Of one that ended a run by them: */
    bool is_triple_fault;
    bool lacks_instruction; /* KVM's emulator gave up on code */
    struct kvm_regs regs;
    struct kvm_sregs sregs;
};

/* Ask KVM; the code is read where view, NULL for none, has memory for it, else as the last exit has it. */
void stand_ask(const struct vcpu *vcpu, const struct loam_gpa_view *view, struct stand *stand);

/* Pure. */
enum stand_mode stand_mode(const struct kvm_regs *regs, const struct kvm_sregs *sregs);
enum stand_paging stand_paging(const struct kvm_sregs *sregs);

/* How code is read there. */
enum disassembly_width stand_width(const struct stand *stand);

/*
 * Whether nothing of where it stood is left: AMD's processors forget a guest's state at its triple fault, and KVM resets the
 * vCPU then.
 */
bool stand_is_reset(const struct stand *stand);

#endif
