// SPDX-License-Identifier: Apache-2.0
/*
 * A guest from what it shall have to a machine that can be started, step by step, and back again:
 *
 *     launch_ask_kvm -> launch_measure -> launch_plan -> launch_read
 *                    -> launch_make_memory -> launch_load -> launch_make_machine -> machine_start .. machine_wait
 *                    -> launch_end_life  [-> launch_make_memory ... : another life, of whose former nothing is left]
 *                    -> launch_release
 *
 * Each step says in its diag what is wrong, and leaves the launch fit for launch_release. Without a kernel it is the
 * embedded self-test that is launched, with the host's half of it (attest.h).
 *
 * Threads: a launch belongs to one at a time.
 */
#ifndef LOAM_VMM_LAUNCH_H
#define LOAM_VMM_LAUNCH_H

#include "loam/error.h"
#include "loam/memory.h"
#include "loam/plan.h"
#include "vmm/attest.h"
#include "vmm/boot.h"
#include "vmm/bus_error.h"
#include "vmm/lasting.h"
#include "vmm/machine.h"
#include "vmm/pager.h"
#include "vmm/snapshot.h"
#include "vmm/tune.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is launched, and what its caller needs beside it. Strings are the caller's, and outlive the launch. */
struct launch_config {
    struct loam_memory_request memory; /* its limits, and what the process takes beside it, are the launch's to add */
    uint32_t vcpu_count;
    const char *kernel; /* NULL: the self-test, or what is restored */
    const char
        *restore; /* a snapshot's directory, which says what memory and vcpu_count are too; NULL: a guest begins */
    enum guest_clock_jump jump; /* with restore */
    const char *initrd;         /* NULL: none */
    const char *command_line;
    enum tune_wish tune;     /* what becomes of the command line of a Linux kernel on a KVM that lacks something */
    bool without_rng;        /* as machine_config */
    bool without_acpi;       /* a kernel finds an MP table, and no ACPI */
    uint32_t transports;     /* bit n: the caller adds a device at virtio transport n (machine_add_virtio) */
    struct lasting *threads; /* likewise */
    struct trace *trace;     /* likewise */
    uint32_t extra_threads;  /* the caller's, from launch_make_memory on */
    uint32_t extra_readers;  /* of them, who look at guest memory */
    uint64_t extra_bytes;    /* heap of the caller's */
    struct loam_cancel cancel;
    struct bus_error_end bus_error;
    enum loam_error (*vcpu_begins)(struct loam_diag *diag); /* as machine_config has it */
    /* From vCPU threads, with self: as attest_create and machine_config have them. */
    attest_report_fn *checked;
    void (*serial_output)(void *self, const uint8_t *bytes, size_t count);
    void (*serial_pace)(void *self);
    void *self;
};

/* Zero members are not there yet. Read by callers; changed by the steps alone. */
struct launch {
    struct launch_config config;
    uint32_t slot_limit; /* 0: unknown */
    uint32_t vcpu_limit;
    uint64_t file_bytes; /* of kernel and initrd, which are in memory beside the guest's */
    struct loam_plan plan;
    struct loam_memory *memory;
    struct boot_file kernel, initrd;
    struct boot_way way; /* how the kernel is booted, once it has been read */
    struct tune tune;    /* after launch_read */
    struct boot_state boot;
    struct snapshot snapshot;   /* with restore, after launch_measure */
    struct pager *pager;        /* with restore: brings what the guest touches; NULL: all is there before it goes on */
    int order_fd;               /* the pager's; -1 */
    atomic_bool has_lost_pages; /* it could not bring one: guest memory is not to be looked at */
    char without_pager[512];    /* why there is none; "": nothing hinders */
    struct state_reader
        *state; /* what the machine is to be, in place of boot: the snapshot's, or the caller's; NULL: nothing */
    struct attest *attest; /* NULL with a kernel */
    struct machine *machine;
};

void launch_init(struct launch *launch, const struct launch_config *config);

/* What KVM offers: without it the plan does not look at slots and vCPUs. As kvm_open. */
LOAM_MUST_USE enum loam_error launch_ask_kvm(struct launch *launch, struct loam_diag *diag);

/*
 * What the files will take, which the plan counts; a snapshot is looked at, and whether this host can go on with it. As file_measure,
 * snapshot_open and machine_state_check.
 */
LOAM_MUST_USE enum loam_error launch_measure(struct launch *launch, struct loam_diag *diag);

/* launch->plan. As loam_plan_make: that it falls short is no error here, but launch_make_memory's. */
LOAM_MUST_USE enum loam_error launch_plan(struct launch *launch, struct loam_diag *diag);

/*
 * The files, whether they can be booted at all on this host's KVM, and what is to be told. As file_read, boot_detect and
 * tune_ask; LOAM_ERROR_NOT_FOUND: the kernel needs what this KVM lacks.
 */
LOAM_MUST_USE enum loam_error launch_read(struct launch *launch, struct loam_diag *diag);

/* As loam_memory_create. A SIGBUS on the memory ends the process from here to launch_end_life. */
LOAM_MUST_USE enum loam_error launch_make_memory(struct launch *launch, struct loam_diag *diag);

/*
 * The kernel with the tables that tell it of the machine, unless it does without interrupts, or the self-test with its
 * promises, into guest memory. As boot_load, platform_tables_write and attest_create.
 */
LOAM_MUST_USE enum loam_error launch_load(struct launch *launch, struct loam_diag *diag);

/*
 * As machine_create; the self-test's doorbell is attached. What is restored is paused, and is as it was when launch_make_going has
 * followed, which the caller's devices may come before.
 */
LOAM_MUST_USE enum loam_error launch_make_machine(struct launch *launch, struct loam_diag *diag);

/*
 * What launch->state says is in this machine and this memory from now on: as state_memory_load, unless it is done, and machine_load.
 * It is asked for no more afterwards. load, which may be NULL, does the same for devices of the caller's, with its self.
 */
LOAM_MUST_USE enum loam_error launch_make_going(struct launch *launch,
                                                enum loam_error (*load)(void *self, struct state_reader *reader,
                                                                        struct loam_diag *diag),
                                                void *self, struct loam_diag *diag);

/* The guest is the self-test, with the host's half of it in this process. */
bool launch_is_selftest(const struct launch *launch);

/* What is restored is all there when this returns; false: it never will be. At once without a pager. */
bool launch_settle(struct launch *launch);

/* Why a machine stopped, in half a sentence: "the guest ended in a triple fault". */
const char *launch_stop_text(enum machine_stop_reason reason);

/* Machine and memory are gone; plan and files stay. What is not there is passed over. */
void launch_end_life(struct launch *launch);

/* What the kernel is given: the caller's words, and those of launch->tune. After launch_read. */
const char *launch_command_line(const struct launch *launch);

/* Everything is gone. */
void launch_release(struct launch *launch);

#endif
