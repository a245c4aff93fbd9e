// SPDX-License-Identifier: Apache-2.0
#include "tests/library/cases.h"

#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <stdio.h>

enum { SKIP = 77, TIMEOUT_MS = 240000 };

struct criterion_test_params cases_named(const char *const *names, size_t count)
{
    struct script_case *made = cr_malloc(count * sizeof *made);

    for (size_t i = 0; i < count; i++) {
        snprintf(made[i].name, sizeof made[i].name, "%s", names[i]);
    }
    return cr_make_param_array(struct script_case, made, count);
}

void cases_run(const char *script, const struct script_case *which)
{
    char path[128], name[sizeof which->name];
    char *argv[] = {"/bin/bash", path, name, NULL};
    struct process process;
    int status;

#ifdef LOAM_SANITIZED
    cr_skip("a sanitized library wants a sanitized program");
#endif
    snprintf(path, sizeof path, "%s", script);
    snprintf(name, sizeof name, "%s", which->name);
    status = process_run(&process, argv, TIMEOUT_MS);
    if (status == SKIP) {
        cr_skip("%s: %s", which->name, process.out);
    }
    cr_expect_eq(status, 0, "%s: status %d: %s%s", which->name, status, process.out, process.err);
    process_end(&process);
}
