// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_sse_move.h"

#include "vmm/assist_operand.h"

#include <string.h>

#define LDMXCSR_REG 2u
#define STMXCSR_REG 3u

/* MXCSR_MASK in the image of FXSAVE, and what it is where the processor leaves it 0 (Intel SDM volume 1, 11.6.6). */
#define FXSAVE_BYTES       512
#define FXSAVE_MXCSR_MASK  28
#define MXCSR_DEFAULT_MASK UINT32_C(0xffbf)

#define NONE    ASSIST_SSE_NO_OTHER
#define XMM     ASSIST_SSE_OTHER_XMM
#define GENERAL ASSIST_SSE_OTHER_GENERAL

static const struct assist_sse_move moves[] = {
    {0xf3, 0x10, false, 4, 0, XMM, 0, false, true},     /* MOVSS */
    {0xf2, 0x10, false, 8, 0, XMM, 0, false, true},     /* MOVSD */
    {0xf3, 0x11, true, 4, 0, XMM, 0, false, false},     /* MOVSS */
    {0xf2, 0x11, true, 8, 0, XMM, 0, false, false},     /* MOVSD */
    {0x00, 0x12, false, 8, 0, XMM, 8, false, false},    /* MOVLPS, MOVHLPS */
    {0x66, 0x12, false, 8, 0, NONE, 0, false, false},   /* MOVLPD */
    {0x00, 0x13, true, 8, 0, NONE, 0, false, false},    /* MOVLPS */
    {0x66, 0x13, true, 8, 0, NONE, 0, false, false},    /* MOVLPD */
    {0x00, 0x16, false, 8, 8, XMM, 0, false, false},    /* MOVHPS, MOVLHPS */
    {0x66, 0x16, false, 8, 8, NONE, 0, false, false},   /* MOVHPD */
    {0x00, 0x17, true, 8, 8, NONE, 0, false, false},    /* MOVHPS */
    {0x66, 0x17, true, 8, 8, NONE, 0, false, false},    /* MOVHPD */
    {0x66, 0x6e, false, 0, 0, GENERAL, 0, true, true},  /* MOVD, MOVQ */
    {0x66, 0x7e, true, 0, 0, GENERAL, 0, false, false}, /* MOVD, MOVQ */
    {0xf3, 0x7e, false, 8, 0, XMM, 0, true, true},      /* MOVQ */
    {0x66, 0xd6, true, 8, 0, XMM, 0, true, false},      /* MOVQ */
};

const struct assist_sse_move *assist_sse_move_find(const struct assist_instruction *instruction)
{
    if (instruction->has_operand_size && instruction->prefix != ASSIST_PREFIX_66) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        if (moves[i].opcode == instruction->opcode && moves[i].prefix == instruction->prefix) {
            return instruction->has_memory || moves[i].other != NONE ? &moves[i] : NULL;
        }
    }
    return NULL;
}

uint8_t assist_sse_move_bytes(const struct assist_sse_move *move, const struct assist_instruction *instruction)
{
    return move->bytes != 0 ? move->bytes : instruction->is_wide ? 8 : 4;
}

/* --- Execution ----------------------------------------------------------------------------------------------- */

static void put(uint8_t to[16], uint8_t at, const uint8_t *from, uint8_t bytes, bool clears)
{
    if (clears) {
        memset(to, 0, 16);
    }
    memcpy(to + at, from, bytes);
}

static void load(const struct assist_sse_move *move, const struct assist_instruction *instruction,
                 const uint8_t *memory, struct assist_sse *sse, const struct kvm_regs *regs)
{
    uint8_t bytes = assist_sse_move_bytes(move, instruction), moved[16];

    if (instruction->has_memory) {
        memcpy(moved, memory, bytes);
    } else if (move->other == GENERAL) {
        uint64_t value = assist_decode_get(regs, instruction->rm);

        memcpy(moved, &value, sizeof value);
    } else {
        memcpy(moved, sse->registers[instruction->rm] + move->other_at, bytes);
    }
    put(sse->registers[instruction->reg], move->at, moved, bytes,
        instruction->has_memory ? move->clears_by_memory : move->clears);
}

static void store(const struct assist_sse_move *move, const struct assist_instruction *instruction, uint8_t *memory,
                  struct assist_sse *sse, struct kvm_regs *regs)
{
    uint8_t bytes = assist_sse_move_bytes(move, instruction), moved[16];

