// SPDX-License-Identifier: Apache-2.0
/* The command line as a person meets it: exit statuses, one clear line for each mistake, nothing left behind. */
#include "tests/integration/launch.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned count_lines(const char *text)
{
    unsigned count = 0;

    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

struct mistake {
    char arguments[4][40];
    char says[48];
    int status;
};

ParameterizedTestParameters(cli, a_mistake_gets_one_line)
{
    static struct mistake mistakes[] = {
        {{"run", "--memory", "12Q"}, "--memory 12Q: not a size", 2},
        {{"run", "--memory="}, "not a size", 2},
        {{"run", "--memory", "-1G"}, "not a size", 2},
        {{"run", "--memory", "99999999999G"}, "not a size", 2},
        {{"run", "--memory", "0"}, "", 2},
        {{"run", "--memory", "1000001"}, "", 2},
        {{"run", "--memory=8191T", "--pages=4K"}, "", 2},
        {{"plan", "--memory", "100M", "--pages=1G"}, "1 GiB", 2},
        {{"run", "--pages", "3M"}, "--pages 3M: no such kind", 2},
        {{"run", "--low-limit", "4G"}, "3 GiB", 2},
        {{"run", "--low-limit", "0"}, "--low-limit 0", 2},
        {{"run", "--vcpus", "0"}, "--vcpus 0: not a number", 2},
        {{"run", "--vcpus", "two"}, "--vcpus two: not a number", 2},
        {{"run", "--timeout", "soon"}, "--timeout soon: not a number", 2},
        {{"run", "--timeout", "-1"}, "--timeout -1: not a number", 2},
        {{"run", "--populate", "--lazy"}, "contradict", 2},
        {{"plan", "--lock", "--lazy"}, "--lock and --lazy contradict", 2},
        {{"run", "--cmdline", "x"}, "--cmdline goes with --kernel", 2},
        {{"run", "--kernel", "/no/such/file"}, "/no/such/file: no such file", 2},
        {{"run", "--kernel", "/"}, "no regular file", 2},
        {{"run", "--kernel", "/dev/null"}, "no regular file", 2},
        {{"run", "--kernel", "/etc/passwd"}, "/etc/passwd", 2},
        {{"run", "extra"}, "extra: not an option", 2},
        {{"version", "extra"}, "no options", 2},
        {{"fly"}, "fly: no such command", 2},
        {{"../fly"}, "../fly: no such command", 2},
        {{"fly\a"}, "fly\\x07: no such command", 2},
        {{"run", "--kernel", "/no\033[31m\xff"}, "/no\\x1b[31m\\xff: no such file", 2},
        {{"run", "--memory", "1\033[2J"}, "--memory 1\\x1b[2J: not a size", 2},
        {{"run", "--node", "77"}, "--node 77: not a number from 0 to 63", 2},
        {{"run", "--node", "63", "--pages=4K"}, "node", 3},
    };

    return cr_make_param_array(struct mistake, mistakes, sizeof mistakes / sizeof mistakes[0]);
}

ParameterizedTest(struct mistake *mistake, cli, a_mistake_gets_one_line)
{
    struct process process;
    char *argv[] = {loam_path(), NULL, NULL, NULL, NULL, NULL};

    for (unsigned i = 0; i < 4 && mistake->arguments[i][0] != '\0'; i++) {
        argv[i + 1] = mistake->arguments[i];
    }
    if (strcmp(argv[1], "run") == 0) {
        need_kvm();
    }
    cr_expect_eq(process_run(&process, argv, 10000), mistake->status, "%s %s %s: exit %d: %s", mistake->arguments[0],
                 mistake->arguments[1], mistake->arguments[2], process.status, process.err);
    cr_expect_eq(count_lines(process.err), 1, "not one line: %s", process.err);
    cr_expect_eq(strncmp(process.err, "loam", 4), 0, "%s: who says so?", process.err);
    cr_expect_not_null(strstr(process.err, mistake->says), "%s: does not say %s", process.err, mistake->says);
    process_end(&process);
}

/* Who reads JSON gets an object whatever is wrong. */
Test(cli, a_mistake_is_an_object_too)
{
    char *const mistakes[][6] = {{loam_path(), "run", "--json", "--bogus", NULL, NULL},
                                 {loam_path(), "plan", "--memory", "16E", "--json", NULL},
                                 {loam_path(), "run", "--lazy", "--json", "--lock", NULL},
                                 {loam_path(), "run", "--json", "--kernel", NULL, NULL},
                                 {loam_path(), "run", "--json", "\xff", NULL, NULL}};
    static const char *const says[] = {
        "unrecognized option '--bogus'",
        "--memory 16E: not a size: give a number with K, M, G or T, such as 256M",
        "--lock and --lazy contradict each other (what is locked is populated): give one of them",
        "option '--kernel' requires an argument",
        "\xef\xbf\xbd: not an option",
    };

    for (unsigned i = 0; i < sizeof says / sizeof says[0]; i++) {
        struct process process;
        json_t *root;

        cr_expect_eq(process_run(&process, mistakes[i], 10000), 2);
        root = json_loads(process.out, 0, NULL);
        cr_assert_not_null(root, "%s", process.out);
        cr_expect_str_eq(json_string_value(json_object_get(root, "error")), says[i]);
        cr_expect_eq(json_integer_value(json_object_get(root, "exit")), 2);
        cr_expect_eq(count_lines(process.err), 1, "not one line: %s", process.err);
        json_decref(root);
        process_end(&process);
    }
}

Test(cli, help_and_version_go_to_standard_output)
{
    static const struct {
        char *words[3];
        const char *says;
    } commands[] = {
        {{"help"}, "Usage: loam COMMAND"}, {{"--help"}, "Usage: loam COMMAND"},        {{"run", "--help"}, "Examples:"},
        {{"plan", "--help"}, "Examples:"}, {{"run", "--json", "--help"}, "Examples:"}, {{"version"}, "loam 0."},
        {{"--version"}, "loam 0."}};

    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char *argv[] = {loam_path(), commands[i].words[0], commands[i].words[1], commands[i].words[2], NULL};
        struct process process;

        cr_expect_eq(process_run(&process, argv, 10000), 0);
        cr_expect_str_empty(process.err);
        cr_expect_not_null(strstr(process.out, commands[i].says), "%s", process.out);
        cr_expect_null(strstr(process.out, "\"error\""), "%s", process.out);
        process_end(&process);
    }
}

