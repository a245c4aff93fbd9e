// SPDX-License-Identifier: Apache-2.0
/*
 * loam-emulator as a test runs it: started as libvirtd starts it, with a listening socket that it inherits, and spoken to
 * in QMP. Nothing waits for longer than the run's time; a failure fails the test.
 *
 * Threads: one run is used by one thread.
 */
#ifndef LOAM_TESTS_EMULATOR_RUN_H
#define LOAM_TESTS_EMULATOR_RUN_H

#include "tests/support/process.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EMULATOR_RUN_MILLISECONDS 60000

struct emulator_run {
    struct process process;
    const char *mib;    /* of memory: "64" unless a test has another */
    const char *memory; /* how it is made, without its size, by the options of a memory-backend */
    char folder[64];
    char monitor_path[96], serial_path[96];
    int monitor; /* connected; -1 */
    int serial;  /* connected; -1 */
    char *text;  /* of the monitor, from after the last line on */
    size_t text_bytes;
    json_t *events; /* that nobody has awaited yet, in their order */
    char *said;     /* by the guest, all of it */
    size_t said_bytes;
    size_t said_looked; /* up to where emulator_run_expect has looked */
};

/* Programs and guests of this build, by the names that the BUILD file gives in the environment. */
char *emulator_path(void);     /* LOAM_EMULATOR */
char *domain_guest_path(void); /* LOAM_DOMAIN_GUEST */

/* A folder, and nothing that runs. */
void emulator_run_init(struct emulator_run *run);

/* Kill what runs, and leave nothing behind. */
void emulator_run_end(struct emulator_run *run);

/*
 * Start a domain with a monitor and a serial line, 64 MiB, and the options that follow, up to a NULL; without connecting.
 * kernel NULL: the self-test.
 */
void emulator_run_start(struct emulator_run *run, const char *kernel, ...) __attribute__((sentinel));

/* Connect to the monitor, and say qmp_capabilities. */
void emulator_run_connect(struct emulator_run *run);
void emulator_run_hang_up(struct emulator_run *run);

/* Start, connect, and cont, with the domain guest and -no-shutdown; returns when the guest has said "ready". */
void emulator_run_guest(struct emulator_run *run, const char *option, ...) __attribute__((sentinel));

/* A run that has shown that it goes on has its whole time again. */
void emulator_run_prolong(struct emulator_run *run);

/* Send a command; arguments (a reference that is taken; NULL: none). Returns the whole reply: a new reference. */
json_t *emulator_run_ask(struct emulator_run *run, const char *command, json_t *arguments);

/* The same with a descriptor, which stays the caller's. */
json_t *emulator_run_ask_with(struct emulator_run *run, const char *command, json_t *arguments, int fd);

/* The same, and its "return"; an error fails the test. */
json_t *emulator_run_do(struct emulator_run *run, const char *command, json_t *arguments);

/* The same for one that is refused, with this class and a text that has this in it. */
void emulator_run_refused(struct emulator_run *run, const char *command, json_t *arguments, const char *error_class,
                          const char *text);

/* The next event of this name, which those before it are dropped for: a new reference. */
json_t *emulator_run_await(struct emulator_run *run, const char *name);

/* Whether an event of this name has come already. */
bool emulator_run_has(const struct emulator_run *run, const char *name);

/* Whether the domain's status is this. */
void emulator_run_expect_status(struct emulator_run *run, const char *status);

/* Read the serial line until text stands there, after what was looked at before. */
void emulator_run_expect(struct emulator_run *run, const char *text);

/* Write to the serial line. */
void emulator_run_type(struct emulator_run *run, const char *text);

/* What the guest counts, when it is asked. */
uint64_t emulator_run_count(struct emulator_run *run);

#endif