    memcpy(moved, sse->registers[instruction->reg] + move->at, bytes);
    if (instruction->has_memory) {
        memcpy(memory, moved, bytes);
    } else if (move->other == GENERAL) {
        uint64_t value = 0;

        memcpy(&value, moved, bytes);
        assist_decode_set(regs, instruction->rm, value);
    } else {
        put(sse->registers[instruction->rm], move->other_at, moved, bytes, move->clears);
    }
}

void assist_sse_move_execute(const struct assist_sse_move *move, const struct assist_instruction *instruction,
                             uint8_t *memory, struct assist_sse *sse, struct kvm_regs *regs)
{
    if (move->is_store) {
        store(move, instruction, memory, sse, regs);
    } else {
        load(move, instruction, memory, sse, regs);
    }
}

/* --- For a vCPU ------------------------------------------------------------------------------------------------ */

/* Memory is written last: whatever fails before leaves it alone. */
static bool move_and_commit(struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                            const struct assist_sse_move *move, const struct assist_span *span)
{
    bool has_load = instruction->has_memory && !move->is_store, has_store = instruction->has_memory && move->is_store;
    uint8_t memory[16] = {0};
    struct assist_sse sse;

    if (!assist_vcpu_read_sse(vcpu, &sse)) {
        return false;
    }
    if (has_load) {
        assist_memory_load(span, memory);
    }
    assist_sse_move_execute(move, instruction, memory, &sse, &vcpu->regs);
    if ((!has_store && !assist_vcpu_write_sse(vcpu, &sse)) || !assist_vcpu_commit(vcpu, instruction->length)) {
        return false;
    }
    if (has_store) {
        assist_memory_store(span, memory);
    }
    return true;
}

bool assist_sse_move(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    const struct assist_sse_move *move = assist_sse_move_find(instruction);
    struct assist_operand operand = {0};
    struct assist_span span = {0};
    struct assist_fault fault;
    uint8_t vector;

    if (move == NULL) {
        return false;
    }
    vector = assist_vcpu_lacks_sse(vcpu);
    if (vector != 0) {
        return assist_vcpu_raise(vcpu, vector);
    }
    operand.bytes = assist_sse_move_bytes(move, instruction);
    operand.access = move->is_store ? ASSIST_WRITE : ASSIST_READ;
    if (instruction->has_memory && !assist_operand_find(vcpu, instruction, &operand, &span, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    return move_and_commit(vcpu, instruction, move, &span);
}

/* --- MXCSR --------------------------------------------------------------------------------------------------- */

/* The bits that this processor, and so the guest's, lets MXCSR have. */
static uint32_t mxcsr_mask(void)
{
    _Alignas(16) uint8_t image[FXSAVE_BYTES];
    uint32_t mask;

    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(&mask, image + FXSAVE_MXCSR_MASK, sizeof mask);
    return mask != 0 ? mask : MXCSR_DEFAULT_MASK;
}

static bool load_mxcsr(struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                       const struct assist_span *span, struct assist_sse *sse)
{
    assist_memory_load(span, &sse->mxcsr);
    if ((sse->mxcsr & ~mxcsr_mask()) != 0) {
        return assist_vcpu_protect(vcpu);
    }
    return assist_vcpu_write_sse(vcpu, sse) && assist_vcpu_commit(vcpu, instruction->length);
}

static bool store_mxcsr(struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                        const struct assist_span *span, const struct assist_sse *sse)
{
    if (!assist_vcpu_commit(vcpu, instruction->length)) {
        return false;
    }
    assist_memory_store(span, &sse->mxcsr);
    return true;
}

bool assist_mxcsr(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    unsigned int reg = assist_decode_reg(instruction);
    struct assist_operand operand = {.bytes = sizeof(uint32_t)};
    struct assist_fault fault;
    struct assist_span span;
    struct assist_sse sse;
    uint8_t vector;

    if ((reg != LDMXCSR_REG && reg != STMXCSR_REG) || !instruction->has_memory ||
        instruction->prefix != ASSIST_PREFIX_NONE) {
        return false;
    }
    vector = assist_vcpu_lacks_sse(vcpu);
    if (vector != 0) {
        return assist_vcpu_raise(vcpu, vector);
    }
    operand.access = reg == STMXCSR_REG ? ASSIST_WRITE : ASSIST_READ;
    if (!assist_operand_find(vcpu, instruction, &operand, &span, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    if (!assist_vcpu_read_sse(vcpu, &sse)) {
        return false;
    }
    return reg == STMXCSR_REG ? store_mxcsr(vcpu, instruction, &span, &sse)
                              : load_mxcsr(vcpu, instruction, &span, &sse);
}
