// SPDX-License-Identifier: Apache-2.0
/*
 * Across: labels, then the scale from lowest to highest, whole powers of ten, then room for a value. Down: a title, a
 * row a result, the scale's numbers. A bar starts at 1, where Loam and the reference are equal.
 */
#include "tools/bench/plot.h"

#include <math.h>

#define LABEL_WIDTH  210.0
#define SCALE_WIDTH  520.0
#define VALUE_WIDTH  90.0
#define WIDTH        (LABEL_WIDTH + SCALE_WIDTH + VALUE_WIDTH)
#define HEAD_HEIGHT  64.0
#define FOOT_HEIGHT  34.0
#define ROW_HEIGHT   20.0
#define BAR_HEIGHT   12.0
#define LEAST_RATIO  1e-9
#define HIGHEST_MOST 12

/* The scale's ends, as powers of ten. */
struct scale {
    int lowest, highest;
};

static bool is_drawn(const struct bench_result *result)
{
    return result->bench->group == NULL && isfinite(result->ratio) && result->ratio > LEAST_RATIO;
}

static void widen(struct scale *scale, double ratio)
{
    while (scale->lowest > -HIGHEST_MOST && ratio < pow(10, scale->lowest)) {
        scale->lowest--;
    }
    while (scale->highest < HIGHEST_MOST && ratio > pow(10, scale->highest)) {
        scale->highest++;
    }
}

static struct scale scale_of(const struct bench_result *results, unsigned count)
{
    struct scale scale = {0, 1};

    for (unsigned i = 0; i < count; i++) {
        if (is_drawn(&results[i])) {
            widen(&scale, results[i].ratio);
            if (results[i].bench->goal > 0) {
                widen(&scale, results[i].bench->goal);
            }
        }
    }
    return scale;
}

static double across(struct scale scale, double ratio)
{
    return LABEL_WIDTH + SCALE_WIDTH * (log10(ratio) - scale.lowest) / (scale.highest - scale.lowest);
}

/* The colours of Okabe and Ito that a colour-blind reader tells apart. */
static void draw_head(FILE *file, double height)
{
    fprintf(
        file,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
        "role=\"img\" aria-label=\"How many times better than the reference Loam is\">\n<style>\n"
        "svg { font: 12px sans-serif; }\n"
        ".back { fill: #ffffff; }\n.text { fill: #24292f; }\n.faint { fill: #57606a; }\n"
        ".grid { stroke: #d8dee4; }\n.one { stroke: #57606a; }\n.goal { stroke: #24292f; stroke-width: 2; }\n"
        ".met { fill: #0072b2; }\n.missed { fill: #d55e00; }\n.none { fill: #8c959f; }\n"
        "@media (prefers-color-scheme: dark) {\n"
        ".back { fill: #0d1117; }\n.text { fill: #e6edf3; }\n.faint { fill: #9198a1; }\n"
        ".grid { stroke: #2d333b; }\n.one { stroke: #9198a1; }\n.goal { stroke: #e6edf3; }\n"
        ".met { fill: #56b4e9; }\n.missed { fill: #e69f00; }\n.none { fill: #6e7681; }\n}\n</style>\n"
        "<rect class=\"back\" width=\"%.0f\" height=\"%.0f\"/>\n"
        "<text class=\"text\" x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\">How many times better than the "
        "reference Loam is</text>\n",
        WIDTH, height, WIDTH, height, WIDTH, height);
}

static double draw_key(FILE *file, double x, const char *class, const char *text)
{
    fprintf(file, "<rect class=\"%s\" x=\"%.0f\" y=\"37\" width=\"12\" height=\"12\"/>", class, x);
    fprintf(file, "<text class=\"faint\" x=\"%.0f\" y=\"47\">%s</text>\n", x + 17, text);
    return x + 120;
}

static void draw_keys(FILE *file)
{
    double x = draw_key(file, 16, "met", "goal met");

    x = draw_key(file, x, "missed", "goal missed");
    x = draw_key(file, x, "none", "no goal");
    fprintf(file, "<line class=\"goal\" x1=\"%.0f\" x2=\"%.0f\" y1=\"36\" y2=\"50\"/>", x + 5, x + 5);
    fprintf(file, "<text class=\"faint\" x=\"%.0f\" y=\"47\">goal</text>\n", x + 17);
}

static void draw_scale(FILE *file, struct scale scale, double bottom)
{
    for (int power = scale.lowest; power <= scale.highest; power++) {
        double x = across(scale, pow(10, power));

        fprintf(file, "<line class=\"%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.0f\" y2=\"%.0f\"/>",
                power == 0 ? "one" : "grid", x, x, HEAD_HEIGHT, bottom);
        fprintf(file, "<text class=\"faint\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%.*f</text>\n", x,
                bottom + 18, power < 0 ? -power : 0, pow(10, power));
    }
}

static void draw_result(FILE *file, struct scale scale, const struct bench_result *result, double top)
{
    static const char *const classes[] = {[REPORT_NO_GOAL] = "none", [REPORT_MET] = "met", [REPORT_MISSED] = "missed"};
    double one = across(scale, 1), end = across(scale, result->ratio), goal = result->bench->goal;
    char ratio[REPORT_FIGURE_BYTES];
    double right = fmax(fmax(one, end), goal > 0 ? across(scale, goal) : 0);

    fprintf(file, "<text class=\"text\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", LABEL_WIDTH - 10,
            top + ROW_HEIGHT / 2 + 4, result->bench->name);
    fprintf(file, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\"/>",
            classes[report_goal(result)], fmin(one, end), top + (ROW_HEIGHT - BAR_HEIGHT) / 2, fabs(end - one),
            BAR_HEIGHT);
    if (goal > 0) {
        fprintf(file, "<line class=\"goal\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", across(scale, goal),
                across(scale, goal), top + 2, top + ROW_HEIGHT - 2);
    }
    fprintf(file, "<text class=\"text\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", right + 6, top + ROW_HEIGHT / 2 + 4,
            report_figure(result->ratio, ratio));
}

void plot_ratios(FILE *file, const struct bench_result *results, unsigned count)
{
    struct scale scale = scale_of(results, count);
    unsigned drawn = 0;

    for (unsigned i = 0; i < count; i++) {
        drawn += is_drawn(&results[i]);
    }
    double bottom = HEAD_HEIGHT + drawn * ROW_HEIGHT, top = HEAD_HEIGHT;
    draw_head(file, bottom + FOOT_HEIGHT);
    draw_keys(file);
    draw_scale(file, scale, bottom);
    for (unsigned i = 0; i < count; i++) {
        if (is_drawn(&results[i])) {
            draw_result(file, scale, &results[i], top);
            top += ROW_HEIGHT;
        }
    }
    fputs("</svg>\n", file);
}
