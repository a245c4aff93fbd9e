// SPDX-License-Identifier: Apache-2.0
/* `loam run --gdb PORT|PATH` with GDB itself, on the self-test and on a guest that has symbols. */
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 60000
#define GDB                "/usr/bin/gdb"
#define ARGUMENT_MAX       64

static char folder[] = "/tmp/loam-gdb-XXXXXX";
static char socket_path[64];
static struct process loam, gdb;

static void set_up(void)
{
    need_kvm();
    need_file(GDB);
    cr_assert_not_null(mkdtemp(folder));
    snprintf(socket_path, sizeof socket_path, "%s/socket", folder);
}

static void tear_down(void)
{
    process_end(&gdb);
    process_end(&loam);
    unlink(socket_path);
    rmdir(folder);
}

TestSuite(gdb_run, .init = set_up, .fini = tear_down, .timeout = 120);

static char *guest_path(void)
{
    return getenv("LOAM_GDB_GUEST");
}

/* Until it says on standard error that it waits. */
static void await_loam(void)
{
    while (strstr(loam.err, "the guest waits for a debugger") == NULL && process_read(&loam)) {
    }
    cr_assert_not_null(strstr(loam.err, "the guest waits for a debugger"), "%s", loam.err);
}

#define START_LOAM(where, ...)                                                                                         \
    do {                                                                                                               \
        char *argv[] = {                                                                                               \
            loam_path(), "run", "--memory", "32M", "--pages", "4K", "--gdb", where __VA_OPT__(, ) __VA_ARGS__, NULL};  \
                                                                                                                       \
        cr_assert(process_start(&loam, argv, LIMIT_MILLISECONDS));                                                     \
        await_loam();                                                                                                  \
    } while (false)

/* GDB on a file, with commands one after the other. */
static void start_gdb(char *file, const char *target, char *const commands[])
{
    char connect[128];
    char *argv[ARGUMENT_MAX] = {
        GDB, "-nx", "-batch", "-ex", "set debuginfod enabled off", "-ex", "set pagination off", "-ex", connect};
    size_t count = 9;

    snprintf(connect, sizeof connect, "target remote %s", target);
    for (size_t i = 0; commands[i] != NULL; i++) {
        cr_assert_lt(count + 4, ARGUMENT_MAX);
        argv[count++] = "-ex";
        argv[count++] = commands[i];
    }
    argv[count++] = file;
    argv[count] = NULL;
    cr_assert(process_start(&gdb, argv, LIMIT_MILLISECONDS));
}

#define START_GDB(file, target, ...) start_gdb(file, target, (char *[]){__VA_ARGS__, NULL})

/* What GDB says, line by line, in this order. */
static void expect_said(char *const lines[])
{
    const char *at;

    (void)process_wait(&gdb);
    at = gdb.out;
    for (size_t i = 0; lines[i] != NULL; i++) {
        const char *found = strstr(at, lines[i]);

        cr_expect_not_null(found, "%s: not found in:\n%s\n%s", lines[i], at, gdb.err);
        at = found != NULL ? found + strlen(lines[i]) : at;
    }
}

#define EXPECT_SAID(...) expect_said((char *[]){__VA_ARGS__, NULL})

static void expect_end(int status)
{
    cr_expect_eq(process_wait(&loam), status, "status %d wanted, %d found: %s", status, loam.status, loam.err);
    cr_expect_neq(access(socket_path, F_OK), 0, "the socket goes with the run");
}

/* The self-test passes under a debugger as it does without, breakpoints in its code and all. */
Test(gdb_run, the_self_test_passes)
{
    START_LOAM(socket_path);
    START_GDB(getenv("LOAM_SELFTEST"), socket_path, "info registers cr0", "x/i $pc", "break guest_main", "continue",
              "info registers efer", "p/x $cs", "stepi", "delete", "continue");
    EXPECT_SAID("cr0            0x11 ",
                "=> 0x100000 <start>:", "Breakpoint 1, guest_main (start_info=", "efer           0x500", "$1 = 0x8",
                "exited normally");
    expect_end(0);
    cr_expect_not_null(strstr(loam.out, "8 of 8 checks"), "%s", loam.out);
}

Test(gdb_run, a_guest_is_looked_into_and_led_to_its_end)
{
    START_LOAM(socket_path, "--kernel", guest_path());
    START_GDB(guest_path(), socket_path, "break next_round", "continue", "continue", "p round", "p rounds", "bt 2",
              "delete", "finish", "p rounds", "x/2xb &rounds", "monitor phys on", "x/2xb &rounds", "monitor phys off",
              "set var is_to_end = 1", "p is_to_end", "nexti", "continue");
    EXPECT_SAID("Breakpoint 1, next_round (round=0)", "Breakpoint 1, next_round (round=1)", "$1 = 1", "$2 = 1",
                "#0  next_round (round=1)", "#1  ", "guest_main (start_info=", "Value returned is $3 = 2", "$4 = 2",
                "<rounds>:\t0x02", "<rounds>:\t0x02", "$5 = true", "exited with code 07");
    cr_expect_not_null(strstr(gdb.err, "addresses are guest-physical"), "%s", gdb.err);
    expect_end(7);
}

