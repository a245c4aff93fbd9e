// SPDX-License-Identifier: Apache-2.0
/*
 * While is_renewing, launch and devices are the renewer's; else the owner's. vCPU threads reach launch.machine from their
 * own machine's start to its end only.
 */
#include "vmm/emulator/domain.h"

#include "guest/abi.h"
#include "vmm/account.h"
#include "vmm/emulator/memory_files.h"
#include "vmm/emulator/move.h"
#include "vmm/kick.h"
#include "vmm/lasting.h"
#include "vmm/printable.h"
#include "vmm/sandbox.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* A guest that resets itself so often in a row, so soon after each start, would do it for ever. */
#define QUICK_RESET_MAX          10u
#define QUICK_RESET_MILLISECONDS 1000

/* For which a guest that is sent may stand, unless it is said otherwise; as QEMU has it. */
#define DOWNTIME_MILLISECONDS 300u

/* From one kick to the next of a thread that is told to give up. */
#define MOVE_CALL_MILLISECONDS 10

/* The one that makes lives; the main thread, and devices' threads look at memory. */
#define OWN_THREADS 1u
#define OWN_READERS 1u

enum action { ACTION_RESET, ACTION_SHUTDOWN, ACTION_POWEROFF, ACTION_PAUSE, ACTION_EXIT_FAILURE, ACTION_COUNT };

static const char *const action_names[ACTION_COUNT] = {
    [ACTION_RESET] = "reset", [ACTION_SHUTDOWN] = "shutdown",         [ACTION_POWEROFF] = "poweroff",
    [ACTION_PAUSE] = "pause", [ACTION_EXIT_FAILURE] = "exit-failure",
};

struct actions {
    enum action reboot, shutdown, panic;
};

struct domain {
    struct domain_config config;
    const struct line *line;
    struct launch launch;
    struct devices *devices;
    struct memory_files memory_files;
    struct lasting *threads;
    struct chardev *chardevs[LINE_CHARDEV_MAX];
    enum domain_state state;
    struct actions actions;
    struct move move;
    struct domain_migration how;
    bool was_running; /* before it was sent; or, of one that comes, that it is to run */
    char move_error[sizeof((struct loam_diag *)0)->text];
    bool has_ended; /* the machine has stopped, and its vCPUs rest; or there is none yet */
    bool is_over;
    int exit_status;
    /* The next life. */
    bool is_renewing;
    bool is_guests; /* the guest wants it */
    struct kick_thread renewer;
    int renewed_fd; /* readable when the renewer is done; -1 */
    atomic_bool is_ending;
    enum loam_error renew_error;
    struct loam_diag renew_diag;
    int64_t born_milliseconds;
    uint32_t quick_resets; /* in a row */
    int64_t next_look;     /* when machine_look wants to be called again */
};

static const char *const state_names[DOMAIN_STATE_COUNT] = {
    [DOMAIN_PRELAUNCH] = "prelaunch",     [DOMAIN_INMIGRATE] = "inmigrate",     [DOMAIN_RUNNING] = "running",
    [DOMAIN_PAUSED] = "paused",           [DOMAIN_POSTMIGRATE] = "postmigrate", [DOMAIN_SHUTDOWN] = "shutdown",
    [DOMAIN_PANICKED] = "guest-panicked", [DOMAIN_BROKEN] = "internal-error",
};

const char *domain_state_name(enum domain_state state)
{
    return state_names[state];
}

LOAM_PRINTF(1, 2)
static void say(const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "loam-emulator: %s\n", text);
}

static void tell(struct domain *domain, const char *name, json_t *data)
{
    domain->config.news.event(domain->config.news.self, name, data);
}

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- What the guest's life needs ---------------------------------------------------------------------------------- */

static struct chardev *serial_of(const struct domain *domain)
{
    return domain->line->serial < 0 ? NULL : domain->chardevs[domain->line->serial];
}

static void write_serial(void *self, const uint8_t *bytes, size_t count)
{
    struct chardev *serial = serial_of(self);

    if (serial != NULL) {
        chardev_write(serial, bytes, count);
    }
}

static void pace_serial(void *self)
{
    struct domain *domain = self;
    struct chardev *serial = serial_of(domain);

    if (serial != NULL) {
        chardev_pace(serial, machine_pause_fd(domain->launch.machine));
    }
}

static size_t take_serial(void *self, const uint8_t *bytes, size_t count)
{
    struct domain *domain = self;

    return machine_serial_input(domain->launch.machine, bytes, count);
}

/* Of the self-test: what is wrong stands in its console. */
static void checked(void *self, enum loam_abi_check check, const struct attest_outcome *outcome)
{
    char text[512];
    int length;

    if (outcome != NULL && !(outcome->guest_passed && outcome->host_passed)) {
        length = snprintf(text, sizeof text, "loam: %s: failed: %s\r\n", attest_check_name(check),
                          printable_of(outcome->text).text);
        write_serial(self, (const uint8_t *)text, (size_t)length);
    }
}

