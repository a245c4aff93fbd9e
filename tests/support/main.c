// SPDX-License-Identifier: Apache-2.0
/*
 * The main of every test: Criterion's own, and beside it
 *   - the JUnit report where Bazel asks for one, from which tools/test counts the cases really run;
 *   - a program without a case fails;
 *   - a check that fails after its case, in what a suite does at the end (.fini), fails the program: Criterion only
 *     prints it;
 *   - sanitizer reports of the test processes count as failures, also those that come when a test has
 *     already ended, such as leaks.
 */
#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <criterion/output.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define LOAM_TEST_TSAN 1
#endif
#endif

#ifdef LOAM_TEST_TSAN
/*
 * Criterion maps an arena at 2^45 + 2^24 * rand_r(), which ThreadSanitizer refuses nearly everywhere. It allows
 * 0x5600'0000'0000 and up, where nothing else lies once the addresses are not randomised.
 */
int rand_r(unsigned int *seed)
{
    return (int)(0x360000u + (++*seed & 0xfffu));
}
#endif

/* Sanitizers also write down what they only want to be known. */
static bool is_finding(const char *line)
{
    return strstr(line, "ERROR: ") != NULL || strstr(line, "runtime error: ") != NULL ||
           strstr(line, "WARNING: ThreadSanitizer") != NULL;
}

/* Whether one of them has a finding. */
static bool print_reports(const char *pattern)
{
    glob_t reports = {0};
    bool found = false;

    if (glob(pattern, 0, NULL, &reports) == 0) {
        for (size_t i = 0; i < reports.gl_pathc; i++) {
            FILE *report = fopen(reports.gl_pathv[i], "r");
            char line[1024];

            while (report != NULL && fgets(line, sizeof line, report) != NULL) {
                fputs(line, stderr);
                found |= is_finding(line);
            }
            if (report != NULL) {
                fclose(report);
            }
            remove(reports.gl_pathv[i]);
        }
    }
    globfree(&reports);
    return found;
}

static unsigned int failed_checks;

ReportHook(ASSERT)(struct criterion_assert_stats *check)
{
    failed_checks += !check->passed;
}

int main(int argc, char *argv[])
{
    const char *directory = getenv("TEST_TMPDIR");
    const char *report = getenv("XML_OUTPUT_FILE");
    char sanitizer_options[4096], pattern[4096];
    struct criterion_test_set *tests = criterion_initialize();
    int failed = 0;

    snprintf(sanitizer_options, sizeof sanitizer_options, "log_path=%s/sanitizer", directory ? directory : "/tmp");
    snprintf(pattern, sizeof pattern, "%s/sanitizer.*", directory ? directory : "/tmp");
    setenv("ASAN_OPTIONS", sanitizer_options, 1);
    setenv("UBSAN_OPTIONS", sanitizer_options, 1);
    setenv("TSAN_OPTIONS", sanitizer_options, 1);
    if (tests->tests == 0) {
        fprintf(stderr, "no test case is in this program: was it linked without its sections?\n");
        return 1;
    }
    criterion_options.jobs = 1;
    if (report != NULL) {
        criterion_add_output("xml", report);
    }
    if (criterion_handle_args(argc, argv, true)) {
        failed = !criterion_run_all_tests(tests);
    }
    criterion_finalize(tests);
    if (!failed && failed_checks > 0) {
        fprintf(stderr, "%u checks failed after their cases\n", failed_checks);
    }
    return failed | (failed_checks > 0) | print_reports(pattern);
}
