// SPDX-License-Identifier: Apache-2.0
/* A domain from its start to its end, as libvirtd drives it, with guests that really run. */
#include "tests/emulator/emulator_run.h"
#include "vmm/kvm.h"
#include "vmm/tune.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct emulator_run run;

static void set_up(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip("no /dev/kvm");
    }
    signal(SIGPIPE, SIG_IGN);
    emulator_run_init(&run);
}

static void tear_down(void)
{
    emulator_run_end(&run);
}

TestSuite(emulator, .init = set_up, .fini = tear_down, .timeout = 120);

static void act(const char *command)
{
    json_decref(emulator_run_do(&run, command, NULL));
}

/* The next event of this name; data of it, as key and value of text or of truth, up to a NULL. */
static void await_event(const char *name, const char *key, const char *text)
{
    json_t *event = emulator_run_await(&run, name);
    const json_t *value = json_object_get(json_object_get(event, "data"), key != NULL ? key : "");

    cr_expect(json_is_integer(json_object_get(json_object_get(event, "timestamp"), "seconds")));
    if (key != NULL) {
        cr_expect_str_eq(json_is_string(value) ? json_string_value(value)
                         : json_is_true(value) ? "true"
                                               : "false",
                         text, "%s: %s", name, key);
    }
    json_decref(event);
}

/* It ends by itself, and so; what it says on standard error has this in it. */
static void expect_end(int status, const char *says)
{
    cr_expect_eq(process_wait(&run.process), status, "status %d wanted, %d found: %s", status, run.process.status,
                 run.process.err);
    cr_expect_not(run.process.timed_out);
    cr_expect_not_null(strstr(run.process.err, says), "'%s' does not say '%s'", run.process.err, says);
}

/* --- Start --------------------------------------------------------------------------------------------------------- */

Test(emulator, a_guest_waits_for_cont_and_then_runs)
{
    emulator_run_start(&run, domain_guest_path(), "-append", "one two=\"a,b\"", NULL);
    emulator_run_connect(&run);
    emulator_run_expect_status(&run, "prelaunch");
    act("cont");
    cr_expect(emulator_run_has(&run, "RESUME"), "the event comes before the reply");
    emulator_run_expect(&run, "domain guest: one two=\"a,b\"\r\nfresh memory\r\nready\r\n");
    emulator_run_expect_status(&run, "running");
}

static pid_t thread_of(unsigned vcpu)
{
    json_t *cpus = emulator_run_do(&run, "query-cpus-fast", NULL);
    pid_t thread = (pid_t)json_integer_value(json_object_get(json_array_get(cpus, vcpu), "thread-id"));

    cr_assert_gt(thread, 0);
    json_decref(cpus);
    return thread;
}

static void read_of_thread(pid_t thread, const char *name, char *text, size_t bytes)
{
    char path[64];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/task/%d/%s", run.process.pid, thread, name);
    file = fopen(path, "re");
    cr_assert_not_null(file, "%s", path);
    cr_assert_not_null(fgets(text, (int)bytes, file));
    fclose(file);
}

Test(emulator, each_vcpu_has_a_thread_of_its_own_and_its_name)
{
    emulator_run_guest(&run, "-smp", "2,sockets=2,cores=1,threads=1", NULL);
    for (unsigned i = 0; i < 2; i++) {
        char name[32], expected[32];

        snprintf(expected, sizeof expected, "CPU %u/KVM\n", i);
        read_of_thread(thread_of(i), "comm", name, sizeof name);
        cr_expect_str_eq(name, expected);
        cr_expect_neq(thread_of(i), run.process.pid);
    }
    cr_expect_neq(thread_of(0), thread_of(1));
}

/* Of /proc's status of a thread. */
static unsigned number_of_thread(pid_t thread, const char *key)
{
    char path[64], line[256];
    unsigned number = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/task/%d/status", run.process.pid, thread);
    file = fopen(path, "re");
    cr_assert_not_null(file, "%s", path);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':') {
            number = (unsigned)strtoul(line + strlen(key) + 1, NULL, 10);
        }
    }
    fclose(file);
    return number;
}

