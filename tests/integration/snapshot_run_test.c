// SPDX-License-Identifier: Apache-2.0
/*
 * Runs that are saved and go on, and others that go on from what was saved. The guest is the witness (guest/witness.c), which ends
 * with a failure as soon as it finds anything that it did not leave there itself.
 */
#include "tests/integration/launch.h"

#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MILLISECONDS 60000
#define SEED         UINT64_C(17)

static char directory[64];
static char socket_path[96], saved[96];

static char *path_in(const char *name)
{
    static char paths[8][128];
    static unsigned int next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

static void set_up(void)
{
    need_kvm();
    strcpy(directory, "/tmp/loam-snapshot-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    strcpy(socket_path, path_in("control"));
    strcpy(saved, path_in("saved"));
}

static void remove_tree(const char *path)
{
    char *argv[] = {"/bin/rm", "-rf", (char *)path, NULL};
    struct process process;

    (void)process_run(&process, argv, MILLISECONDS);
    process_end(&process);
}

static void tear_down(void)
{
    remove_tree(directory);
}

TestSuite(snapshot_run, .init = set_up, .fini = tear_down, .timeout = 300);

/* --- Runs ----------------------------------------------------------------------------------------------------------- */

static char *witness_path(void)
{
    return getenv("LOAM_WITNESS");
}

/* RAM on both sides of the hole. */
static void start_witness(struct process *run, char *pages)
{
    char *argv[] = {loam_path(), "run", "--kernel", witness_path(), "-m",        "24M", "--low-limit",
                    "8M",        "-p",  pages,      "--control",    socket_path, NULL};

    cr_assert(process_start(run, argv, MILLISECONDS));
    cr_assert(process_expect(run, "round 0x1 "), "%s%s", run->out, run->err);
}

static void start_restored(struct process *run, const char *from, char *pages)
{
    char *argv[] = {loam_path(), "run", "--restore", (char *)from, "-p", pages, "--control", socket_path, NULL};

    cr_assert(process_start(run, argv, MILLISECONDS));
}

static void start_beside(struct process *run, const char *from)
{
    char *argv[] = {loam_path(), "run", "--restore", (char *)from, NULL};

    cr_assert(process_start(run, argv, MILLISECONDS));
}

/* Two more rounds, so that each page is looked at, and its end. */
static void finish(struct process *run)
{
    const char *last = NULL;
    unsigned long round = 0;
    char wanted[64];

    cr_assert(process_expect(run, "witness: round"), "%s%s", run->out, run->err);
    for (const char *at = run->out; (at = strstr(at, "round 0x")) != NULL; at++) {
        last = at;
    }
    round = strtoul(last + strlen("round "), NULL, 16);
    snprintf(wanted, sizeof wanted, "round 0x%lx ", round + 2);
    cr_expect(process_expect(run, wanted), "%s%s", run->out, run->err);
    cr_assert(process_type(run, "q"));
    cr_expect_eq(process_wait(run), 0, "%s%s", run->out, run->err);
    cr_expect(strstr(run->out, "witness: pass") != NULL, "%s", run->out);
    process_end(run);
}

static int take_snapshot(const char *where, const char *to, struct process *client)
{
    char *argv[] = {loam_path(), "snapshot", (char *)where, (char *)to, NULL};

    return process_run(client, argv, MILLISECONDS);
}

static void save_to(const char *to)
{
    struct process client;

    cr_assert_eq(take_snapshot(socket_path, to, &client), 0, "%s", client.err);
    process_end(&client);
}

static void stop(struct process *run)
{
    kill(run->pid, SIGTERM);
    (void)process_wait(run);
    process_end(run);
}

/* --- Round trips ------------------------------------------------------------------------------------------------------ */

Test(snapshot_run, what_is_saved_goes_on_and_so_does_what_is_restored)
{
    struct process run, restored;

    start_witness(&run, "4K");
    save_to(saved);
    finish(&run);
    start_restored(&restored, saved, "4K");
    finish(&restored);
}

Test(snapshot_run, again_and_again)
{
    static char *const kinds[] = {"4K", "thp"};
    struct process run;
    char names[2][16];

    start_witness(&run, "thp");
    for (unsigned int trip = 0; trip < 10; trip++) {
        snprintf(names[trip % 2], sizeof names[0], "trip-%u", trip);
        save_to(path_in(names[trip % 2]));
        stop(&run);
        start_restored(&run, path_in(names[trip % 2]), kinds[trip % 2]);
        cr_assert(process_expect(&run, "witness: round"), "trip %u: %s%s", trip, run.out, run.err);
    }
    finish(&run);
}

Test(snapshot_run, on_hugepages)
{
    struct process run;

    need_pool("2M", 24 << 20);
    start_witness(&run, "2M");
    save_to(saved);
    stop(&run);
    start_restored(&run, saved, "2M");
    finish(&run);
    start_restored(&run, saved, "4K");
    finish(&run);
}

/* Nobody can say when: so it is saved often, at whatever it does. */
Test(snapshot_run, at_any_time)
{
    struct process run, restored;

    start_witness(&run, "4K");
    for (unsigned int i = 0; i < 10; i++) {
        save_to(path_in("now"));
        start_beside(&restored, path_in("now"));
        cr_assert(process_expect(&restored, "witness: round"), "%s%s", restored.out, restored.err);
        cr_assert(process_expect(&run, "witness: round"), "%s%s", run.out, run.err);
        stop(&restored);
        remove_tree(path_in("now"));
    }
    finish(&run);
}

Test(snapshot_run, a_run_is_found_by_its_process)
{
    struct process run, client;
    char pid[16];

    start_witness(&run, "4K");
    snprintf(pid, sizeof pid, "%d", (int)run.pid);
    cr_expect_eq(take_snapshot(pid, saved, &client), 0, "%s", client.err);
    cr_expect(strstr(client.out, "MiB of memory") != NULL, "%s", client.out);
    process_end(&client);
    finish(&run);
}

static void expect_refused(char *const argv[], int status, const char *words);

static void save_with(const char *option, const char *value, const char *to)
{
    char *argv[] = {loam_path(),
                    "snapshot",
                    (char *)option,
                    value != NULL ? (char *)value : socket_path,
                    value != NULL ? socket_path : (char *)to,
                    value != NULL ? (char *)to : NULL,
                    NULL};
    struct process client;

    cr_assert_eq(process_run(&client, argv, MILLISECONDS), 0, "%s", client.err);
    process_end(&client);
}

/* Each has what was written since the one before; the last of them is the guest. */
Test(snapshot_run, differences_follow_each_other)
{
    char *lost[] = {loam_path(), "run", "--restore", path_in("third"), NULL};
    char *late[] = {loam_path(), "snapshot", "--parent", path_in("first"), socket_path, path_in("late"), NULL};
    struct process run, client;
    char first[128], second[128], third[128];

    strcpy(first, path_in("first"));
    strcpy(second, path_in("second"));
    strcpy(third, path_in("third"));
    start_witness(&run, "4K");
    save_with("--track", NULL, first);
    cr_assert(process_expect(&run, "witness: round"), "%s", run.err);
    save_with("--parent", first, second);
    save_with("--parent", second, third);
    cr_expect_eq(process_run(&client, late, MILLISECONDS), 3, "%s", client.err);
    cr_expect(strstr(client.err, "is not the last snapshot") != NULL, "%s", client.err);
    process_end(&client);
    finish(&run);
    start_restored(&run, third, "4K");
    finish(&run);
    start_restored(&run, second, "thp");
    finish(&run);
    remove_tree(second);
    expect_refused(lost, 2, "second");
}

/* A guest that runs on stands for less than it takes to write it. */
Test(snapshot_run, it_stands_for_a_moment)
{
    char *argv[] = {loam_path(), "snapshot", "--json", socket_path, saved, NULL};
    struct process run, client;
    const json_t *object;

    start_witness(&run, "4K");
    cr_assert_eq(process_run(&client, argv, MILLISECONDS), 0, "%s", client.err);
    object = json_loads(client.out, 0, NULL);
    cr_expect_lt(json_integer_value(json_object_get(object, "pause-nanoseconds")),
                 json_integer_value(json_object_get(object, "nanoseconds")), "%s", client.out);
    json_decref((json_t *)object);
    process_end(&client);
    finish(&run);
    start_restored(&run, saved, "4K");
    finish(&run);
}

/* --- What is refused -------------------------------------------------------------------------------------------------- */

static void expect_refused(char *const argv[], int status, const char *words)
{
    struct process process;

    cr_expect_eq(process_run(&process, argv, MILLISECONDS), status, "%s%s", process.out, process.err);
    cr_expect(strstr(process.err, words) != NULL, "%s: %s", words, process.err);
    process_end(&process);
}

Test(snapshot_run, what_cannot_be_saved_is_said_and_leaves_nothing)
{
    char *nobody[] = {loam_path(), "snapshot", path_in("nobody"), saved, NULL};
    char *no_run[] = {loam_path(), "snapshot", "1", saved, NULL};
    char *there[] = {loam_path(), "snapshot", socket_path, directory, NULL};
    char *nowhere[] = {loam_path(), "snapshot", socket_path, path_in("no/where"), NULL};
    char *one[] = {loam_path(), "snapshot", socket_path, NULL};
    struct process run;
    struct stat status;

    expect_refused(nobody, 2, "nobody listens there");
    expect_refused(no_run, 2, "no run that listens");
    start_witness(&run, "4K");
    expect_refused(there, 2, "is there already");
    expect_refused(nowhere, 3, "no file without a name");
    expect_refused(one, 2, "give the SOCKET");
    cr_expect_eq(stat(saved, &status), -1);
    finish(&run);
    cr_expect_eq(stat(socket_path, &status), -1, "the socket has gone with the run");
}

Test(snapshot_run, the_self_test_cannot_be_saved)
{
    char *argv[] = {loam_path(), "run", "-m", "512M", "--control", socket_path, NULL};
    struct process run, client;

    cr_assert(process_start(&run, argv, MILLISECONDS));
    cr_assert(process_expect(&run, "plan"), "%s", run.err);
    for (struct stat status; stat(socket_path, &status) != 0 && process_read(&run);) {
    }
    (void)take_snapshot(socket_path, saved, &client);
    cr_expect(strstr(client.err, "self-test cannot be saved") != NULL || strstr(client.err, "no guest yet") != NULL,
              "%s", client.err);
    process_end(&client);
    stop(&run);
}

Test(snapshot_run, options_that_do_not_go_together)
{
    char *kernel[] = {loam_path(), "run", "--restore", saved, "--kernel", witness_path(), NULL};
    char *memory[] = {loam_path(), "run", "--restore", saved, "-m", "64M", NULL};
    char *vcpus[] = {loam_path(), "run", "--restore", saved, "--vcpus", "2", NULL};
    char *clock[] = {loam_path(), "run", "--clock", "jumps", NULL};
    char *what[] = {loam_path(), "run", "--restore", saved, "--clock", "stops", NULL};
    char *nothing[] = {loam_path(), "run", "--restore", path_in("none"), NULL};

    expect_refused(kernel, 2, "contradict each other");
    expect_refused(memory, 2, "contradict each other");
    expect_refused(vcpus, 2, "contradict each other");
    expect_refused(clock, 2, "--restore");
    expect_refused(what, 2, "goes-on or jumps");
    expect_refused(nothing, 2, "give a directory that loam snapshot has written");
}

/* --- Damage ----------------------------------------------------------------------------------------------------------- */

static int open_in(const char *name)
{
    char path[160];
    int fd;

    snprintf(path, sizeof path, "%s/%s", saved, name);
    fd = open(path, O_RDWR);
    cr_assert_geq(fd, 0);
    return fd;
}

static void change(const char *name, uint64_t offset, uint8_t mask)
{
    const int fd = open_in(name);
    uint8_t byte;

    cr_assert_eq(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= mask;
    cr_assert_eq(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static uint64_t bytes_of(const char *name)
{
    struct stat status;
    char path[160];

    snprintf(path, sizeof path, "%s/%s", saved, name);
    cr_assert_eq(stat(path, &status), 0);
    return (uint64_t)status.st_size;
}

/* Where there is data: what is a hole is no page of the guest's. */
static uint64_t somewhere_in_memory(struct random *random)
{
    const int fd = open_in("memory");
    uint64_t offset;

    do {
        offset = random_u64(random) % (8 << 20);
    } while ((uint64_t)lseek(fd, (off_t)offset, SEEK_DATA) != offset);
    close(fd);
    return offset;
}

Test(snapshot_run, a_bit_that_is_changed_is_seen)
{
    char *argv[] = {loam_path(), "run", "--restore", saved, "--timeout", "60", NULL};
    struct random random = {SEED};
    struct process run;

    start_witness(&run, "4K");
    save_to(saved);
    stop(&run);
    for (int i = 0; i < 20; i++) {
        const char *name = i % 2 == 0 ? "state" : "memory";
        uint64_t offset = i % 2 == 0 ? random_u64(&random) % bytes_of(name) : somewhere_in_memory(&random);
        uint8_t mask = (uint8_t)(1u << random_below(&random, 8));

        change(name, offset, mask);
        expect_refused(argv, i % 2 == 0 ? 2 : 4, i % 2 == 0 ? "state" : "sum"); /* memory when it is touched */
        change(name, offset, mask);
    }
    start_restored(&run, saved, "4K");
    finish(&run);
}

Test(snapshot_run, a_file_that_is_cut_is_seen)
{
    char *argv[] = {loam_path(), "run", "--restore", saved, NULL};
    char path[160];
    struct process run;

    start_witness(&run, "4K");
    save_to(saved);
    stop(&run);
    snprintf(path, sizeof path, "%s/memory", saved);
    cr_assert_eq(truncate(path, 4 << 20), 0);
    expect_refused(argv, 2, "it was cut");
    snprintf(path, sizeof path, "%s/state", saved);
    cr_assert_eq(truncate(path, 100), 0);
    expect_refused(argv, 2, "100 found");
    cr_assert_eq(truncate(path, 0), 0);
    expect_refused(argv, 2, "damaged");
}

/* A client that is killed at any moment leaves no file, and a run that goes on. */
Test(snapshot_run, a_client_that_is_killed_leaves_nothing)
{
    char *argv[] = {loam_path(), "snapshot", socket_path, saved, NULL};
    struct random random = {SEED};
    struct process run, client;
    struct stat status;

    start_witness(&run, "4K");
    for (int i = 0; i < 20; i++) {
        cr_assert(process_start(&client, argv, MILLISECONDS));
        usleep(random_below(&random, 12000)); /* at random: what it has come to by then does not matter */
        kill(client.pid, SIGKILL);
        process_end(&client);
        if (stat(saved, &status) == 0) {
            remove_tree(saved);
        }
    }
    save_to(saved);
    finish(&run);
    start_restored(&run, saved, "4K");
    finish(&run);
}

/* Nor does a run that is killed, whose client is told; the next has its socket. What the client had already is whole. */
Test(snapshot_run, a_run_that_is_killed_leaves_nothing)
{
    char *argv[] = {loam_path(), "snapshot", socket_path, path_in("late"), NULL};
    struct random random = {SEED};
    struct process run, client;
    struct stat status;
    char late[128];

    strcpy(late, path_in("late"));
    argv[3] = late;
    start_witness(&run, "4K");
    save_to(saved);
    stop(&run);
    for (int i = 0; i < 20; i++) {
        start_restored(&run, saved, "4K");
        cr_assert(process_expect(&run, "witness: round"), "%s%s", run.out, run.err);
        cr_assert(process_start(&client, argv, MILLISECONDS));
        usleep(random_below(&random, 20000)); /* at random: what it has come to by then does not matter */
        kill(run.pid, SIGKILL);
        process_end(&run);
        if (process_wait(&client) == 0) {
            start_beside(&run, late);
            finish(&run);
            remove_tree(late);
        } else {
            cr_expect(client.status == 2 || client.status == 3, "%d: %s", client.status, client.err);
            cr_expect(strstr(client.err, "loam snapshot: ") != NULL, "%s", client.err);
            cr_expect_neq(stat(late, &status), 0, "%s", client.err);
        }
        process_end(&client);
    }
}

/* --- Pages that come late ----------------------------------------------------------------------------------------------- */

/* The first time it is learnt what the guest touches first, and the next time it waits for nothing of that. */
Test(snapshot_run, it_goes_on_before_its_memory_is_there)
{
    char *argv[] = {loam_path(), "run", "--restore", saved, NULL};
    struct process run;

    start_witness(&run, "4K");
    save_to(saved);
    stop(&run);
    for (int i = 0; i < 2; i++) {
        cr_assert(process_start(&run, argv, MILLISECONDS));
        cr_assert(process_expect(&run, "witness: round"), "%s%s", run.out, run.err);
        cr_assert(process_type(&run, "q"));
        cr_expect_eq(process_wait(&run), 0, "%s%s", run.out, run.err);
        cr_expect(strstr(run.err, "restored: the guest went on") != NULL, "%s", run.err);
        cr_expect_eq(strstr(run.err, "not known yet") != NULL, i == 0, "%s", run.err);
        process_end(&run);
    }
}

/* The disk fails while the guest runs: it ends with that reason, and at once. */
Test(snapshot_run, a_file_that_is_cut_while_it_is_read_ends_the_run)
{
    char *argv[] = {loam_path(), "run", "--restore", saved, "--timeout", "20", NULL};
    char path[160];
    struct process run;

    start_witness(&run, "4K");
    save_to(saved);
    stop(&run);
    snprintf(path, sizeof path, "%s/memory", saved);
    cr_assert(process_start(&run, argv, MILLISECONDS));
    while (strstr(run.err, "plan") == NULL && process_read(&run)) { /* it has looked at the files by then */
    }
    cr_assert_eq(truncate(path, 3 << 20), 0);
    cr_expect_eq(process_wait(&run), 4, "%s%s", run.out, run.err);
    cr_expect(strstr(run.err, "it was cut") != NULL, "%s", run.err);
    cr_expect(strstr(run.out, "fail") == NULL, "it has seen nothing else: %s", run.out);
    process_end(&run);
}
