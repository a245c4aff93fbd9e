// SPDX-License-Identifier: Apache-2.0
/*
 * POPCNT and CMPXCHG16B, carried out for a vCPU (Intel SDM volume 2).
 *
 * Each returns whether it is done, or has raised what it has to; false: refused, or KVM refuses, and nothing has changed
 * but for accessed and dirty bits, RF, and, where KVM does not take the registers, the operand of CMPXCHG16B.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_INTEGER_H
#define LOAM_VMM_ASSIST_INTEGER_H

#include "vmm/assist_decode.h"
#include "vmm/assist_vcpu.h"

#include <stdbool.h>

/* instruction has the opcode 0x0f 0xb8, and is POPCNT with F3. */
bool assist_popcnt(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

/* instruction has the opcode 0x0f 0xc7, and is CMPXCHG16B with REX.W and /1. */
bool assist_cmpxchg16b(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

#endif
