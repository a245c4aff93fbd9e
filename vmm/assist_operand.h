// SPDX-License-Identifier: Apache-2.0
/*
 * The memory operand of an instruction that is carried out for a vCPU: from its address to host memory.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_OPERAND_H
#define LOAM_VMM_ASSIST_OPERAND_H

#include "vmm/assist_decode.h"
#include "vmm/assist_memory.h"
#include "vmm/assist_vcpu.h"

#include <stdbool.h>
#include <stddef.h>

/* What an instruction wants of its operand. */
struct assist_operand {
    size_t bytes; /* 1 to ASSIST_MEMORY_BYTES_MAX */
    enum assist_access access;
    size_t align; /* a power of two: #GP unless the linear address is a multiple of it; 0: any will do */
};

/*
 * Find it; instruction has one. false: *fault says what the instruction raises, or that it is refused, and *span is
 * undefined: hand it to assist_vcpu_fault.
 */
bool assist_operand_find(const struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                         const struct assist_operand *operand, struct assist_span *span, struct assist_fault *fault);

#endif
