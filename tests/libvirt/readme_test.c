// SPDX-License-Identifier: Apache-2.0
/* The lines of README.md's "On many hosts", run one after the other on two libvirtds of the test's own. */
#include "tests/libvirt/command.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_COUNT  10
#define PAGES_MORE  64 /* of 2 MiB, than there are */
#define PAGES_GUEST 32

static struct libvirtd one, two;

static unsigned long read_pool(const char *file)
{
    char path[128];
    unsigned long count = 0;
    FILE *stream;

    snprintf(path, sizeof path, "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/%s", file);
    stream = fopen(path, "r");
    if (stream != NULL) {
        (void)!fscanf(stream, "%lu", &count);
        fclose(stream);
    }
    return count;
}

/* Programs where the emulator's user reaches them, and loam finds its neighbours; the shell finds them first. */
static void lend_programs(void)
{
    static const char *const programs[][2] = {{"LOAM", "loam"},
                                              {"LOAM_DOMAIN", "loam-domain"},
                                              {"LOAM_EMULATOR", "loam-emulator"},
                                              {"LOAM_HOST", "loam-host"},
                                              {"LOAM_PLACE", "loam-place"}};
    char path[LIBVIRTD_PATH_MAX], search[LIBVIRTD_PATH_MAX + 64];

    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++) {
        cr_assert(libvirtd_lend(&one, getenv(programs[i][0]), programs[i][1], path), "%s", programs[i][0]);
    }
    *strrchr(path, '/') = '\0';
    snprintf(search, sizeof search, "%s:/usr/bin:/bin:/usr/sbin:/sbin", path);
    setenv("PATH", search, 1);
    cr_assert(libvirtd_lend(&one, getenv("LOAM_DOMAIN_GUEST"), "kernel", path));
    setenv("KERNEL", path, 1);
}

static void set_up(void)
{
    char pages[32];

    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it");
    }
    command_need(&one, LIBVIRTD_SYSTEM, false);
    command_need(&two, LIBVIRTD_SESSION, false);
    setenv("A", one.uri, 1);
    setenv("B", two.uri, 1);
    snprintf(pages, sizeof pages, "%lu", read_pool("nr_hugepages") + PAGES_MORE);
    setenv("PAGES", pages, 1);
    setenv("XDG_STATE_HOME", one.folder, 1);
    lend_programs();
}

static void tear_down(void)
{
    cr_expect(libvirtd_end(&two));
    cr_expect(libvirtd_end(&one));
}

TestSuite(readme, .init = set_up, .fini = tear_down, .timeout = 300);

/* The next line of the block, or NULL at its end. */
static char *next_line(FILE *readme, char *line, int bytes)
{
    return fgets(line, bytes, readme) != NULL && strcmp(line, "```\n") != 0 ? line : NULL;
}

static FILE *open_block(void)
{
    FILE *readme = fopen(getenv("README"), "r");
    char line[1024] = "";

    cr_assert_not_null(readme);
    while (strcmp(line, "## On many hosts\n") != 0) {
        cr_assert_not_null(fgets(line, sizeof line, readme));
    }
    while (strcmp(line, "```\n") != 0) {
        cr_assert_not_null(fgets(line, sizeof line, readme));
    }
    return readme;
}

/* What a line is for, by a word of it, shows in what it prints. */
static void check_output(const char *line, const char *out)
{
    static const char *const shown[][2] = {
        {"loam host --connect", "2M"},   {"--run", "web"},
        {"domstate", "running"},         {"memory-map", "\"return\""},
        {"domain show", "run --memory"}, {"shutdown", "is being shutdown"},
    };

    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        cr_expect(strstr(line, shown[i][0]) == NULL || strstr(out, shown[i][1]) != NULL, "%s prints '%s'", line, out);
    }
}

Test(readme, each_line_does_what_it_says)
{
    unsigned long pages = read_pool("nr_hugepages"), count = 0;
    FILE *block = open_block();
    char line[1024], work[64] = "/tmp/loam-readme-XXXXXX";

    cr_assert_not_null(mkdtemp(work));
    cr_assert_eq(chdir(work), 0);
    while (next_line(block, line, sizeof line) != NULL) {
        struct process process;

        line[strcspn(line, "\n")] = '\0';
        cr_expect_eq(command_run(&process, "/bin/bash", "-c", line, NULL), 0, "%s: %s%s", line, process.out,
                     process.err);
        check_output(line, process.out);
        process_end(&process);
        count++;
    }
    fclose(block);
    cr_expect_eq(count, LINE_COUNT);
    cr_expect_eq(read_pool("nr_hugepages"), pages);
    cr_expect_eq(unlink("web.xml"), 0);
    cr_expect_eq(rmdir(work), 0);
}
