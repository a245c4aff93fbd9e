// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/commands.h"

#include "vmm/emulator/loam_commands.h"
#include "vmm/emulator/probe.h"
#include "vmm/json_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define CPU_PATH_FORMAT "/machine/unattached/device[%" PRIu32 "]"
#define PERIPHERALS     "/machine/peripheral"

/* --- Arguments ------------------------------------------------------------------------------------------------------ */

/* The argument's text, or NULL, and the call is refused. */
static const char *text_of(struct qmp_call *call, const char *name)
{
    const json_t *value = json_object_get(call->arguments, name);

    if (!json_is_string(value)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, value == NULL ? "Parameter '%s' is missing" : "Parameter '%s' is no string",
                   name);
        return NULL;
    }
    return json_string_value(value);
}

/* false: it is there, and no number within [least, most]; the call is refused. */
static bool number_of(struct qmp_call *call, const char *name, json_int_t least, json_int_t most, json_int_t *number)
{
    const json_t *value = json_object_get(call->arguments, name);

    if (value == NULL) {
        return true;
    }
    if (!json_is_integer(value) || json_integer_value(value) < least || json_integer_value(value) > most) {
        qmp_refuse(call, QMP_GENERIC_ERROR,
                   "Parameter '%s' is no number from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT, name, least,
                   most);
        return false;
    }
    *number = json_integer_value(value);
    return true;
}

/* No argument but those of a list that NULL ends; false: the call is refused. */
static bool has_only(struct qmp_call *call, const char *const *names)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)call->arguments, key, value)
    {
        const char *const *name = names;

        while (*name != NULL && strcmp(*name, key) != 0) {
            name++;
        }
        if (*name == NULL) {
            qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter '%s' is unexpected", key);
            return false;
        }
    }
    return true;
}

#define ONLY(call, ...) has_only((call), (const char *const[]){__VA_ARGS__, NULL})
#define NONE(call)      has_only((call), (const char *const[]){NULL})

static void refuse(struct qmp_call *call, const struct loam_diag *diag)
{
    qmp_refuse(call, QMP_GENERIC_ERROR, "%s", diag->text);
}

/* The domain, or NULL, and the call is refused. */
static struct domain *domain_of(void *self, struct qmp_call *call)
{
    struct commands *commands = self;

    if (commands->domain == NULL) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "there is no guest: this is -machine none, which is for questions only");
    }
    return commands->domain;
}

/* --- What the emulator is -------------------------------------------------------------------------------------------- */

static void query_version(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = probe_version();
}

static void query_target(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = json_pack("{ss}", "arch", "x86_64");
}

static void query_kvm(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = probe_kvm();
}

static void list_types(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = probe_types();
}

static void list_properties(void *self, struct qmp_call *call)
{
    const char *type = text_of(call, "typename");

    (void)self;
    if (type == NULL) {
        return;
    }
    call->answer = probe_properties(type);
    if (call->answer == NULL) {
        qmp_refuse(call, QMP_DEVICE_NOT_FOUND, "Device '%s' not found", type);
    }
}

static void query_machines(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = probe_machines();
}

static void query_cpu_definitions(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = probe_cpus();
}

static void query_options(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = probe_options();
}

static void answer_none(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = json_array();
}

static void query_commands(void *self, struct qmp_call *call)
{
    size_t count;
    const struct qmp_command *commands = commands_table(&count);

    (void)self;
    call->answer = json_pack("[{ss}]", "name", "qmp_capabilities");
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(call->answer, json_pack("{ss}", "name", commands[i].name));
    }
}

static struct fdsets *fdsets_of(void *self)
{
    struct commands *commands = self;

    return commands->fdsets;
}

/* --- Migration ------------------------------------------------------------------------------------------------------- */

#define DOWNTIME_MAX 2000000u /* as QEMU's */

enum { CAPABILITY_EVENTS, CAPABILITY_PAUSE, CAPABILITY_RETURN_PATH, CAPABILITY_COUNT };

static const char *const capability_names[CAPABILITY_COUNT] = {[CAPABILITY_EVENTS] = "events",
                                                               [CAPABILITY_PAUSE] = "pause-before-switchover",
                                                               [CAPABILITY_RETURN_PATH] = "return-path"};

