// SPDX-License-Identifier: Apache-2.0
/*
 * Two unmodified libvirtds of the test's own, and a domain on each whose emulator is Loam's: what is done to them is drawn
 * at random, also what is not allowed in their state, and after each step libvirt's view is compared with a model's. In
 * the middle one host goes away and comes back. In the end nothing is left.
 */
#include "tests/support/libvirtd.h"
#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEPS                 100
#define SEED                  0x10a31 /* unless LOAM_SEED says otherwise */
#define PATIENCE_MILLISECONDS 30000
#define HUGE_PAGES            16u /* of each domain: 32 MiB */

enum state { ABSENT, OFF, RUNNING, PAUSED, STATE_COUNT };

#define BETWEEN STATE_COUNT /* libvirt is at it */

static const char *const state_names[STATE_COUNT + 1] = {"absent", "shut off", "running", "paused", "in between"};

struct host {
    struct libvirtd daemon;
    virConnectPtr connection; /* NULL: the host is away */
    char emulator[LIBVIRTD_PATH_MAX], kernel[LIBVIRTD_PATH_MAX];
    char name[16];
    enum state state; /* as the model has it */
    bool has_timed_out;
};

static struct host hosts[2];
static uint64_t seed = SEED, random_state;

static uint32_t draw(uint32_t count)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(random_state >> 33) % count;
}

/* --- Waiting, by libvirt's events ------------------------------------------------------------------------------ */

static void time_out(int timer, void *opaque)
{
    struct host *host = opaque;

    (void)timer;
    host->has_timed_out = true;
}

/* It wakes who waits, and no more: the state is asked for. */
static int on_lifecycle(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *opaque)
{
    (void)connection;
    (void)domain;
    (void)event;
    (void)detail;
    (void)opaque;
    return 0;
}

static virDomainPtr look_up(struct host *host)
{
    return virDomainLookupByName(host->connection, host->name);
}

/* As libvirt has it, and why. */
static enum state found_state(struct host *host, int *reason)
{
    virDomainPtr domain = look_up(host);
    enum state state = ABSENT;
    int number = 0;

    *reason = 0;
    if (domain != NULL) {
        cr_assert_eq(virDomainGetState(domain, &number, reason, 0), 0);
        state = number == VIR_DOMAIN_RUNNING   ? RUNNING
                : number == VIR_DOMAIN_PAUSED  ? PAUSED
                : number == VIR_DOMAIN_SHUTOFF ? OFF
                                               : BETWEEN;
        virDomainFree(domain);
    }
    return state;
}

/* Wait until it is in that state; returns why it is. */
static int await_state(struct host *host, enum state wanted, const char *what)
{
    int timer = virEventAddTimeout(PATIENCE_MILLISECONDS, time_out, host, NULL), reason;
    enum state state;

    host->has_timed_out = false;
    while ((state = found_state(host, &reason)) != wanted && !host->has_timed_out) {
        cr_assert_eq(virEventRunDefaultImpl(), 0);
    }
    virEventRemoveTimeout(timer);
    cr_assert_eq(state, wanted, "%s, %s: %s wanted, %s found (seed 0x%" PRIx64 ")", host->name, what,
                 state_names[wanted], state_names[state], seed);
    return reason;
}

/* --- The console ------------------------------------------------------------------------------------------------ */

struct talk {
    const char *wanted;
    char text[8192];
    size_t length;
    bool is_over;
};

static void on_stream(virStreamPtr stream, int events, void *opaque)
{
    struct talk *talk = opaque;
    int got = (events & VIR_STREAM_EVENT_READABLE) != 0
                  ? virStreamRecv(stream, talk->text + talk->length, sizeof talk->text - 1 - talk->length)
                  : 0;

    if (got > 0) {
        talk->length += (size_t)got;
        talk->text[talk->length] = '\0';
    }
    talk->is_over = strstr(talk->text, talk->wanted) != NULL || talk->length == sizeof talk->text - 1 ||
                    (events & (VIR_STREAM_EVENT_ERROR | VIR_STREAM_EVENT_HANGUP)) != 0;
}

