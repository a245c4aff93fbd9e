// SPDX-License-Identifier: Apache-2.0
/*
 * What a person or a program reads of a run: lines of text as things happen, or one JSON object at the end.
 *
 * Text has colour, and a line that says which check runs, only on a terminal. What others chose (names of files and
 * control groups, what a kernel says of itself) is shown as printable.h says, in JSON too.
 *
 * Threads: one at a time. The machine's creator calls before machine_start and after machine_wait; checks come from
 * vCPU threads, under attest's lock.
 */
#ifndef LOAM_VMM_REPORT_H
#define LOAM_VMM_REPORT_H

#include "loam/error.h"
#include "loam/memory.h"
#include "vmm/account.h"
#include "vmm/attest.h"
#include "vmm/machine.h"
#include "vmm/transcript.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct report {
    FILE *out;        /* text; or the JSON object at the end */
    bool is_terminal; /* out is one, and takes text */
    bool has_checks;  /* one has begun */
    json_t *root;     /* NULL: text */
    json_t *checks;   /* in root */
};

/* Write to out, which stays the caller's, as JSON or as text; is_terminal: a person sees it as it comes. */
void report_init(struct report *report, bool json, FILE *out, bool is_terminal);

void report_plan(struct report *report, const struct loam_plan *plan);

/* Which way a kernel is booted, as boot_way has it; behind its plan. */
void report_way(struct report *report, const char *way);

/* The plan as it is in JSON under "plan": a new reference; NULL: no memory. Any thread. */
json_t *report_plan_json(const struct loam_plan *plan);

/* For attest: a check begins (outcome NULL), or is done. */
void report_check(struct report *report, enum loam_abi_check check, const struct attest_outcome *outcome);

/* How the run ended; a machine that broke is described in full. */
void report_stop(struct report *report, const struct machine_result *result);

/* After it: where the vCPUs stood, on standard error; in JSON, in "stop". */
void report_account(struct report *report, const struct account *account);

/* One line on standard error, "loam: ...": why nothing can go on. In JSON, also "error". */
LOAM_PRINTF(2, 3)
void report_failure(struct report *report, const char *format, ...);

/* One line on standard error, "loam: ...": what a person should know, though the run goes on. In JSON, in "notes". */
LOAM_PRINTF(2, 3)
void report_note(struct report *report, const char *format, ...);

/* In JSON: what the guest said on its serial line, and how much of its beginning is not there. */
void report_serial(struct report *report, const struct transcript *transcript);

/* The last line: what became of the whole. passed_count counts checks; expected_count 0: there were none to run. */
void report_verdict(struct report *report, bool passed, uint32_t passed_count, uint32_t expected_count,
                    const char *reason);

/* Print the JSON object, with the exit status in it, and free everything. */
void report_finish(struct report *report, int exit_status);

#endif
