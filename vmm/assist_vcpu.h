// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU whose instruction is being carried out for it: its registers, read once, and the two ways in which that ends:
 * the instruction is done, or it raises an exception.
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

/* Exceptions (Intel SDM volume 3A, table 6-1). */
#define ASSIST_BREAKPOINT 3u
#define ASSIST_NO_DEVICE  7u
#define ASSIST_FPU_ERROR  16u

#define ASSIST_CR0_MP (UINT64_C(1) << 1)
#define ASSIST_CR0_EM (UINT64_C(1) << 2)
#define ASSIST_CR0_TS (UINT64_C(1) << 3)
#define ASSIST_CR0_NE (UINT64_C(1) << 5)

/* The arithmetic flags: CF, PF, AF, ZF, SF and OF. */
#define ASSIST_RFLAGS_ARITHMETIC UINT64_C(0x8d5)

/* Of struct kvm_xsave: the image of XSAVE in its standard form. */
#define ASSIST_VCPU_XSAVE_BYTES 4096

struct assist_vcpu {
    int fd;
    const struct loam_gpa_view *view; /* the caller's */
    struct kvm_regs regs;             /* as they were; an assist changes them before it commits */
    struct kvm_sregs sregs;
    struct kvm_vcpu_events events;
    _Alignas(8) uint8_t xsave[ASSIST_VCPU_XSAVE_BYTES]; /* after assist_vcpu_read_fpu */
};

/*
 * Read the registers of fd. false: KVM refuses; or the vCPU is where nothing is assisted: in 16-bit code, in real or
 * virtual-8086 mode, single-stepped by its own trap flag, or with an exception already on its way.
 */
bool assist_vcpu_read(struct assist_vcpu *vcpu, int fd, const struct loam_gpa_view *view);

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

/*
 * The instruction is done: write the registers back with RIP length bytes on, and end what lasts for one instruction.
 * The guest's breakpoint registers do not see it. false: KVM refuses, and nothing has changed.
 */
bool assist_vcpu_commit(struct assist_vcpu *vcpu, uint8_t length);

/* The instruction raises an exception without error code; RIP and registers stay. false: KVM refuses, nothing has
 * changed. */
bool assist_vcpu_raise(struct assist_vcpu *vcpu, uint8_t vector);

#endif
