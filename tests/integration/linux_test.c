// SPDX-License-Identifier: Apache-2.0
/*
 * Linux, as tools/kernel/build makes it, from each way in to each way out. /init of its initrd says in user mode that it is
 * there, and ends the machine as its argument says (tools/kernel/init.S).
 */
#include "tests/integration/e820.h"
#include "tests/integration/launch.h"
#include "tests/integration/linux_boot.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

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

/*
 * /init has run, and has ended so that the kernel panics: told to, or at its first SYSCALL where the kernel's entry is
 * reached with the rights of user mode, which may not run what is there.
 */
static void expect_panic_of_init(void)
{
    bool has_user_mode = linux_boot_has_user_mode();

    expect_said("Run /init as init process");
    expect_said(has_user_mode ? "init: user mode" : "init[1]: segfault at ffffffff8");
    expect_said(has_user_mode ? "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000700"
                              : "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b");
    expect_status(1);
}

/* A program that says itself that it cannot do so. */
static void skip_if_said(const char *text, const char *reason)
{
    if (strstr(process.err, text) != NULL) {
        linux_boot_end(&process);
        cr_skip_test("%s", reason);
    }
}

static void boot_to_panic(const struct linux_boot *boot)
{
    linux_boot_run(boot, &process);
    skip_if_said("PVH note: there is none", "this program does not enter an ELF64 kernel without a PVH note");
    skip_if_said("and no table (ACPI, MP) tells the kernel", "this program tells no guest of a second processor");
    expect_panic_of_init();
    expect_planned_map(boot);
}

#define ONE_BANK  "--memory", "64M"
#define TWO_BANKS "--memory", "64M", "--low-limit", "32M"

/* --- Every day: each way in, one and two banks of RAM, one and two processors ---------------------------------------- */

Test(linux, by_pvh)
{
    boot_to_panic(&(struct linux_boot){"up", LINUX_BY_PVH, "-- exit", .options = {ONE_BANK}});
}

Test(linux, by_its_image)
{
    boot_to_panic(&(struct linux_boot){"up", LINUX_BY_IMAGE, "-- exit", .options = {TWO_BANKS}});
}

Test(linux, by_elf64_with_two_processors)
{
    boot_to_panic(&(struct linux_boot){"smp", LINUX_BY_ELF64, "-- exit", .options = {TWO_BANKS, "--vcpus", "2"}});
    expect_said("Brought up 1 node, 2 CPUs");
}

/* --- What takes long: other pairs --------------------------------------------------------------------------------- */

Test(linux, by_its_image_with_two_processors)
{
    linux_boot_need_long();
    boot_to_panic(&(struct linux_boot){"smp", LINUX_BY_IMAGE, "-- exit", .options = {ONE_BANK, "--vcpus", "2"}});
    expect_said("Brought up 1 node, 2 CPUs");
}

Test(linux, by_pvh_with_two_processors_of_which_it_is_to_use_one)
{
    linux_boot_need_long();
    boot_to_panic(&(struct linux_boot){"smp", LINUX_BY_PVH, "nosmp -- exit", .options = {TWO_BANKS, "--vcpus", "2"}});
    expect_said("Brought up 1 node, 1 CPU");
}

Test(linux, panics_without_an_initrd)
{
    const struct linux_boot boot = {"up", LINUX_BY_ELF64, "", .without_initrd = true, .options = {"--memory", "64M"}};

    linux_boot_need_long();
    linux_boot_run(&boot, &process);
    skip_if_said("PVH note: there is none", "this program does not enter an ELF64 kernel without a PVH note");
    expect_said("Kernel panic - not syncing: VFS: Unable to mount root fs");
    expect_status(1);
    expect_planned_map(&boot);
}

/* --- What user mode asks for -------------------------------------------------------------------------------------- */

static void boot_to_end(const char *arguments, const char *on_reset, int status)
{
    const struct linux_boot boot = {"up", LINUX_BY_PVH, arguments, .options = {ONE_BANK, "--on-reset", on_reset}};

    linux_boot_need_long();
    if (!linux_boot_has_user_mode()) {
        cr_skip_test("no VT-x and no AMD-V: SYSCALL in user mode does not reach privilege level 0");
    }
    linux_boot_run(&boot, &process);
    expect_said("init: user mode");
    expect_status(status);
}

Test(linux, power_off_is_a_pass)
{
    boot_to_end("", "fail", 0);
}

Test(linux, restart_is_a_failure_unless_it_is_meant)
{
    boot_to_end("-- restart", "fail", 1);
    cr_expect_not_null(strstr(process.err, "reset itself"), "%s", process.err);
}

Test(linux, restart_that_is_meant_is_a_pass)
{
    boot_to_end("-- restart", "pass", 0);
}

Test(linux, halt_is_told_at_once)
{
    boot_to_end("-- halt", "fail", 4);
    expect_said("reboot: System halted");
    cr_expect_not_null(strstr(process.err, "halted for good"), "%s", process.err);
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
