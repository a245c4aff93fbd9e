// SPDX-License-Identifier: Apache-2.0
/* What a run of the benchmarks found, as a table for people and as a JSON object a line. */
#ifndef LOAM_BENCH_REPORT_H
#define LOAM_BENCH_REPORT_H

#include "tools/bench/bench.h"

#include <stdio.h>

/* Figures are medians, in the case's unit; ratio is how many times better Loam is. NAN: there is none. */
struct bench_result {
    const struct bench_case *bench;
    double loam;
    double reference;
    double ratio;
};

enum report_goal { REPORT_NO_GOAL, REPORT_MET, REPORT_MISSED };

/* Whether both of the case's goals are met: the ratio's and the figure's. */
enum report_goal report_goal(const struct bench_result *result);

/* reference / loam where less is better, else loam / reference. */
double report_ratio(enum bench_better better, double loam, double reference);

#define REPORT_FIGURE_BYTES 24

/* About three digits, and no more after the point than tell something; "-" for NAN. Returns text. */
const char *report_figure(double figure, char text[REPORT_FIGURE_BYTES]);

void report_table_head(FILE *file);
void report_table_row(FILE *file, const struct bench_result *result);

/* {"name", "unit", "loam", "reference", "ratio"}, null for what there is not. */
void report_json_row(FILE *file, const struct bench_result *result);

/* Names, units and what is measured. */
void report_list_row(FILE *file, const struct bench_case *bench);

#endif
