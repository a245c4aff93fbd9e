// SPDX-License-Identifier: Apache-2.0
/* Which ratio is better, when a goal is met, and that what is printed and drawn can be read again. */
#include "tools/bench/plot.h"
#include "tools/bench/report.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct bench_result result_of(const struct bench_case *bench, double loam, double reference)
{
    return (struct bench_result){bench, loam, reference, report_ratio(bench->better, loam, reference)};
}

Test(report, the_ratio_says_how_many_times_better)
{
    cr_expect_eq(report_ratio(BENCH_LESS, 2, 10), 5);
    cr_expect_eq(report_ratio(BENCH_MORE, 10, 2), 5);
    cr_expect(isnan(report_ratio(BENCH_LESS, 2, NAN)));
}

static void expect_goal(const struct bench_case *bench, double loam, double reference, enum report_goal expected)
{
    struct bench_result result = result_of(bench, loam, reference);

    cr_expect_eq(report_goal(&result), expected, "loam %g, reference %g", loam, reference);
}

Test(report, a_goal_is_a_ratio_or_a_figure_or_both)
{
    struct bench_case by_ratio = {.name = "a", .unit = "ns", .goal = 5};
    struct bench_case by_figure = {.name = "b", .unit = "ns", .goal_figure = 4};
    struct bench_case by_more = {.name = "c", .unit = "%", .better = BENCH_MORE, .goal = 2, .goal_figure = 90};
    struct bench_case none = {.name = "d", .unit = "ns"};

    expect_goal(&by_ratio, 2, 10, REPORT_MET);
    expect_goal(&by_ratio, 2.1, 10, REPORT_MISSED);
    expect_goal(&by_ratio, 2, NAN, REPORT_NO_GOAL);
    expect_goal(&by_figure, 4, NAN, REPORT_MET);
    expect_goal(&by_figure, 4.1, 100, REPORT_MISSED);
    expect_goal(&by_more, 90, 45, REPORT_MET);
    expect_goal(&by_more, 89, 20, REPORT_MISSED);
    expect_goal(&by_more, 95, 80, REPORT_MISSED);
    expect_goal(&none, 1, 2, REPORT_NO_GOAL);
}

/* What write puts into a file; the caller frees it. */
static char *text_of(void (*write)(FILE *file, const struct bench_result *result), const struct bench_result *result)
{
    char *text = NULL;
    size_t bytes;
    FILE *file = open_memstream(&text, &bytes);

    write(file, result);
    fclose(file);
    return text;
}

Test(report, a_json_row_has_the_five_members_in_their_order)
{
    struct bench_case bench = {.name = "frame.x", .unit = "ns"};
    struct bench_result result = result_of(&bench, 4, 10);
    char *text = text_of(report_json_row, &result);

    cr_expect_str_eq(text, "{\"name\": \"frame.x\", \"unit\": \"ns\", \"loam\": 4.0, \"reference\": 10.0, \"ratio\": "
                           "2.5}\n");
    free(text);
}

Test(report, what_there_is_not_is_null)
{
    struct bench_case bench = {.name = "frame.x", .unit = "ns"};
    struct bench_result result = result_of(&bench, 4, NAN);
    char *text = text_of(report_json_row, &result);
    json_t *row = json_loads(text, 0, NULL);

    cr_assert_not_null(row);
    cr_expect(json_is_real(json_object_get(row, "loam")));
    cr_expect(json_is_null(json_object_get(row, "reference")));
    cr_expect(json_is_null(json_object_get(row, "ratio")));
    json_decref(row);
    free(text);
}

Test(report, a_table_row_says_whether_the_goal_is_met)
{
    struct bench_case bench = {.name = "frame.x", .unit = "ns", .goal = 2.5};
    struct bench_result met = result_of(&bench, 4, 10), missed = result_of(&bench, 4.1, 10);
    char *texts[] = {text_of(report_table_row, &met), text_of(report_table_row, &missed)};

    cr_expect_not_null(strstr(texts[0], "2.50x met"), "%s", texts[0]);
    cr_expect_not_null(strstr(texts[1], "2.50x missed"), "%s", texts[1]);
    free(texts[0]);
    free(texts[1]);
}

static unsigned count_of(const char *text, const char *part)
{
    unsigned count = 0;

    for (const char *at = strstr(text, part); at != NULL; at = strstr(at + 1, part)) {
        count++;
    }
    return count;
}

Test(report, the_plot_has_a_bar_for_each_ratio_and_a_mark_for_each_goal)
{
    struct bench_case one = {.name = "frame.one", .unit = "ns", .goal = 2}, two = {.name = "frame.two", .unit = "ns"},
                      three = {.name = "frame.three", .unit = "ns", .goal = 7},
                      four = {.name = "frame.four", .unit = "ns", .goal = 1, .group = "frame"};
    struct bench_result results[] = {result_of(&one, 2, 10), result_of(&two, 10, 0.001), result_of(&three, 1, NAN),
                                     result_of(&four, 2, 2)};
    char *text = NULL;
    size_t bytes;
    FILE *file = open_memstream(&text, &bytes);

    plot_ratios(file, results, 4);
    fclose(file);
    cr_expect_eq(strncmp(text, "<svg ", 5), 0);
    cr_expect_str_eq(text + bytes - 7, "</svg>\n");
    cr_expect_eq(count_of(text, ">frame.one<"), 1);
    cr_expect_eq(count_of(text, ">frame.two<"), 1);
    cr_expect_eq(count_of(text, "frame.three"), 0, "there is no ratio to draw");
    cr_expect_eq(count_of(text, "frame.four"), 0, "flatness is not drawn");
    cr_expect_eq(count_of(text, "<line class=\"goal\""), 2, "one in the key, one in the row");
    cr_expect_eq(count_of(text, ">0.0001<"), 1, "the scale reaches the lowest ratio");
    cr_expect_null(strstr(text, "nan"));
    free(text);
}

Test(report, a_plot_of_nothing_is_a_picture_still)
{
    char *text = NULL;
    size_t bytes;
    FILE *file = open_memstream(&text, &bytes);

    plot_ratios(file, NULL, 0);
    fclose(file);
    cr_expect_str_eq(text + bytes - 7, "</svg>\n");
    free(text);
}
