// SPDX-License-Identifier: Apache-2.0
/*
 * How fast a guest is saved, brought back and moved, each beside what limits it, in the same run: RAM into a file beside a plain copy of
 * as many bytes in the same directory; out of it into fresh memory beside memcpy into such; from process to process beside a raw
 * stream; and how long a harvest of written pages takes when there are none.
 *
 * Rounds of Loam and of its reference alternate; medians.
 */
#include "loam/memory.h"
#include "vmm/image.h"
#include "vmm/machine.h"
#include "vmm/pager.h"
#include "vmm/transfer.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MAX   101
#define PIECE_BYTES (UINT64_C(1) << 20)

static struct settings {
    uint64_t mib;
    int round_count;
    const char *directory;
    bool json;
} settings = {.mib = 1024, .round_count = 5, .directory = "/var/tmp"};

/* What is measured; a figure is bytes a nanosecond, or nanoseconds where unit says so. */
struct row {
    const char *name, *reference_name;
    double (*loam)(void);
    double (*reference)(void);
    double goal;          /* of the ratio loam / reference, or of the figure itself where there is no reference */
    bool is_milliseconds; /* a GiB; less is better */
};

static struct loam_plan plan;
static struct loam_memory *memory;

_Noreturn static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "state: %s: %s\n", what, why);
    exit(1);
}

static void check(enum loam_error error, const char *what, const struct loam_diag *diag)
{
    if (error != LOAM_OK) {
        give_up(what, diag->text);
    }
}

static uint64_t now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t all_bytes(void)
{
    return settings.mib << 20;
}

static double rate(uint64_t begun)
{
    return (double)all_bytes() / (double)(now() - begun);
}

/* --- Memory and files ------------------------------------------------------------------------------------------------- */

static struct loam_memory *make_memory(enum loam_commit commit)
{
    const struct loam_memory_request request = {
        .bytes = all_bytes(), .pages = LOAM_PAGES_4K, .sharing = LOAM_SHARING_SHARED, .commit = commit};
    struct loam_memory *made;
    struct loam_diag diag = {0};

    check(loam_plan_make(&request, &plan, &diag), "plan", &diag);
    check(loam_memory_create(&plan, &made, &diag), "memory", &diag);
    return made;
}

static char *memory_at(struct loam_memory *of, uint64_t offset)
{
    struct loam_backing_info info;

    for (uint32_t i = 0; loam_memory_backing(of, i, &info) == LOAM_OK; i++) {
        if (offset < info.bytes) {
            return (char *)info.hva + offset;
        }
        offset -= info.bytes;
    }
    give_up("memory", "it ends");
}

/* Numbers, so that no page is zeros, and none is like another. */
static void fill(void)
{
    uint64_t x = 1;

    for (uint64_t at = 0; at < all_bytes(); at += PIECE_BYTES) {
        uint64_t *words = (uint64_t *)(void *)memory_at(memory, at);

        for (uint64_t i = 0; i < PIECE_BYTES / sizeof x; i++) {
            x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
            words[i] = x;
        }
    }
}

