// SPDX-License-Identifier: Apache-2.0
#include "vmm/control.h"

#include "loam/version.h"
#include "vmm/kick.h"
#include "vmm/listener.h"
#include "vmm/qmp.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * launch NULL: there is no guest. While is_writing, the guest, the request and what follows it are the writer's.
 */
struct control {
    struct listener listener;
    struct qmp *qmp;
    struct launch *launch;
    bool has_quit;
    bool has_writer; /* to be joined */
    atomic_bool is_writing;
    atomic_bool must_end;
    struct kick_thread writer;
    struct snapshot_request request;
    struct snapshot_base base;
    bool is_logging;                 /* what was written since the snapshot with last_id; nobody's while is_writing */
    uint8_t last_id[IMAGE_ID_BYTES]; /* likewise */
};

/* --- A snapshot --------------------------------------------------------------------------------------------------- */

static json_t *figures_of(const struct snapshot_figures *figures)
{
    return json_pack("{sssIsIsIsIsIsI}", "status", "completed", "memory-bytes",
                     (json_int_t)figures->memory.written_bytes, "zero-bytes", (json_int_t)figures->memory.zero_bytes,
                     "state-bytes", (json_int_t)figures->state_bytes, "pause-nanoseconds",
                     (json_int_t)figures->pause_nanoseconds, "nanoseconds", (json_int_t)figures->nanoseconds, "rounds",
                     (json_int_t)figures->round_count);
}

static enum loam_error write_files(struct control *control, struct snapshot_figures *figures, struct loam_diag *diag)
{
    struct launch *launch = control->launch;
    const struct snapshot_source source = {
        .memory = launch->memory, .machine = launch->machine, .must_end = &control->must_end};
    enum loam_error error = launch_settle(launch)
                                ? snapshot_write(&source, &control->request, control->last_id, figures, diag)
                                : loam_fail(diag, LOAM_ERROR_INVALID, "the guest's memory was never all there");

    control->is_logging = error == LOAM_OK && control->request.keeps_log;
    if (!control->is_logging) {
        machine_log_stop(launch->machine); /* which may have failed before it was anybody's */
    }
    return error;
}

static void write_snapshot(void *self)
{
    struct control *control = self;
    struct snapshot_figures figures;
    struct loam_diag diag = {0};
    enum loam_error error = write_files(control, &figures, &diag);

    close(control->request.memory_fd);
    close(control->request.state_fd);
    atomic_store(&control->is_writing, false);
    qmp_event(control->qmp, "LOAM_SNAPSHOT",
              error == LOAM_OK ? figures_of(&figures) : json_pack("{ssss}", "status", "failed", "error", diag.text));
}

static void join_writer(struct control *control)
{
    if (control->has_writer) {
        kick_join(&control->writer);
        control->has_writer = false;
    }
}

static bool start_writer(struct control *control, struct qmp_call *call)
{
    struct loam_diag diag = {0};

    join_writer(control);
    atomic_store(&control->is_writing, true);
    control->has_writer = kick_start(&control->writer, write_snapshot, control, "snapshot", &diag) == LOAM_OK;
    if (!control->has_writer) {
        atomic_store(&control->is_writing, false);
        qmp_refuse(call, QMP_GENERIC_ERROR, "%s", diag.text);
    }
    return control->has_writer;
}

/* --- Commands ----------------------------------------------------------------------------------------------------- */

/* Whether there is a guest that can be told something now. */
static bool is_ready(struct control *control, struct qmp_call *call)
{
    if (control->launch == NULL || control->launch->machine == NULL) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "there is no guest yet, or no more");
        return false;
    }
    if (atomic_load(&control->must_end)) { /* nobody waits for what is being written, which ends within a chunk */
        join_writer(control);
        atomic_store(&control->must_end, false);
    }
    if (atomic_load(&control->is_writing)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "a snapshot is being written: wait for LOAM_SNAPSHOT");
        return false;
    }
    return true;
}

static void query_status(void *self, struct qmp_call *call)
{
    struct control *control = self;
    bool is_running =
        control->launch != NULL && control->launch->machine != NULL && !machine_is_pausing(control->launch->machine);

    call->answer =
        json_pack("{sssbsb}", "status", is_running ? "running" : "paused", "running", is_running, "singlestep", false);
}

static void stop(void *self, struct qmp_call *call)
{
    struct control *control = self;

    if (is_ready(control, call) && !machine_is_pausing(control->launch->machine)) {
        machine_pause(control->launch->machine);
        qmp_event(control->qmp, "STOP", NULL);
    }
}

static void cont(void *self, struct qmp_call *call)
{
    struct control *control = self;

    if (is_ready(control, call) && machine_is_pausing(control->launch->machine)) {
        machine_resume(control->launch->machine);
        qmp_event(control->qmp, "RESUME", NULL);
    }
}

static void powerdown(void *self, struct qmp_call *call)
{
    struct control *control = self;

    if (is_ready(control, call) && !machine_press_power(control->launch->machine)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "the guest does not listen to the power button (ACPI: PM1_EN, bit 8)");
    }
}

