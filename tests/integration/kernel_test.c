// SPDX-License-Identifier: Apache-2.0
/* Kernels that others wrote, as `loam run --kernel` meets them: how they end, what they are given, what is said of it. */
#include "tests/integration/launch.h"

#include "tests/integration/tiny_kernel.h"
#include "tests/support/control_group.h"
#include "tests/support/sanitizer.h"
#include "vmm/kvm.h"
#include "vmm/tune.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 60000

#define GUEST(name) extern const uint8_t guest_##name[], guest_##name##_end[]

GUEST(code_0);
GUEST(code_2);
GUEST(code_42);
GUEST(code_298);
GUEST(halts);
GUEST(restores);
GUEST(leaps);
GUEST(legacy_paging);
GUEST(reaches_far);
GUEST(triple_fault);
GUEST(turns_off);
GUEST(panics);
GUEST(panics_aloud);
GUEST(panics_and_resets);
GUEST(reset);
GUEST(forgets);
GUEST(waits);
GUEST(says);
GUEST(module);
GUEST(repeats);
GUEST(writes_late);
GUEST(stores_late);

static char folder[] = "/tmp/loam-kernel-XXXXXX";
static char kernel_path[64], initrd_path[64];

static void set_up(void)
{
    need_kvm();
    cr_assert_not_null(mkdtemp(folder));
    snprintf(kernel_path, sizeof kernel_path, "%s/kernel", folder);
    snprintf(initrd_path, sizeof initrd_path, "%s/initrd", folder);
}

static struct control_group group;

static void tear_down(void)
{
    control_group_remove(&group);
    unlink(kernel_path);
    unlink(initrd_path);
    rmdir(folder);
}

TestSuite(kernel, .init = set_up, .fini = tear_down);

#define MAKE_KERNEL(name) tiny_kernel_write(kernel_path, "test", guest_##name, guest_##name##_end)

#define ARGUMENT_MAX 8

/* Start the kernel with up to ARGUMENT_MAX further arguments, NULL-terminated. */
static void fill_argv(char *argv[12 + ARGUMENT_MAX], char *const arguments[])
{
    char *first[] = {loam_path(), "run", "--memory", "16M", "--pages", "4K", "--kernel", kernel_path};
    size_t count = sizeof first / sizeof first[0];

    memcpy(argv, first, sizeof first);
    for (size_t i = 0; arguments[i] != NULL; i++) {
        cr_assert_lt(i, ARGUMENT_MAX);
        argv[count++] = arguments[i];
    }
    argv[count] = NULL;
}

#define RUN(process, ...) run(process, (char *[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static int run(struct process *process, char *const arguments[])
{
    char *argv[12 + ARGUMENT_MAX];

    fill_argv(argv, arguments);
    return process_run(process, argv, LIMIT_MILLISECONDS);
}

/* What Loam itself says after the plan, which stands on standard error too. */
static unsigned count_lines(const char *text)
{
    unsigned count = 0;

    for (const char *at = text; (at = strstr(at, "loam: ")) != NULL; at++) {
        count += at == text || at[-1] == '\n';
    }
    return count;
}

/* The status, and the only line (NULL: none). */
static void check_end(int status, const char *says, char *const arguments[])
{
    struct process process;

    cr_expect_eq(run(&process, arguments), status, "status %d wanted, %d found: %s", status, process.status,
                 process.err);
    cr_expect_eq(count_lines(process.err), says != NULL ? 1 : 0, "%s", process.err);
    if (says != NULL) {
        cr_expect_not_null(strstr(process.err, says), "%s", process.err);
    }
    process_end(&process);
}

#define CHECK_END(status, says, ...) check_end(status, says, (char *[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* All that is said last, up to its end; arguments NULL: none. */
static void check_last_line(const char *what, int status, const char *says, char *const arguments[])
{
    static char *none[] = {NULL};
    struct process process;
    size_t length = strlen(says);

    cr_expect_eq(run(&process, arguments != NULL ? arguments : none), status, "%s: status %d: %s", what, process.status,
                 process.err);
    cr_expect(process.err_bytes >= length && strcmp(process.err + process.err_bytes - length, says) == 0,
              "%s: wanted last:\n%s\nfound:\n%s", what, says, process.err);
    process_end(&process);
}

