// SPDX-License-Identifier: Apache-2.0
/* `loam host` against libvirt's own driver of hosts that are none, and against daemons of the test's own. */
#include "tests/libvirt/command.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char home[] = "/tmp/loam-home.XXXXXX";

static void make_home(void)
{
    cr_assert_not_null(mkdtemp(home));
    setenv("HOME", home, 1);
    setenv("XDG_STATE_HOME", home, 1);
    unsetenv("LIBVIRT_DEFAULT_URI");
}

static void remove_home(void)
{
    char folder[64];

    snprintf(folder, sizeof folder, "%s/loam", home);
    rmdir(folder);
    cr_expect_eq(rmdir(home), 0, "something is left in %s", home);
}

TestSuite(host, .init = make_home, .fini = remove_home);

/* As command_need; a case that is skipped has no end of its own. */
static void need(struct libvirtd *daemon, enum libvirtd_kind kind, bool listens_on_tcp)
{
    if (libvirtd_lack(kind) != NULL) {
        remove_home();
    }
    command_need(daemon, kind, listens_on_tcp);
}

static const json_t *at(const json_t *json, const char *key)
{
    return json_object_get(json, key);
}

static const char *text_at(const json_t *json, const char *key)
{
    const char *text = json_string_value(at(json, key));

    return text == NULL ? "" : text;
}

static const json_t *pool_of(const json_t *host, size_t node, const char *pages)
{
    const json_t *pools = at(json_array_get(at(host, "nodes"), node), "pools");

    for (size_t i = 0; i < json_array_size(pools); i++) {
        if (strcmp(text_at(json_array_get(pools, i), "pages"), pages) == 0) {
            return json_array_get(pools, i);
        }
    }
    return NULL;
}

/* --- A host that is none ---------------------------------------------------------------------------------------- */

Test(host, a_host_that_is_none)
{
    struct process process;
    const json_t *node;
    json_t *host;

    cr_expect_eq(command_run(&process, command_host(), "--connect", "test:///default", "--json", NULL), 0);
    cr_expect_str_eq(process.err, "");
    host = command_json(&process);
    cr_expect_str_eq(text_at(host, "uri"), "test:///default");
    cr_expect_str_eq(text_at(at(host, "hypervisor"), "type"), "TEST");
    cr_expect_str_eq(text_at(at(host, "cpu"), "arch"), "i686");
    cr_expect_eq(json_integer_value(at(at(host, "cpu"), "count")), 16);
    cr_expect_eq(json_integer_value(at(at(host, "memory"), "total_bytes")), INT64_C(3) << 30);
    cr_assert_eq(json_array_size(at(host, "nodes")), 2);
    node = json_array_get(at(host, "nodes"), 1);
    cr_expect_eq(json_integer_value(at(node, "total_bytes")), INT64_C(4) << 30);
    cr_expect_eq(json_integer_value(at(node, "free_bytes")), INT64_C(4) << 20);
    cr_expect_eq(json_integer_value(at(pool_of(host, 0, "2M"), "page_bytes")), 2 << 20);
    cr_expect_gt(json_integer_value(at(pool_of(host, 0, "2M"), "free")), 0);
    cr_expect_gt(json_integer_value(at(pool_of(host, 0, "1G"), "free")),
                 json_integer_value(at(pool_of(host, 0, "2M"), "free")), "each has a figure of its own");
    cr_expect(json_is_null(at(pool_of(host, 0, "2M"), "reserved")), "nobody said that");
    cr_expect(json_is_null(at(at(host, "kvm"), "available")), "nor that");
    cr_expect_gt(json_array_size(at(host, "not_said")), 0);
    cr_expect_eq(json_integer_value(at(host, "exit")), 0);
    json_decref(host);
    process_end(&process);
}