static bool must_end(void *self)
{
    struct domain *domain = self;
    struct pollfd end = {.fd = domain->config.end_fd, .events = POLLIN};

    return atomic_load(&domain->is_ending) || poll(&end, 1, 0) > 0;
}

static void init_launch(struct domain *domain, const struct loam_memory_request *memory)
{
    const struct line *line = domain->line;
    const struct launch_config config = {
        .memory = *memory,
        .vcpu_count = line->vcpu_count,
        .kernel = line->kernel,
        .initrd = line->initrd,
        .command_line = devices_command_line(domain->devices),
        .without_rng = !devices_has_rng(line),
        .without_acpi = line->no_acpi,
        .transports = devices_transports(domain->devices),
        .extra_threads = OWN_THREADS + devices_thread_count(domain->devices),
        .extra_readers = OWN_READERS + devices_thread_count(domain->devices),
        .tune = line->no_tune ? TUNE_IGNORE : TUNE_ADD,
        .cancel = {must_end, domain},
        .bus_error = {.exit_status = EXIT_FAILURE},
        .checked = checked,
        .vcpu_begins = line->no_sandbox ? NULL : sandbox_enter_vcpu,
        .serial_output = write_serial,
        .serial_pace = pace_serial,
        .self = domain,
    };

    launch_init(&domain->launch, &config);
}

/* Shortfalls of memory begin with the word, so that who reads them in libvirt's message knows what they are of. */
static enum loam_error about_memory(enum loam_error error, const char *text, struct loam_diag *diag)
{
    return loam_fail(diag, error == LOAM_ERROR_SYSTEM ? LOAM_ERROR_EXHAUSTED : error, "memory: %s", text);
}

static enum loam_error plan(struct domain *domain, struct loam_diag *diag)
{
    const struct loam_plan_check *shortfall;
    struct loam_diag why = {0};
    enum loam_error error = launch_plan(&domain->launch, &why);

    if (error != LOAM_OK) {
        return about_memory(error, why.text, diag);
    }
    if (domain->launch.plan.short_count == 0) {
        return LOAM_OK;
    }
    shortfall = loam_plan_shortfall(&domain->launch.plan);
    return shortfall->resource == LOAM_PLAN_VCPUS ? loam_fail(diag, LOAM_ERROR_EXHAUSTED, "%s", shortfall->text)
                                                  : about_memory(LOAM_ERROR_EXHAUSTED, shortfall->text, diag);
}

static enum loam_error make_memory(struct domain *domain, struct loam_diag *diag)
{
    struct loam_diag why = {0};
    enum loam_error error = launch_make_memory(&domain->launch, &why);

    return error == LOAM_OK ? LOAM_OK : about_memory(error, why.text, diag);
}

/* What a Linux kernel is told on this host beside its own words. */
static void note_tune(const struct domain *domain)
{
    const struct tune *tune = &domain->launch.tune;

    if (tune->command_line != NULL) {
        say("command line: %s added, since the KVM of this host lacks %s, which Linux uses unless told so: "
            "-x-loam tune=off leaves it as it was",
            tune->words, tune_lacks_text(&tune->lacks));
    }
}

/* What the kernel will not be able to use, although it is given. */
static void note_losses(const struct domain *domain)
{
    size_t length = strlen(launch_command_line(&domain->launch)), kept = domain->launch.boot.command_line_kept;

    if (domain->line->kernel != NULL && length > kept) {
        say("command line: %zu characters, with those for its devices, and this kernel is Linux, which keeps the first "
            "%zu and drops the rest: shorten it",
            length, kept);
    }
}

static enum loam_error make_threads(struct domain *domain, struct loam_diag *diag)
{
    enum loam_error error = LOAM_OK;

    if (domain->threads == NULL) {
        error = lasting_create(domain->line->vcpu_count, "CPU ", "/KVM", &domain->threads, diag);
    }
    domain->launch.config.threads = domain->threads;
    return error;
}

static enum loam_error make_machine(struct domain *domain, struct loam_diag *diag)
{
    enum loam_error error = launch_make_machine(&domain->launch, diag);

    return error == LOAM_OK ? devices_attach(domain->devices, &domain->launch, diag) : error;
}

static enum loam_error start_machine(struct domain *domain, struct loam_diag *diag)
{
    machine_pause(domain->launch.machine);
    return machine_start(domain->launch.machine, diag);
}

/* Up to vCPUs that stand before their first instruction. */
static enum loam_error make_life(struct domain *domain, struct loam_diag *diag)
{
    enum loam_error error = make_memory(domain, diag);

