// SPDX-License-Identifier: Apache-2.0
/*
 * Rest: whether a guest can never go on, whatever happens outside of it.
 *
 * A vCPU that has executed HLT with interrupts off takes an NMI, an INIT or an SMI, and one that was never started an INIT
 * and a SIPI. Those come from a vCPU that runs, by an interprocessor interrupt; from the interrupt controllers, where the
 * guest has asked that a line or a counter be delivered so; and from nobody else, for no device here raises any. So a guest
 * rests for good if every vCPU is in one of those two states with nothing pending, and no controller is set so.
 *
 * The answer holds for the moment at which it is asked, and for ever after, if no vCPU is in KVM_RUN: then none sends
 * anything, all that has been sent stands in some vCPU's state (KVM looks at what is under way before it tells that state),
 * and none will run again unless it is entered and found awake. Devices may raise lines meanwhile, which wake nobody here.
 * Where KVM does not tell something, the answer is no.
 *
 * References: Intel SDM volume 3A, sections 6.8.1 (masking), 9.4 (INIT and SIPI) and 11.5.1 (local vector table);
 * KVM API, sections 4.31 (KVM_GET_VCPU_EVENTS) and 4.38 (KVM_GET_MP_STATE).
 *
 * Threads: whoever keeps all of the VM's vCPUs out of KVM_RUN.
 */
#ifndef LOAM_VMM_REST_H
#define LOAM_VMM_REST_H

#include "vmm/vcpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rest {
    uint32_t halted_count;
    uint32_t unstarted_count;
    uint32_t vcpu; /* the first that is halted, 0 if none is; and its next instruction: */
    uint64_t rip;
};

/* Whether the count vCPUs 1 or more, of a VM whose lines send nothing but interrupts (irqchip_is_quiet), rest for good; *rest is zero if not. */
bool rest_is_for_good(const struct vcpu *vcpus, uint32_t count, struct rest *rest);

/* "is halted for good: ..." of a guest that does. As snprintf. */
void rest_describe(const struct rest *rest, char *text, size_t bytes);

#endif
