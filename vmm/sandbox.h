// SPDX-License-Identifier: Apache-2.0
/*
 * The sandbox: a process gives up, for good, what it does not need while its guest runs. Whoever takes it over from inside the
 * guest has a guest's memory and the descriptors that are open, and no more.
 *
 *     no_new_privs   no program that it could start would have more rights
 *     seccomp        a filter of system calls for all threads, and a narrower one besides for those of vCPUs; a call without a
 *                    row in sandbox_table.c ends the process by SIGSYS
 *     Landlock       of files, what is below /proc and /sys can be read; nothing else opened, made or removed; no TCP; no
 *                    signals to other processes, where the kernel has as much. It holds threads that begin later, and the
 *                    caller's; those that began before are held by the filter alone.
 *
 * References: seccomp(2), landlock(7); Linux, Documentation/userspace-api/landlock.rst.
 */
#ifndef LOAM_VMM_SANDBOX_H
#define LOAM_VMM_SANDBOX_H

#include "loam/error.h"

#include <stdbool.h>
#include <stddef.h>

/* What is left beside what every run needs; is_domain stands alone. */
struct sandbox_needs {
    bool makes_machines; /* machines, and memory for them, again: /dev/kvm can be opened */
    bool has_debugger;   /* one comes to a socket that listens already */
    bool
        is_controlled; /* others tell it what to do with its guest, which may want machines, and memory for them, again */
    bool is_domain;    /* a libvirt domain: the same as for machines, disks, and who comes to QMP and the console */
    bool has_network;         /* of a domain: its guest's connections become sockets of this process, to anywhere */
    const char *const *paths; /* files and sockets to be removed at the end: those of their folders can be */
    size_t path_count;
};

/*
 * From now on, for this thread, for all that there are, and for all that they start.
 *
 * Once a process. LOAM_ERROR_NOT_FOUND: the kernel has no filters. LOAM_ERROR_SYSTEM: a call failed, and some of it may hold
 * already. Not at the same time from two threads.
 */
LOAM_MUST_USE enum loam_error sandbox_enter(const struct sandbox_needs *needs, struct loam_diag *diag);

/* After that, for this thread alone, which runs a vCPU and nothing else. Errors as above. */
LOAM_MUST_USE enum loam_error sandbox_enter_vcpu(struct loam_diag *diag);

#endif
