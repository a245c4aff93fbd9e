// SPDX-License-Identifier: Apache-2.0
/*
 * The PIT (Intel 8254) and the port beside it that gates its third channel, as KVM has them in the kernel: made when
 * the guest first touches one of its ports.
 *
 * Why not before: the destruction of a VM that has one waits for several grace periods of the kernel, 16 ms on
 * Linux 6.18 where all else takes less than 1 ms, and most guests that only live for milliseconds never look at a PIT.
 * The first access, which came here, is carried out on the new PIT through its state; from then on KVM answers the
 * ports itself.
 *
 * While no vCPU runs, a PIT that ticks would gather the ticks, and KVM deliver them one upon the other afterwards: held, it
 * has a period begin anew instead. One that counts down once goes on, and its interrupt, if it comes, waits for the guest.
 *
 * Threads: the access functions come from the bus, one at a time; pit_hold and pit_go_on from one that no vCPU runs beside.
 */
#ifndef LOAM_VMM_PIT_H
#define LOAM_VMM_PIT_H

#include "loam/error.h"
#include "vmm/bus.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stdint.h>

#define PIT_PORT         0x40u /* counters 0 to 2, and the control word */
#define PIT_BYTES        4u
#define PIT_SPEAKER_PORT 0x61u /* system control port B */

/* KVM cannot make the PIT, or take its state: diag says why. From within an access. */
typedef void pit_failed_fn(void *self, const struct loam_diag *diag);

struct pit {
    int vm_fd; /* the caller's; the VM has an irqchip */
    bool is_made;
    pit_failed_fn *failed;
    void *self;
    bool is_held;
    struct kvm_pit_state2 held; /* with is_held */
    int64_t held_nanoseconds;   /* of CLOCK_MONOTONIC, by which KVM counts */
};

/* Nothing is made yet; there is nothing to destroy: the PIT goes with its VM. */
void pit_init(struct pit *pit, int vm_fd, pit_failed_fn *failed, void *self);

/* bus_access_fn for PIT_BYTES ports from PIT_PORT, and for the one at PIT_SPEAKER_PORT. */
void pit_access(void *pit, struct bus_access *access);
void pit_speaker_access(void *pit, struct bus_access *access);

/* Have it stand still, if it ticks, and go on; what KVM refuses is left as it is. No effect without a PIT. */
void pit_hold(struct pit *pit);
void pit_go_on(struct pit *pit);

/*
 * What a byte written to a port of the PIT (offset 0 to 3) does to a state in which nothing counts yet: a control word
 * prepares its channel, a count is loaded. Pure.
 */
void pit_apply(struct kvm_pit_state2 *state, uint64_t offset, uint8_t value);

#endif
