// SPDX-License-Identifier: Apache-2.0
#include "vmm/run.h"

#include "vmm/account.h"
#include "vmm/console.h"
#include "vmm/control.h"
#include "vmm/gdb.h"
#include "vmm/launch.h"
#include "vmm/leave.h"
#include "vmm/panic_line.h"
#include "vmm/privilege.h"
#include "vmm/report.h"
#include "vmm/sabotage.h"
#include "vmm/sandbox.h"
#include "vmm/session.h"
#include "vmm/standard.h"
#include "vmm/trace.h"
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
    int64_t started_milliseconds;                      /* --timeout counts from here */
    uint64_t started_nanoseconds, gone_on_nanoseconds; /* of a guest that is restored */
    struct launch launch;
    struct trace *trace;          /* NULL: none */
    struct gdb *gdb;              /* NULL: none */
    struct control *control;      /* NULL: none */
    struct outlet *console;       /* what the guest's serial line is written to */
    struct transcript transcript; /* with JSON */
    struct panic_line panic_line; /* of this life */
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

static uint64_t now_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
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

/* What waits for its reader at the end waits no longer than hand_over does; a trace that lacks its end is no pass. */
static int finish_trace(struct run *run, int exit_status)
{
    int64_t patience = run->is_cut_short ? 0 : session_left_milliseconds(&run->session);
    struct loam_diag diag = {0};

    if (run->trace == NULL || trace_finish(run->trace, session_fd(&run->session), patience, &diag) == LOAM_OK) {
        return exit_status;
    }
    return exit_status > 128 ? exit_status : fail(run, EXIT_CODE_HOST, &diag);
}

/* All that is to be read of a run, told; returns its exit status. */
static int finish(struct run *run, int exit_status)
{
    exit_status = finish_trace(run, exit_status);
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
    if (run->options->kernel != NULL) {
        report_way(&run->report, run->launch.way.text);
    }
    return EXIT_CODE_PASS;
}

static int read_files(struct run *run)
{
    return take(run, launch_read, EXIT_CODE_USAGE);
}

static int open_trace(struct run *run)
{
    const struct options *options = run->options;
    struct loam_diag diag = {0};

    if (options->trace == NULL) {
        return EXIT_CODE_PASS;
    }
    if (trace_open(options->trace, options->vcpu_count, standard_err(), &run->trace, &diag) != LOAM_OK) {
        return fail(run, EXIT_CODE_USAGE, &diag);
    }
    run->launch.config.trace = run->trace;
    return EXIT_CODE_PASS;
}

static int open_gdb(struct run *run)
{
    const struct options *options = run->options;
    struct loam_diag diag = {0};

    if (options->gdb == NULL ||
        gdb_open(options->gdb, options->vcpu_count, standard_err(), &run->gdb, &diag) == LOAM_OK) {
        return EXIT_CODE_PASS;
    }
    return fail(run, EXIT_CODE_USAGE, &diag);
}

static int open_control(struct run *run)
{
    struct loam_diag diag = {0};

    if (run->options->control == NULL || control_open(run->options->control, &run->control, &diag) == LOAM_OK) {
        return EXIT_CODE_PASS;
    }
    return fail(run, EXIT_CODE_USAGE, &diag);
}

static int make_memory(struct run *run)
{
    return take(run, launch_make_memory, EXIT_CODE_HOST);
}

static int load(struct run *run)
{
    return take(run, launch_load, EXIT_CODE_USAGE);
}

static enum loam_error make_going(struct launch *launch, struct loam_diag *diag)
{
    return launch_make_going(launch, NULL, NULL, diag);
}

static int make_machine(struct run *run)
{
    int exit_status = take(run, launch_make_machine, EXIT_CODE_HOST);

    if (exit_status == EXIT_CODE_PASS && run->options->restore != NULL) {
        exit_status = take(run, make_going, EXIT_CODE_USAGE);
    }
    if (exit_status == EXIT_CODE_PASS && run->gdb != NULL) {
        gdb_begin(run->gdb, run->launch.machine, loam_memory_map(run->launch.memory));
    }
    return exit_status;
}