    if (error == LOAM_OK) {
        error = launch_load(&domain->launch, diag);
    }
    if (error == LOAM_OK) {
        error = make_threads(domain, diag);
    }
    if (error == LOAM_OK) {
        error = make_machine(domain, diag);
    }
    return error == LOAM_OK ? start_machine(domain, diag) : error;
}

/* false: a device's thread cannot be ended, and all that it uses has to stay. */
static bool end_life(struct domain *domain)
{
    struct machine_result result;

    if (domain->launch.machine != NULL) {
        machine_stop(domain->launch.machine);
        machine_wait(domain->launch.machine, &result);
    }
    if (!devices_detach(domain->devices)) {
        return false;
    }
    launch_end_life(&domain->launch);
    return true;
}

/* --- What becomes of the domain ------------------------------------------------------------------------------------ */

static void leave(struct domain *domain, int exit_status)
{
    if (!domain->is_over) {
        domain->is_over = true;
        domain->exit_status = exit_status;
        atomic_store(&domain->is_ending, true);
    }
}

static void become(struct domain *domain, enum domain_state state)
{
    bool was_running = domain->state == DOMAIN_RUNNING;

    domain->state = state;
    if (was_running) {
        tell(domain, "STOP", NULL);
    }
}

static void shut_down(struct domain *domain, const char *reason)
{
    tell(domain, "SHUTDOWN", json_pack("{sbss}", "guest", true, "reason", reason));
    if (domain->actions.shutdown == ACTION_PAUSE) {
        become(domain, DOMAIN_SHUTDOWN);
    } else {
        leave(domain, EXIT_SUCCESS);
    }
}

static void panic(struct domain *domain, enum domain_state state)
{
    const struct actions *actions = &domain->actions;
    bool pauses =
        actions->panic == ACTION_PAUSE || (actions->panic == ACTION_SHUTDOWN && actions->shutdown == ACTION_PAUSE);

    tell(domain, "GUEST_PANICKED", json_pack("{ss}", "action", pauses ? "pause" : "poweroff"));
    if (pauses) {
        become(domain, state);
    } else {
        tell(domain, "SHUTDOWN", json_pack("{sbss}", "guest", true, "reason", "guest-panic"));
        leave(domain, actions->panic == ACTION_EXIT_FAILURE ? EXIT_FAILURE : EXIT_SUCCESS);
    }
}

/* --- Another life -------------------------------------------------------------------------------------------------- */

static void renew(void *self)
{
    struct domain *domain = self;

    domain->renew_diag = (struct loam_diag){0};
    if (!end_life(domain)) {
        domain->renew_error = loam_fail(&domain->renew_diag, LOAM_ERROR_BUSY,
                                        "a device is still in a call to its file, which does not return");
    } else {
        domain->renew_error = memory_files_clear(&domain->memory_files, &domain->renew_diag);
        if (domain->renew_error == LOAM_OK) {
            domain->renew_error = make_life(domain, &domain->renew_diag);
        }
    }
    (void)eventfd_write(domain->renewed_fd, 1);
}

static void begin_reset(struct domain *domain, bool is_guests)
{
    struct loam_diag diag = {0};

    if (domain->is_renewing || domain->is_over || domain->state == DOMAIN_INMIGRATE || !move_is_idle(&domain->move)) {
        return;
    }
    if (domain->state != DOMAIN_RUNNING) {
        domain->state = DOMAIN_PRELAUNCH;
    }
    domain->is_guests = is_guests;
    domain->is_renewing = kick_start(&domain->renewer, renew, domain, "reset", &diag) == LOAM_OK;
    if (!domain->is_renewing) {
        say("reset: %s", diag.text);
        panic(domain, DOMAIN_BROKEN);
    }
}

static void let_go(struct domain *domain)
{
    devices_resume(domain->devices);
    machine_resume(domain->launch.machine);
}

static void end_reset(struct domain *domain)
{
    eventfd_t value;

    (void)eventfd_read(domain->renewed_fd, &value);
    kick_join(&domain->renewer);
    domain->is_renewing = false;
    domain->has_ended = domain->renew_error != LOAM_OK;
    if (domain->renew_error == LOAM_ERROR_CANCELLED) {
        return;
    }
    if (domain->renew_error != LOAM_OK) {
        say("reset: %s", domain->renew_diag.text);
        panic(domain, DOMAIN_BROKEN);
        return;
    }
    domain->born_milliseconds = now_milliseconds();
    tell(domain, "RESET",
         json_pack("{sbss}", "guest", domain->is_guests, "reason",
                   domain->is_guests ? "guest-reset" : "host-qmp-system-reset"));
    if (domain->state == DOMAIN_RUNNING) {
        let_go(domain);
    }
}

/* --- How far a migration is ---------------------------------------------------------------------------------------- */

