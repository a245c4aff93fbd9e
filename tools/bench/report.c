// SPDX-License-Identifier: Apache-2.0
#include "tools/bench/report.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#define FIGURE_DIGITS 6 /* significant, in JSON */

double report_ratio(enum bench_better better, double loam, double reference)
{
    return better == BENCH_LESS ? reference / loam : loam / reference;
}

static bool figure_met(const struct bench_result *result)
{
    double goal = result->bench->goal_figure;

    return result->bench->better == BENCH_LESS ? result->loam <= goal : result->loam >= goal;
}

enum report_goal report_goal(const struct bench_result *result)
{
    const struct bench_case *bench = result->bench;
    bool by_ratio = bench->goal > 0, by_figure = bench->goal_figure > 0;

    if ((!by_ratio && !by_figure) || isnan(result->loam) || (by_ratio && isnan(result->ratio))) {
        return REPORT_NO_GOAL;
    }
    bool met = (!by_ratio || result->ratio >= bench->goal) && (!by_figure || figure_met(result));
    return met ? REPORT_MET : REPORT_MISSED;
}

const char *report_figure(double figure, char text[REPORT_FIGURE_BYTES])
{
    int decimals = figure < 0.1 ? 3 : figure < 10 ? 2 : figure < 100 ? 1 : 0;

    if (isnan(figure)) {
        snprintf(text, REPORT_FIGURE_BYTES, "-");
    } else {
        snprintf(text, REPORT_FIGURE_BYTES, "%.*f", decimals, figure);
    }
    return text;
}

void report_table_head(FILE *file)
{
    fprintf(file, "%-36s %10s %10s  %-4s %9s %9s\n", "name", "loam", "reference", "unit", "ratio", "goal");
}

static const char *goal_text(const struct bench_result *result, char text[48])
{
    const struct bench_case *bench = result->bench;
    enum report_goal goal = report_goal(result);
    char figure[REPORT_FIGURE_BYTES];

    if (bench->goal > 0) {
        report_figure(bench->goal, figure);
    } else if (bench->goal_figure > 0) {
        report_figure(bench->goal_figure, figure);
    } else {
        return "";
    }
    snprintf(text, 48, "%9s%s %s", figure, bench->goal > 0 ? "x" : bench->unit,
             goal == REPORT_MET      ? "met"
             : goal == REPORT_MISSED ? "missed"
                                     : "");
    return text;
}

void report_table_row(FILE *file, const struct bench_result *result)
{
    char loam[REPORT_FIGURE_BYTES], reference[REPORT_FIGURE_BYTES], ratio[REPORT_FIGURE_BYTES], goal[48];

    fprintf(file, "%-36s %10s %10s  %-4s %8s%s %s\n", result->bench->name, report_figure(result->loam, loam),
            report_figure(result->reference, reference), result->bench->unit, report_figure(result->ratio, ratio),
            isnan(result->ratio) ? " " : "x", goal_text(result, goal));
    fflush(file);
}

static json_t *json_figure(double figure)
{
    return isfinite(figure) ? json_real(figure) : json_null();
}

void report_json_row(FILE *file, const struct bench_result *result)
{
    json_t *row = json_pack("{s:s, s:s, s:o, s:o, s:o}", "name", result->bench->name, "unit", result->bench->unit,
                            "loam", json_figure(result->loam), "reference", json_figure(result->reference), "ratio",
                            json_figure(result->ratio));

    json_dumpf(row, file, JSON_REAL_PRECISION(FIGURE_DIGITS));
    fputc('\n', file);
    fflush(file);
    json_decref(row);
}

void report_list_row(FILE *file, const struct bench_case *bench)
{
    fprintf(file, "%-36s %-4s %s\n", bench->name, bench->unit, bench->what);
}