Test(cli, without_a_command_it_says_which_there_are)
{
    struct process process;
    char *argv[] = {loam_path(), NULL};

    cr_expect_eq(process_run(&process, argv, 10000), 2);
    cr_expect_str_empty(process.out);
    cr_expect_not_null(strstr(process.err, "Usage: loam COMMAND"), "%s", process.err);
    process_end(&process);
}

Test(cli, plan_maps_nothing_and_says_what_falls_short)
{
    struct host_pools before = host_pools(), after;
    struct process process;
    char *fits[] = {loam_path(), "plan", "--memory", "64M", "--pages", "4K", NULL};
    char *short_of[] = {loam_path(), "plan", "--memory", "2048G", "--pages", "2M", NULL};

    cr_expect_eq(process_run(&process, fits, 10000), 0, "%s", process.err);
    cr_expect_not_null(strstr(process.out, "64 MiB"));
    process_end(&process);
    cr_expect_eq(process_run(&process, short_of, 10000), 3);
    cr_expect_not_null(strstr(process.err, "pool: 1048576 x 2 MiB hugepages wanted"), "%s", process.err);
    cr_expect_not_null(strstr(process.err, "nr_hugepages"), "the line does not say what mends it: %s", process.err);
    process_end(&process);
    after = host_pools();
    cr_expect_arr_eq(&before, &after, sizeof before);
}

/* What the plan of a small guest with these further arguments counts for the process itself. */
static json_int_t own_bytes(char *const arguments[6])
{
    char *argv[16] = {loam_path(), "plan", "--json", "--memory", "16M", "--pages", "4K"};
    struct process process;
    json_int_t bytes;
    json_t *root;

    memcpy(argv + 7, arguments, 6 * sizeof argv[0]);
    cr_expect_eq(process_run(&process, argv, 10000), 0, "%s", process.err);
    root = json_loads(process.out, 0, NULL);
    bytes = json_integer_value(json_object_get(json_object_get(root, "plan"), "own_bytes"));
    cr_expect_gt(bytes, 0, "%s", process.out);
    json_decref(root);
    process_end(&process);
    return bytes;
}

static json_int_t file_bytes(const char *path)
{
    struct stat status;

    cr_assert_eq(stat(path, &status), 0, "%s", path);
    return status.st_size;
}

