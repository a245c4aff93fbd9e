// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU whose instruction is being carried out for it: its registers, read once, and the ways in which that ends: the
 * instruction is done, it raises an exception, or it is an interrupt itself.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_VCPU_H
#define LOAM_VMM_ASSIST_VCPU_H

#include "loam/gpa_map.h"
#include "vmm/assist_decode.h"
#include "vmm/assist_memory.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stdint.h>

#define ASSIST_CR0_MP (UINT64_C(1) << 1)
#define ASSIST_CR0_EM (UINT64_C(1) << 2)
#define ASSIST_CR0_TS (UINT64_C(1) << 3)
#define ASSIST_CR0_NE (UINT64_C(1) << 5)

#define ASSIST_CR4_PGE        (UINT64_C(1) << 7)
#define ASSIST_CR4_OSFXSR     (UINT64_C(1) << 9)
#define ASSIST_CR4_OSXMMEXCPT (UINT64_C(1) << 10)
#define ASSIST_CR4_PCIDE      (UINT64_C(1) << 17)
#define ASSIST_CR4_OSXSAVE    (UINT64_C(1) << 18)

/* The arithmetic flags: CF, PF, AF, ZF, SF and OF. */
#define ASSIST_RFLAGS_ARITHMETIC UINT64_C(0x8d5)

/* Of struct kvm_xsave: the image of XSAVE in its standard form. */
#define ASSIST_VCPU_XSAVE_BYTES 4096

/* registers by number, each with its lowest byte first */
struct assist_sse {
    _Alignas(16) uint8_t registers[16][16];
    uint32_t mxcsr;
};

struct assist_vcpu {
    int fd;
    const struct loam_gpa_view *view; /* the caller's */
    struct loam_dirty *dirty;         /* the caller's; as in struct assist_memory */
    struct kvm_regs regs;             /* as they were; an assist changes them before it commits */
    struct kvm_sregs sregs;
    struct kvm_vcpu_events events;
    _Alignas(8) uint8_t xsave[ASSIST_VCPU_XSAVE_BYTES]; /* after assist_vcpu_read_fpu or _sse */
};

/*
 * Read the registers of fd. false: KVM refuses; or the vCPU is where nothing is assisted: in 16-bit code, in real or
 * virtual-8086 mode, single-stepped by its own trap flag, or with an exception already on its way.
 */
bool assist_vcpu_read(struct assist_vcpu *vcpu, int fd, const struct loam_gpa_view *view, struct loam_dirty *dirty);

enum assist_mode assist_vcpu_mode(const struct assist_vcpu *vcpu);

/* For assist_memory; holds as long as vcpu. */
struct assist_memory assist_vcpu_memory(const struct assist_vcpu *vcpu);

/*
 * The FPU's state. Not by KVM_GET_FPU and KVM_SET_FPU: they read and write an image whose x87 part counts for nothing
 * while the FPU is in its initial state, so that after FNINIT the old state is read, and what is written is lost.
 * false: KVM refuses.
 */
bool assist_vcpu_read_fpu(struct assist_vcpu *vcpu, struct kvm_fpu *fpu);

/* The x87 part of *fpu becomes the vCPU's; after assist_vcpu_read_fpu. */
bool assist_vcpu_write_fpu(struct assist_vcpu *vcpu, const struct kvm_fpu *fpu);

/* The same of the registers of SSE and of MXCSR. */
bool assist_vcpu_read_sse(struct assist_vcpu *vcpu, struct assist_sse *sse);
bool assist_vcpu_write_sse(struct assist_vcpu *vcpu, const struct assist_sse *sse);

/*
 * The exception that any instruction on these registers raises first of all: ASSIST_UNDEFINED, ASSIST_NO_DEVICE, or 0:
 * none. Pure.
 */
uint8_t assist_vcpu_lacks_sse(const struct assist_vcpu *vcpu);

/*
 * The instruction is done: write the registers back with RIP length bytes on, and end what lasts for one instruction.
 * The guest's breakpoint registers do not see it. false: KVM refuses, and nothing has changed.
 */
bool assist_vcpu_commit(struct assist_vcpu *vcpu, uint8_t length);

/*
 * The instruction raises an exception without error code; RIP and registers stay, and the handler finds RF set, unless
 * it is ASSIST_BREAKPOINT, a trap. false: KVM refuses, and nothing has changed but RF.
 */
bool assist_vcpu_raise(struct assist_vcpu *vcpu, uint8_t vector);

/* The same with an error code, and of a page fault with CR2. false also if it is no fault, but a refusal. */
bool assist_vcpu_fault(struct assist_vcpu *vcpu, const struct assist_fault *fault);

/* #GP with an error code of 0. */
bool assist_vcpu_protect(struct assist_vcpu *vcpu);

/*
 * The instruction, of length bytes, is INT: go on at the gate of vector as a software interrupt. false: KVM refuses, or
 * another interrupt is on its way; nothing has changed unless RIP has.
 */
bool assist_vcpu_interrupt(struct assist_vcpu *vcpu, uint8_t length, uint8_t vector);

#endif
