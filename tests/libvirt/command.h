// SPDX-License-Identifier: Apache-2.0
/* `loam host` and `loam place` as tests run them, and the daemons that they ask. */
#ifndef LOAM_TESTS_LIBVIRT_COMMAND_H
#define LOAM_TESTS_LIBVIRT_COMMAND_H

#include "tests/support/libvirtd.h"
#include "tests/support/process.h"

#include <jansson.h>

#define COMMAND_MILLISECONDS 60000
#define COMMAND_WORD_MAX     32

/* Programs of this build, by the names that the BUILD file gives in the environment. */
char *command_host(void);  /* LOAM_HOST */
char *command_place(void); /* LOAM_PLACE */
char *command_loam(void);  /* LOAM */

/* Run a program with the words behind it, up to NULL. process_end is the caller's. Returns its status. */
int command_run(struct process *process, char *program, ...) __attribute__((sentinel));

/* What it printed as JSON; fails the test if it is none. */
json_t *command_json(const struct process *process);

/* The one line that it wrote to standard error has these words; else the check fails. */
void command_expect_line(const struct process *process, const char *words);

/* Start a daemon, or skip the test with the reason why there can be none. */
void command_need(struct libvirtd *daemon, enum libvirtd_kind kind, bool listens_on_tcp);

/* A UNIX socket that listens, at path, and whom nobody answers. Returns its descriptor. */
int command_silent_socket(char path[64]);

#endif