static void expect_main(unsigned filters)
{
    pid_t main = run.process.pid;

    cr_expect_eq(number_of_thread(main, "Seccomp_filters"), filters);
    cr_expect_eq(number_of_thread(main, "NoNewPrivs"), filters);
}

static void expect_confined(unsigned filters)
{
    expect_main(filters);
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_eq(number_of_thread(thread_of(i), "Seccomp_filters"), 2 * filters, "vCPU %u", i);
    }
}

Test(emulator, it_is_confined_before_its_guest_begins_and_in_every_life)
{
    emulator_run_guest(&run, "-smp", "2,sockets=2,cores=1,threads=1", "-sandbox",
                       "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny", NULL);
    expect_confined(1);
    emulator_run_type(&run, "r");
    emulator_run_expect(&run, "ready\r\n");
    expect_confined(1);
}

/* The descriptor becomes the program's; what it is stays. */
static void run_on(int fd)
{
    char option[64];

    cr_assert_geq(fd, 0);
    snprintf(option, sizeof option, "tap,id=n0,fd=%d", fd);
    emulator_run_guest(&run, "-netdev", option, "-device", "virtio-net-device,netdev=n0,id=net0,mac=52:54:00:12:34:56",
                       NULL);
    close(fd);
    emulator_run_type(&run, "r");
    emulator_run_expect(&run, "ready\r\n");
    expect_main(1);
}

Test(emulator, a_socket_is_a_network_in_every_life)
{
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    cr_assert_eq(fcntl(ends[0], F_SETFD, FD_CLOEXEC), 0);
    run_on(ends[1]);
    close(ends[0]);
}

Test(emulator, a_tap_interface_is_a_network_in_every_life)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int fd = unshare(CLONE_NEWNET) == 0 ? open("/dev/net/tun", O_RDWR) : -1;

    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0) {
        tear_down();
        cr_skip("no tap interface can be made here (/dev/net/tun, CAP_NET_ADMIN): %s", strerror(errno));
    }
    run_on(fd);
}

Test(emulator, it_keeps_its_rights_where_that_is_wished)
{
    emulator_run_guest(&run, "-smp", "2,sockets=2,cores=1,threads=1", "-sandbox", "off", NULL);
    expect_confined(0);
}

/* The domain guest, and what makes Linux of a file. */
static void make_linux(char path[128])
{
    static char bytes[1 << 20];
    FILE *from = fopen(domain_guest_path(), "re"), *to;
    size_t count;

    snprintf(path, 128, "%s/linux", run.folder);
    to = fopen(path, "we");
    cr_assert(from != NULL && to != NULL);
    count = fread(bytes, 1, sizeof bytes, from);
    cr_assert(count < sizeof bytes && fwrite(bytes, 1, count, to) == count && fputs("Linux version 6.1", to) >= 0);
    fclose(from);
    fclose(to);
}

static bool kvm_lacks_xrstor(void)
{
    struct kvm kvm;
    bool lacks = kvm_open(KVM_DEVICE, &kvm, NULL) == LOAM_OK && !tune_declares_xsave(&kvm) && tune_try(&kvm).xrstor;

    kvm_close(&kvm);
    return lacks;
}

static void expect_words(const char *words, const char *option, const char *value)
{
    char kernel[128], said[64];

    make_linux(kernel);
    emulator_run_start(&run, kernel, "-append", "quiet", option, value, NULL);
    emulator_run_connect(&run);
    act("cont");
    snprintf(said, sizeof said, "domain guest: %s\r\n", words);
    emulator_run_expect(&run, said);
    unlink(kernel);
    act("quit");
}

Test(emulator, linux_is_told_what_this_kvm_lacks)
{
    bool lacks = kvm_lacks_xrstor();

    expect_words(lacks ? "noxsave quiet" : "quiet", NULL, NULL);
    expect_end(0, lacks ? "loam-emulator: command line: noxsave added, since the KVM of this host lacks XRSTOR" : "");
}

Test(emulator, linux_is_told_nothing_where_that_is_wished)
{
    expect_words("quiet", "-x-loam", "tune=off");
}

