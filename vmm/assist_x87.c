// SPDX-License-Identifier: Apache-2.0
/*
 * References: Intel SDM volume 1, chapter 8; volume 2, table A-7 to A-22 (escape opcodes), FXSAVE.
 *
 * An exception flag of the status word is sticky, so that whether an instruction has raised it shows only if it was
 * clear before: the flags are cleared for the run and joined afterwards.
 */
#include "vmm/assist_x87.h"

#include "vmm/assist_operand.h"
#include "vmm/assist_x87_host.h"

#include <assert.h>
#include <string.h>

#define OPCODE_FIRST 0xd8u

#define CONTROL_RESERVED_ONE 0x0040u
#define CONTROL_KEPT         0x1f3fu /* what FLDCW takes over */
#define CONTROL_RESET        0x037fu
#define STATUS_STACK_FAULT   0x0040u
#define STATUS_SUMMARY       0x8080u /* ES, and B, which is its copy */
#define STATUS_AFTER_CLEAR   0x7f00u
#define EXCEPTION_UNDERFLOW  0x10u
#define MXCSR_MASKED         0x1f80u
#define RFLAGS_FIXED         UINT64_C(2)
#define OPERAND_ALIGN        16u

#define EXPONENT_EXTENDED 0x7fffu
#define EXPONENT_DOUBLE   UINT64_C(0x7ff0000000000000)
#define EXPONENT_SINGLE   0x7f800000u

/* The image of FXSAVE64 (Intel SDM volume 1, table 10-2). */
struct fxsave {
    uint16_t control, status;
    uint8_t tags, reserved; /* tags: a bit for each register that holds something */
    uint16_t opcode;
    uint64_t instruction_pointer, operand_pointer;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t registers[8][16];
    uint8_t rest[352];
};

struct assist_x87_frame {
    _Alignas(16) struct fxsave guest;
    struct fxsave host;
    const uint8_t *code;
    void *operand;
    uint64_t flags;
};

static_assert(sizeof(struct fxsave) == 512, "as the processor lays it out");
static_assert(offsetof(struct fxsave, registers) == 32, "as the processor lays it out");
static_assert(offsetof(struct assist_x87_frame, guest) == ASSIST_X87_GUEST, "as the assembler knows it");
static_assert(offsetof(struct assist_x87_frame, host) == ASSIST_X87_HOST, "as the assembler knows it");
static_assert(offsetof(struct assist_x87_frame, code) == ASSIST_X87_CODE, "as the assembler knows it");
static_assert(offsetof(struct assist_x87_frame, operand) == ASSIST_X87_OPERAND, "as the assembler knows it");
static_assert(offsetof(struct assist_x87_frame, flags) == ASSIST_X87_FLAGS, "as the assembler knows it");
static_assert(sizeof(struct assist_x87_frame) == ASSIST_X87_BYTES, "as the assembler knows it");
static_assert(sizeof(((struct kvm_fpu *)NULL)->fpr) == sizeof(((struct fxsave *)NULL)->registers),
              "the same registers");

void assist_x87_host_run(struct assist_x87_frame *frame);
extern const uint8_t assist_x87_host_memory[];
extern const uint8_t assist_x87_host_register[];

/* --- Forms --------------------------------------------------------------------------------------------------- */

#define READS(n)                                                                                                       \
    {                                                                                                                  \
        ASSIST_X87_HOST_RUNS, n, false                                                                                 \
    }
#define WRITES(n)                                                                                                      \
    {                                                                                                                  \
        ASSIST_X87_HOST_RUNS, n, true                                                                                  \
    }
#define NONE                                                                                                           \
    {                                                                                                                  \
        ASSIST_X87_REFUSED, 0, false                                                                                   \
    }

