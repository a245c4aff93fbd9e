// SPDX-License-Identifier: Apache-2.0
/*
 * A virtual processor: its creation, the state in which it starts, and its run from one exit to the next.
 *
 * vcpu_run enters the guest once and carries out what it came back for: accesses to ports and device memory go to the
 * bus. A caller that wants the vCPU back calls vcpu_request_exit and sends its thread a signal that has a handler
 * without SA_RESTART: the request ends the KVM_RUN that comes next, the signal the one that has begun, so that none
 * is lost between the two.
 *
 * Threads: one thread has the vCPU at a time; vcpu_request_exit from any, while the vCPU exists.
 */
#ifndef LOAM_VMM_VCPU_H
#define LOAM_VMM_VCPU_H

#include "loam/dirty.h"
#include "loam/error.h"
#include "loam/gpa_map.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/kvm.h"
#include "vmm/lost_memory.h"
#include "vmm/trace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* As many as KVM takes (KVM_MAX_CPUID_ENTRIES). */
#define VCPU_CPUID_MAX 256u

/* struct kvm_cpuid2 with room for its entries. */
struct vcpu_cpuid {
    uint32_t count;
    uint32_t padding;
    struct kvm_cpuid_entry2 entries[VCPU_CPUID_MAX];
};

/* What has come of one entry into the guest. */
enum vcpu_event {
    VCPU_RAN,              /* whatever the exit asked for is done: go on */
    VCPU_INTERRUPTED,      /* by a signal or a request: it stands between two instructions; see who wants what */
    VCPU_END_OF_INTERRUPT, /* of a level that was sent to a local APIC: run->eoi.vector */
    VCPU_RESET,            /* the guest asked for a reset */
    VCPU_HALTED,           /* HLT in a VM without interrupt controllers: nothing can end it */
    VCPU_SHUTDOWN,         /* triple fault, or the guest asked for a shutdown */
    VCPU_DEBUG,            /* a debugger's: stop says what; nothing is carried out */
    VCPU_LOST_MEMORY,      /* the host does not supply RAM that the guest touched: lost says which, if it is known */
    VCPU_BROKEN,           /* KVM cannot go on, or says what this VMM does not know: vcpu_describe */
    VCPU_EVENT_COUNT
};

/* What a debugger is to look at. */
enum vcpu_stop {
    VCPU_STOP_EXIT, /* KVM_EXIT_DEBUG: run->debug */
    VCPU_STOP_INT3, /* an INT3 at RIP, with which KVM's emulator does nothing */
    VCPU_STOP_STEP, /* one instruction is done, of which KVM did not tell */
};

/* run points to run_bytes bytes that are shared with KVM; NULL before creation. */
struct vcpu {
    int fd;
    uint32_t index; /* and APIC id */
    struct kvm_run *run;
    struct vcpu_cpuid *cpuid; /* heap: what it was made with, and no room beyond */
    size_t run_bytes;
    bool has_memory_fault;    /* as struct kvm */
    int run_errno;            /* of the last KVM_RUN: 0 if it returned an exit */
    uint32_t stalls;          /* KVM_RUN failed so often with EAGAIN, without an exit between */
    struct lost_memory lost;  /* after VCPU_LOST_MEMORY */
    uint64_t exit_count;      /* that reached this VMM */
    struct loam_dirty *dirty; /* the caller's, set after vcpu_create: marked where assist.h writes; NULL: nowhere */

    /* Set by vcpu_set_trace and vcpu_set_debug; read by vcpu_run. */
    bool is_observed; /* there is a trace, or a debugger */
    struct trace_lane *trace;
    int trace_stop_fd;
    bool is_debugged;
    bool is_stepping;
    bool has_half_step; /* the last exit's instruction is done but for what KVM_RUN completes */

    enum vcpu_stop stop; /* after VCPU_DEBUG */

    /* The caller's. */
    bool is_held;         /* a debugger does not let it go on */
    enum vcpu_event left; /* what is to come of it once it does; VCPU_RAN: nothing */
};

/* --- What the guest's cpuid says -------------------------------------------------------------------------------- */

/* What KVM can give any guest. LOAM_ERROR_SYSTEM. */
LOAM_MUST_USE enum loam_error vcpu_cpuid_supported(const struct kvm *kvm, struct vcpu_cpuid *cpuid,
                                                   struct loam_diag *diag);

/*
 * Make of it what vCPU index of count sees: its APIC id, the hypervisor bit, and a topology of one socket with count
 * cores of one thread. has_deadline_timer: as struct kvm. Pure; may be applied again, for another vCPU.
 */
