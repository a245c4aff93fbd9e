// SPDX-License-Identifier: Apache-2.0
#include "vmm/assist_system.h"

#include "vmm/assist_operand.h"

#include <cpuid.h>
#include <string.h>

#define MODRM_CLAC   0xcau
#define MODRM_STAC   0xcbu
#define MODRM_XGETBV 0xd0u

#define RFLAGS_AC (UINT64_C(1) << 18)

#define CPUID_7_EBX_SMAP    (UINT32_C(1) << 20)
#define CPUID_7_EBX_INVPCID (UINT32_C(1) << 10)
#define EFER_LMA            (UINT64_C(1) << 10)

/* INVPCID's types and descriptor. */
#define INVPCID_ADDRESS 0u
#define INVPCID_CONTEXT 1u
#define INVPCID_LAST    3u
#define PCID_MASK       UINT64_C(0xfff)

/* Gates (Intel SDM volume 3A, sections 6.11 and 6.14.1), of 8 bytes and, in long mode, of 16. */
#define GATE_TYPE_TASK   0x5u
#define GATE_TYPE_16_BIT 0x6u /* 0x6, 0x7 */
#define GATE_TYPE_32_BIT 0xeu /* 0xe, 0xf: also of 64 bits */
#define GATE_ACCESS      5u   /* byte: type, DPL, present */
#define GATE_PRESENT     0x80u
#define GATE_ERROR_IDT   2u

static bool host_has(uint32_t feature)
{
    unsigned int eax, ebx, ecx, edx;

    return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & feature) != 0;
}

/* --- Group 7 ------------------------------------------------------------------------------------------------- */

static bool set_access_check(struct assist_vcpu *vcpu, const struct assist_instruction *instruction, uint64_t flag)
{
    if (assist_memory_privilege(&vcpu->sregs) > 0 || !host_has(CPUID_7_EBX_SMAP)) {
        return assist_vcpu_raise(vcpu, ASSIST_UNDEFINED);
    }
    vcpu->regs.rflags = (vcpu->regs.rflags & ~RFLAGS_AC) | flag;
    return assist_vcpu_commit(vcpu, instruction->length);
}

static bool read_xcr0(const struct assist_vcpu *vcpu, uint64_t *value)
{
    struct kvm_xcrs xcrs = {0};

    if (kvm_ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs) < 0) {
        return false;
    }
    for (uint32_t i = 0; i < xcrs.nr_xcrs && i < KVM_MAX_XCRS; i++) {
        if (xcrs.xcrs[i].xcr == 0) {
            *value = xcrs.xcrs[i].value;
            return true;
        }
    }
    return false;
}

static bool xgetbv(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    uint32_t number = (uint32_t)vcpu->regs.rcx;
    uint64_t value;

    if ((vcpu->sregs.cr4 & ASSIST_CR4_OSXSAVE) == 0) {
        return assist_vcpu_raise(vcpu, ASSIST_UNDEFINED);
    }
    if (number > 1) {
        return assist_vcpu_protect(vcpu);
    }
    if (number == 1 || !read_xcr0(vcpu, &value)) {
        return false;
    }
    vcpu->regs.rax = value & UINT32_MAX;
    vcpu->regs.rdx = value >> 32;
    return assist_vcpu_commit(vcpu, instruction->length);
}

bool assist_group7(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    if (instruction->prefix != ASSIST_PREFIX_NONE) {
        return false;
    }
    switch (instruction->modrm) {
    case MODRM_CLAC:
        return set_access_check(vcpu, instruction, 0);
    case MODRM_STAC:
        return set_access_check(vcpu, instruction, RFLAGS_AC);
    case MODRM_XGETBV:
        return xgetbv(vcpu, instruction);
    default:
        return false;
    }
}

/* --- INVPCID ------------------------------------------------------------------------------------------------- */

static bool is_canonical(uint64_t linear)
{
    return (uint64_t)((int64_t)(linear << 16) >> 16) == linear;
}

/* descriptor: the PCID and what is reserved beside it, and the address. */
static bool is_invalid(const struct assist_vcpu *vcpu, uint64_t type, const uint64_t descriptor[2])
{
    bool has_pcid = (vcpu->sregs.cr4 & ASSIST_CR4_PCIDE) != 0;

    return (descriptor[0] & ~PCID_MASK) != 0 ||
           ((type == INVPCID_ADDRESS || type == INVPCID_CONTEXT) && !has_pcid && descriptor[0] != 0) ||
           (type == INVPCID_ADDRESS && !is_canonical(descriptor[1]));
}

