// SPDX-License-Identifier: Apache-2.0
/*
 * Whether this host's KVM can page outside long mode: ask it, with a VM of a few instructions that turns 32-bit paging on.
 * One that emulates every instruction may be without, and a guest that does so ends there in a triple fault.
 *
 * Costs about what a launch does. Threads: any.
 */
#ifndef LOAM_VMM_KVM_PAGING_H
#define LOAM_VMM_KVM_PAGING_H

#include "loam/error.h"

#include <stdbool.h>

/* Errors are those of kvm_open; LOAM_ERROR_SYSTEM: a call failed. *is_able is false then. */
LOAM_MUST_USE enum loam_error kvm_paging_ask(bool *is_able, struct loam_diag *diag);

#endif
