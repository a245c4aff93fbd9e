// SPDX-License-Identifier: Apache-2.0
/*
 * Limits of the process and of its control group, as `loam plan` and `loam run` meet them: what the plan accepts is given,
 * what falls short is named (status 3), and a run that is told to end while its memory is made ends at once.
 */
#include "tests/integration/launch.h"
#include "tests/integration/tiny_kernel.h"
#include "tests/support/control_group.h"
#include "tests/support/sanitizer.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 120000
#define ARGUMENT_MAX       28
#define MIB                (UINT64_C(1) << 20)

extern const uint8_t guest_waits[], guest_waits_end[];

static struct control_group group;
static char folder[] = "/tmp/loam-limits-XXXXXX";
static char kernel_path[64];

static void set_up(void)
{
    need_kvm();
    cr_assert_not_null(mkdtemp(folder));
    snprintf(kernel_path, sizeof kernel_path, "%s/kernel", folder);
    tiny_kernel_write(kernel_path, "test", guest_waits, guest_waits_end);
}

static void tear_down(void)
{
    control_group_remove(&group);
    unlink(kernel_path);
    rmdir(folder);
}

TestSuite(limits, .init = set_up, .fini = tear_down, .timeout = 300);

/* What is skipped does not come to its end: it is cleaned up here. */
static void skip(const char *what, const char *reason)
{
    tear_down();
    cr_skip("%s: %s", what, reason);
}

static void make_group(const char *controller)
{
    const char *reason = control_group_make(&group, controller);

    if (reason != NULL) {
        skip(controller, reason);
    }
}

static void set_limit(const char *file, uint64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRIu64, value);
    if (!control_group_write(&group, file, text)) {
        skip(file, "cannot be set");
    }
}

/* Start argv, in the group if there is one. */
static void start(struct process *process, char *const argv[])
{
    char *inside[ARGUMENT_MAX];

    if (group.path[0] != '\0') {
        cr_assert(control_group_argv(&group, argv, inside, ARGUMENT_MAX));
    }
    cr_assert(process_start(process, group.path[0] != '\0' ? inside : argv, LIMIT_MILLISECONDS));
}

#define RUN(process, ...) run(process, (char *[]){__VA_ARGS__, NULL})

static int run(struct process *process, char *const argv[])
{
    start(process, argv);
    return process_wait(process);
}

/* Whether JSON has a check of that resource which falls short. */
static bool is_short(const char *text, const char *resource)
{
    json_t *root = json_loads(text, 0, NULL), *check;
    bool found = false;
    size_t i;

    json_array_foreach(json_object_get(json_object_get(root, "plan"), "checks"), i, check)
    {
        found = found || (strcmp(json_string_value(json_object_get(check, "resource")), resource) == 0 &&
                          json_is_true(json_object_get(check, "short")));
    }
    json_decref(root);
    return found;
}

/* --- Limits of the process ---------------------------------------------------------------------------------------- */

struct process_limit {
    char option[24]; /* of prlimit(1) */
    char pages[4];
    char memory[8];
    char vcpus[8];
    char resource[16];
};

ParameterizedTestParameters(limits_of_a_process, are_lines_of_the_plan)
{
    static struct process_limit limits[] = {
        {"--fsize=1048576", "4K", "16M", "1", "file size"},    {"--fsize=1048576", "2M", "16M", "1", "file size"},
        {"--as=1073741824", "4K", "2G", "1", "address space"}, {"--as=1073741824", "2M", "2G", "1", "address space"},
        {"--data=18874368", "4K", "16M", "1", "data size"},
    };

    return cr_make_param_array(struct process_limit, limits, sizeof limits / sizeof limits[0]);
}

