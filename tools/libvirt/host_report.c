// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/host_report.h"

#include "tools/libvirt/shown.h"
#include "tools/libvirt/words.h"

#include <inttypes.h>
#include <string.h>

static const char *const answers[] = {[HOST_NO] = "no", [HOST_YES] = "yes", [HOST_UNSAID] = "unknown"};

/* --- Text ------------------------------------------------------------------------------------------------------- */

static void print_daemon(FILE *out, const char *uri, const struct host_facts *facts)
{
    fprintf(out, "host     %s, %s, %s%s%s\n", facts->hostname[0] == '\0' ? "unknown" : shown_line(facts->hostname).text,
            shown_line(uri).text, shown_line(facts->driver).text,
            facts->hypervisor_version == CAPABILITIES_UNSAID ? "" : " ",
            facts->hypervisor_version == CAPABILITIES_UNSAID ? "" : host_facts_version(facts->hypervisor_version).text);
    fprintf(out, "libvirt  %s there, %s here%s\n", host_facts_version(facts->daemon_version).text,
            host_facts_version(facts->client_version).text, facts->is_read_only ? "; it lets this user read only" : "");
    fprintf(out, "cpu      %s%s%s, %s, %s vCPUs at most in a guest\n",
            facts->capabilities.arch[0] == '\0' ? "unknown" : shown_line(facts->capabilities.arch).text,
            facts->capabilities.cpu_model[0] == '\0' ? "" : " ", shown_line(facts->capabilities.cpu_model).text,
            shown_count(facts->cpu_count).text, shown_count(facts->vcpu_max).text);
}

static void print_emulator(FILE *out, const struct host_emulator *emulator)
{
    const struct domain_capabilities *can = &emulator->can;

    if (emulator->error[0] != '\0') {
        fprintf(out, "         %s: %s\n",
                emulator->asked[0] == '\0' ? "libvirt's own emulator" : shown_line(emulator->asked).text,
                shown_line(emulator->error).text);
    } else {
        fprintf(out, "         %s: %s, machine %s, %s vCPUs at most%s\n", shown_line(can->path).text,
                shown_line(can->type).text, shown_line(can->machine).text, shown_count(can->vcpu_max).text,
                can->says_memfd ? ", memfd" : "");
    }
}

static void print_node(FILE *out, const struct host_node *node)
{
    fprintf(out, "%-6" PRIu32 " %5" PRIu32 "   %10s  %10s", node->id, node->cpu_count,
            shown_amount(node->total_bytes).text, shown_amount(node->free_bytes).text);
    for (uint32_t i = 0; i < node->pool_count; i++) {
        const struct host_pool *pool = &node->pools[i];

        fprintf(out, "%*s   %-5s  %8s  %8s   unknown\n", i == 0 ? 0 : 37, "", words_page(pool->page_bytes).text,
                shown_count(pool->total_count).text, shown_count(pool->free_count).text);
    }
    if (node->pool_count == 0) {
        fprintf(out, "   none\n");
    }
}

static void print_nodes(FILE *out, const struct host_facts *facts)
{
    if (facts->capabilities.node_count == 0) {
        return;
    }
    fprintf(out, "\n%-6s %5s   %10s  %10s   %-5s  %8s  %8s   %s\n", "node", "cpus", "memory", "free", "pages", "pool",
            "free", "reserved");
    for (uint32_t i = 0; i < facts->capabilities.node_count; i++) {
        print_node(out, &facts->capabilities.nodes[i]);
    }
}

void host_report_print(FILE *out, const char *uri, const struct host_facts *facts)
{
    print_daemon(out, uri, facts);
    fprintf(out, "kvm      %s\n", answers[host_facts_kvm(facts)]);
    for (uint32_t i = 0; i < facts->emulator_count; i++) {
        print_emulator(out, &facts->emulators[i]);
    }
    fprintf(out, "memory   %s, %s free, %s more in caches of files\n", shown_amount(facts->total_bytes).text,
            shown_amount(facts->free_bytes).text, shown_amount(facts->cached_bytes).text);
    print_nodes(out, facts);
    for (uint32_t i = 0; i < facts->note_count; i++) {
        fprintf(out, "%snot said: %s: %s\n", i == 0 ? "\n" : "", facts->notes[i].what,
                shown_line(facts->notes[i].why).text);
    }
}

/* --- JSON ------------------------------------------------------------------------------------------------------- */

/* How many of its pages are promised and not yet taken, libvirt does not tell. */
static json_t *json_of_pool(const struct host_pool *pool)
{
    return json_pack("{ss sI so so sn}", "pages", words_page(pool->page_bytes).text, "page_bytes",
                     (json_int_t)pool->page_bytes, "total", shown_json_figure(pool->total_count), "free",
                     shown_json_figure(pool->free_count), "reserved");
}

static json_t *json_of_node(const struct host_node *node)
{
    json_t *pools = json_array();

    for (uint32_t i = 0; i < node->pool_count; i++) {
        json_array_append_new(pools, json_of_pool(&node->pools[i]));
    }
    return json_pack("{sI sI so so so}", "node", (json_int_t)node->id, "cpus", (json_int_t)node->cpu_count,
                     "total_bytes", shown_json_figure(node->total_bytes), "free_bytes",
                     shown_json_figure(node->free_bytes), "pools", pools);
}