static int make_file(void)
{
    int fd = open(settings.directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

    if (fd < 0) {
        give_up(settings.directory, strerror(errno));
    }
    return fd;
}

/* --- Into a file ------------------------------------------------------------------------------------------------------ */

static struct image image;
static int image_fd = -1;

static double write_image(void)
{
    struct loam_diag diag = {0};
    struct image_tally tally;
    uint64_t begun;

    if (image_fd >= 0) {
        image_release(&image);
        close(image_fd);
    }
    image_fd = make_file();
    check(image_init(&image, &plan, image_fd, &diag), "image", &diag);
    begun = now();
    check(image_write(&image, memory, NULL, 0, &tally, &diag), "image", &diag);
    return rate(begun);
}

/* As cp does. */
static double copy_file(void)
{
    int to = make_file();
    off_t from_at = 0;
    uint64_t begun = now(), left = all_bytes();

    while (left > 0) {
        ssize_t done = copy_file_range(image_fd, &from_at, to, NULL, left, 0);

        if (done <= 0) {
            give_up("copy_file_range", strerror(errno));
        }
        left -= (uint64_t)done;
    }
    close(to);
    return rate(begun);
}

/* --- And out of it ------------------------------------------------------------------------------------------------------ */

static double restore_whole(void)
{
    struct loam_memory *fresh = make_memory(LOAM_COMMIT_LAZY);
    struct loam_diag diag = {0};
    uint64_t begun = now();
    double found;

    check(image_restore(&image, fresh, 0, &diag), "restore", &diag);
    found = rate(begun);
    loam_memory_destroy(fresh);
    return found;
}

static void page_failed(void *self, const struct loam_diag *diag)
{
    (void)self;
    give_up("pager", diag->text);
}

static int order_fd = -1;

/* What is touched first is all there is: it was learnt in a round before. */
static double page_in(void)
{
    struct loam_memory *fresh = make_memory(LOAM_COMMIT_LAZY);
    const struct pager_config config = {.image = &image, .memory = fresh, .order_fd = order_fd, .failed = page_failed};
    struct loam_diag diag = {0};
    struct pager *pager;
    uint64_t begun = now();
    double found;

    check(pager_create(&config, &pager, &diag), "pager", &diag);
    (void)pager_wait(pager);
    found = rate(begun);
    pager_destroy(pager);
    loam_memory_destroy(fresh);
    return found;
}

/* By one thread, as a program that has it all in memory would. */
static double copy_memory(void)
{
    struct loam_memory *fresh = make_memory(LOAM_COMMIT_LAZY);
    uint64_t begun = now();
    double found;

    for (uint64_t at = 0; at < all_bytes(); at += PIECE_BYTES) {
        memcpy(memory_at(fresh, at), memory_at(memory, at), PIECE_BYTES);
    }
    found = rate(begun);
    loam_memory_destroy(fresh);
    return found;
}

/* --- Over a stream ------------------------------------------------------------------------------------------------------ */

static int ends[2];
static struct machine *machine;

static void open_stream(void)
{
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) {
        give_up("socketpair", strerror(errno));
    }
}

static void *send_guest(void *self)
{
    struct transfer_progress progress = {0};
    const struct transfer transfer = {.fd = ends[0], .progress = &progress};
    const struct snapshot_source source = {.memory = memory, .machine = machine};
    struct loam_diag diag = {0};

    check(transfer_send_plan(&transfer, &source, &diag), "send", &diag);
    check(transfer_send_memory(&transfer, memory, &diag), "send", &diag);
    check(transfer_send_state(&transfer, &source, &diag), "send", &diag);
    close(ends[0]);
    return self;
}

static double move_guest(void)
{
    struct loam_memory *fresh = make_memory(LOAM_COMMIT_LAZY);
    struct transfer_progress progress = {0};
    struct transfer_state state;
    struct loam_diag diag = {0};
    struct transfer transfer = {.progress = &progress};
    pthread_t sender;
    uint64_t begun;
    double found;

    open_stream();
    transfer.fd = ends[1];
    begun = now();
    pthread_create(&sender, NULL, send_guest, NULL);
    check(transfer_receive(&transfer, fresh, &state, &diag), "receive", &diag);
    found = rate(begun);
    pthread_join(sender, NULL);
    transfer_state_release(&state);
    close(ends[1]);
    loam_memory_destroy(fresh);
    return found;
}

static void *send_raw(void *self)
{
    for (uint64_t at = 0; at < all_bytes();) {
        const uint64_t rest = PIECE_BYTES - at % PIECE_BYTES;
        const ssize_t done = write(ends[0], memory_at(memory, at), rest);

        if (done <= 0) {
            give_up("write", strerror(errno));
        }
        at += (uint64_t)done;
    }
    close(ends[0]);
    return self;
}

static double move_raw(void)
{
    struct loam_memory *fresh = make_memory(LOAM_COMMIT_LAZY);
    pthread_t sender;
    uint64_t begun, at = 0;
    double found;
    ssize_t done;

    open_stream();
    begun = now();
    pthread_create(&sender, NULL, send_raw, NULL);
    while (at < all_bytes() && (done = read(ends[1], memory_at(fresh, at), PIECE_BYTES - at % PIECE_BYTES)) > 0) {
        at += (uint64_t)done;
    }
    found = rate(begun);
    pthread_join(sender, NULL);
    close(ends[1]);
    loam_memory_destroy(fresh);
    return found;
}

/* --- A machine ------------------------------------------------------------------------------------------------------------ */

static void make_machine(void)
{
    static const struct boot_state boot = {.protocol = BOOT_PVH, .entry = 0x100000};
    const struct machine_config config = {.memory = memory, .vcpu_count = 1, .boot = &boot};
    struct loam_diag diag = {0};

    check(machine_create(&config, &machine, &diag), "machine", &diag);
    machine_pause(machine);
}

