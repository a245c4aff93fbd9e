// SPDX-License-Identifier: Apache-2.0
#include "vmm/report.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdlib.h>
#include <string.h>

static char *text;
static size_t bytes;
static FILE *out;

static void open_out(void)
{
    cr_redirect_stderr();
    out = open_memstream(&text, &bytes);
    cr_assert_not_null(out);
}

static void close_out(void)
{
    fclose(out);
    free(text);
}

TestSuite(report, .init = open_out, .fini = close_out);

static struct loam_plan make_plan(uint64_t ram_bytes)
{
    struct loam_plan plan = {.request = {.bytes = ram_bytes},
                             .pages = LOAM_PAGES_2M,
                             .page_bytes = 2 * LOAM_MIB,
                             .backing_page_count = ram_bytes / (2 * LOAM_MIB),
                             .part_count = 1,
                             .parts = {{.bytes = ram_bytes}},
                             .hole_start = {ram_bytes},
                             .check_count = 1,
                             .short_count = 1};

    plan.checks[0] = (struct loam_plan_check){.resource = LOAM_PLAN_POOL,
                                              .wanted = 128,
                                              .found = UINT64_MAX,
                                              .unit_bytes = 2 * LOAM_MIB,
                                              .short_fall = true,
                                              .text = "pool: \"quoted\""};
    return plan;
}

static struct attest_outcome make_outcome(bool passed)
{
    return (struct attest_outcome){.check = LOAM_ABI_CHECK_RAM,
                                   .guest_passed = passed,
                                   .host_passed = true,
                                   .result = {.item_count = 3, .bytes = 1536},
                                   .nanoseconds = 1500000,
                                   .text = "3 pages"};
}

Test(report, plan_as_text)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct report report;

    report_init(&report, false, out, false);
    report_plan(&report, &plan);
    fflush(out);
    cr_expect_not_null(strstr(text, "256 MiB as 128 x 2 MiB hugepages"), "%s", text);
    cr_expect_not_null(strstr(text, "[0x000000000, 0x010000000)  256 MiB"), "%s", text);
    cr_expect_not_null(strstr(text, "short     pool: \"quoted\""), "%s", text);
}

/* 2 GiB of 1 GiB pages, of which one lies above the hole, and 256 MiB of small ones. */
static struct loam_plan make_mixed_plan(void)
{
    struct loam_plan plan = make_plan(2 * LOAM_GIB + 256 * LOAM_MIB);

    plan.pages = LOAM_PAGES_AUTO;
    plan.request.part_count = 2;
    plan.request.parts[0] = (struct loam_backing_request){
        .bytes = 256 * LOAM_MIB, .commit = LOAM_COMMIT_LAZY, .sharing = LOAM_SHARING_PRIVATE};
    plan.request.parts[1] = (struct loam_backing_request){
        .bytes = 2 * LOAM_GIB, .placement = LOAM_PLACEMENT_STRICT, .node_mask = 5, .lock = true};
    plan.part_count = 3;
    plan.parts[0] = (struct loam_plan_part){{0}, LOAM_GIB, 1, 0, LOAM_PAGES_1G, LOAM_GIB, 1, .populates = true};
    plan.parts[1] =
        (struct loam_plan_part){{LOAM_GIB}, 256 * LOAM_MIB, 0, 0, LOAM_PAGES_4K, 4096, 65536, .populates = false};
    plan.parts[2] =
        (struct loam_plan_part){{4 * LOAM_GIB}, LOAM_GIB, 1, LOAM_GIB, LOAM_PAGES_1G, LOAM_GIB, 1, .populates = true};
    plan.hole_start.value = LOAM_GIB + 256 * LOAM_MIB;
    return plan;
}

