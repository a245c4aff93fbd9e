// SPDX-License-Identifier: Apache-2.0
/*
 * References: Intel SDM volume 1, section 11.5 (exceptions of SSE); volume 2, table A-3 (opcodes).
 *
 * Flags of MXCSR are sticky, so that whether an instruction has raised one shows only if it was clear before: they are
 * clear for the run and joined afterwards.
 */
#include "vmm/assist_sse.h"

#include "vmm/assist_operand.h"
#include "vmm/assist_sse_host.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#define MXCSR_INVALID            0x01u
#define MXCSR_DENORMAL           0x02u
#define MXCSR_ZERO               0x04u
#define MXCSR_OVERFLOW           0x08u
#define MXCSR_UNDERFLOW          0x10u
#define MXCSR_PRECISION          0x20u
#define MXCSR_DENORMALS_ARE_ZERO 0x40u
#define MXCSR_MASKS              0x1f80u
#define MXCSR_MASK_SHIFT         7u
#define MXCSR_ROUNDING           0x6000u
#define MXCSR_FLUSH_TO_ZERO      0x8000u
#define MXCSR_MISALIGNED         UINT32_C(0x20000) /* AMD APM volume 1, section 4.2.2 */

/* Found out before anything is calculated, for all parts of the operands together. */
#define MXCSR_BEFORE (MXCSR_INVALID | MXCSR_DENORMAL | MXCSR_ZERO)

#define RFLAGS_FIXED UINT64_C(2)

#define EXPONENT_DOUBLE UINT64_C(0x7ff0000000000000)
#define EXPONENT_SINGLE UINT32_C(0x7f800000)

struct assist_sse_frame {
    _Alignas(16) uint8_t target[16];
    uint8_t source[16];
    const uint8_t *code;
    uint64_t reg, rm;
    uint64_t flags;
    uint32_t mxcsr, host_mxcsr;
};

static_assert(offsetof(struct assist_sse_frame, target) == ASSIST_SSE_TARGET, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, source) == ASSIST_SSE_SOURCE, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, code) == ASSIST_SSE_CODE, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, reg) == ASSIST_SSE_REG, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, rm) == ASSIST_SSE_RM, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, flags) == ASSIST_SSE_FLAGS, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, mxcsr) == ASSIST_SSE_MXCSR, "as the assembler knows it");
static_assert(offsetof(struct assist_sse_frame, host_mxcsr) == ASSIST_SSE_HOST_MXCSR, "as the assembler knows it");
static_assert(sizeof(struct assist_sse_frame) == ASSIST_SSE_BYTES, "as the assembler knows it");

void assist_sse_host_run(struct assist_sse_frame *frame);
extern const uint8_t assist_sse_host_code[];

/* --- Forms --------------------------------------------------------------------------------------------------- */

#define SOURCE_XMM      ASSIST_SSE_XMM
#define SOURCE_ALIGNED  ASSIST_SSE_ALIGNED
#define SOURCE_REGISTER ASSIST_SSE_REGISTER
#define SOURCE_GENERAL  ASSIST_SSE_GENERAL

#define SSE_FORM(prefix, opcode, extension, source, bytes, result, code, tiny)                                         \
    {prefix,                                                                                                           \
     opcode,                                                                                                           \
     extension,                                                                                                        \
     SOURCE_##source,                                                                                                  \
     bytes,                                                                                                            \
     ASSIST_SSE_TO_##result,                                                                                           \
     ASSIST_SSE_##code,                                                                                                \
     ASSIST_SSE_TINY_##tiny},

static const struct assist_sse_form forms[] = {
#include "vmm/assist_sse_forms.h"
};

/* Shifts by a constant, whose opcode goes on in ModRM. */
static bool has_extension(uint8_t opcode)
{
    return opcode >= 0x71 && opcode <= 0x73;
}

static bool is_form(const struct assist_sse_form *form, const struct assist_instruction *instruction)
{
    return form->opcode == instruction->opcode && form->prefix == instruction->prefix &&
           (!has_extension(form->opcode) || form->extension == assist_decode_reg(instruction));
}

const struct assist_sse_form *assist_sse_form(const struct assist_instruction *instruction)
{
    /* 66 beside F2 or F3 is left to processors. */
    if (instruction->has_operand_size && instruction->prefix != ASSIST_PREFIX_66) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (is_form(&forms[i], instruction)) {
            return instruction->has_memory && forms[i].source == ASSIST_SSE_REGISTER ? NULL : &forms[i];
        }
    }
    return NULL;
}

