// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist.h"

#include "vmm/assist_decode.h"
#include "vmm/assist_integer.h"
#include "vmm/assist_memory.h"
#include "vmm/assist_sse.h"
#include "vmm/assist_sse_move.h"
#include "vmm/assist_system.h"
#include "vmm/assist_vcpu.h"
#include "vmm/assist_x87.h"

#include <stdint.h>
#include <string.h>

#define OPCODE_FWAIT 0x9bu
#define OPCODE_INT3  0xccu
#define OPCODE_INT   0xcdu

/* Behind 0x0f. */
#define OPCODE_GROUP7     0x01u
#define OPCODE_MXCSR      0xaeu
#define OPCODE_POPCNT     0xb8u
#define OPCODE_CMPXCHG16B 0xc7u

/* count <= ASSIST_DECODE_BYTES_MAX */
struct code {
    uint8_t bytes[ASSIST_DECODE_BYTES_MAX];
    size_t count;
};

/* The bytes of the instruction that was given up on; false: this exit is none of that kind, or KVM does not say. */
static bool failed_code(const struct kvm_run *run, struct code *code)
{
    if (run->exit_reason != KVM_EXIT_INTERNAL_ERROR || run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION ||
        run->emulation_failure.ndata < 3 ||
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) == 0 ||
        run->emulation_failure.insn_size > sizeof code->bytes) {
        return false;
    }
    code->count = run->emulation_failure.insn_size;
    memcpy(code->bytes, run->emulation_failure.insn_bytes, code->count);
    return code->count > 0;
}

/* KVM fetches up to the end of a page, and further only if it knows the instruction: read the byte that follows. */
static bool fetch_more(const struct assist_vcpu *vcpu, struct code *code, struct assist_fault *fault)
{
    struct assist_memory memory = assist_vcpu_memory(vcpu);
    uint64_t rip = vcpu->regs.rip + code->count, linear;
    struct assist_span span;

    *fault = (struct assist_fault){0};
    if (code->count == sizeof code->bytes ||
        !assist_memory_linear(&memory, ASSIST_SEGMENT_CS, rip, 1, ASSIST_FETCH, &linear, fault) ||
        !assist_memory_find(&memory, linear, 1, ASSIST_FETCH, &span, fault)) {
        return false;
    }
    assist_memory_load(&span, &code->bytes[code->count++]);
    return true;
}

/* false: the instruction is unknown, or raises *fault when it is fetched. */
static bool decode(const struct assist_vcpu *vcpu, struct code *code, struct assist_instruction *instruction,
                   struct assist_fault *fault)
{
    enum assist_decoded decoded;

    *fault = (struct assist_fault){0};
    do {
        decoded = assist_decode(code->bytes, code->count, assist_vcpu_mode(vcpu), instruction);
    } while (decoded == ASSIST_TRUNCATED && fetch_more(vcpu, code, fault));
    return decoded == ASSIST_DECODED;
}

/* FWAIT raises what the FPU has pending, and does nothing else (Intel SDM volume 2, WAIT/FWAIT). */
static bool assist_fwait(struct assist_vcpu *vcpu, uint8_t length)
{
    const uint64_t lazy = ASSIST_CR0_MP | ASSIST_CR0_TS;
    struct kvm_fpu fpu;

    if ((vcpu->sregs.cr0 & lazy) == lazy) {
        return assist_vcpu_raise(vcpu, ASSIST_NO_DEVICE);
    }
    if (!assist_vcpu_read_fpu(vcpu, &fpu)) {
        return false;
    }
    if (assist_x87_is_pending(&fpu)) {
        return (vcpu->sregs.cr0 & ASSIST_CR0_NE) != 0 && assist_vcpu_raise(vcpu, ASSIST_FPU_ERROR);
    }
    return assist_vcpu_commit(vcpu, length);
}

/* A trap: the handler returns behind it. Whether the IDT's gate is open to a user is not known here, so users are
 * refused. */
static bool assist_int3(struct assist_vcpu *vcpu, uint8_t length)
{
    return assist_memory_privilege(&vcpu->sregs) < 3 && assist_vcpu_commit(vcpu, length) &&
           assist_vcpu_raise(vcpu, ASSIST_BREAKPOINT);
}

static bool assist_one(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    switch (instruction->opcode) {
    case OPCODE_FWAIT:
        return assist_fwait(vcpu, instruction->length);
    case OPCODE_INT3:
        return assist_int3(vcpu, instruction->length);
    case OPCODE_INT:
        return assist_int(vcpu, instruction);
    default:
        return assist_x87(vcpu, instruction);
    }
}

static bool assist_0f(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    switch (instruction->opcode) {
    case OPCODE_GROUP7:
        return assist_group7(vcpu, instruction);
    case OPCODE_MXCSR:
        return assist_mxcsr(vcpu, instruction);
    case OPCODE_POPCNT:
        return assist_popcnt(vcpu, instruction);
    case OPCODE_CMPXCHG16B:
        return assist_cmpxchg16b(vcpu, instruction);
    default:
        return assist_sse_move(vcpu, instruction) || assist_sse(vcpu, instruction);
    }
}

/* Of all that is decoded, only one takes LOCK, and that only with memory (Intel SDM volume 2, LOCK). */
static bool may_lock(const struct assist_instruction *instruction)
{
    return instruction->map == ASSIST_MAP_0F && instruction->opcode == OPCODE_CMPXCHG16B;
}

static bool carry_out(struct assist_vcpu *vcpu, struct code *code)
{
    struct assist_instruction instruction;
    struct assist_fault fault;

    if (!decode(vcpu, code, &instruction, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    if (instruction.has_lock && !may_lock(&instruction)) {
        return assist_vcpu_raise(vcpu, ASSIST_UNDEFINED);
    }
    switch (instruction.map) {
    case ASSIST_MAP_ONE:
        return assist_one(vcpu, &instruction);
    case ASSIST_MAP_0F:
        return assist_0f(vcpu, &instruction);
    case ASSIST_MAP_0F38:
    default:
        return assist_invpcid(vcpu, &instruction);
    }
}

bool assist_instruction(int vcpu_fd, const struct kvm_run *run, struct loam_gpa_map *map, struct loam_dirty *dirty)
{
    const struct loam_gpa_view *view;
    struct assist_vcpu vcpu;
    struct code code;
    bool is_done;

    if (!failed_code(run, &code)) {
        return false;
    }
    view = loam_gpa_map_acquire(map);
    is_done = assist_vcpu_read(&vcpu, vcpu_fd, view, dirty) && carry_out(&vcpu, &code);
    loam_gpa_map_release(map, view);
    return is_done;
}
