// SPDX-License-Identifier: Apache-2.0
#include "vmm/options.h"

#include "vmm/sabotage.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_DEFAULT_BYTES    (256 * LOAM_MIB)
#define VCPU_MAX                1024u
#define ID_MAX                  (UINT32_MAX - 1) /* the last stands for none */
#define TIMEOUT_MAX_SECONDS     (365.0 * 24 * 3600)
#define TIMEOUT_DEFAULT_SECONDS 60u /* of the self-test, and so much more for each GiB: */
#define TIMEOUT_GIB_SECONDS     30u

enum {
    KEY_LOW_LIMIT = 0x100,
    KEY_KERNEL,
    KEY_INITRD,
    KEY_CMDLINE,
    KEY_NO_TUNE,
    KEY_RESTORE,
    KEY_CLOCK,
    KEY_CONTROL,
    KEY_ON_RESET,
    KEY_NO_SANDBOX,
    KEY_UID,
    KEY_GID,
    KEY_TRACE,
    KEY_GDB,
    KEY_JSON,
    KEY_POPULATE,
    KEY_LAZY,
    KEY_NODE,
    KEY_LOCK,
    KEY_POPULATE_THREADS,
    KEY_SABOTAGE,
};

/* The last row is the test build's. */
static struct argp_option rows[] = {
    {"memory", 'm', "SIZE", 0,
     "RAM of the guest; K, M, G and T are binary (default 256M). Or a part of it, and once more for each other part: "
     "size=SIZE with any of pages=KIND, node=LIST, policy=WHICH, share=on|off, populate=on|off, lock=on|off, and "
     "commas "
     "between",
     1},
    {"pages", 'p', "KIND", 0, "1G, 2M (hugetlb), thp, 4K, or auto: the largest the host can give (default auto)", 1},
    {"low-limit", KEY_LOW_LIMIT, "SIZE", 0, "where RAM below 4 GiB ends and the device hole begins (default 3G)", 1},
    {"populate", KEY_POPULATE, NULL, 0, "have every page in memory before the guest starts", 1},
    {"lazy", KEY_LAZY, NULL, 0, "leave thp and 4K pages to be found on first touch; the host may run out then", 1},
    {"node", KEY_NODE, "N", 0, "take all memory from NUMA node N", 1},
    {"lock", KEY_LOCK, NULL, 0, "populate the guest's memory and lock it, so that it is never swapped", 1},
    {"populate-threads", KEY_POPULATE_THREADS, "N", 0,
     "threads that have pages in memory (default: one a processor, at most one for each 64 MiB)", 1},
    {"vcpus", 'c', "N", 0, "virtual processors (default 1)", 2},
    {"kernel", KEY_KERNEL, "FILE", 0,
     "boot an ELF file (PVH, multiboot, 64-bit) or a Linux image instead of the self-test", 2},
    {"initrd", KEY_INITRD, "FILE", 0, "initial RAM disk for the kernel", 2},
    {"cmdline", KEY_CMDLINE, "TEXT", 0, "command line for the kernel", 2},
    {"no-tune", KEY_NO_TUNE, NULL, 0,
     "leave a Linux kernel's command line as it is; else it gets noxsave, and with more than one processor nopv, where "
     "KVM "
     "lacks what these leave out",
     2},
    {"restore", KEY_RESTORE, "DIR", 0, "go on with the guest that loam snapshot has written to DIR", 2},
    {"clock", KEY_CLOCK, "WHAT", 0,
     "the clocks of a guest that is restored: goes-on where they stood (the default), or jumps over the time since", 2},
    {"timeout", 't', "SECONDS", 0,
     "stop so long after the start, populating included; 0: never (default: never with --kernel or --gdb, else 60 and "
     "30 for each GiB)",
     3},
    {"on-reset", KEY_ON_RESET, "WHAT", 0,
     "a kernel that resets itself: fail (status 1; the default), pass (status 0), or restart on fresh memory, until it "
     "has reset itself 10 times in a row within a second of its start",
     3},
    {"uid", KEY_UID, "N", 0, "become user N, and nobody again, before the guest starts", 3},
    {"gid", KEY_GID, "N", 0, "become group N, and of no other group, before the guest starts", 3},
    {"no-sandbox", KEY_NO_SANDBOX, NULL, 0,
     "keep every right of this process while the guest runs: no filter of system calls, no Landlock", 3},
    {"trace", KEY_TRACE, "FILE", 0, "write a line of JSON for each exit of each virtual processor", 3},
    {"gdb", KEY_GDB, "PORT|PATH", 0,
     "wait for a debugger at a port of 127.0.0.1, or at a socket that is made at PATH, before the guest begins", 3},
    {"control", KEY_CONTROL, "PATH", 0,
     "make a socket at PATH, where loam snapshot and others who speak QMP tell the run what to do", 3},
    {"json", KEY_JSON, NULL, 0, "print one JSON object instead of text", 3},
    {NULL, 0, NULL, 0, NULL, 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

/* What is read into, and which options have been seen so far. */
struct reading {
    struct options *options;
    bool has_size; /* --memory SIZE was among them */
    bool seen[sizeof rows / sizeof rows[0]];
};

static size_t row_of(int key)
{
    size_t row = 0;

    while (rows[row].key != key && rows[row].name != NULL) {
        row++;
    }
    return row;
}

int options_exit_status(uint32_t guest_code)
{
    if (guest_code == 0) {
        return EXIT_CODE_PASS;
    }
    return guest_code >= EXIT_CODE_GUEST_FIRST && guest_code <= EXIT_CODE_GUEST_LAST ? (int)guest_code
                                                                                     : EXIT_CODE_GUEST_FAILED;
}

bool options_parse_bytes(const char *text, uint64_t *bytes)
{
    static const char suffixes[] = "KMGT";
    uint64_t unit = 1;
    char *end;

    *bytes = 0;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    if (*end != '\0') {
        const char *suffix = strchr(suffixes, *end);

        if (suffix == NULL || end[1] != '\0') {
            return false;
        }
        unit = UINT64_C(1) << 10 * (suffix - suffixes + 1);
    }
    return !__builtin_mul_overflow(number, unit, bytes);
}

static uint64_t read_bytes(struct argp_state *state, const char *option, const char *text)
{
    uint64_t bytes;

    if (!options_parse_bytes(text, &bytes)) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--%s %s: not a size: give a number with K, M, G or T, such as 256M",
                     option, text);
    }
    return bytes;
}

