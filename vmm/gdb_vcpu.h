// SPDX-License-Identifier: Apache-2.0
/*
 * A vCPU as a debugger asks and changes it, and what KVM_SET_GUEST_DEBUG does on this host.
 *
 * A KVM that emulates every instruction says that it has all of it, and yet keeps no watchpoints and gives up on INT3: so it is
 * tried (gdb_vcpu_try), on a VM of one page.
 *
 * Source: KVM API (Linux: Documentation/virt/kvm/api.rst), sections 4.65, 4.87 and 5. Threads: a vCPU does not run meanwhile, but for
 * gdb_vcpu_pass, which is its own thread's.
 */
#ifndef LOAM_VMM_GDB_VCPU_H
#define LOAM_VMM_GDB_VCPU_H

#include "loam/error.h"
#include "loam/types.h"
#include "vmm/gdb_points.h"
#include "vmm/gdb_registers.h"
#include "vmm/kvm.h"

#include <stdbool.h>
#include <stdint.h>

/* What stops a vCPU here. */
struct gdb_abilities {
    bool has_step;
    bool has_software; /* INT3: KVM exits for it, or gives up on it, which the caller sees (VCPU_STOP_INT3) */
    bool has_execute;
    bool has_watch;
    bool has_quiet_step; /* no interrupt is taken in the middle of a step */
};

/*
 * Find out. What cannot be had is false, also where KVM cannot make a VM. LOAM_ERROR_NOT_FOUND, LOAM_ERROR_NOT_PERMITTED,
 * LOAM_ERROR_SYSTEM: as kvm_open.
 */
LOAM_MUST_USE enum loam_error gdb_vcpu_try(struct gdb_abilities *abilities, struct loam_diag *diag);

/* false: KVM refuses. */
bool gdb_vcpu_read(int fd, struct gdb_registers *registers);

/* Write what differs from before, which gdb_vcpu_read gave. false: KVM refuses; what came before it is written. */
bool gdb_vcpu_write(int fd, const struct gdb_registers *before, const struct gdb_registers *registers);

/* By the vCPU's own page tables; as it is without paging. Segments' bases are not added. false: nothing is mapped there. */
bool gdb_vcpu_translate(int fd, uint64_t linear, loam_gpa *gpa);

/* Have KVM stop at points, and after one instruction if is_stepping. After registers were written. false: KVM refuses. */
bool gdb_vcpu_arm(int fd, const struct gdb_points *points, bool is_stepping, const struct gdb_abilities *abilities);

/* Nothing of that any more. */
void gdb_vcpu_disarm(int fd);

/*
 * What KVM stopped for in run (KVM_EXIT_DEBUG) was the guest's own: an exception that it gets when it goes on, armed as before.
 * false: KVM refuses.
 */
bool gdb_vcpu_pass(int fd, const struct kvm_run *run, const struct gdb_points *points, bool is_stepping,
                   const struct gdb_abilities *abilities);

#endif