Test(report, plan_in_parts_as_text)
{
    struct loam_plan plan = make_mixed_plan();
    struct report report;

    report_init(&report, false, out, false);
    report_plan(&report, &plan);
    fflush(out);
    cr_expect_not_null(
        strstr(
            text,
            "  memory    2.2 GiB in 2 parts\n"
            "  part 1    256 MiB as 65536 x 4 KiB pages, found on first touch, private\n"
            "  part 2    2 GiB as 2 x 1 GiB hugepages, populated when mapped, strict on node 0+2, "
            "locked\n"
            "  low RAM   [0x000000000, 0x040000000)  1 GiB, part 2\n"
            "  low RAM   [0x040000000, 0x050000000)  256 MiB, part 1\n"
            "  high RAM  [0x100000000, 0x140000000)  1 GiB, part 2\n"
            "  legacy    [0x0000a0000, 0x000100000)  384 KiB of low RAM, reserved: a PC has its screen and ROMs there\n"
            "  hole      [0x050000000, 0x100000000)  for devices\n"),
        "%s", text);
}

Test(report, plan_in_parts_as_json)
{
    struct loam_plan plan = make_mixed_plan();
    struct report report;
    json_t *root, *parts, *wanted;

    report_init(&report, true, out, false);
    report_plan(&report, &plan);
    report_finish(&report, 0);
    root = json_loads(text, 0, NULL);
    cr_assert_not_null(root, "%s", text);
    parts = json_object_get(json_object_get(root, "plan"), "parts");
    cr_expect_eq(json_array_size(parts), 3);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "plan"), "pages")), "mixed");
    wanted = json_loads("{\"gpa\": 4294967296, \"bytes\": 1073741824, \"asked\": 1, \"pages\": \"1G\","
                        "\"page_bytes\": 1073741824, \"page_count\": 1, \"populates\": true,"
                        "\"placement\": \"strict\", \"nodes\": [0, 2], \"locked\": true}",
                        0, NULL);
    cr_expect(json_equal(json_array_get(parts, 2), wanted), "%s", text);
    json_decref(wanted);
    json_decref(root);
}

Test(report, checks_and_verdict_as_text_without_colour)
{
    struct attest_outcome pass = make_outcome(true), fail = make_outcome(false);
    struct report report;

    report_init(&report, false, out, false);
    report_check(&report, LOAM_ABI_CHECK_RAM, NULL);
    report_check(&report, LOAM_ABI_CHECK_RAM, &pass);
    report_check(&report, LOAM_ABI_CHECK_RAM, &fail);
    report_verdict(&report, false, 1, 8, "because");
    fflush(out);
    cr_expect_not_null(strstr(text, "ram       pass  3 pages, 1.5 KiB"), "%s", text);
    cr_expect_not_null(strstr(text, "ram       FAIL  3 pages  "), "%s", text);
    cr_expect_not_null(strstr(text, "FAIL      1 of 8 checks, guest and host agree: because\n"), "%s", text);
    cr_expect_null(strchr(text, '\033'), "%s", text);
    cr_expect_null(strchr(text, '\r'), "%s", text);
}

/* In text, what the guest said stands where the guest said it, and not again. */
Test(report, notes_as_text)
{
    struct transcript transcript = {0};
    struct report report;
    char said[64] = "";

    report_init(&report, false, out, false);
    report_note(&report, "a note of %d", 7);
    report_serial(&report, &transcript);
    report_finish(&report, 0);
    fflush(out);
    fflush(stderr);
    cr_expect_str_empty(text);
    cr_expect_gt(fread(said, 1, sizeof said - 1, cr_get_redirected_stderr()), 0);
    cr_expect_str_eq(said, "loam: a note of 7\n");
}