static uint32_t read_number(struct argp_state *state, const char *option, const char *text, uint32_t least,
                            uint32_t most)
{
    char *end;
    unsigned long number;

    errno = 0;
    number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0 || *end != '\0' || number < least || number > most) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--%s %s: not a number from %u to %u", option, text, least, most);
    }
    return (uint32_t)number;
}

static uint64_t read_milliseconds(struct argp_state *state, const char *text)
{
    char *end;
    double seconds = strtod(text, &end);

    if (end == text || *end != '\0' || !(seconds >= 0 && seconds <= TIMEOUT_MAX_SECONDS)) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--timeout %s: not a number of seconds from 0 to %.0f", text,
                     TIMEOUT_MAX_SECONDS);
    }
    return seconds > 0 && seconds < 0.001 ? 1 : (uint64_t)(seconds * 1000);
}

/* Standard output is the guest's or the report's. */
static const char *read_trace(struct argp_state *state, const char *text)
{
    if (strcmp(text, "-") == 0 || text[0] == '\0') {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--trace %s: give the name of a file, or of a FIFO that somebody reads",
                     text);
    }
    return text;
}

static bool parse_pages(const char *text, enum loam_pages *pages)
{
    for (*pages = LOAM_PAGES_AUTO; *pages < LOAM_PAGES_COUNT; ++*pages) {
        if (strcmp(text, loam_pages_name(*pages)) == 0) {
            return true;
        }
    }
    return false;
}

