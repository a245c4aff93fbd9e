// SPDX-License-Identifier: Apache-2.0
/*
 * Assist: instructions that KVM's emulator gives up on, and that are carried out here: FWAIT, INT3, INT n and x87; SSE and
 * SSE2 but for MMX registers and MASKMOVDQU; LDMXCSR, STMXCSR, POPCNT, CMPXCHG16B, CLAC, STAC, XGETBV and INVPCID.
 *
 * A processor with VT-x or AMD-V runs them itself; a KVM without either emulates every instruction and lacks some that
 * guests meet early. Exceptions that they raise are raised in the guest. What is not listed here, or cannot be done
 * exactly, stays what it is: a guest that cannot go on.
 *
 * A store reaches the guest's memory behind KVM's back. Where KVM shadows the guest's page tables, it does not notice that
 * an entry of theirs is changed by one of these instructions: no kernel is known to write its page tables by them.
 *
 * Threads: the vCPU's own, after KVM_RUN has returned.
 */
#ifndef LOAM_VMM_ASSIST_H
#define LOAM_VMM_ASSIST_H

#include "loam/dirty.h"
#include "loam/gpa_map.h"
#include "vmm/kvm.h"

#include <stdbool.h>

/*
 * Carry out the instruction at which run, the last exit of vcpu_fd, stopped. map says where its operand lies; pages that
 * are written, which KVM's dirty log does not see, are marked in dirty (NULL: nobody wants to know). Returns whether that
 * is done and the guest can go on; if not, nothing has changed (but for accessed and dirty bits of the guest's page
 * tables, and what the parts name).
 */
bool assist_instruction(int vcpu_fd, const struct kvm_run *run, struct loam_gpa_map *map, struct loam_dirty *dirty);

#endif