Test(host, a_table_for_people)
{
    struct process process;

    setenv("LIBVIRT_DEFAULT_URI", "test:///default", 1);
    cr_expect_eq(command_run(&process, command_host(), NULL), 0);
    cr_expect_not_null(strstr(process.out, "test:///default, TEST"), "%s", process.out);
    cr_expect_not_null(strstr(process.out, "\nkvm      unknown\n"), "%s", process.out);
    cr_expect_not_null(strstr(process.out, "\n1          8        4 GiB       4 MiB   8K       524288 "), "%s",
                       process.out);
    cr_expect_not_null(strstr(process.out, "not said: memory statistics: this function is not supported"), "%s",
                       process.out);
    process_end(&process);
}

/* As people call it. */
Test(host, loam_leads_there)
{
    struct process process;

    cr_expect_eq(command_run(&process, command_loam(), "host", "--connect", "test:///default", NULL), 0, "%s",
                 process.err);
    cr_expect_eq(strncmp(process.out, "host     ", 9), 0, "%s", process.out);
    process_end(&process);
}

/* --- Mistakes --------------------------------------------------------------------------------------------------- */

struct mistake {
    char words[4][64];
    char says[64];
};

ParameterizedTestParameters(host, a_mistake_gets_one_line)
{
    static struct mistake mistakes[] = {
        {{"fly"}, "fly: not a command"},
        {{"--connect="}, "--connect: an empty URI"},
        {{"reserve"}, "no pool is named"},
        {{"reserve", "2M@0"}, "2M@0: how many pages? give 2M:COUNT"},
        {{"reserve", "2M:1\033[2J"}, "2M:1\\x1b[2J: not a pool"},
        {{"reserve", "4K:5@0"}, "4K:5@0: not a pool"},
        {{"--give-back"}, "--give-back goes with reserve only"},
        {{"--timeout", "0"}, "--timeout 0: not a number of seconds"},
        {{"--timeout", "soon"}, "--timeout soon: not a number"},
        {{"reserve", "2M:5", "--timeout=5"}, "go with loam host alone"},
        {{"--emulator", "loam-emulator"}, "a path on the host"},
    };

    return cr_make_param_array(struct mistake, mistakes, sizeof mistakes / sizeof mistakes[0]);
}

ParameterizedTest(struct mistake *mistake, host, a_mistake_gets_one_line)
{
    struct process process;
    char *words[4] = {NULL};

    for (unsigned i = 0; i < 4 && mistake->words[i][0] != '\0'; i++) {
        words[i] = mistake->words[i];
    }
    cr_expect_eq(command_run(&process, command_host(), words[0], words[1], words[2], words[3], NULL), 2);
    command_expect_line(&process, mistake->says);
    cr_expect_str_eq(process.out, "");
    process_end(&process);
}

Test(host, a_mistake_is_an_object_too)
{
    struct process process;
    json_t *json;

    cr_expect_eq(command_run(&process, command_host(), "--json", "reserve", "2M:\xff", NULL), 2);
    json = command_json(&process);
    cr_expect_eq(strncmp(text_at(json, "error"), "2M:\xef\xbf\xbd: not a pool", 18), 0, "%s", process.out);
    cr_expect_eq(json_integer_value(at(json, "exit")), 2);
    json_decref(json);
    process_end(&process);
    cr_expect_eq(command_run(&process, command_host(), "--json", "--bogus", NULL), 2);
    json = command_json(&process);
    cr_expect_str_eq(text_at(json, "error"), "unrecognized option '--bogus'");
    json_decref(json);
    process_end(&process);
}

Test(host, what_cannot_be_written_is_said)
{
    const int descriptors[3] = {-1, open("/dev/full", O_WRONLY | O_CLOEXEC), -1};
    char *argv[] = {command_host(), "--connect", "test:///default", NULL};
    struct process process;

    cr_assert(process_start_with(&process, argv, descriptors, COMMAND_MILLISECONDS));
    cr_expect_eq(process_wait(&process), 3);
    cr_expect_not_null(strstr(process.err, "could not be written"), "%s", process.err);
    process_end(&process);
}

/* --- Nobody there ----------------------------------------------------------------------------------------------- */

