// SPDX-License-Identifier: Apache-2.0
#include "loam/version.h"
#include "vmm/options.h"
#include "vmm/report.h"
#include "vmm/run.h"
#include "vmm/snapshot_command.h"
#include "vmm/standard.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Usage: loam COMMAND [OPTION...]\n"
    "\n"
    "  run       launch a microVM on carved memory: the self-test, or --kernel FILE\n"
    "  plan      say what a run would take from the host and what falls short; map nothing\n"
    "  snapshot  write the guest of a run that listens (--control) into a directory; run --restore goes on with it\n"
    "  domain    run what a libvirt domain describes, from a file or by its name\n"
    "  host      say what a host has for guests, by libvirt; set its pools of hugepages\n"
    "  place     say which of several hosts can hold a guest, by libvirt; run it there\n"
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

/* --- Mistakes in the options of who reads JSON ------------------------------------------------------------------- */

/* What argp says meanwhile; stream is NULL but while options are read. */
static struct {
    FILE *stream, *standard_error;
    char *text;
    size_t bytes;
    const char *name; /* of the command, as in the first line that argp says */
} said;

static bool wants_json(int argc, char *argv[])
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            return true;
        }
    }
    return false;
}

static void stop_listening(void)
{
    if (said.stream != NULL) {
        stderr = said.standard_error;
        fclose(said.stream);
        said.stream = NULL;
    }
}

/* argp ends the program when it meets a mistake: its first line becomes the object. */
static void tell_mistake(void)
{
    bool was_listening = said.stream != NULL;
    struct report report;
    char *line;

    stop_listening();
    if (!was_listening || said.bytes == 0) {
        return;
    }
    line = strncmp(said.text, said.name, strlen(said.name)) == 0 ? said.text + strlen(said.name) : said.text;
    line += strspn(line, ": ");
    line[strcspn(line, "\n")] = '\0';
    report_init(&report, true, stdout, false);
    report_failure(&report, "%s", line);
    report_finish(&report, EXIT_CODE_USAGE);
}

static void read_options(int argc, char *argv[], struct options *options)
{
    if (wants_json(argc, argv) && atexit(tell_mistake) == 0) {
        said.stream = open_memstream(&said.text, &said.bytes);
    }
    if (said.stream != NULL) {
        said.name = argv[0];
        said.standard_error = stderr;
        stderr = said.stream;
    }
    options_read(argc, argv, options);
    stop_listening();
    free(said.text);
}

/* --- Commands ---------------------------------------------------------------------------------------------------- */

static int run(int argc, char *argv[])
{
    struct options options;

    read_options(argc, argv, &options);
    return run_command(&options);
}

static int plan(int argc, char *argv[])
{
    struct options options;

    read_options(argc, argv, &options);
    return plan_command(&options);
}

static int version(int argc, char *argv[])
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "loam: version takes no options\n");
        return EXIT_CODE_USAGE;
    }
    printf("loam %s\n", loam_version());
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
    {"run", "loam run", run},
    {"plan", "loam plan", plan},
    {"version", "loam version", version},
    {"snapshot", "loam snapshot", snapshot_command},
    {"--version", "loam", version},
    {"help", "loam", help},
    {"--help", "loam", help},
};

/* Letters, digits and dashes, so that a name never leads out of the folder. */
static int is_program_name(const char *name)
{
    return name[0] != '\0' && name[0] != '-' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(name) &&
           strlen(name) < 64;
}

/* Become loam-NAME, from this program's folder or, in a build, from theirs. Returns only if there is none. */
static int run_neighbour(char *argv[])
{
    static const char *const folders[] = {"", "emulator/", "../tools/", "../tools/libvirt/"};
    char self[PATH_MAX] = {0}, path[PATH_MAX + 128];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);

    for (size_t i = 0; i < sizeof folders / sizeof folders[0] && length > 0 && is_program_name(argv[0]); i++) {
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
