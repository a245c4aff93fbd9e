// SPDX-License-Identifier: Apache-2.0
#include "vmm/report.h"

#include "loam/version.h"
#include "vmm/json_text.h"
#include "vmm/options.h"
#include "vmm/printable.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* --- Text ------------------------------------------------------------------------------------------------------ */

#define RED   "\033[31m"
#define GREEN "\033[32m"
#define PLAIN "\033[0m"
#define AGAIN "\r\033[K" /* begin the line anew */

struct amount {
    char text[32];
};

/* Bytes as a person says them: exact where a unit divides them, else to one place. */
static struct amount amount_of(uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    struct amount amount;
    unsigned unit = 0;

    while (unit + 1 < sizeof units / sizeof units[0] && bytes >> 10 * unit >= 1024) {
        unit++;
    }
    if (loam_is_aligned(bytes, UINT64_C(1) << 10 * unit)) {
        snprintf(amount.text, sizeof amount.text, "%" PRIu64 " %s", bytes >> 10 * unit, units[unit]);
    } else {
        snprintf(amount.text, sizeof amount.text, "%.1f %s", (double)bytes / (double)(UINT64_C(1) << 10 * unit),
                 units[unit]);
    }
    return amount;
}

static const char *mark(const struct report *report, bool good, const char *text)
{
    static char marked[64];

    if (!report->is_terminal) {
        return text;
    }
    snprintf(marked, sizeof marked, "%s%s%s", good ? GREEN : RED, text, PLAIN);
    return marked;
}

static const char *const commit_texts[LOAM_COMMIT_COUNT] = {
    [LOAM_COMMIT_RESERVE] = "reserved when mapped",
    [LOAM_COMMIT_POPULATE] = "populated when mapped",
    [LOAM_COMMIT_LAZY] = "found on first touch",
};

static const char *commit_text(bool charged_at_touch, bool populates, enum loam_commit asked)
{
    if (charged_at_touch) {
        return "populated when mapped: a control group's limit charges them at first touch";
    }
    return commit_texts[populates ? LOAM_COMMIT_POPULATE : asked];
}

static const char *kind_text(enum loam_pages pages)
{
    if (pages == LOAM_PAGES_1G || pages == LOAM_PAGES_2M) {
        return "hugepages";
    }
    return pages == LOAM_PAGES_THP ? "transparent huge pages" : "pages";
}

/* "strict on node 0+1": as it is asked for. */
static void print_placement(struct report *report, const struct loam_backing_request *asked)
{
    const char *lead = " on node ";

    if (asked->placement == LOAM_PLACEMENT_ANY) {
        return;
    }
    fprintf(report->out, ", %s", loam_placement_name(asked->placement));
    for (unsigned node = 0; node < LOAM_NODE_COUNT_MAX; node++) {
        if ((asked->node_mask >> node & 1) != 0) {
            fprintf(report->out, "%s%u", lead, node);
            lead = "+";
        }
    }
}

/* One part of several as it was asked, whose pages may lie on both sides of the hole. */
static void print_asked(struct report *report, const struct loam_plan *plan, uint32_t asked)
{
    static const char *const sharing_texts[LOAM_SHARING_COUNT] = {
        [LOAM_SHARING_ANY] = "", [LOAM_SHARING_SHARED] = ", shared", [LOAM_SHARING_PRIVATE] = ", private"};
    const struct loam_backing_request *request = &plan->request.parts[asked];
    const struct loam_plan_part *any = &plan->parts[0];
    uint64_t page_count = 0;

    for (uint32_t i = 0; i < plan->part_count; i++) {
        if (plan->parts[i].asked == asked) {
            any = &plan->parts[i];
            page_count += any->page_count;
        }
    }
    fprintf(report->out, "  part %-4" PRIu32 " %s as %" PRIu64 " x %s %s, %s", asked + 1,
            amount_of(request->bytes).text, page_count, amount_of(any->page_bytes).text, kind_text(any->pages),
            commit_text(any->charged_at_touch, any->populates, request->commit));
    print_placement(report, request);
    fprintf(report->out, "%s%s\n", sharing_texts[request->sharing], request->lock ? ", locked" : "");
}

static void print_pages(struct report *report, const struct loam_plan *plan)
{
    const struct loam_memory_request *request = &plan->request;

    fprintf(report->out, "  memory    %s ", amount_of(request->bytes).text);
    if (request->part_count > 1) {
        fprintf(report->out, "in %" PRIu32 " parts\n", request->part_count);
        for (uint32_t i = 0; i < request->part_count; i++) {
            print_asked(report, plan, i);
        }
    } else {
        fprintf(report->out, "as %" PRIu64 " x %s %s, %s\n", plan->backing_page_count, amount_of(plan->page_bytes).text,
                kind_text(plan->pages), commit_text(plan->charged_at_touch, plan->populates, request->parts[0].commit));
    }
    if (plan->passed_over[0] != '\0') {
        fprintf(report->out, "  auto      %s\n", printable_of(plan->passed_over).text);
    }
}