uint8_t assist_sse_bytes(const struct assist_sse_form *form, const struct assist_instruction *instruction)
{
    return form->bytes != 0 ? form->bytes : instruction->is_wide ? 8 : 4;
}

static const uint8_t *code_of(const struct assist_sse_form *form, const struct assist_instruction *instruction)
{
    size_t number = form->code_count == ASSIST_SSE_IMMEDIATE ? instruction->immediate
                    : form->code_count == ASSIST_SSE_WIDE    ? instruction->is_wide
                                                             : 0;

    for (const struct assist_sse_form *before = forms; before < form; before++) {
        number += before->code_count;
    }
    return assist_sse_host_code + ASSIST_SSE_THUNK_BYTES * number;
}

/* --- Exceptions ---------------------------------------------------------------------------------------------- */

static unsigned int unmasked(uint32_t mxcsr)
{
    return ~(mxcsr >> MXCSR_MASK_SHIFT) & ASSIST_SSE_EXCEPTIONS;
}

/* Results are flushed to zero only where underflow is masked (Intel SDM volume 1, section 10.2.3.3). */
static uint32_t masked_mxcsr(uint32_t mxcsr)
{
    uint32_t kept = MXCSR_ROUNDING | MXCSR_DENORMALS_ARE_ZERO;

    if ((unmasked(mxcsr) & MXCSR_UNDERFLOW) == 0) {
        kept |= MXCSR_FLUSH_TO_ZERO;
    }
    return (mxcsr & kept) | MXCSR_MASKS;
}

static bool has_tiny_single(const uint8_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t number;

        memcpy(&number, numbers + 4 * i, sizeof number);
        if ((number & EXPONENT_SINGLE) == 0 && number << 1 != 0) {
            return true;
        }
    }
    return false;
}

static bool has_tiny_double(const uint8_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t number;

        memcpy(&number, numbers + 8 * i, sizeof number);
        if ((number & EXPONENT_DOUBLE) == 0 && number << 1 != 0) {
            return true;
        }
    }
    return false;
}

static bool has_tiny(const struct assist_sse_form *form, const uint8_t *target)
{
    switch (form->tiny) {
    case ASSIST_SSE_TINY_SS:
        return has_tiny_single(target, 1);
    case ASSIST_SSE_TINY_PS:
        return has_tiny_single(target, 4);
    case ASSIST_SSE_TINY_SD:
        return has_tiny_double(target, 1);
    case ASSIST_SSE_TINY_PD:
        return has_tiny_double(target, 2);
    case ASSIST_SSE_TINY_NO:
    default:
        return false;
    }
}

/*
 * Masked, underflow is raised only for a tiny result that is inexact; not masked, for any (Intel SDM volume 1, section
 * 4.9.1.5).
 */
static unsigned int raised_by(const struct assist_sse_form *form, const struct assist_sse_frame *frame, uint32_t mxcsr)
{
    unsigned int raised = frame->mxcsr & ASSIST_SSE_EXCEPTIONS;

    if ((unmasked(mxcsr) & MXCSR_UNDERFLOW) != 0 && has_tiny(form, frame->target)) {
        raised |= MXCSR_UNDERFLOW;
    }
    return raised;
}

/* due: of those raised, the exceptions that are not masked, and there is one. */
static enum assist_sse_end raise(unsigned int raised, unsigned int due, uint32_t *mxcsr)
{
    if ((due & MXCSR_BEFORE) != 0) {
        *mxcsr |= raised & MXCSR_BEFORE;
        return ASSIST_SSE_RAISES;
    }
    if ((due & (MXCSR_OVERFLOW | MXCSR_UNDERFLOW)) != 0 && (raised & ~*mxcsr & MXCSR_PRECISION) != 0) {
        return ASSIST_SSE_REFUSED;
    }
    *mxcsr |= raised;
    return ASSIST_SSE_RAISES;
}

/* --- Execution ----------------------------------------------------------------------------------------------- */

