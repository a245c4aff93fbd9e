// SPDX-License-Identifier: Apache-2.0
/* What firmware tells a kernel, as a guest finds it that is told nothing else; and that the machine does as it says. */
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_MILLISECONDS 60000
#define CODE_NOTHING       5

static char *guest(const char *name)
{
    char *path = getenv(name);

    cr_assert_not_null(path, "%s: run it by Bazel", name);
    return path;
}

/* Run a guest with this command line; returns its status. */
static int run(struct process *process, char *kernel, char *vcpus, char *command_line)
{
    char *argv[] = {loam_path(), "run",  "--memory", "16M", "--pages",   "4K",         "--timeout", "30",
                    "--kernel",  kernel, "--vcpus",  vcpus, "--cmdline", command_line, NULL};

    need_kvm();
    return process_run(process, argv, LIMIT_MILLISECONDS);
}

static void expect(int status, char *vcpus, char *command_line, const char *says)
{
    struct process process;

    cr_expect_eq(run(&process, guest("LOAM_TABLES_GUEST"), vcpus, command_line), status, "status %d: %s%s",
                 process.status, process.out, process.err);
    cr_expect_not_null(strstr(process.out, says), "%s: %s%s", says, process.out, process.err);
    process_end(&process);
}

TestSuite(tables, .timeout = 120);

Test(tables, are_found_by_scanning)
{
    expect(0, "1", "look", "RSDP 0xe0000\r\nMP 0xf0000\r\n");
}

Test(tables, are_not_made_for_a_guest_without_interrupts)
{
    struct process process;

    cr_expect_eq(run(&process, guest("LOAM_TABLES_GUEST_WITHOUT"), "1", "look"), CODE_NOTHING, "%s%s", process.out,
                 process.err);
    process_end(&process);
    cr_expect_eq(run(&process, guest("LOAM_TABLES_GUEST_WITHOUT"), "2", "look"), 0, "%s%s", process.out, process.err);
    process_end(&process);
}

/* The second runs, and says so, before the guest goes on. */
Test(tables, name_processors_that_start)
{
    expect(0, "1", "start", "MADT runs 0x1\r\nMP names 0x1\r\n");
    expect(0, "2", "start", "MADT runs 0x2\r\nMP names 0x2\r\n");
}

Test(tables, name_registers_that_turn_it_off)
{
    expect(0, "1", "off", "");
    expect(0, "1", "sleep", "");
}

Test(tables, name_a_register_that_resets_it)
{
    struct process process;

    cr_expect_eq(run(&process, guest("LOAM_TABLES_GUEST"), "1", "reset"), 1);
    cr_expect_not_null(strstr(process.err, "the guest reset itself"), "%s", process.err);
    process_end(&process);
}