static void print_plan(struct report *report, const struct loam_plan *plan)
{
    fprintf(report->out, "plan\n");
    print_pages(report, plan);
    for (uint32_t i = 0; i < plan->part_count; i++) {
        const struct loam_plan_part *part = &plan->parts[i];

        fprintf(report->out, "  %-8s  [0x%09" PRIx64 ", 0x%09" PRIx64 ")  %s",
                part->start.value < plan->hole_start.value ? "low RAM" : "high RAM", part->start.value,
                part->start.value + part->bytes, amount_of(part->bytes).text);
        if (plan->request.part_count > 1) {
            fprintf(report->out, ", part %" PRIu32, part->asked + 1);
        }
        fputc('\n', report->out);
    }
    fprintf(report->out,
            "  legacy    [0x%09lx, 0x%09lx)  %s of low RAM, reserved: a PC has its screen and ROMs there\n",
            LOAM_LEGACY_START_BYTES, LOAM_LEGACY_END_BYTES,
            amount_of(LOAM_LEGACY_END_BYTES - LOAM_LEGACY_START_BYTES).text);
    fprintf(report->out, "  hole      [0x%09" PRIx64 ", 0x%09" PRIx64 ")  for devices\n", plan->hole_start.value,
            (uint64_t)LOAM_DMA32_END_BYTES);
    fprintf(report->out, "  metadata  %s of host memory, beside %s for page tables and %s for the process, at most\n",
            amount_of(plan->metadata_bytes).text, amount_of(plan->table_bytes).text, amount_of(plan->own_bytes).text);
    for (uint32_t i = 0; i < plan->check_count; i++) {
        bool good = !plan->checks[i].short_fall;

        fprintf(report->out, "  %s     %s\n", mark(report, good, good ? "ok   " : "short"),
                printable_of(plan->checks[i].text).text);
    }
}

static void print_begin(struct report *report, enum loam_abi_check check)
{
    if (!report->has_checks) {
        fprintf(report->out, "checks\n");
        report->has_checks = true;
    }
    if (report->is_terminal) {
        fprintf(report->out, AGAIN "  %-9s ...", attest_check_name(check));
        fflush(report->out);
    }
}

static void print_check(struct report *report, const struct attest_outcome *outcome)
{
    bool good = outcome->guest_passed && outcome->host_passed;
    char figures[sizeof outcome->text + 64];

    snprintf(figures, sizeof figures, "%s%s%s", outcome->text, good ? ", " : "",
             good ? amount_of(outcome->result.bytes).text : "");
    fprintf(report->out, "%s  %-9s %s  %-36s %8.1f ms\n", report->is_terminal ? AGAIN : "",
            attest_check_name(outcome->check), mark(report, good, good ? "pass" : "FAIL"), figures,
            (double)outcome->nanoseconds / 1e6);
    fflush(report->out);
}

/* --- JSON ------------------------------------------------------------------------------------------------------ */

static json_t *json_of_range(loam_gpa start, uint64_t bytes)
{
    return json_pack("{sIsI}", "gpa", (json_int_t)start.value, "bytes", (json_int_t)bytes);
}

static json_t *json_of_nodes(uint64_t node_mask)
{
    json_t *nodes = json_array();

    for (unsigned node = 0; node < LOAM_NODE_COUNT_MAX; node++) {
        if ((node_mask >> node & 1) != 0) {
            json_array_append_new(nodes, json_integer(node));
        }
    }
    return nodes;
}

/* Of several parts, each says which it is of, counted from 0, and what it is made of. */
static json_t *json_of_part(const struct loam_plan *plan, const struct loam_plan_part *part)
{
    const struct loam_backing_request *asked = &plan->request.parts[part->asked];
    json_t *json = json_of_range(part->start, part->bytes);

    if (plan->request.part_count > 1) {
        json_object_update_new(json, json_pack("{sIsssIsIsbsssosb}", "asked", (json_int_t)part->asked, "pages",
                                               loam_pages_name(part->pages), "page_bytes", (json_int_t)part->page_bytes,
                                               "page_count", (json_int_t)part->page_count, "populates", part->populates,
                                               "placement", loam_placement_name(asked->placement), "nodes",
                                               json_of_nodes(asked->node_mask), "locked", asked->lock));
    }
    return json;
}

/* UINT64_MAX, which stands for no limit, is null. */
static json_t *json_of_found(uint64_t found)
{
    return found == UINT64_MAX ? json_null() : json_integer((json_int_t)found);
}