/* By opcode and ModRM reg. */
static const struct assist_x87_form memory_forms[8][8] = {
    {READS(4), READS(4), READS(4), READS(4), READS(4), READS(4), READS(4), READS(4)},
    {READS(4), NONE, WRITES(4), WRITES(4), NONE, {ASSIST_X87_FLDCW, 2, false}, NONE, {ASSIST_X87_FNSTCW, 2, true}},
    {READS(4), READS(4), READS(4), READS(4), READS(4), READS(4), READS(4), READS(4)},
    {READS(4), WRITES(4), WRITES(4), WRITES(4), NONE, READS(10), NONE, WRITES(10)},
    {READS(8), READS(8), READS(8), READS(8), READS(8), READS(8), READS(8), READS(8)},
    {READS(8), WRITES(8), WRITES(8), WRITES(8), NONE, NONE, NONE, {ASSIST_X87_FNSTSW, 2, true}},
    {READS(2), READS(2), READS(2), READS(2), READS(2), READS(2), READS(2), READS(2)},
    {READS(2), WRITES(2), WRITES(2), WRITES(2), READS(10), READS(8), WRITES(10), WRITES(8)},
};

/* By opcode, a bit for each ModRM from 0xc0 on that is documented and runs on the host. */
static const uint64_t register_forms[8] = {
    UINT64_C(0xffffffffffffffff), /* FADD FMUL FCOM FCOMP FSUB FSUBR FDIV FDIVR */
    UINT64_C(0xffff7f330001ffff), /* FLD FXCH FNOP; FCHS FABS FTST FXAM; constants; 0xf0 to 0xff */
    UINT64_C(0x00000200ffffffff), /* FCMOVcc; FUCOMPP */
    UINT64_C(0x00ffff00ffffffff), /* FCMOVNcc; FUCOMI FCOMI */
    UINT64_C(0xffffffff0000ffff), /* FADD FMUL; FSUBR FSUB FDIVR FDIV */
    UINT64_C(0x0000ffffffff00ff), /* FFREE; FST FSTP FUCOM FUCOMP */
    UINT64_C(0xffffffff0200ffff), /* FADDP FMULP; FCOMPP; FSUBRP FSUBP FDIVRP FDIVP */
    UINT64_C(0x00ffff0000000000), /* FUCOMIP FCOMIP */
};

static unsigned int escape(const struct assist_instruction *instruction)
{
    return (instruction->opcode - OPCODE_FIRST) & 7u;
}

/* FISTTP came with SSE3, which every processor has that runs KVM; an illegal instruction would end the host. */
static bool host_has(const struct assist_instruction *instruction)
{
    bool is_fisttp = assist_decode_reg(instruction) == 1 && (escape(instruction) & 1) != 0;

    return !is_fisttp || __builtin_cpu_supports("sse3");
}

static struct assist_x87_form register_form(const struct assist_instruction *instruction)
{
    struct assist_x87_form form = NONE;

    switch ((unsigned int)instruction->opcode << 8 | instruction->modrm) {
    case 0xdbe2:
        form.kind = ASSIST_X87_FNCLEX;
        break;
    case 0xdbe3:
        form.kind = ASSIST_X87_FNINIT;
        break;
    case 0xdfe0:
        form = (struct assist_x87_form){ASSIST_X87_FNSTSW, 2, true};
        break;
    default:
        if ((register_forms[escape(instruction)] >> (instruction->modrm & 63u) & 1) != 0) {
            form.kind = ASSIST_X87_HOST_RUNS;
        }
        break;
    }
    return form;
}

struct assist_x87_form assist_x87_form(const struct assist_instruction *instruction)
{
    if (!instruction->has_memory) {
        return register_form(instruction);
    }
    return host_has(instruction) ? memory_forms[escape(instruction)][assist_decode_reg(instruction)]
                                 : (struct assist_x87_form)NONE;
}

/* --- Control instructions --------------------------------------------------------------------------------------- */

bool assist_x87_is_pending(const struct kvm_fpu *fpu)
{
    return (fpu->fsw & ~fpu->fcw & ASSIST_X87_EXCEPTIONS) != 0;
}

static void summarise(struct kvm_fpu *fpu)
{
    fpu->fsw = (uint16_t)((fpu->fsw & ~STATUS_SUMMARY) | (assist_x87_is_pending(fpu) ? STATUS_SUMMARY : 0));
}

static void reset(struct kvm_fpu *fpu)
{
    fpu->fcw = CONTROL_RESET;
    fpu->fsw = 0;
    fpu->ftwx = 0;
    fpu->last_opcode = 0;
    fpu->last_ip = 0;
    fpu->last_dp = 0;
}

static void load_control(struct kvm_fpu *fpu, const uint8_t *operand)
{
    uint16_t control;

    memcpy(&control, operand, sizeof control);
    fpu->fcw = (uint16_t)((control & CONTROL_KEPT) | CONTROL_RESERVED_ONE);
    summarise(fpu);
}