/* One object, whatever was reported; no limit is null; the exit status is in it. */
Test(report, json_is_one_object)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct attest_outcome outcome = make_outcome(false);
    struct machine_result stop = {.reason = MACHINE_STOP_BROKEN, .report = "line\nline\n"};
    struct transcript transcript;
    const json_t *serial;
    const json_t *check;
    struct report report;
    json_t *root;

    report_init(&report, true, out, false);
    report_plan(&report, &plan);
    report_check(&report, LOAM_ABI_CHECK_RAM, NULL);
    report_check(&report, LOAM_ABI_CHECK_RAM, &outcome);
    report_stop(&report, &stop);
    report_note(&report, "first");
    report_note(&report, "second");
    transcript_open(&transcript);
    transcript_add(&transcript, (const uint8_t *)"said \xff\n", 7);
    report_serial(&report, &transcript);
    transcript_close(&transcript);
    report_failure(&report, "it \"broke\"");
    report_verdict(&report, false, 0, 8, "");
    report_finish(&report, 4);
    root = json_loads(text, 0, NULL);
    cr_assert_not_null(root, "%s", text);
    check = json_array_get(json_object_get(json_object_get(root, "plan"), "checks"), 0);
    cr_expect(json_is_null(json_object_get(check, "found")));
    cr_expect(json_is_true(json_object_get(check, "short")));
    cr_expect_eq(json_array_size(json_object_get(root, "checks")), 1);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(root, "stop"), "reason")), "broken");
    cr_expect_eq(json_array_size(json_object_get(root, "notes")), 2);
    cr_expect_str_eq(json_string_value(json_array_get(json_object_get(root, "notes"), 1)), "second");
    serial = json_object_get(root, "serial");
    cr_expect_str_eq(json_string_value(json_object_get(serial, "text")), "said \xef\xbf\xbd\n");
    cr_expect_eq(json_integer_value(json_object_get(serial, "bytes")), 7);
    cr_expect_eq(json_integer_value(json_object_get(serial, "lost_bytes")), 0);
    cr_expect_str_eq(json_string_value(json_object_get(root, "error")), "it \"broke\"");
    cr_expect_str_eq(json_string_value(json_object_get(root, "verdict")), "fail");
    cr_expect_eq(json_integer_value(json_object_get(root, "exit")), 4);
    json_decref(root);
}

