// SPDX-License-Identifier: Apache-2.0
/* Results as a picture: a bar a ratio on a logarithmic scale, with a mark at each goal. */
#ifndef LOAM_BENCH_PLOT_H
#define LOAM_BENCH_PLOT_H

#include "tools/bench/report.h"

#include <stdio.h>

/*
 * Write an SVG of all results that have a ratio, but those of groups: flatness needs no picture. It brings its own
 * background, light or dark as the viewer asks.
 */
void plot_ratios(FILE *file, const struct bench_result *results, unsigned count);

#endif
