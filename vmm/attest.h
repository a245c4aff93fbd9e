// SPDX-License-Identifier: Apache-2.0
/*
 * The host's half of the self-test: promises, and the check that host and guest agree on each.
 *
 *     attest_create    carve and fill what is promised; protect the read-only range
 *     boot_load        with attest_module as its first module
 *     attest_publish   write the table: from now on the promises are the guest's
 *     machine_create
 *     attest_attach    answer the doorbell, the hole and writes to read-only memory
 *     machine_start .. machine_wait
 *     attest_passed_count
 *
 * What the guest reports is fetched once and believed only where the host has seen the same. A check passes
 * if both say so; whatever the guest leaves out has failed.
 *
 * Threads: create, publish, attach, passed_count and destroy from the machine's creator; the rest happens on
 * vCPU threads, one at a time under attest's lock. attest outlives the machine, and the memory outlives
 * attest.
 */
#ifndef LOAM_VMM_ATTEST_H
#define LOAM_VMM_ATTEST_H

#include "guest/abi.h"
#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/boot.h"
#include "vmm/machine.h"

#include <stdbool.h>
#include <stdint.h>

/* Opaque. */
struct attest;

/* What became of one check. */
struct attest_outcome {
    enum loam_abi_check check;
    bool guest_passed;
    bool host_passed;
    struct loam_abi_result result; /* as the guest gave it */
    uint64_t nanoseconds;          /* from the guest's BEGIN to its DONE */
    char text[256];                /* one line: how many of what, or what is wrong */
};

/* Told of each check on a vCPU thread; outcome NULL: the check begins. */
typedef void attest_report_fn(void *self, enum loam_abi_check check, const struct attest_outcome *outcome);

/* "ram", "pattern", ...; "unknown" otherwise. */
const char *attest_check_name(enum loam_abi_check check);

/* *attest is NULL on failure, and nothing is carved then. memory outlives it; report is called with self. */
LOAM_MUST_USE enum loam_error attest_create(struct loam_memory *memory, attest_report_fn *report, void *self,
                                            struct attest **attest, struct loam_diag *diag);

/* Release what was carved. NULL is allowed. */
void attest_destroy(struct attest *attest);

/* The table, for boot_load. */
struct boot_module attest_module(const struct attest *attest);

/* Fill the table, now that the guest's image has its place. */
LOAM_MUST_USE enum loam_error attest_publish(struct attest *attest, const struct boot_state *boot,
                                             struct loam_diag *diag);

LOAM_MUST_USE enum loam_error attest_attach(struct attest *attest, struct machine *machine, struct loam_diag *diag);

/* Checks that guest and host agree have passed; LOAM_ABI_CHECK_COUNT is a pass. After machine_wait. */
uint32_t attest_passed_count(const struct attest *attest);

/* The outcome of one check, or NULL if the guest never finished it. After machine_wait. */
const struct attest_outcome *attest_outcome(const struct attest *attest, enum loam_abi_check check);

#endif
