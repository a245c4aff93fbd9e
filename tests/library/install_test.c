// SPDX-License-Identifier: Apache-2.0
/* What tools/install leaves, used by compilers and tools that know nothing of this repository: install.sh. */
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

enum { SKIP = 77, TIMEOUT_MS = 240000 };

static const char *const uses[] = {
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

struct use {
    char name[64];
};

ParameterizedTestParameters(install, in_an_empty_folder)
{
    struct use *made = cr_malloc(sizeof uses / sizeof *uses * sizeof *made);

    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
        strcpy(made[i].name, uses[i]);
    }
    return cr_make_param_array(struct use, made, sizeof uses / sizeof *uses);
}

ParameterizedTest(struct use *use, install, in_an_empty_folder, .timeout = 300)
{
    char *argv[] = {"/bin/bash", "tests/library/install.sh", use->name, NULL};
    struct process process;
    int status;

#ifdef LOAM_SANITIZED
    cr_skip("a sanitized library wants a sanitized program");
#endif
    status = process_run(&process, argv, TIMEOUT_MS);

    if (status == SKIP) {
        cr_skip("%s: %s", use->name, process.out);
    }
    cr_expect_eq(status, 0, "%s: status %d: %s%s", use->name, status, process.out, process.err);
    process_end(&process);
}
