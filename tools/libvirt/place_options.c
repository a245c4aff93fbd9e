// SPDX-License-Identifier: Apache-2.0
#include "tools/libvirt/place_options.h"

#include "tools/libvirt/connection.h"
#include "tools/libvirt/domain_xml.h"
#include "tools/libvirt/seconds.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_USAGE         2
#define TIMEOUT_MILLISECONDS 5000
#define VCPU_MAX             1024u
#define MIB                  (UINT64_C(1) << 20)

enum {
    KEY_NODE_STRICT = 0x100,
    KEY_VCPUS,
    KEY_TIMEOUT,
    KEY_CONNECT,
    KEY_JSON,
    KEY_RUN,
    KEY_NAME,
    KEY_KERNEL,
    KEY_INITRD,
    KEY_APPEND,
    KEY_EMULATOR,
};

static const struct argp_option rows[] = {
    {"memory", 'm', "SIZE", 0, "RAM of the guest, in whole MiB; K, M, G and T are binary", 1},
    {"pages", 'p', "KIND,...", 0,
     "what it may be made of, the best first: 2M, 1G or another size of huge pages, thp, 4K "
     "(default 2M)",
     1},
    {"vcpus", KEY_VCPUS, "N", 0, "virtual processors (default 1)", 1},
    {"node-strict", KEY_NODE_STRICT, NULL, 0, "all memory from one node, or none", 1},
    {"connect", KEY_CONNECT, "URI", 0, "a host's libvirtd, and once more for each other host (default as of loam host)",
     2},
    {"timeout", KEY_TIMEOUT, "SECONDS", 0, "how long to wait for answers (default 5)", 2},
    {"json", KEY_JSON, NULL, 0, "print one JSON object instead of text", 2},
    {"run", KEY_RUN, NULL, 0, "define the guest as a domain of the best host, and start it", 3},
    {"name", KEY_NAME, "NAME", 0, "of the domain", 3},
    {"kernel", KEY_KERNEL, "FILE", 0, "an ELF file (PVH, multiboot, 64-bit) or a Linux image; paths are the host's", 3},
    {"initrd", KEY_INITRD, "FILE", 0, "initial RAM disk for the kernel", 3},
    {"append", KEY_APPEND, "TEXT", 0, "command line for the kernel", 3},
    {"emulator", KEY_EMULATOR, "PATH", 0,
     "the emulator; without --run, ask for what it can (default: loam-emulator "
     "beside this program)",
     3},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void read_memory(struct argp_state *state, const char *text, struct choose_request *request)
{
    if (!words_parse_bytes(text, &request->memory_bytes)) {
        argp_failure(state, STATUS_USAGE, 0, "--memory %s: not a size: give a number with K, M, G or T, such as 256M",
                     text);
    }
    if (request->memory_bytes == 0 || request->memory_bytes % MIB != 0) {
        argp_failure(state, STATUS_USAGE, 0, "--memory %s: libvirt counts whole MiB, and 1M is the least", text);
    }
}

static void read_kinds(struct argp_state *state, const char *text, struct choose_request *request)
{
    struct loam_diag diag = {0};

    if (words_parse_kinds(text, request->kinds, &request->kind_count, &diag) != LOAM_OK) {
        argp_failure(state, STATUS_USAGE, 0, "--pages %s", diag.text);
    }
}

static void read_vcpus(struct argp_state *state, const char *text, struct choose_request *request)
{
    char *end;
    unsigned long number;

    errno = 0;
    number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0' || number < 1 || number > VCPU_MAX) {
        argp_failure(state, STATUS_USAGE, 0, "--vcpus %s: not a number from 1 to %u", text, VCPU_MAX);
    }
    request->vcpu_count = (uint32_t)number;
}

static void read_uri(struct argp_state *state, const char *uri, struct place_options *options)
{
    if (uri[0] == '\0') {
        argp_failure(state, STATUS_USAGE, 0, "--connect: an empty URI: give one such as qemu:///system");
    } else if (options->uri_count == PLACE_HOST_MAX) {
        argp_failure(state, STATUS_USAGE, 0, "more than %u hosts: ask fewer at once", PLACE_HOST_MAX);
    } else {
        options->uris[options->uri_count++] = uri;
    }
}

/* --- How they go together --------------------------------------------------------------------------------------- */

/* One kind at least can hold it anywhere. */
static void check_kinds(struct argp_state *state, const struct choose_request *request)
{
    for (uint32_t i = 0; i < request->kind_count; i++) {
        if (request->memory_bytes % request->kinds[i].page_bytes == 0) {
            return;
        }
    }
    argp_failure(state, STATUS_USAGE, 0, "--memory %s: no whole number of pages of %s: give a multiple of it",
                 words_amount(request->memory_bytes).text, words_kind(&request->kinds[0]).text);
}