/* Each kind of page, and each way to have it. */
Test(report, memory_in_words)
{
    static const struct {
        enum loam_pages pages;
        uint64_t page_bytes;
        enum loam_commit commit;
        bool populates, charged_at_touch;
        const char *line;
    } cases[] = {
        {LOAM_PAGES_4K, 4096, LOAM_COMMIT_LAZY, false, false, "as 262144 x 4 KiB pages, found on first touch\n"},
        {LOAM_PAGES_4K, 4096, LOAM_COMMIT_RESERVE, true, false, "as 262144 x 4 KiB pages, populated when mapped\n"},
        {LOAM_PAGES_THP, 2 * LOAM_MIB, LOAM_COMMIT_POPULATE, false, false,
         "as 512 x 2 MiB transparent huge pages, populated when mapped\n"},
        {LOAM_PAGES_2M, 2 * LOAM_MIB, LOAM_COMMIT_RESERVE, true, true,
         "as 512 x 2 MiB hugepages, populated when mapped: a control group's limit charges them at first touch\n"},
        {LOAM_PAGES_1G, LOAM_GIB, LOAM_COMMIT_RESERVE, false, false, "as 1 x 1 GiB hugepages, reserved when mapped\n"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct loam_plan plan = make_plan(LOAM_GIB);
        struct report report;

        plan.pages = cases[i].pages;
        plan.page_bytes = cases[i].page_bytes;
        plan.backing_page_count = LOAM_GIB / cases[i].page_bytes;
        plan.request.parts[0].commit = cases[i].commit;
        plan.populates = cases[i].populates;
        plan.charged_at_touch = cases[i].charged_at_touch;
        close_out();
        open_out();
        report_init(&report, false, out, false);
        report_plan(&report, &plan);
        cr_expect_not_null(strstr(text, cases[i].line), "'%s' is not in: %s", cases[i].line, text);
    }
}

Test(report, amounts)
{
    static const struct {
        uint64_t bytes;
        const char *amount;
    } cases[] = {{0, "0 bytes"},
                 {1023, "1023 bytes"},
                 {1024, "1 KiB"},
                 {1025, "1.0 KiB"},
                 {1536, "1.5 KiB"},
                 {LOAM_MIB - 1024, "1023 KiB"},
                 {LOAM_MIB, "1 MiB"},
                 {LOAM_GIB, "1 GiB"},
                 {1024 * LOAM_GIB, "1 TiB"},
                 {UINT64_C(5) << 50, "5120 TiB"}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct attest_outcome outcome = make_outcome(true);
        struct report report;
        char figures[64];

        outcome.result.bytes = cases[i].bytes;
        snprintf(figures, sizeof figures, "3 pages, %s  ", cases[i].amount);
        rewind(out);
        report_init(&report, false, out, false);
        report_check(&report, LOAM_ABI_CHECK_RAM, &outcome);
        cr_expect_not_null(strstr(text, figures), "'%s' is not in: %s", figures, text);
    }
}

/* A person sees each line when it is said: nothing here asks for it. */
Test(report, what_is_said_is_there_at_once)
{
    struct loam_plan plan = make_plan(LOAM_GIB);
    struct attest_outcome outcome = make_outcome(true);
    struct report report;
    size_t seen;

    report_init(&report, false, out, true);
    report_plan(&report, &plan);
    cr_expect_gt(bytes, 0);
    seen = bytes;
    report_check(&report, LOAM_ABI_CHECK_RAM, NULL);
    cr_expect_gt(bytes, seen);
    seen = bytes;
    report_check(&report, LOAM_ABI_CHECK_RAM, &outcome);
    cr_expect_gt(bytes, seen);
    seen = bytes;
    report_verdict(&report, true, 1, 1, "");
    cr_expect_gt(bytes, seen);
    report_init(&report, true, out, true);
    seen = bytes;
    report_finish(&report, 0);
    cr_expect_gt(bytes, seen);
    cr_expect_eq(text[bytes - 1], '\n');
}

/* Beside what report_stop says. */
Test(report, json_of_an_account_whole)
{
    struct machine_result stop = {.reason = MACHINE_STOP_BROKEN};
    struct account_vcpu vcpus[3] = {
        {.stand = {.activity = STAND_RUNNING,
                   .mode = STAND_LONG,
                   .paging = STAND_PAGING_4,
                   .rip = UINT64_C(0xffffffff81000010)},
         .place = {.name = "start", .offset = 0x10},
         .instruction = {.name = "clac", .text = "clac", .bytes = 3}},
        {.stand = {.activity = STAND_HALTED, .mode = STAND_REAL, .rip = 0x8000}},
        {.stand = {.activity = STAND_UNSTARTED}},
    };
    struct account account = {.vcpu_count = 3,
                              .vcpus = vcpus,
                              .missed_count = 2,
                              .missed = {{BUS_PIO, 0xe9, 1, true, 0x21, 3}, {BUS_MMIO, 0xfed00000, 4, false, 0, 1}},
                              .advice = "do without it"};
    struct report report;
    json_t *root, *wanted, *found;

    report_init(&report, true, out, false);
    report_stop(&report, &stop);
    report_account(&report, &account);
    report_finish(&report, 4);
    root = json_loads(text, 0, NULL);
    cr_assert_not_null(root, "%s", text);
    found = json_object_get(root, "stop");
    wanted = json_loads("{\"vcpus\": [{\"vcpu\": 0, \"state\": \"running\", \"rip\": \"0xffffffff81000010\", "
                        "\"symbol\": \"start+0x10\","
                        "\"instruction\": \"clac\", \"mode\": \"long\", \"paging\": \"4-level\"},"
                        "{\"vcpu\": 1, \"state\": \"halted\", \"rip\": \"0x8000\", \"symbol\": null, \"instruction\": "
                        "null, \"mode\": \"real\", \"paging\": \"none\"},"
                        "{\"vcpu\": 2, \"state\": \"unstarted\"}],"
                        "\"missed\": [{\"space\": \"port\", \"address\": \"0xe9\", \"bytes\": 1, \"write\": true, "
                        "\"value\": \"0x21\", \"count\": 3},"
                        "{\"space\": \"memory\", \"address\": \"0xfed00000\", \"bytes\": 4, \"write\": false, "
                        "\"value\": null, \"count\": 1}],"
                        "\"advice\": \"do without it\"}",
                        0, NULL);
    cr_assert_not_null(wanted);
    cr_expect(json_equal(json_object_get(found, "vcpus"), json_object_get(wanted, "vcpus")), "%s", text);
    cr_expect(json_equal(json_object_get(found, "missed"), json_object_get(wanted, "missed")), "%s", text);
    cr_expect(json_equal(json_object_get(found, "advice"), json_object_get(wanted, "advice")), "%s", text);
    json_decref(wanted);
    json_decref(root);
}

Test(report, json_of_a_plan_whole)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct attest_outcome outcome = make_outcome(false);
    struct machine_result stop = {.reason = MACHINE_STOP_EXIT, .exit_code = 7, .vcpu = 1, .exit_count = 99};
    struct report report;
    json_t *root, *wanted;

    plan.part_count = 2;
    plan.parts[1] = (struct loam_plan_part){.start = {4 * LOAM_GIB}, .bytes = LOAM_MIB};
    plan.metadata_bytes = 1;
    plan.table_bytes = 2;
    plan.own_bytes = 3;
    plan.populates = true;
    plan.check_count = 2;
    plan.checks[1] = (struct loam_plan_check){.resource = LOAM_PLAN_NODE, .wanted = 4, .found = 5, .unit_bytes = 1};
    outcome.result.error_count = 6;
    report_init(&report, true, out, false);
    report_plan(&report, &plan);
    report_check(&report, LOAM_ABI_CHECK_RAM, &outcome);
    report_stop(&report, &stop);
    report_finish(&report, 1);
    root = json_loads(text, 0, NULL);
    cr_assert_not_null(root, "%s", text);
    wanted = json_loads("{\"bytes\": 268435456, \"pages\": \"2M\", \"page_bytes\": 2097152, \"page_count\": 128,"
                        "\"parts\": [{\"gpa\": 0, \"bytes\": 268435456}, {\"gpa\": 4294967296, \"bytes\": 1048576}],"
                        "\"reserved\": [{\"gpa\": 655360, \"bytes\": 393216}],"
                        "\"hole_start\": 268435456, \"metadata_bytes\": 1, \"table_bytes\": 2, \"own_bytes\": 3,"
                        "\"populates\": true, \"passed_over\": \"\", \"checks\": ["
                        "{\"resource\": \"pool\", \"wanted\": 128, \"found\": null, \"unit_bytes\": 2097152,"
                        "\"short\": true, \"text\": \"pool: \\\"quoted\\\"\"},"
                        "{\"resource\": \"node\", \"wanted\": 4, \"found\": 5, \"unit_bytes\": 1,"
                        "\"short\": false, \"text\": \"\"}]}",
                        0, NULL);
    cr_assert_not_null(wanted);
    cr_expect(json_equal(json_object_get(root, "plan"), wanted), "%s", text);
    json_decref(wanted);
    wanted =
        json_loads("{\"reason\": \"exit\", \"exit_code\": 7, \"vcpu\": 1, \"exits\": 99, \"report\": \"\"}", 0, NULL);
    cr_expect(json_equal(json_object_get(root, "stop"), wanted), "%s", text);
    json_decref(wanted);
    wanted = json_loads("[{\"check\": \"ram\", \"guest\": false, \"host\": true, \"items\": 3, \"bytes\": 1536,"
                        "\"errors\": 6, \"nanoseconds\": 1500000, \"text\": \"3 pages\"}]",
                        0, NULL);
    cr_expect(json_equal(json_object_get(root, "checks"), wanted), "%s", text);
    json_decref(wanted);
    json_decref(root);
}