static json_t *run_json_with(int status, char *const arguments[])
{
    struct process process;
    json_t *root;

    cr_expect_eq(run(&process, arguments), status, "status %d wanted, %d found: %s", status, process.status,
                 process.err);
    root = json_loads(process.out, 0, NULL);
    cr_assert_not_null(root, "%s", process.out);
    cr_expect_eq(json_integer_value(json_object_get(root, "exit")), status);
    cr_expect_null(json_object_get(root, "verdict"), "there is none but on the self-test");
    process_end(&process);
    return root;
}

static json_t *run_json(int status)
{
    return run_json_with(status, (char *[]){"--json", NULL});
}

/* --- How a guest ends --------------------------------------------------------------------------------------------- */

Test(kernel, its_own_code_is_the_exit_status_where_it_fits)
{
    json_t *root;

    MAKE_KERNEL(code_0);
    CHECK_END(0, NULL);
    MAKE_KERNEL(code_42);
    CHECK_END(42, "loam: the guest stopped itself with code 42\n");
    root = run_json(42);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(root, "stop"), "exit_code")), 42);
    cr_expect_str_eq(json_string_value(json_object_get(root, "error")), "the guest stopped itself with code 42");
    json_decref(root);
}

/* Statuses that mean something else, and what an exit status would cut off. */
Test(kernel, its_own_code_is_never_taken_for_anothers)
{
    json_t *root;

    MAKE_KERNEL(code_2);
    CHECK_END(1, "loam: the guest stopped itself with code 2\n");
    MAKE_KERNEL(code_298);
    CHECK_END(1, "loam: the guest stopped itself with code 298\n");
    root = run_json(1);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(root, "stop"), "exit_code")), 298);
    json_decref(root);
}

Test(kernel, that_turns_itself_off_has_passed)
{
    json_t *root;

    MAKE_KERNEL(turns_off);
    CHECK_END(0, NULL);
    root = run_json(0);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "stop"), "reason")), "power-off");
    json_decref(root);
}

Test(kernel, that_panics_has_failed)
{
    json_t *root;

    MAKE_KERNEL(panics);
    CHECK_END(1, "loam: the guest has panicked, as it said by writing 0x1 to port 0x505: its console says why\n");
    root = run_json(1);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "stop"), "reason")), "panic");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(root, "stop"), "exit_code")), 1);
    json_decref(root);
}

#define PANIC "Kernel panic - not syncing: Attempted to kill init!\n"

Test(kernel, that_panics_is_told_of_with_its_own_reason)
{
    MAKE_KERNEL(panics_aloud);
    CHECK_END(1, "loam: the guest has panicked, as it said by writing 0x1 to port 0x505: " PANIC);
    CHECK_END(1, PANIC, "--on-reset", "pass");
}

/* As Linux with panic=-1, and without pvpanic. */
Test(kernel, that_panics_and_resets_is_told_from_one_that_resets)
{
    json_t *root;

    MAKE_KERNEL(panics_and_resets);
    CHECK_END(1, "loam: the guest has panicked and reset itself: " PANIC);
    CHECK_END(1, "it is not started again, and its console says: " PANIC, "--on-reset", "restart");
    CHECK_END(0, "loam: the guest reset itself, which is to pass (--on-reset), and its console says: " PANIC,
              "--on-reset", "pass");
    root = run_json(1);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "stop"), "reason")), "reset");
    json_decref(root);
}

Test(kernel, a_reset_is_a_failure_unless_it_is_meant)
{
    json_t *root;

    MAKE_KERNEL(reset);
    CHECK_END(1, "loam: the guest reset itself: a failure, unless it is meant to");
    CHECK_END(1, "loam: the guest reset itself: a failure, unless it is meant to", "--on-reset", "fail");
    CHECK_END(0, NULL, "--on-reset", "pass");
    root = run_json(1);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "stop"), "reason")), "reset");
    json_decref(root);
}

/* As a kernel that gives up: the run has no time limit, and ends by itself. */
Test(kernel, that_is_halted_for_good_is_told_of_at_once)
{
    MAKE_KERNEL(halts);
    CHECK_END(4, "loam: the guest is halted for good: HLT with interrupts off, at 0x");
    check_last_line("halted for good", 4,
                    "vCPU 0 was halted with interrupts off at 0x200015 (guest+0x15), in protected mode without paging\n"
                    "nobody answered at port 0x300 (a write of 2 bytes: 0x2a), port 0xed (2 writes of 1 byte, the last "
                    "0x2a)\nloam: the guest is halted for good: HLT with interrupts off, at 0x200015 (the next "
                    "instruction): nothing can wake it\n",
                    NULL);
}