static void converse(struct host *host, virStreamPtr stream, const char *says, struct talk *talk)
{
    int events = VIR_STREAM_EVENT_READABLE | VIR_STREAM_EVENT_ERROR | VIR_STREAM_EVENT_HANGUP;
    int timer = virEventAddTimeout(PATIENCE_MILLISECONDS, time_out, host, NULL);

    host->has_timed_out = false;
    cr_assert_eq(virStreamEventAddCallback(stream, events, on_stream, talk, NULL), 0);
    cr_assert_eq(virStreamSend(stream, says, strlen(says)), (int)strlen(says));
    while (!talk->is_over && !host->has_timed_out) {
        cr_assert_eq(virEventRunDefaultImpl(), 0);
    }
    virStreamEventRemoveCallback(stream);
    virEventRemoveTimeout(timer);
}

/* Say that at the domain's console, and read until it has answered so, if an answer is wanted. */
static void expect_talk(struct host *host, const char *says, const char *wanted)
{
    virStreamPtr stream = virStreamNew(host->connection, VIR_STREAM_NONBLOCK);
    struct talk talk = {.wanted = wanted, .is_over = wanted[0] == '\0'};
    virDomainPtr domain = look_up(host);

    cr_assert_eq(virDomainOpenConsole(domain, NULL, stream, VIR_DOMAIN_CONSOLE_FORCE), 0, "%s",
                 virGetLastErrorMessage());
    converse(host, stream, says, &talk);
    cr_assert_not_null(strstr(talk.text, wanted), "%s: '%s' does not say '%s' (seed 0x%" PRIx64 ")", host->name,
                       talk.text, wanted, seed);
    virStreamAbort(stream);
    virStreamFree(stream);
    virDomainFree(domain);
}

/* --- What can be done ------------------------------------------------------------------------------------------- */

/* The self-test, which is there without a kernel, says its verdict on its serial line, and shuts down. */
static void describe_selftest(const struct host *host, char *xml, size_t bytes)
{
    snprintf(xml, bytes,
             "<domain type='kvm'><name>%s</name><memory unit='MiB'>32</memory><vcpu>1</vcpu><memoryBacking><hugepages>"
             "<page size='2048' unit='KiB'/></hugepages><source type='memfd'/><access mode='shared'/></memoryBacking>"
             "<os><type arch='x86_64' machine='microvm'>hvm</type></os><devices><emulator>%s</emulator>"
             "<controller type='usb' model='none'/><memballoon model='none'/>"
             "<serial type='file'><source path='%s/home/serial'/></serial></devices></domain>",
             host->name, host->emulator, host->daemon.folder);
}

static void describe(const struct host *host, char *xml, size_t bytes)
{
    snprintf(xml, bytes,
             "<domain type='kvm'><name>%s</name><uuid>10a30000-0000-4000-8000-%012x</uuid><memory "
             "unit='MiB'>32</memory><vcpu>1</vcpu><memoryBacking><hugepages>"
             "<page size='2048' unit='KiB'/></hugepages><source type='memfd'/><access mode='shared'/></memoryBacking>"
             "<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>%s</kernel><cmdline>console=ttyS0</cmdline>"
             "</os><devices><emulator>%s</emulator><controller type='usb' model='none'/><memballoon model='none'/>"
             "<serial type='pty'/><rng model='virtio'><backend model='random'>/dev/urandom</backend>"
             "<address type='virtio-mmio'/></rng></devices></domain>",
             host->name, (unsigned)(host - hosts), host->kernel, host->emulator);
}

static int define(struct host *host)
{
    char xml[2048];
    virDomainPtr domain;

    describe(host, xml, sizeof xml);
    domain = virDomainDefineXML(host->connection, xml);
    return domain != NULL ? virDomainFree(domain) : -1;
}

/* A call on the domain; -1 if there is none. */
static int call(struct host *host, int (*act)(virDomainPtr domain))
{
    virDomainPtr domain = look_up(host);
    int result = domain != NULL ? act(domain) : -1;

    if (domain != NULL) {
        virDomainFree(domain);
    }
    return result;
}

/* Of one that runs, it would go with its end: another story. */
static int undefine(struct host *host)
{
    return host->state == RUNNING || host->state == PAUSED ? 0 : call(host, virDomainUndefine);
}