Test(report, json_without_checks_has_no_such_key)
{
    struct report report;
    json_t *root;

    report_init(&report, true, out, false);
    report_verdict(&report, true, 0, 0, "");
    report_finish(&report, 0);
    root = json_loads(text, 0, NULL);
    cr_expect_null(json_object_get(root, "checks"));
    cr_expect(json_is_string(json_object_get(root, "loam")), "the version");
    cr_expect_str_eq(json_string_value(json_object_get(root, "verdict")), "pass");
    json_decref(root);
}

Test(report, a_plan_with_two_parts)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct report report;

    plan.part_count = 2;
    plan.parts[1] = (struct loam_plan_part){.start = {4 * LOAM_GIB}, .bytes = 3 * LOAM_MIB};
    report_init(&report, false, out, false);
    report_plan(&report, &plan);
    cr_expect_not_null(strstr(text, "  low RAM   [0x000000000, 0x010000000)  256 MiB\n"
                                    "  high RAM  [0x100000000, 0x100300000)  3 MiB\n"),
                       "%s", text);
    report_verdict(&report, false, 0, 0, "x");
    cr_expect_not_null(strstr(text, "  FAIL: x\n"), "%s", text);
}

/* --- The whole of it -------------------------------------------------------------------------------------------- */

static const char *whole_text(void)
{
    fflush(out);
    return text;
}

