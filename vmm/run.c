// SPDX-License-Identifier: Apache-2.0
#include "vmm/run.h"

#include "vmm/console.h"
#include "vmm/launch.h"
#include "vmm/leave.h"
#include "vmm/report.h"
#include "vmm/sabotage.h"
#include "vmm/session.h"
#include "vmm/standard.h"
#include "vmm/transcript.h"

#include <linux/membarrier.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* A guest that resets itself so often in a row, so soon after each start, would do it for ever. */
#define QUICK_RESET_MAX          10u
#define QUICK_RESET_MILLISECONDS 1000

/* Everything a run holds; zero members are not there yet. Released in the opposite order. */
struct run {
    const struct options *options;
    struct report report;
    struct session session;
    int64_t started_milliseconds; /* --timeout counts from here */
    struct launch launch;
    struct outlet *console;       /* what the guest's serial line is written to */
    struct transcript transcript; /* with JSON */
    FILE *out;                    /* what the report is written to */
    bool is_cut_short;            /* the run was ended from outside: nobody waits for long any more */
    uint32_t quick_resets;        /* in a row */
};

static int fail(struct run *run, int exit_status, const struct loam_diag *diag)
{
    report_failure(&run->report, "%s", diag->text);
    return exit_status;
}

/* --- What ends a run before its guest begins --------------------------------------------------------------------- */

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool is_time_up(const struct run *run)
{
    uint64_t whole = run->options->timeout_milliseconds;

    return whole != 0 && (uint64_t)(now_milliseconds() - run->started_milliseconds) >= whole;
}

static void close_report(struct run *run, int exit_status)
{
    report_finish(&run->report, exit_status);
    if (run->out != NULL) {
        fclose(run->out);
    }
}

/*
 * Everything printed is to be read; a run that was cut short does not wait for who does not read, and one with a time
 * limit not beyond it. What nobody could read is no pass; a signal, also one that ends this wait, is the reason that it
 * is.
 */
static int hand_over(struct run *run, int exit_status)
{
    int64_t patience = run->is_cut_short ? 0 : session_left_milliseconds(&run->session);
    bool is_read = standard_finish(session_fd(&run->session), patience);

    if (is_read || exit_status > 128) {
        return exit_status;
    }
    return session_signalled(&run->session) ? 128 + run->session.signal_number : EXIT_CODE_HOST;
}

/* All that is to be read of a run, told; returns its exit status. */
static int finish(struct run *run, int exit_status)
{
    report_serial(&run->report, &run->transcript);
    transcript_close(&run->transcript);
    close_report(run, exit_status);
    return hand_over(run, exit_status);
}

static int judge_early_end(struct run *run)
{
    run->is_cut_short = true;
    if (session_signalled(&run->session)) {
        report_failure(&run->report, "stopped by signal %d", run->session.signal_number);
        return 128 + run->session.signal_number;
    }
    report_failure(
        &run->report,
        "the guest did not end within %.3g s, and had not even begun: its memory was still being made, or its "
        "kernel read: give it more with --timeout SECONDS",
        (double)run->options->timeout_milliseconds / 1000);
    return EXIT_CODE_BROKEN;
}

static bool has_small_pages(const struct loam_plan *plan)
{
    bool has = false;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        has = has || plan->parts[i].pages == LOAM_PAGES_4K;
    }
    return has;
}

/*
 * For loam_cancel. 4 KiB pages would be taken back for longer than a signal may wait; with others, the next guest finds
 * the pool as it was when this process has ended.
 */
static bool must_end(void *self)
{
    struct run *run = self;

    if (session_signalled(&run->session) && has_small_pages(&run->launch.plan)) {
        leave(finish(run, judge_early_end(run)));
    }
    return session_signalled(&run->session) || is_time_up(run);
}

/* --- Preparations: each returns EXIT_CODE_PASS, or has said what is wrong ---------------------------------------- */

/* One step of the launch; failed is the status that its failure ends with. */
static int take(struct run *run, enum loam_error (*step)(struct launch *launch, struct loam_diag *diag), int failed)
{
    struct loam_diag diag = {0};
    enum loam_error error = step(&run->launch, &diag);

    if (error == LOAM_ERROR_CANCELLED) {
        return judge_early_end(run);
    }
    return error == LOAM_OK ? EXIT_CODE_PASS : fail(run, failed, &diag);
}

static int check_kvm(struct run *run)
{
    return take(run, launch_ask_kvm, EXIT_CODE_HOST);
}

