// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/host_options.h"

#include "tools/libvirt/connection.h"
#include "tools/libvirt/seconds.h"

#include <argp.h>
#include <string.h>

#define STATUS_USAGE         2
#define TIMEOUT_MILLISECONDS 30000 /* a daemon that looks at emulators for the first time takes its time */

enum { KEY_CONNECT = 0x100, KEY_JSON, KEY_EMULATOR, KEY_TIMEOUT, KEY_GIVE_BACK };

static const struct argp_option rows[] = {
    {"connect", KEY_CONNECT, "URI", 0,
     "the host's libvirtd (default: LIBVIRT_DEFAULT_URI, else qemu:///system for "
     "root and qemu:///session for others)",
     0},
    {"emulator", KEY_EMULATOR, "PATH", 0,
     "ask about this emulator too, by its path there (default: loam-emulator beside "
     "this program)",
     0},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0,
     "how long to wait for the host (default 30); reserve waits for as long as it "
     "takes",
     0},
    {"json", KEY_JSON, NULL, 0, "print one JSON object instead of text", 0},
    {"give-back", KEY_GIVE_BACK, NULL, 0, "with reserve: undo it", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

struct reading {
    struct host_options *options;
    bool has_emulator_or_timeout;
};

/* `reserve`, then pools. */
static void read_word(struct argp_state *state, const char *word, struct host_options *options)
{
    struct reserve_request *request = &options->request;
    struct loam_diag diag = {0};

    if (!options->reserve) {
        if (strcmp(word, "reserve") != 0) {
            argp_failure(state, STATUS_USAGE, 0, "%s: not a command: give reserve, or none", word);
        }
        options->reserve = true;
        return;
    }
    if (request->count == RESERVE_POOL_MAX) {
        argp_failure(state, STATUS_USAGE, 0, "more than %u pools: give fewer", RESERVE_POOL_MAX);
    } else if (words_parse_pool(word, &request->wishes[request->count], &diag) != LOAM_OK) {
        argp_failure(state, STATUS_USAGE, 0, "%s", diag.text);
    } else {
        request->count++;
    }
}

static void check_reserve(struct argp_state *state, const struct reading *reading)
{
    const struct reserve_request *request = &reading->options->request;

    if (request->count == 0 && !request->give_back) {
        argp_failure(state, STATUS_USAGE, 0, "reserve: no pool is named: give SIZE:COUNT@NODE, such as 2M:512@0");
    }
    for (uint32_t i = 0; i < request->count; i++) {
        if (!request->wishes[i].has_count && !request->give_back) {
            argp_failure(state, STATUS_USAGE, 0, "%s: how many pages? give %s:COUNT",
                         words_pool(&request->wishes[i]).text, words_page(request->wishes[i].page_bytes).text);
        }
    }
    if (reading->has_emulator_or_timeout) {
        argp_failure(state, STATUS_USAGE, 0, "--emulator and --timeout go with loam host alone, not with reserve");
    }
}

static void finish(struct argp_state *state, const struct reading *reading)
{
    struct host_options *options = reading->options;

    if (options->uri == NULL) {
        options->uri = connection_default_uri();
    }
    options->request.uri = options->uri;
    if (options->reserve) {
        check_reserve(state, reading);
    } else if (options->request.give_back) {
        argp_failure(state, STATUS_USAGE, 0, "--give-back goes with reserve only: it undoes that");
    }
}

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    struct reading *reading = state->input;
    struct host_options *options = reading->options;

    switch (key) {
    case KEY_CONNECT:
        if (argument[0] == '\0') {
            argp_failure(state, STATUS_USAGE, 0, "--connect: an empty URI: give one such as qemu:///system");
        }
        options->uri = argument;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_EMULATOR:
        if (argument[0] != '/') {
            argp_failure(state, STATUS_USAGE, 0, "--emulator %s: a path on the host: give it from / on", argument);
        }
        options->emulator = argument;
        reading->has_emulator_or_timeout = true;
        return 0;
    case KEY_TIMEOUT:
        if (!seconds_parse(argument, &options->timeout_milliseconds)) {
            argp_failure(state, STATUS_USAGE, 0, SECONDS_WANTED, argument);
        }
        reading->has_emulator_or_timeout = true;
        return 0;
    case KEY_GIVE_BACK:
        options->request.give_back = true;
        return 0;
    case ARGP_KEY_ARG:
        read_word(state, argument, options);
        return 0;
    case ARGP_KEY_END:
        finish(state, reading);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const char documentation[] =
    "What a host has for guests, asked through its libvirtd: nodes, memory, pools of hugepages, KVM. Or set its pools "
    "of "
    "hugepages (reserve).\v"
    "Examples:\n"
    "  loam host\n"
    "  loam host --connect qemu+ssh://root@far.example/system --json\n"
    "  loam host reserve 2M:512@0           512 pages of 2 MiB on node 0\n"
    "  loam host reserve 2M:512 1G:2@1      two pools; the first on all nodes\n"
    "  loam host reserve --give-back        all of them as they were before\n"
    "  loam host reserve --give-back 1G@1   this one alone\n\n"
    "reserve sets a pool to so many pages, whatever it had; without @NODE, the host's as a whole, spread over its "
    "nodes. "
    "What it had is written down in $XDG_STATE_HOME/loam/reserved.json (or below ~/.local/state), by URI, until "
    "--give-back, which takes away what was added, and leaves what others added meanwhile.\n\n"
    "Passwords are never asked for. What libvirt does not tell is shown as unknown, and is null in JSON; of pools that "
    "is, always, how many free pages are promised to somebody.\n\n"
    "Exit status: 0 done; 2 usage; 3 the host cannot be asked, a pool has fewer pages than asked for, or what was "
    "printed could not be written.";

void host_options_read(int argc, char *argv[], struct host_options *options)
{
    const struct argp argp = {
        .options = rows, .parser = read_option, .args_doc = "\nreserve POOL...", .doc = documentation};
    struct reading reading = {.options = options};

    *options = (struct host_options){.timeout_milliseconds = TIMEOUT_MILLISECONDS};
    argp_err_exit_status = STATUS_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, &reading);
}
