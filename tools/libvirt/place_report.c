// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/place_report.h"

#include "tools/libvirt/shown.h"

/* --- Text ------------------------------------------------------------------------------------------------------- */

static const char *word_of(const struct place_report *report, uint32_t index)
{
    const struct place_row *row = &report->rows[index];

    if (!row->answered) {
        return "silent";
    }
    return index == report->best ? "best" : row->verdict.can ? "can" : "cannot";
}

static void print_row(FILE *out, const struct place_report *report, uint32_t index)
{
    const struct place_row *row = &report->rows[index];

    fprintf(out, "%-7s %s: %s\n", word_of(report, index), shown_line(row->uri).text,
            shown_line(row->answered ? row->verdict.why : row->silence).text);
    if (row->answered && row->verdict.mend[0] != '\0') {
        fprintf(out, "        to mend it: %s\n", shown_line(row->verdict.mend).text);
    }
}

static void print_launch(FILE *out, const struct place_report *report)
{
    const struct launch *launch = report->launch;

    if (launch != NULL && launch->error[0] == '\0') {
        char uri[SHOWN_BYTES], name[SHOWN_BYTES];

        words_quote(report->rows[report->best].uri, uri, sizeof uri);
        words_quote(report->options->name, name, sizeof name);
        fprintf(out, "runs    %s\n", launch->uuid);
        fprintf(out, "        virsh --connect %s", shown_line(uri).text);
        fprintf(out, " console %s\n", shown_line(name).text);
    }
}

void place_report_print(FILE *out, const struct place_report *report)
{
    if (report->best == CHOOSE_NONE) {
        fprintf(out, "nobody can hold it\n");
    } else {
        print_row(out, report, report->best);
        fprintf(out, "        because %s\n", report->why);
    }
    for (uint32_t i = 0; i < report->options->uri_count; i++) {
        if (i != report->best) {
            print_row(out, report, i);
        }
    }
    print_launch(out, report);
}

/* --- JSON ------------------------------------------------------------------------------------------------------- */

static json_t *json_of_node(uint32_t node)
{
    return node == CHOOSE_NODES_ALL ? json_null() : json_integer(node);
}

static json_t *json_of_row(const struct place_report *report, const struct place_row *row)
{
    const struct verdict *verdict = &row->verdict;
    json_t *json = json_pack("{so sb sI}", "uri", shown_json_text(row->uri), "answered", row->answered, "milliseconds",
                             (json_int_t)row->milliseconds);

    if (!row->answered) {
        json_object_update_new(
            json, json_pack("{sn so so}", "can", "why", shown_json_text(row->silence), "mend", json_null()));
        return json;
    }
    json_object_update_new(json,
                           json_pack("{sb so so so}", "can", verdict->can, "kvm",
                                     verdict->kvm == HOST_UNSAID ? json_null() : json_boolean(verdict->kvm == HOST_YES),
                                     "why", shown_json_text(verdict->why), "mend", shown_json_text(verdict->mend)));
    if (verdict->can) {
        json_object_update_new(
            json, json_pack("{ss so so so}", "pages", words_kind(&report->options->request.kinds[verdict->kind]).text,
                            "node", json_of_node(verdict->node), "page_count",
                            verdict->page_count == 0 ? json_null() : shown_json_figure(verdict->page_count),
                            "left_bytes", shown_json_figure(verdict->left_bytes)));
    }
    return json;
}

static json_t *json_of_request(const struct choose_request *request)
{
    json_t *kinds = json_array();

    for (uint32_t i = 0; i < request->kind_count; i++) {
        json_array_append_new(kinds, json_string(words_kind(&request->kinds[i]).text));
    }
    return json_pack("{so so sI sb}", "memory_bytes", shown_json_figure(request->memory_bytes), "pages", kinds, "vcpus",
                     (json_int_t)request->vcpu_count, "node_strict", request->node_strict);
}

static json_t *json_of_launch(const struct place_report *report)
{
    const struct launch *launch = report->launch;

    if (launch == NULL) {
        return json_null();
    }
    return json_pack("{so so sb so}", "name", shown_json_text(report->options->name), "uuid",
                     shown_json_text(launch->uuid), "started", launch->error[0] == '\0', "error",
                     shown_json_text(launch->error));
}

json_t *place_report_json(const struct place_report *report, int status)
{
    bool is_any = report->best != CHOOSE_NONE;
    json_t *hosts = json_array();

    for (uint32_t i = 0; i < report->options->uri_count; i++) {
        json_array_append_new(hosts, json_of_row(report, &report->rows[i]));
    }
    return json_pack("{so so so so so si}", "request", json_of_request(&report->options->request), "best",
                     is_any ? shown_json_text(report->rows[report->best].uri) : json_null(), "why",
                     shown_json_text(report->why), "hosts", hosts, "run", json_of_launch(report), "exit", status);
}