static int check_files(struct run *run)
{
    return take(run, launch_measure, EXIT_CODE_USAGE);
}

static int make_plan(struct run *run)
{
    const struct loam_plan *plan = &run->launch.plan;
    struct loam_diag diag = {0};
    enum loam_error error = launch_plan(&run->launch, &diag);

    if (error == LOAM_ERROR_CANCELLED) {
        return judge_early_end(run);
    }
    if (error != LOAM_OK) {
        return fail(run, error == LOAM_ERROR_INVALID ? EXIT_CODE_USAGE : EXIT_CODE_HOST, &diag);
    }
    if (plan->short_count > 0) {
        report_plan(&run->report, plan);
        report_failure(&run->report, "%s", loam_plan_shortfall(plan)->text);
        return EXIT_CODE_HOST;
    }
    return EXIT_CODE_PASS;
}

/* Once there is something to run: a file that is no kernel is told of in one line. */
static int show_plan(struct run *run)
{
    report_plan(&run->report, &run->launch.plan);
    return EXIT_CODE_PASS;
}

static int read_files(struct run *run)
{
    return take(run, launch_read, EXIT_CODE_USAGE);
}

static int make_memory(struct run *run)
{
    return take(run, launch_make_memory, EXIT_CODE_HOST);
}

static int load(struct run *run)
{
    return take(run, launch_load, EXIT_CODE_USAGE);
}

static int make_machine(struct run *run)
{
    return take(run, launch_make_machine, EXIT_CODE_HOST);
}

/* --- While the guest runs ---------------------------------------------------------------------------------------- */

static void check_reported(void *self, enum loam_abi_check check, const struct attest_outcome *outcome)
{
    struct run *run = self;

    report_check(&run->report, check, outcome);
}

/* What a Linux kernel has to be told on this host. */
static void note_tune(struct run *run)
{
    const struct tune *tune = &run->launch.tune;
    const char *lacks = !tune->lacks.hypercalls ? "XRSTOR"
                        : !tune->lacks.xrstor   ? "hypercalls"
                                                : "XRSTOR and hypercalls";

    if (tune->command_line != NULL) {
        report_note(&run->report,
                    "command line: %s added, since the KVM of this host lacks %s, which Linux uses unless told so: "
                    "--no-tune leaves it as it was",
                    tune->words, lacks);
    } else if (tune->words[0] != '\0') {
        report_note(
            &run->report,
            "command line: left as it is, as --no-tune says, although the KVM of this host lacks %s: without %s "
            "Linux does not get far",
            lacks, tune->words);
    }
}

/* What the kernel will not be able to use, although it is given. */
static void note_losses(struct run *run)
{
    size_t length = strlen(launch_command_line(&run->launch));

    note_tune(run);
    if (length > run->launch.boot.command_line_kept) {
        report_note(&run->report,
                    "command line: %zu characters, and this kernel is Linux, which keeps the first %u and drops the "
                    "rest: shorten it",
                    length, run->launch.boot.command_line_kept);
    }
    if (run->options->vcpu_count > 1) {
        report_note(&run->report,
                    "vCPUs: %u wanted, and no table (ACPI, MP) tells the kernel of more than one processor: one that "
                    "relies on them uses the first only",
                    run->options->vcpu_count);
    }
}

static void write_console(void *self, const uint8_t *bytes, size_t count)
{
    struct run *run = self;

    if (run->options->json) {
        transcript_add(&run->transcript, bytes, count);
    }
    outlet_append(run->console, bytes, count);
}

/* A guest whose output is not read waits for its reader, for a pause, or for the end of the run. */
static void pace_console(void *self)
{
    struct run *run = self;

    outlet_wait_room(run->console, machine_pause_fd(run->launch.machine));
}

/* --- The verdict ------------------------------------------------------------------------------------------------- */

static int judge_exit(struct run *run, uint32_t code, uint32_t passed)
{
    int exit_status = options_exit_status(code);

    if (run->launch.attest != NULL && passed == LOAM_ABI_CHECK_COUNT && code == LOAM_ABI_EXIT_PASS) {
        report_verdict(&run->report, true, passed, LOAM_ABI_CHECK_COUNT, "");
        return EXIT_CODE_PASS;
    }
    if (run->launch.attest != NULL) {
        report_verdict(&run->report, false, passed, LOAM_ABI_CHECK_COUNT, "");
        return EXIT_CODE_GUEST_FAILED;
    }
    if (exit_status != EXIT_CODE_PASS) {
        report_failure(&run->report, "the guest stopped itself with code %u", code);
    }
    return exit_status;
}

