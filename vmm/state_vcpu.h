// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU written down, and made again: all that KVM keeps of it that a guest can tell (KVM API, sections 4.3 to 4.5, 4.11 to 4.13,
 * 4.31, 4.38, 4.42, 4.44, 4.57, 4.58, 4.134).
 *
 * It stands between two instructions meanwhile, where KVM has nothing left to complete: paused, or just made.
 *
 * Threads: one, while none runs it.
 */
#ifndef LOAM_VMM_STATE_VCPU_H
#define LOAM_VMM_STATE_VCPU_H

#include "loam/error.h"
#include "vmm/guest_clock.h"
#include "vmm/kvm.h"
#include "vmm/state.h"
#include "vmm/vcpu.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Record vcpu N of vCPU N. tsc_shift: how far the host's TSC has gone since the guest's clocks were
 * held (guest_clock_elapsed). LOAM_ERROR_SYSTEM: KVM refuses a part, or there is no memory.
 */
LOAM_MUST_USE enum loam_error state_vcpu_save(const struct kvm *kvm, const struct vcpu *vcpu, bool has_apic,
                                              uint64_t tsc_shift, struct state_writer *writer, struct loam_diag *diag);

/* What cpuid said there, for vcpu_create. Errors of the record. */
LOAM_MUST_USE enum loam_error state_vcpu_cpuid(struct state_reader *reader, uint32_t index, struct vcpu_cpuid *cpuid,
                                               struct loam_diag *diag);

/*
 * Whether this host can say it too. LOAM_ERROR_NOT_FOUND: its KVM, or its processor, lacks what the guest was told of, which
 * diag names. Errors of the record otherwise.
 */
LOAM_MUST_USE enum loam_error state_vcpu_check(const struct kvm *kvm, struct state_reader *reader, uint32_t index,
                                               struct loam_diag *diag);

/*
 * The vCPU is what the record says; it was made with the cpuid above. base: where its TSC is to stand. LOAM_ERROR_INVALID, LOAM_ERROR_SYSTEM: KVM refuses a part, which diag names.
 */
LOAM_MUST_USE enum loam_error state_vcpu_load(const struct kvm *kvm, const struct vcpu *vcpu, bool has_apic,
                                              const struct guest_clock_base *base, struct state_reader *reader,
                                              struct loam_diag *diag);

#endif
