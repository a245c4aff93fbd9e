// SPDX-License-Identifier: Apache-2.0
/*
 * Linux, as tools/kernel/build makes it, from each way in to each way out. The first program of its initrd says in user
 * mode that it is there, and ends the machine as its argument says (tools/kernel/init.S).
 */
#include "tests/integration/e820.h"
#include "tests/integration/launch.h"
#include "tests/integration/linux_boot.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define USER_MODE "init: user mode"

/* Rounded up: tables of ACPI and of processors, which lie in RAM that the map does not call usable. */
#define TABLES_MAX 65536u

/* Where the sabotage of a stuck bit strikes: half a page below the end of the upper RAM. */
#define STUCK_ADDRESS "0x00000001003ff800"

static struct process process;

static void tear_down(void)
{
    linux_boot_end(&process);
}

TestSuite(linux, .fini = tear_down);

static void expect_said(const char *text)
{
    cr_expect_not_null(strstr(process.out, text), "\"%s\" is not in\n%s\n%s", text, process.out, process.err);
}

static void expect_status(int status)
{
    cr_expect_eq(process.status, status, "status %d wanted, %d found:\n%s\n%s", status, process.status, process.out,
                 process.err);
}

/* The map in its log is what `loam plan` says of the same options. */
static void expect_planned_map(const struct linux_boot *boot)
{
    char *argv[16] = {loam_path(), "plan", "--json", "--pages", "4K"};
    struct process plan;
    const char *differs;
    struct e820 map;
    json_t *root;

    memcpy(argv + 5, boot->options, sizeof boot->options);
    cr_expect_eq(process_run(&plan, argv, 10000), 0, "%s", plan.err);
    root = json_loads(plan.out, 0, NULL);
    e820_read(process.out, &map);
    differs = e820_differs(&map, root, TABLES_MAX);
    cr_expect_null(differs, "%s:\n%s\n%s", differs, process.out, plan.out);
    json_decref(root);
    process_end(&plan);
}

/* --- Every day: each way in, each way out, one and two processors, one and two banks of RAM ------------------------- */

Test(linux, by_pvh_with_one_bank_to_power_off)
{
    const struct linux_boot boot = {.kind = "up", .way = LINUX_BY_PVH, .words = "", .options = {"--memory", "64M"}};

    linux_boot_run(&boot, &process);
    expect_status(0);
    expect_said(USER_MODE);
    expect_planned_map(&boot);
}

Test(linux, by_elf64_with_two_processors_on_both_sides_of_the_hole_to_restart)
{
    const struct linux_boot boot = {
        .kind = "smp",
        .way = LINUX_BY_ELF64,
        .words = "-- restart",
        .options = {"--memory", "64M", "--low-limit", "32M", "--vcpus", "2", "--on-reset", "pass"}};

    linux_boot_run(&boot, &process);
    expect_status(0);
    expect_said("Brought up 1 node, 2 CPUs");
    expect_said(USER_MODE);
    expect_planned_map(&boot);
}

Test(linux, by_its_image_to_panic)
{
    const struct linux_boot boot = {
        .kind = "up", .way = LINUX_BY_IMAGE, .words = "-- exit", .options = {"--memory", "64M"}};

    linux_boot_run(&boot, &process);
    expect_status(1);
    expect_said(USER_MODE);
    expect_said("Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000700");
    cr_expect_not_null(strstr(process.err, "panicked"), "%s", process.err);
    expect_planned_map(&boot);
}

/* --- What takes long: the other pairs of ways in and out -------------------------------------------------------------- */

#define TWO_BANKS "--memory", "64M", "--low-limit", "32M"

