// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU that is played: ioctl(2) stands before the C library's, answers what is asked of a vCPU's state from `played`,
 * and writes back to it. For one thread, and for tests that ask KVM itself nothing.
 */
#ifndef LOAM_TESTS_VMM_VCPU_PLAYED_H
#define LOAM_TESTS_VMM_VCPU_PLAYED_H

#include <linux/kvm.h>
#include <stdint.h>

#define VCPU_PLAYED_FD 1000

struct vcpu_played {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_vcpu_events events;
    struct kvm_xcrs xcrs;
    uint32_t sregs_writes, xsave_writes;
    uint64_t cr4_before;    /* as it was when KVM_SET_SREGS last changed it */
    unsigned long failing;  /* this request fails, and changes nothing; 0: none */
    uint32_t write_count;   /* requests that changed something */
    struct kvm_xsave xsave; /* last, since it is of variable size */
};

extern struct vcpu_played played;

#endif
