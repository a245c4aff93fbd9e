// SPDX-License-Identifier: Apache-2.0
/*
 * KVM as a device: opened, its version and capabilities asked for, and one place through which its ioctls go.
 *
 * Nothing is assumed of the host: what this VMM needs is asked for at the start, and what is missing is reported in one
 * line that names it. Constants newer than the headers of Debian 12 (Linux 6.1) are defined here.
 *
 * Threads: a struct kvm is constant from kvm_open to kvm_close, so any thread may read it. The caller owns it and every
 * descriptor made with it.
 */
#ifndef LOAM_VMM_KVM_H
#define LOAM_VMM_KVM_H

#include "loam/error.h"

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KVM_DEVICE "/dev/kvm"

/* Linux 6.8. */
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39
#endif
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#endif
#define KVM_MEMORY_FAULT_PRIVATE (UINT64_C(1) << 3) /* KVM_MEMORY_EXIT_FLAG_PRIVATE */

/* What lies in the union of struct kvm_run with KVM_EXIT_MEMORY_FAULT (KVM API, section 5). */
struct kvm_memory_fault {
    uint64_t flags;
    uint64_t gpa;
    uint64_t size;
};

/* run_bytes >= sizeof(struct kvm_run) */
struct kvm {
    int fd;
    uint32_t slot_limit;     /* memory slots of one VM */
    uint32_t vcpu_limit;     /* vCPUs of one machine; more than the host has processors share them */
    size_t run_bytes;        /* of a vCPU's shared mapping */
    uint32_t xsave_bytes;    /* of a vCPU's XSAVE state, at least sizeof(struct kvm_xsave) */
    bool has_memory_fault;   /* KVM_RUN's EFAULT may come with KVM_EXIT_MEMORY_FAULT */
    bool has_deadline_timer; /* the in-kernel local APIC has a TSC deadline timer */
};

/*
 * Open device (KVM_DEVICE; tests name others) and ask for every capability that is needed. *kvm has fd -1 on failure.
 * LOAM_ERROR_NOT_FOUND: no such device, another API version, or a capability is missing. LOAM_ERROR_NOT_PERMITTED: no
 * right to it. LOAM_ERROR_SYSTEM: a call failed, also because device is something else.
 */
LOAM_MUST_USE enum loam_error kvm_open(const char *device, struct kvm *kvm, struct loam_diag *diag);

/* The VMs made with it live on. No effect on one that is closed. */
void kvm_close(struct kvm *kvm);

/* A new VM, close-on-exec; *vm_fd is -1 on failure. LOAM_ERROR_SYSTEM, LOAM_ERROR_NOT_PERMITTED. */
LOAM_MUST_USE enum loam_error kvm_create_vm(const struct kvm *kvm, int *vm_fd, struct loam_diag *diag);

/*
 * Whether the processor shows neither VT-x nor SVM: then a KVM that is there has no hardware to run guests on, and emulates
 * their instructions one by one. (Intel SDM volume 2A, CPUID, leaf 1; AMD manual volume 3, Fn8000_0001.)
 */
bool kvm_emulates(void);

/* ioctl(2), once more when a signal interrupted it: not for KVM_RUN. -1 with errno set on failure. */
int kvm_ioctl(int fd, unsigned long request, void *argument);

/* The same for requests whose argument is a number, or the address of what KVM only reads. */
int kvm_ioctl_number(int fd, unsigned long request, unsigned long argument);

#endif
