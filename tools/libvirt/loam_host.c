// SPDX-License-Identifier: Apache-2.0
/* `loam host`: what a host has for guests, and its pools of hugepages. See README.md. */
#include "tools/libvirt/aside.h"
#include "tools/libvirt/connection.h"
#include "tools/libvirt/host_facts.h"
#include "tools/libvirt/host_options.h"
#include "tools/libvirt/host_report.h"
#include "tools/libvirt/mistake.h"
#include "tools/libvirt/neighbour.h"
#include "tools/libvirt/reserve.h"
#include "tools/libvirt/shown.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define STATUS_HOST 3

static char program_name[] = "loam host";

/* What the process that asks hands back. */
struct answer {
    struct loam_diag diag; /* its error is not LOAM_OK: there was no connection */
    union {
        struct host_facts facts;
        struct reserve_outcome outcome;
    };
};

struct question {
    const struct host_options *options;
    struct host_facts_request facts;
};

/* --- In a process of its own ------------------------------------------------------------------------------------ */

static void ask(uint32_t index, void *slot, const void *context)
{
    const struct question *question = context;
    const struct host_options *options = question->options;
    struct answer *answer = slot;
    bool is_read_only = false;
    virConnectPtr connection = connection_open(options->uri, options->reserve ? NULL : &is_read_only, &answer->diag);

    (void)index;
    if (connection == NULL) {
        return;
    }
    if (options->reserve) {
        reserve_run(connection, &options->request, &answer->outcome);
    } else {
        host_facts_collect(connection, &question->facts, &answer->facts);
        answer->facts.is_read_only = is_read_only;
    }
    virConnectClose(connection);
}

/* --- In this one ------------------------------------------------------------------------------------------------ */

static json_t *with_exit(json_t *object, int status)
{
    if (object != NULL) {
        json_object_set_new(object, "exit", json_integer(status));
    }
    return object;
}

static int tell_facts(const struct host_options *options, const struct host_facts *facts)
{
    if (options->json) {
        return shown_finish(with_exit(host_report_json(options->uri, facts), 0), 0);
    }
    host_report_print(stdout, options->uri, facts);
    return shown_finish(NULL, 0);
}

static int tell_reserve(const struct host_options *options, const struct reserve_outcome *outcome)
{
    int status = outcome->diag.error == LOAM_OK ? 0 : STATUS_HOST;

    for (uint32_t i = 0; i < outcome->count; i++) {
        status = reserve_is_met(&outcome->lines[i]) ? status : STATUS_HOST;
    }
    if (outcome->diag.error != LOAM_OK) {
        fprintf(stderr, "%s reserve: %s\n", program_name, shown_line(outcome->diag.text).text);
    }
    if (options->json) {
        return shown_finish(with_exit(host_report_json_reserve(&options->request, outcome), status), status);
    }
    host_report_print_reserve(stdout, &options->request, outcome);
    return shown_finish(NULL, status);
}

static int tell(const struct host_options *options, const struct aside_task *task)
{
    const struct answer *answer = task->slot;
    json_t *object = options->json ? json_pack("{so}", "uri", shown_json_text(options->uri)) : NULL;

    if (task->end == ASIDE_LATE) {
        return mistake_say(program_name, options->json, object, STATUS_HOST,
                           "%s: no answer within %g s: is its libvirtd alive? --timeout waits longer", options->uri,
                           (double)options->timeout_milliseconds / 1000);
    }
    if (task->end == ASIDE_DIED) {
        return mistake_say(program_name, options->json, object, STATUS_HOST, "%s: libvirt's library died of signal %d",
                           options->uri, task->signal);
    }
    if (answer->diag.error != LOAM_OK) {
        return mistake_say(program_name, options->json, object, STATUS_HOST, "%s: %s", options->uri, answer->diag.text);
    }
    json_decref(object);
    return options->reserve ? tell_reserve(options, &answer->outcome) : tell_facts(options, &answer->facts);
}

int main(int argc, char *argv[])
{
    char beside[PATH_MAX];
    struct host_options options;
    struct question question = {.options = &options, .facts = {.emulator_count = 1}};
    struct loam_diag diag = {0};
    struct aside aside;
    int status;

    mistake_open_standard();
    argv[0] = program_name;
    mistake_listen(argc, argv);
    host_options_read(argc, argv, &options);
    mistake_stop_listening();
    if (options.emulator != NULL || neighbour_emulator(beside, sizeof beside)) {
        question.facts.emulators[question.facts.emulator_count++] =
            options.emulator != NULL ? options.emulator : beside;
    }
    if (aside_run(&aside, 1, sizeof(struct answer), ask, &question,
                  options.reserve ? ASIDE_FOREVER : options.timeout_milliseconds, &diag) != LOAM_OK) {
        return mistake_say(program_name, options.json, NULL, STATUS_HOST, "%s", diag.text);
    }
    status = tell(&options, &aside.tasks[0]);
    aside_release(&aside);
    return status;
}