static void tell_move(struct domain *domain, const char *status)
{
    if (domain->how.has_events) {
        tell(domain, "MIGRATION", json_pack("{ss}", "status", status));
    }
}

static void become_move(struct domain *domain, enum move_status status)
{
    domain->move.status = status;
    tell_move(domain, move_status_name(status));
}

/* --- The end of a life ---------------------------------------------------------------------------------------------- */

/* A guest that has ended is not sent. */
static void abort_move(struct domain *domain)
{
    if (!move_is_idle(&domain->move)) {
        move_abort(&domain->move);
        snprintf(domain->move_error, sizeof domain->move_error, "the guest has ended while it was sent");
        become_move(domain, MOVE_FAILED);
    }
}

static void judge_reset(struct domain *domain)
{
    bool is_quick = now_milliseconds() - domain->born_milliseconds < QUICK_RESET_MILLISECONDS;

    domain->quick_resets = is_quick ? domain->quick_resets + 1 : 0;
    if (domain->actions.reboot == ACTION_SHUTDOWN) {
        shut_down(domain, "guest-reset");
    } else if (domain->quick_resets >= QUICK_RESET_MAX) {
        say("the guest reset itself %u times in a row, each within %g s of its start: it is not started again",
            domain->quick_resets, QUICK_RESET_MILLISECONDS / 1000.0);
        domain->quick_resets = 0;
        panic(domain, DOMAIN_PANICKED);
    } else {
        begin_reset(domain, true);
    }
}

/* The self-test's last word is the host's, in its console and on standard error. */
static bool judge_selftest(struct domain *domain, const struct machine_result *result)
{
    uint32_t passed_count = attest_passed_count(domain->launch.attest);
    bool passed = passed_count == LOAM_ABI_CHECK_COUNT && result->exit_code == LOAM_ABI_EXIT_PASS;
    char text[128];
    int length = snprintf(text, sizeof text, "loam: self-test: %s: %u of %u checks\r\n", passed ? "pass" : "fail",
                          passed_count, (unsigned int)LOAM_ABI_CHECK_COUNT);

    write_serial(domain, (const uint8_t *)text, (size_t)length);
    if (!passed) {
        say("the self-test failed: %u of %u checks passed", passed_count, (unsigned int)LOAM_ABI_CHECK_COUNT);
    }
    return passed;
}

static void judge_exit(struct domain *domain, const struct machine_result *result)
{
    if (domain->launch.attest != NULL && !judge_selftest(domain, result)) {
        panic(domain, DOMAIN_PANICKED);
    } else if (result->exit_code != 0) {
        say("the guest stopped itself with code %u", result->exit_code);
        panic(domain, DOMAIN_PANICKED);
    } else {
        shut_down(domain, "guest-shutdown");
    }
}

static void judge_crash(struct domain *domain, const struct machine_result *result)
{
    struct account account;
    char end[1024];

    if (result->report[0] != '\0') {
        fprintf(stderr, "%s\n", printable_of(result->report).text);
    }
    account_make(domain->launch.machine, result, &domain->launch.plan, &domain->launch.kernel, &account);
    account_print(&account, stderr);
    account_end(&account, result->cause[0] != '\0' ? result->cause : launch_stop_text(result->reason), end, sizeof end);
    account_release(&account);
    say("%s", end);
    panic(domain, result->reason == MACHINE_STOP_BROKEN ? DOMAIN_BROKEN : DOMAIN_PANICKED);
}

static void judge(struct domain *domain)
{
    struct machine_result result;

    abort_move(domain);
    machine_wait(domain->launch.machine, &result);
    domain->has_ended = true;
    switch (result.reason) {
    case MACHINE_STOP_EXIT:
        judge_exit(domain, &result);
        break;
    case MACHINE_STOP_POWER_OFF:
        shut_down(domain, "guest-shutdown");
        break;
    case MACHINE_STOP_RESET:
        judge_reset(domain);
        break;
    default:
        judge_crash(domain, &result);
        break;
    }
}

/* --- Creation ------------------------------------------------------------------------------------------------------- */

static bool is_monitor(const struct line *line, uint32_t index)
{
    for (uint32_t i = 0; i < line->monitor_count; i++) {
        if (line->monitors[i] == (int)index) {
            return true;
        }
    }
    return false;
}

static enum loam_error open_chardevs(struct domain *domain, struct loam_diag *diag)
{
    const struct line *line = domain->line;
    enum loam_error error = LOAM_OK;

    for (uint32_t i = 0; error == LOAM_OK && i < line->chardev_count; i++) {
        if (!is_monitor(line, i)) {
            error = chardev_open(&line->chardevs[i], &domain->chardevs[i], diag);
        }
    }
    return error;
}

/*
 * Of all that the plan may be, the first that can be carried out: transparent huge pages where nobody said which pages,
 * and the host gives them. What is wrong with the last is told.
 */