Test(host, nobody_there)
{
    char *const uris[] = {"qemu+unix:///system?socket=/nonexistent", "no such\nscheme\033:///x", "%%%", "::::"};
    struct process process;

    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        json_t *json;

        cr_expect_eq(command_run(&process, command_host(), "--connect", uris[i], NULL), 3, "%s", uris[i]);
        command_expect_line(&process, "loam host: ");
        cr_expect_null(strchr(process.err, '\033'));
        process_end(&process);
        cr_expect_eq(command_run(&process, command_host(), "--json", "--connect", uris[i], NULL), 3, "%s", uris[i]);
        json = command_json(&process);
        cr_expect_str_eq(text_at(json, "uri"), uris[i]);
        cr_expect_neq(text_at(json, "error")[0], '\0');
        json_decref(json);
        process_end(&process);
    }
}

Test(host, a_daemon_that_says_nothing)
{
    char path[64], uri[128];
    int silent = command_silent_socket(path);
    struct process process;

    snprintf(uri, sizeof uri, "qemu+unix:///system?socket=%s", path);
    cr_expect_eq(command_run(&process, command_host(), "--connect", uri, "--timeout", "0.2", NULL), 3);
    command_expect_line(&process, "no answer within 0.2 s");
    process_end(&process);
    close(silent);
    unlink(path);
}

/* --- Real daemons ----------------------------------------------------------------------------------------------- */

static uint64_t sysfs(const char *path)
{
    uint64_t figure = UINT64_MAX;
    FILE *file = fopen(path, "r");

    if (file != NULL) {
        if (fscanf(file, "%" SCNu64, &figure) != 1) {
            figure = UINT64_MAX;
        }
        fclose(file);
    }
    return figure;
}

static uint64_t pool_total(void)
{
    return sysfs("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages");
}

static void check_daemon(const char *uri)
{
    struct process process;
    uint64_t total = pool_total();
    json_t *host;

    cr_expect_eq(command_run(&process, command_host(), "--connect", uri, "--json", NULL), 0, "%s", process.err);
    host = command_json(&process);
    cr_expect_str_eq(text_at(at(host, "hypervisor"), "type"), "QEMU");
    cr_expect_neq(text_at(host, "hostname")[0], '\0');
    cr_expect_gt(json_integer_value(at(at(host, "memory"), "total_bytes")), 0);
    cr_expect_gt(json_integer_value(at(json_array_get(at(host, "nodes"), 0), "free_bytes")), 0);
    if (total != UINT64_MAX && pool_of(host, 0, "2M") != NULL) {
        cr_expect_eq((uint64_t)json_integer_value(at(pool_of(host, 0, "2M"), "total")), total);
        cr_expect(json_is_integer(at(pool_of(host, 0, "2M"), "free")));
    }
    json_decref(host);
    process_end(&process);
}

Test(host, a_session_daemon)
{
    struct libvirtd daemon;

    need(&daemon, LIBVIRTD_SESSION, true);
    check_daemon(daemon.uri);
    check_daemon(daemon.tcp_uri);
    cr_expect(libvirtd_end(&daemon));
}

Test(host, a_system_daemon)
{
    struct libvirtd daemon;

    need(&daemon, LIBVIRTD_SYSTEM, true);
    check_daemon(daemon.uri);
    check_daemon(daemon.tcp_uri);
    cr_expect(libvirtd_end(&daemon));
}

/* An emulator that is named is asked about, beside libvirt's own. */
Test(host, an_emulator_that_is_named)
{
    struct process process;
    struct libvirtd daemon;
    const json_t *emulators, *named;
    json_t *host;

    need(&daemon, LIBVIRTD_SESSION, false);
    cr_expect_eq(
        command_run(&process, command_host(), "--connect", daemon.uri, "--emulator=/nonexistent", "--json", NULL), 0);
    host = command_json(&process);
    emulators = at(at(host, "kvm"), "emulators");
    cr_expect_eq(json_array_size(emulators), 2);
    named = json_array_get(emulators, 1);
    cr_expect_str_eq(text_at(named, "asked"), "/nonexistent");
    cr_expect_not_null(strstr(text_at(named, "error"), "/nonexistent"), "%s", process.out);
    cr_expect(json_is_null(at(named, "vcpus_max")));
    json_decref(host);
    process_end(&process);
    cr_expect(libvirtd_end(&daemon));
}