Test(emulator, linux_is_told_of_the_devices_there_are)
{
    emulator_run_guest(&run, "-append", "quiet", "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device",
                       "virtio-rng-device,rng=rng0,id=rng1", NULL);
    cr_expect_not_null(strstr(run.said, "domain guest: quiet virtio_mmio.device=4K@0xd0000000:5\r\n"), "%s", run.said);
}

Test(emulator, a_kernel_that_is_told_of_devices_is_told_no_more)
{
    emulator_run_guest(&run, "-append", "virtio_mmio.device=4K@0xd0000000:7", "-object",
                       "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng0,id=rng1",
                       NULL);
    cr_expect_not_null(strstr(run.said, "domain guest: virtio_mmio.device=4K@0xd0000000:7\r\n"), "%s", run.said);
}

Test(emulator, acpi_tells_of_the_devices_there_are)
{
    emulator_run_guest(&run, "-append", "quiet", "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device",
                       "virtio-rng-device,rng=rng0,id=rng1", "-device", "virtio-balloon-device,id=balloon0", NULL);
    emulator_run_type(&run, "d");
    emulator_run_expect(&run, "ACPI\r\ndevices 0x2\r\n");
}

Test(emulator, a_guest_without_acpi_finds_none)
{
    emulator_run_guest(&run, "-no-acpi", "-device", "virtio-balloon-device,id=balloon0", NULL);
    emulator_run_type(&run, "d");
    emulator_run_expect(&run, "no ACPI\r\ndevices 0x0\r\n");
}

/* --- Bad lines ------------------------------------------------------------------------------------------------------ */

static void expect_refused(const char *says)
{
    expect_end(1, says);
    cr_expect_eq(strncmp(run.process.err, "loam-emulator: ", 15), 0, "%s", run.process.err);
    cr_expect_eq(strchr(run.process.err, '\n'), run.process.err + strlen(run.process.err) - 1, "more than a line: %s",
                 run.process.err);
}

Test(emulator, what_is_not_known_is_refused_by_name)
{
    emulator_run_start(&run, domain_guest_path(), "-device", "virtio-gpu-device,id=gpu0", NULL);
    expect_refused("virtio-gpu-device");
}

Test(emulator, memory_that_the_host_does_not_have_is_refused_in_words)
{
    run.memory = "memory-backend-memfd,prealloc=on";
    run.mib = "16777216";
    emulator_run_start(&run, domain_guest_path(), NULL);
    expect_refused("loam-emulator: memory: ");
}

Test(emulator, a_guest_has_more_processors_than_its_host)
{
    char count[32];

    snprintf(count, sizeof count, "%ld", sysconf(_SC_NPROCESSORS_ONLN) + 1);
    emulator_run_guest(&run, "-smp", count, NULL);
}

Test(emulator, memory_that_is_no_multiple_of_its_page_is_refused_in_words)
{
    run.memory = "memory-backend-memfd,hugetlb=on,hugetlbsize=1073741824,prealloc=on";
    emulator_run_start(&run, domain_guest_path(), NULL);
    expect_refused("loam-emulator: ");
}

Test(emulator, a_kernel_that_is_not_there_is_named)
{
    emulator_run_start(&run, "/nonexistent/kernel", NULL);
    expect_refused("/nonexistent/kernel");
}

Test(emulator, a_kernel_that_is_none_is_refused)
{
    emulator_run_start(&run, "/proc/self/exe", NULL);
    expect_refused("exe");
}

/* --- Pause ------------------------------------------------------------------------------------------------------------ */

/* Processor time that a thread has had, in nanoseconds: the first figure of its schedstat (Linux: sched-stats.rst). */
static unsigned long long time_of(pid_t thread)
{
    char text[256];

    read_of_thread(thread, "schedstat", text, sizeof text);
    return strtoull(text, NULL, 10);
}

/* Questions and answers for a while: long enough for a guest that runs to show. */
static void ask_for(int64_t milliseconds)
{
    struct timespec now;
    int64_t end;

    clock_gettime(CLOCK_MONOTONIC, &now);
    end = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 + milliseconds;
    do {
        act("query-status");
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 < end);
}