static void report_run(struct report *report, bool passed)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct attest_outcome first = make_outcome(true), second = make_outcome(passed);

    plan.checks[0].short_fall = false;
    plan.metadata_bytes = 62669;
    plan.table_bytes = 3 * LOAM_MIB / 2;
    plan.own_bytes = 3 * LOAM_MIB;
    second.check = LOAM_ABI_CHECK_HOLE;
    report_plan(report, &plan);
    report_check(report, LOAM_ABI_CHECK_RAM, NULL);
    report_check(report, LOAM_ABI_CHECK_RAM, &first);
    report_check(report, LOAM_ABI_CHECK_HOLE, NULL);
    report_check(report, LOAM_ABI_CHECK_HOLE, &second);
    report_verdict(report, passed, passed ? 2 : 1, 2, passed ? "" : "the guest reset itself");
    report_finish(report, passed ? 0 : 1);
}

#define PLAN_TEXT                                                                                                      \
    "plan\n"                                                                                                           \
    "  memory    256 MiB as 128 x 2 MiB hugepages, reserved when mapped\n"                                             \
    "  low RAM   [0x000000000, 0x010000000)  256 MiB\n"                                                                \
    "  legacy    [0x0000a0000, 0x000100000)  384 KiB of low RAM, reserved: a PC has its screen and ROMs there\n"       \
    "  hole      [0x010000000, 0x100000000)  for devices\n"                                                            \
    "  metadata  61.2 KiB of host memory, beside 1.5 MiB for page tables and 3 MiB for the process, at most\n"         \
    "  ok        pool: \"quoted\"\n"

Test(report, a_good_run_whole)
{
    struct report report;

    report_init(&report, false, out, false);
    report_run(&report, true);
    cr_expect_str_eq(whole_text(), PLAN_TEXT "checks\n"
                                             "  ram       pass  3 pages, 1.5 KiB                          1.5 ms\n"
                                             "  hole      pass  3 pages, 1.5 KiB                          1.5 ms\n"
                                             "verdict\n"
                                             "  pass      2 of 2 checks, guest and host agree\n");
}

Test(report, a_bad_run_whole)
{
    struct report report;

    report_init(&report, false, out, false);
    report_run(&report, false);
    cr_expect_str_eq(whole_text(),
                     PLAN_TEXT "checks\n"
                               "  ram       pass  3 pages, 1.5 KiB                          1.5 ms\n"
                               "  hole      FAIL  3 pages                                   1.5 ms\n"
                               "verdict\n"
                               "  FAIL      1 of 2 checks, guest and host agree: the guest reset itself\n");
}

