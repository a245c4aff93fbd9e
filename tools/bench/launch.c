// SPDX-License-Identifier: Apache-2.0
/*
 * How long a launch takes: a guest of 128 MiB on 2 MiB hugepages that prints one byte and stops, from start to exit,
 * beside bare ioctls and QEMU's microvm in the same run; and one that has interrupts, beside bare ioctls with KVM's interrupt
 * controllers.
 *
 * Programs take turns, so that a drift of the machine's speed falls on all alike; medians of whole-process times, and
 * peaks of resident memory (which count no hugepages: so the VMM's own).
 */
#include <argp.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MAX   1000
#define POOL        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define POOL_FREE   "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"
#define GUEST_PAGES 64 /* 128 MiB */

extern char **environ;

enum { LOAM, BARE, QEMU, LOAM_INTERRUPTS, BARE_IRQCHIP, CONTENDERS };

struct contender {
    const char *name;
    char *argv[24];
    int expected_status;
    bool is_absent;
    double milliseconds[ROUND_MAX];
    long peak_kib;
};

static struct settings {
    const char *loam, *bare, *guest, *interrupts_guest;
    int round_count;
    bool json;
} settings = {.round_count = 21};

/* --- Measuring --------------------------------------------------------------------------------------------------- */

static double now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Run once; false: it did not start, or ended otherwise than it should. */
static bool launch(struct contender *contender, double *milliseconds)
{
    posix_spawn_file_actions_t actions;
    struct rusage usage;
    pid_t pid;
    int status = -1;
    double start = now_milliseconds();

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): read_option goes on with all programs or not at all */
    if (posix_spawnp(&pid, contender->argv[0], &actions, NULL, contender->argv, environ) == 0) {
        wait4(pid, &status, 0, &usage);
        contender->peak_kib = usage.ru_maxrss > contender->peak_kib ? usage.ru_maxrss : contender->peak_kib;
    }
    posix_spawn_file_actions_destroy(&actions);
    *milliseconds = now_milliseconds() - start;
    return WIFEXITED(status) && WEXITSTATUS(status) == contender->expected_status;
}