Test(emulator, a_guest_that_is_stopped_stands_still_and_goes_on_where_it_was)
{
    const unsigned long long millisecond = 1000000;
    unsigned long long spent;
    uint64_t before;

    emulator_run_guest(&run, NULL, NULL);
    before = emulator_run_count(&run);
    spent = time_of(thread_of(0));
    ask_for(100);
    cr_expect_gt(time_of(thread_of(0)) - spent, millisecond, "this thread does not run the guest");
    act("stop");
    cr_expect(emulator_run_has(&run, "STOP"), "the event comes before the reply");
    emulator_run_expect_status(&run, "paused");
    spent = time_of(thread_of(0));
    emulator_run_type(&run, "bstill here\n");
    ask_for(300);
    cr_expect_lt(time_of(thread_of(0)) - spent, millisecond, "it runs on");
    act("stop");
    act("cont");
    emulator_run_expect(&run, "still here");
    cr_expect_gt(emulator_run_count(&run), before);
    emulator_run_expect_status(&run, "running");
}

Test(emulator, stop_and_cont_a_hundred_times_lose_nothing)
{
    uint64_t last = 0;

    emulator_run_guest(&run, NULL, NULL);
    for (int i = 0; i < 100; i++) {
        char text[32], expected[32];
        uint64_t now;

        snprintf(text, sizeof text, "bround %d.\n", i);
        snprintf(expected, sizeof expected, "round %d.", i);
        emulator_run_type(&run, text);
        act("stop");
        act("cont");
        emulator_run_expect(&run, expected);
        now = emulator_run_count(&run);
        cr_assert_gt(now, last);
        last = now;
    }
}

/* --- The guest's end ------------------------------------------------------------------------------------------------- */

Test(emulator, the_power_button_shuts_a_guest_down_that_listens)
{
    emulator_run_guest(&run, "-no-shutdown", NULL);
    act("system_powerdown");
    await_event("POWERDOWN", NULL, NULL);
    await_event("SHUTDOWN", "reason", "guest-shutdown");
    await_event("STOP", NULL, NULL);
    emulator_run_expect(&run, "button\r\n");
    emulator_run_expect_status(&run, "shutdown");
    emulator_run_refused(&run, "cont", NULL, "GenericError", "system_reset");
}

Test(emulator, a_guest_that_shut_down_gets_another_life_in_the_same_process)
{
    pid_t thread;

    emulator_run_guest(&run, "-no-shutdown", NULL);
    thread = thread_of(0);
    emulator_run_type(&run, "o");
    await_event("SHUTDOWN", "guest", "true");
    act("system_reset");
    act("cont");
    await_event("RESET", "reason", "host-qmp-system-reset");
    emulator_run_expect(&run, "fresh memory\r\nready\r\n");
    cr_expect_eq(thread_of(0), thread, "whoever pinned the thread has lost it");
    emulator_run_expect_status(&run, "running");
    cr_expect_gt(emulator_run_count(&run), 0);
}

Test(emulator, without_no_shutdown_the_process_ends_with_the_guest)
{
    emulator_run_guest(&run, NULL, NULL);
    emulator_run_type(&run, "e");
    await_event("SHUTDOWN", "reason", "guest-shutdown");
    expect_end(0, "");
    cr_expect_str_eq(run.process.err, "");
}

Test(emulator, a_reset_is_a_new_life_whoever_asks_for_it)
{
    emulator_run_guest(&run, NULL, NULL);
    emulator_run_type(&run, "r");
    await_event("RESET", "reason", "guest-reset");
    emulator_run_expect(&run, "fresh memory\r\nready\r\n");
    act("system_reset");
    await_event("RESET", "guest", "false");
    emulator_run_expect(&run, "fresh memory\r\nready\r\n");
}

Test(emulator, a_reset_while_paused_leaves_it_so)
{
    emulator_run_guest(&run, NULL, NULL);
    act("stop");
    act("system_reset");
    await_event("RESET", NULL, NULL);
    emulator_run_expect_status(&run, "prelaunch");
    act("cont");
    emulator_run_expect(&run, "fresh memory\r\nready\r\n");
}

Test(emulator, with_no_reboot_a_reset_is_a_shutdown)
{
    emulator_run_guest(&run, "-no-reboot", "-no-shutdown", NULL);
    emulator_run_type(&run, "r");
    await_event("SHUTDOWN", "reason", "guest-reset");
    await_event("STOP", NULL, NULL);
    emulator_run_expect_status(&run, "shutdown");
}

