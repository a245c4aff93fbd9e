// SPDX-License-Identifier: Apache-2.0
/* A Bazel workspace that has Loam as its only repository: outside/, built and tested by outside.sh. */
#include "tests/library/cases.h"

#include <criterion/criterion.h>

static const char *const names[] = {
    "a_program_links", "library_and_program_build", "a_warning_is_no_error",
    "a_guest_boots",   "guests_are_judged",         "without_kvm_a_test_fails_or_says_that_it_was_skipped",
};

ParameterizedTestParameters(outside, of_this_workspace)
{
    return cases_named(names, sizeof names / sizeof *names);
}

ParameterizedTest(struct script_case *which, outside, of_this_workspace, .timeout = 300)
{
    cases_run("tests/library/outside.sh", which);
}
