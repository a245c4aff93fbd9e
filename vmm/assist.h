// SPDX-License-Identifier: Apache-2.0
/*
 * Assist: instructions that KVM's emulator gives up on, and that a few lines carry out.
 *
 * A processor with VT-x or AMD-V runs them itself; a KVM without either emulates every instruction and lacks some that
 * guests meet early. What is not listed here stays what it is: a guest that cannot go on.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_H
#define LOAM_VMM_ASSIST_H

#include "vmm/kvm.h"

#include <stdbool.h>

/*
 * Carry out the instruction at which run, the last exit of vcpu_fd, stopped: FWAIT or INT3. Returns whether that is done
 * and the guest can go on; if not, nothing has changed.
 */
bool assist_instruction(int vcpu_fd, const struct kvm_run *run);

#endif
