// SPDX-License-Identifier: Apache-2.0
#include "vmm/standard.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GRACE_MILLISECONDS     250 /* for a reader to take something more */
#define GRACE_MAX_MILLISECONDS 2000

static struct outlet outlets[2];
static struct outlet *out, *err; /* of outlets; the same one where both descriptors are one open file */
static int lost_exit_status;
static bool is_finished;

/* open(2) answers with the lowest number that is free. Without a /dev/null it is a folder, which gives and takes nothing. */
static void open_missing(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) {
            (void)!open("/", O_RDONLY | O_DIRECTORY);
        }
    }
}

static bool is_same_file(int one, int other)
{
    struct stat first, second;

    return fstat(one, &first) == 0 && fstat(other, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

static uint64_t tell_lost(struct outlet *outlet)
{
    int error;
    uint64_t bytes = outlet_lost(outlet, &error);
    char text[256];
    int length;

    if (bytes > 0 && outlet != err) {
        length = snprintf(text, sizeof text, "loam: %s: %" PRIu64 " bytes could not be written: %s\n", outlet->name,
                          bytes, error != 0 ? strerror(error) : "nobody reads it");
        outlet_append(err, text, (size_t)length);
    }
    return bytes;
}

/* exit(3) came first: those who print have waited, so that nothing is on its way. */
static void finish_at_exit(void)
{
    if (!is_finished && tell_lost(out) + tell_lost(err) > 0) {
        _exit(lost_exit_status);
    }
}

static void replace_stream(FILE **standard, struct outlet *outlet)
{
    FILE *stream = outlet_text_stream(outlet);

    if (stream != NULL) {
        *standard = stream;
    }
}

void standard_open(int lost_status)
{
    struct loam_diag diag = {0};

    open_missing();
    lost_exit_status = lost_status;
    if (outlet_open(&outlets[0], STDOUT_FILENO, "standard output", &diag) != LOAM_OK ||
        outlet_open(&outlets[1], STDERR_FILENO, "standard error", &diag) != LOAM_OK || atexit(finish_at_exit) != 0) {
        fprintf(stderr, "loam: %s\n", diag.text);
        _exit(lost_status);
    }
    out = &outlets[0];
    err = is_same_file(STDOUT_FILENO, STDERR_FILENO) ? out : &outlets[1];
    out->teller = err;
    replace_stream(&stdout, out);
    replace_stream(&stderr, err);
}

enum loam_error standard_start(struct loam_diag *diag)
{
    enum loam_error error = outlet_start(out, diag);

    if (error == LOAM_OK && err != out) {
        error = outlet_start(err, diag);
    }
    return error;
}

struct outlet *standard_out(void)
{
    return out;
}

struct outlet *standard_err(void)
{
    return err;
}

static void finish(struct outlet *outlet, int stop_fd, int64_t patience_milliseconds)
{
    bool is_drained = outlet_drain(outlet, stop_fd, patience_milliseconds);
    size_t before = SIZE_MAX;

    for (int waited = 0; !is_drained && waited < GRACE_MAX_MILLISECONDS && outlet_waiting(outlet) < before;
         waited += GRACE_MILLISECONDS) {
        before = outlet_waiting(outlet);
        is_drained = outlet_drain(outlet, -1, GRACE_MILLISECONDS);
    }
}

static bool has_lost(struct outlet *outlet)
{
    int error;

    return outlet_lost(outlet, &error) > 0;
}

bool standard_finish(int stop_fd, int64_t patience_milliseconds)
{
    finish(out, stop_fd, patience_milliseconds);
    outlet_stop(out);
    if (err != out) {
        (void)tell_lost(out);
        finish(err, stop_fd, patience_milliseconds);
        outlet_stop(err);
    }
    is_finished = true;
    return !has_lost(out) && !has_lost(err);
}