/* The files are read into memory beside the guest's, and each vCPU has a thread. */
Test(cli, a_plan_counts_files_and_vcpus)
{
    char *kernel = stop_path(), *initrd = loam_path();
    json_int_t bare = own_bytes((char *[6]){NULL}), kernel_bytes = file_bytes(kernel);

    cr_expect_eq(own_bytes((char *[6]){"--kernel", kernel}), bare + kernel_bytes);
    cr_expect_eq(own_bytes((char *[6]){"--kernel", kernel, "--initrd", initrd}),
                 bare + kernel_bytes + file_bytes(initrd));
    cr_expect_eq(own_bytes((char *[6]){"--kernel", "/no/such/file"}), bare);
    cr_expect_eq(own_bytes((char *[6]){"--vcpus", "2"}), bare + 256 * 1024);
}

/* Standard output would be the guest's when it runs. */
Test(cli, a_plan_for_a_kernel_goes_to_standard_output)
{
    struct process process;
    char *argv[] = {loam_path(), "plan", "--memory", "16M", "--pages", "4K", "--kernel", stop_path(), NULL};

    cr_expect_eq(process_run(&process, argv, 10000), 0, "%s", process.err);
    cr_expect_not_null(strstr(process.out, "as 4096 x 4 KiB pages"), "%s", process.out);
    cr_expect_str_empty(process.err);
    process_end(&process);
}

/* The RAM is one slot here; 8 more are for the pieces that read-only ranges cut it into. */
Test(cli, a_plan_asks_kvm_what_it_has)
{
    struct process process;
    char *argv[] = {loam_path(), "plan", "--memory", "16M", "--pages", "4K", NULL};

    need_kvm();
    cr_expect_eq(process_run(&process, argv, 10000), 0, "%s", process.err);
    cr_expect_not_null(strstr(process.out, " 9 memory slots wanted, the hypervisor has "), "%s", process.out);
    cr_expect_not_null(strstr(process.out, " 1 vCPUs wanted, the hypervisor has "), "%s", process.out);
    process_end(&process);
}