Test(kernel, that_is_halted_for_good_is_told_of_though_it_has_another_processor)
{
    MAKE_KERNEL(halts);
    check_last_line(
        "halted for good", 4,
        "\nvCPU 1 was never started\nnobody answered at port 0x300 (a write of 2 bytes: 0x2a), port 0xed (2 "
        "writes of 1 byte, the last 0x2a)\nloam: the guest is halted for good: HLT with interrupts off on 1 "
        "of its vCPUs, and 1 never started: nothing can wake it\n",
        (char *[]){"--vcpus", "2", NULL});
}

Test(kernel, a_triple_fault_is_told)
{
    json_t *root;

    MAKE_KERNEL(triple_fault);
    CHECK_END(4, "loam: the guest ended in a triple fault");
    root = run_json(4);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "stop"), "reason")), "shutdown");
    json_decref(root);
    if (kvm_emulates()) {
        check_last_line(
            "a triple fault", 4,
            "\nvCPU 0 stood at 0x200000 (guest+0x0), ud2, in protected mode without paging\nloam: the guest "
            "ended in a triple fault: an exception came at UD2, and the guest has no handlers yet: its IDT "
            "is empty\n",
            NULL);
    }
}

/* With hardware virtualization it is a fault like any other, or none. */
Test(kernel, that_turns_paging_on_outside_long_mode_is_told_where_that_is_not)
{
    MAKE_KERNEL(legacy_paging);
    if (!kvm_emulates()) {
        CHECK_END(0, NULL);
        return;
    }
    check_last_line(
        "paging", 4,
        "(guest+0x1f), mov cr0, eax, in protected mode without paging\nloam: the guest ended in a triple "
        "fault: it turned paging on outside long mode, which this KVM, without hardware virtualization under "
        "it, does not have: use a 64-bit guest, or a host with VT-x or AMD-V\n",
        NULL);
}

Test(kernel, that_needs_an_instruction_which_kvm_lacks_is_told_how_to_do_without)
{
    MAKE_KERNEL(restores);
    if (!kvm_emulates()) {
        CHECK_END(4, "loam: the guest ended in a triple fault");
        return;
    }
    check_last_line("XRSTOR", 4,
                    "\nvCPU 0 stood at 0x200005 (guest+0x5), xrstor ptr [edi], in protected mode without "
                    "paging\nloam: KVM could not go on: its emulator lacks XRSTOR: a Linux kernel leaves it out with "
                    "noxsave on its command line\n",
                    NULL);
}

Test(kernel, that_leaves_its_code_is_told_where_it_went)
{
    MAKE_KERNEL(leaps);
    check_last_line("no code", 4,
                    "\nvCPU 0 stood at 0xe0000000, in protected mode without paging\nloam: KVM could not go on: the "
                    "guest went to 0xe0000000, where there is no code\n",
                    NULL);
}