/* --- Pools ------------------------------------------------------------------------------------------------------ */

static bool is_recorded(void)
{
    char path[96];

    snprintf(path, sizeof path, "%s/loam/reserved.json", home);
    return access(path, F_OK) == 0;
}

Test(host, a_driver_that_sets_no_pools)
{
    struct process process;
    json_t *json;

    cr_expect_eq(
        command_run(&process, command_host(), "reserve", "2M:5@0", "--connect", "test:///default", "--json", NULL), 3);
    json = command_json(&process);
    cr_assert_eq(json_array_size(at(json, "pools")), 1);
    cr_expect_eq(json_integer_value(at(json_array_get(at(json, "pools"), 0), "asked")), 5);
    cr_expect_eq(json_integer_value(at(json_array_get(at(json, "pools"), 0), "has")), 0);
    cr_expect_not_null(strstr(process.out, "not supported"));
    cr_expect_not(is_recorded(), "nothing is to be given back");
    json_decref(json);
    process_end(&process);
    cr_expect_eq(command_run(&process, command_host(), "reserve", "--give-back", "--connect=test:///default", NULL), 0);
    cr_expect_str_eq(process.out, "nothing is to be given back\n");
    process_end(&process);
}

Test(host, pools_that_are_not_there)
{
    static const char *const words[][3] = {{"2M:5@9", NULL, "there is no node 9"},
                                           {"64K:5@0", NULL, "no pages of that size"},
                                           {"2M:5@0", "2M:6", "the same pool"}};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct process process;

        cr_expect_eq(command_run(&process, command_host(), "reserve", "--connect=test:///default", words[i][0],
                                 words[i][1], NULL),
                     3, "%s", words[i][0]);
        command_expect_line(&process, words[i][2]);
        cr_expect_not(is_recorded());
        process_end(&process);
    }
}

/* An ordinary user's daemon may not. */
Test(host, who_may_not_set_pools_is_told)
{
    uint64_t before = pool_total();
    struct process process;
    struct libvirtd daemon;
    char word[48];

    need(&daemon, LIBVIRTD_SESSION, false);
    if (before == UINT64_MAX) {
        (void)libvirtd_end(&daemon);
        remove_home();
        cr_skip_test("no pool of 2 MiB pages on node 0");
    }
    snprintf(word, sizeof word, "2M:%" PRIu64 "@0", before + 1);
    cr_expect_eq(command_run(&process, command_host(), "reserve", word, "--connect", daemon.uri, NULL), 3);
    cr_expect_not_null(strstr(process.out, "1 too few: "), "%s", process.out);
    cr_expect_not_null(strstr(process.out, "Permission denied"), "%s", process.out);
    cr_expect_not(is_recorded());
    cr_expect_eq(pool_total(), before);
    process_end(&process);
    cr_expect(libvirtd_end(&daemon));
}

#define NODE_POOL "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"

/* A system daemon, and a pool that it may set; how many pages that has. */
static uint64_t need_pool(struct libvirtd *daemon)
{
    if (pool_total() == UINT64_MAX || access(NODE_POOL, W_OK) != 0) {
        remove_home();
        cr_skip_test("no pool of 2 MiB pages on node 0 that could be set");
    }
    need(daemon, LIBVIRTD_SYSTEM, false);
    return pool_total();
}

/* However the test went. */
static void restore_pool(uint64_t count)
{
    FILE *file = pool_total() == count ? NULL : fopen(NODE_POOL, "w");

    if (file != NULL) {
        fprintf(file, "%" PRIu64, count);
        fclose(file);
    }
}

/* `loam host reserve` of so many pages; its one line. To be freed. */
static char *reserve(const char *uri, uint64_t count, int status)
{
    struct process process;
    char word[48], *line;

    snprintf(word, sizeof word, "2M:%" PRIu64 "@0", count);
    cr_expect_eq(command_run(&process, command_host(), "reserve", word, "--connect", uri, NULL), status, "%s%s",
                 process.out, process.err);
    line = strdup(process.out);
    process_end(&process);
    return line;
}