/* On a terminal a line says which check runs, is written over by its outcome, and there is colour. */
Test(report, a_bad_run_whole_on_a_terminal)
{
    struct report report;

    report_init(&report, false, out, true);
    report_run(&report, false);
    cr_expect_not_null(strstr(whole_text(),
                              "  \033[32mok   \033[0m     pool: \"quoted\"\n"
                              "checks\n"
                              "\r\033[K  ram       ..."
                              "\r\033[K  ram       \033[32mpass\033[0m  3 pages, 1.5 KiB                  "
                              "        1.5 ms\n"
                              "\r\033[K  hole      ..."
                              "\r\033[K  hole      \033[31mFAIL\033[0m  3 pages                           "
                              "        1.5 ms\n"
                              "\r\033[Kverdict\n"
                              "  \033[31mFAIL\033[0m      1 of 2 checks, guest and host agree: the guest "
                              "reset itself\n"),
                       "%s", text);
}

Test(report, json_has_no_colour_on_a_terminal)
{
    struct report report;

    report_init(&report, true, out, true);
    report_run(&report, true);
    cr_expect_null(strchr(whole_text(), '\033'));
    cr_expect_eq(text[0], '{');
}

/* All that the text of an outcome has room for, and the bytes behind it. */
Test(report, a_long_outcome_whole)
{
    struct attest_outcome outcome = make_outcome(true);
    char figures[sizeof outcome.text + 16];
    struct report report;

    memset(outcome.text, 'w', sizeof outcome.text - 1);
    snprintf(figures, sizeof figures, " %s, 1.5 KiB ", outcome.text);
    report_init(&report, false, out, false);
    report_check(&report, LOAM_ABI_CHECK_RAM, &outcome);
    cr_expect_not_null(strstr(whole_text(), figures), "%s", text);
}

static const char *whole_stderr(void)
{
    static char said[4096];

    fflush(stderr);
    said[fread(said, 1, sizeof said - 1, cr_get_redirected_stderr())] = '\0';
    return said;
}

Test(report, each_reason_has_a_word_of_its_own)
{
    static const char *const words[MACHINE_STOP_COUNT] = {"none", "exit",     "power-off", "panic",    "reset",
                                                          "halt", "shutdown", "broken",    "requested"};

    for (unsigned int reason = 0; reason < MACHINE_STOP_COUNT; reason++) {
        struct machine_result stop = {.reason = (enum machine_stop_reason)reason, .exit_code = reason};
        struct report report;
        json_t *root, *told;

        rewind(out);
        report_init(&report, true, out, false);
        report_stop(&report, &stop);
        report_finish(&report, 0);
        root = json_loadb(text, bytes, 0, NULL);
        cr_assert_not_null(root);
        told = json_object_get(root, "stop");
        cr_expect_str_eq(json_string_value(json_object_get(told, "reason")), words[reason]);
        cr_expect_eq(json_integer_value(json_object_get(told, "exit_code")), reason);
        json_decref(root);
    }
}

/* What the stop left behind, if anything: one paragraph. */
Test(report, a_stop_as_text)
{
    const struct machine_result quiet = {.reason = MACHINE_STOP_EXIT},
                                stop = {.reason = MACHINE_STOP_BROKEN, .report = "vCPU 0: \033"};
    struct report report;

    report_init(&report, false, out, false);
    report_stop(&report, &quiet);
    report_stop(&report, &stop);
    cr_expect_str_eq(whole_stderr(), "vCPU 0: \\x1b\n");
    cr_expect_str_empty(whole_text());
}

/* The line is begun anew, and that has been written; seen is what there was before. */
static void expect_begun_anew(size_t *seen)
{
    cr_expect_eq(bytes - *seen, 4);
    cr_expect_str_eq(text + *seen, "\r\033[K");
    *seen = bytes;
}

