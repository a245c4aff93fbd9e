// SPDX-License-Identifier: Apache-2.0
#include "vmm/options.h"
#include "vmm/run.h"
#include "vmm/standard.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: loam COMMAND [OPTION...]\n"
    "\n"
    "  run       launch a microVM on carved memory: the self-test, or --kernel FILE\n"
    "  plan      say what a run would take from the host and what falls short; map nothing\n"
    "  version   print the version\n"
    "  NAME      run the program loam-NAME that lies beside this one\n"
    "\n"
    "Examples:\n"
    "  loam run\n"
    "  loam run --memory 6G --pages 2M\n"
    "  loam plan --memory 64G --pages 1G --json\n"
    "\n"
    "`loam run --help` lists the options of run and plan.\n"
    "Exit status: 0 pass; 1 the guest failed; 2 usage; 3 the host lacks something, or what was printed could not be\n"
    "written; 4 KVM or the guest broke; 5 to 123 the guest's own code; 128+N stopped by signal N.\n";

static int run(int argc, char *argv[])
{
    struct options options;

    options_read(argc, argv, &options);
    return run_command(&options);
}

static int plan(int argc, char *argv[])
{
    struct options options;

    options_read(argc, argv, &options);
    return plan_command(&options);
}

static int version(int argc, char *argv[])
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "loam: version takes no options\n");
        return EXIT_CODE_USAGE;
    }
    puts("loam " LOAM_VERSION);
    return EXIT_CODE_PASS;
}

static int help(int argc, char *argv[])
{
    (void)argc;
    (void)argv;
    fputs(usage, stdout);
    return EXIT_CODE_PASS;
}

static const struct {
    const char *name;
    char *full_name; /* argv[0] of the command */
    int (*command)(int argc, char *argv[]);
} commands[] = {
    {"run", "loam run", run},       {"plan", "loam plan", plan}, {"version", "loam version", version},
    {"--version", "loam", version}, {"help", "loam", help},      {"--help", "loam", help},
};

/* Letters, digits and dashes, so that a name never leads out of the folder. */
static int is_program_name(const char *name)
{
    return name[0] != '\0' && name[0] != '-' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name) &&
           strlen(name) < 64;
}

/* Become loam-NAME, from this program's folder or, in a build, from tools/. Returns only if there is none. */
static int run_neighbour(char *argv[])
{
    static const char *const folders[] = {"", "../tools/"};
    char self[PATH_MAX], path[PATH_MAX + 128];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    for (size_t i = 0; i < 2 && length > 0 && is_program_name(argv[0]); i++) {
        self[length] = '\0';
        *(strrchr(self, '/') + 1) = '\0';
        snprintf(path, sizeof path, "%s%sloam-%s", self, folders[i], argv[0]);
        execv(path, argv);
        if (errno != ENOENT) {
            fprintf(stderr, "loam: %s: %s\n", path, strerror(errno));
            return EXIT_CODE_HOST;
        }
    }
    fprintf(stderr, "loam: %s: no such command, and no program loam-%s beside this one: see loam --help\n", argv[0],
            argv[0]);
    return EXIT_CODE_USAGE;
}

int main(int argc, char *argv[])
{
    standard_open(EXIT_CODE_HOST);
    if (argc < 2) {
        fputs(usage, stderr);
        return EXIT_CODE_USAGE;
    }
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            argv[1] = commands[i].full_name;
            return commands[i].command(argc - 1, argv + 1);
        }
    }
    return run_neighbour(argv + 1);
}
