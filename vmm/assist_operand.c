// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_operand.h"

/*
 * An address that is misaligned as well as not canonical is #GP whatever its segment: so processors do it, and the manual
 * leaves it open.
 */
bool assist_operand_find(const struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                         const struct assist_operand *operand, struct assist_span *span, struct assist_fault *fault)
{
    struct assist_memory memory = assist_vcpu_memory(vcpu);
    uint64_t offset = assist_decode_offset(instruction, &vcpu->regs), linear;
    bool is_granted =
        assist_memory_linear(&memory, instruction->segment, offset, operand->bytes, operand->access, &linear, fault);

    if (operand->align > 0 && (linear & (operand->align - 1)) != 0 && (is_granted || fault->vector != 0)) {
        *fault = (struct assist_fault){.vector = ASSIST_PROTECTION};
        return false;
    }
    return is_granted && assist_memory_find(&memory, linear, operand->bytes, operand->access, span, fault);
}
