// SPDX-License-Identifier: Apache-2.0
/*
 * The guests under another hypervisor: QEMU's microvm, with TCG, loads them by its own PVH loader. That they boot there
 * shows that they keep to the standard, and not just to what Loam makes of it.
 */
#include "guest/abi.h"
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QEMU                 "qemu-system-x86_64"
#define TIMEOUT_MILLISECONDS 60000

static bool on_path(const char *program)
{
    char directories[4096], file[4200], *rest = directories, *directory;
    const char *path = getenv("PATH");

    snprintf(directories, sizeof directories, "%s", path == NULL ? "" : path);
    while ((directory = strsep(&rest, ":")) != NULL) {
        snprintf(file, sizeof file, "%s/%s", directory, program);
        if (access(file, X_OK) == 0) {
            return true;
        }
    }
    return false;
}

/* QEMU's isa-debug-exit makes this exit status of what the guest writes. */
static int status_of(int written)
{
    return written << 1 | 1;
}

/* Boot the guest that the environment names, and compare all it says and how it ends. */
static void boot(const char *guest_variable, const char *cpu, const char *memory, const char *text, int written)
{
    char *guest = getenv(guest_variable);
    char *const argv[] = {QEMU,
                          "-M",
                          "microvm,isa-serial=on",
                          "-accel",
                          "tcg",
                          "-cpu",
                          (char *)cpu,
                          "-m",
                          (char *)memory,
                          "-nodefaults",
                          "-no-user-config",
                          "-no-reboot",
                          "-display",
                          "none",
                          "-serial",
                          "stdio",
                          "-device",
                          "isa-debug-exit,iobase=0xf4,iosize=0x4",
                          "-kernel",
                          guest,
                          NULL};
    struct process qemu;
    int status;

    if (!on_path(QEMU)) {
        cr_skip_test("no %s on PATH: install qemu-system-x86", QEMU);
    }
    cr_assert_not_null(guest, "%s is not set: run this test by Bazel", guest_variable);
    status = process_run(&qemu, argv, TIMEOUT_MILLISECONDS);
    cr_expect_not(qemu.timed_out, "%s with -cpu %s did not end", guest, cpu);
    cr_expect_eq(status, status_of(written), "%s with -cpu %s: status %d, QEMU says: %s", guest, cpu, status, qemu.err);
    cr_expect_str_eq(qemu.out, text, "%s with -cpu %s said: %s", guest, cpu, qemu.out);
    process_end(&qemu);
}

/* The page tables differ with the processor's page sizes, and must do with little memory too. */
struct machine {
    char guest[24], cpu[24], memory[8];
};

ParameterizedTestParameters(qemu, selftest_says_that_nothing_was_promised)
{
    static struct machine machines[] = {
        {"LOAM_SELFTEST", "qemu64,-pdpe1gb", "128M"},
        {"LOAM_SELFTEST", "qemu64,+pdpe1gb", "128M"},
        {"LOAM_SELFTEST", "max", "128M"},
        {"LOAM_SELFTEST", "max", "5G"},
        {"LOAM_SELFTEST_STRIPPED", "max", "128M"},
        {"LOAM_SELFTEST_STRIPPED", "qemu64,-pdpe1gb", "8M"},
    };

    return cr_make_param_array(struct machine, machines, sizeof machines / sizeof machines[0]);
}

ParameterizedTest(struct machine *machine, qemu, selftest_says_that_nothing_was_promised)
{
    boot(machine->guest, machine->cpu, machine->memory,
         "loam self-test: no host table was given: nothing to attest\r\n", LOAM_ABI_EXIT_NO_TABLE);
}

Test(qemu, selftest_without_long_mode_fails_at_once)
{
    boot("LOAM_SELFTEST", "qemu64,-lm", "128M", "", LOAM_ABI_EXIT_FAIL);
}

Test(qemu, runtime_moves_memory_as_it_should)
{
    boot("LOAM_RUNTIME_GUEST", "qemu64", "64M", "", LOAM_ABI_EXIT_PASS);
}

Test(qemu, stop_says_one_byte_and_stops)
{
    boot("LOAM_STOP", "qemu64", "128M", "L", LOAM_ABI_EXIT_PASS);
}

Test(qemu, stop_needs_no_long_mode)
{
    boot("LOAM_STOP", "qemu64,-lm", "8M", "L", LOAM_ABI_EXIT_PASS);
}