static json_t *json_of_emulator(const struct host_emulator *emulator)
{
    const struct domain_capabilities *can = &emulator->can;
    bool good = emulator->error[0] == '\0';

    return json_pack("{so so so so so so so so}", "asked", shown_json_text(emulator->asked), "error",
                     shown_json_text(emulator->error), "path", shown_json_text(can->path), "type",
                     shown_json_text(can->type), "machine", shown_json_text(can->machine), "arch",
                     shown_json_text(can->arch), "vcpus_max", shown_json_figure(good ? can->vcpu_max : UINT64_MAX),
                     "memfd", good ? json_boolean(can->says_memfd) : json_null());
}

static json_t *json_of_kvm(const struct host_facts *facts)
{
    enum host_answer answer = host_facts_kvm(facts);
    json_t *emulators = json_array();

    for (uint32_t i = 0; i < facts->emulator_count; i++) {
        json_array_append_new(emulators, json_of_emulator(&facts->emulators[i]));
    }
    return json_pack("{so so so}", "available", answer == HOST_UNSAID ? json_null() : json_boolean(answer == HOST_YES),
                     "vcpus_max", shown_json_figure(facts->vcpu_max), "emulators", emulators);
}

static json_t *json_of_version(uint64_t version)
{
    return version == CAPABILITIES_UNSAID ? json_null() : json_string(host_facts_version(version).text);
}

static json_t *json_of_notes(const struct host_facts *facts)
{
    json_t *notes = json_array();

    for (uint32_t i = 0; i < facts->note_count; i++) {
        json_array_append_new(
            notes, json_pack("{ss so}", "what", facts->notes[i].what, "why", shown_json_text(facts->notes[i].why)));
    }
    return notes;
}

json_t *host_report_json(const char *uri, const struct host_facts *facts)
{
    json_t *nodes = json_array();

    for (uint32_t i = 0; i < facts->capabilities.node_count; i++) {
        json_array_append_new(nodes, json_of_node(&facts->capabilities.nodes[i]));
    }
    return json_pack(
        "{so so s{so so} s{so so sb} s{so so so} so s{so so so} so so}", "uri", shown_json_text(uri), "hostname",
        shown_json_text(facts->hostname), "hypervisor", "type", shown_json_text(facts->driver), "version",
        json_of_version(facts->hypervisor_version), "libvirt", "there", json_of_version(facts->daemon_version), "here",
        json_of_version(facts->client_version), "read_only", facts->is_read_only, "cpu", "arch",
        shown_json_text(facts->capabilities.arch), "model", shown_json_text(facts->capabilities.cpu_model), "count",
        shown_json_figure(facts->cpu_count), "kvm", json_of_kvm(facts), "memory", "total_bytes",
        shown_json_figure(facts->total_bytes), "free_bytes", shown_json_figure(facts->free_bytes), "cached_bytes",
        shown_json_figure(facts->cached_bytes), "nodes", nodes, "not_said", json_of_notes(facts));
}

/* --- Pools that were set ---------------------------------------------------------------------------------------- */

static void print_line(FILE *out, const struct reserve_request *request, const struct reserve_line *line)
{
    struct pool_wish pool = line->pool;

    pool.has_count = false;
    fprintf(out, "%-9s had %" PRIu64 ", %s %" PRIu64 ", has %" PRIu64, words_pool(&pool).text, line->had,
            request->give_back ? "was to have" : "asked for", line->pool.count, line->got);
    if (line->is_in_use) {
        fprintf(out, ": %" PRIu64 " are in use, and go when they are let go of", line->got - line->pool.count);
    } else if (line->got != line->pool.count) {
        fprintf(out, ": %" PRIu64 " too %s: %s",
                line->got < line->pool.count ? line->pool.count - line->got : line->got - line->pool.count,
                line->got < line->pool.count ? "few" : "many", shown_line(line->why).text);
    }
    fputc('\n', out);
}

void host_report_print_reserve(FILE *out, const struct reserve_request *request, const struct reserve_outcome *outcome)
{
    for (uint32_t i = 0; i < outcome->count; i++) {
        print_line(out, request, &outcome->lines[i]);
    }
    if (outcome->count == 0 && outcome->diag.error == LOAM_OK) {
        fprintf(out, "nothing is to be given back\n");
    }
}

static json_t *json_of_line(const struct reserve_line *line)
{
    return json_pack("{ss sI so so so so sb so}", "pages", words_page(line->pool.page_bytes).text, "page_bytes",
                     (json_int_t)line->pool.page_bytes, "node",
                     line->pool.node == WORDS_NODE_ANY ? json_null() : json_integer(line->pool.node), "had",
                     shown_json_figure(line->had), "asked", shown_json_figure(line->pool.count), "has",
                     shown_json_figure(line->got), "in_use", line->is_in_use, "error", shown_json_text(line->why));
}

json_t *host_report_json_reserve(const struct reserve_request *request, const struct reserve_outcome *outcome)
{
    json_t *pools = json_array();

    for (uint32_t i = 0; i < outcome->count; i++) {
        json_array_append_new(pools, json_of_line(&outcome->lines[i]));
    }
    return json_pack("{so sb so so}", "uri", shown_json_text(request->uri), "give_back", request->give_back, "pools",
                     pools, "error",
                     outcome->diag.error == LOAM_OK ? json_null() : shown_json_text(outcome->diag.text));
}