static enum loam_error plan_first(struct domain *domain, const struct loam_memory_request *memory,
                                  struct loam_diag *diag)
{
    struct loam_memory_request thp;

    if (domain->memory_files.count == 0 && line_memory_thp(domain->line, &thp)) {
        domain->launch.config.memory = thp;
        if (plan(domain, NULL) == LOAM_OK) {
            return LOAM_OK;
        }
    }
    domain->launch.config.memory = *memory;
    return plan(domain, diag);
}

static enum loam_error prepare(struct domain *domain, struct loam_diag *diag)
{
    struct loam_memory_request memory = domain->line->memory;
    enum loam_error error = memory_files_open(domain->line, &memory, &domain->memory_files, diag);

    if (error != LOAM_OK) {
        return error;
    }
    init_launch(domain, &memory);
    error = launch_ask_kvm(&domain->launch, diag);
    if (error == LOAM_OK) {
        error = launch_measure(&domain->launch, diag);
    }
    if (error == LOAM_OK) {
        error = plan_first(domain, &memory, diag);
    }
    return error == LOAM_OK ? launch_read(&domain->launch, diag) : error;
}

static enum loam_error set_up(struct domain *domain, struct loam_diag *diag)
{
    enum loam_error error;

    enum loam_error moved = move_init(&domain->move, diag);

    if (moved != LOAM_OK) {
        return moved;
    }
    domain->renewed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (domain->renewed_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "eventfd");
    }
    error = open_chardevs(domain, diag);
    if (error == LOAM_OK) {
        error = devices_open(domain->line, &domain->config.news, &domain->devices, diag);
    }
    return error == LOAM_OK ? prepare(domain, diag) : error;
}

enum loam_error domain_create(const struct domain_config *config, struct domain **domain, struct loam_diag *diag)
{
    struct domain *made = calloc(1, sizeof *made);
    enum loam_error error;

    *domain = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "domain");
    }
    made->config = *config;
    made->line = config->line;
    made->renewed_fd = -1;
    made->move.done_fd = made->move.fd = -1;
    made->actions = (struct actions){
        .reboot = config->line->no_reboot ? ACTION_SHUTDOWN : ACTION_RESET,
        .shutdown = config->line->no_shutdown ? ACTION_PAUSE : ACTION_POWEROFF,
        .panic = ACTION_SHUTDOWN,
    };
    error = set_up(made, diag);
    if (error != LOAM_OK) {
        (void)domain_destroy(made);
        return error;
    }
    *domain = made;
    return LOAM_OK;
}

static enum loam_error confine(struct domain *domain, struct loam_diag *diag)
{
    return domain->config.confine != NULL ? domain->config.confine(domain->config.confine_self, diag) : LOAM_OK;
}

/* The guest is to come: there is memory for it, and threads. */
static enum loam_error make_room(struct domain *domain, struct loam_diag *diag)
{
    enum loam_error error = make_memory(domain, diag);

    domain->state = DOMAIN_INMIGRATE;
    domain->has_ended = true;
    return error == LOAM_OK ? make_threads(domain, diag) : error;
}

enum loam_error domain_make(struct domain *domain, struct loam_diag *diag)
{
    enum loam_error error;

    if (domain->line->is_incoming) {
        return make_room(domain, diag);
    }
    error = confine(domain, diag);
    if (error == LOAM_OK) {
        error = make_life(domain, diag);
    }

    if (error == LOAM_OK) {
        note_tune(domain);
        note_losses(domain);
    }
    return error;
}

void domain_go(struct domain *domain)
{
    if (!domain->line->starts_paused && !domain->line->is_incoming) {
        (void)!domain_cont(domain, NULL);
    }
}

bool domain_destroy(struct domain *domain)
{
    if (domain == NULL) {
        return true;
    }
    atomic_store(&domain->is_ending, true);
    if (domain->is_renewing) {
        kick_join(&domain->renewer);
    }
    move_end(&domain->move);
    if (!end_life(domain)) {
        return false;
    }
    launch_release(&domain->launch);
    lasting_destroy(domain->threads);
    devices_close(domain->devices);
    memory_files_close(&domain->memory_files);
    for (uint32_t i = 0; i < LINE_CHARDEV_MAX; i++) {
        chardev_close(domain->chardevs[i]);
    }
    if (domain->renewed_fd >= 0) {
        close(domain->renewed_fd);
    }
    free(domain);
    return true;
}

/* --- Migration ----------------------------------------------------------------------------------------------------- */

static enum loam_error save_devices(void *self, struct state_writer *writer, struct loam_diag *diag)
{
    struct domain *domain = self;

    (void)diag;
    devices_save(domain->devices, writer);
    return LOAM_OK;
}

static enum loam_error load_devices(void *self, struct state_reader *reader, struct loam_diag *diag)
{
    struct domain *domain = self;

