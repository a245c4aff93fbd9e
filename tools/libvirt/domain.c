// SPDX-License-Identifier: Apache-2.0
/* loam-domain: a libvirt domain becomes a `loam run`, with or without a daemon. */
#include "tools/libvirt/domain_fetch.h"
#include "tools/libvirt/domain_read.h"
#include "tools/libvirt/domain_words.h"
#include "vmm/options.h"
#include "vmm/standard.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IGNORE_MAX 64u

enum { KEY_IGNORE = 0x100, KEY_SHOW };

struct request {
    const char *source; /* a file, "-" or a name */
    const char *uri;    /* NULL: none is given */
    bool shows;         /* what would be run, and runs nothing */
    size_t ignore_count;
    const char *ignores[IGNORE_MAX];
};

/* --- The command line ---------------------------------------------------------------------------------------------- */

static const struct argp_option rows[] = {
    {"connect", 'c', "URI", 0, "the domain is a libvirt daemon's, and its name is given (default: as virsh)", 1},
    {"ignore", KEY_IGNORE, "PATH", 0,
     "pass over the elements or the attribute of this path, and what is below: /domain/devices/disk, "
     "/domain/devices/disk[2], /domain/vcpu/@cpuset; may be given again",
     1},
    {"show", KEY_SHOW, NULL, 0, "print the command line, and run nothing", 1},
    {NULL, 0, NULL, 0, NULL, 0},
};

static const char documentation[] =
    "Run a libvirt domain, from a file or by its name, as `loam run` does it. Each element of it that Loam does not "
    "honour is refused by its path. `show` is `run --show`.\v"
    "FILE is what holds a slash or ends in .xml, or - for standard input: libvirt is not needed then. NAME is a domain "
    "of the daemon's.\n\n"
    "Memory, vCPUs, memoryBacking, numatune, cells, kernel, initrd, cmdline, the serial port and on_reboot are "
    "honoured: see loam-domain(1). Without a <kernel> the self-test runs.\n\n"
    "Exit status: as loam run; 2 also for what is refused, 3 also for a daemon that does not answer.";

static void take_ignore(struct argp_state *state, struct request *request, const char *path)
{
    if (!xml_walk_is_path(path)) {
        argp_failure(state, EXIT_CODE_USAGE, 0,
                     "--ignore %s: not a path: give one such as /domain/devices/disk, with [2] or /@name", path);
    }
    if (request->ignore_count == IGNORE_MAX) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--ignore %s: more than %u: a path covers what is below it", path,
                     IGNORE_MAX);
    }
    request->ignores[request->ignore_count++] = path;
}

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    struct request *request = state->input;

    switch (key) {
    case 'c':
        request->uri = argument;
        return 0;
    case KEY_IGNORE:
        take_ignore(state, request, argument);
        return 0;
    case KEY_SHOW:
        request->shows = true;
        return 0;
    case ARGP_KEY_ARG:
        if (request->source != NULL) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "%s: one domain at a time: %s was given already", argument,
                         request->source);
        }
        request->source = argument;
        return 0;
    case ARGP_KEY_END:
        if (request->source == NULL) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "no domain: give a FILE.xml, - or a NAME");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    .options = rows, .parser = read_option, .args_doc = "FILE.xml|-|NAME", .doc = documentation};

static void read_words(int argc, char *argv[], struct request *request)
{
    static char run[] = "loam domain run", show[] = "loam domain show";
    bool has_command = argc > 1 && (strcmp(argv[1], "run") == 0 || strcmp(argv[1], "show") == 0);
    bool wants_help = argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0);

    if (!has_command && !wants_help) {
        fprintf(stderr, "loam domain: %s: give run or show: see loam domain --help\n",
                argc > 1 ? argv[1] : "no command");
        exit(EXIT_CODE_USAGE);
    }
    argp_err_exit_status = EXIT_CODE_USAGE;
    *request = (struct request){.shows = has_command && strcmp(argv[1], "show") == 0};
    argv[has_command] = request->shows ? show : run;
    argp_parse(&argp, argc - has_command, argv + has_command, 0, NULL, request);
}

/* --- The document -------------------------------------------------------------------------------------------------- */

/* Up to XML_WALK_BYTES_MAX, and one more where there are more. NULL: told. */
static char *read_all(int fd, const char *name, size_t *count)
{
    char *bytes = malloc(XML_WALK_BYTES_MAX + 1);

    *count = 0;
    while (bytes != NULL && *count < XML_WALK_BYTES_MAX + 1) {
        ssize_t got = read(fd, bytes + *count, XML_WALK_BYTES_MAX + 1 - *count);

        if (got == 0) {
            return bytes;
        }
        if (got < 0 && errno != EINTR) {
            break;
        }
        *count += got > 0 ? (size_t)got : 0;
    }
    if (bytes == NULL || *count < XML_WALK_BYTES_MAX + 1) {
        fprintf(stderr, "loam domain: %s: %s\n", name, strerror(errno));
        free(bytes);
        bytes = NULL;
    }
    return bytes;
}