static void query_migrate_capabilities(void *self, struct qmp_call *call)
{
    const struct commands *commands = self;

    call->answer = json_array();
    for (size_t i = 0; i < CAPABILITY_COUNT; i++) {
        json_array_append_new(call->answer, json_pack("{sssb}", "capability", capability_names[i], "state",
                                                      commands->migration_capabilities[i]));
    }
}

static int find_capability(const char *name)
{
    int found = 0;

    while (found < CAPABILITY_COUNT && (name == NULL || strcmp(capability_names[found], name) != 0)) {
        found++;
    }
    return found;
}

static void tell_how(const struct commands *commands)
{
    const struct domain_migration how = {.has_events = commands->migration_capabilities[CAPABILITY_EVENTS],
                                         .pauses_before_switchover = commands->migration_capabilities[CAPABILITY_PAUSE],
                                         .has_return_path = commands->migration_capabilities[CAPABILITY_RETURN_PATH],
                                         .downtime_milliseconds = commands->downtime_milliseconds};

    if (commands->domain != NULL) {
        domain_set_migration(commands->domain, &how);
    }
}

/* All of them are looked at before any is set. */
static void set_migrate_capabilities(void *self, struct qmp_call *call)
{
    struct commands *commands = self;
    const json_t *list = json_object_get(call->arguments, "capabilities"), *entry;
    bool wanted[CAPABILITY_COUNT];
    size_t i;

    memcpy(wanted, commands->migration_capabilities, sizeof wanted);
    if (!json_is_array(list)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter 'capabilities' is missing, or no list");
        return;
    }
    json_array_foreach(list, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "capability"));
        const json_t *state = json_object_get(entry, "state");
        int found = find_capability(name);

        if (found == CAPABILITY_COUNT || !json_is_boolean(state)) {
            qmp_refuse(call, QMP_GENERIC_ERROR,
                       "'events', 'pause-before-switchover' and 'return-path' are all capabilities: '%s' cannot be "
                       "set",
                       name == NULL ? "" : name);
            return;
        }
        wanted[found] = json_is_true(state);
    }
    memcpy(commands->migration_capabilities, wanted, sizeof wanted);
    tell_how(commands);
}

static void query_migrate(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        call->answer = domain_migration(domain);
    }
}

/* It goes as fast as the stream takes it. */
static void query_migrate_parameters(void *self, struct qmp_call *call)
{
    const struct commands *commands = self;
    const uint32_t downtime = commands->downtime_milliseconds != 0 ? commands->downtime_milliseconds : 300;

    call->answer = json_pack("{sIsI}", "max-bandwidth", (json_int_t)INT64_MAX, "downtime-limit", (json_int_t)downtime);
}

static void set_migrate_parameters(void *self, struct qmp_call *call)
{
    struct commands *commands = self;
    const json_t *downtime = json_object_get(call->arguments, "downtime-limit");
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)call->arguments, name, value)
    {
        if ((strcmp(name, "max-bandwidth") != 0 && strcmp(name, "downtime-limit") != 0) || !json_is_integer(value)) {
            qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter '%s' is unexpected, or no number", name);
            return;
        }
    }
    if (downtime != NULL && (json_integer_value(downtime) < 1 || json_integer_value(downtime) > DOWNTIME_MAX)) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter 'downtime-limit' expects a number of ms from 1 to %u",
                   DOWNTIME_MAX);
    } else if (downtime != NULL) {
        commands->downtime_milliseconds = (uint32_t)json_integer_value(downtime);
        tell_how(commands);
    }
}

static void act_migrate(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    const char *uri = domain != NULL ? text_of(call, "uri") : NULL;
    struct loam_diag diag = {0};
    int fd;

    if (uri == NULL) {
        return;
    }
    fd = strncmp(uri, "fd:", 3) == 0 ? fdsets_take(fdsets_of(self), uri + 3) : -1;
    if (fd < 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "migrate %s: fd:NAME wanted, of a descriptor that getfd has brought", uri);
    } else if (domain_migrate(domain, fd, &diag) != LOAM_OK) {
        refuse(call, &diag);
    }
}