/* Its console says when the guest listens to the power button. */
static int start(struct host *host)
{
    int result = call(host, virDomainCreate);

    if (result == 0) {
        expect_talk(host, "", "ready\r\n");
    }
    return result;
}

static int suspend(struct host *host)
{
    return call(host, virDomainSuspend);
}

static int resume(struct host *host)
{
    return call(host, virDomainResume);
}

static int reset_domain(virDomainPtr domain)
{
    return virDomainReset(domain, 0);
}

static int reset(struct host *host)
{
    int result = call(host, reset_domain);

    if (result == 0 && host->state == RUNNING) {
        expect_talk(host, "", "ready\r\n");
    }
    return result;
}

static int reboot_domain(virDomainPtr domain)
{
    return virDomainReboot(domain, 0);
}

/* The button of one that is paused would be heard after it: here it is not pressed then. */
static int reboot(struct host *host)
{
    int result = host->state == PAUSED ? -1 : call(host, reboot_domain);

    if (result == 0) {
        expect_talk(host, "", "ready\r\n");
    }
    return result;
}

static int shut_down(struct host *host)
{
    return host->state == PAUSED ? -1 : call(host, virDomainShutdown);
}

static int destroy(struct host *host)
{
    return call(host, virDomainDestroy);
}

static int end_domain_gracefully(virDomainPtr domain)
{
    return virDomainDestroyFlags(domain, VIR_DOMAIN_DESTROY_GRACEFUL);
}

static int destroy_gracefully(struct host *host)
{
    return call(host, end_domain_gracefully);
}

static int talk(struct host *host)
{
    if (host->state != RUNNING) {
        return -1;
    }
    expect_talk(host, "bhello\n", "hello\r\n");
    return 0;
}

static int guest_turns_off(struct host *host)
{
    if (host->state != RUNNING) {
        return -1;
    }
    expect_talk(host, "bbye\n", "bye\r\n");
    expect_talk(host, "o", "");
    return 0;
}

static int kill_emulator(struct host *host)
{
    pid_t pid = libvirtd_emulator(&host->daemon, host->name);

    return (host->state == RUNNING || host->state == PAUSED) && pid > 0 ? kill(pid, SIGKILL) : -1;
}

#define STAYS STATE_COUNT

/* next: the state after it, by the state before; STAYS: it is refused, and nothing changes. */
static const struct action {
    const char *name;
    int (*act)(struct host *host);
    enum state next[STATE_COUNT];
    uint32_t weight;
} actions[] = {
    {"define", define, {OFF, OFF, RUNNING, PAUSED}, 2},
    {"undefine", undefine, {STAYS, ABSENT, RUNNING, PAUSED}, 1},
    {"start", start, {STAYS, RUNNING, STAYS, STAYS}, 4},
    {"suspend", suspend, {STAYS, STAYS, PAUSED, PAUSED}, 3},
    {"resume", resume, {STAYS, STAYS, STAYS, RUNNING}, 3},
    {"reset", reset, {STAYS, STAYS, RUNNING, PAUSED}, 1},
    {"reboot", reboot, {STAYS, STAYS, RUNNING, STAYS}, 1},
    {"shut down", shut_down, {STAYS, STAYS, OFF, STAYS}, 1},
    {"destroy", destroy, {STAYS, STAYS, OFF, OFF}, 1},
    {"destroy gracefully", destroy_gracefully, {STAYS, STAYS, OFF, OFF}, 1},
    {"talk", talk, {STAYS, STAYS, RUNNING, STAYS}, 3},
    {"the guest turns itself off", guest_turns_off, {STAYS, STAYS, OFF, STAYS}, 1},
    {"kill the emulator", kill_emulator, {STAYS, STAYS, OFF, OFF}, 1},
};

#define ACTION_COUNT (sizeof actions / sizeof actions[0])

static const struct action *draw_action(void)
{
    uint32_t sum = 0, drawn;
    size_t i;

    for (i = 0; i < ACTION_COUNT; i++) {
        sum += actions[i].weight;
    }
    drawn = draw(sum);
    for (i = 0; drawn >= actions[i].weight; i++) {
        drawn -= actions[i].weight;
    }
    return &actions[i];
}