Test(emulator, actions_can_be_set_while_it_runs)
{
    emulator_run_guest(&run, NULL, NULL);
    emulator_run_refused(&run, "set-action", json_pack("{ss}", "panic", "none"), "GenericError", "exit-failure");
    emulator_run_refused(&run, "set-action", json_pack("{ssss}", "shutdown", "pause", "reboot", "never"),
                         "GenericError", "reboot=never");
    emulator_run_refused(&run, "set-action", json_pack("{ss}", "watchdog", "none"), "GenericError", "watchdog");
    json_decref(emulator_run_do(&run, "set-action", json_pack("{ssss}", "shutdown", "pause", "reboot", "shutdown")));
    emulator_run_type(&run, "r");
    await_event("SHUTDOWN", "reason", "guest-reset");
    emulator_run_expect_status(&run, "shutdown");
}

Test(emulator, a_guest_that_resets_itself_for_ever_is_stopped)
{
    emulator_run_guest(&run, "-no-shutdown", NULL);
    for (int i = 0; i < 9; i++) {
        emulator_run_type(&run, "r");
        emulator_run_expect(&run, "ready\r\n");
    }
    emulator_run_type(&run, "r");
    await_event("GUEST_PANICKED", "action", "pause");
    act("quit");
    expect_end(0, "10 times in a row");
}

static void expect_crash(const char *command, const char *says)
{
    emulator_run_guest(&run, "-no-shutdown", NULL);
    emulator_run_type(&run, command);
    await_event("GUEST_PANICKED", "action", "pause");
    await_event("STOP", NULL, NULL);
    emulator_run_expect_status(&run, "guest-panicked");
    act("system_reset");
    act("cont");
    emulator_run_expect(&run, "ready\r\n");
    act("quit");
    await_event("SHUTDOWN", "reason", "host-qmp-quit");
    expect_end(0, says);
}

Test(emulator, a_panic_is_told)
{
    expect_crash("p", "loam-emulator: the guest has panicked\n");
}

Test(emulator, a_guest_that_stops_itself_with_a_code_has_crashed)
{
    expect_crash("x", "loam-emulator: the guest stopped itself with code 3\n");
}

Test(emulator, a_triple_fault_is_a_crash_and_is_explained)
{
    expect_crash("t", "loam-emulator: the guest ended in a triple fault");
}

/* Nobody asks for it: the emulator looks by itself. */
Test(emulator, a_guest_that_is_halted_for_good_has_crashed)
{
    expect_crash("h", "loam-emulator: the guest is halted for good: HLT with interrupts off, at 0x");
}

Test(emulator, a_crash_is_told_with_where_the_guest_stood)
{
    expect_crash("h", "vCPU 0 was halted with interrupts off at 0x");
}

Test(emulator, a_panic_can_end_the_process)
{
    emulator_run_guest(&run, NULL, NULL);
    json_decref(emulator_run_do(&run, "set-action", json_pack("{ss}", "panic", "exit-failure")));
    emulator_run_type(&run, "p");
    await_event("GUEST_PANICKED", "action", "poweroff");
    await_event("SHUTDOWN", "reason", "guest-panic");
    expect_end(1, "panicked");
}

/* --- The process's end ----------------------------------------------------------------------------------------------- */

Test(emulator, sigterm_ends_it_at_once)
{
    emulator_run_guest(&run, "-no-shutdown", NULL);
    kill(run.process.pid, SIGTERM);
    await_event("SHUTDOWN", "reason", "host-signal");
    expect_end(0, "");
    cr_expect_str_eq(run.process.err, "");
}

Test(emulator, sigterm_ends_it_in_every_state)
{
    const char *const states[] = {"stop", "system_reset", "quit"};

    for (unsigned i = 0; i < sizeof states / sizeof states[0]; i++) {
        emulator_run_guest(&run, "-no-shutdown", NULL);
        act(states[i]);
        kill(run.process.pid, SIGTERM);
        expect_end(0, "");
        emulator_run_end(&run);
        emulator_run_init(&run);
    }
}