/* The line that says which check runs makes room, at once, for what is said on standard error. */
Test(report, progress_gives_way_to_standard_error)
{
    const struct machine_result stop = {.reason = MACHINE_STOP_BROKEN, .report = "broken"};
    struct report report;
    size_t seen;

    report_init(&report, false, out, true);
    report_check(&report, LOAM_ABI_CHECK_RAM, NULL);
    seen = bytes;
    report_note(&report, "a note");
    expect_begun_anew(&seen);
    report_failure(&report, "a failure");
    expect_begun_anew(&seen);
    report_stop(&report, &stop);
    expect_begun_anew(&seen);
    cr_expect_str_eq(whole_stderr(), "loam: a note\nloam: a failure\nbroken\n");
}

/* --- What others chose ------------------------------------------------------------------------------------------- */

#define ODD                                                                                                            \
    "a\033[31mb\xff"                                                                                                   \
    "c"

static const char *failure_on_stderr(void)
{
    static char line[4096];
    FILE *redirected = cr_get_redirected_stderr();

    fflush(stderr);
    cr_assert_not_null(fgets(line, sizeof line, redirected));
    return line;
}

Test(report, text_of_others_has_no_control_bytes)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct report report;

    report_init(&report, false, out, false);
    strcpy(plan.checks[0].text, ODD);
    strcpy(plan.passed_over, ODD);
    report_plan(&report, &plan);
    report_verdict(&report, false, 0, 0, ODD);
    report_failure(&report, "%s: no such file", ODD);
    cr_expect_null(strchr(whole_text(), '\033'));
    cr_expect_null(strchr(text, '\xff'));
    cr_expect_not_null(strstr(text, "auto      a\\x1b[31mb\\xffc\n"), "%s", text);
    cr_expect_not_null(strstr(text, "short     a\\x1b[31mb\\xffc\n"), "%s", text);
    cr_expect_not_null(strstr(text, "FAIL: a\\x1b[31mb\\xffc\n"), "%s", text);
    cr_expect_str_eq(failure_on_stderr(), "loam: a\\x1b[31mb\\xffc: no such file\n");
}

static void check_json_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));

    cr_assert_not_null(value, "%s has vanished", key);
    cr_expect_str_eq(value,
                     "a\033[31mb\xef\xbf\xbd"
                     "c",
                     "%s", key);
}

/* Whatever of others is no UTF-8, the key stays. */
Test(report, json_keeps_every_key_of_text_that_is_not_utf8)
{
    struct loam_plan plan = make_plan(256 * LOAM_MIB);
    struct machine_result stop = {.reason = MACHINE_STOP_BROKEN, .report = ODD};
    struct attest_outcome outcome = make_outcome(true);
    struct report report;
    json_t *root;

    report_init(&report, true, out, false);
    strcpy(plan.checks[0].text, ODD);
    strcpy(plan.passed_over, ODD);
    strcpy(outcome.text, ODD);
    report_plan(&report, &plan);
    report_check(&report, LOAM_ABI_CHECK_RAM, &outcome);
    report_stop(&report, &stop);
    report_failure(&report, "%s", ODD);
    report_note(&report, "%s", ODD);
    report_verdict(&report, false, 0, 8, ODD);
    report_finish(&report, 4);
    root = json_loadb(text, bytes, 0, NULL);
    cr_assert_not_null(root, "%s", text);
    check_json_text(root, "error");
    check_json_text(root, "reason");
    check_json_text(json_object_get(root, "stop"), "report");
    check_json_text(json_object_get(root, "plan"), "passed_over");
    check_json_text(json_array_get(json_object_get(json_object_get(root, "plan"), "checks"), 0), "text");
    check_json_text(json_array_get(json_object_get(root, "checks"), 0), "text");
    cr_expect_str_eq(json_string_value(json_array_get(json_object_get(root, "notes"), 0)), "a\033[31mb\xef\xbf\xbd"
                                                                                           "c");
    json_decref(root);
}
