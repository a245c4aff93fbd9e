// SPDX-License-Identifier: Apache-2.0
/* `loam place`: which of several hosts can hold a guest, and the guest started there. See README.md. */
#include "tools/libvirt/aside.h"
#include "tools/libvirt/choose.h"
#include "tools/libvirt/connection.h"
#include "tools/libvirt/host_facts.h"
#include "tools/libvirt/launch.h"
#include "tools/libvirt/mistake.h"
#include "tools/libvirt/neighbour.h"
#include "tools/libvirt/place_options.h"
#include "tools/libvirt/place_report.h"
#include "tools/libvirt/shown.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_USAGE 2
#define STATUS_HOST  3

/* A start has every page of the guest's memory made: a GiB of small pages in a few seconds, at worst. */
#define START_MILLISECONDS     120000
#define START_GIB_MILLISECONDS 10000

static char program_name[] = "loam place";

/* What the process that asks a host hands back. */
struct answer {
    struct loam_diag diag; /* its error is not LOAM_OK: there was no connection */
    struct host_facts facts;
};

struct question {
    const struct place_options *options;
    struct host_facts_request facts;
};

/* What the process that starts the guest hands back, and is told. */
struct start_answer {
    struct launch launch;
};

struct start_question {
    const char *uri;
    struct domain_xml_wish wish;
};

/* --- In processes of their own ---------------------------------------------------------------------------------- */

static void ask(uint32_t index, void *slot, const void *context)
{
    const struct question *question = context;
    struct answer *answer = slot;
    bool is_read_only;
    virConnectPtr connection = connection_open(question->options->uris[index], &is_read_only, &answer->diag);

    if (connection != NULL) {
        host_facts_collect(connection, &question->facts, &answer->facts);
        answer->facts.is_read_only = is_read_only;
        virConnectClose(connection);
    }
}

static void start(uint32_t index, void *slot, const void *context)
{
    const struct start_question *question = context;
    struct start_answer *answer = slot;
    struct loam_diag diag = {0};
    virConnectPtr connection = connection_open(question->uri, NULL, &diag);

    (void)index;
    if (connection == NULL) {
        snprintf(answer->launch.error, sizeof answer->launch.error, "%s", diag.text);
        return;
    }
    launch_run(connection, &question->wish, &answer->launch);
    virConnectClose(connection);
}

/* --- In this one ------------------------------------------------------------------------------------------------ */

static void judge(const struct place_options *options, const struct aside_task *task, struct place_row *row)
{
    const struct answer *answer = task->slot;

    row->milliseconds = task->milliseconds;
    row->answered = task->end == ASIDE_DONE && answer->diag.error == LOAM_OK;
    if (row->answered) {
        choose_judge(&options->request, row->uri, &answer->facts, &row->verdict);
    } else if (task->end == ASIDE_LATE) {
        snprintf(row->silence, sizeof row->silence, "did not answer within %g s",
                 (double)options->timeout_milliseconds / 1000);
    } else if (task->end == ASIDE_DIED) {
        snprintf(row->silence, sizeof row->silence, "libvirt's library died of signal %d", task->signal);
    } else {
        snprintf(row->silence, sizeof row->silence, "%s", answer->diag.text);
    }
}

/* Everybody at once. LOAM_ERROR_SYSTEM: nobody was asked. */
static enum loam_error ask_hosts(const struct place_options *options, struct place_report *report,
                                 struct loam_diag *diag)
{
    struct question question = {.options = options, .facts = {1, {options->emulator}}};
    struct verdict verdicts[PLACE_HOST_MAX] = {{0}};
    struct aside aside;
    enum loam_error error;

    error = aside_run(&aside, options->uri_count, sizeof(struct answer), ask, &question, options->timeout_milliseconds,
                      diag);
    if (error != LOAM_OK) {
        return error;
    }
    for (uint32_t i = 0; i < options->uri_count; i++) {
        report->rows[i].uri = options->uris[i];
        judge(options, &aside.tasks[i], &report->rows[i]);
        verdicts[i] = report->rows[i].verdict;
    }
    aside_release(&aside);
    report->best = choose_best(verdicts, options->uri_count, report->why, sizeof report->why);
    return LOAM_OK;
}

