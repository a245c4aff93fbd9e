// SPDX-License-Identifier: Apache-2.0
/* The cases of a shell script, one by one, as Criterion's: for what is tried as its users do it, by commands. */
#ifndef LOAM_TEST_CASES_H
#define LOAM_TEST_CASES_H

#include <criterion/parameterized.h>
#include <stddef.h>

struct script_case {
    char name[64];
};

/* Parameters of a ParameterizedTest over struct script_case. */
struct criterion_test_params cases_named(const char *const *names, size_t count);

/*
 * Run `bash script NAME`, at most four minutes. Status 77 skips the case with what was printed; any other but 0 fails it.
 * Under a sanitizer it is skipped: a sanitized library wants a sanitized program.
 */
void cases_run(const char *script, const struct script_case *which);

#endif
