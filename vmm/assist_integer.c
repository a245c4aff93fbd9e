// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_integer.h"

#include "vmm/assist_operand.h"

#include <cpuid.h>
#include <string.h>

#define RFLAGS_ZF (UINT64_C(1) << 6)

#define CMPXCHG16B_REG   1u
#define CMPXCHG16B_BYTES 16u

static uint64_t low_bytes(uint64_t value, size_t bytes)
{
    return bytes == 8 ? value : value & ((UINT64_C(1) << 8 * bytes) - 1);
}

/* Results of 32 bits clear the upper half of a register, those of 16 bits leave the rest as it is. */
static void set_register(struct kvm_regs *regs, unsigned int number, uint64_t value, size_t bytes)
{
    uint64_t kept = bytes == 2 ? assist_decode_get(regs, number) & ~UINT64_C(0xffff) : 0;

    assist_decode_set(regs, number, kept | value);
}

bool assist_popcnt(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    size_t bytes = instruction->is_wide ? 8 : instruction->has_operand_size ? 2 : 4;
    struct assist_operand operand = {.bytes = bytes, .access = ASSIST_READ};
    struct assist_fault fault;
    struct assist_span span;
    uint64_t value = 0;

    if (instruction->prefix != ASSIST_PREFIX_F3) {
        return false;
    }
    if (!instruction->has_memory) {
        value = low_bytes(assist_decode_get(&vcpu->regs, instruction->rm), bytes);
    } else if (assist_operand_find(vcpu, instruction, &operand, &span, &fault)) {
        assist_memory_load(&span, &value);
    } else {
        return assist_vcpu_fault(vcpu, &fault);
    }
    vcpu->regs.rflags &= ~ASSIST_RFLAGS_ARITHMETIC;
    vcpu->regs.rflags |= value == 0 ? RFLAGS_ZF : 0;
    set_register(&vcpu->regs, instruction->reg, (uint64_t)__builtin_popcountll(value), bytes);
    return assist_vcpu_commit(vcpu, instruction->length);
}

static bool host_has_cmpxchg16b(void)
{
    unsigned int eax, ebx, ecx, edx;

    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_CMPXCHG16B) != 0;
}

static void exchange(struct kvm_regs *regs, const struct assist_span *span)
{
    uint64_t expected[2] = {regs->rax, regs->rdx};
    const uint64_t desired[2] = {regs->rbx, regs->rcx};

    if (assist_memory_exchange(span, expected, desired)) {
        regs->rflags |= RFLAGS_ZF;
    } else {
        regs->rflags &= ~RFLAGS_ZF;
        regs->rax = expected[0];
        regs->rdx = expected[1];
    }
}

bool assist_cmpxchg16b(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    const struct assist_operand operand = {CMPXCHG16B_BYTES, ASSIST_WRITE, CMPXCHG16B_BYTES};
    struct assist_fault fault;
    struct assist_span span;

    if (!instruction->is_wide || assist_decode_reg(instruction) != CMPXCHG16B_REG ||
        instruction->prefix != ASSIST_PREFIX_NONE || !host_has_cmpxchg16b()) {
        return false;
    }
    if (!instruction->has_memory) {
        return assist_vcpu_raise(vcpu, ASSIST_UNDEFINED);
    }
    if (!assist_operand_find(vcpu, instruction, &operand, &span, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    exchange(&vcpu->regs, &span);
    return assist_vcpu_commit(vcpu, instruction->length);
}