static void act_migrate_incoming(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    const char *uri = domain != NULL ? text_of(call, "uri") : NULL;
    struct loam_diag diag = {0};

    if (uri != NULL && domain_migrate_incoming(domain, uri, &diag) != LOAM_OK) {
        refuse(call, &diag);
    }
}

static void act_migrate_continue(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    struct loam_diag diag = {0};

    if (domain != NULL && domain_migrate_continue(domain, &diag) != LOAM_OK) {
        refuse(call, &diag);
    }
}

static void act_migrate_cancel(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        domain_migrate_cancel(domain);
    }
}

/* --- What the guest does ---------------------------------------------------------------------------------------------- */

static void query_status(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        call->answer = json_pack("{sssbsb}", "status", domain_state_name(domain_state(domain)), "running",
                                 domain_state(domain) == DOMAIN_RUNNING, "singlestep", 0);
    }
}

static void act_cont(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    struct loam_diag diag = {0};

    if (domain != NULL && domain_cont(domain, &diag) != LOAM_OK) {
        refuse(call, &diag);
    }
}

static void act_stop(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        domain_stop(domain);
    }
}

static void act_reset(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        domain_reset(domain);
    }
}

static void act_power(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        domain_press_power(domain);
    }
}

static void act_quit(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    if (domain != NULL) {
        domain_end(domain, "host-qmp-quit");
    }
}

/* A text that need not be there; false: it is something else, and the call is refused. */
static bool may_text(struct qmp_call *call, const char *name, const char **text)
{
    *text = NULL;
    if (json_object_get(call->arguments, name) != NULL) {
        *text = text_of(call, name);
        return *text != NULL;
    }
    return true;
}

static void set_action(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    const char *reboot, *shutdown, *panic;
    struct loam_diag diag = {0};

    if (domain != NULL && ONLY(call, "reboot", "shutdown", "panic") && may_text(call, "reboot", &reboot) &&
        may_text(call, "shutdown", &shutdown) && may_text(call, "panic", &panic) &&
        domain_set_action(domain, reboot, shutdown, panic, &diag) != LOAM_OK) {
        refuse(call, &diag);
    }
}

/* --- What the guest has ------------------------------------------------------------------------------------------------ */

static void query_cpus(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    uint32_t count = domain == NULL ? 0 : domain_line(domain)->vcpu_count;

    call->answer = domain == NULL ? NULL : json_array();
    for (uint32_t i = 0; i < count; i++) {
        char path[64];

        snprintf(path, sizeof path, CPU_PATH_FORMAT, i);
        json_array_append_new(call->answer,
                              json_pack("{sIsIsssss{sIsisi}}", "cpu-index", (json_int_t)i, "thread-id",
                                        (json_int_t)domain_vcpu_thread(domain, i), "target", "x86_64", "qom-path", path,
                                        "props", "socket-id", (json_int_t)i, "core-id", 0, "thread-id", 0));
    }
}

static void query_chardev(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    uint32_t count = domain == NULL ? 0 : domain_line(domain)->chardev_count;

    call->answer = domain == NULL ? NULL : json_array();
    for (uint32_t i = 0; i < count; i++) {
        const char *filename = domain_chardev_filename(domain, i);

        if (filename != NULL) {
            json_array_append_new(call->answer, json_pack("{sssosb}", "label", domain_line(domain)->chardevs[i].id,
                                                          "filename", json_text(filename), "frontend-open",
                                                          (int)i == domain_line(domain)->serial));
        }
    }
}

static void query_block(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    call->answer = domain == NULL ? NULL : devices_block(domain_devices(domain));
}

static void query_named_block_nodes(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);

    call->answer = domain == NULL ? NULL : devices_block_nodes(domain_devices(domain));
}

static void query_blockstats(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    bool by_node = json_is_true(json_object_get(call->arguments, "query-nodes"));

    call->answer = domain == NULL ? NULL : devices_block_stats(domain_devices(domain), by_node);
}

static void query_balloon(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    uint64_t bytes;

    if (domain != NULL && !devices_balloon(domain_devices(domain), &bytes)) {
        qmp_refuse(call, QMP_DEVICE_NOT_ACTIVE, "No balloon device has been activated");
    } else if (domain != NULL) {
        call->answer = json_pack("{sI}", "actual", (json_int_t)bytes);
    }
}