/* A signal and a time limit end it where it waits. */
Test(kernel, that_is_stopped_is_told_where_it_stood)
{
    const json_t *stop, *vcpu, *missed;
    char *argv[12 + ARGUMENT_MAX];
    struct process process;
    json_t *root;

    MAKE_KERNEL(reaches_far);
    fill_argv(argv, (char *[]){NULL});
    cr_assert(process_start(&process, argv, LIMIT_MILLISECONDS));
    cr_assert(process_expect(&process, "L"), "%s", process.err);
    kill(process.pid, SIGTERM);
    cr_expect_eq(process_wait(&process), 128 + SIGTERM, "status %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.err, "\nvCPU 0 "), "%s", process.err);
    cr_expect_not_null(strstr(process.err, " (guest+0x"), "%s", process.err);
    cr_expect_not_null(strstr(process.err, "\nnobody answered at address 0x2000000 (a write of 4 bytes: 0x1)\nloam: "
                                           "stopped by signal 15\n"),
                       "%s", process.err);
    process_end(&process);
    check_last_line(
        "the time limit", 4,
        "\nvCPU 0 waited for an interrupt at 0x200013 (guest+0x13), in protected mode without "
        "paging\nnobody answered at address 0x2000000 (a write of 4 bytes: 0x1)\nloam: the guest did not end "
        "within 1 s: it reached for 0x2000000, where no RAM is: if it needs some there, raise --memory to "
        "64M\n",
        (char *[]){"--timeout", "1", NULL});
    root = run_json_with(4, (char *[]){"--json", "--timeout", "1", NULL});
    stop = json_object_get(root, "stop");
    cr_expect_str_eq(json_string_value(json_object_get(stop, "reason")), "requested");
    vcpu = json_array_get(json_object_get(stop, "vcpus"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(vcpu, "state")), "waiting");
    cr_expect_str_eq(json_string_value(json_object_get(vcpu, "rip")), "0x200013");
    cr_expect_str_eq(json_string_value(json_object_get(vcpu, "symbol")), "guest+0x13");
    cr_expect_str_eq(json_string_value(json_object_get(vcpu, "mode")), "protected");
    cr_expect_str_eq(json_string_value(json_object_get(vcpu, "paging")), "none");
    missed = json_array_get(json_object_get(stop, "missed"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(missed, "space")), "memory");
    cr_expect_str_eq(json_string_value(json_object_get(missed, "address")), "0x2000000");
    cr_expect_eq(json_integer_value(json_object_get(missed, "bytes")), 4);
    cr_expect(json_is_true(json_object_get(missed, "write")));
    cr_expect_str_eq(json_string_value(json_object_get(missed, "value")), "0x1");
    cr_expect_eq(json_integer_value(json_object_get(missed, "count")), 1);
    json_decref(root);
}

/* Each life finds memory that none was in before; a guest that does nothing but reset itself comes to an end. */
Test(kernel, restarts_on_fresh_memory_and_not_for_ever)
{
    struct process process;

    MAKE_KERNEL(forgets);
    cr_expect_eq(RUN(&process, "--on-reset", "restart", "--vcpus", "2"), 1, "status %d: %s", process.status,
                 process.err);
    cr_expect_eq(count_lines(process.err), 1, "what is noted is noted once: %s", process.err);
    cr_expect_str_eq(process.out, "LLLLLLLLLL");
    cr_expect_not_null(strstr(process.err, "reset itself 10 times in a row, each within 1 s of its start"), "%s",
                       process.err);
    process_end(&process);
}

static double now_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The second life has what the first left of the time, and not all of it again. */
Test(kernel, the_timeout_covers_all_lives)
{
    char *argv[12 + ARGUMENT_MAX];
    struct process process;
    double started;

    MAKE_KERNEL(waits);
    fill_argv(argv, (char *[]){"--on-reset", "restart", "--timeout", "6", NULL});
    started = now_seconds();
    cr_assert(process_start(&process, argv, LIMIT_MILLISECONDS));
    cr_assert(process_expect(&process, "L"), "%s", process.err);
    usleep(4000 * 1000); /* of the time, not for anything to happen */
    cr_assert(process_type(&process, "x"));
    cr_expect_eq(process_wait(&process), 4, "status %d: %s", process.status, process.err);
    cr_expect_lt(now_seconds() - started, 9.9, "%g s", now_seconds() - started);
    cr_expect_str_eq(process.out, "LL");
    cr_expect_not_null(strstr(process.err, "did not end within 6 s: give it more with --timeout SECONDS"), "%s",
                       process.err);
    process_end(&process);
}

/* --- Memory that is taken away ------------------------------------------------------------------------------------ */

/* What is skipped does not come to its end: it is cleaned up here. */
static void skip(const char *controller, const char *reason)
{
    tear_down();
    cr_skip("%s: %s", controller, reason);
}

/* NULL, or why this cannot be tried. No assertion ends it half-way, so that the group is removed. */
static const char *run_in_group(struct process *process)
{
    char *argv[] = {loam_path(), "run",       "--memory",  "16M", "--pages", "2M",
                    "--kernel",  kernel_path, "--timeout", "60",  NULL};
    const char *limit = group.is_unified ? "hugetlb.2MB.max" : "hugetlb.2MB.limit_in_bytes";
    char *inside[24];

    if (!control_group_argv(&group, argv, inside, sizeof inside / sizeof inside[0]) ||
        !process_start(process, inside, LIMIT_MILLISECONDS)) {
        return "the program cannot be started in the group";
    }
    cr_expect(process_expect(process, "L"), "%s", process->err);
    if (!control_group_write(&group, limit, "4194304")) {
        process_end(process);
        return "the limit cannot be lowered below what is used";
    }
    cr_expect(process_type(process, "x"));
    process_wait(process);
    return NULL;
}

/* A limit on hugepages, lowered while the guest runs: whoever touches the next page, KVM or Loam, the run breaks. */
static void lower_the_limit(void)
{
    struct process process;
    const char *reason;

    if (free_pages("2M") < 8) {
        skip("hugetlb", "the pool has no 8 free pages of 2 MiB");
    }
    reason = control_group_make(&group, "hugetlb");
    if (reason == NULL) {
        reason = run_in_group(&process);
    }
    if (reason != NULL) {
        skip("hugetlb", reason);
    }
    cr_expect_eq(process.status, 4, "status %d: %s", process.status, process.err);
    cr_expect_not_null(strstr(process.err, "\nloam: the host does not supply guest RAM at GPA 0x800000 ("), "%s",
                       process.err);
    cr_expect_not_null(strstr(process.err, "hugetlb."), "the limit is not named: %s", process.err);
    process_end(&process);
}

Test(kernel, breaks_when_its_memory_is_taken_away)
{
    MAKE_KERNEL(writes_late);
    lower_the_limit();
}

Test(kernel, breaks_when_memory_is_taken_away_that_loam_touches_for_it)
{
    SKIP_WHERE_A_SANITIZER_RUNS_THE_PROGRAM(tear_down);
    MAKE_KERNEL(stores_late);
    lower_the_limit();
}

/* NULL, or why this cannot be tried. No assertion ends it half-way, so that the group is removed. */
static const char *load_in_group(struct process *process, const char *limit_bytes)
{
    char *argv[] = {loam_path(), "run",      "--memory",  "64M",       "--pages", "2M", "--kernel",
                    kernel_path, "--initrd", initrd_path, "--timeout", "60",      NULL};
    char *inside[24];

    if (!control_group_argv(&group, argv, inside, sizeof inside / sizeof inside[0]) ||
        !control_group_write(&group, group.is_unified ? "memory.max" : "memory.limit_in_bytes", limit_bytes) ||
        !process_start(process, inside, LIMIT_MILLISECONDS)) {
        return "the program cannot be started in the group";
    }
    process_wait(process);
    return NULL;
}

/* Its initrd is read into memory that a control group is charged for: 32 MiB, which fit a limit or are refused. */
Test(kernel, an_initrd_is_planned_for_and_nobody_killed)
{
    SKIP_WHERE_A_SANITIZER_RUNS_THE_PROGRAM(tear_down);
    static const struct {
        const char *limit_bytes;
        int status;
        const char *says;
    } cases[] = {{"25165824", 3, "\nloam: cgroup: "}, {"50331648", 0, ""}};
    const char *reason;

    if (free_pages("2M") < 32) {
        skip("memory", "the pool has no 32 free pages of 2 MiB");
    }
    MAKE_KERNEL(code_0);
    tiny_kernel_write_file(initrd_path, "x", 1);
    cr_assert_eq(truncate(initrd_path, 32 * 1024 * 1024), 0);
    reason = control_group_make(&group, "memory");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && reason == NULL; i++) {
        struct process process;

        reason = load_in_group(&process, cases[i].limit_bytes);
        if (reason == NULL) {
            cr_expect_eq(process.status, cases[i].status, "limit %s: status %d: %s", cases[i].limit_bytes,
                         process.status, process.err);
            cr_expect_not_null(strstr(process.err, cases[i].says), "%s", process.err);
            process_end(&process);
        }
    }
    if (reason != NULL) {
        skip("memory", reason);
    }
}