Test(emulator, a_process_that_is_killed_leaves_nothing)
{
    emulator_run_guest(&run, NULL, NULL);
    kill(run.process.pid, SIGKILL);
    cr_expect_eq(process_wait(&run.process), 128 + SIGKILL);
}

/* --- The monitor ------------------------------------------------------------------------------------------------------ */

Test(emulator, whoever_hangs_up_can_come_back)
{
    emulator_run_guest(&run, NULL, NULL);
    for (int i = 0; i < 10; i++) {
        emulator_run_hang_up(&run);
        emulator_run_connect(&run);
        emulator_run_expect_status(&run, "running");
    }
    cr_expect_gt(emulator_run_count(&run), 0);
}

Test(emulator, questions_are_answered_while_a_new_life_is_made)
{
    run.memory = "memory-backend-memfd,prealloc=on,prealloc-threads=1";
    run.mib = "512";
    emulator_run_guest(&run, NULL, NULL);
    act("system_reset");
    emulator_run_expect_status(&run, "running");
    emulator_run_refused(&run, "x-loam-pages", NULL, "GenericError", "RESET");
    act("stop");
    act("cont");
    cr_expect_not(emulator_run_has(&run, "RESET"), "making the memory took no time: this shows nothing");
    await_event("RESET", NULL, NULL);
    emulator_run_expect(&run, "ready\r\n");
}

static json_t *first_of(json_t *list)
{
    cr_assert_gt(json_array_size(list), 0);
    return json_array_get(list, 0);
}

Test(emulator, loams_own_queries_tell_what_the_guest_has)
{
    json_t *answer;

    emulator_run_guest(&run, NULL, NULL);
    answer = emulator_run_do(&run, "x-loam-plan", NULL);
    cr_expect_eq(json_integer_value(json_object_get(answer, "bytes")), 64 << 20);
    json_decref(answer);
    answer = emulator_run_do(&run, "x-loam-ledger", NULL);
    cr_expect_str_eq(json_string_value(json_object_get(first_of(answer), "owner")), "null");
    json_decref(answer);
    answer = emulator_run_do(&run, "x-loam-memory-map", NULL);
    cr_expect_str_eq(json_string_value(json_object_get(first_of(answer), "type")), "ram");
    json_decref(answer);
    answer = emulator_run_do(&run, "x-loam-pages", NULL);
    cr_expect_eq(json_integer_value(json_object_get(first_of(answer), "bytes")), 64 << 20);
    cr_expect_gt(json_integer_value(json_object_get(first_of(answer), "resident_bytes")), 0);
    cr_expect_geq(json_integer_value(json_object_get(first_of(answer), "page_bytes")), 4096);
    json_decref(answer);
    emulator_run_refused(&run, "x-loam-pages", json_pack("{si}", "part", 1), "GenericError", "part");
}

Test(emulator, the_command_line_s_devices_are_listed)
{
    json_t *list;

    emulator_run_guest(&run, NULL, NULL);
    list = emulator_run_do(&run, "qom-list", json_pack("{ss}", "path", "/machine/peripheral"));
    cr_expect_str_eq(json_string_value(json_object_get(first_of(list), "name")), "serial0");
    json_decref(list);
    emulator_run_refused(&run, "qom-list", json_pack("{ss}", "path", "/elsewhere"), "DeviceNotFound", "/elsewhere");
    emulator_run_refused(&run, "query-balloon", NULL, "DeviceNotActive", "balloon");
    list = emulator_run_do(&run, "query-block", NULL);
    cr_expect_eq(json_array_size(list), 0);
    json_decref(list);
}

static void give(const char *command, json_t *arguments)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    json_t *reply = emulator_run_ask_with(&run, command, arguments, null);

    cr_expect_not_null(json_object_get(reply, "return"), "%s", command);
    json_decref(reply);
    close(null);
}

static size_t count_sets(void)
{
    json_t *sets = emulator_run_do(&run, "query-fdsets", NULL);
    size_t count = json_array_size(sets);

    json_decref(sets);
    return count;
}