static int judge_reset(struct run *run)
{
    if (run->options->on_reset == ON_RESET_PASS) {
        return EXIT_CODE_PASS;
    }
    if (run->options->on_reset == ON_RESET_RESTART) {
        report_failure(&run->report,
                       "the guest reset itself %u times in a row, each within %g s of its start: it is not started "
                       "again",
                       run->quick_resets, QUICK_RESET_MILLISECONDS / 1000.0);
    } else {
        report_failure(&run->report, "the guest reset itself: a failure, unless it is meant to: --on-reset pass");
    }
    return EXIT_CODE_GUEST_FAILED;
}

/* Of a guest of the person's own. */
static int judge_panic(struct run *run, uint32_t events)
{
    report_failure(&run->report,
                   "the guest has panicked, as it said by writing 0x%x to port 0x%x: its console says why", events,
                   MACHINE_PANIC_PORT);
    return EXIT_CODE_GUEST_FAILED;
}

/* Also of a self-test that ended as it never does. */
static int judge_broken(struct run *run, const struct machine_result *result, uint32_t passed)
{
    const char *reason = launch_stop_text(result->reason);

    if (result->cause[0] != '\0') {
        report_failure(&run->report, "%s", result->cause);
    }
    if (run->launch.attest != NULL) {
        report_verdict(&run->report, false, passed, LOAM_ABI_CHECK_COUNT, reason);
    } else if (result->cause[0] == '\0') {
        report_failure(&run->report, "%s", reason);
    }
    return EXIT_CODE_BROKEN;
}

static int judge_machine(struct run *run, const struct machine_result *result)
{
    uint32_t passed = run->launch.attest != NULL ? attest_passed_count(run->launch.attest) : 0;

    report_stop(&run->report, result);
    if (result->reason == MACHINE_STOP_EXIT) {
        return judge_exit(run, result->exit_code, passed);
    }
    if (run->launch.attest != NULL) {
        return judge_broken(run, result, passed);
    }
    switch (result->reason) {
    case MACHINE_STOP_POWER_OFF:
        return EXIT_CODE_PASS;
    case MACHINE_STOP_PANIC:
        return judge_panic(run, result->exit_code);
    case MACHINE_STOP_RESET:
        return judge_reset(run);
    default:
        return judge_broken(run, result, passed);
    }
}

static int judge(struct run *run, enum session_end end, const struct machine_result *result)
{
    switch (end) {
    case SESSION_MACHINE:
        return judge_machine(run, result);
    case SESSION_TIMEOUT:
        report_failure(&run->report, "the guest did not end within %.3g s: %s",
                       (double)run->options->timeout_milliseconds / 1000,
                       result->cause[0] != '\0' ? result->cause : "give it more with --timeout SECONDS");
        return EXIT_CODE_BROKEN;
    case SESSION_SIGNAL:
        report_failure(&run->report, "stopped by signal %d", run->session.signal_number);
        return 128 + run->session.signal_number;
    case SESSION_LEFT:
    default:
        return EXIT_CODE_PASS;
    }
}

/* What is left for a session; 0: no end. */
static uint64_t left_milliseconds(const struct run *run)
{
    uint64_t whole = run->options->timeout_milliseconds;
    uint64_t gone = (uint64_t)(now_milliseconds() - run->started_milliseconds);

    return whole == 0 ? 0 : whole > gone ? whole - gone : 1;
}

/* One life of the guest, from its start to the end of its session. */
static int live(struct run *run, enum session_end *end, struct machine_result *result)
{
    struct session_request request = {.input_fd = run->launch.attest != NULL ? -1 : STDIN_FILENO,
                                      .timeout_milliseconds = left_milliseconds(run),
                                      .console = run->console};
    struct loam_diag diag = {0};
    int64_t born = now_milliseconds();
    enum loam_error error = machine_start(run->launch.machine, &diag);

    if (error == LOAM_OK) {
        error = session_watch(&run->session, run->launch.machine, &request, end, &diag);
        machine_wait(run->launch.machine, result);
        run->is_cut_short = *end != SESSION_MACHINE;
    }
    run->quick_resets = now_milliseconds() - born < QUICK_RESET_MILLISECONDS ? run->quick_resets + 1 : 0;
    return error == LOAM_OK ? EXIT_CODE_PASS : fail(run, EXIT_CODE_HOST, &diag);
}