    return devices_load(domain->devices, reader, diag);
}

/* It is here still, and as it was. */
static void fail_move(struct domain *domain, enum move_status status, const struct loam_diag *diag)
{
    snprintf(domain->move_error, sizeof domain->move_error, "%s", status == MOVE_FAILED ? diag->text : "");
    become_move(domain, status);
    if (status == MOVE_FAILED) {
        say("migrate: %s", diag->text);
    }
    if (domain->was_running && domain->state == DOMAIN_PAUSED) {
        (void)!domain_cont(domain, NULL);
    }
}

/* What it has written since is sent while it stands. */
static void stand_and_send(struct domain *domain)
{
    struct loam_diag diag = {0};

    domain->move.stood_milliseconds = now_milliseconds();
    domain_stop(domain);
    if (move_send_rest(&domain->move, &diag) != LOAM_OK) {
        fail_move(domain, MOVE_FAILED, &diag);
    }
}

static void finish_move(struct domain *domain)
{
    struct loam_diag diag = {0};

    become_move(domain, MOVE_DEVICE);
    if (move_finish(&domain->move, domain->how.has_return_path, &diag) != LOAM_OK) {
        fail_move(domain, MOVE_FAILED, &diag);
    }
}

/* Out of what came, with the devices of this process. */
static enum loam_error settle_in(struct domain *domain, struct loam_diag *diag)
{
    struct launch *launch = &domain->launch;
    enum loam_error error = machine_state_check(move_received(&domain->move), diag);

    launch->state = move_received(&domain->move);
    if (error == LOAM_OK) {
        error = state_memory_load(launch->memory, launch->state, diag);
    }
    if (error == LOAM_OK) {
        error = confine(domain, diag);
    }
    if (error == LOAM_OK) {
        error = make_machine(domain, diag);
    }
    if (error == LOAM_OK) {
        devices_quiesce(domain->devices);
        error = launch_make_going(launch, load_devices, domain, diag);
    }
    if (error == LOAM_OK) {
        error = start_machine(domain, diag);
    }
    return error == LOAM_OK && domain->how.has_return_path ? move_give_word(&domain->move, diag) : error;
}

static void arrive(struct domain *domain, enum loam_error error, struct loam_diag *diag)
{
    if (error == LOAM_OK) {
        error = settle_in(domain, diag);
    }
    if (error != LOAM_OK) {
        say("migrate-incoming: %s", diag->text);
        snprintf(domain->move_error, sizeof domain->move_error, "%s", diag->text);
        become_move(domain, MOVE_FAILED);
        leave(domain, EXIT_FAILURE);
        return;
    }
    domain->has_ended = false;
    domain->state = DOMAIN_PAUSED;
    domain->born_milliseconds = now_milliseconds();
    become_move(domain, MOVE_COMPLETED);
    if (domain->was_running) {
        (void)!domain_cont(domain, NULL);
    }
}

static void turn_move(struct domain *domain)
{
    struct loam_diag diag = {0};

    switch (move_turn(&domain->move, &diag)) {
    case MOVE_NEWS_MEMORY_SENT:
        stand_and_send(domain);
        break;
    case MOVE_NEWS_REST_SENT:
        if (domain->how.pauses_before_switchover) {
            become_move(domain, MOVE_PRE_SWITCHOVER);
        } else {
            finish_move(domain);
        }
        break;
    case MOVE_NEWS_SENT:
        domain->state = DOMAIN_POSTMIGRATE;
        become_move(domain, MOVE_COMPLETED);
        break;
    case MOVE_NEWS_RECEIVED:
        arrive(domain, LOAM_OK, &diag);
        break;
    case MOVE_NEWS_FAILED:
        if (domain->state == DOMAIN_INMIGRATE) {
            arrive(domain, LOAM_ERROR_INVALID, &diag);
        } else {
            fail_move(domain, atomic_load(&domain->move.must_end) ? MOVE_CANCELLED : MOVE_FAILED, &diag);
        }
        break;
    default:
        break;
    }
}

enum loam_error domain_migrate(struct domain *domain, int fd, struct loam_diag *diag)
{
    const struct snapshot_source source = {
        .memory = domain->launch.memory, .machine = domain->launch.machine, .save = save_devices, .self = domain};
    enum loam_error error = LOAM_OK;