ParameterizedTest(struct process_limit *limit, limits_of_a_process, are_lines_of_the_plan)
{
    struct process process;
    char start_of_line[32];

    need_kvm();
#ifdef LOAM_SANITIZED
    if (strcmp(limit->resource, "address space") == 0 || strcmp(limit->resource, "data size") == 0) {
        cr_skip("the sanitizer itself needs more %s", limit->resource);
    }
#endif
    snprintf(start_of_line, sizeof start_of_line, "\nloam: %s: ", limit->resource);
    RUN(&process, "prlimit", limit->option, loam_path(), "plan", "--json", "--memory", limit->memory, "--pages",
        limit->pages, "--vcpus", limit->vcpus);
    cr_expect_eq(process.status, 3, "%s: status %d: %s", limit->resource, process.status, process.err);
    cr_expect(is_short(process.out, limit->resource), "%s is not short in %s", limit->resource, process.out);
    process_end(&process);
    RUN(&process, "prlimit", limit->option, loam_path(), "run", "--memory", limit->memory, "--pages", limit->pages,
        "--vcpus", limit->vcpus, "--kernel", stop_path());
    cr_expect_eq(process.status, 3, "%s: status %d: %s", limit->resource, process.status, process.err);
    cr_expect_not_null(strstr(process.err, start_of_line), "%s: %s", limit->resource, process.err);
    cr_expect_null(strstr(process.err, "rsvd"), "%s", process.err);
    process_end(&process);
}

Test(limits, no_room_for_threads_is_named)
{
    SKIP_WHERE_A_SANITIZER_RUNS_THE_PROGRAM(tear_down);
    struct process process;

    make_group("pids");
    set_limit("pids.max", 1);
    cr_expect_eq(RUN(&process, loam_path(), "plan", "--memory", "16M", "--pages", "4K"), 3, "%s", process.err);
    cr_expect_not_null(strstr(process.err, "loam: threads: 3 beside this one wanted, 0 left of the control group's "
                                           "pids.max: raise it with: echo 4 > "),
                       "%s", process.err);
    process_end(&process);
    cr_expect_eq(RUN(&process, loam_path(), "run", "--memory", "16M", "--pages", "4K", "--kernel", stop_path()), 3);
    cr_expect_not_null(strstr(process.err, "pids.max"), "%s", process.err);
    process_end(&process);
}

/* --- Memory --------------------------------------------------------------------------------------------------------- */

/*
 * A group that may have hardly more than the guest: whatever the plan accepts is not killed, and it does not refuse much
 * that would run: 3 MiB more than the guest takes was seen to be enough, and 12 are asked for at most. Each limit is
 * judged by the run itself: what a process before it left charged to the group may be gone, or there, a moment later.
 */
static void check_memory_limit(char *pages)
{
    const char *limit;
    struct process process;
    uint64_t mib = 256;
    int status = 3;

    make_group("memory");
    limit = group.is_unified ? "memory.max" : "memory.limit_in_bytes";
    while (status == 3 && mib < 256 + 12) {
        set_limit(limit, ++mib * MIB);
        status = RUN(&process, loam_path(), "run", "--memory", "256M", "--pages", pages, "--timeout", "100");
        cr_expect(status != 3 || strstr(process.err, "cgroup: ") != NULL, "%s", process.err);
        cr_expect(status != 3 || strstr(process.err, "of page tables, ") != NULL, "%s", process.err);
        cr_expect(status == 3 || status == 0, "%s: accepted under %" PRIu64 " MiB, and ends with %d: %s", pages, mib,
                  status, process.err);
        process_end(&process);
    }
    cr_expect_eq(status, 0, "%s: not accepted below %" PRIu64 " MiB", pages, mib);
}

Test(limits, small_pages_that_the_plan_accepts_are_not_killed)
{
    SKIP_WHERE_A_SANITIZER_RUNS_THE_PROGRAM(tear_down);
    check_memory_limit("4K");
}

Test(limits, transparent_huge_pages_that_the_plan_accepts_are_not_killed)
{
    SKIP_WHERE_A_SANITIZER_RUNS_THE_PROGRAM(tear_down);
    check_memory_limit("thp");
}

/* What is left to first touch may be killed later: the plan says so, and does not refuse. */
Test(limits, memory_left_to_first_touch_is_warned_of)
{
    struct process process;

    make_group("memory");
    set_limit(group.is_unified ? "memory.max" : "memory.limit_in_bytes", 64 * MIB);
    cr_expect_eq(RUN(&process, loam_path(), "plan", "--memory", "256M", "--pages", "4K", "--lazy"), 0, "%s",
                 process.err);
    cr_expect_not_null(strstr(process.out, "(beyond it a touch of RAM kills; "), "%s", process.out);
    process_end(&process);
}

/* --- Hugepages that are charged at first touch ---------------------------------------------------------------------- */