void vcpu_cpuid_adapt(struct vcpu_cpuid *cpuid, uint32_t index, uint32_t count, bool has_deadline_timer);

/* --- Lifecycle -------------------------------------------------------------------------------------------------- */

/*
 * Add vCPU index to the VM. Interrupt controllers in the kernel are there already: vCPU 0 is runnable then, the others
 * wait for INIT and SIPI. In a VM without them there is vCPU 0 only. On failure *vcpu is as vcpu_destroy leaves it.
 * LOAM_ERROR_SYSTEM.
 */
LOAM_MUST_USE enum loam_error vcpu_create(const struct kvm *kvm, int vm_fd, uint32_t index,
                                          const struct vcpu_cpuid *cpuid, struct vcpu *vcpu, struct loam_diag *diag);

/* No thread runs it any more. No effect on one that is destroyed; a struct filled with zeros is not one. */
void vcpu_destroy(struct vcpu *vcpu);

/*
 * The registers with which a boot protocol starts. Pure. sregs is KVM's own state after creation, of which the local
 * APIC's base stays.
 */
void vcpu_boot_regs(const struct boot_state *boot, struct kvm_regs *regs);
void vcpu_boot_sregs(const struct boot_state *boot, struct kvm_sregs *sregs);

/*
 * Bring the first vCPU into the state in which boot starts. has_apic: the VM's interrupt controllers are in the kernel,
 * and this vCPU's local APIC is wired to them. LOAM_ERROR_SYSTEM: KVM refused it.
 */
LOAM_MUST_USE enum loam_error vcpu_boot(struct vcpu *vcpu, const struct boot_state *boot, bool has_apic,
                                        struct loam_diag *diag);

/* --- Who looks on -------------------------------------------------------------------------------------------------- */

/*
 * Each exit is told to lane, which outlives the vCPU (NULL: to nobody); stop_fd is readable when its writer is not to be waited
 * for. The vCPU does not run.
 */
void vcpu_set_trace(struct vcpu *vcpu, struct trace_lane *lane, int stop_fd);

/*
 * There is a debugger, who has told KVM as much (KVM_SET_GUEST_DEBUG): INT3s are shown to it, and with is_stepping every
 * instruction that is done. The vCPU does not run.
 */
void vcpu_set_debug(struct vcpu *vcpu, bool is_debugged, bool is_stepping);

/* --- Running ---------------------------------------------------------------------------------------------------- */

/*
 * Enter the guest once, and carry out on bus what its exit asks for, or in the memory of map what KVM's emulator lacks
 * (assist.h).
 */
enum vcpu_event vcpu_run(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map);

/*
 * VCPU_DEBUG was not for the debugger: an INT3 that KVM gave up on is carried out as without one. (What else KVM stopped for is
 * given to the guest by KVM_SET_GUEST_DEBUG.)
 */
enum vcpu_event vcpu_pass_debug(struct vcpu *vcpu, struct bus *bus, struct loam_gpa_map *map);

/*
 * Carry out what run, the last exit, asks for. The part of vcpu_run that meets no KVM: pure but for bus and for the
 * data of run that a read fills in. A device access is one only where map has no memory for it, or memory that may not be
 * written; else *lost says what was touched.
 */
enum vcpu_event vcpu_dispatch(struct kvm_run *run, size_t run_bytes, struct bus *bus, struct loam_gpa_map *map,
                              struct lost_memory *lost);

/* KVM_RUN may fail with EAGAIN so often in a row before the run is broken, once in VCPU_STALL_MILLISECONDS. */
#define VCPU_STALL_MAX          100u
#define VCPU_STALL_MILLISECONDS 10

/*
 * From now on vcpu_run does not enter the guest: it carries out what the last exit has left to do, a part of it at a time,
 * and then returns VCPU_INTERRUPTED. Any thread.
 */
void vcpu_request_exit(struct vcpu *vcpu);

/* No more of that. Any thread; who requests and who withdraws do not do so at the same time. */
void vcpu_withdraw_exit(struct vcpu *vcpu);

/*
 * Of a vCPU that came to a bad end: whether an address that it worked with, such as its instruction's, its stack's, or
 * one in a register, lies in RAM that the host does not supply. Its own thread.
 */
bool vcpu_find_lost(const struct vcpu *vcpu, const struct loam_gpa_view *view, struct lost_memory *lost);

/* What the last exit means, in several lines; as decode_exit. map says where the code lies. */
size_t vcpu_describe(const struct vcpu *vcpu, struct loam_gpa_map *map, char *text, size_t bytes);

#endif