static json_t *json_of_plan(const struct loam_plan *plan)
{
    json_t *parts = json_array(), *reserved = json_array(), *checks = json_array();

    for (uint32_t i = 0; i < plan->part_count; i++) {
        json_array_append_new(parts, json_of_part(plan, &plan->parts[i]));
    }
    for (uint32_t i = 0; i < plan->check_count; i++) {
        const struct loam_plan_check *check = &plan->checks[i];

        json_array_append_new(checks,
                              json_pack("{sssIsosIsbso}", "resource", loam_plan_resource_name(check->resource),
                                        "wanted", (json_int_t)check->wanted, "found", json_of_found(check->found),
                                        "unit_bytes", (json_int_t)check->unit_bytes, "short", check->short_fall, "text",
                                        json_text(check->text)));
    }
    json_array_append_new(reserved, json_of_range(loam_gpa_from_u64(LOAM_LEGACY_START_BYTES),
                                                  LOAM_LEGACY_END_BYTES - LOAM_LEGACY_START_BYTES));
    return json_pack("{sIsssIsIsososIsIsIsIsbsoso}", "bytes", (json_int_t)plan->request.bytes, "pages",
                     plan->pages != LOAM_PAGES_AUTO ? loam_pages_name(plan->pages) : "mixed", "page_bytes",
                     (json_int_t)plan->page_bytes, "page_count", (json_int_t)plan->backing_page_count, "parts", parts,
                     "reserved", reserved, "hole_start", (json_int_t)plan->hole_start.value, "metadata_bytes",
                     (json_int_t)plan->metadata_bytes, "table_bytes", (json_int_t)plan->table_bytes, "own_bytes",
                     (json_int_t)plan->own_bytes, "populates", plan->populates, "checks", checks, "passed_over",
                     json_text(plan->passed_over));
}

static json_t *json_of_outcome(const struct attest_outcome *outcome)
{
    return json_pack("{sssbsbsIsIsIsIso}", "check", attest_check_name(outcome->check), "guest", outcome->guest_passed,
                     "host", outcome->host_passed, "items", (json_int_t)outcome->result.item_count, "bytes",
                     (json_int_t)outcome->result.bytes, "errors", (json_int_t)outcome->result.error_count,
                     "nanoseconds", (json_int_t)outcome->nanoseconds, "text", json_text(outcome->text));
}

/* --- Public ---------------------------------------------------------------------------------------------------- */

void report_init(struct report *report, bool json, FILE *out, bool is_terminal)
{
    *report = (struct report){.out = out, .is_terminal = !json && is_terminal};
    if (json) {
        report->checks = json_array();
        report->root = json_pack("{ss}", "loam", LOAM_VERSION);
    }
}

void report_plan(struct report *report, const struct loam_plan *plan)
{
    if (report->root != NULL) {
        json_object_set_new(report->root, "plan", json_of_plan(plan));
    } else {
        print_plan(report, plan);
        fflush(report->out);
    }
}

void report_way(struct report *report, const char *way)
{
    if (report->root != NULL) {
        json_object_set_new(report->root, "boot", json_string(way));
    } else {
        fprintf(report->out, "  kernel    %s\n", way);
        fflush(report->out);
    }
}

json_t *report_plan_json(const struct loam_plan *plan)
{
    return json_of_plan(plan);
}

void report_check(struct report *report, enum loam_abi_check check, const struct attest_outcome *outcome)
{
    if (report->root != NULL) {
        if (outcome != NULL) {
            json_array_append_new(report->checks, json_of_outcome(outcome));
        }
    } else if (outcome != NULL) {
        print_check(report, outcome);
    } else {
        print_begin(report, check);
    }
}

/* What goes to standard error next begins a line of its own, and comes after what was reported before. */
static void end_progress(struct report *report)
{
    fputs(report->is_terminal ? AGAIN : "", report->out);
    fflush(report->out);
}

void report_stop(struct report *report, const struct machine_result *result)
{
    static const char *const reasons[MACHINE_STOP_COUNT] = {
        [MACHINE_STOP_NONE] = "none",         [MACHINE_STOP_EXIT] = "exit",     [MACHINE_STOP_POWER_OFF] = "power-off",
        [MACHINE_STOP_PANIC] = "panic",       [MACHINE_STOP_RESET] = "reset",   [MACHINE_STOP_HALT] = "halt",
        [MACHINE_STOP_SHUTDOWN] = "shutdown", [MACHINE_STOP_BROKEN] = "broken", [MACHINE_STOP_REQUESTED] = "requested",
    };

    if (result->report[0] != '\0') {
        end_progress(report);
        fprintf(stderr, "%s\n", printable_of(result->report).text);
    }
    if (report->root != NULL) {
        json_object_set_new(report->root, "stop",
                            json_pack("{sssIsIsIso}", "reason", reasons[result->reason], "exit_code",
                                      (json_int_t)result->exit_code, "vcpu", (json_int_t)result->vcpu, "exits",
                                      (json_int_t)result->exit_count, "report", json_text(result->report)));
    }
}