static void step(struct host *host, const struct action *action)
{
    enum state before = host->state, next = action->next[before];
    int result = action->act(host), reason;

    cr_assert_eq(result == 0, next != STAYS, "%s, %s, %s: %s (seed 0x%" PRIx64 ")", host->name, state_names[before],
                 action->name, result == 0 ? "it was not refused" : virGetLastErrorMessage(), seed);
    host->state = next == STAYS ? before : next;
    reason = await_state(host, host->state, action->name);
    if (action->act == kill_emulator && result == 0) {
        cr_expect_eq(reason, VIR_DOMAIN_SHUTOFF_CRASHED, "killed, and the reason is %d", reason);
    }
    if (action->act == guest_turns_off && result == 0) {
        cr_expect_eq(reason, VIR_DOMAIN_SHUTOFF_SHUTDOWN, "the guest shut down, and the reason is %d", reason);
    }
}

static const struct action *action_named(const char *name)
{
    for (size_t i = 0; i < ACTION_COUNT; i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    cr_assert(false, "no action %s", name);
    return NULL;
}

static void go_to(struct host *host, enum state wanted)
{
    static const char *const ways[STATE_COUNT][STATE_COUNT] = {
        [RUNNING] = {[ABSENT] = "define", [OFF] = "start", [PAUSED] = "resume"},
        [ABSENT] = {[OFF] = "undefine", [RUNNING] = "destroy", [PAUSED] = "destroy"},
    };

    while (host->state != wanted) {
        step(host, action_named(ways[wanted][host->state]));
    }
}

/* --- Hosts ------------------------------------------------------------------------------------------------------ */

static void connect_host(struct host *host)
{
    host->connection = virConnectOpen(host->daemon.uri);
    cr_assert_not_null(host->connection, "%s: %s", host->daemon.uri, virGetLastErrorMessage());
    cr_assert_geq(virConnectDomainEventRegisterAny(host->connection, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                   VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), host, NULL),
                  0);
}

static void make_host(struct host *host, enum libvirtd_kind kind, const char *name)
{
    snprintf(host->name, sizeof host->name, "%s", name);
    cr_assert(libvirtd_start(&host->daemon, kind, false));
    cr_assert(libvirtd_lend(&host->daemon, getenv("LOAM_EMULATOR"), "loam-emulator", host->emulator));
    cr_assert(libvirtd_lend(&host->daemon, getenv("LOAM_DOMAIN_GUEST"), "guest", host->kernel));
    host->state = ABSENT;
    connect_host(host);
}

static void end_host(struct host *host)
{
    if (host->connection != NULL) {
        virConnectClose(host->connection);
    }
    cr_expect(libvirtd_end(&host->daemon), "%s: something is left", host->name);
}

/* The daemon dies under its living domain, which does not notice; the other host goes on meanwhile. */
static void go_away_and_come_back(struct host *host, struct host *other)
{
    go_to(host, RUNNING);
    cr_assert(libvirtd_kill(&host->daemon));
    virConnectClose(host->connection);
    host->connection = NULL;
    go_to(other, RUNNING);
    step(other, action_named("talk"));
    cr_assert(libvirtd_restart(&host->daemon));
    connect_host(host);
    await_state(host, RUNNING, "its host is back");
    step(host, action_named("talk"));
    step(host, action_named("suspend"));
    step(host, action_named("resume"));
}

/* --- What is left ----------------------------------------------------------------------------------------------- */

static unsigned long free_huge_pages(void)
{
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");
    unsigned long count = 0;

    if (file != NULL) {
        (void)!fscanf(file, "%lu", &count);
        fclose(file);
    }
    return count;
}

