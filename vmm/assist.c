// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist.h"

#include "vmm/assist_decode.h"
#include "vmm/assist_memory.h"
#include "vmm/assist_vcpu.h"
#include "vmm/assist_x87.h"

#include <stdint.h>
#include <string.h>

#define OPCODE_FWAIT 0x9bu
#define OPCODE_INT3  0xccu

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
static bool fetch_more(const struct assist_vcpu *vcpu, struct code *code)
{
    struct assist_memory memory = assist_vcpu_memory(vcpu);
    struct assist_span span;
    uint64_t linear;

    if (code->count == sizeof code->bytes ||
        !assist_memory_linear(&memory, ASSIST_SEGMENT_CS, vcpu->regs.rip + code->count, 1, ASSIST_FETCH, &linear) ||
        !assist_memory_find(&memory, linear, 1, ASSIST_FETCH, &span)) {
        return false;
    }
    assist_memory_load(&span, &code->bytes[code->count++]);
    return true;
}

static bool decode(const struct assist_vcpu *vcpu, struct code *code, struct assist_instruction *instruction)
{
    enum assist_decoded decoded;

    do {
        decoded = assist_decode(code->bytes, code->count, assist_vcpu_mode(vcpu), instruction);
    } while (decoded == ASSIST_TRUNCATED && fetch_more(vcpu, code));
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

static bool carry_out(struct assist_vcpu *vcpu, struct code *code)
{
    struct assist_instruction instruction;

    if (!decode(vcpu, code, &instruction)) {
        return false;
    }
    switch (instruction.opcode) {
    case OPCODE_FWAIT:
        return assist_fwait(vcpu, instruction.length);
    case OPCODE_INT3:
        return assist_int3(vcpu, instruction.length);
    default:
        return assist_x87(vcpu, &instruction);
    }
}

bool assist_instruction(int vcpu_fd, const struct kvm_run *run, struct loam_gpa_map *map)
{
    const struct loam_gpa_view *view;
    struct assist_vcpu vcpu;
    struct code code;
    bool is_done;

    if (!failed_code(run, &code)) {
        return false;
    }
    view = loam_gpa_map_acquire(map);
    is_done = assist_vcpu_read(&vcpu, vcpu_fd, view) && carry_out(&vcpu, &code);
    loam_gpa_map_release(map, view);
    return is_done;
}