static void limit_hugepages(uint64_t mib)
{
    if (free_pages("2M") < 64) {
        skip("hugetlb", "the pool has no 64 free pages of 2 MiB");
    }
    make_group("hugetlb");
    set_limit(group.is_unified ? "hugetlb.2MB.max" : "hugetlb.2MB.limit_in_bytes", mib * MIB);
}

Test(limits, two_guests_that_do_not_fit_are_told_so)
{
    struct process first, second;
    char *argv[] = {loam_path(), "run",       "--pages",   "2M", "--memory", "32M",
                    "--kernel",  kernel_path, "--timeout", "60", NULL};

    limit_hugepages(48);
    start(&first, argv);
    cr_expect(process_expect(&first, "L"), "%s", first.err);
    cr_expect_not_null(strstr(first.err, "populated when mapped: a control group's limit"), "%s", first.err);
    cr_expect_eq(run(&second, argv), 3, "status %d: %s", second.status, second.err);
    cr_expect_not_null(strstr(second.err, "\nloam: cgroup: 32 MiB of hugepages wanted, 16 MiB left of the limit"), "%s",
                       second.err);
    cr_expect_not_null(strstr(second.err, "/hugetlb.2MB."), "%s", second.err);
    process_end(&second);
    cr_expect(process_type(&first, "x"));
    cr_expect_eq(process_wait(&first), 1, "a reset is a failure: status %d: %s", first.status, first.err);
    process_end(&first);
}

/* Planned at the same moment: who falls short while populating is refused by name, and nobody is killed. */
Test(limits, guests_that_race_for_hugepages_run_or_are_told)
{
    enum { GUEST_COUNT = 4, ROUND_COUNT = 3 };
    struct process guests[GUEST_COUNT];
    char *argv[] = {loam_path(), "run", "--pages", "2M", "--memory", "32M", "--kernel", stop_path(), NULL};

    limit_hugepages(48);
    for (int round = 0; round < ROUND_COUNT; round++) {
        for (int i = 0; i < GUEST_COUNT; i++) {
            start(&guests[i], argv);
        }
        for (int i = 0; i < GUEST_COUNT; i++) {
            int status = process_wait(&guests[i]);

            cr_expect(status == 0 || (status == 3 && strstr(guests[i].err, "/hugetlb.2MB.") != NULL), "status %d: %s",
                      status, guests[i].err);
            process_end(&guests[i]);
        }
    }
}

/* --- Told to end while memory is made -------------------------------------------------------------------------------- */

/* What a process leaves behind comes to this one, and is waited for: it has to end by itself. */
static void wait_for_what_is_left(void)
{
    while (wait(NULL) > 0) {
    }
}

/* The most memory that the group has had, in bytes. */
static uint64_t group_peak(void)
{
    char path[CONTROL_GROUP_PATH_MAX + 32];
    uint64_t peak = UINT64_MAX;
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", group.path, group.is_unified ? "memory.peak" : "memory.max_usage_in_bytes");
    file = fopen(path, "r");
    if (file != NULL) {
        (void)!fscanf(file, "%" SCNu64, &peak);
        fclose(file);
    }
    return peak;
}

