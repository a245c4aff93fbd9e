// SPDX-License-Identifier: Apache-2.0
/*
 * The clocks that a guest reads, made to stand still while its vCPUs do.
 *
 * What stands still: the clock behind kvmclock, which KVM_GET_CLOCK reads and KVM_SET_CLOCK sets; and the TSC of each vCPU,
 * where KVM says what the host's TSC was (Linux 5.16, and a host whose clock is the TSC) and can shift a vCPU's by an
 * offset. Where it cannot, the guest sees its TSC leap ahead. All TSCs are shifted by the same number, so that they stay
 * as far from each other as they were.
 *
 * What does not: the timer of a local APIC, which goes on in KVM. If it comes due meanwhile, its interrupt waits for the
 * guest, one at most, and is early by the time for which the guest stood. A driver of Linux then sees that nothing is due,
 * and sets the timer anew. The PIT is pit.h's.
 *
 * A guest that has kvmclock is told that it was stopped (KVM_KVMCLOCK_CTRL), lest it take that for a lockup.
 *
 * What KVM refuses is left as it is: clocks that go on are no reason to break a guest.
 *
 * Threads: one; no vCPU of the VM runs from guest_clock_hold to the last guest_clock_go_on_vcpu.
 */
#ifndef LOAM_VMM_GUEST_CLOCK_H
#define LOAM_VMM_GUEST_CLOCK_H

#include "loam/error.h"
#include "vmm/state.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

/* Starts as {0}. */
struct guest_clock {
    bool is_held;
    struct kvm_clock_data held; /* with is_held */
    uint64_t held_realtime;     /* likewise: nanoseconds since 1970 */
    uint64_t tsc_shift;         /* from guest_clock_go_on on: what vCPUs' TSCs are to lose; 0: not known */
};

/* Note what the clocks of the VM say. */
void guest_clock_hold(struct guest_clock *clock, int vm_fd);

/* They say it again, from now on: the VM's clock here, then that of each vCPU. No effect on what is not held. */
void guest_clock_go_on(struct guest_clock *clock, int vm_fd);
void guest_clock_go_on_vcpu(const struct guest_clock *clock, int vcpu_fd);

/* How far the host's TSC has gone since the clocks were held; 0: not known. */
uint64_t guest_clock_elapsed(const struct guest_clock *clock, int vm_fd);

/* What a guest finds of the time for which it was not there. */
enum guest_clock_jump {
    GUEST_CLOCK_GOES_ON, /* nothing: its clocks say what they said */
    GUEST_CLOCK_JUMPS,   /* all of it, as the hosts' own clocks have it */
};

/* Where clocks stand that were written down elsewhere. */
struct guest_clock_base {
    uint64_t host_tsc;         /* at which TSCs are what they were, and jump; 0: not known, and they go on from now */
    uint64_t jump_nanoseconds; /* how far all clocks leap */
};

/* Written down while they are held; and held as they were written down: state.h. */
void guest_clock_save(const struct guest_clock *clock, struct state_writer *writer);
LOAM_MUST_USE enum loam_error guest_clock_load(struct guest_clock *clock, int vm_fd, enum guest_clock_jump jump,
                                               struct state_reader *reader, struct guest_clock_base *base,
                                               struct loam_diag *diag);

#endif