static int compare_doubles(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

static double median(struct contender *contender)
{
    qsort(contender->milliseconds, (size_t)settings.round_count, sizeof(double), compare_doubles);
    return contender->milliseconds[settings.round_count / 2];
}

/* One warm-up each, then rounds in which all take their turn. */
static bool measure(struct contender *contenders, size_t count)
{
    double ignored;

    for (size_t i = 0; i < count; i++) {
        contenders[i].is_absent = !launch(&contenders[i], &ignored);
    }
    for (int round = 0; round < settings.round_count; round++) {
        for (size_t i = 0; i < count; i++) {
            if (!contenders[i].is_absent && !launch(&contenders[i], &contenders[i].milliseconds[round])) {
                fprintf(stderr, "launch: %s: it failed in round %d: run it by hand\n", contenders[i].name, round);
                return false;
            }
        }
    }
    return true;
}

/* --- The pool of hugepages ---------------------------------------------------------------------------------------- */

static long read_number(const char *path)
{
    FILE *file = fopen(path, "r");
    long number = -1;

    if (file != NULL) {
        if (fscanf(file, "%ld", &number) != 1) {
            number = -1;
        }
        fclose(file);
    }
    return number;
}

static bool write_number(const char *path, long number)
{
    FILE *file = fopen(path, "w");
    bool written = file != NULL && fprintf(file, "%ld\n", number) > 0;

    return file != NULL && fclose(file) == 0 && written;
}

/* Pages that the pool was raised by, to be given back; -1: it has too few. */
static long raise_pool(void)
{
    long missing = GUEST_PAGES - read_number(POOL_FREE), before = read_number(POOL);

    if (missing <= 0) {
        return 0;
    }
    fprintf(stderr, "hugepages: raising the pool of 2 MiB pages from %ld to %ld until this ends\n", before,
            before + missing);
    if (!write_number(POOL, before + missing) || read_number(POOL_FREE) < GUEST_PAGES) {
        fprintf(stderr, "launch: hugepages: %d x 2 MiB wanted, %ld free: raise the pool with: echo %ld > %s\n",
                GUEST_PAGES, read_number(POOL_FREE), before + missing, POOL);
        write_number(POOL, before);
        return -1;
    }
    return missing;
}

/* --- Results ------------------------------------------------------------------------------------------------------ */

static void print_row(const char *name, const char *unit, double loam, double reference)
{
    if (settings.json) {
        printf("{\"name\": \"%s\", \"unit\": \"%s\", \"loam\": %.3f, \"reference\": %.3f, \"ratio\": %.3f}\n", name,
               unit, loam, reference, reference / loam);
    } else {
        printf("%-22s %-4s %10.2f %10.2f %9.2f\n", name, unit, loam, reference, reference / loam);
    }
}

/* loam beside reference, as rows that name tells apart. */
static void print_pair(const char *name, struct contender *loam, struct contender *reference)
{
    char row[64];

    if (reference->is_absent || loam->is_absent) {
        fprintf(stderr, "launch: %s: left out: it is not here, or did not run\n", name);
        return;
    }
    snprintf(row, sizeof row, "launch.time.%s", name);
    print_row(row, "ms", median(loam), median(reference));
    snprintf(row, sizeof row, "launch.memory.%s", name);
    print_row(row, "MiB", (double)loam->peak_kib / 1024, (double)reference->peak_kib / 1024);
}

static void print_results(struct contender *contenders)
{
    if (!settings.json) {
        printf("%-22s %-4s %10s %10s %9s\n", "", "unit", "loam", "reference", "times");
    }
    print_pair("bare", &contenders[LOAM], &contenders[BARE]);
    print_pair("qemu", &contenders[LOAM], &contenders[QEMU]);
    print_pair("interrupts", &contenders[LOAM_INTERRUPTS], &contenders[BARE_IRQCHIP]);
}

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    switch (key) {
    case 'l':
        settings.loam = argument;
        return 0;
    case 'b':
        settings.bare = argument;
        return 0;
    case 'g':
        settings.guest = argument;
        return 0;
    case 'i':
        settings.interrupts_guest = argument;
        return 0;
    case 'j':
        settings.json = true;
        return 0;
    case 'n':
        settings.round_count = atoi(argument);
        if (settings.round_count < 5 || settings.round_count > ROUND_MAX) {
            argp_failure(state, 2, 0, "--rounds %s: not a number from 5 to %d", argument, ROUND_MAX);
        }
        return 0;
    case ARGP_KEY_END:
        if (settings.loam == NULL || settings.bare == NULL || settings.guest == NULL ||
            settings.interrupts_guest == NULL) {
            argp_failure(state, 2, 0, "the programs are missing: run it by bazel run -c opt //tools/bench:launch");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static struct contender loam_with(const char *guest)
{
    return (struct contender){
        .name = "loam",
        .argv = {(char *)settings.loam, "run", "--memory", "128M", "--pages", "2M", "--kernel", (char *)guest}};
}

static void list_contenders(struct contender *contenders)
{
    contenders[LOAM] = loam_with(settings.guest);
    contenders[BARE] = (struct contender){.name = "bare", .argv = {(char *)settings.bare}};
    contenders[QEMU] =
        (struct contender){.name = "qemu",
                           .argv = {"qemu-system-x86_64", "-M", "microvm", "-enable-kvm", "-m", "128", "-nodefaults",
                                    "-no-user-config", "-display", "none", "-serial", "stdio", "-device",
                                    "isa-debug-exit,iobase=0xf4,iosize=0x4", "-kernel", (char *)settings.guest},
                           .expected_status = 1};
    contenders[LOAM_INTERRUPTS] = loam_with(settings.interrupts_guest);
    contenders[BARE_IRQCHIP] = (struct contender){.name = "bare", .argv = {(char *)settings.bare, "irqchip"}};
}

int main(int argc, char *argv[])
{
    static const struct argp_option rows[] = {
        {"json", 'j', NULL, 0, "one JSON object a line", 0},
        {"rounds", 'n', "N", 0, "rounds, medians of which are printed (default 21)", 0},
        {"loam", 'l', "FILE", 0, "the program", 0},
        {"bare", 'b', "FILE", 0, "the reference", 0},
        {"guest", 'g', "FILE", 0, "the guest", 0},
        {"interrupts-guest", 'i', "FILE", 0, "the guest that has interrupts", 0},
        {0},
    };
    const struct argp argp = {
        .options = rows, .parser = read_option, .doc = "Time a launch beside bare ioctls and QEMU."};

    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, NULL);

    static struct contender contenders[CONTENDERS];
    long raised = raise_pool();
    bool measured;

    if (raised < 0) {
        return 3;
    }
    list_contenders(contenders);
    measured = measure(contenders, CONTENDERS);
    if (contenders[LOAM].is_absent) {
        fprintf(stderr, "launch: loam did not run: try %s run --memory 128M --pages 2M --kernel %s\n", settings.loam,
                settings.guest);
        measured = false;
    }
    if (measured) {
        print_results(contenders);
    }
    if (raised > 0) {
        write_number(POOL, read_number(POOL) - raised);
    }
    return measured ? 0 : 1;
}