/* All that is needed is open: what is given up now is given up for every life of the guest. */
static int confine(struct run *run)
{
    const struct options *options = run->options;
    const bool has_gdb_path = options->gdb != NULL && strchr(options->gdb, '/') != NULL;
    const char *const paths[] = {has_gdb_path ? options->gdb : options->control, options->control};
    const struct sandbox_needs needs = {.makes_machines = options->on_reset == ON_RESET_RESTART,
                                        .has_debugger = options->gdb != NULL,
                                        .is_controlled = options->control != NULL,
                                        .paths = paths,
                                        .path_count = (has_gdb_path ? 1u : 0) + (options->control != NULL ? 1u : 0)};
    struct loam_diag diag = {0};
    enum loam_error error = privilege_drop(&options->privilege, &diag);

    if (error == LOAM_OK && options->without_sandbox) {
        report_note(
            &run->report,
            "--no-sandbox: a guest that takes over this process has its user's rights (user %u): files, network, "
            "other programs",
            geteuid());
    } else if (error == LOAM_OK) {
        error = sandbox_enter(&needs, &diag);
    }
    return error == LOAM_OK ? EXIT_CODE_PASS : fail(run, EXIT_CODE_HOST, &diag);
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
    const char *lacks = tune_lacks_text(&tune->lacks);

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
    if (run->launch.boot.wants_video) {
        report_note(&run->report,
                    "kernel: it asks for a video mode, and there is no display: its console is the serial line");
    }
}