static enum loam_pages read_pages(struct argp_state *state, const char *text)
{
    enum loam_pages pages;

    if (parse_pages(text, &pages)) {
        return pages;
    }
    argp_failure(state, EXIT_CODE_USAGE, 0, "--pages %s: no such kind of page: give 1G, 2M, thp, 4K or auto", text);
    return LOAM_PAGES_AUTO;
}

static enum on_reset read_on_reset(struct argp_state *state, const char *text)
{
    static const char *const names[ON_RESET_COUNT] = {
        [ON_RESET_FAIL] = "fail", [ON_RESET_PASS] = "pass", [ON_RESET_RESTART] = "restart"};

    for (unsigned i = 0; i < ON_RESET_COUNT; i++) {
        if (strcmp(text, names[i]) == 0) {
            return i;
        }
    }
    argp_failure(state, EXIT_CODE_USAGE, 0, "--on-reset %s: give fail, pass or restart", text);
    return ON_RESET_FAIL;
}

static bool read_clock(struct argp_state *state, const char *text)
{
    bool jumps = strcmp(text, "jumps") == 0;

    if (!jumps && strcmp(text, "goes-on") != 0) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--clock %s: give goes-on or jumps", text);
    }
    return jumps;
}

/* --- Parts of memory -------------------------------------------------------------------------------------------- */

static const char *const part_keys[] = {"size", "pages", "node", "policy", "share", "populate", "lock", NULL};

enum part_key { PART_SIZE, PART_PAGES, PART_NODE, PART_POLICY, PART_SHARE, PART_POPULATE, PART_LOCK };

static bool read_node(const char **text, uint32_t *node)
{
    char *end;
    unsigned long number;

    if (**text < '0' || **text > '9') {
        return false;
    }
    number = strtoul(*text, &end, 10);
    *text = end;
    *node = (uint32_t)number;
    return number < LOAM_NODE_COUNT_MAX;
}

/* "0", "0-1", "0-1+3". */
static bool parse_nodes(const char *text, uint64_t *node_mask)
{
    uint32_t first, last;

    for (*node_mask = 0;; text++) {
        if (!read_node(&text, &first)) {
            return false;
        }
        last = first;
        if (*text == '-') {
            text++;
            if (!read_node(&text, &last) || last < first) {
                return false;
            }
        }
        *node_mask |= UINT64_MAX << first & UINT64_MAX >> (LOAM_NODE_COUNT_MAX - 1 - last);
        if (*text != '+') {
            return *text == '\0';
        }
    }
}

static bool parse_switch(const char *text, bool *on)
{
    *on = strcmp(text, "on") == 0;
    return *on || strcmp(text, "off") == 0;
}

static bool parse_policy(const char *text, enum loam_placement *placement)
{
    for (*placement = LOAM_PLACEMENT_STRICT; *placement < LOAM_PLACEMENT_COUNT; ++*placement) {
        if (strcmp(text, loam_placement_name(*placement)) == 0) {
            return true;
        }
    }
    return false;
}