/* --- What is told of it ------------------------------------------------------------------------------------------- */

Test(kernel, json_has_what_the_guest_said)
{
    const json_t *serial;
    json_t *root;

    MAKE_KERNEL(says);
    root = run_json(0);
    serial = json_object_get(root, "serial");
    cr_expect_str_eq(json_string_value(json_object_get(serial, "text")), "\xef\xbf\xbdhey");
    cr_expect_eq(json_integer_value(json_object_get(serial, "bytes")), 4);
    cr_expect_eq(json_integer_value(json_object_get(serial, "lost_bytes")), 0);
    json_decref(root);
}

/* The kernel is none that is known to keep less. */
Test(kernel, a_long_command_line_is_handed_on_whole_or_refused)
{
    char line[4097] = {0};

    MAKE_KERNEL(code_0);
    memset(line, 'w', 4095);
    CHECK_END(0, NULL, "--cmdline", line);
    line[4095] = 'w';
    CHECK_END(2, "loam: command line of the kernel: 4096 characters, and 4095 are handed on at most", "--cmdline",
              line);
    tiny_kernel_write(kernel_path, "linux", guest_code_0, guest_code_0_end);
    line[4095] = '\0';
    CHECK_END(0, "loam: command line: 4095 characters, and this kernel is Linux, which keeps the first 2047",
              "--cmdline", line);
    line[2047] = '\0';
    CHECK_END(0, NULL, "--cmdline", line);
}