static void act_balloon(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    json_int_t bytes = -1;

    if (domain == NULL || !number_of(call, "value", 1, INT64_MAX, &bytes)) {
        return;
    }
    if (bytes < 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter 'value' is missing");
    } else if (!devices_set_balloon(domain_devices(domain), (uint64_t)bytes)) {
        qmp_refuse(call, QMP_DEVICE_NOT_ACTIVE, "No balloon device has been activated");
    }
}

/* --- The tree of objects, as far as it is asked for ---------------------------------------------------------------------- */

static bool is_cpu_path(const struct domain *domain, const char *path)
{
    char cpu[64];

    for (uint32_t i = 0; i < domain_line(domain)->vcpu_count; i++) {
        snprintf(cpu, sizeof cpu, CPU_PATH_FORMAT, i);
        if (strcmp(cpu, path) == 0) {
            return true;
        }
    }
    return false;
}

static void list_objects(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    const char *path = domain == NULL ? NULL : text_of(call, "path");

    if (path == NULL) {
        return;
    }
    if (is_cpu_path(domain, path)) {
        call->answer = json_pack("[{ssss}]", "name", "unavailable-features", "type", "strList");
    } else if (strcmp(path, PERIPHERALS) == 0) {
        call->answer = devices_list(domain_devices(domain));
    } else {
        qmp_refuse(call, QMP_DEVICE_NOT_FOUND, "there is nothing at '%s'", path);
    }
}

/* The processor is the host's: nothing that it has is unavailable. */
static void get_property(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    const char *path = domain == NULL ? NULL : text_of(call, "path");
    const char *property = path == NULL ? NULL : text_of(call, "property");

    if (property == NULL) {
        return;
    }
    if (is_cpu_path(domain, path) && strcmp(property, "unavailable-features") == 0) {
        call->answer = json_array();
    } else {
        qmp_refuse(call, QMP_DEVICE_NOT_FOUND, "'%s' has no property '%s'", path, property);
    }
}

/* --- Descriptors ---------------------------------------------------------------------------------------------------------- */

static int take_descriptor(struct qmp_call *call)
{
    int fd = qmp_take_descriptor(call);

    if (fd < 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "No file descriptor supplied via SCM_RIGHTS");
    }
    return fd;
}

static void get_fd(void *self, struct qmp_call *call)
{
    const char *name = text_of(call, "fdname");
    struct loam_diag diag = {0};
    int fd = name == NULL ? -1 : take_descriptor(call);

    if (fd < 0) {
        return;
    }
    if (name[0] >= '0' && name[0] <= '9') {
        close(fd);
        qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter 'fdname' is a name not starting with a digit");
    } else if (fdsets_name(fdsets_of(self), fd, name, &diag) != LOAM_OK) {
        close(fd);
        refuse(call, &diag);
    }
}

static void close_fd(void *self, struct qmp_call *call)
{
    const char *name = text_of(call, "fdname");
    int fd = name == NULL ? -1 : fdsets_take(fdsets_of(self), name);

    if (fd >= 0) {
        close(fd);
    } else if (name != NULL) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "File descriptor named '%s' not found", name);
    }
}

static void add_fd(void *self, struct qmp_call *call)
{
    json_int_t number = -1;
    const char *opaque;
    struct loam_diag diag = {0};
    int64_t set;
    int fd;

    if (!ONLY(call, "fdset-id", "opaque") || !number_of(call, "fdset-id", 0, INT32_MAX, &number) ||
        !may_text(call, "opaque", &opaque)) {
        return;
    }
    fd = take_descriptor(call);
    set = number;
    if (fd < 0) {
        return;
    }
    if (fdsets_add(fdsets_of(self), fd, &set, opaque != NULL ? opaque : "", &diag) != LOAM_OK) {
        close(fd);
        refuse(call, &diag);
    } else {
        call->answer = json_pack("{sIsi}", "fdset-id", (json_int_t)set, "fd", fd);
    }
}