/* Read one key=value into *part; NULL: done, else what would do. */
static const char *read_part_key(enum part_key key, const char *value, struct loam_backing_request *part)
{
    bool on = false;

    switch (key) {
    case PART_SIZE:
        return options_parse_bytes(value, &part->bytes) ? NULL : "give size= a number with K, M, G or T, such as 256M";
    case PART_PAGES:
        return parse_pages(value, &part->pages) ? NULL : "give pages= 1G, 2M, thp, 4K or auto";
    case PART_NODE:
        return parse_nodes(value, &part->node_mask) ? NULL : "give node= numbers from 0 to 63, such as 0, 0-1 or 0+2";
    case PART_POLICY:
        return parse_policy(value, &part->placement) ? NULL : "give policy= strict, preferred or interleave";
    case PART_SHARE:
        if (!parse_switch(value, &on)) {
            return "give share= on or off";
        }
        part->sharing = on ? LOAM_SHARING_SHARED : LOAM_SHARING_PRIVATE;
        return NULL;
    case PART_POPULATE:
        if (!parse_switch(value, &on)) {
            return "give populate= on or off";
        }
        part->commit = on ? LOAM_COMMIT_POPULATE : LOAM_COMMIT_LAZY;
        return NULL;
    case PART_LOCK:
        return parse_switch(value, &part->lock) ? NULL : "give lock= on or off";
    default:
        return "the keys are size, pages, node, policy, share, populate and lock";
    }
}

/* What does not go together within a part; NULL: nothing. A node without a policy is meant strictly. */
static const char *finish_part(struct loam_backing_request *part)
{
    if (part->bytes == 0) {
        return "give it a size, such as size=1G";
    }
    if (part->node_mask == 0 && part->placement != LOAM_PLACEMENT_ANY) {
        return "policy= goes with node= only: give both";
    }
    if (part->node_mask != 0 && part->placement == LOAM_PLACEMENT_ANY) {
        part->placement = LOAM_PLACEMENT_STRICT;
    }
    if (part->placement == LOAM_PLACEMENT_PREFERRED && (part->node_mask & (part->node_mask - 1)) != 0) {
        return "policy=preferred is for one node: give one";
    }
    if (part->lock && part->commit == LOAM_COMMIT_LAZY) {
        return "lock=on and populate=off contradict each other (what is locked is populated): give one of them";
    }
    return NULL;
}

/* The fault of the text, whose copy getsubopt(3) cuts in pieces; NULL: none. */
static const char *read_part_text(char *copy, struct loam_backing_request *part)
{
    const char *fault = NULL;
    uint32_t seen = 0; /* a bit a key */
    char *value;

    while (*copy != '\0' && fault == NULL) {
        int key = getsubopt(&copy, (char *const *)part_keys, &value);
        bool again = key >= 0 && (seen >> key & 1) != 0;

        seen |= key >= 0 ? 1u << key : 0;
        fault = again ? "a key is there twice: give it once"
                      : read_part_key((enum part_key)key, key >= 0 && value != NULL ? value : "", part);
    }
    return fault != NULL ? fault : finish_part(part);
}

static void read_part(struct argp_state *state, const char *text, struct loam_memory_request *memory)
{
    struct loam_backing_request *part = &memory->parts[memory->part_count];
    char *copy;
    const char *fault;

    if (memory->part_count == LOAM_MEMORY_PART_MAX) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--memory %s: more than %d parts: give fewer", text,
                     LOAM_MEMORY_PART_MAX);
    }
    copy = strdup(text);
    fault = copy != NULL ? read_part_text(copy, part) : "no memory is left to read it";
    free(copy);
    if (fault != NULL) {
        argp_failure(state, EXIT_CODE_USAGE, 0, "--memory %s: %s", text, fault);
    }
    memory->part_count++;
}

/* Parts say for themselves what an ordinary request says by options of its own. */
static void finish_parts(struct argp_state *state, const struct reading *reading)
{
    static const int others[] = {'p', KEY_POPULATE, KEY_LAZY, KEY_NODE, KEY_LOCK};
    struct loam_memory_request *memory = &reading->options->memory;

    if (memory->part_count == 0) {
        return;
    }
    if (reading->has_size) {
        argp_failure(state, EXIT_CODE_USAGE, 0,
                     "--memory SIZE and --memory size=SIZE,... contradict each other: give all RAM in parts, or none");
    }
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        if (reading->seen[row_of(others[i])]) {
            argp_failure(state, EXIT_CODE_USAGE, 0,
                         "--%s and --memory size=SIZE,... contradict each other: each part says it for itself",
                         rows[row_of(others[i])].name);
        }
    }
    memory->bytes = 0;
    for (uint32_t i = 0; i < memory->part_count; i++) {
        if (__builtin_add_overflow(memory->bytes, memory->parts[i].bytes, &memory->bytes)) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "--memory: the parts are more than 64 bits of bytes: give less");
        }
    }
}