static struct tune_lacks kvm_lacks(void)
{
    struct tune_lacks lacks = {0};
    struct kvm kvm;

    cr_assert_eq(kvm_open(KVM_DEVICE, &kvm, NULL), LOAM_OK);
    if (!tune_declares_xsave(&kvm)) {
        lacks = tune_try(&kvm);
    }
    kvm_close(&kvm);
    return lacks;
}

static void check_words(const char *words, const char *says, char *const arguments[])
{
    struct process process;

    cr_expect_eq(run(&process, arguments), 0, "%s", process.err);
    cr_expect_str_eq(process.out, words);
    cr_expect_eq(count_lines(process.err), says != NULL ? 1 : 0, "%s", process.err);
    cr_expect(says == NULL || strstr(process.err, says) != NULL, "%s", process.err);
    process_end(&process);
}

#define CHECK_WORDS(words, says, ...) check_words(words, says, (char *[]){__VA_ARGS__, NULL})

/* A kernel that says "Linux version" of itself, where it has to be told; all others are left alone. */
Test(kernel, linux_is_told_what_kvm_lacks_unless_that_is_not_wanted)
{
    bool lacks = kvm_lacks().xrstor;

    MAKE_KERNEL(repeats);
    CHECK_WORDS(lacks ? "noxsave quiet" : "quiet", lacks ? "loam: command line: noxsave added, since the KVM" : NULL,
                "--cmdline", "quiet");
    CHECK_WORDS("quiet", lacks ? "loam: command line: left as it is, as --no-tune says" : NULL, "--no-tune",
                "--cmdline", "quiet");
    CHECK_WORDS("quiet noxsave", NULL, "--cmdline", "quiet noxsave");
    CHECK_WORDS("quiet noxsave", NULL, "--no-tune", "--cmdline", "quiet noxsave");
}

Test(kernel, linux_on_two_processors_is_told_more)
{
    struct process process;

    MAKE_KERNEL(repeats);
    cr_expect_eq(RUN(&process, "--vcpus", "2", "--cmdline", "noxsave"), 0, "%s", process.err);
    cr_expect_str_eq(process.out, kvm_lacks().hypercalls ? "nopv noxsave" : "noxsave");
    cr_expect_eq(strstr(process.err, "loam: command line: nopv added") != NULL, kvm_lacks().hypercalls, "%s",
                 process.err);
    process_end(&process);
}

/* --- What it is given --------------------------------------------------------------------------------------------- */

Test(kernel, finds_the_bytes_of_its_initrd)
{
    struct process process;

    MAKE_KERNEL(module);
    CHECK_END(7, "code 7");
    tiny_kernel_write_file(initrd_path, "These bytes and no others.", 26);
    cr_expect_eq(RUN(&process, "--initrd", initrd_path), 0, "%s", process.err);
    cr_expect_str_eq(process.out, "These bytes and no others.");
    process_end(&process);
}

Test(kernel, an_initrd_that_cannot_be_used_is_refused_in_one_line)
{
    MAKE_KERNEL(module);
    CHECK_END(2, "/initrd: no such file", "--initrd", initrd_path);
    tiny_kernel_write_file(initrd_path, "", 0);
    CHECK_END(2, "initrd", "--initrd", initrd_path);
    tiny_kernel_write_file(initrd_path, "x", 1);
    cr_assert_eq(truncate(initrd_path, 15 * 1024 * 1024), 0);
    CHECK_END(2, "raise --memory to 19M, or give a smaller initrd", "--initrd", initrd_path);
    cr_assert_eq(truncate(initrd_path, 17 * 1024 * 1024), 0);
    CHECK_END(2, "initrd", "--initrd", initrd_path);
}