/* In a group of its own, which tells how much was populated: nowhere near all. */
static void check_end(char *pages, char *memory, int number)
{
    struct host_pools before = host_pools(), after;
    struct process process;
    char *argv[] = {loam_path(), "run",        "--pages",  pages,       "--memory",
                    memory,      "--populate", "--kernel", stop_path(), NULL};
    char said[64];

    cr_assert_eq(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    make_group("memory");
    start(&process, argv);
    while (strstr(process.err, " memory slots wanted") == NULL && process_read(&process)) {
    }
    kill(process.pid, number);
    cr_expect_eq(process_wait(&process), 128 + number, "%s: status %d: %s", pages, process.status, process.err);
    snprintf(said, sizeof said, "loam: stopped by signal %d\n", number);
    cr_expect_not_null(strstr(process.err, said), "%s", process.err);
    cr_expect_str_empty(process.out, "the guest began: %s", process.out);
    process_end(&process);
    after = host_pools();
    cr_expect_arr_eq(&before, &after, sizeof before, "hugepages were not given back");
    wait_for_what_is_left();
    cr_expect_lt(group_peak(), 2048 * MIB, "%s: all was populated all the same", pages);
    control_group_remove(&group);
}

Test(limits, a_signal_ends_populating_of_small_pages)
{
    if (SANITIZER_THREADS) {
        cr_skip("ThreadSanitizer takes the process that is left behind, which shares memory, for a fork");
    }
    check_end("4K", "2G", SIGTERM);
    check_end("4K", "2G", SIGINT);
    check_end("4K", "2G", SIGHUP);
}

Test(limits, a_signal_ends_populating_of_transparent_huge_pages)
{
    check_end("thp", "2G", SIGTERM);
}

Test(limits, time_that_is_up_ends_populating)
{
    struct process process;

    cr_expect_eq(RUN(&process, loam_path(), "run", "--pages", "4K", "--memory", "3G", "--timeout", "0.05", "--kernel",
                     stop_path()),
                 4, "status %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.err, "did not end within 0.05 s, and had not even begun"), "%s", process.err);
    cr_expect_str_empty(process.out);
    process_end(&process);
}

/* --- What a run has open ---------------------------------------------------------------------------------------------- */

/* How many descriptors of the process lead to path. */
static unsigned count_open(pid_t pid, const char *path)
{
    char folder_path[64], link[512], target[512];
    unsigned count = 0;
    struct dirent *entry;
    DIR *descriptors;

    snprintf(folder_path, sizeof folder_path, "/proc/%d/fd", (int)pid);
    descriptors = opendir(folder_path);
    cr_assert_not_null(descriptors);
    while ((entry = readdir(descriptors)) != NULL) {
        ssize_t length;

        snprintf(link, sizeof link, "%s/%s", folder_path, entry->d_name);
        length = readlink(link, target, sizeof target - 1);
        target[length > 0 ? length : 0] = '\0';
        count += strcmp(target, path) == 0;
    }
    closedir(descriptors);
    return count;
}

/* Starts the guest with memory of its own size; it waits, and resets itself into another life when something is typed. */
static void start_waiting(struct process *process)
{
    char *argv[] = {loam_path(), "run",        "--pages", "4K",        "--memory", "24M", "--kernel",
                    kernel_path, "--on-reset", "restart", "--timeout", "60",       NULL};

    start(process, argv);
    cr_expect(process_expect(process, "L"), "%s", process->err);
}

/*
 * The question how much KVM gives is asked before the machine is made, and its handle is closed; nothing stays open of a
 * former life.
 */
Test(limits, kvm_is_open_once)
{
    struct process process;

    start_waiting(&process);
    for (int life = 1; life <= 2; life++) {
        cr_expect_leq(count_open(process.pid, "/dev/kvm"), 1, "life %d", life);
        cr_expect_eq(count_open(process.pid, "anon_inode:kvm-vm"), 1, "life %d", life);
        cr_expect(process_type(&process, "x"));
        cr_expect(process_expect(&process, life == 1 ? "LL" : "LLL"), "%s", process.err);
    }
    process_end(&process);
}

/* How many mappings of the process have that size; flags are the last one's VmFlags (proc(5)). */
static unsigned find_mapping(pid_t pid, unsigned long kib, char flags[512])
{
    char path[64], line[512];
    unsigned long size = 0;
    unsigned count = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/smaps", (int)pid);
    file = fopen(path, "r");
    cr_assert_not_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "Size: %lu kB", &size);
        if (strncmp(line, "VmFlags:", 8) == 0 && size == kib) {
            snprintf(flags, 512, "%s", line);
            count++;
        }
    }
    fclose(file);
    return count;
}

/* Neither a child nor who reads a core dump has business with it; one life's memory goes before the next one's comes. */
Test(limits, guest_memory_is_the_runs_alone)
{
    struct process process;
    char flags[512] = "";

    start_waiting(&process);
    cr_expect(process_type(&process, "x"));
    cr_expect(process_expect(&process, "LL"), "%s", process.err);
    cr_expect_eq(find_mapping(process.pid, 24 * 1024, flags), 1);
    cr_expect_not_null(strstr(flags, " dc"), "not kept from children: %s", flags);
    cr_expect_not_null(strstr(flags, " dd"), "not kept from core dumps: %s", flags);
    process_end(&process);
}