/* --- Options ---------------------------------------------------------------------------------------------------- */

static error_t read_memory_option(int key, char *argument, struct argp_state *state, struct reading *reading)
{
    struct loam_memory_request *memory = &reading->options->memory;

    switch (key) {
    case 'm':
        if (strchr(argument, '=') != NULL) {
            read_part(state, argument, memory);
        } else {
            memory->bytes = read_bytes(state, "memory", argument);
            reading->has_size = true;
        }
        return 0;
    case 'p':
        memory->pages = read_pages(state, argument);
        return 0;
    case KEY_LOW_LIMIT:
        memory->low_limit_bytes = read_bytes(state, "low-limit", argument);
        if (memory->low_limit_bytes == 0) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "--low-limit %s: RAM has to begin at 0: give 2M or more", argument);
        }
        return 0;
    case KEY_POPULATE:
        memory->commit = LOAM_COMMIT_POPULATE;
        return 0;
    case KEY_LAZY:
        memory->commit = LOAM_COMMIT_LAZY;
        return 0;
    case KEY_NODE:
        memory->placement = LOAM_PLACEMENT_STRICT;
        memory->node_mask = UINT64_C(1) << read_number(state, "node", argument, 0, LOAM_NODE_COUNT_MAX - 1);
        return 0;
    case KEY_LOCK:
        memory->lock = true;
        return 0;
    case KEY_POPULATE_THREADS:
        memory->thread_count = read_number(state, "populate-threads", argument, 1, LOAM_BACKING_THREAD_MAX);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- How options go together ------------------------------------------------------------------------------------ */

/* Pairs that are refused: the first goes only with the second, or never. All others are explained in the help. */
static const struct rule {
    int option, other;
    bool needs;
    const char *why;
} rules[] = {
    {KEY_POPULATE, KEY_LAZY, false, "all pages at once, and none before it is touched"},
    {KEY_LOCK, KEY_LAZY, false, "what is locked is populated"},
    {KEY_INITRD, KEY_KERNEL, true, "it is loaded beside one"},
    {KEY_CMDLINE, KEY_KERNEL, true, "it is for one"},
    {KEY_NO_TUNE, KEY_KERNEL, true, "it is of its command line"},
    {KEY_ON_RESET, KEY_KERNEL, true, "the self-test never resets itself"},
    {KEY_RESTORE, KEY_KERNEL, false, "a guest goes on, or begins"},
    {KEY_RESTORE, 'm', false, "it has the memory that it had"},
    {KEY_RESTORE, KEY_LOW_LIMIT, false, "its memory lies where it lay"},
    {KEY_RESTORE, 'c', false, "it has as many as it had"},
    {KEY_CLOCK, KEY_RESTORE, true, "it is for a guest that was not there for a while"},
};

static void check_rules(struct argp_state *state, const struct reading *reading)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *rule = &rules[i];
        const char *option = rows[row_of(rule->option)].name, *other = rows[row_of(rule->other)].name;

        if (!reading->seen[row_of(rule->option)] || reading->seen[row_of(rule->other)] == rule->needs) {
            continue;
        }
        if (rule->needs) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "--%s goes with --%s %s only: %s", option, other,
                         rows[row_of(rule->other)].arg, rule->why);
        } else {
            argp_failure(state, EXIT_CODE_USAGE, 0, "--%s and --%s contradict each other (%s): give one of them",
                         option, other, rule->why);
        }
    }
}

/* A group of root's is not left to who is root no more. */
static void finish_privilege(struct privilege *privilege)
{
    if (privilege->has_uid && !privilege->has_gid) {
        privilege->has_gid = true;
        privilege->gid = privilege->uid;
    }
}