/* As nobody: no right to /dev/kvm where only root and its group have it. */
Test(cli, without_a_right_to_kvm)
{
    struct process process;
    char *argv[] = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", loam_path(), "run", NULL};

    need_kvm();
    need_root();
    process_run(&process, argv, 10000);
    if (process.status == 127 || strstr(process.err, "setpriv") != NULL) {
        cr_skip_test("the program cannot be run as nobody here: %s", process.err);
    }
    cr_expect_eq(process.status, 3, "exit %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.err, "/dev/kvm"), "%s", process.err);
    cr_expect_eq(count_lines(process.err), 1, "%s", process.err);
    process_end(&process);
}

Test(cli, a_guest_that_prints_one_byte)
{
    struct process process;
    char *argv[] = {loam_path(), "run", "--memory", "64M", "--pages", "4K", "--kernel", stop_path(), NULL};

    need_kvm();
    cr_expect_eq(process_run(&process, argv, 10000), 0, "%s", process.err);
    cr_expect_str_eq(process.out, "L");
    process_end(&process);
}

/* Stopped by a signal: the status says which, and the pools are as before. */
static void check_signal(int number)
{
    struct host_pools before = host_pools(), after;
    struct process process;
    char *argv[] = {loam_path(), "run", "--memory", "256M", "--pages", free_pages("2M") >= 128 ? "2M" : "4K", NULL};

    need_kvm();
    cr_assert(process_start(&process, argv, 60000));
    cr_assert(process_expect(&process, "pattern"), "the guest did not start: %s", process.err);
    kill(process.pid, number);
    cr_expect_eq(process_wait(&process), 128 + number, "exit %d: %s", process.status, process.err);
    process_end(&process);
    after = host_pools();
    cr_expect_arr_eq(&before, &after, sizeof before, "hugepages were not given back");
}

Test(cli, stopped_by_sigint)
{
    check_signal(SIGINT);
}

Test(cli, stopped_by_sigterm)
{
    check_signal(SIGTERM);
}

Test(cli, killed_outright_leaves_no_hugepages)
{
    check_signal(SIGKILL);
}

Test(cli, timeout_ends_a_guest_that_hangs)
{
    struct process process;
    char *argv[] = {loam_path(), "run", "--memory", "256M", "--pages", "4K", "--timeout", "0.05", NULL};

    need_kvm();
    cr_expect_eq(process_run(&process, argv, 60000), 4, "exit %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.err, "did not end within 0.05 s"), "%s", process.err);
    process_end(&process);
}

/* Neither colour nor progress into a pipe; both on a terminal. */
Test(cli, colour_only_on_a_terminal)
{
    struct process process;
    char *argv[] = {loam_path(), "run", "--memory", "64M", "--pages", "4K", NULL};

    need_kvm();
    cr_expect_eq(process_run(&process, argv, 60000), 0, "%s", process.err);
    cr_expect_null(strchr(process.out, '\033'), "%s", process.out);
    process_end(&process);
    cr_assert(process_start_on_terminal(&process, argv, 60000));
    cr_expect_eq(process_wait(&process), 0);
    cr_expect_not_null(strchr(process.out, '\033'));
    process_end(&process);
}

/* --- Neighbours --------------------------------------------------------------------------------------------------- */

static char house[] = "/tmp/loam-cli-XXXXXX";
static char loam_copy[64];

/* In the house, as in a build: bin/loam, and tools/. */
static void move_in(void)
{
    char path[128];
    struct process process;
    char *copy[] = {"cp", loam_path(), loam_copy, NULL};

    cr_assert_not_null(mkdtemp(house));
    snprintf(path, sizeof path, "%s/bin", house);
    cr_assert_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/tools", house);
    cr_assert_eq(mkdir(path, 0700), 0);
    snprintf(loam_copy, sizeof loam_copy, "%s/bin/loam", house);
    cr_expect_eq(process_run(&process, copy, 10000), 0, "%s", process.err);
    process_end(&process);
}

static void move_out(void)
{
    struct process process;
    char *remove[] = {"rm", "-r", house, NULL};

    process_run(&process, remove, 10000);
    process_end(&process);
}

TestSuite(neighbours, .init = move_in, .fini = move_out);

/* A script folder/loam-NAME that says hello to its argument, and ends with 7 if its descriptors are open. */
static void make_neighbour(const char *folder, const char *name, mode_t mode)
{
    char path[256];
    FILE *script;

    snprintf(path, sizeof path, "%s/%s/loam-%s", house, folder, name);
    script = fopen(path, "w");
    cr_assert_not_null(script);
    fputs("#!/bin/sh\n"
          "[ /dev/fd/0 -ef /dev/null ] && [ /dev/fd/2 -ef /dev/null ] || exit 8\n"
          "echo \"hello $1\"\nexit 7\n",
          script);
    fclose(script);
    chmod(path, mode);
}

static int call_neighbour(struct process *process, char *name)
{
    char *argv[] = {loam_copy, name, "you", NULL};

    return process_run(process, argv, 10000);
}

/* Arguments and exit status pass through, closed descriptors not. */
static void check_greeting(const char *name)
{
    struct process process;
    char *argv[] = {"sh", "-c", "exec \"$0\" \"$1\" you <&- 2>&-", loam_copy, (char *)name, NULL};

    cr_expect_eq(process_run(&process, argv, 10000), 7, "%s", process.err);
    cr_expect_str_eq(process.out, "hello you\n");
    process_end(&process);
}

/* A program loam-NAME beside loam is its command NAME; one of a build's tools too. */
Test(neighbours, are_commands)
{
    char longest[64] = {0};

    memset(longest, 'n', 63);
    make_neighbour("bin", "greet-1", 0700);
    make_neighbour("tools", "tool", 0700);
    make_neighbour("bin", longest, 0700);
    check_greeting("greet-1");
    check_greeting("tool");
    check_greeting(longest);
}

/* Also where there is a program of that name. */
Test(neighbours, have_names_and_no_paths)
{
    static const char *const names[] = {"", "-x", "Greet", "greet.sh"};
    char too_long[65] = {0};
    struct process process;

    memset(too_long, 'n', 64);
    make_neighbour("bin", too_long, 0700);
    cr_expect_eq(call_neighbour(&process, too_long), 2, "%s", process.err);
    process_end(&process);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[32], said[160];

        snprintf(name, sizeof name, "%s", names[i]);
        snprintf(said, sizeof said,
                 "loam: %s: no such command, and no program loam-%s beside this one: see loam --help\n", name, name);
        make_neighbour("bin", name, 0700);
        cr_expect_eq(call_neighbour(&process, name), 2, "'%s' is called", name);
        cr_expect_str_eq(process.err, said);
        process_end(&process);
    }
}

Test(neighbours, that_cannot_be_run_are_status_3)
{
    struct process process;

    make_neighbour("bin", "greet", 0600);
    cr_expect_eq(call_neighbour(&process, "greet"), 3, "%s", process.err);
    cr_expect_not_null(strstr(process.err, "/loam-greet: Permission denied\n"), "%s", process.err);
    process_end(&process);
}