static const struct linux_case {
    struct linux_boot boot;
    int status;
    const char *says, *error; /* in its console; in what the program says of its end; NULL: not looked at */
} cases[] = {
    {{"up", LINUX_BY_PVH, "-- halt", .options = {TWO_BANKS}}, 4, USER_MODE, "halted for good"},
    {{"up", LINUX_BY_ELF64, "-- exit", .options = {"--memory", "64M"}}, 1, USER_MODE, "panicked"},
    {{"up", LINUX_BY_IMAGE, "", .options = {TWO_BANKS}}, 0, USER_MODE, NULL},
    {{"smp", LINUX_BY_PVH, "", .options = {"--memory", "64M", "--vcpus", "2"}}, 0, "Brought up 1 node, 2 CPUs", NULL},
    {{"smp", LINUX_BY_IMAGE, "-- restart", .options = {TWO_BANKS, "--vcpus", "2"}},
     1,
     "Brought up 1 node, 2 CPUs",
     "reset itself"},
    {{"up", LINUX_BY_PVH, "", .without_initrd = true, .options = {"--memory", "64M"}},
     1,
     "Kernel panic - not syncing: VFS: Unable to mount root fs",
     "panicked"},
};

/* Cases run in processes of their own, whose addresses are other ones: so the number of a case. */
ParameterizedTestParameters(linux, from_each_way_in_to_each_way_out)
{
    static size_t numbers[sizeof cases / sizeof cases[0]];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        numbers[i] = i;
    }
    return cr_make_param_array(size_t, numbers, sizeof cases / sizeof cases[0]);
}

ParameterizedTest(size_t *number, linux, from_each_way_in_to_each_way_out, .fini = tear_down)
{
    const struct linux_case *one = &cases[*number];

    linux_boot_need_long();
    linux_boot_run(&one->boot, &process);
    expect_status(one->status);
    expect_said(one->says);
    expect_planned_map(&one->boot);
    cr_expect(one->error == NULL || strstr(process.err, one->error) != NULL, "%s", process.err);
}

/* --- What takes long: memtest, Linux's own ------------------------------------------------------------------------- */

/* Patterns 0, all ones, ... over all memory that is free at boot. It is over before the console is there but for this. */
static void start_memtest(const char *program, const char *sabotage)
{
    const struct linux_boot boot = {
        .kind = "up",
        .way = LINUX_BY_PVH,
        .words = "earlyprintk=ttyS0,115200 memtest=1",
        .program = program,
        .options = {"--memory", "36M", "--low-limit", "32M", sabotage != NULL ? "--sabotage" : NULL, sabotage}};

    linux_boot_need_long();
    linux_boot_start(&boot, &process);
    cr_assert(process_expect(&process, "Zone ranges:"), "%s\n%s", process.out, process.err);
    kill(process.pid, SIGTERM);
    process_wait(&process);
    expect_said("early_memtest: # of tests: 1");
    expect_said("0x0000000000100000 - 0x0000000001000000 pattern 0000000000000000");
    expect_said("0x0000000100000000 - 0x0000000100400000 pattern 0000000000000000");
}

Test(linux, memtest_finds_no_bad_memory)
{
    start_memtest(NULL, NULL);
    cr_expect_null(strstr(process.out, "bad mem"), "%s", process.out);
}

Test(linux, memtest_finds_a_bit_that_is_stuck)
{
    start_memtest(sabotage_path(), "stuck");
    expect_said("0000000000000000 bad mem addr " STUCK_ADDRESS " - 0x00000001003ff808 reserved");
}

/* --- What takes long: user mode by SYSCALL -------------------------------------------------------------------------- */

/* A KVM that emulates goes on at the kernel's entry with the rights of user mode, which may not run what is there. */
Test(linux, user_mode_enters_the_kernel_by_syscall)
{
    const struct linux_boot boot = {
        .kind = "up", .way = LINUX_BY_PVH, .words = "rdinit=/init-syscall", .options = {"--memory", "64M"}};

    linux_boot_need_long();
    linux_boot_run(&boot, &process);
    if (strstr(process.out, "init-syscall[1]: segfault at ffffffff") != NULL) {
        expect_status(1);
        linux_boot_end(&process);
        cr_skip_test("this KVM emulates SYSCALL without the change to privilege level 0");
    }
    expect_status(0);
    expect_said(USER_MODE);
}