static int read_file(const char *path, char **bytes, size_t *count)
{
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

    if (fd < 0) {
        fprintf(stderr, "loam domain: %s: %s\n", path, strerror(errno));
        return EXIT_CODE_USAGE;
    }
    *bytes = read_all(fd, path, count);
    if (fd != STDIN_FILENO) {
        close(fd);
    }
    return *bytes != NULL ? EXIT_CODE_PASS : EXIT_CODE_USAGE;
}

static int ask_daemon(const char *uri, const char *name, char **bytes, size_t *count)
{
    struct loam_diag diag = {0};

    if (domain_fetch(uri, name, bytes, &diag) == LOAM_OK) {
        *count = strlen(*bytes);
        return EXIT_CODE_PASS;
    }
    fprintf(stderr, "loam domain: %s\n", diag.text);
    return diag.error == LOAM_ERROR_NOT_FOUND ? EXIT_CODE_USAGE : EXIT_CODE_HOST;
}

static bool is_file(const struct request *request)
{
    const char *end = strrchr(request->source, '.');

    return request->uri == NULL && (strcmp(request->source, "-") == 0 || strchr(request->source, '/') != NULL ||
                                    (end != NULL && strcmp(end, ".xml") == 0));
}

static void tell_refusals(const struct xml_walk_refusals *refusals)
{
    for (uint32_t i = 0; i < refusals->count && i < XML_WALK_REFUSAL_MAX; i++) {
        fprintf(stderr, "loam domain: %s\n", refusals->texts[i]);
    }
    if (refusals->count > XML_WALK_REFUSAL_MAX) {
        fprintf(stderr, "loam domain: and %" PRIu32 " more\n", refusals->count - XML_WALK_REFUSAL_MAX);
    }
}

static int read_domain(const struct request *request, struct domain *domain)
{
    static struct xml_walk_refusals refusals;
    char *bytes = NULL;
    size_t count = 0;
    int status = is_file(request) ? read_file(request->source, &bytes, &count)
                                  : ask_daemon(request->uri, request->source, &bytes, &count);

    if (status == EXIT_CODE_PASS &&
        !domain_read(bytes, count, request->ignores, request->ignore_count, domain, &refusals)) {
        tell_refusals(&refusals);
        status = EXIT_CODE_USAGE;
    }
    free(bytes);
    return status;
}

/* --- The run ------------------------------------------------------------------------------------------------------- */

/* The serial port is standard input and output of what is run. */
static bool connect_serial(const struct domain_serial *serial)
{
    const char *path = serial->kind == DOMAIN_SERIAL_FILE ? serial->path : "/dev/null";
    int flags = O_WRONLY | O_CREAT | O_NOCTTY | O_CLOEXEC | (serial->append ? O_APPEND : O_TRUNC), out, in;

    if (serial->kind == DOMAIN_SERIAL_TERMINAL) {
        return true;
    }
    out = open(path, flags, 0600);
    if (out < 0) {
        fprintf(stderr, "loam domain: %s: %s\n", path, strerror(errno));
        return false;
    }
    in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0) {
        fprintf(stderr, "loam domain: /dev/null: %s\n", strerror(errno));
        return false;
    }
    return true;
}

/* Become the loam beside this program or, in a build, in vmm/. Returns only if there is none. */
static int run(const struct domain *domain, struct domain_words *words)
{
    static const char *const places[] = {"loam", "../../vmm/loam"};
    char self[PATH_MAX] = {0}, path[PATH_MAX + 32];

    if (!connect_serial(&domain->serial)) {
        return EXIT_CODE_HOST;
    }
    if (readlink("/proc/self/exe", self, sizeof self - 1) > 0) {
        *(strrchr(self, '/') + 1) = '\0';
    }
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, sizeof path, "%s%s", self, places[i]);
        execv(path, words->argv);
        if (errno != ENOENT) {
            break;
        }
    }
    fprintf(stderr, "loam domain: %s: %s\n", path, strerror(errno));
    return EXIT_CODE_HOST;
}

int main(int argc, char *argv[])
{
    static struct domain domain;
    static struct domain_words words;
    static char line[DOMAIN_WORDS_SHELL_BYTES];
    struct request request;
    int status;

    standard_open(EXIT_CODE_HOST);
    read_words(argc, argv, &request);
    status = read_domain(&request, &domain);
    if (status != EXIT_CODE_PASS) {
        return status;
    }
    domain_words_make(&domain, &words);
    if (!request.shows) {
        return run(&domain, &words);
    }
    domain_words_shell(&words, &domain.serial, line);
    puts(line);
    return EXIT_CODE_PASS;
}
