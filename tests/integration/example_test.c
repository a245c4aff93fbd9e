// SPDX-License-Identifier: Apache-2.0
/* The example of the README compiles, runs for anyone on any host, and prints what its code promises. */
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MILLISECONDS 30000
#define LOW_BYTES            (UINT64_C(32) << 20)
#define TEXT_BYTES           (UINT64_C(64) << 10)

Test(example, carves_rings_below_4_gib)
{
    char *const argv[] = {getenv("LOAM_EXAMPLE"), NULL};
    struct process process;
    char kind[8], rest;
    uint64_t gpa;
    void *hva;

    cr_assert_not_null(argv[0], "LOAM_EXAMPLE does not name the program");
    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 0, "%s", process.err);
    cr_expect_str_empty(process.err);
    cr_assert_eq(sscanf(process.out,
                        "64 MiB of RAM on %7s pages\nrings of 256 descriptors at GPA 0x%" SCNx64 ", HVA %p%c", kind,
                        &gpa, &hva, &rest),
                 4, "%s", process.out);
    cr_expect(strcmp(kind, "2M") == 0 || strcmp(kind, "thp") == 0 || strcmp(kind, "4K") == 0, "%s", kind);
    cr_expect_eq(gpa % 4096, 0);
    cr_expect_gt(gpa, 0);
    cr_expect_lt(gpa, LOW_BYTES, "the rings lie at %#" PRIx64 ", where there is no RAM below 4 GiB", gpa);
    cr_expect_eq((uintptr_t)hva % 4096, 0);
    cr_expect_eq(rest, '\n');
    process_end(&process);
}

static char *read_text(const char *variable)
{
    const char *path = getenv(variable);
    char *text = calloc(1, TEXT_BYTES);
    FILE *file;

    cr_assert_not_null(path, "%s does not name a file", variable);
    file = fopen(path, "r");
    cr_assert(file != NULL && text != NULL, "%s", path);
    cr_assert_lt(fread(text, 1, TEXT_BYTES - 1, file), TEXT_BYTES - 1, "%s is longer than the test reads", path);
    fclose(file);
    return text;
}

/* Line for line but for the licence, which is the file's first. */
Test(example, stands_in_the_readme_as_it_is_compiled)
{
    char *readme = read_text("LOAM_README"), *source = read_text("LOAM_EXAMPLE_SOURCE");

    cr_expect_not_null(strstr(readme, strchr(source, '\n') + 1),
                       "the README's example is not tools/examples/carve.c: copy it again");
    free(readme);
    free(source);
}
