// SPDX-License-Identifier: Apache-2.0
/* tools/kernel/build where there is nothing to build: what it says, and that it makes nothing. */
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 20000

static char cache[] = "/tmp/loam-kernel-build-XXXXXX";
static struct process process;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(cache));
    setenv("XDG_CACHE_HOME", cache, 1);
}

static void tear_down(void)
{
    process_end(&process);
    cr_expect_eq(rmdir(cache), 0, "something was made in %s", cache);
}

TestSuite(kernel_build, .init = set_up, .fini = tear_down);

static void expect(char *first, char *second, int status, const char *error)
{
    char *build = getenv("LOAM_KERNEL_BUILD");

    cr_assert_not_null(build, "LOAM_KERNEL_BUILD is not in the environment: run the test by Bazel");
    cr_expect_eq(process_run(&process, (char *[]){build, first, second, NULL}, LIMIT_MILLISECONDS), status, "status %d",
                 process.status);
    cr_expect_str_eq(process.err, error);
}

Test(kernel_build, names_the_command_for_what_is_not_there)
{
    expect("--cached", "smp", 1, "kernel: smp: not built yet: run tools/kernel/build smp\n");
    cr_expect_str_empty(process.out);
}

Test(kernel_build, looks_for_both_unless_told)
{
    expect("--cached", NULL, 1, "kernel: up smp: not built yet: run tools/kernel/build up smp\n");
}

Test(kernel_build, refuses_what_it_does_not_know)
{
    expect("--cached", "mp", 2, "tools/kernel/build: mp: neither up, smp nor all: see --help\n");
}

Test(kernel_build, says_how_it_is_used)
{
    expect("--help", NULL, 0, "");
    cr_expect_not_null(strstr(process.out, "tools/kernel/build --cached"), "%s", process.out);
}
