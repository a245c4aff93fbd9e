// SPDX-License-Identifier: Apache-2.0
/*
 * An account of a machine that has come to an end which it should not have: where each vCPU stood, by the names of the kernel's
 * own functions; the last places at which nobody answered; and what would avoid it (advice.h).
 *
 * All text is printable ASCII.
 *
 * Threads: the machine's creator, from machine_wait to machine_destroy.
 */
#ifndef LOAM_VMM_ACCOUNT_H
#define LOAM_VMM_ACCOUNT_H

#include "loam/plan.h"
#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/disassembly.h"
#include "vmm/machine.h"
#include "vmm/stand.h"
#include "vmm/symbols.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ACCOUNT_LINE_BYTES 1024u

struct account_vcpu {
    struct stand stand;
    struct symbols_place place;     /* an empty name: none is known */
    struct disassembly instruction; /* an empty text: none is known, or it is behind HLT */
};

struct account {
    uint32_t vcpu_count;
    struct account_vcpu *vcpus;
    uint32_t missed_count;
    struct bus_missed missed[BUS_MISSED_MAX]; /* each place and kind of access once, the latest first */
    char advice[320];                         /* goes on from how the run ended; or empty */
};

/*
 * Ask the machine, which has ended with result; plan is its memory's, and kernel is where names are looked up. Without memory
 * for it, the account is of no vCPUs.
 */
void account_make(struct machine *machine, const struct machine_result *result, const struct loam_plan *plan,
                  const struct boot_file *kernel, struct account *account);

void account_release(struct account *account);

/* "halted" and the like, one word, for programs. Static. */
const char *account_activity_name(enum stand_activity activity);
const char *account_mode_name(enum stand_mode mode);
const char *account_paging_name(enum stand_paging paging);

/* "start+0x10"; an empty text where no name is known. As snprintf. */
void account_place(const struct account_vcpu *vcpu, char *text, size_t bytes);

/* "vCPU 0 stood at ...", without a newline. As snprintf. */
void account_vcpu_line(const struct account *account, uint32_t vcpu, char *text, size_t bytes);

/* "nobody answered at ...", the latest first, without a newline; an empty text where somebody always did. As snprintf. */
void account_missed_line(const struct account *account, char *text, size_t bytes);

/* All lines, one for each vCPU and one for what nobody answered, each ended by a newline. */
void account_print(const struct account *account, FILE *out);

/* How the run ended, with what is advised: "KVM could not go on: its emulator lacks ...". As snprintf. */
void account_end(const struct account *account, const char *end, char *text, size_t bytes);

#endif
