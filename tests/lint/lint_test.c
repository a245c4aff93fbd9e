// SPDX-License-Identifier: Apache-2.0
/*
 * What clang-tidy, clang-format, shellcheck and the compilers said of each source, script and public header: the build ran
 * them (tools/bazel/lint.bzl), this reads their logs.
 * Asked for by --config=lint, as tools/test does; without it, or without the programs, the cases are skipped.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOG_MAX       1024u
#define TEXT_BYTES    (256u << 10)
#define CHECKED_BYTES (1024u << 10)

struct log {
    char path[256];
};

static char *setting(const char *name)
{
    const char *value = getenv(name);

    return strdup(value != NULL ? value : "");
}

/* The logs with that in their paths. Criterion asks for them in another process than that which runs the cases. */
static struct criterion_test_params logs_of(const char *part)
{
    struct log *logs = cr_malloc(LOG_MAX * sizeof *logs);
    char *paths = setting("LOGS"), *rest = paths;
    size_t count = 0;

    for (char *path; (path = strsep(&rest, " ")) != NULL && count < LOG_MAX;) {
        if (strstr(path, part) != NULL && strlen(path) < sizeof logs->path) {
            strcpy(logs[count++].path, path);
        }
    }
    free(paths);
    return cr_make_param_array(struct log, logs, count);
}

/* Stays until the next call. */
static const char *read_text(const char *path)
{
    static char text[TEXT_BYTES];
    FILE *file = fopen(path, "r");
    size_t bytes;

    cr_assert_not_null(file, "%s", path);
    bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    cr_assert_lt(bytes, sizeof text - 1, "%s is longer than the test reads", path);
    text[bytes] = '\0';
    return text;
}

/* Whether the line says what was done, and nothing of what was found: clang-tidy counts what it leaves unsaid. */
static bool is_no_finding(const char *line, size_t length)
{
    static const char count[] = " generated.";

    return strncmp(line, "checked ", 8) == 0 ||
           (length >= sizeof count && strncmp(line + length - (sizeof count - 1), count, sizeof count - 1) == 0);
}

static void expect_no_finding(const struct log *log)
{
    const char *text = read_text(log->path), *at = text;

    if (strncmp(text, "off", 3) == 0) {
        cr_skip("lint: not asked for: run tools/test, or bazel test --config=lint");
    }
    if (strncmp(text, "missing", 7) == 0) {
        cr_skip("lint: %s: install it", text);
    }
    cr_assert(strncmp(text, "checked ", 8) == 0, "%s names no file", log->path);
    while (*at != '\0' && is_no_finding(at, strcspn(at, "\n"))) {
        at += strcspn(at, "\n") + 1;
    }
    cr_expect_str_empty(at, "%s", at);
}

ParameterizedTestParameters(lint, clang_tidy_finds_nothing)
{
    return logs_of(".tidy");
}

ParameterizedTest(struct log *log, lint, clang_tidy_finds_nothing)
{
    expect_no_finding(log);
}

ParameterizedTestParameters(lint, clang_format_changes_nothing)
{
    return logs_of("/format");
}

ParameterizedTest(struct log *log, lint, clang_format_changes_nothing)
{
    expect_no_finding(log);
}

/* Without an option of the project's but its folder of headers. */
ParameterizedTestParameters(lint, a_public_header_compiles_alone)
{
    return logs_of("/headers/");
}

ParameterizedTest(struct log *log, lint, a_public_header_compiles_alone)
{
    expect_no_finding(log);
}

ParameterizedTestParameters(lint, shellcheck_finds_nothing)
{
    return logs_of("/scripts/");
}

ParameterizedTest(struct log *log, lint, shellcheck_finds_nothing)
{
    expect_no_finding(log);
}

/* --- No source escapes ------------------------------------------------------------------------------------------------ */

static char root[PATH_MAX];
static char checked[CHECKED_BYTES];
static unsigned source_count;

static int see_file(const char *path, const struct stat *status, int type, struct FTW *where)
{
    const char *name = path + strlen(root) + 1, *dot = strrchr(path, '.');
    char line[PATH_MAX + 16];

    (void)status;
    if (type == FTW_D && where->level == 1 && path[where->base] == '.') {
        return FTW_SKIP_SUBTREE; /* what keeps the history */
    }
    if (type == FTW_F && dot != NULL && (strcmp(dot, ".c") == 0 || strcmp(dot, ".h") == 0 || strcmp(dot, ".cc") == 0)) {
        source_count++;
        snprintf(line, sizeof line, "checked %s\n", name);
        cr_expect_not_null(strstr(checked, line), "%s is in no target, or its BUILD file does not end with lint()",
                           name);
    }
    return FTW_CONTINUE;
}

/* Put all that was checked into checked; false: nothing was. */
static bool collect_checked(void)
{
    char *paths = setting("LOGS"), *rest = paths;
    bool is_checked = true;
    size_t used = 0;

    for (char *path; is_checked && (path = strsep(&rest, " ")) != NULL;) {
        const char *text = read_text(path);

        is_checked = strncmp(text, "checked ", 8) == 0;
        cr_assert_lt(used + strlen(text), sizeof checked);
        used += (size_t)sprintf(checked + used, "%s", text);
    }
    free(paths);
    return is_checked;
}

Test(lint, every_source_of_the_repository_is_checked)
{
    const char *readme = getenv("README");

    if (!collect_checked()) {
        cr_skip("lint: not asked for, or not installed");
    }
    cr_assert(readme != NULL && realpath(readme, root) != NULL, "README is not set: run by Bazel");
    dirname(root);
    cr_assert_eq(nftw(root, see_file, 16, FTW_PHYS | FTW_ACTIONRETVAL), 0);
    cr_expect_gt(source_count, 100u, "%s: %u sources", root, source_count);
}