Test(emulator, descriptors_are_kept_by_name_and_in_sets)
{
    emulator_run_guest(&run, NULL, NULL);
    emulator_run_refused(&run, "getfd", json_pack("{ss}", "fdname", "migrate"), "GenericError", "SCM_RIGHTS");
    emulator_run_refused(&run, "closefd", json_pack("{ss}", "fdname", "migrate"), "GenericError", "migrate");
    give("getfd", json_pack("{ss}", "fdname", "migrate"));
    json_decref(emulator_run_do(&run, "closefd", json_pack("{ss}", "fdname", "migrate")));
    emulator_run_refused(&run, "closefd", json_pack("{ss}", "fdname", "migrate"), "GenericError", "migrate");
    give("add-fd", NULL);
    give("add-fd", json_pack("{siss}", "fdset-id", 7, "opaque", "mine"));
    cr_expect_eq(count_sets(), 2);
    json_decref(emulator_run_do(&run, "remove-fd", json_pack("{si}", "fdset-id", 7)));
    cr_expect_eq(count_sets(), 1);
    emulator_run_refused(&run, "remove-fd", json_pack("{si}", "fdset-id", 7), "GenericError", "7");
    emulator_run_refused(&run, "remove-fd", NULL, "GenericError", "fdset-id");
}

/* --- Disks ------------------------------------------------------------------------------------------------------------- */

static char disk_path[96];

static void make_disk(off_t bytes)
{
    int fd;

    snprintf(disk_path, sizeof disk_path, "%s/disk", run.folder);
    fd = open(disk_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

/* As libvirt writes it: a node of the file, a node of the format, and the device. */
#define DISK(file, format)                                                                                             \
    "-blockdev", (file), "-blockdev", (format), "-device", "virtio-blk-device,drive=disk-format,id=virtio-disk0"

#define FORMAT "{\"node-name\":\"disk-format\",\"driver\":\"raw\",\"file\":\"disk-storage\"}"

static char *storage(void)
{
    static char text[256];

    snprintf(text, sizeof text, "{\"driver\":\"file\",\"filename\":\"%s\",\"node-name\":\"disk-storage\"}", disk_path);
    return text;
}

static void expect_node(const json_t *node, const char *name, json_int_t bytes)
{
    cr_expect_str_eq(json_string_value(json_object_get(node, "node-name")), name);
    cr_expect_str_eq(json_string_value(json_object_get(node, "file")), disk_path);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(node, "image"), "virtual-size")), bytes);
}

Test(emulator, a_disk_is_there_with_its_nodes_and_figures)
{
    json_t *answer;

    make_disk(1 << 20);
    emulator_run_guest(&run, DISK(storage(), FORMAT), NULL);
    cr_expect_not_null(strstr(run.said, "virtio_mmio.device=4K@0xd0000000:5\r\n"), "%s", run.said);
    answer = emulator_run_do(&run, "query-block", NULL);
    cr_expect_str_eq(json_string_value(json_object_get(first_of(answer), "qdev")),
                     "/machine/peripheral/virtio-disk0/virtio-backend");
    json_decref(answer);
    answer = emulator_run_do(&run, "query-named-block-nodes", NULL);
    cr_assert_eq(json_array_size(answer), 2);
    expect_node(json_array_get(answer, 0), "disk-format", 1 << 20);
    expect_node(json_array_get(answer, 1), "disk-storage", 1 << 20);
    json_decref(answer);
    answer = emulator_run_do(&run, "query-blockstats", NULL);
    cr_expect_eq(json_array_size(answer), 1);
    cr_expect(json_is_integer(json_object_get(json_object_get(first_of(answer), "stats"), "rd_bytes")));
    json_decref(answer);
    answer = emulator_run_do(&run, "query-blockstats", json_pack("{sb}", "query-nodes", 1));
    cr_expect_eq(json_array_size(answer), 2);
    json_decref(answer);
    act("stop");
    act("cont");
    act("system_reset");
    emulator_run_expect(&run, "ready\r\n");
    unlink(disk_path);
}

Test(emulator, a_disk_without_its_file_is_refused_by_name)
{
    make_disk(0);
    unlink(disk_path);
    emulator_run_start(&run, domain_guest_path(), DISK(storage(), FORMAT), NULL);
    expect_refused(disk_path);
}