static struct assist_sse_frame frame_of(const struct assist_sse_form *form,
                                        const struct assist_instruction *instruction, const uint8_t *memory,
                                        const struct assist_sse *sse, const struct kvm_regs *regs)
{
    struct assist_sse_frame frame = {.code = code_of(form, instruction),
                                     .flags = (regs->rflags & ASSIST_RFLAGS_ARITHMETIC) | RFLAGS_FIXED,
                                     .mxcsr = masked_mxcsr(sse->mxcsr)};

    memcpy(frame.target, sse->registers[instruction->reg], sizeof frame.target);
    if (instruction->has_memory) {
        memcpy(frame.source, memory, sizeof frame.source);
        memcpy(&frame.rm, memory, sizeof frame.rm);
    } else {
        memcpy(frame.source, sse->registers[instruction->rm], sizeof frame.source);
        frame.rm = assist_decode_get(regs, instruction->rm);
    }
    return frame;
}

static void take_over(const struct assist_sse_form *form, const struct assist_instruction *instruction,
                      const struct assist_sse_frame *frame, struct assist_sse *sse, struct kvm_regs *regs)
{
    switch (form->result) {
    case ASSIST_SSE_TO_TARGET:
        memcpy(sse->registers[instruction->reg], frame->target, sizeof frame->target);
        break;
    case ASSIST_SSE_TO_SOURCE:
        memcpy(sse->registers[instruction->rm], frame->source, sizeof frame->source);
        break;
    case ASSIST_SSE_TO_REG:
        assist_decode_set(regs, instruction->reg, frame->reg);
        break;
    case ASSIST_SSE_TO_FLAGS:
        regs->rflags &= ~ASSIST_RFLAGS_ARITHMETIC;
        regs->rflags |= frame->flags & ASSIST_RFLAGS_ARITHMETIC;
        break;
    }
}

enum assist_sse_end assist_sse_execute(const struct assist_sse_form *form, const struct assist_instruction *instruction,
                                       const uint8_t *memory, struct assist_sse *sse, struct kvm_regs *regs)
{
    struct assist_sse_frame frame = frame_of(form, instruction, memory, sse, regs);
    unsigned int raised, due;

    assist_sse_host_run(&frame);
    raised = raised_by(form, &frame, sse->mxcsr);
    due = raised & unmasked(sse->mxcsr);
    if (due != 0) {
        return raise(raised, due, &sse->mxcsr);
    }
    sse->mxcsr |= raised;
    take_over(form, instruction, &frame, sse, regs);
    return ASSIST_SSE_DONE;
}

/* --- For a vCPU ------------------------------------------------------------------------------------------------ */

/* MXCSR as it has become is written in any case. */
static bool finish(struct assist_vcpu *vcpu, const struct assist_instruction *instruction, enum assist_sse_end end,
                   const struct assist_sse *sse)
{
    bool has_handler = (vcpu->sregs.cr4 & ASSIST_CR4_OSXMMEXCPT) != 0;

    if (end == ASSIST_SSE_REFUSED || !assist_vcpu_write_sse(vcpu, sse)) {
        return false;
    }
    return end == ASSIST_SSE_DONE ? assist_vcpu_commit(vcpu, instruction->length)
                                  : assist_vcpu_raise(vcpu, has_handler ? ASSIST_SIMD_ERROR : ASSIST_UNDEFINED);
}

bool assist_sse(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    const struct assist_sse_form *form = assist_sse_form(instruction);
    struct assist_operand operand = {.access = ASSIST_READ};
    uint8_t memory[16] = {0}, vector;
    struct assist_fault fault;
    struct assist_span span;
    struct assist_sse sse;

    if (form == NULL) {
        return false;
    }
    vector = assist_vcpu_lacks_sse(vcpu);
    if (vector != 0) {
        return assist_vcpu_raise(vcpu, vector);
    }
    if (!assist_vcpu_read_sse(vcpu, &sse)) {
        return false;
    }
    operand.bytes = assist_sse_bytes(form, instruction);
    operand.align = form->source == ASSIST_SSE_ALIGNED && (sse.mxcsr & MXCSR_MISALIGNED) == 0 ? operand.bytes : 0;
    if (instruction->has_memory && !assist_operand_find(vcpu, instruction, &operand, &span, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    if (instruction->has_memory) {
        assist_memory_load(&span, memory);
    }
    return finish(vcpu, instruction, assist_sse_execute(form, instruction, memory, &sse, &vcpu->regs), &sse);
}
