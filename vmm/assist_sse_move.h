// SPDX-License-Identifier: Apache-2.0
/*
 * Moves of SSE and SSE2 that do not fill a register or memory operand as a whole, and those of MXCSR, carried out for a
 * vCPU (Intel SDM volume 2): MOVSS, MOVSD, MOVLPS, MOVHPS, MOVLPD, MOVHPD, MOVHLPS, MOVLHPS, MOVD, MOVQ; LDMXCSR, STMXCSR.
 * KVM's own emulator has those of 16 bytes.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_SSE_MOVE_H
#define LOAM_VMM_ASSIST_SSE_MOVE_H

#include "vmm/assist_decode.h"
#include "vmm/assist_vcpu.h"

#include <stdbool.h>
#include <stdint.h>

/* What a register form of a move has beside the register that ModRM reg names. */
enum assist_sse_other { ASSIST_SSE_NO_OTHER, ASSIST_SSE_OTHER_XMM, ASSIST_SSE_OTHER_GENERAL };

/* reg: what ModRM reg names; rm: what rm names, or memory. */
struct assist_sse_move {
    uint8_t prefix, opcode;
    bool is_store; /* from reg to rm, else from rm to reg */
    uint8_t bytes; /* that are moved; 0: 4, or 8 with REX.W */
    uint8_t at;    /* byte of reg at which they begin */
    enum assist_sse_other other;
    uint8_t other_at;      /* the same of rm, where that is a register */
    bool clears;           /* a register form clears the rest of the register that it moves to */
    bool clears_by_memory; /* the same of a load from memory */
};

/* The move of an instruction with an opcode behind 0x0f; NULL: none. Pure. */
const struct assist_sse_move *assist_sse_move_find(const struct assist_instruction *instruction);

/* How many bytes it moves. Pure. */
uint8_t assist_sse_move_bytes(const struct assist_sse_move *move, const struct assist_instruction *instruction);

/*
 * Carry it out on sse, on the general registers of regs, and on memory: 16 bytes, of which the operand in memory, if there
 * is one, fills the first. Pure.
 */
void assist_sse_move_execute(const struct assist_sse_move *move, const struct assist_instruction *instruction,
                             uint8_t *memory, struct assist_sse *sse, struct kvm_regs *regs);

/*
 * The whole of it for a vCPU, of a move or, with opcode 0xae, of LDMXCSR or STMXCSR. false: refused, or KVM refuses;
 * nothing has changed but for accessed and dirty bits, and RF.
 */
bool assist_sse_move(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);
bool assist_mxcsr(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

#endif