static void finish_options(struct argp_state *state, const struct reading *reading)
{
    struct options *options = reading->options;

    check_rules(state, reading);
    if (options->gdb != NULL && options->on_reset == ON_RESET_RESTART) {
        argp_failure(state, EXIT_CODE_USAGE, 0,
                     "--gdb and --on-reset restart contradict each other (the debugger would lose its guest): give one "
                     "of them");
    }
    finish_parts(state, reading);
    finish_privilege(&options->privilege);
    if (options->timeout_milliseconds == UINT64_MAX) {
        uint64_t gib = options->memory.bytes / LOAM_GIB;

        options->timeout_milliseconds = options->kernel != NULL || options->restore != NULL || options->gdb != NULL
                                            ? 0
                                            : (TIMEOUT_DEFAULT_SECONDS + TIMEOUT_GIB_SECONDS * gib) * 1000;
    }
}

/* What the process gives up, or keeps. */
static bool read_right(int key, char *argument, struct argp_state *state, struct options *options)
{
    switch (key) {
    case KEY_UID:
        options->privilege.has_uid = true;
        options->privilege.uid = read_number(state, "uid", argument, 0, ID_MAX);
        return true;
    case KEY_GID:
        options->privilege.has_gid = true;
        options->privilege.gid = read_number(state, "gid", argument, 0, ID_MAX);
        return true;
    case KEY_NO_SANDBOX:
        options->without_sandbox = true;
        return true;
    default:
        return false;
    }
}

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    struct reading *reading = state->input;
    struct options *options = reading->options;

    reading->seen[row_of(key)] = true;
    switch (key) {
    case 'c':
        options->vcpu_count = read_number(state, "vcpus", argument, 1, VCPU_MAX);
        return 0;
    case KEY_KERNEL:
        options->kernel = argument;
        return 0;
    case KEY_INITRD:
        options->initrd = argument;
        return 0;
    case KEY_CMDLINE:
        options->command_line = argument;
        return 0;
    case KEY_NO_TUNE:
        options->without_tune = true;
        return 0;
    case 't':
        options->timeout_milliseconds = read_milliseconds(state, argument);
        return 0;
    case KEY_ON_RESET:
        options->on_reset = read_on_reset(state, argument);
        return 0;
    case KEY_TRACE:
        options->trace = read_trace(state, argument);
        return 0;
    case KEY_RESTORE:
        options->restore = argument;
        return 0;
    case KEY_CLOCK:
        options->clock_jumps = read_clock(state, argument);
        return 0;
    case KEY_CONTROL:
        options->control = argument;
        return 0;
    case KEY_GDB:
        options->gdb = argument;
        return 0;
    case KEY_JSON:
        options->json = true;
        return 0;
    case KEY_SABOTAGE:
        if (!sabotage_select(argument)) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "--sabotage %s: there is none of that name", argument);
        }
        return 0;
    case ARGP_KEY_ARG:
        argp_failure(state, EXIT_CODE_USAGE, 0, "%s: not an option", argument);
        return 0;
    case ARGP_KEY_END:
        finish_options(state, reading);
        return 0;
    default:
        return read_right(key, argument, state, options) ? 0 : read_memory_option(key, argument, state, reading);
    }
}

