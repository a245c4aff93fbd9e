// SPDX-License-Identifier: Apache-2.0
/* What tests need that launch the program: where it is, whether the host can, and what it answered. */
#ifndef LOAM_TEST_LAUNCH_H
#define LOAM_TEST_LAUNCH_H

#include "tests/support/process.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Programs and guests of this build, by the names that the BUILD file gives in the environment. */
char *loam_path(void);     /* LOAM */
char *sabotage_path(void); /* LOAM_SABOTAGE: the test build */
char *stop_path(void);     /* LOAM_STOP: the guest that prints one byte */

/* Skip the test, with the reason, where the host cannot run it. */
void need_kvm(void);
void need_root(void);
void need_file(const char *path);
void need_pool(const char *pages, uint64_t bytes); /* pages "2M" or "1G"; others need none */

/* Pages free in the pool and not reserved. */
uint64_t free_pages(const char *pages);

/* Free and reserved pages of both pools. */
struct host_pools {
    uint64_t free_2m, reserved_2m, free_1g, reserved_1g;
};
struct host_pools host_pools(void);

/* The object of one check in the program's JSON, or NULL. */
const json_t *find_check(const json_t *root, const char *name);

#endif