static unsigned count_descriptors(struct host *host)
{
    char path[64];
    unsigned count = 0;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/fd", libvirtd_emulator(&host->daemon, host->name));
    folder = opendir(path);
    cr_assert_not_null(folder, "%s", path);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* Pauses, consoles and new lives leave no descriptor behind in an emulator that stays. */
static void expect_no_descriptor_left(struct host *host)
{
    unsigned before;

    go_to(host, RUNNING);
    step(host, action_named("talk"));
    before = count_descriptors(host);
    for (uint32_t i = 0; i < 5; i++) {
        step(host, action_named("suspend"));
        step(host, action_named("reset"));
        step(host, action_named("resume"));
        expect_talk(host, "", "ready\r\n");
    }
    cr_expect_eq(count_descriptors(host), before);
}

static void ignore_error(void *opaque, virErrorPtr error)
{
    (void)opaque;
    (void)error;
}

static void need(void)
{
    const char *lack = libvirtd_lack(LIBVIRTD_SYSTEM);

    lack = lack != NULL ? lack : libvirtd_lack(LIBVIRTD_SESSION);
    if (lack != NULL) {
        cr_skip_test("%s", lack);
    }
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm, or no right to it");
    }
    if (free_huge_pages() < 2 * HUGE_PAGES) {
        cr_skip_test("%u free pages of 2 MiB wanted", 2 * HUGE_PAGES);
    }
    if (getenv("LOAM_SEED") != NULL) {
        seed = strtoull(getenv("LOAM_SEED"), NULL, 0);
    }
    random_state = seed;
    virSetErrorFunc(NULL, ignore_error);
    cr_assert_eq(virEventRegisterDefaultImpl(), 0);
}

TestSuite(lifecycle, .init = need, .timeout = 600);

Test(lifecycle, domains_on_two_hosts_do_what_is_asked_at_random)
{
    unsigned long pages = free_huge_pages();

    make_host(&hosts[0], LIBVIRTD_SYSTEM, "one");
    make_host(&hosts[1], LIBVIRTD_SESSION, "two");
    for (uint32_t i = 0; i < STEPS; i++) {
        if (i == STEPS / 2) {
            go_away_and_come_back(&hosts[1], &hosts[0]);
        }
        step(&hosts[draw(2)], draw_action());
    }
    for (uint32_t i = 0; i < 2; i++) {
        expect_no_descriptor_left(&hosts[i]);
        go_to(&hosts[i], ABSENT);
        end_host(&hosts[i]);
    }
    cr_expect_eq(free_huge_pages(), pages, "%lu hugepages were free", pages);
}

/* What virt-manager and others ask by libvirt's Python binding. */
Test(lifecycle, managers_see_a_running_domain)
{
    struct host *host = &hosts[0];
    struct process process;
    json_t *view;

    make_host(host, LIBVIRTD_SYSTEM, "shown");
    go_to(host, RUNNING);
    cr_assert_eq(process_run(&process, (char *[]){"python3", getenv("LOAM_VIEW"), host->daemon.uri, host->name, NULL},
                             PATIENCE_MILLISECONDS),
                 0, "%s", process.err);
    view = json_loads(process.out, 0, NULL);
    cr_assert_not_null(view, "%s", process.out);
    cr_expect_eq(json_integer_value(json_object_get(view, "state")), VIR_DOMAIN_RUNNING);
    cr_expect_eq(json_integer_value(json_object_get(view, "stats_state")), VIR_DOMAIN_RUNNING);
    cr_expect_eq(json_integer_value(json_object_get(view, "maximum_kib")), 32 << 10);
    cr_expect_eq(json_integer_value(json_object_get(view, "memory_kib")), 32 << 10);
    cr_expect_gt(json_integer_value(json_object_get(view, "rss_kib")), 0);
    cr_expect_eq(json_integer_value(json_object_get(view, "vcpu_count")), 1);
    cr_expect_eq(json_integer_value(json_object_get(view, "vcpus_running")), 1);
    cr_expect_gt(json_integer_value(json_object_get(view, "cpu_nanoseconds")), 0);
    cr_expect(json_is_true(json_object_get(view, "is_active")));
    cr_expect(json_is_true(json_object_get(view, "is_persistent")));
    cr_expect_str_eq(json_string_value(json_object_get(view, "machine")), "microvm");
    cr_expect_str_eq(json_string_value(json_object_get(view, "emulator")), host->emulator);
    cr_expect_eq(strncmp(json_string_value(json_object_get(view, "console")), "/dev/pts/", 9), 0);
    json_decref(view);
    process_end(&process);
    go_to(host, ABSENT);
    end_host(host);
}

