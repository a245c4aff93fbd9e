// SPDX-License-Identifier: Apache-2.0
/*
 * Guests that go from one emulator to another, as libvirt has them go: over sockets, pipes and files; and streams that are cut,
 * made up, or lead nowhere. The witness (guest/witness.c) tells whether anything of it was lost.
 */
#include "tests/emulator/emulator_run.h"

#include "tests/vmm/random.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SEED UINT64_C(1500)

static struct emulator_run runs[2];

static void set_up(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip("no access to /dev/kvm");
    }
    (void)signal(SIGPIPE, SIG_IGN);
    for (int i = 0; i < 2; i++) {
        emulator_run_init(&runs[i]);
        runs[i].mib = "16";
    }
}

/* A test's own files, and the socket of one that was killed while it waited there. */
static void end_run(struct emulator_run *run)
{
    static const char *const names[] = {"move", "saved", "disk"};
    char path[128];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", run->folder, names[i]);
        (void)unlink(path);
    }
    emulator_run_end(run);
}

static void tear_down(void)
{
    end_run(&runs[0]);
    end_run(&runs[1]);
}

TestSuite(move, .init = set_up, .fini = tear_down, .timeout = 300);

static char *witness_path(void)
{
    return getenv("LOAM_WITNESS");
}

static void have_events(struct emulator_run *run, bool pauses, bool has_return_path)
{
    json_decref(emulator_run_do(run, "migrate-set-capabilities",
                                json_pack("{s[{sssb}{sssb}{sssb}]}", "capabilities", "capability", "events", "state", 1,
                                          "capability", "pause-before-switchover", "state", pauses, "capability",
                                          "return-path", "state", has_return_path)));
}

static void start_witness(struct emulator_run *run)
{
    emulator_run_start(run, witness_path(), "-S", "-no-shutdown", NULL);
    emulator_run_connect(run);
    have_events(run, false, false);
    json_decref(emulator_run_do(run, "cont", NULL));
    emulator_run_expect(run, "round 0x1 ");
}

static void start_empty(struct emulator_run *run)
{
    emulator_run_start(run, witness_path(), "-S", "-no-shutdown", "-incoming", "defer", NULL);
    emulator_run_connect(run);
    have_events(run, false, false);
    emulator_run_expect_status(run, "inmigrate");
}

/* Whatever the status is next, it is this. */
static void await(struct emulator_run *run, const char *status)
{
    json_t *event = emulator_run_await(run, "MIGRATION");

    cr_assert_str_eq(json_string_value(json_object_get(json_object_get(event, "data"), "status")), status);
    json_decref(event);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0, "%s", path);
    return fd;
}

/* Where a guest is waited for: a descriptor by which it can be sent. */
static int open_door(struct emulator_run *run)
{
    char path[128], uri[160];

    snprintf(path, sizeof path, "%s/move", run->folder);
    snprintf(uri, sizeof uri, "unix:%s", path);
    json_decref(emulator_run_do(run, "migrate-incoming", json_pack("{ss}", "uri", uri)));
    await(run, "setup");
    await(run, "active");
    return connect_to(path);
}

static void send_to(struct emulator_run *run, int fd)
{
    json_decref(emulator_run_ask_with(run, "getfd", json_pack("{ss}", "fdname", "migrate"), fd));
    close(fd);
    json_decref(emulator_run_do(run, "migrate", json_pack("{ss}", "uri", "fd:migrate")));
    await(run, "setup");
    await(run, "active");
}

/* Two rounds, and its end. */
static void finish(struct emulator_run *run)
{
    emulator_run_expect(run, "witness: round");
    emulator_run_expect(run, "witness: round");
    emulator_run_expect(run, "witness: round");
    emulator_run_type(run, "q");
    emulator_run_expect(run, "witness: pass");
    cr_expect_null(strstr(run->said, "fail"), "%s", run->said);
}

static void end(struct emulator_run *run)
{
    end_run(run);
    emulator_run_init(run);
    run->mib = "16";
}

/* --- There and back ------------------------------------------------------------------------------------------------- */

Test(move, over_a_socket_again_and_again)
{
    const char *rounds = getenv("LOAM_MOVE_ROUNDS");
    int count = rounds != NULL ? atoi(rounds) : 10, here = 0;

    start_witness(&runs[0]);
    for (int i = 0; i < count; i++, here = !here) {
        start_empty(&runs[!here]);
        send_to(&runs[here], open_door(&runs[!here]));
        await(&runs[here], "device");
        await(&runs[here], "completed");
        emulator_run_expect_status(&runs[here], "postmigrate");
        await(&runs[!here], "completed");
        emulator_run_expect_status(&runs[!here], "paused");
        json_decref(emulator_run_do(&runs[!here], "cont", NULL));
        end(&runs[here]);
        emulator_run_expect(&runs[!here], "witness: round");
        emulator_run_prolong(&runs[!here]);
    }
    finish(&runs[here]);
}