    if (domain->is_renewing || domain->has_ended) {
        error = loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "migrate: there is no guest to be sent");
    } else if (launch_is_selftest(&domain->launch)) {
        error = loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                          "migrate: the self-test cannot be sent: its host's half is this process");
    } else if (!move_is_idle(&domain->move)) {
        error = loam_fail(diag, LOAM_ERROR_BUSY, "migrate: the guest is being sent already");
    }
    if (error != LOAM_OK) {
        close(fd);
        return error;
    }
    domain->was_running = domain->state == DOMAIN_RUNNING;
    domain->move_error[0] = '\0';
    tell_move(domain, "setup");
    become_move(domain, MOVE_ACTIVE);
    error = move_send(
        &domain->move, fd, &source, domain->was_running,
        domain->how.downtime_milliseconds != 0 ? domain->how.downtime_milliseconds : DOWNTIME_MILLISECONDS, diag);
    if (error != LOAM_OK) {
        fail_move(domain, MOVE_FAILED, diag);
    }
    return error;
}

enum loam_error domain_migrate_continue(struct domain *domain, struct loam_diag *diag)
{
    if (domain->move.status != MOVE_PRE_SWITCHOVER) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "migrate-continue: nothing waits for it: migration is %s",
                         move_status_name(domain->move.status));
    }
    finish_move(domain);
    return LOAM_OK;
}

void domain_migrate_cancel(struct domain *domain)
{
    const struct loam_diag none = {0};

    if (domain->move.status == MOVE_PRE_SWITCHOVER) {
        move_cancel(&domain->move);
        fail_move(domain, MOVE_CANCELLED, &none);
    } else if (!move_is_idle(&domain->move) && domain->state != DOMAIN_INMIGRATE) {
        move_cancel(&domain->move);
    }
}

enum loam_error domain_migrate_incoming(struct domain *domain, const char *uri, struct loam_diag *diag)
{
    enum loam_error error;

    if (domain->state != DOMAIN_INMIGRATE || domain->move.status != MOVE_NONE) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                         "migrate-incoming: no guest is waited for: -incoming defer says that one is");
    }
    error = move_receive(&domain->move, uri, domain->launch.memory, diag);
    if (error == LOAM_OK) {
        tell_move(domain, "setup");
        become_move(domain, MOVE_ACTIVE);
    }
    return error;
}

void domain_set_migration(struct domain *domain, const struct domain_migration *how)
{
    domain->how = *how;
}

json_t *domain_migration(const struct domain *domain)
{
    return move_json(&domain->move, domain->move_error);
}

/* --- Turns ----------------------------------------------------------------------------------------------------------- */

static bool takes_serial(const struct domain *domain, uint32_t index)
{
    return (int)index == domain->line->serial && domain->state == DOMAIN_RUNNING && !domain->is_renewing &&
           !domain->has_ended;
}

/* The machine runs, and is the owner's. */
static bool is_to_be_looked_at(const struct domain *domain)
{
    return domain->state == DOMAIN_RUNNING && !domain->is_renewing && !domain->has_ended;
}

static void await_look(const struct domain *domain, int *timeout_milliseconds)
{
    int64_t left = domain->next_look - now_milliseconds();

    left = left < 0 ? 0 : left;
    if (is_to_be_looked_at(domain) && (*timeout_milliseconds < 0 || left < *timeout_milliseconds)) {
        *timeout_milliseconds = (int)left;
    }
}

size_t domain_poll(struct domain *domain, struct pollfd fds[DOMAIN_POLL_MAX], int *timeout_milliseconds)
{
    size_t count = 0;

    if (domain->is_renewing) {
        fds[count++] = (struct pollfd){.fd = domain->renewed_fd, .events = POLLIN};
    } else if (!domain->has_ended) {
        fds[count++] = (struct pollfd){.fd = machine_stop_fd(domain->launch.machine), .events = POLLIN};
    }
    fds[count++] = (struct pollfd){.fd = move_fd(&domain->move), .events = POLLIN};
    if (atomic_load(&domain->move.must_end) && domain->move.has_thread) {
        *timeout_milliseconds = MOVE_CALL_MILLISECONDS; /* until it has heard */
    }
    count += devices_poll(domain->devices, fds + count, timeout_milliseconds);
    for (uint32_t i = 0; i < domain->line->chardev_count; i++) {
        if (domain->chardevs[i] != NULL) {
            count += chardev_poll(domain->chardevs[i], fds + count, takes_serial(domain, i), timeout_milliseconds);
        }
    }
    await_look(domain, timeout_milliseconds);
    return count;
}

static bool is_readable(int fd)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};

    return poll(&readable, 1, 0) > 0;
}

void domain_turn(struct domain *domain)
{
    if (domain->is_renewing && is_readable(domain->renewed_fd)) {
        end_reset(domain);
    } else if (!domain->is_renewing && !domain->has_ended && is_readable(machine_stop_fd(domain->launch.machine))) {
        judge(domain);
    }
    turn_move(domain);
    devices_turn(domain->devices);
    for (uint32_t i = 0; i < domain->line->chardev_count; i++) {
        if (domain->chardevs[i] != NULL) {
            chardev_turn(domain->chardevs[i], takes_serial(domain, i) ? take_serial : NULL, domain);
        }
    }
    if (is_to_be_looked_at(domain)) {
        domain->next_look = now_milliseconds() + machine_look(domain->launch.machine);
    }
}

