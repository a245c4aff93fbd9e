// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_operand.h"

bool assist_operand_find(const struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                         const struct assist_operand *operand, struct assist_span *span, struct assist_fault *fault)
{
    struct assist_memory memory = assist_vcpu_memory(vcpu);
    uint64_t offset = assist_decode_offset(instruction, &vcpu->regs), linear;

    if (!assist_memory_linear(&memory, instruction->segment, offset, operand->bytes, operand->access, &linear, fault)) {
        return false;
    }
    if (operand->align > 0 && (linear & (operand->align - 1)) != 0) {
        *fault = (struct assist_fault){.vector = ASSIST_PROTECTION};
        return false;
    }
    return assist_memory_find(&memory, linear, operand->bytes, operand->access, span, fault);
}
