// SPDX-License-Identifier: Apache-2.0
/* `loam place` against hosts that are none, daemons of the test's own, and who does not answer. */
#include "tests/libvirt/command.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TEST_URI "test:///default"
#define NOBODY   "qemu+unix:///system?socket=/nonexistent"

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
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

static const json_t *host_at(const json_t *json, size_t index)
{
    return json_array_get(at(json, "hosts"), index);
}

/* --- A host that is none ---------------------------------------------------------------------------------------- */

Test(place, it_fits)
{
    struct process process;
    json_t *json;

    cr_expect_eq(
        command_run(&process, command_place(), "-m", "32M", "-p", "2M,4K", "--connect", TEST_URI, "--json", NULL), 0);
    json = command_json(&process);
    cr_expect_str_eq(text_at(json, "best"), TEST_URI);
    cr_expect(json_is_true(at(host_at(json, 0), "answered")));
    cr_expect(json_is_true(at(host_at(json, 0), "can")));
    cr_expect(json_is_null(at(host_at(json, 0), "kvm")));
    cr_expect_str_eq(text_at(host_at(json, 0), "pages"), "2M");
    cr_expect_eq(json_integer_value(at(host_at(json, 0), "page_count")), 16);
    cr_expect(json_is_integer(at(host_at(json, 0), "node")));
    cr_expect(json_is_null(at(json, "run")));
    cr_expect_eq(json_integer_value(at(json, "exit")), 0);
    json_decref(json);
    process_end(&process);
}

Test(place, it_fits_nowhere)
{
    struct process process;
    json_t *json;

    cr_expect_eq(command_run(&process, command_place(), "-m", "4G", "-p", "2M", "--connect", TEST_URI, "--json", NULL),
                 3);
    json = command_json(&process);
    cr_expect(json_is_null(at(json, "best")));
    cr_expect(json_is_false(at(host_at(json, 0), "can")));
    cr_expect_not_null(strstr(text_at(host_at(json, 0), "why"), "2048 pages wanted"), "%s", process.out);
    json_decref(json);
    process_end(&process);
    cr_expect_eq(command_run(&process, command_place(), "-m", "4G", "--connect", TEST_URI, NULL), 3);
    cr_expect_eq(strncmp(process.out, "nobody can hold it\ncannot  " TEST_URI ": 2M: 2048 pages wanted, ", 64), 0, "%s",
                 process.out);
    process_end(&process);
}

Test(place, the_strict_ask_for_one_node)
{
    struct process process;

    cr_expect_eq(command_run(&process, command_place(), "-m", "100M", "--connect", TEST_URI, NULL), 0);
    cr_expect_not_null(strstr(process.out, "on several nodes together"), "%s", process.out);
    process_end(&process);
    cr_expect_eq(command_run(&process, command_place(), "-m", "100M", "--node-strict", "--connect", TEST_URI, NULL), 3);
    cr_expect_not_null(strstr(process.out, "50 pages wanted, 45 free on node 1: 5 too few"), "%s", process.out);
    process_end(&process);
}

/* As people call it. */
Test(place, loam_leads_there)
{
    struct process process;

    cr_expect_eq(command_run(&process, command_loam(), "place", "--memory", "4X", NULL), 2);
    command_expect_line(&process, "loam place: --memory 4X: not a size");
    process_end(&process);
}

/* --- Mistakes --------------------------------------------------------------------------------------------------- */

struct mistake {
    char words[8][40];
    char says[72];
};

