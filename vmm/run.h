// SPDX-License-Identifier: Apache-2.0
/* The commands `loam run` and `loam plan`, from options to exit status. One at a time, on the main thread. */
#ifndef LOAM_VMM_RUN_H
#define LOAM_VMM_RUN_H

#include "vmm/options.h"

/* Launch a microVM and see it to its end. Returns an enum exit_code, or 128 + N when signal N stopped it. */
int run_command(const struct options *options);

/* Print what run_command would take, and map nothing. EXIT_CODE_HOST if something falls short. */
int plan_command(const struct options *options);

#endif
