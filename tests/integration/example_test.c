// SPDX-License-Identifier: Apache-2.0
/* The examples of the documents compile, run, and print what their code promises. */
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

Test(example, grows_and_shrinks_with_its_slots)
{
    char *const argv[] = {getenv("LOAM_EXAMPLE_GROW"), NULL};
    struct process process;

    cr_assert_not_null(argv[0], "LOAM_EXAMPLE_GROW does not name the program");
    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 0, "%s", process.err);
    cr_expect_str_empty(process.err);
    cr_expect_str_eq(process.out, "slot 0: 32 MiB at GPA 0\nslot 1: 8 MiB at GPA 0x2000000\n"
                                  "slot 2: 16 MiB at GPA 0x100000000\n3 rows for a peer\n"
                                  "slot 2: 0 MiB at GPA 0x100000000\n");
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
static void expect_quoted(const char *page_variable, const char *source_variable)
{
    char *page = read_text(page_variable), *source = read_text(source_variable);

    cr_expect_not_null(strstr(page, strchr(source, '\n') + 1), "what %s shows is not %s: copy it again",
                       getenv(page_variable), getenv(source_variable));
    free(page);
    free(source);
}

Test(example, stands_in_the_readme_as_it_is_compiled)
{
    expect_quoted("LOAM_README", "LOAM_EXAMPLE_SOURCE");
}

Test(example, guest_stands_on_its_page_as_it_is_compiled)
{
    expect_quoted("LOAM_GUEST_PAGE", "LOAM_GUEST_SOURCE");
}

Test(example, hypervisor_runs_its_guest_and_ends)
{
    char *const argv[] = {getenv("LOAM_EXAMPLE_VMM"), NULL};
    struct process process;
    uint64_t gpa;
    char rest;

    cr_assert_not_null(argv[0], "LOAM_EXAMPLE_VMM does not name the program");
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it");
    }
    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 0, "%s", process.err);
    cr_expect_str_empty(process.err);
    cr_assert_eq(sscanf(process.out, "L\n1 descriptor available in the ring at GPA 0x%" SCNx64 "%c", &gpa, &rest), 2,
                 "%s", process.out);
    cr_expect_lt(gpa, LOW_BYTES);
    cr_expect_eq(rest, '\n');
    process_end(&process);
}

Test(example, hypervisor_says_in_a_line_that_there_is_no_kvm)
{
    char *const argv[] = {getenv("LOAM_EXAMPLE_VMM"), NULL};
    struct process process;

    if (access("/dev/kvm", R_OK | W_OK) == 0) {
        cr_skip_test("there is a /dev/kvm");
    }
    cr_expect_eq(process_run(&process, argv, TIMEOUT_MILLISECONDS), 3);
    cr_expect_str_eq(process.err, "vmm: /dev/kvm: not there, or not ours\n");
    process_end(&process);
}