/* --- The self-test ---------------------------------------------------------------------------------------------- */

struct verdict {
    bool has_stopped;
    int detail;
};

static int on_stop(virConnectPtr connection, virDomainPtr domain, int event, int detail, void *opaque)
{
    struct verdict *verdict = opaque;

    (void)connection;
    (void)domain;
    if (event == VIR_DOMAIN_EVENT_STOPPED) {
        verdict->has_stopped = true;
        verdict->detail = detail;
    }
    return 0;
}

static void read_serial(const struct host *host, char *text, size_t bytes)
{
    char path[LIBVIRTD_PATH_MAX];
    FILE *file;

    snprintf(path, sizeof path, "%s/home/serial", host->daemon.folder);
    file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    text[fread(text, 1, bytes - 1, file)] = '\0';
    fclose(file);
}

Test(lifecycle, the_self_test_is_a_domain)
{
    struct host *host = &hosts[0];
    struct verdict verdict = {0};
    char xml[2048], text[65536];
    virDomainPtr domain;
    int timer;

    make_host(host, LIBVIRTD_SESSION, "selftest");
    describe_selftest(host, xml, sizeof xml);
    cr_assert_geq(virConnectDomainEventRegisterAny(host->connection, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                                   VIR_DOMAIN_EVENT_CALLBACK(on_stop), &verdict, NULL),
                  0);
    timer = virEventAddTimeout(PATIENCE_MILLISECONDS, time_out, host, NULL);
    domain = virDomainCreateXML(host->connection, xml, 0);
    cr_assert_not_null(domain, "%s", virGetLastErrorMessage());
    while (!verdict.has_stopped && !host->has_timed_out) {
        cr_assert_eq(virEventRunDefaultImpl(), 0);
    }
    virEventRemoveTimeout(timer);
    cr_expect(verdict.has_stopped);
    cr_expect_eq(verdict.detail, VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, "the event's detail is %d", verdict.detail);
    read_serial(host, text, sizeof text);
    cr_expect_not_null(strstr(text, "8 of 8 checks"), "%s", text);
    virDomainFree(domain);
    end_host(host);
}

/* --- virt-install ----------------------------------------------------------------------------------------------- */

Test(lifecycle, virt_install_makes_one_that_runs)
{
    char memory[] = "source.type=memfd,access.mode=shared,hugepages.page0.size=2048,hugepages.page0.unit=KiB";
    struct host *host = &hosts[0];
    struct process process;
    char boot[3 * LIBVIRTD_PATH_MAX];

    if (access("/usr/bin/virt-install", X_OK) != 0) {
        cr_skip_test("virt-install is not installed");
    }
    make_host(host, LIBVIRTD_SESSION, "installed");
    snprintf(boot, sizeof boot, "kernel=%s,kernel_args=console=ttyS0,emulator=%s", host->kernel, host->emulator);
    cr_assert_eq(process_run(&process,
                             (char *[]){"virt-install",
                                        "--connect",
                                        host->daemon.uri,
                                        "--name",
                                        host->name,
                                        "--memory",
                                        "32",
                                        "--vcpus",
                                        "1",
                                        "--import",
                                        "--disk",
                                        "none",
                                        "--osinfo",
                                        "detect=off,require=off",
                                        "--noautoconsole",
                                        "--virt-type",
                                        "kvm",
                                        "--machine",
                                        "microvm",
                                        "--boot",
                                        boot,
                                        "--memorybacking",
                                        memory,
                                        "--graphics",
                                        "none",
                                        "--network",
                                        "none",
                                        "--controller",
                                        "usb,model=none",
                                        "--memballoon",
                                        "none",
                                        NULL},
                             PATIENCE_MILLISECONDS),
                 0, "%s%s", process.out, process.err);
    process_end(&process);
    host->state = RUNNING;
    await_state(host, RUNNING, "virt-install");
    expect_talk(host, "", "ready\r\n");
    step(host, action_named("talk"));
    go_to(host, ABSENT);
    end_host(host);
}