/* Beyond what a reader's number may hold: addresses and values of 64 bits. */
static json_t *json_hex(uint64_t value)
{
    return json_sprintf("0x%" PRIx64, value);
}

static json_t *json_or_null(const char *text)
{
    return text[0] != '\0' ? json_text(text) : json_null();
}

static json_t *json_of_vcpu(const struct account_vcpu *vcpu, uint32_t index)
{
    const struct stand *stand = &vcpu->stand;
    json_t *object = json_pack("{sIss}", "vcpu", (json_int_t)index, "state", account_activity_name(stand->activity));
    char place[ACCOUNT_LINE_BYTES];

    if (stand->activity == STAND_UNKNOWN || stand->activity == STAND_UNSTARTED || stand_is_reset(stand)) {
        return object;
    }
    account_place(vcpu, place, sizeof place);
    json_object_set_new(object, "rip", json_hex(stand->rip));
    json_object_set_new(object, "symbol", json_or_null(place));
    json_object_set_new(object, "instruction", json_or_null(vcpu->instruction.text));
    json_object_set_new(object, "mode", json_string(account_mode_name(stand->mode)));
    json_object_set_new(object, "paging", json_string(account_paging_name(stand->paging)));
    return object;
}

static json_t *json_of_missed(const struct bus_missed *missed)
{
    return json_pack("{sssosIsbsosI}", "space", missed->space == BUS_PIO ? "port" : "memory", "address",
                     json_hex(missed->address), "bytes", (json_int_t)missed->bytes, "write", missed->is_write, "value",
                     missed->is_write ? json_hex(missed->value) : json_null(), "count", (json_int_t)missed->count);
}

void report_account(struct report *report, const struct account *account)
{
    json_t *stop = json_object_get(report->root, "stop"), *vcpus, *missed;

    end_progress(report);
    account_print(account, stderr);
    if (stop == NULL) {
        return;
    }
    vcpus = json_array();
    missed = json_array();
    for (uint32_t i = 0; i < account->vcpu_count; i++) {
        json_array_append_new(vcpus, json_of_vcpu(&account->vcpus[i], i));
    }
    for (uint32_t i = 0; i < account->missed_count; i++) {
        json_array_append_new(missed, json_of_missed(&account->missed[i]));
    }
    json_object_set_new(stop, "vcpus", vcpus);
    json_object_set_new(stop, "missed", missed);
    json_object_set_new(stop, "advice", json_or_null(account->advice));
}

void report_failure(struct report *report, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    end_progress(report);
    fprintf(stderr, "loam: %s\n", printable_of(text).text);
    if (report->root != NULL) {
        json_object_set_new(report->root, "error", json_text(text));
    }
}

void report_note(struct report *report, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    end_progress(report);
    fprintf(stderr, "loam: %s\n", printable_of(text).text);
    if (report->root != NULL) {
        json_t *notes = json_object_get(report->root, "notes");

        if (notes == NULL) {
            notes = json_array();
            json_object_set_new(report->root, "notes", notes);
        }
        json_array_append_new(notes, json_text(text));
    }
}

void report_serial(struct report *report, const struct transcript *transcript)
{
    char *text;

    if (report->root == NULL) {
        return;
    }
    text = transcript_text(transcript);
    json_object_set_new(report->root, "serial",
                        json_pack("{ss?sIsI}", "text", text, "bytes", (json_int_t)transcript->total_bytes, "lost_bytes",
                                  (json_int_t)transcript_lost_bytes(transcript)));
    free(text);
}

void report_verdict(struct report *report, bool passed, uint32_t passed_count, uint32_t expected_count,
                    const char *reason)
{
    if (report->root != NULL) {
        json_object_set_new(report->root, "verdict", json_string(passed ? "pass" : "fail"));
        json_object_set_new(report->root, "reason", json_text(reason));
        return;
    }
    fprintf(report->out, "%sverdict\n  %s", report->is_terminal ? AGAIN : "",
            mark(report, passed, passed ? "pass" : "FAIL"));
    if (expected_count > 0) {
        fprintf(report->out, "      %u of %u checks, guest and host agree", passed_count, expected_count);
    }
    fprintf(report->out, "%s%s\n", reason[0] != '\0' ? ": " : "", printable_of(reason).text);
    fflush(report->out);
}

void report_finish(struct report *report, int exit_status)
{
    if (report->root == NULL) {
        return;
    }
    if (json_array_size(report->checks) > 0) {
        json_object_set(report->root, "checks", report->checks);
    }
    json_object_set_new(report->root, "exit", json_integer(exit_status));
    json_dumpf(report->root, report->out, JSON_INDENT(2));
    fputc('\n', report->out);
    fflush(report->out);
    json_decref(report->checks);
    json_decref(report->root);
}