static const char documentation[] =
    "Without --kernel the guest is Loam's self-test, which attests from the inside that every promise about its memory "
    "is kept.\v"
    "Examples:\n"
    "  loam run                                    the self-test on 256 MiB\n"
    "  loam run -m 6G -p 2M                        on 6 GiB of 2 MiB hugepages, around the hole\n"
    "  loam run -m size=1G,pages=1G,node=0 -m size=256M,pages=4K\n"
    "                                              on both kinds of pages, the large ones from node 0\n"
    "  loam plan -m 64G -p 1G                      what that would take, and what falls short\n"
    "  loam run --kernel vmlinux --cmdline 'console=ttyS0' -m 1G\n"
    "  loam run -m 24M --low-limit 12M --kernel /boot/memtest86+x64.bin \\\n"
    "           --cmdline 'console=ttyS0,115200 nosmp nopause nobench'\n\n"
    "With --kernel, standard output is the guest's serial console, and on a terminal Ctrl-a x leaves it, Ctrl-a p "
    "pauses the guest and lets it go on, Ctrl-a h lists the keys.\n\n"
    "How options go together:\n"
    "  --lock and --populate: --lock populates anyway\n"
    "  --lazy and --pages: hugepages are reserved all the same\n"
    "  --lazy and --node: touched thp and 4K pages come from the node\n"
    "  --lazy and --populate-threads: they are for hugepages that are populated all the same\n"
    "  --node and --pages: hugepages are populated, to come from the node\n"
    "  --low-limit and --memory: RAM beyond the limit begins at 4 GiB\n"
    "  --json and --kernel: the console goes to standard error, and into the object\n"
    "  --timeout and --populate: populating counts, and may be all there is time for\n"
    "  --timeout and --on-reset: it counts all lives of the guest together\n"
    "  --timeout and --gdb: it counts while the guest waits for the debugger, too\n"
    "  --gdb and --on-reset: restart would take the debugger's guest away, and is refused\n"
    "  --timeout and Ctrl-a p: it counts while the guest is paused\n"
    "  --timeout and --memory: without it, more memory is given more time\n"
    "  --no-tune and --cmdline: what is given there already is not added anyway\n"
    "  --trace and --timeout: the guest waits for a disk that is too slow, and the time counts\n"
    "  --uid and --gid: without --gid the group has the user's number\n"
    "  --restore and --populate: all memory is brought before the guest goes on\n"
    "  --restore and --pages: they may be others than it had\n"
    "  --vcpus and --kernel: ACPI and an MP table tell a kernel of them\n"
    "  --initrd and --memory: the file is in memory beside the guest's, and planned for\n"
    "Parts of memory: --memory size=SIZE,..., once for each, up to 8, in place of --memory SIZE, --pages, --node, "
    "--populate, --lazy and --lock. LIST is 0, 0-1 or 0+2; WHICH is strict (from these nodes alone; the default), "
    "preferred (one node, others when it has no more) or interleave (in turn). share: a memfd, or private memory. "
    "populate=off is --lazy. The largest pages lie lowest; what does not fit below the low limit goes on from 4 "
    "GiB.\n\n"
    "Of an option that is given twice the last stands, but for parts. plan looks at those of memory, at --vcpus, and "
    "how large each "
    "FILE is.\n\n"
    "Exit status: 0 pass, or a kernel that turned itself off; 1 the guest failed: a check, a reset of its own, a "
    "panic, or a code without a status of its own; 2 usage; 3 the host lacks something, or what was printed could not "
    "be written; 4 KVM or the guest broke; 5 to 123 the code that the guest of --kernel wrote to the exit port 0xf4 "
    "or 0x501, if it is one of these (others, but 0, are status 1); 128+N stopped by signal N.";

void options_read(int argc, char *argv[], struct options *options)
{
    const struct argp argp = {.options = rows, .parser = read_option, .doc = documentation};
    struct reading reading = {.options = options};

    *options = (struct options){.memory = {.bytes = MEMORY_DEFAULT_BYTES},
                                .vcpu_count = 1,
                                .command_line = "",
                                .timeout_milliseconds = UINT64_MAX};
    if (sabotage_available()) {
        rows[sizeof rows / sizeof rows[0] - 2] =
            (struct argp_option){"sabotage", KEY_SABOTAGE, "NAME", 0, "break a promise (test build)", 4};
    }
    argp_err_exit_status = EXIT_CODE_USAGE;
    argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &reading);
}
