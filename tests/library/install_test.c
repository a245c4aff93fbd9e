// SPDX-License-Identifier: Apache-2.0
/* What tools/install leaves, used by compilers and tools that know nothing of this repository: install.sh. */
#include "tests/library/cases.h"

#include <criterion/criterion.h>

static const char *const names[] = {
    "c_shared",
    "c_static",
    "cxx_shared",
    "cmake_finds",
    "cmake_refuses_another_version",
    "rust_links",
    "library_needs_libc_alone",
    "pages_read_without_a_warning",
    "completion_offers",
    "destdir_is_no_part_of_what_is_said",
    "bad_paths_are_refused",
};

ParameterizedTestParameters(install, in_an_empty_folder)
{
    return cases_named(names, sizeof names / sizeof *names);
}

ParameterizedTest(struct script_case *which, install, in_an_empty_folder, .timeout = 300)
{
    cases_run("tests/library/install.sh", which);
}