/* --- Instructions that the host runs ----------------------------------------------------------------------------- */

static const uint8_t *thunk(const struct assist_instruction *instruction)
{
    size_t number = escape(instruction);

    return instruction->has_memory
               ? assist_x87_host_memory + ASSIST_X87_THUNK_BYTES * (8 * number + assist_decode_reg(instruction))
               : assist_x87_host_register + ASSIST_X87_THUNK_BYTES * (64 * number + (instruction->modrm & 63u));
}

static struct fxsave image_of(const struct kvm_fpu *fpu)
{
    struct fxsave image = {
        .control = (uint16_t)((fpu->fcw & CONTROL_KEPT) | CONTROL_RESERVED_ONE | ASSIST_X87_EXCEPTIONS),
        .status = (uint16_t)(fpu->fsw & ~(STATUS_SUMMARY | STATUS_STACK_FAULT | ASSIST_X87_EXCEPTIONS)),
        .tags = fpu->ftwx,
        .mxcsr = MXCSR_MASKED,
    };

    memcpy(image.registers, fpu->fpr, sizeof image.registers);
    return image;
}

static bool is_tiny_extended(const uint8_t *bytes)
{
    uint64_t significand;
    uint16_t exponent;

    memcpy(&significand, bytes, sizeof significand);
    memcpy(&exponent, bytes + sizeof significand, sizeof exponent);
    return (exponent & EXPONENT_EXTENDED) == 0 && significand != 0;
}

/* A denormal number was stored as a real; integers and packed decimals are none. */
static bool is_tiny_operand(const struct assist_instruction *instruction, const uint8_t *operand)
{
    uint64_t wide;
    uint32_t narrow;

    switch (instruction->opcode) {
    case 0xd9:
        memcpy(&narrow, operand, sizeof narrow);
        return (narrow & EXPONENT_SINGLE) == 0 && narrow << 1 != 0;
    case 0xdd:
        memcpy(&wide, operand, sizeof wide);
        return (wide & EXPONENT_DOUBLE) == 0 && wide << 1 != 0;
    default:
        return false;
    }
}

/*
 * Masked, underflow is raised only for a tiny result that is inexact; not masked, for any (Intel SDM volume 1,
 * section 8.5.5). So where the guest does not mask it, a tiny result is refused, wherever it came from.
 */
static bool has_tiny(const struct assist_instruction *instruction, const struct assist_x87_form *form,
                     const struct fxsave *image, const uint8_t *operand)
{
    for (unsigned int i = 0; i < 8; i++) {
        unsigned int physical = ((image->status >> 11) + i) & 7u;

        if ((image->tags >> physical & 1) != 0 && is_tiny_extended(image->registers[i])) {
            return true;
        }
    }
    return form->is_write && is_tiny_operand(instruction, operand);
}

static void take_over(struct kvm_fpu *fpu, const struct fxsave *image)
{
    uint16_t sticky = fpu->fsw & (STATUS_STACK_FAULT | ASSIST_X87_EXCEPTIONS);

    fpu->fsw = image->status | sticky;
    fpu->ftwx = image->tags;
    memcpy(fpu->fpr, image->registers, sizeof fpu->fpr);
    summarise(fpu);
}

static bool run_on_host(const struct assist_instruction *instruction, const struct assist_x87_form *form,
                        struct kvm_fpu *fpu, uint64_t *rflags, uint8_t *operand)
{
    struct assist_x87_frame frame = {.guest = image_of(fpu), .code = thunk(instruction), .operand = operand};
    unsigned int unmasked = ~(unsigned int)fpu->fcw & ASSIST_X87_EXCEPTIONS;

    frame.flags = (*rflags & ASSIST_RFLAGS_ARITHMETIC) | RFLAGS_FIXED;
    assist_x87_host_run(&frame);
    if ((frame.guest.status & unmasked) != 0 ||
        ((unmasked & EXCEPTION_UNDERFLOW) != 0 && has_tiny(instruction, form, &frame.guest, operand))) {
        return false;
    }
    take_over(fpu, &frame.guest);
    *rflags = (*rflags & ~ASSIST_RFLAGS_ARITHMETIC) | (frame.flags & ASSIST_RFLAGS_ARITHMETIC);
    return true;
}

