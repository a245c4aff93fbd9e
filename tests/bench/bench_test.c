// SPDX-License-Identifier: Apache-2.0
/* The benchmark program's options and output. frame.meta stands for all cases: it times nothing and takes no time. */
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MILLISECONDS 60000

static char *bench_path(void)
{
    char *path = getenv("BENCH");

    cr_assert_not_null(path, "BENCH names no program");
    return path;
}

static unsigned count_lines(const char *text)
{
    unsigned count = 0;

    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

Test(bench, list_names_the_cases_and_runs_none)
{
    static const char *const names[] = {
        "frame.pair.order0 ",
        "frame.pair.order3 ",
        "frame.pair.order9 ",
        "frame.bulk.alloc ",
        "frame.bulk.free ",
        "frame.mix ",
        "frame.batch ",
        "frame.dma32.fresh ",
        "frame.dma32.worst ",
        "bus.threads2 ",
        "frame.threads2 ",
        "frame.threads2.remote ",
        "frame.init.8g ",
        "frame.init.1t ",
        "frame.meta ",
        "frame.hugeable ",
        "frame.scale.pair.gib.1024 ",
        "frame.scale.dma32.sections.4096 ",
        "gpa_map.translate.1024 ",
        "slab.",
        "vmm.exit.traced ",
    };
    char *argv[] = {bench_path(), "--list", NULL};
    struct process process;

    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 0, "%s", process.err);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        cr_expect_not_null(strstr(process.out, names[i]), "no %s", names[i]);
    }
    process_end(&process);
}

Test(bench, json_prints_an_object_a_line)
{
    char *argv[] = {bench_path(), "--json", "--filter", "meta", "--rounds", "5", NULL};
    struct process process;
    const char *name, *unit;
    double loam, reference, ratio;

    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 0, "%s", process.err);
    cr_expect_eq(count_lines(process.out), 1, "%s", process.out);
    json_t *row = json_loads(process.out, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_eq(json_unpack(row, "{s:s, s:s, s:F, s:F, s:F !}", "name", &name, "unit", &unit, "loam", &loam,
                             "reference", &reference, "ratio", &ratio),
                 0, "%s", process.out);
    cr_expect_str_eq(name, "frame.meta");
    cr_expect_str_eq(unit, "B");
    cr_expect(loam > 0.1 && loam <= 0.32, "%g bytes a frame", loam);
    cr_expect(fabs(ratio - reference / loam) < 0.001 * ratio, "%s", process.out);
    json_decref(row);
    process_end(&process);
}

Test(bench, a_table_for_people_and_a_plot)
{
    char path[256], start[8] = "";
    char *argv[] = {bench_path(), "--filter", "frame.m*a", "--plot", path, NULL};
    const char *directory = getenv("TEST_TMPDIR");
    struct process process;

    snprintf(path, sizeof path, "%s/bench_test.svg", directory != NULL ? directory : "/tmp");
    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 0, "%s", process.err);
    cr_expect_eq(count_lines(process.out), 2, "a head and a row: %s", process.out);
    cr_expect_not_null(strstr(process.out, "frame.meta "));
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_expect_eq(fread(start, 1, 4, file), 4);
    cr_expect_str_eq(start, "<svg");
    fclose(file);
    unlink(path);
    process_end(&process);
}

struct mistake {
    char arguments[3][32];
    char says[64];
    int status;
};

ParameterizedTestParameters(bench, a_mistake_gets_one_line)
{
    static struct mistake mistakes[] = {
        {{"--rounds", "4"}, "--rounds 4: not a number from 5", 2},
        {{"--rounds", "many"}, "--rounds many: not a number", 2},
        {{"--rounds", "-5"}, "--rounds -5: not a number", 2},
        {{"--rounds", "99999999999999999999"}, "not a number", 2},
        {{"--filter", "frame.nothing"}, "--filter frame.nothing: no case", 2},
        {{"--filter", "meta?"}, "--filter meta?: no case", 2},
        {{"extra"}, "extra: not an option", 2},
        {{"--plot", "/no/such/file.svg"}, "--plot /no/such/file.svg: No such file", 1},
    };

    return cr_make_param_array(struct mistake, mistakes, sizeof mistakes / sizeof mistakes[0]);
}

ParameterizedTest(struct mistake *mistake, bench, a_mistake_gets_one_line)
{
    struct process process;
    char *argv[] = {bench_path(), NULL, NULL, NULL, NULL};

    for (unsigned i = 0; i < 3 && mistake->arguments[i][0] != '\0'; i++) {
        argv[i + 1] = mistake->arguments[i];
    }
    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), mistake->status, "%s: exit %d: %s",
                 mistake->arguments[0], process.status, process.err);
    cr_expect_eq(count_lines(process.err), 1, "not one line: %s", process.err);
    cr_expect_not_null(strstr(process.err, mistake->says), "%s: does not say %s", process.err, mistake->says);
    cr_expect_str_empty(process.out);
    process_end(&process);
}