ParameterizedTestParameters(place, a_mistake_gets_one_line)
{
    static struct mistake mistakes[] = {
        {{"--connect=" TEST_URI}, "--memory SIZE is wanted"},
        {{"-m", "5X"}, "--memory 5X: not a size"},
        {{"-m", "16M", "--connect="}, "--connect: an empty URI"},
        {{"-m", "16M", "--run", "--kernel=/k", "--name=a\nb"}, "--name a: not one line"},
        {{"-m", "0"}, "--memory 0: libvirt counts whole MiB"},
        {{"-m", "4K"}, "--memory 4K: libvirt counts whole MiB"},
        {{"-m", "16G", "-p", "2M,5M"}, "--pages 5M: no such kind of page"},
        {{"-m", "16G", "-p", "auto"}, "--pages auto: no such kind of page"},
        {{"-m", "1536M", "-p", "1G"}, "1.5 GiB: no whole number of pages of 1G"},
        {{"-m", "16M", "--vcpus", "0"}, "--vcpus 0: not a number"},
        {{"-m", "16M", "--timeout", "-1"}, "--timeout -1: not a number"},
        {{"-m", "16M", TEST_URI}, TEST_URI ": not an option: hosts are named by --connect"},
        {{"-m", "16M", "--kernel", "/k"}, "--kernel goes with --run only"},
        {{"-m", "16M", "--run", "--kernel", "/k"}, "--run: --name NAME and --kernel FILE are wanted"},
        {{"-m", "16M", "--run", "--kernel", "k", "--name", "a"}, "--kernel k: a path on the host"},
        {{"-m", "16M", "--run", "--kernel", "/k", "--name", "a/b"}, "--name a/b: a name without /"},
        {{"-m", "16M", "--run", "--kernel", "/k", "--name", "a\033"}, "--name a\\x1b: not one line"},
        {{"-m", "16M", "--run", "--kernel", "/k", "--name", "a"}, "no loam-emulator lies beside this program"},
    };

    return cr_make_param_array(struct mistake, mistakes, sizeof mistakes / sizeof mistakes[0]);
}

ParameterizedTest(struct mistake *mistake, place, a_mistake_gets_one_line)
{
    struct process process;
    char *words[8] = {NULL};

    for (unsigned i = 0; i < 8 && mistake->words[i][0] != '\0'; i++) {
        words[i] = mistake->words[i];
    }
    cr_expect_eq(command_run(&process, command_place(), words[0], words[1], words[2], words[3], words[4], words[5],
                             words[6], words[7], NULL),
                 2, "%s", process.out);
    command_expect_line(&process, mistake->says);
    process_end(&process);
}

/* --- Who does not answer ---------------------------------------------------------------------------------------- */

Test(place, who_does_not_answer_is_named_and_holds_up_nobody)
{
    char path[64], silent_uri[128];
    int silent = command_silent_socket(path);
    int64_t since = now_milliseconds();
    struct process process;
    json_t *json;

    snprintf(silent_uri, sizeof silent_uri, "qemu+unix:///system?socket=%s", path);
    cr_expect_eq(command_run(&process, command_place(), "-m", "32M", "--timeout", "4", "--connect", silent_uri,
                             "--connect", NOBODY, "--connect", TEST_URI, "--connect", silent_uri, "--json", NULL),
                 0);
    cr_expect_lt(now_milliseconds() - since, 2 * 4000, "two silent hosts are waited for at once");
    json = command_json(&process);
    cr_expect_str_eq(text_at(json, "best"), TEST_URI);
    for (size_t i = 0; i < 4; i += 3) {
        cr_expect_str_eq(text_at(host_at(json, i), "uri"), silent_uri);
        cr_expect(json_is_false(at(host_at(json, i), "answered")));
        cr_expect(json_is_null(at(host_at(json, i), "can")));
        cr_expect_str_eq(text_at(host_at(json, i), "why"), "did not answer within 4 s");
    }
    cr_expect(json_is_false(at(host_at(json, 1), "answered")));
    cr_expect_not_null(strstr(text_at(host_at(json, 1), "why"), "No such file"), "%s", process.out);
    cr_expect_lt(json_integer_value(at(host_at(json, 2), "milliseconds")), 4000, "it did not wait for the others");
    json_decref(json);
    process_end(&process);
    close(silent);
    unlink(path);
}

