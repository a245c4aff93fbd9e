// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that means harm to every device at once, while its owner asks things of the program that runs it. The program ends
 * as the guest wanted it to in the end, and no device has written where the guest may not be written.
 *
 * A seed gives the guest's steps again, not how the two processors and the devices' threads fall together.
 */
#include "tests/emulator/emulator_run.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEPS      20000
#define REPORTS    16
#define DISK_BYTES (8 << 20)

static struct emulator_run run;
static char disk_path[96], constant_path[96];

static void make_disk(char *path, const char *name)
{
    int fd;

    snprintf(path, sizeof disk_path, "%s/%s", run.folder, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, DISK_BYTES), 0);
    close(fd);
}

static void set_up(void)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip("no /dev/kvm");
    }
    signal(SIGPIPE, SIG_IGN);
    emulator_run_init(&run);
    make_disk(disk_path, "disk");
    make_disk(constant_path, "constant");
}

static void tear_down(void)
{
    unlink(disk_path);
    unlink(constant_path);
    emulator_run_end(&run);
}

TestSuite(adversary, .init = set_up, .fini = tear_down, .timeout = 1800);

static const char *node(const char *path, const char *name, bool is_constant)
{
    static char texts[2][256];
    char *text = texts[is_constant];

    snprintf(text, sizeof texts[0], "{\"driver\":\"file\",\"filename\":\"%s\",\"node-name\":\"%s\",\"read-only\":%s}",
             path, name, is_constant ? "true" : "false");
    return text;
}

static void start(unsigned seed, unsigned long steps)
{
    const char *guest = getenv("LOAM_ADVERSARY");
    char line[64];

    cr_assert_not_null(guest, "LOAM_ADVERSARY names the guest");
    snprintf(line, sizeof line, "%u %lu", seed, steps);
    emulator_run_start(
        &run, guest, "-append", line, "-smp", "2,sockets=2,cores=1,threads=1", "-blockdev", node(disk_path, "a", false),
        "-blockdev", "{\"node-name\":\"af\",\"driver\":\"raw\",\"file\":\"a\",\"discard\":\"unmap\"}", "-device",
        "virtio-blk-device,drive=af,id=d0", "-blockdev", node(constant_path, "b", true), "-blockdev",
        "{\"node-name\":\"bf\",\"driver\":\"raw\",\"read-only\":true,\"file\":\"b\"}", "-device",
        "virtio-blk-device,drive=bf,id=d1", "-netdev", "user,id=n0", "-device",
        "virtio-net-device,netdev=n0,id=net0,mac=52:54:00:12:34:56", "-object",
        "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng0,id=rng1", "-device",
        "virtio-balloon-device,id=balloon0,free-page-reporting=on", "-device", "pvpanic,ioport=1285", NULL);
    emulator_run_connect(&run);
    json_decref(emulator_run_do(&run, "cont", NULL));
}

/* Whatever the answer: what is not answered fails the test. */
static void ask(struct random *random)
{
    static const char *const commands[] = {"query-status",     "query-balloon",   "query-blockstats",  "query-block",
                                           "system_powerdown", "query-cpus-fast", "x-loam-memory-map", "x-loam-ledger"};

    json_decref(emulator_run_ask(&run, commands[random_below(random, sizeof commands / sizeof commands[0])], NULL));
    json_decref(
        emulator_run_do(&run, "balloon", json_pack("{si}", "value", (1 + (int)random_below(random, 64)) << 20)));
    json_decref(emulator_run_do(&run, "stop", NULL));
    json_decref(emulator_run_do(&run, "cont", NULL));
}

static void expect_reports(unsigned seed)
{
    struct random random = {seed};
    char report[64];

    emulator_run_expect(&run, "adversary: devices 0x5\r\n");
    for (int i = 1; i <= REPORTS; i++) {
        snprintf(report, sizeof report, "adversary: report 0x%x\r\n", (unsigned)i);
        emulator_run_prolong(&run);
        emulator_run_expect(&run, report);
        ask(&random);
    }
}

/* So many of what the guest says that it has reached: each more than none, or it proves little. */
static void expect_reached(void)
{
    static const char *const names[] = {"reached interrupts ", " refusals ", " net ", " disk ", " rng ", " balloon "};
    const char *said;
    size_t from;

    emulator_run_expect(&run, "adversary: ");
    from = run.said_looked;
    emulator_run_expect(&run, " end\r\n");
    said = run.said + from;
    cr_log_info("%.*s", (int)strcspn(said, "\r"), said);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *found = strstr(said, names[i]);

        cr_assert_not_null(found, "%s: %s", names[i], said);
        cr_expect_gt(strtoull(found + strlen(names[i]), NULL, 0), 0, "no%s: %s", names[i], said);
    }
}

static void expect_disk(const char *path, bool is_constant)
{
    struct stat status;

    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_size, DISK_BYTES, "%s", path);
    cr_expect(!is_constant || status.st_blocks == 0, "%s was written", path);
}

static void attack(unsigned seed, unsigned long steps)
{
    start(seed, steps);
    expect_reports(seed);
    expect_reached();
    cr_expect_eq(process_wait(&run.process), 0, "seed %u: status %d: %s", seed, run.process.status, run.process.err);
    expect_disk(disk_path, false);
    expect_disk(constant_path, true);
}

Test(adversary, every_device_holds_against_one_seed)
{
    const char *steps = getenv("LOAM_ADVERSARY_STEPS");

    attack(1, steps != NULL ? strtoul(steps, NULL, 0) : STEPS);
}

Test(adversary, every_device_holds_against_another_seed)
{
    attack(2, STEPS);
}

Test(adversary, a_reset_in_the_midst_begins_anew)
{
    start(3, STEPS);
    for (int i = 0; i < 4; i++) {
        emulator_run_expect(&run, "adversary: devices 0x5\r\n");
        emulator_run_expect(&run, "adversary: report 0x1\r\n");
        json_decref(emulator_run_do(&run, "system_reset", NULL));
    }
    json_decref(emulator_run_do(&run, "quit", NULL));
    cr_expect_eq(process_wait(&run.process), 0, "status %d: %s", run.process.status, run.process.err);
}
