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
                             .parts = {{{0}, ram_bytes}},
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