Test(place, nobody_answers)
{
    struct process process;

    cr_expect_eq(
        command_run(&process, command_place(), "-m", "32M", "--connect", NOBODY, "--connect", "x\033[2J\ny://", NULL),
        3);
    cr_expect_eq(strncmp(process.out, "nobody can hold it\nsilent  " NOBODY ": ", 68), 0, "%s", process.out);
    cr_expect_not_null(strstr(process.out, "\nsilent  x\\x1b[2J\\x0ay://: "), "%s", process.out);
    process_end(&process);
}

/* --- Real daemons ----------------------------------------------------------------------------------------------- */

static void need_kvm(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it: no host of this test could hold a guest");
    }
}

Test(place, two_daemons)
{
    struct libvirtd one, other;
    struct process process;
    json_t *json;

    need_kvm();
    command_need(&one, LIBVIRTD_SESSION, true);
    command_need(&other, geteuid() == 0 ? LIBVIRTD_SYSTEM : LIBVIRTD_SESSION, false);
    cr_expect_eq(command_run(&process, command_place(), "-m", "1M", "-p", "4K", "--timeout", "50", "--connect",
                             one.tcp_uri, "--connect", other.uri, "--json", NULL),
                 0, "%s%s", process.out, process.err);
    json = command_json(&process);
    for (size_t i = 0; i < 2; i++) {
        cr_expect(json_is_true(at(host_at(json, i), "can")), "%s", process.out);
        cr_expect_str_eq(text_at(host_at(json, i), "pages"), "4K");
    }
    json_decref(json);
    process_end(&process);
    /* A host goes away: the other one is left. */
    cr_expect(libvirtd_kill(&one));
    cr_expect_eq(command_run(&process, command_place(), "-m", "1M", "-p", "4K", "--timeout", "50", "--connect", one.uri,
                             "--connect", other.uri, "--json", NULL),
                 0, "%s%s", process.out, process.err);
    json = command_json(&process);
    cr_expect_str_eq(text_at(json, "best"), other.uri);
    cr_expect_str_eq(text_at(json, "why"), "no other can hold it");
    json_decref(json);
    process_end(&process);
    cr_expect(libvirtd_end(&one));
    cr_expect(libvirtd_end(&other));
}

Test(place, more_pages_than_anybody_has)
{
    struct libvirtd daemon;
    struct process process;
    const char *why;
    json_t *json;

    need_kvm();
    command_need(&daemon, LIBVIRTD_SESSION, false);
    cr_expect_eq(command_run(&process, command_place(), "-m", "64T", "-p", "2M,1G,thp,4K", "--timeout", "50",
                             "--connect", daemon.uri, "--json", NULL),
                 3);
    json = command_json(&process);
    why = text_at(host_at(json, 0), "why");
    cr_expect_not_null(strstr(why, "2M: 33554432 pages wanted, "), "%s", process.out);
    cr_expect_not_null(strstr(why, "4K: 64.2 TiB wanted with page tables, "), "%s", process.out);
    cr_expect_not_null(strstr(text_at(host_at(json, 0), "mend"), "give less: --memory "), "%s", process.out);
    json_decref(json);
    process_end(&process);
    cr_expect(libvirtd_end(&daemon));
}

/* --- Running ---------------------------------------------------------------------------------------------------- */

Test(place, it_runs_on_a_host_that_is_none)
{
    struct process process;
    json_t *json;

    cr_expect_eq(command_run(&process, command_place(), "-m", "32M", "--connect", TEST_URI, "--run", "--name",
                             "a <guest> & \"more\"", "--kernel", "/srv/<kernel>", "--append", "a=\"b\" <c>",
                             "--emulator", "/usr/bin/loam-emulator", "--json", NULL),
                 0, "%s", process.err);
    json = command_json(&process);
    cr_expect(json_is_true(at(at(json, "run"), "started")));
    cr_expect_eq(strlen(text_at(at(json, "run"), "uuid")), 36);
    json_decref(json);
    process_end(&process);
    /* libvirt's driver has one domain of that name to begin with. */
    cr_expect_eq(command_run(&process, command_place(), "-m", "32M", "--connect", TEST_URI, "--run", "--name", "test",
                             "--kernel", "/k", "--emulator", "/e", NULL),
                 3);
    command_expect_line(&process, "loam place: " TEST_URI ": test did not start: ");
    process_end(&process);
}