static bool starts_again(const struct run *run, enum session_end end, const struct machine_result *result)
{
    return run->options->on_reset == ON_RESET_RESTART && end == SESSION_MACHINE &&
           result->reason == MACHINE_STOP_RESET && run->quick_resets < QUICK_RESET_MAX;
}

/* Nothing of the guest's former life is left in its memory: it is another. */
static int start_anew(struct run *run)
{
    int (*const steps[])(struct run *) = {make_memory, load, make_machine};
    int exit_status = EXIT_CODE_PASS;

    launch_end_life(&run->launch);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && exit_status == EXIT_CODE_PASS; i++) {
        exit_status = steps[i](run);
    }
    return exit_status;
}

static int go(struct run *run)
{
    struct machine_result result;
    enum session_end end;
    int exit_status;

    if (run->launch.attest == NULL) {
        note_losses(run);
    }
    exit_status = live(run, &end, &result);
    while (exit_status == EXIT_CODE_PASS && starts_again(run, end, &result)) {
        exit_status = start_anew(run);
        if (exit_status == EXIT_CODE_PASS) {
            exit_status = live(run, &end, &result);
        }
    }
    return exit_status == EXIT_CODE_PASS ? judge(run, end, &result) : exit_status;
}

/* --- Commands ---------------------------------------------------------------------------------------------------- */

static void release(struct run *run)
{
    sabotage_end();
    launch_release(&run->launch);
}

static void init_launch(struct run *run)
{
    const struct options *options = run->options;
    const struct launch_config config = {
        .memory = options->memory,
        .vcpu_count = options->vcpu_count,
        .kernel = options->kernel,
        .initrd = options->initrd,
        .command_line = options->command_line,
        .tune = options->without_tune ? TUNE_ASK : TUNE_ADD,
        .cancel = {must_end, run},
        .bus_error = {.clean_up = console_restore, .json = options->json, .exit_status = EXIT_CODE_BROKEN},
        .checked = check_reported,
        .serial_output = write_console,
        .serial_pace = pace_console,
        .self = run,
    };

    launch_init(&run->launch, &config);
}

/* With --kernel or JSON, standard output is for the guest or for the object; the other goes to standard error. */
static void open_report(struct run *run, const struct options *options)
{
    bool is_guests = options->kernel != NULL && !options->json;

    run->options = options;
    run->console = is_guests ? standard_out() : standard_err();
    run->out = outlet_raw_stream(is_guests ? standard_err() : standard_out());
    report_init(&run->report, options->json, run->out != NULL ? run->out : stderr,
                isatty(is_guests ? STDERR_FILENO : STDOUT_FILENO));
}

/*
 * Frame caches register for barriers of the whole process when memory is made. With a second thread there the kernel waits
 * for a grace period, some 15 ms; before it, for nothing. Where it is refused, so it will be then, which is seen to there.
 */
static void register_barriers(void)
{
    (void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
}

int run_command(const struct options *options)
{
    int (*const steps[])(struct run *) = {
        check_kvm, check_files, make_plan, read_files, show_plan, make_memory, load, make_machine, go,
    };
    struct loam_diag diag = {0};
    struct run run = {.session = {.signal_fd = -1}, .started_milliseconds = now_milliseconds()};
    int exit_status = EXIT_CODE_PASS;

    register_barriers();
    open_report(&run, options);
    init_launch(&run);
    if (options->json) {
        transcript_open(&run.transcript);
    }
    if (session_open(&run.session, &diag) != LOAM_OK || standard_start(&diag) != LOAM_OK) {
        exit_status = fail(&run, EXIT_CODE_HOST, &diag);
    }
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && exit_status == EXIT_CODE_PASS; i++) {
        exit_status = session_signalled(&run.session) ? judge_early_end(&run) : steps[i](&run);
    }
    release(&run);
    exit_status = finish(&run, exit_status);
    session_close(&run.session);
    return exit_status;
}

int plan_command(const struct options *options)
{
    struct options plan_options = *options;
    struct run run = {.session = {.signal_fd = -1}, .started_milliseconds = now_milliseconds()};
    int exit_status;

    plan_options.kernel = NULL; /* standard output is the plan's */
    open_report(&run, &plan_options);
    run.options = options;
    init_launch(&run);
    (void)!launch_ask_kvm(&run.launch, NULL); /* what it would say is not looked at then */
    (void)!launch_measure(&run.launch, NULL); /* a file that is not there takes nothing */
    exit_status = make_plan(&run);
    if (exit_status == EXIT_CODE_PASS) {
        exit_status = show_plan(&run);
    }
    close_report(&run, exit_status);
    return exit_status;
}