static enum loam_error pass_over(void *self, uint64_t gpa, uint64_t bytes, struct loam_diag *diag)
{
    (void)self;
    (void)gpa;
    (void)bytes;
    (void)diag;
    return LOAM_OK;
}

static double a_gib(uint64_t begun)
{
    return (double)(now() - begun) / 1e6 / ((double)settings.mib / 1024);
}

static double harvest(void)
{
    struct loam_diag diag = {0};
    uint64_t count, begun;
    double found;

    check(machine_log_start(machine, &diag), "log", &diag);
    check(machine_log_harvest(machine, pass_over, NULL, &count, &diag), "harvest", &diag);
    begun = now();
    check(machine_log_harvest(machine, pass_over, NULL, &count, &diag), "harvest", &diag);
    found = a_gib(begun);
    machine_log_stop(machine);
    return found;
}

/* --- Rows ------------------------------------------------------------------------------------------------------------------ */

static const struct row rows[] = {
    {"write", "copy_file_range", write_image, copy_file, 0.9, false},
    {"restore.whole", "memcpy", restore_whole, copy_memory, 0.83, false},
    {"restore.pager", "memcpy", page_in, copy_memory, 0.83, false},
    {"move", "a raw stream", move_guest, move_raw, 0.8, false},
    {"harvest.clean", NULL, harvest, NULL, 0.5, true},
};

static int by_size(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static double median(double *values, int count)
{
    qsort(values, (size_t)count, sizeof values[0], by_size);
    return values[count / 2];
}

static void tell(const struct row *row, double loam, double reference)
{
    const char *unit = row->is_milliseconds ? "ms/GiB" : "GiB/s";
    const double scale = row->is_milliseconds ? 1 : 1e9 / (1 << 30);
    const double ratio = row->is_milliseconds ? row->goal / loam : loam / reference;

    if (settings.json) {
        printf("{\"name\": \"%s\", \"unit\": \"%s\", \"loam\": %.4g, \"reference\": %.4g, \"ratio\": %.3g, \"goal\": "
               "%.3g}\n",
               row->name, unit, loam * scale, reference * scale, ratio, row->goal);
    } else if (row->is_milliseconds) {
        printf("%-16s %8.3f %-7s at most %.3g\n", row->name, loam, unit, row->goal);
    } else {
        printf("%-16s %8.2f %-7s %8.2f %-16s %5.2f of it, goal %.2f\n", row->name, loam * scale, unit,
               reference * scale, row->reference_name, ratio, row->goal);
    }
}

static void measure(const struct row *row)
{
    double loam[ROUND_MAX], reference[ROUND_MAX];

    row->loam();
    for (int i = 0; i < settings.round_count; i++) {
        loam[i] = row->loam();
        reference[i] = row->reference != NULL ? row->reference() : row->goal;
    }
    tell(row, median(loam, settings.round_count), median(reference, settings.round_count));
}

/* --- The program ------------------------------------------------------------------------------------------------------------ */

static error_t read_option(int key, char *argument, struct argp_state *state)
{
    switch (key) {
    case 'm':
        settings.mib = strtoull(argument, NULL, 10);
        return 0;
    case 'r':
        settings.round_count = atoi(argument);
        return 0;
    case 'd':
        settings.directory = argument;
        return 0;
    case 'j':
        settings.json = true;
        return 0;
    case ARGP_KEY_END:
        if (settings.mib < 16 || settings.mib % 2 != 0 || settings.round_count < 1 ||
            settings.round_count > ROUND_MAX) {
            argp_error(state, "--mib from 16 on, even; --rounds from 1 to %d", ROUND_MAX);
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char *argv[])
{
    static const struct argp_option options[] = {
        {"mib", 'm', "N", 0, "RAM of the guest (default 1024)", 0},
        {"rounds", 'r', "N", 0, "of each (default 5)", 0},
        {"dir", 'd', "DIR", 0, "where the file lies (default /var/tmp)", 0},
        {"json", 'j', NULL, 0, "a JSON object a line", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    static const struct argp argp = {
        .options = options, .parser = read_option, .doc = "How fast a guest is saved, brought back and moved."};

    argp_parse(&argp, argc, argv, 0, NULL, NULL);
    memory = make_memory(LOAM_COMMIT_POPULATE);
    fill();
    make_machine();
    (void)write_image();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        measure(&rows[i]);
    }
    machine_destroy(machine);
    image_release(&image);
    loam_memory_destroy(memory);
    return 0;
}