Test(gdb_run, a_port_will_do_and_hardware_breakpoints_too)
{
    char target[64], *at;

    START_LOAM("0", "--kernel", guest_path());
    at = strstr(loam.err, "127.0.0.1:");
    cr_assert_not_null(at, "%s", loam.err);
    snprintf(target, sizeof target, "%.*s", (int)strcspn(at, "'"), at);
    START_GDB(guest_path(), target, "hbreak next_round", "continue", "p round", "delete", "set var is_to_end = 1",
              "continue");
    EXPECT_SAID("Breakpoint 1, next_round (round=0)", "$1 = 0", "exited with code 07");
    expect_end(7);
}

/* Ctrl-C in GDB, once the guest says that it is on its way; two vCPUs, one at a time. */
Test(gdb_run, two_vcpus_are_stopped_and_stepped)
{
    START_LOAM(socket_path, "--vcpus", "2", "--kernel", guest_path());
    START_GDB(guest_path(), socket_path, "info threads", "continue", "info threads", "set scheduler-locking on",
              "thread 2", "set $rip = 4", "stepi", "p $rip", "p/x *(unsigned short *)0x8800 != 0", "thread 1", "stepi",
              "set scheduler-locking off", "set var is_to_end = 1", "continue");
    cr_assert(process_expect(&loam, "ready"), "%s", loam.err);
    cr_assert_eq(kill(gdb.pid, SIGINT), 0);
    EXPECT_SAID("* 1    Thread 1 (vCPU 0: running)", "2    Thread 2 (vCPU 1: not started)", "received signal SIGINT",
                "Thread 2 (vCPU 1: running)", "[Switching to thread 2", "$1 = (void (*)()) 0x9", "$2 = 0x1",
                "[Switching to thread 1", "exited with code 07");
    expect_end(7);
}

static json_int_t count_lines(const char *path)
{
    FILE *file = fopen(path, "r");
    char line[4096];
    json_int_t count = 0;

    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        count++;
    }
    fclose(file);
    return count;
}

/* Stops and steps are exits, too, and those that KVM does not tell of are none. */
Test(gdb_run, goes_with_a_trace)
{
    char trace_path[64];
    json_t *root;

    snprintf(trace_path, sizeof trace_path, "%s/trace", folder);
    START_LOAM(socket_path, "--json", "--trace", trace_path);
    START_GDB(getenv("LOAM_SELFTEST"), socket_path, "break guest_main", "continue", "stepi 20", "delete",
              "hbreak check_ring", "continue", "stepi 20", "delete", "continue");
    EXPECT_SAID("Breakpoint 1, guest_main", "exited normally");
    expect_end(0);
    root = json_loads(loam.out, 0, NULL);
    cr_expect_eq(count_lines(trace_path), json_integer_value(json_object_get(json_object_get(root, "stop"), "exits")));
    json_decref(root);
    unlink(trace_path);
}

/* "quit" detaches from what was there before it came. */
Test(gdb_run, one_that_quits_leaves_a_guest_that_goes_on)
{
    START_LOAM(socket_path);
    START_GDB(getenv("LOAM_SELFTEST"), socket_path, "break guest_main", "continue");
    EXPECT_SAID("Breakpoint 1, guest_main", "detached]");
    expect_end(0);
}

Test(gdb_run, one_that_kills_ends_the_run)
{
    START_LOAM(socket_path, "--kernel", guest_path());
    START_GDB(guest_path(), socket_path, "kill");
    EXPECT_SAID("killed]");
    expect_end(0);
    process_end(&gdb);
    process_end(&loam);
    START_LOAM(socket_path);
    START_GDB(getenv("LOAM_SELFTEST"), socket_path, "kill");
    (void)process_wait(&gdb);
    expect_end(4);
    cr_expect_not_null(strstr(loam.out, "the debugger ended it"), "%s", loam.out);
}

/* A run that waits for its debugger is a run: it ends at its time, and at a signal. */
Test(gdb_run, nobody_comes)
{
    START_LOAM(socket_path, "--timeout", "0.5");
    expect_end(4);
    process_end(&loam);
    START_LOAM(socket_path);
    cr_assert_eq(kill(loam.pid, SIGINT), 0);
    expect_end(130);
}

Test(gdb_run, where_nobody_can_come_is_refused)
{
    char *argv[] = {loam_path(), "run", "--gdb", "/nowhere/at/all", NULL};

    cr_expect_eq(process_run(&loam, argv, LIMIT_MILLISECONDS), 2);
    cr_expect_not_null(strstr(loam.err, "loam: --gdb /nowhere/at/all: bind: No such file or directory"), "%s",
                       loam.err);
}