static void remove_fd(void *self, struct qmp_call *call)
{
    json_int_t set = -1, fd = -1;
    struct loam_diag diag = {0};

    if (!ONLY(call, "fdset-id", "fd") || !number_of(call, "fdset-id", 0, INT32_MAX, &set) ||
        !number_of(call, "fd", 0, INT32_MAX, &fd)) {
        return;
    }
    if (set < 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "Parameter 'fdset-id' is missing");
    } else if (fdsets_remove(fdsets_of(self), set, (int)fd, &diag) != LOAM_OK) {
        refuse(call, &diag);
    }
}

static void query_fdsets(void *self, struct qmp_call *call)
{
    call->answer = fdsets_json(fdsets_of(self));
}

/* --- Loam's own -------------------------------------------------------------------------------------------------------------- */

/* The guest's memory, or NULL, and the call is refused. */
static struct launch *launch_of(void *self, struct qmp_call *call)
{
    struct domain *domain = domain_of(self, call);
    struct launch *launch = domain == NULL || !NONE(call) ? NULL : domain_launch(domain);

    if (domain != NULL && launch == NULL && !call->is_refused) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "the guest is between two lives: ask again after RESET");
    }
    return launch;
}

static void loam_plan(void *self, struct qmp_call *call)
{
    struct launch *launch = launch_of(self, call);

    call->answer = launch == NULL ? NULL : loam_commands_plan(launch);
}

static void loam_ledger(void *self, struct qmp_call *call)
{
    struct launch *launch = launch_of(self, call);

    call->answer = launch == NULL ? NULL : loam_commands_ledger(launch);
}

static void loam_memory_map_rows(void *self, struct qmp_call *call)
{
    struct launch *launch = launch_of(self, call);

    call->answer = launch == NULL ? NULL : loam_commands_memory_map(launch);
}

static void loam_pages(void *self, struct qmp_call *call)
{
    struct launch *launch = launch_of(self, call);

    call->answer = launch == NULL ? NULL : loam_commands_pages(launch);
}

/* --- The table ------------------------------------------------------------------------------------------------------------------ */

static const struct qmp_command table[] = {
    {"query-version", query_version},
    {"query-target", query_target},
    {"query-commands", query_commands},
    {"query-qmp-schema", answer_none}, /* so that the command line comes as key=value */
    {"query-kvm", query_kvm},
    {"qom-list-types", list_types},
    {"qom-list-properties", list_properties},
    {"device-list-properties", list_properties},
    {"query-machines", query_machines},
    {"query-cpu-definitions", query_cpu_definitions},
    {"query-command-line-options", query_options},
    {"query-migrate-capabilities", query_migrate_capabilities},
    {"migrate-set-capabilities", set_migrate_capabilities},
    {"query-migrate", query_migrate},
    {"query-migrate-parameters", query_migrate_parameters},
    {"migrate-set-parameters", set_migrate_parameters},
    {"migrate", act_migrate},
    {"migrate-incoming", act_migrate_incoming},
    {"migrate-continue", act_migrate_continue},
    {"migrate_cancel", act_migrate_cancel},
    {"query-status", query_status},
    {"query-cpus-fast", query_cpus},
    {"query-chardev", query_chardev},
    {"query-block", query_block},
    {"query-blockstats", query_blockstats},
    {"query-named-block-nodes", query_named_block_nodes},
    {"query-jobs", answer_none},
    {"query-balloon", query_balloon},
    {"balloon", act_balloon},
    {"qom-list", list_objects},
    {"qom-get", get_property},
    {"cont", act_cont},
    {"stop", act_stop},
    {"system_reset", act_reset},
    {"system_powerdown", act_power},
    {"set-action", set_action},
    {"quit", act_quit},
    {"getfd", get_fd},
    {"closefd", close_fd},
    {"add-fd", add_fd},
    {"remove-fd", remove_fd},
    {"query-fdsets", query_fdsets},
    {"x-loam-plan", loam_plan},
    {"x-loam-ledger", loam_ledger},
    {"x-loam-memory-map", loam_memory_map_rows},
    {"x-loam-pages", loam_pages},
};

const struct qmp_command *commands_table(size_t *count)
{
    *count = sizeof table / sizeof table[0];
    return table;
}