static void write_console(void *self, const uint8_t *bytes, size_t count)
{
    struct run *run = self;

    if (run->options->json) {
        transcript_add(&run->transcript, bytes, count);
    }
    panic_line_add(&run->panic_line, bytes, count);
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

/* What its console told of a panic is said, whether the reset is a failure or not. */
static int judge_reset(struct run *run)
{
    const char *panic = panic_line_text(&run->panic_line);
    const char *lead = panic[0] != '\0' ? ", and its console says: " : "";

    if (run->options->on_reset == ON_RESET_PASS) {
        if (panic[0] != '\0') {
            report_note(&run->report, "the guest reset itself, which is to pass (--on-reset)%s%s", lead, panic);
        }
        return EXIT_CODE_PASS;
    }
    if (run->options->on_reset == ON_RESET_RESTART) {
        report_failure(&run->report,
                       "the guest reset itself %u times in a row, each within %g s of its start: it is not started "
                       "again%s%s",
                       run->quick_resets, QUICK_RESET_MILLISECONDS / 1000.0, lead, panic);
    } else if (panic[0] != '\0') {
        report_failure(&run->report, "the guest has panicked and reset itself: %s", panic);
    } else {
        report_failure(&run->report, "the guest reset itself: a failure, unless it is meant to: --on-reset pass");
    }
    return EXIT_CODE_GUEST_FAILED;
}

/* Of a guest of the person's own. */
static int judge_panic(struct run *run, uint32_t events)
{
    const char *panic = panic_line_text(&run->panic_line);

    report_failure(&run->report, "the guest has panicked, as it said by writing 0x%x to port 0x%x: %s", events,
                   MACHINE_PANIC_PORT, panic[0] != '\0' ? panic : "its console says why");
    return EXIT_CODE_GUEST_FAILED;
}

/* Where the vCPUs stood, of a run that did not end as it should. The caller releases the account. */
static void give_account(struct run *run, const struct machine_result *result, struct account *account)
{
    account_make(run->launch.machine, result, &run->launch.plan, &run->launch.kernel, account);
    report_account(&run->report, account);
}

/* Also of a self-test that ended as it never does. */
static int judge_broken(struct run *run, const struct machine_result *result, uint32_t passed)
{
    const char *reason = launch_stop_text(result->reason);
    struct account account;
    char end[1024];

    if (run->launch.has_lost_pages) {
        report_failure(&run->report, "%s", result->cause);
        return EXIT_CODE_BROKEN;
    }
    give_account(run, result, &account);
    account_end(&account, result->cause[0] != '\0' ? result->cause : reason, end, sizeof end);
    if (run->launch.attest == NULL || strcmp(end, reason) != 0) {
        report_failure(&run->report, "%s", end);
    }
    if (run->launch.attest != NULL) {
        report_verdict(&run->report, false, passed, LOAM_ABI_CHECK_COUNT, reason);
    }
    account_release(&account);
    return EXIT_CODE_BROKEN;
}

static int judge_timeout(struct run *run, const struct machine_result *result)
{
    struct account account;
    char end[1024];

    report_stop(&run->report, result);
    give_account(run, result, &account);
    if (result->cause[0] != '\0') {
        account_end(&account, result->cause, end, sizeof end);
    } else {
        snprintf(end, sizeof end, "%s",
                 account.advice[0] != '\0' ? account.advice : "give it more with --timeout SECONDS");
    }
    report_failure(&run->report, "the guest did not end within %.3g s: %s",
                   (double)run->options->timeout_milliseconds / 1000, end);
    account_release(&account);
    return EXIT_CODE_BROKEN;
}

static int judge_signal(struct run *run, const struct machine_result *result)
{
    struct account account;

    report_stop(&run->report, result);
    give_account(run, result, &account);
    report_failure(&run->report, "stopped by signal %d", run->session.signal_number);
    account_release(&account);
    return 128 + run->session.signal_number;
}

/* As a person who leaves by Ctrl-a x; but a self-test that was not seen to its end has not passed. */
static int judge_killed(struct run *run, uint32_t passed)
{
    if (run->launch.attest == NULL) {
        return EXIT_CODE_PASS;
    }
    report_verdict(&run->report, false, passed, LOAM_ABI_CHECK_COUNT, "the debugger ended it");
    return EXIT_CODE_BROKEN;
}

static int judge_machine(struct run *run, const struct machine_result *result)
{
    uint32_t passed = run->launch.attest != NULL ? attest_passed_count(run->launch.attest) : 0;

    report_stop(&run->report, result);
    if (result->reason == MACHINE_STOP_REQUESTED && gdb_was_killed(run->gdb)) {
        return judge_killed(run, passed);
    }
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
        return judge_timeout(run, result);
    case SESSION_SIGNAL:
        return judge_signal(run, result);
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

static double milliseconds(uint64_t nanoseconds)
{
    return (double)nanoseconds / 1e6;
}

/* How long what was restored took to be there, and what the guest waited for. */
static void note_restored(struct run *run)
{
    const struct launch *launch = &run->launch;
    struct pager_figures figures;

    if (launch->pager == NULL) {
        if (launch->without_pager[0] != '\0') {
            report_note(&run->report, "restored: all memory was brought before the guest went on: %s",
                        launch->without_pager);
        }
        return;
    }
    pager_get_figures(launch->pager, &figures);
    report_note(&run->report,
                "restored: the guest went on %.1f ms after the start; %s%.0f MiB that it touches first were there "
                "%.1f ms after it began to be brought, all %.0f MiB after %.1f ms; it waited for %.0f MiB",
                milliseconds(run->gone_on_nanoseconds),
                figures.has_order ? "" : "not known yet: ", 2.0 * (double)figures.order_count,
                milliseconds(figures.order_nanoseconds), 2.0 * (double)figures.chunk_count,
                milliseconds(figures.all_nanoseconds), 2.0 * (double)figures.demand_count);
}

static bool serve_control(void *self)
{
    struct run *run = self;

    control_turn(run->control);
    return control_has_quit(run->control);
}

/* One life of the guest, from its start to the end of its session. */
static int live(struct run *run, enum session_end *end, struct machine_result *result)
{
    const struct session_visitor visitor = {
        .fd = run->control != NULL ? control_fd(run->control) : -1, .turn = serve_control, .self = run};
    struct session_request request = {.input_fd = run->launch.attest != NULL ? -1 : STDIN_FILENO,
                                      .visitor = run->control != NULL ? &visitor : NULL,
                                      .timeout_milliseconds = left_milliseconds(run),
                                      .is_debugged = run->gdb != NULL,
                                      .console = run->console};
    struct loam_diag diag = {0};
    int64_t born = now_milliseconds();
    enum loam_error error = machine_start(run->launch.machine, &diag);

    if (error == LOAM_OK && run->gdb != NULL) {
        error = gdb_start(run->gdb, &diag);
    }
    if (error == LOAM_OK && run->options->restore != NULL) {
        run->gone_on_nanoseconds = now_nanoseconds() - run->started_nanoseconds;
        machine_resume(run->launch.machine);
    }
    if (run->control != NULL) {
        control_begin(run->control, &run->launch);
    }
    if (error == LOAM_OK) {
        error = session_watch(&run->session, run->launch.machine, &request, end, &diag);
        machine_wait(run->launch.machine, result);
        run->is_cut_short = *end != SESSION_MACHINE;
    }
    if (run->control != NULL) {
        control_end(run->control);
    }
    if (error == LOAM_OK && run->options->restore != NULL) {
        note_restored(run);
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
    run->panic_line = (struct panic_line){0};
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
    exit_status = exit_status == EXIT_CODE_PASS ? judge(run, end, &result) : exit_status;
    if (run->gdb != NULL) {
        gdb_end(run->gdb, exit_status);
    }
    return exit_status;
}

/* --- Commands ---------------------------------------------------------------------------------------------------- */

static void release(struct run *run)
{
    sabotage_end();
    gdb_close(run->gdb); /* which has the machine */
    control_close(run->control);
    launch_release(&run->launch);
}

static uint64_t extra_bytes(const struct options *options)
{
    uint64_t trace = TRACE_BYTES + options->vcpu_count * (uint64_t)TRACE_LANE_BYTES;

    return (options->trace != NULL ? trace : 0) + (options->gdb != NULL ? GDB_BYTES : 0) +
           (options->control != NULL ? CONTROL_BYTES : 0);
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
        .restore = options->restore,
        .jump = options->clock_jumps ? GUEST_CLOCK_JUMPS : GUEST_CLOCK_GOES_ON,
        .extra_threads = (options->trace != NULL ? 1u : 0) + (options->gdb != NULL ? 1u : 0) +
                         (options->control != NULL ? CONTROL_THREADS : 0),
        .extra_readers = (options->gdb != NULL ? 1u : 0) + (options->control != NULL ? CONTROL_THREADS : 0),
        .extra_bytes = extra_bytes(options),
        .tune = options->without_tune ? TUNE_ASK : TUNE_ADD,
        .cancel = {must_end, run},
        .bus_error = {.clean_up = console_restore, .json = options->json, .exit_status = EXIT_CODE_BROKEN},
        .checked = check_reported,
        .vcpu_begins = options->without_sandbox ? NULL : sandbox_enter_vcpu,
        .serial_output = write_console,
        .serial_pace = pace_console,
        .self = run,
    };

    launch_init(&run->launch, &config);
}

/* With --kernel or JSON, standard output is for the guest or for the object; the other goes to standard error. */
static void open_report(struct run *run, const struct options *options)
{
    bool is_guests = (options->kernel != NULL || options->restore != NULL) && !options->json;

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
        check_kvm, check_files, make_plan, read_files,   open_trace, open_gdb, open_control,
        show_plan, make_memory, load,      make_machine, confine,    go,
    };
    struct loam_diag diag = {0};
    struct run run = {.session = {.signal_fd = -1},
                      .started_milliseconds = now_milliseconds(),
                      .started_nanoseconds = now_nanoseconds()};
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
    trace_close(run.trace);
    session_close(&run.session);
    return exit_status;
}

/* The plan stands whatever the kernel is; what cannot be booted is said beside it. */
static int show_way(struct run *run)
{
    struct loam_diag diag = {0};

    if (launch_read(&run->launch, &diag) == LOAM_OK) {
        return show_plan(run);
    }
    report_plan(&run->report, &run->launch.plan);
    report_note(&run->report, "%s", diag.text);
    return EXIT_CODE_PASS;
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
        exit_status = show_way(&run);
    }
    close_report(&run, exit_status);
    launch_release(&run.launch);
    return exit_status;
}