bool assist_x87_execute(const struct assist_instruction *instruction, struct kvm_fpu *fpu, uint64_t *rflags,
                        uint8_t *operand)
{
    struct assist_x87_form form = assist_x87_form(instruction);

    switch (form.kind) {
    case ASSIST_X87_HOST_RUNS:
        return run_on_host(instruction, &form, fpu, rflags, operand);
    case ASSIST_X87_FLDCW:
        load_control(fpu, operand);
        return true;
    case ASSIST_X87_FNSTCW:
        memcpy(operand, &fpu->fcw, sizeof fpu->fcw);
        return true;
    case ASSIST_X87_FNSTSW:
        memcpy(operand, &fpu->fsw, sizeof fpu->fsw);
        return true;
    case ASSIST_X87_FNCLEX:
        fpu->fsw &= STATUS_AFTER_CLEAR;
        return true;
    case ASSIST_X87_FNINIT:
        reset(fpu);
        return true;
    case ASSIST_X87_REFUSED:
        break;
    }
    return false;
}

/* --- For a vCPU ------------------------------------------------------------------------------------------------ */

static bool waits(enum assist_x87_kind kind)
{
    return kind == ASSIST_X87_HOST_RUNS || kind == ASSIST_X87_FLDCW;
}

/* The operand in host memory; a register form has none, and succeeds. */
static bool find_operand(const struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                         const struct assist_x87_form *form, struct assist_span *span, struct assist_fault *fault)
{
    struct assist_operand operand = {.bytes = form->bytes, .access = form->is_write ? ASSIST_WRITE : ASSIST_READ};

    return !instruction->has_memory || assist_operand_find(vcpu, instruction, &operand, span, fault);
}

/* Where the FPU says that its last instruction was; control instructions leave no trace there. */
static void leave_trace(const struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                        struct kvm_fpu *fpu)
{
    fpu->last_opcode = (uint16_t)((instruction->opcode & 7u) << 8 | instruction->modrm);
    fpu->last_ip = vcpu->regs.rip;
    if (instruction->has_memory) {
        fpu->last_dp = assist_decode_offset(instruction, &vcpu->regs);
    }
}

static bool execute_and_commit(struct assist_vcpu *vcpu, const struct assist_instruction *instruction,
                               const struct assist_x87_form *form, struct kvm_fpu *fpu)
{
    _Alignas(OPERAND_ALIGN) uint8_t operand[OPERAND_ALIGN] = {0};
    uint64_t rflags = vcpu->regs.rflags;
    struct assist_fault fault;
    struct assist_span span;

    if (!find_operand(vcpu, instruction, form, &span, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    if (instruction->has_memory && !form->is_write) {
        assist_memory_load(&span, operand);
    }
    if (!assist_x87_execute(instruction, fpu, &rflags, operand)) {
        return false;
    }
    vcpu->regs.rflags = rflags;
    if (form->kind == ASSIST_X87_HOST_RUNS) {
        leave_trace(vcpu, instruction, fpu);
    }
    if (form->is_write && !instruction->has_memory) {
        memcpy(&vcpu->regs.rax, operand, form->bytes);
    }
    if (!assist_vcpu_write_fpu(vcpu, fpu) || !assist_vcpu_commit(vcpu, instruction->length)) {
        return false;
    }
    if (form->is_write && instruction->has_memory) {
        assist_memory_store(&span, operand);
    }
    return true;
}

bool assist_x87(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    struct assist_x87_form form = assist_x87_form(instruction);
    struct kvm_fpu fpu;

    if (form.kind == ASSIST_X87_REFUSED) {
        return false;
    }
    if ((vcpu->sregs.cr0 & (ASSIST_CR0_EM | ASSIST_CR0_TS)) != 0) {
        return assist_vcpu_raise(vcpu, ASSIST_NO_DEVICE);
    }
    if (!assist_vcpu_read_fpu(vcpu, &fpu)) {
        return false;
    }
    if (waits(form.kind) && assist_x87_is_pending(&fpu)) {
        return (vcpu->sregs.cr0 & ASSIST_CR0_NE) != 0 && assist_vcpu_raise(vcpu, ASSIST_FPU_ERROR);
    }
    return execute_and_commit(vcpu, instruction, &form, &fpu);
}