/*
 * KVM has no call of that name, but one that changes CR4.PGE is what a guest does to flush everything (Intel SDM volume
 * 3A, section 4.10.4.1): KVM drops its translations for the vCPU then, and the processor's with them.
 */
static bool flush(struct assist_vcpu *vcpu)
{
    struct kvm_sregs sregs = vcpu->sregs;

    sregs.cr4 ^= ASSIST_CR4_PGE;
    return kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) == 0 && kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &vcpu->sregs) == 0;
}

static bool invalidate(struct assist_vcpu *vcpu, const struct assist_instruction *instruction, uint64_t type)
{
    const struct assist_operand operand = {.bytes = sizeof(uint64_t[2]), .access = ASSIST_READ};
    struct assist_fault fault;
    struct assist_span span;
    uint64_t descriptor[2];

    if (!assist_operand_find(vcpu, instruction, &operand, &span, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    assist_memory_load(&span, descriptor);
    if (is_invalid(vcpu, type, descriptor)) {
        return assist_vcpu_protect(vcpu);
    }
    return flush(vcpu) && assist_vcpu_commit(vcpu, instruction->length);
}

bool assist_invpcid(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    uint64_t type = assist_decode_get(&vcpu->regs, instruction->reg);

    if (instruction->prefix != ASSIST_PREFIX_66) {
        return false;
    }
    if (!instruction->has_memory || !host_has(CPUID_7_EBX_INVPCID)) {
        return assist_vcpu_raise(vcpu, ASSIST_UNDEFINED);
    }
    type = instruction->mode == ASSIST_MODE_64 ? type : type & UINT32_MAX;
    if (assist_memory_privilege(&vcpu->sregs) > 0 || type > INVPCID_LAST) {
        return assist_vcpu_protect(vcpu);
    }
    return invalidate(vcpu, instruction, type);
}

/* --- INT n --------------------------------------------------------------------------------------------------- */

static bool is_gate(uint8_t type, bool is_long)
{
    return (type & ~1u) == GATE_TYPE_32_BIT ||
           (!is_long && (type == GATE_TYPE_TASK || (type & ~1u) == GATE_TYPE_16_BIT));
}

/* false: *fault says what the gate raises. */
static bool check_gate(const struct assist_vcpu *vcpu, uint8_t vector, struct assist_fault *fault)
{
    const struct assist_memory memory = assist_vcpu_memory(vcpu);
    bool is_long = (vcpu->sregs.efer & EFER_LMA) != 0;
    uint32_t bytes = is_long ? 16 : 8, offset = vector * bytes;
    uint8_t gate[16], access;
    struct assist_span span;

    *fault = (struct assist_fault){.vector = ASSIST_PROTECTION, .error_code = vector * 8u | GATE_ERROR_IDT};
    if (offset + bytes - 1 > vcpu->sregs.idt.limit) {
        return false;
    }
    if (!assist_memory_find(&memory, vcpu->sregs.idt.base + offset, bytes, ASSIST_READ, &span, fault)) {
        return false;
    }
    assist_memory_load(&span, gate);
    access = gate[GATE_ACCESS];
    *fault = (struct assist_fault){.vector = ASSIST_PROTECTION, .error_code = vector * 8u | GATE_ERROR_IDT};
    if (!is_gate(access & 0x1f, is_long) || (access >> 5 & 3u) < assist_memory_privilege(&vcpu->sregs)) {
        return false;
    }
    fault->vector = ASSIST_NO_SEGMENT;
    return (access & GATE_PRESENT) != 0;
}

bool assist_int(struct assist_vcpu *vcpu, const struct assist_instruction *instruction)
{
    struct assist_fault fault;

    if (assist_memory_privilege(&vcpu->sregs) == 3) {
        return false;
    }
    if (!check_gate(vcpu, instruction->immediate, &fault)) {
        return assist_vcpu_fault(vcpu, &fault);
    }
    return assist_vcpu_interrupt(vcpu, instruction->length, instruction->immediate);
}