static void check_run(struct argp_state *state, const struct place_options *options)
{
    const struct {
        const char *option, *value;
    } of_run[] = {
        {"name", options->name}, {"kernel", options->kernel}, {"initrd", options->initrd}, {"append", options->append}};

    for (size_t i = 0; i < sizeof of_run / sizeof of_run[0]; i++) {
        if (!options->run && of_run[i].value != NULL) {
            argp_failure(state, STATUS_USAGE, 0, "--%s goes with --run only", of_run[i].option);
        }
    }
    if (options->run && (options->name == NULL || options->kernel == NULL)) {
        argp_failure(state, STATUS_USAGE, 0, "--run: --name NAME and --kernel FILE are wanted");
    }
}

/* Before any host is asked: what cannot be written as XML. */
static void check_words(struct argp_state *state, const struct place_options *options)
{
    const struct domain_xml_wish wish = {.name = options->run ? options->name : "none",
                                         .emulator = options->emulator,
                                         .kernel = options->kernel,
                                         .initrd = options->initrd,
                                         .command_line = options->append,
                                         .memory_bytes = options->request.memory_bytes};
    struct loam_diag diag = {0};

    if (domain_xml_check(&wish, &diag) != LOAM_OK) {
        argp_failure(state, STATUS_USAGE, 0, "%s", diag.text);
    }
}

static void finish(struct argp_state *state, struct place_options *options)
{
    if (options->request.memory_bytes == 0) {
        argp_failure(state, STATUS_USAGE, 0, "--memory SIZE is wanted, such as 256M");
    }
    if (options->uri_count == 0) {
        options->uris[options->uri_count++] = connection_default_uri();
    }
    check_run(state, options);
    check_kinds(state, &options->request);
    check_words(state, options);
}

static error_t read_word_of_run(int key, char *argument, struct place_options *options)
{
    switch (key) {
    case KEY_RUN:
        options->run = true;
        return 0;
    case KEY_NAME:
        options->name = argument;
        return 0;
    case KEY_KERNEL:
        options->kernel = argument;
        return 0;
    case KEY_INITRD:
        options->initrd = argument;
        return 0;
    case KEY_APPEND:
        options->append = argument;
        return 0;
    case KEY_EMULATOR:
        options->emulator = argument;
        options->request.needs_emulator = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    struct place_options *options = state->input;

    switch (key) {
    case 'm':
        read_memory(state, argument, &options->request);
        return 0;
    case 'p':
        read_kinds(state, argument, &options->request);
        return 0;
    case KEY_VCPUS:
        read_vcpus(state, argument, &options->request);
        return 0;
    case KEY_NODE_STRICT:
        options->request.node_strict = true;
        return 0;
    case KEY_TIMEOUT:
        if (!seconds_parse(argument, &options->timeout_milliseconds)) {
            argp_failure(state, STATUS_USAGE, 0, SECONDS_WANTED, argument);
        }
        return 0;
    case KEY_CONNECT:
        read_uri(state, argument, options);
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_failure(state, STATUS_USAGE, 0, "%s: not an option: hosts are named by --connect", argument);
        return 0;
    case ARGP_KEY_END:
        finish(state, options);
        return 0;
    default:
        return read_word_of_run(key, argument, options);
    }
}

static const char documentation[] =
    "Which of several hosts can hold a guest, which is best and why, and why the others cannot. All are asked at once "
    "through their libvirtds; who does not answer in time is named, and holds up nobody.\v"
    "Examples:\n"
    "  loam place -m 4G -p 2M,thp --connect qemu+ssh://root@a/system \\\n"
    "             --connect qemu+ssh://root@b/system\n"
    "  loam place -m 1G --connect qemu:///system --run --name one \\\n"
    "             --kernel /srv/vmlinux --append console=ttyS0\n\n"
    "A host can hold it if a kind of page is there in full: free pages of a pool, on one node or (without "
    "--node-strict) "
    "on several together; or, for thp and 4K, free memory, with 1/256 more for page tables. The best host gives the "
    "kind "
    "that was named first; of these, one that gives all of it on one node; of these, one that is known to have KVM; of "
    "these, the one with the most memory of that kind left; of these, the one named first.\n\n"
    "--run defines a domain there and starts it; one that does not start is undefined again. Its memory comes from the "
    "node that was found, or with --node-strict from nowhere else. Passwords are never asked for.\n\n"
    "Exit status: 0 a host can hold it, or with --run runs it; 2 usage; 3 none can, or it did not start, or what was "
    "printed could not be written.";

void place_options_read(int argc, char *argv[], struct place_options *options)
{
    const struct argp argp = {.options = rows, .parser = read_option, .doc = documentation};

    *options = (struct place_options){
        .request = {.kinds = {{PAGE_SOURCE_POOL, UINT64_C(2) << 20}}, .kind_count = 1, .vcpu_count = 1},
        .timeout_milliseconds = TIMEOUT_MILLISECONDS};
    argp_err_exit_status = STATUS_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, options);
}
