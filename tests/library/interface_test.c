// SPDX-License-Identifier: Apache-2.0
/* The interface as it is written down, for linkers (allocator/libloam.abi) and for people (tools/docs): interface.sh. */
#include "tests/library/cases.h"

#include <criterion/criterion.h>

static const char *const names[] = {
    "abi_is_as_written",
    "a_change_is_noticed",
    "pages_are_made_without_a_warning",
    "an_undocumented_function_is_noticed",
};

ParameterizedTestParameters(interface, as_it_is_written)
{
    return cases_named(names, sizeof names / sizeof *names);
}

ParameterizedTest(struct script_case *which, interface, as_it_is_written, .timeout = 300)
{
    cases_run("tests/library/interface.sh", which);
}