static void quit(void *self, struct qmp_call *call)
{
    struct control *control = self;

    (void)call;
    control->has_quit = true;
}

static bool read_id(const char *text, uint8_t id[IMAGE_ID_BYTES])
{
    unsigned int byte;

    if (text == NULL || strlen(text) != (size_t)2 * IMAGE_ID_BYTES) {
        return false;
    }
    for (size_t i = 0; i < IMAGE_ID_BYTES; i++) {
        if (sscanf(text + 2 * i, "%2x", &byte) != 1) {
            return false;
        }
        id[i] = (uint8_t)byte;
    }
    return true;
}

/* "parent": {"id", "name"}, of the last snapshot; "track": whether what is written is logged from then on. */
static bool read_request(struct control *control, struct qmp_call *call)
{
    const json_t *parent = json_object_get(call->arguments, "parent");
    const char *name = json_string_value(json_object_get(parent, "name"));

    control->request = (struct snapshot_request){.keeps_log = json_is_true(json_object_get(call->arguments, "track"))};
    if (parent == NULL) {
        return true;
    }
    if (!read_id(json_string_value(json_object_get(parent, "id")), control->base.id) || name == NULL ||
        name[0] == '\0' || strlen(name) >= sizeof control->base.name) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "parent: an object with id and name wanted");
        return false;
    }
    if (!control->is_logging || memcmp(control->base.id, control->last_id, sizeof control->last_id) != 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR,
                   "%s is not the last snapshot of this guest, or was not taken with --track: take all of it", name);
        return false;
    }
    snprintf(control->base.name, sizeof control->base.name, "%s", name);
    control->request.base = &control->base;
    control->request.keeps_log = true;
    return true;
}

static void snapshot(void *self, struct qmp_call *call)
{
    struct control *control = self;
    int memory_fd = qmp_take_descriptor(call), state_fd = qmp_take_descriptor(call);
    bool is_taken = false;

    if (memory_fd < 0 || state_fd < 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "two descriptors wanted, of files for memory and state");
    } else if (control->launch != NULL && launch_is_selftest(control->launch)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "the self-test cannot be saved: its host's half is this process");
    } else if (is_ready(control, call) && read_request(control, call)) {
        control->request.memory_fd = memory_fd;
        control->request.state_fd = state_fd;
        is_taken = start_writer(control, call);
    }
    if (!is_taken && memory_fd >= 0) {
        close(memory_fd);
    }
    if (!is_taken && state_fd >= 0) {
        close(state_fd);
    }
}

static const struct qmp_command commands[] = {
    {"query-status", query_status},  {"stop", stop}, {"cont", cont},
    {"system_powerdown", powerdown}, {"quit", quit}, {"loam-snapshot", snapshot},
};

/* Who is told of it, has gone: it is in vain. */
static void hung_up(void *self, size_t client_count)
{
    struct control *control = self;

    if (client_count == 0 && atomic_load(&control->is_writing)) {
        atomic_store(&control->must_end, true);
    }
}

/* --- Lifecycle ---------------------------------------------------------------------------------------------------- */

static enum loam_error serve(struct control *control, struct loam_diag *diag)
{
    struct qmp_config config = {.commands = commands,
                                .command_count = sizeof commands / sizeof commands[0],
                                .self = control,
                                .package = "loam " LOAM_VERSION,
                                .hung_up = hung_up};
    enum loam_error error = qmp_create(&config, &control->qmp, diag);
    int fd = error == LOAM_OK ? dup(control->listener.fd) : -1;

    if (error == LOAM_OK && fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--control: dup");
    }
    return error == LOAM_OK ? qmp_listen(control->qmp, fd, diag) : error;
}

enum loam_error control_open(const char *path, struct control **control, struct loam_diag *diag)
{
    struct control *made = calloc(1, sizeof *made);
    enum loam_error error;

    *control = NULL;
    if (made == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "--control");
    }
    error = listener_open("--control", path, &made->listener, diag);
    if (error == LOAM_OK) {
        error = serve(made, diag);
    }
    if (error != LOAM_OK) {
        control_close(made);
        return error;
    }
    *control = made;
    return LOAM_OK;
}

void control_close(struct control *control)
{
    if (control != NULL) {
        control_end(control);
        qmp_destroy(control->qmp);
        listener_close(&control->listener);
        free(control);
    }
}

void control_begin(struct control *control, struct launch *launch)
{
    control->launch = launch;
    control->is_logging = false;
    atomic_store(&control->must_end, false);
}

void control_end(struct control *control)
{
    atomic_store(&control->must_end, true);
    join_writer(control);
    control->launch = NULL;
}

int control_fd(const struct control *control)
{
    return qmp_fd(control->qmp);
}

void control_turn(struct control *control)
{
    qmp_turn(control->qmp);
}

bool control_has_quit(const struct control *control)
{
    return control->has_quit;
}