static void start_guest(const struct place_report *report, struct start_question *question, struct launch *launch)
{
    int64_t patience = START_MILLISECONDS + (int64_t)(question->wish.memory_bytes >> 30) * START_GIB_MILLISECONDS;
    struct loam_diag diag = {0};
    struct aside aside;

    *launch = (struct launch){0};
    if (aside_run(&aside, 1, sizeof(struct start_answer), start, question, patience, &diag) != LOAM_OK) {
        snprintf(launch->error, sizeof launch->error, "%s", diag.text);
        return;
    }
    if (aside.tasks[0].end == ASIDE_DONE) {
        *launch = ((const struct start_answer *)aside.tasks[0].slot)->launch;
    } else {
        snprintf(launch->error, sizeof launch->error,
                 "no answer within %" PRId64 " s, so nobody knows whether it runs: virsh --connect URI dominfo %.200s "
                 "may tell",
                 patience / 1000, report->options->name);
    }
    aside_release(&aside);
}

/* On the best host. */
static void run(struct place_report *report, struct launch *launch)
{
    const struct place_options *options = report->options;
    const struct place_row *best = &report->rows[report->best];
    struct start_question question = {.uri = best->uri,
                                      .wish = {.type = "kvm",
                                               .name = options->name,
                                               .emulator = options->emulator,
                                               .kernel = options->kernel,
                                               .initrd = options->initrd,
                                               .command_line = options->append,
                                               .memory_bytes = options->request.memory_bytes,
                                               .vcpu_count = options->request.vcpu_count,
                                               .kind = options->request.kinds[best->verdict.kind],
                                               .node = best->verdict.node,
                                               .node_strict = options->request.node_strict}};

    if (best->verdict.node_count <= 1 && !options->request.node_strict) {
        question.wish.node = WORDS_NODE_ANY; /* there is no choice to be written down */
    }
    start_guest(report, &question, launch);
    report->launch = launch;
}

static int tell(const struct place_report *report)
{
    const struct place_options *options = report->options;
    bool good = report->best != CHOOSE_NONE && (report->launch == NULL || report->launch->error[0] == '\0');
    int status = good ? 0 : STATUS_HOST;

    if (report->launch != NULL && report->launch->error[0] != '\0') {
        fprintf(stderr, "%s: ", program_name);
        fprintf(stderr, "%s: ", shown_line(report->rows[report->best].uri).text);
        fprintf(stderr, "%s did not start: ", shown_line(options->name).text);
        fprintf(stderr, "%s\n", shown_line(report->launch->error).text);
    }
    if (options->json) {
        return shown_finish(place_report_json(report, status), status);
    }
    place_report_print(stdout, report);
    return shown_finish(NULL, status);
}

int main(int argc, char *argv[])
{
    static struct place_report report;
    static struct place_options options;
    static char beside[PATH_MAX];
    static struct launch launch;
    struct loam_diag diag = {0};

    mistake_open_standard();
    argv[0] = program_name;
    mistake_listen(argc, argv);
    place_options_read(argc, argv, &options);
    mistake_stop_listening();
    report.options = &options;
    if (options.run && options.emulator == NULL) {
        if (!neighbour_emulator(beside, sizeof beside)) {
            return mistake_say(
                program_name, options.json, NULL, STATUS_USAGE,
                "--run: no loam-emulator lies beside this program: give --emulator PATH, as it is there");
        }
        options.emulator = beside;
        options.request.needs_emulator = true;
    }
    if (ask_hosts(&options, &report, &diag) != LOAM_OK) {
        return mistake_say(program_name, options.json, NULL, STATUS_HOST, "%s", diag.text);
    }
    if (options.run && report.best != CHOOSE_NONE) {
        run(&report, &launch);
    }
    return tell(&report);
}