Test(move, over_tcp)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char uri[64];

    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0); /* a port that is free */
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    close(fd);
    snprintf(uri, sizeof uri, "tcp:127.0.0.1:%u", ntohs(address.sin_port));
    start_witness(&runs[0]);
    start_empty(&runs[1]);
    json_decref(emulator_run_do(&runs[1], "migrate-incoming", json_pack("{ss}", "uri", uri)));
    json_decref(emulator_run_do(&runs[1], "cont", NULL)); /* once it has come */
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    send_to(&runs[0], fd);
    await(&runs[0], "device");
    await(&runs[0], "completed");
    finish(&runs[1]);
}

static int open_file(struct emulator_run *run, int flags)
{
    char path[128];
    int fd;

    snprintf(path, sizeof path, "%s/saved", run->folder);
    fd = open(path, flags, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

/* As virsh save and virsh restore: the file is inherited, and a guest that was saved goes on where it was, too. */
Test(move, into_a_file_and_out_of_it)
{
    char uri[32];
    int fd;

    start_witness(&runs[0]);
    json_decref(emulator_run_do(&runs[0], "stop", NULL));
    send_to(&runs[0], open_file(&runs[0], O_RDWR | O_CREAT));
    await(&runs[0], "device");
    await(&runs[0], "completed");
    fd = open_file(&runs[0], O_RDONLY);
    start_empty(&runs[1]);
    snprintf(uri, sizeof uri, "fd:%d", fd);
    json_decref(emulator_run_do(&runs[1], "migrate-incoming", json_pack("{ss}", "uri", uri)));
    close(fd);
    await(&runs[1], "setup");
    await(&runs[1], "active");
    await(&runs[1], "completed");
    json_decref(emulator_run_do(&runs[1], "cont", NULL));
    finish(&runs[1]);
    json_decref(emulator_run_do(&runs[0], "cont", NULL));
    finish(&runs[0]);
}

#define DEVICES                                                                                                        \
    "-blockdev", file, "-blockdev", "driver=raw,node-name=disk,file=storage", "-device",                               \
        "virtio-blk-device,drive=disk,id=vda", "-netdev", "user,id=net", "-device",                                    \
        "virtio-net-device,netdev=net,id=card,mac=52:54:00:12:34:56", "-device", "virtio-balloon-device,id=balloon"

/* Devices go with it: what the guest does with them afterwards, it does with those of the other process. */
Test(move, with_its_devices)
{
    char file[256], path[128];
    uint64_t count;
    int fd;

    snprintf(path, sizeof path, "%s/disk", runs[0].folder);
    fd = open(path, O_RDWR | O_CREAT, 0600);
    cr_assert_eq(ftruncate(fd, 1 << 20), 0);
    close(fd);
    snprintf(file, sizeof file, "driver=file,node-name=storage,filename=%s", path);
    runs[0].mib = runs[1].mib = "64";
    emulator_run_guest(&runs[0], DEVICES, NULL);
    have_events(&runs[0], false, false);
    count = emulator_run_count(&runs[0]);
    emulator_run_start(&runs[1], domain_guest_path(), "-S", "-no-shutdown", "-incoming", "defer", DEVICES, NULL);
    emulator_run_connect(&runs[1]);
    have_events(&runs[1], false, false);
    send_to(&runs[0], open_door(&runs[1]));
    await(&runs[0], "device");
    await(&runs[0], "completed");
    await(&runs[1], "completed");
    json_decref(emulator_run_do(&runs[1], "cont", NULL));
    cr_expect_gt(emulator_run_count(&runs[1]), count);
    json_decref(emulator_run_do(&runs[1], "system_powerdown", NULL));
    json_decref(emulator_run_await(&runs[1], "SHUTDOWN"));
}

/* A receiver whose disk is another refuses it by name, and the sender has it still. */
Test(move, not_to_another_machine)
{
    json_t *answer;

    start_witness(&runs[0]);
    have_events(&runs[0], false, true);
    emulator_run_start(&runs[1], witness_path(), "-S", "-no-shutdown", "-incoming", "defer", "-device",
                       "virtio-balloon-device,id=balloon", NULL);
    emulator_run_connect(&runs[1]);
    have_events(&runs[1], false, true);
    send_to(&runs[0], open_door(&runs[1]));
    await(&runs[0], "device");
    await(&runs[0], "failed");
    cr_expect_eq(process_wait(&runs[1].process), 1);
    cr_expect(strstr(runs[1].process.err, "record virtio") != NULL, "%s", runs[1].process.err);
    answer = emulator_run_do(&runs[0], "query-migrate", NULL);
    cr_expect(strstr(json_string_value(json_object_get(answer, "error-desc")), "it stays here") != NULL);
    json_decref(answer);
    emulator_run_expect_status(&runs[0], "running");
    finish(&runs[0]);
}

Test(move, not_to_other_memory)
{
    start_witness(&runs[0]);
    runs[1].mib = "24";
    start_empty(&runs[1]);
    send_to(&runs[0], open_door(&runs[1]));
    cr_expect_eq(process_wait(&runs[1].process), 1);
    cr_expect(strstr(runs[1].process.err, "RAM of") != NULL, "%s", runs[1].process.err);
}

/* --- Steps ---------------------------------------------------------------------------------------------------------- */

Test(move, waits_before_the_switch)
{
    json_t *answer;

    start_witness(&runs[0]);
    start_empty(&runs[1]);
    have_events(&runs[0], true, true);
    have_events(&runs[1], true, true);
    emulator_run_refused(&runs[0], "migrate-continue", json_pack("{ss}", "state", "pre-switchover"), "GenericError",
                         "nothing waits");
    send_to(&runs[0], open_door(&runs[1]));
    await(&runs[0], "pre-switchover");
    answer = emulator_run_do(&runs[0], "query-migrate", NULL);
    cr_expect_str_eq(json_string_value(json_object_get(answer, "status")), "pre-switchover");
    cr_expect_gt(json_integer_value(json_object_get(json_object_get(answer, "ram"), "transferred")), 1 << 20);
    json_decref(answer);
    emulator_run_refused(&runs[0], "cont", NULL, "GenericError", "migrate_cancel");
    json_decref(emulator_run_do(&runs[0], "migrate-continue", json_pack("{ss}", "state", "pre-switchover")));
    await(&runs[0], "device");
    await(&runs[0], "completed");
    await(&runs[1], "completed");
    json_decref(emulator_run_do(&runs[1], "cont", NULL));
    finish(&runs[1]);
}

Test(move, called_off_before_the_switch)
{
    start_witness(&runs[0]);
    start_empty(&runs[1]);
    have_events(&runs[0], true, false);
    send_to(&runs[0], open_door(&runs[1]));
    await(&runs[0], "pre-switchover");
    json_decref(emulator_run_do(&runs[0], "migrate_cancel", NULL));
    await(&runs[0], "cancelled");
    emulator_run_expect_status(&runs[0], "running");
    finish(&runs[0]);
    end(&runs[0]); /* whose end of the stream closes */
    cr_expect_eq(process_wait(&runs[1].process), 1);
    cr_expect(strstr(runs[1].process.err, "ends before") != NULL, "%s", runs[1].process.err);
}

/* Nobody reads: it would wait for ever. */
Test(move, called_off_while_it_waits_for_its_reader)
{
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    start_witness(&runs[0]);
    send_to(&runs[0], ends[1]);
    emulator_run_expect_status(&runs[0], "running");
    emulator_run_refused(&runs[0], "migrate", json_pack("{ss}", "uri", "fd:migrate"), "GenericError", "fd:NAME");
    json_decref(emulator_run_do(&runs[0], "migrate_cancel", NULL));
    await(&runs[0], "cancelled");
    finish(&runs[0]);
    close(ends[0]);
}

Test(move, a_reader_that_goes_away_costs_nothing)
{
    struct random random = {SEED};

    start_witness(&runs[0]);
    for (int i = 0; i < 20; i++) {
        char bytes[65536];
        size_t left = random_below(&random, 12 << 20);
        int ends[2];
        ssize_t got;

        cr_assert_eq(pipe(ends), 0);
        send_to(&runs[0], ends[1]);
        while (left > 0 && (got = read(ends[0], bytes, left < sizeof bytes ? left : sizeof bytes)) > 0) {
            left -= (size_t)got;
        }
        close(ends[0]);
        await(&runs[0], "failed");
        emulator_run_expect_status(&runs[0], "running");
        emulator_run_prolong(&runs[0]);
    }
    finish(&runs[0]);
}

/* A reader of 16 MiB a second, a sixth of what the witness writes, until something is told of the migration. */
static void read_slowly(struct emulator_run *run, int fd)
{
    char bytes[65536];
    struct timespec due;

    clock_gettime(CLOCK_MONOTONIC, &due);
    while (!emulator_run_has(run, "MIGRATION")) {
        (void)!read(fd, bytes, sizeof bytes);
        json_decref(emulator_run_do(run, "query-migrate", NULL));
        due.tv_nsec += 4000000;
        due.tv_sec += due.tv_nsec / 1000000000;
        due.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
}

/* One that writes faster than its reader reads is given up, with a word, and has lost nothing. */
Test(move, a_guest_that_writes_too_fast_is_not_sent)
{
    json_t *answer;
    int ends[2];

    cr_assert_eq(pipe(ends), 0);
    runs[0].mib = "8";
    start_witness(&runs[0]);
    json_decref(emulator_run_do(&runs[0], "migrate-set-parameters", json_pack("{si}", "downtime-limit", 1)));
    send_to(&runs[0], ends[1]);
    cr_assert_eq(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    read_slowly(&runs[0], ends[0]);
    close(ends[0]);
    emulator_run_prolong(&runs[0]);
    await(&runs[0], "failed");
    answer = emulator_run_do(&runs[0], "query-migrate", NULL);
    cr_expect(strstr(json_string_value(json_object_get(answer, "error-desc")), "migrate-setmaxdowntime") != NULL);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(answer, "ram"), "dirty-sync-count")), 30);
    json_decref(answer);
    emulator_run_expect_status(&runs[0], "running");
    finish(&runs[0]);
}

/* --- Hostile streams -------------------------------------------------------------------------------------------------- */

/* What one that is whole is made of: all of a saved guest. */
static uint8_t *save(size_t *count)
{
    uint8_t *bytes;
    off_t size;
    int fd;

    start_witness(&runs[0]);
    send_to(&runs[0], open_file(&runs[0], O_RDWR | O_CREAT));
    await(&runs[0], "device");
    await(&runs[0], "completed");
    fd = open_file(&runs[0], O_RDONLY);
    size = lseek(fd, 0, SEEK_END);
    bytes = malloc((size_t)size);
    cr_assert_eq(pread(fd, bytes, (size_t)size, 0), size);
    close(fd);
    *count = (size_t)size;
    return bytes;
}

/* It is given up with a word, whatever comes. */
static void expect_refused(const uint8_t *bytes, size_t count, const char *what)
{
    size_t at = 0;
    int fd;

    start_empty(&runs[1]);
    fd = open_door(&runs[1]);
    while (at < count) {
        ssize_t done = send(fd, bytes + at, count - at, MSG_NOSIGNAL);

        if (done <= 0) {
            break; /* it has seen enough */
        }
        at += (size_t)done;
    }
    close(fd);
    await(&runs[1], "failed");
    cr_expect_eq(process_wait(&runs[1].process), 1, "%s", what);
    cr_expect(strstr(runs[1].process.err, "migrate-incoming: ") != NULL, "%s: %s", what, runs[1].process.err);
    end(&runs[1]);
}

Test(move, what_is_no_guest_is_refused)
{
    struct random random = {SEED};
    uint8_t noise[4096];
    size_t count;
    uint8_t *bytes = save(&count);

    for (size_t i = 0; i < sizeof noise; i++) {
        noise[i] = (uint8_t)random_u64(&random);
    }
    expect_refused(noise, sizeof noise, "noise");
    expect_refused(noise, 0, "nothing");
    expect_refused(bytes, count - 1, "cut at its end");
    expect_refused(bytes, 32, "cut after the first word");
    for (int i = 0; i < 12; i++) {
        size_t at = i < 6 ? random_below(&random, 2000) : random_u64(&random) % count;

        bytes[at] ^= 0x10;
        expect_refused(bytes, count, "a changed bit");
        bytes[at] ^= 0x10;
    }
    free(bytes);
}

/* --- Ends at any time --------------------------------------------------------------------------------------------------- */

/* Either end may be killed at any moment: the other has the guest, or says why it has not. */
Test(move, killed_at_any_time)
{
    struct random random = {SEED};

    for (int i = 0; i < 12; i++) {
        struct emulator_run *killed = &runs[i % 2], *left = &runs[!(i % 2)];

        start_witness(&runs[0]);
        start_empty(&runs[1]);
        send_to(&runs[0], open_door(&runs[1]));
        usleep(random_below(&random, 30000)); /* at random: what it has come to by then does not matter */
        kill(killed->process.pid, SIGKILL);
        if (left == &runs[0]) {
            json_t *answer = emulator_run_do(left, "query-status", NULL);

            json_decref(answer);
        } else {
            json_t *event = emulator_run_await(left, "MIGRATION");

            json_decref(event);
        }
        end(&runs[0]);
        end(&runs[1]);
    }
}