/* What a daemon says of its domains, as virsh prints it. To be freed. */
static char *virsh(const char *uri, const char *first, const char *second)
{
    struct process process;
    char *text;

    (void)command_run(&process, "virsh", "--connect", uri, first, second, NULL);
    text = strdup(process.out);
    process_end(&process);
    return text;
}

/* Returns the emulator's process. */
static pid_t check_run(struct libvirtd *daemon)
{
    char kernel[LIBVIRTD_PATH_MAX], *state;
    struct process process;
    pid_t emulator;

    cr_assert(libvirtd_lend(daemon, getenv("LOAM_STOP"), "kernel", kernel));
    cr_expect_eq(command_run(&process, command_place(), "-m", "32M", "-p", "4K", "--timeout", "50", "--connect",
                             TEST_URI, "--connect", daemon->uri, "--run", "--name", "a guest", "--kernel", kernel,
                             "--append", "<a> & b", "--emulator", "/usr/bin/qemu-system-x86_64", NULL),
                 0, "%s%s", process.out, process.err);
    cr_expect_not_null(strstr(process.out, " console 'a guest'\n"), "%s", process.out);
    process_end(&process);
    state = virsh(daemon->uri, "domstate", "a guest");
    cr_expect_eq(strncmp(state, "running", 7), 0, "%s", state);
    free(state);
    emulator = libvirtd_emulator(daemon, "a guest");
    cr_expect_gt(emulator, 0);
    state = virsh(daemon->uri, "dumpxml", "a guest");
    cr_expect_not_null(strstr(state, "<cmdline>&lt;a&gt; &amp; b</cmdline>"), "%s", state);
    free(state);
    return emulator;
}

static void need_qemu(void)
{
    if (access("/usr/bin/qemu-system-x86_64", X_OK) != 0 || access("/usr/bin/virsh", X_OK) != 0) {
        cr_skip_test("qemu-system-x86_64 or virsh is not installed");
    }
}

/* QEMU has that machine too. */
Test(place, it_runs_there)
{
    struct libvirtd daemon;
    pid_t emulator;

    need_kvm();
    need_qemu();
    command_need(&daemon, geteuid() == 0 ? LIBVIRTD_SYSTEM : LIBVIRTD_SESSION, false);
    emulator = check_run(&daemon);
    cr_expect(libvirtd_restart(&daemon));
    cr_expect_eq(libvirtd_emulator(&daemon, "a guest"), emulator, "it lives on");
    cr_expect_eq(kill(emulator, 0), 0);
    cr_expect(libvirtd_end(&daemon));
    cr_expect_eq(kill(emulator, 0), -1, "it ends with the daemon's keeper");
}

/* One that does not start leaves nothing. */
Test(place, what_does_not_start_is_undefined)
{
    struct libvirtd daemon;
    struct process process;
    char *names;

    need_kvm();
    need_qemu();
    command_need(&daemon, LIBVIRTD_SESSION, false);
    cr_expect_eq(command_run(&process, command_place(), "-m", "32M", "-p", "4K", "--timeout", "50", "--connect",
                             daemon.uri, "--run", "--name", "one", "--kernel", "/nonexistent", "--emulator",
                             "/usr/bin/qemu-system-x86_64", "--json", NULL),
                 3);
    command_expect_line(&process, "one did not start: ");
    cr_expect_not_null(strstr(process.out, "\"started\": false"), "%s", process.out);
    process_end(&process);
    names = virsh(daemon.uri, "list", "--all");
    cr_expect_null(strstr(names, "one"), "%s", names);
    free(names);
    cr_expect(libvirtd_end(&daemon));
}
