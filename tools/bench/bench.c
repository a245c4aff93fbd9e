// SPDX-License-Identifier: Apache-2.0
/*
 * The program: which cases, in which rounds, shown how.
 *
 * Cases of one group run beside each other, a round of each in turn, so that a host that speeds up or slows down
 * touches them alike; a case without a group is a group of one.
 */
#include "tools/bench/bench.h"

#include "tools/bench/plot.h"
#include "tools/bench/report.h"

#include <argp.h>
#include <errno.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_USAGE   2
#define ROUNDS_LEAST 5u
#define ROUNDS_MOST  1001u
#define CASES_MOST   256u
#define GROUP_MOST   16u
#define BUSY_LOAD    0.5

static const struct bench_case *const tables[] = {frame_cases, thread_cases, scale_cases, map_cases,
                                                  slab_cases,  dma_cases,    bus_cases,   exit_cases};

struct options {
    bool json;
    bool list;
    const char *filter; /* NULL: all */
    const char *plot;   /* NULL: none */
    uint32_t rounds;
};

enum { KEY_JSON = 0x100, KEY_FILTER, KEY_LIST, KEY_PLOT, KEY_ROUNDS };

static const struct argp_option rows[] = {
    {"json", KEY_JSON, NULL, 0, "print one JSON object a line instead of a table", 0},
    {"filter", KEY_FILTER, "TEXT", 0, "only cases whose name holds TEXT, or matches it where it has *, ? or [", 0},
    {"list", KEY_LIST, NULL, 0, "say what the cases are, and run none", 0},
    {"plot", KEY_PLOT, "FILE", 0, "draw the ratios into FILE, as SVG", 0},
    {"rounds", KEY_ROUNDS, "N", 0, "rounds of each case, from 5 up (default 5); the median counts", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static uint32_t read_rounds(struct argp_state *state, const char *text)
{
    char *end;
    unsigned long number;

    errno = 0;
    number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0' || number < ROUNDS_LEAST || number > ROUNDS_MOST) {
        argp_failure(state, EXIT_USAGE, 0, "--rounds %s: not a number from %u to %u", text, ROUNDS_LEAST, ROUNDS_MOST);
    }
    return (uint32_t)number;
}

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    struct options *options = state->input;

    switch (key) {
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_FILTER:
        options->filter = argument;
        return 0;
    case KEY_LIST:
        options->list = true;
        return 0;
    case KEY_PLOT:
        options->plot = argument;
        return 0;
    case KEY_ROUNDS:
        options->rounds = read_rounds(state, argument);
        return 0;
    case ARGP_KEY_ARG:
        argp_failure(state, EXIT_USAGE, 0, "%s: not an option", argument);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool is_wanted(const struct options *options, const struct bench_case *bench)
{
    const char *filter = options->filter;

    return filter == NULL || strstr(bench->name, filter) != NULL ||
           (strpbrk(filter, "*?[") != NULL && fnmatch(filter, bench->name, 0) == 0);
}

static unsigned choose(const struct options *options, const struct bench_case **chosen)
{
    unsigned count = 0;

    for (size_t table = 0; table < sizeof tables / sizeof tables[0]; table++) {
        for (const struct bench_case *bench = tables[table]; bench->name != NULL; bench++) {
            if (is_wanted(options, bench) && count < CASES_MOST) {
                chosen[count++] = bench;
            }
        }
    }
    return count;
}

/* --- Running --------------------------------------------------------------------------------------------------- */

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

/* NAN if any is. */
static double median(double *figures, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (isnan(figures[i])) {
            return NAN;
        }
    }
    qsort(figures, count, sizeof figures[0], compare);
    return (figures[(count - 1) / 2] + figures[count / 2]) / 2;
}

static void run_round(const struct bench_case *bench, double *loam, double *reference)
{
    *loam = bench->loam(bench);
    *reference = bench->reference != NULL ? bench->reference(bench) : NAN;
}

static double best(enum bench_better better, const struct bench_result *results, unsigned count)
{
    double found = results[0].loam;

    for (unsigned i = 1; i < count; i++) {
        bool is_better = better == BENCH_LESS ? results[i].loam < found : results[i].loam > found;

        found = is_better ? results[i].loam : found;
    }
    return found;
}

/* Cases of one group, or one case. */
static void run_group(const struct bench_case *const *cases, unsigned count, uint32_t rounds,
                      struct bench_result *results)
{
    static double loam[GROUP_MOST][ROUNDS_MOST], reference[GROUP_MOST][ROUNDS_MOST];
    bool once = cases[0]->once;

    rounds = once ? 1 : rounds;
    for (uint32_t round = 0; round < rounds + !once; round++) {
        uint32_t at = once || round == 0 ? 0 : round - 1; /* the next round overwrites the warm-up's figures */

        for (unsigned i = 0; i < count; i++) {
            run_round(cases[i], &loam[i][at], &reference[i][at]);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        results[i] = (struct bench_result){cases[i], median(loam[i], rounds), median(reference[i], rounds), NAN};
    }
    for (unsigned i = 0; i < count; i++) {
        if (cases[i]->group != NULL) {
            results[i].reference = best(cases[i]->better, results, count);
        }
        results[i].ratio = report_ratio(cases[i]->better, results[i].loam, results[i].reference);
    }
}

static unsigned group_size(const struct bench_case *const *cases, unsigned count)
{
    unsigned size = 1;

    while (cases[0]->group != NULL && size < count && size < GROUP_MOST && cases[size]->group != NULL &&
           strcmp(cases[size]->group, cases[0]->group) == 0) {
        size++;
    }
    return size;
}

static void run(const struct options *options, const struct bench_case *const *cases, unsigned count,
                struct bench_result *results)
{
    if (!options->json) {
        report_table_head(stdout);
    }
    for (unsigned at = 0; at < count;) {
        unsigned size = group_size(cases + at, count - at);

        run_group(cases + at, size, options->rounds, results + at);
        for (unsigned end = at + size; at < end; at++) {
            (options->json ? report_json_row : report_table_row)(stdout, &results[at]);
        }
    }
}

/* Opened before hours are spent, not after. */
static FILE *open_plot(const char *path)
{
    FILE *file = fopen(path, "w");

    if (file == NULL) {
        bench_fail("--plot %s: %s", path, strerror(errno));
    }
    return file;
}

static void close_plot(FILE *file, const char *path)
{
    bool failed = ferror(file) != 0;

    if (fclose(file) != 0 || failed) {
        bench_fail("--plot %s: could not be written", path);
    }
}

/* Two threads beside a third get less than two processors, and look worse than they are. */
static void warn_if_busy(void)
{
    double load;

    if (getloadavg(&load, 1) == 1 && load > BUSY_LOAD) {
        bench_note("the machine is busy (load %.1f): figures will be worse than they are, those of two threads most of "
                   "all",
                   load);
    }
}

static const char documentation[] =
    "Measure Loam beside what it replaces, in one run: medians of rounds that alternate between the two.\v"
    "The ratio says how many times better than the reference Loam is; where the reference is Loam itself, a case's "
    "description in --list says which. The machine wants to be idle, and built with -c opt.\n"
    "Exit status: 0; 1 a case could not be run; 2 usage.";

int main(int argc, char *argv[])
{
    const struct argp argp = {.options = rows, .parser = read_option, .doc = documentation};
    static const struct bench_case *cases[CASES_MOST];
    static struct bench_result results[CASES_MOST];
    struct options options = {.rounds = ROUNDS_LEAST};
    unsigned count;

    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &options);
    count = choose(&options, cases);
    if (count == 0) {
        fprintf(stderr, "bench: --filter %s: no case has such a name: see --list\n", options.filter);
        return EXIT_USAGE;
    }
    if (options.list) {
        for (unsigned i = 0; i < count; i++) {
            report_list_row(stdout, cases[i]);
        }
        return 0;
    }
    FILE *plot = options.plot != NULL ? open_plot(options.plot) : NULL;
    warn_if_busy();
    bench_pin(0);
    run(&options, cases, count, results);
    if (plot != NULL) {
        plot_ratios(plot, results, count);
        close_plot(plot, options.plot);
    }
    return 0;
}