bool domain_is_over(const struct domain *domain, int *exit_status)
{
    *exit_status = domain->exit_status;
    return domain->is_over;
}

/* --- Commands -------------------------------------------------------------------------------------------------------- */

enum loam_error domain_cont(struct domain *domain, struct loam_diag *diag)
{
    if (domain->state >= DOMAIN_SHUTDOWN) {
        return loam_fail(diag, LOAM_ERROR_NOT_PERMITTED,
                         "the guest has ended its life (%s), and cannot go on: system_reset gives it another",
                         domain_state_name(domain->state));
    }
    if (domain->state == DOMAIN_INMIGRATE) {
        domain->was_running = true; /* once it has come */
        return LOAM_OK;
    }
    if (!move_is_idle(&domain->move) && domain->state == DOMAIN_PAUSED) {
        return loam_fail(diag, LOAM_ERROR_BUSY, "the guest is being sent: migrate_cancel first");
    }
    if (domain->state != DOMAIN_RUNNING) {
        domain->state = DOMAIN_RUNNING;
        domain->born_milliseconds = domain->born_milliseconds == 0 ? now_milliseconds() : domain->born_milliseconds;
        tell(domain, "RESUME", NULL);
        if (!domain->is_renewing && !domain->has_ended) {
            let_go(domain);
        }
    }
    return LOAM_OK;
}

void domain_stop(struct domain *domain)
{
    if (domain->state == DOMAIN_RUNNING) {
        if (!domain->is_renewing && !domain->has_ended) {
            machine_pause(domain->launch.machine);
            devices_quiesce(domain->devices);
        }
        become(domain, DOMAIN_PAUSED);
    }
}

void domain_reset(struct domain *domain)
{
    begin_reset(domain, false);
}

void domain_press_power(struct domain *domain)
{
    tell(domain, "POWERDOWN", NULL);
    if (!domain->is_renewing && !domain->has_ended && !machine_press_power(domain->launch.machine)) {
        say("the power button was pressed, and the guest does not listen to it (ACPI: PM1_EN, bit 8)");
    }
}

void domain_end(struct domain *domain, const char *reason)
{
    if (!domain->is_over) {
        tell(domain, "SHUTDOWN", json_pack("{sbss}", "guest", false, "reason", reason));
        leave(domain, EXIT_SUCCESS);
    }
}

/* One of up to three that are possible; ACTION_COUNT ends them. */
static bool find_action(const char *name, const enum action *possible, enum action *found)
{
    for (; name != NULL && *possible != ACTION_COUNT; possible++) {
        if (strcmp(action_names[*possible], name) == 0) {
            *found = *possible;
            return true;
        }
    }
    return name == NULL;
}

enum loam_error domain_set_action(struct domain *domain, const char *reboot, const char *shutdown, const char *panicked,
                                  struct loam_diag *diag)
{
    static const enum action reboots[] = {ACTION_RESET, ACTION_SHUTDOWN, ACTION_COUNT};
    static const enum action shutdowns[] = {ACTION_POWEROFF, ACTION_PAUSE, ACTION_COUNT};
    static const enum action panics[] = {ACTION_PAUSE, ACTION_SHUTDOWN, ACTION_EXIT_FAILURE, ACTION_COUNT};
    struct actions actions = domain->actions;

    if (!find_action(reboot, reboots, &actions.reboot)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "set-action: reboot=%s: reset and shutdown are possible", reboot);
    }
    if (!find_action(shutdown, shutdowns, &actions.shutdown)) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "set-action: shutdown=%s: poweroff and pause are possible",
                         shutdown);
    }
    if (!find_action(panicked, panics, &actions.panic)) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "set-action: panic=%s: pause, shutdown and exit-failure are possible: a guest that has "
                         "panicked does not go on",
                         panicked);
    }
    domain->actions = actions;
    return LOAM_OK;
}

/* --- Queries --------------------------------------------------------------------------------------------------------- */

enum domain_state domain_state(const struct domain *domain)
{
    return domain->state;
}

const struct line *domain_line(const struct domain *domain)
{
    return domain->line;
}

struct launch *domain_launch(struct domain *domain)
{
    return domain->is_renewing || domain->launch.machine == NULL ? NULL : &domain->launch;
}

struct devices *domain_devices(struct domain *domain)
{
    return domain->devices;
}

pid_t domain_vcpu_thread(const struct domain *domain, uint32_t vcpu)
{
    return lasting_thread(domain->threads, vcpu);
}

const char *domain_chardev_filename(const struct domain *domain, uint32_t index)
{
    return domain->chardevs[index] == NULL ? NULL : chardev_filename(domain->chardevs[index]);
}