static char *give_back(const char *uri, const char *word, int status)
{
    struct process process;
    char *line;

    cr_expect_eq(command_run(&process, command_host(), "reserve", "--give-back", "--connect", uri, word, NULL), status,
                 "%s%s", process.out, process.err);
    line = strdup(process.out);
    process_end(&process);
    return line;
}

static void expect_line(char *line, const char *format, ...)
{
    char wanted[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(wanted, sizeof wanted, format, arguments);
    va_end(arguments);
    cr_expect_str_eq(line, wanted);
    free(line);
}

Test(host, pools_are_set_and_given_back)
{
    struct libvirtd daemon;
    uint64_t before = need_pool(&daemon);

    expect_line(reserve(daemon.uri, before + 3, 0),
                "2M@0      had %" PRIu64 ", asked for %" PRIu64 ", has %" PRIu64 "\n", before, before + 3, before + 3);
    cr_expect_eq(pool_total(), before + 3);
    cr_expect(is_recorded());
    free(reserve(daemon.uri, before + 3, 0));
    free(reserve(daemon.uri, before + 5, 0));
    cr_expect_eq(pool_total(), before + 5);
    expect_line(give_back(daemon.uri, "1G", 0), "nothing is to be given back\n");
    cr_expect_eq(pool_total(), before + 5);
    expect_line(give_back(daemon.uri, "2M@0", 0),
                "2M@0      had %" PRIu64 ", was to have %" PRIu64 ", has %" PRIu64 "\n", before + 5, before, before);
    cr_expect_eq(pool_total(), before);
    cr_expect_not(is_recorded());
    expect_line(give_back(daemon.uri, NULL, 0), "nothing is to be given back\n");
    cr_expect_eq(pool_total(), before);
    restore_pool(before);
    cr_expect(libvirtd_end(&daemon));
}

Test(host, pools_that_others_raised_stay_raised)
{
    struct libvirtd daemon;
    uint64_t before = need_pool(&daemon);

    free(reserve(daemon.uri, before + 3, 0));
    restore_pool(before + 4);
    cr_expect_eq(pool_total(), before + 4);
    free(give_back(daemon.uri, NULL, 0));
    cr_expect_eq(pool_total(), before + 1);
    restore_pool(before);
    cr_expect(libvirtd_end(&daemon));
}

/* All pages are promised to a mapping: they go when it does. */
Test(host, pools_in_use_are_given_back_too)
{
    struct libvirtd daemon;
    uint64_t before = need_pool(&daemon), free_pages;
    void *mapping;

    free(reserve(daemon.uri, before + 3, 0));
    free_pages = sysfs("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") -
                 sysfs("/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages");
    mapping = mmap(NULL, free_pages << 21, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    cr_expect_neq(mapping, MAP_FAILED);
    expect_line(give_back(daemon.uri, NULL, 0),
                "2M@0      had %" PRIu64 ", was to have %" PRIu64 ", has %" PRIu64
                ": 3 are in use, and go when they are let go of\n",
                before + 3, before, before + 3);
    cr_expect_not(is_recorded());
    cr_expect_eq(pool_total(), before + 3);
    munmap(mapping, free_pages << 21);
    cr_expect_eq(pool_total(), before, "the kernel took them");
    restore_pool(before);
    cr_expect(libvirtd_end(&daemon));
}

/* What was promised is kept when the process dies in the middle: the record is there before the pool is touched. */
Test(host, pools_of_a_process_that_died)
{
    struct libvirtd daemon;
    uint64_t before = need_pool(&daemon);
    char path[96];
    FILE *file;

    free(reserve(daemon.uri, before + 3, 0));
    snprintf(path, sizeof path, "%s/loam/reserved.json", home);
    file = fopen(path, "w");
    cr_assert_not_null(file);
    fprintf(file, "{\"%s\": [{\"page_bytes\": 2097152, \"node\": 0, \"before\": %" PRIu64 ", \"after\": null}]}",
            daemon.uri, before);
    fclose(file);
    free(give_back(daemon.uri, NULL, 0));
    cr_expect_eq(pool_total(), before);
    restore_pool(before);
    cr_expect(libvirtd_end(&daemon));
}
