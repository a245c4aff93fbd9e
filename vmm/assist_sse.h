// SPDX-License-Identifier: Apache-2.0
/*
 * Arithmetic of SSE and SSE2, run for the guest on the host's own unit.
 *
 * Host and guest are the same processor, so the result is the one that the guest's own unit would give. All exceptions
 * are masked meanwhile, and the guest's masks decide afterwards whether #XM is due. Where an overflow or underflow that
 * is not masked also rounds, the masked run does not show whether an unbounded exponent would have done so: then the
 * instruction is refused, unless the guest's inexact flag is set already. Not carried out are instructions on MMX
 * registers and MASKMOVDQU (assist_sse_forms.h).
 *
 * Threads: any.
 */
#ifndef LOAM_VMM_ASSIST_SSE_H
#define LOAM_VMM_ASSIST_SSE_H

#include "vmm/assist_decode.h"
#include "vmm/assist_vcpu.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

/* Exception flags of MXCSR; their masks are the same bits, 7 further up (Intel SDM volume 1, section 10.2.3). */
#define ASSIST_SSE_EXCEPTIONS 0x3fu

enum assist_sse_source { ASSIST_SSE_XMM, ASSIST_SSE_ALIGNED, ASSIST_SSE_REGISTER, ASSIST_SSE_GENERAL };
enum assist_sse_result { ASSIST_SSE_TO_TARGET, ASSIST_SSE_TO_SOURCE, ASSIST_SSE_TO_REG, ASSIST_SSE_TO_FLAGS };
enum assist_sse_tiny {
    ASSIST_SSE_TINY_NO,
    ASSIST_SSE_TINY_SS,
    ASSIST_SSE_TINY_PS,
    ASSIST_SSE_TINY_SD,
    ASSIST_SSE_TINY_PD
};

/* As a row of assist_sse_forms.h says. bytes: of a source in memory; code_count: how many pieces of code it has. */
struct assist_sse_form {
    uint8_t prefix, opcode, extension;
    enum assist_sse_source source;
    uint8_t bytes;
    enum assist_sse_result result;
    uint16_t code_count;
    enum assist_sse_tiny tiny;
};

enum assist_sse_end {
    ASSIST_SSE_REFUSED, /* nothing has changed */
    ASSIST_SSE_DONE,
    ASSIST_SSE_RAISES, /* #XM: nothing has changed but flags of MXCSR */
};

/* The form of an instruction with an opcode behind 0x0f, NULL: none. Pure. */
const struct assist_sse_form *assist_sse_form(const struct assist_instruction *instruction);

/* How many bytes of memory it reads, where it has a memory operand. Pure. */
uint8_t assist_sse_bytes(const struct assist_sse_form *form, const struct assist_instruction *instruction);

/*
 * Carry out an instruction of form on sse, and on the registers and arithmetic flags of regs. memory: 16 bytes, of which
 * an operand in memory fills the first; without has_memory they are not looked at.
 */
enum assist_sse_end assist_sse_execute(const struct assist_sse_form *form, const struct assist_instruction *instruction,
                                       const uint8_t *memory, struct assist_sse *sse, struct kvm_regs *regs);

/*
 * The whole of it for a vCPU: exceptions due, operand, execution, registers. instruction has an opcode behind 0x0f. false:
 * refused, or KVM refuses; nothing has changed but for accessed and dirty bits, and RF.
 */
bool assist_sse(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

#endif
