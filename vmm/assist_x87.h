// SPDX-License-Identifier: Apache-2.0
/*
 * The x87 instructions, run for the guest on the host's own FPU.
 *
 * Host and guest are the same processor, so the result is the one that the guest's own FPU would give. All exceptions
 * are masked meanwhile, and the guest's mask decides afterwards: an instruction that raises what the guest has not
 * masked is refused as a whole, because a masked result would be wrong. FLDENV, FNSTENV, FRSTOR and FNSAVE, whose
 * layout depends on the mode, are refused, and so are encodings that no manual documents.
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_ASSIST_X87_H
#define LOAM_VMM_ASSIST_X87_H

#include "vmm/assist_decode.h"
#include "vmm/assist_vcpu.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest operand: an extended real, or packed decimal. */
#define ASSIST_X87_OPERAND_MAX 10u

/* Exception flags of the status word, and their masks in the control word (Intel SDM volume 1, section 8.1). */
#define ASSIST_X87_EXCEPTIONS 0x3fu

enum assist_x87_kind {
    ASSIST_X87_REFUSED,
    ASSIST_X87_HOST_RUNS,
    ASSIST_X87_FLDCW,
    ASSIST_X87_FNSTCW,
    ASSIST_X87_FNSTSW,
    ASSIST_X87_FNCLEX,
    ASSIST_X87_FNINIT,
};

/* bytes <= ASSIST_X87_OPERAND_MAX, and 0 for a register form; FNSTSW AX is a register form that writes the operand,
 * too. */
struct assist_x87_form {
    enum assist_x87_kind kind;
    uint8_t bytes;
    bool is_write;
};

/* What an instruction asks for. Pure. instruction has an opcode of 0xd8 to 0xdf. */
struct assist_x87_form assist_x87_form(const struct assist_instruction *instruction);

/* Whether an exception that fpu does not mask is pending: the next waiting instruction raises #MF. Pure. */
bool assist_x87_is_pending(const struct kvm_fpu *fpu);

/*
 * Carry out one instruction on fpu, the arithmetic flags of rflags, and operand (ASSIST_X87_OPERAND_MAX bytes, read
 * or written as its form says). Nothing is pending in fpu, unless the form is one that does not wait. The last opcode
 * and the pointers stay as they are, but for FNINIT. false: refused, and nothing has changed but operand.
 */
bool assist_x87_execute(const struct assist_instruction *instruction, struct kvm_fpu *fpu, uint64_t *rflags,
                        uint8_t *operand);

/* The whole of it for a vCPU: exceptions due, operand, execution, registers. false: refused, nothing has changed. */
bool assist_x87(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

#endif