Test(emulator, a_pipe_is_no_disk_and_is_not_waited_for)
{
    make_disk(0);
    unlink(disk_path);
    cr_assert_eq(mkfifo(disk_path, 0600), 0);
    emulator_run_start(&run, domain_guest_path(),
                       DISK(storage(), "{\"node-name\":\"disk-format\",\"driver\":\"raw\",\"read-only\":true,"
                                       "\"file\":\"disk-storage\"}"),
                       NULL);
    expect_refused("neither a regular file nor a block device");
    unlink(disk_path);
}

Test(emulator, a_number_is_not_written_into_a_pipe_that_nobody_reads)
{
    char path[96];

    snprintf(path, sizeof path, "%s/pid", run.folder);
    cr_assert_eq(mkfifo(path, 0600), 0);
    emulator_run_start(&run, domain_guest_path(), "-pidfile", path, NULL);
    expect_refused(path);
    unlink(path);
}

/* --- The balloon ------------------------------------------------------------------------------------------------------ */

static json_int_t resident_bytes(void)
{
    json_t *pages = emulator_run_do(&run, "x-loam-pages", NULL);
    json_int_t bytes = json_integer_value(json_object_get(first_of(pages), "resident_bytes"));

    json_decref(pages);
    return bytes;
}

static json_int_t balloon_bytes(void)
{
    json_t *answer = emulator_run_do(&run, "query-balloon", NULL);
    json_int_t bytes = json_integer_value(json_object_get(answer, "actual"));

    json_decref(answer);
    return bytes;
}

/* Of several events, which come once a second, the one with this figure. */
static void await_balloon(json_int_t bytes)
{
    json_int_t actual = -1;

    while (actual != bytes) {
        json_t *event = emulator_run_await(&run, "BALLOON_CHANGE");

        actual = json_integer_value(json_object_get(json_object_get(event, "data"), "actual"));
        json_decref(event);
    }
}

Test(emulator, a_balloon_takes_memory_and_gives_it_back)
{
    const json_int_t whole = 64 << 20, small = 8 << 20;

    run.memory = "memory-backend-memfd,share=on,prealloc=on";
    emulator_run_guest(&run, "-device", "virtio-balloon-device,id=balloon0", NULL);
    cr_expect_eq(balloon_bytes(), whole);
    cr_expect_eq(resident_bytes(), whole);
    emulator_run_refused(&run, "balloon", NULL, "GenericError", "value");
    emulator_run_refused(&run, "balloon", json_pack("{si}", "value", 0), "GenericError", "value");
    json_decref(emulator_run_do(&run, "balloon", json_pack("{sI}", "value", small)));
    await_balloon(small);
    cr_expect_eq(balloon_bytes(), small);
    cr_expect_leq(resident_bytes(), small + (1 << 20), "the host has not got the memory back");
    json_decref(emulator_run_do(&run, "balloon", json_pack("{sI}", "value", 2 * whole)));
    await_balloon(whole);
    cr_expect_gt(emulator_run_count(&run), 0);
}

/* What was wanted stays so, and what the guest had given up is told to be back. */
Test(emulator, a_balloon_s_size_is_wanted_in_the_next_life_too)
{
    const json_int_t whole = 64 << 20, small = 32 << 20;

    emulator_run_guest(&run, "-device", "virtio-balloon-device,id=balloon0", NULL);
    json_decref(emulator_run_do(&run, "balloon", json_pack("{sI}", "value", small)));
    await_balloon(small);
    act("stop");
    act("system_reset");
    await_event("RESET", NULL, NULL);
    await_balloon(whole);
    act("cont");
    await_balloon(small);
}

/* --- The self-test --------------------------------------------------------------------------------------------------- */

Test(emulator, without_a_kernel_the_self_test_gives_its_verdict)
{
    emulator_run_start(&run, NULL, "-no-shutdown", "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device",
                       "virtio-rng-device,rng=rng0,id=rng1", NULL);
    emulator_run_connect(&run);
    act("cont");
    await_event("SHUTDOWN", "reason", "guest-shutdown");
    emulator_run_expect(&run, "loam: self-test: pass");
    emulator_run_expect_status(&run, "shutdown");
}
