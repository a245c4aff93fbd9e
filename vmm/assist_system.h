// SPDX-License-Identifier: Apache-2.0
/*
 * Instructions of kernels, carried out for a vCPU: CLAC and STAC, XGETBV, INVPCID, INT n (Intel SDM volume 2).
 *
 * Each returns whether it is done, or has raised what it has to; false: refused, or KVM refuses, and nothing has changed
 * but for accessed and dirty bits, RF, and RIP after INT n.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_SYSTEM_H
#define LOAM_VMM_ASSIST_SYSTEM_H

#include "vmm/assist_decode.h"
#include "vmm/assist_vcpu.h"

#include <stdbool.h>

/* instruction has the opcode 0x0f 0x01; ModRM says which it is. XGETBV of what is in use (ECX = 1) is refused. */
bool assist_group7(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

/*
 * instruction has the opcode 0x0f 0x38 0x82, and is INVPCID with 66. All that the vCPU's TLB holds is flushed, whatever
 * is asked for: a processor may drop more than it is told to.
 */
bool assist_invpcid(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

/*
 * instruction is INT n. Refused at privilege level 3. Faults of the gate itself are raised; those of the segment and the
 * stack that it leads to are KVM's to find, which then names the instruction that follows.
 */
bool assist_int(struct assist_vcpu *vcpu, const struct assist_instruction *instruction);

#endif
