// SPDX-License-Identifier: Apache-2.0
/*
 * The files are made here, and handed over: a run that is confined opens nothing. They have no names until all is written, so
 * that nothing is left of what was not finished, whoever is killed.
 */
#include "vmm/snapshot_command.h"

#include "vmm/options.h"
#include "vmm/qmp_caller.h"
#include "vmm/run_socket.h"
#include "vmm/snapshot.h"

#include <argp.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In the order in which they are named. */
enum { FILE_MEMORY, FILE_STATE, FILE_COUNT };

static const char *const file_names[FILE_COUNT] = {
    [FILE_MEMORY] = SNAPSHOT_MEMORY_NAME, [FILE_STATE] = SNAPSHOT_STATE_NAME};

struct order {
    const char *where;     /* SOCKET or PID */
    const char *directory; /* DIR */
    const char *parent;    /* the snapshot that this one is the difference to; NULL: none */
    bool track;
    bool json;
    int fds[FILE_COUNT]; /* -1: not there yet */
    json_t *figures;     /* NULL: likewise */
};

/* --- The command line --------------------------------------------------------------------------------------------- */

static error_t read_argument(int key, char *argument, struct argp_state *state)
{
    struct order *order = state->input;

    switch (key) {
    case 'j':
        order->json = true;
        return 0;
    case 'p':
        order->parent = argument;
        return 0;
    case 't':
        order->track = true;
        return 0;
    case ARGP_KEY_ARG:
        if (state->arg_num > 1) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "%s: too many arguments: give SOCKET or PID, and DIR", argument);
        }
        *(state->arg_num == 0 ? &order->where : &order->directory) = argument;
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num < 2) {
            argp_failure(state, EXIT_CODE_USAGE, 0, "give the SOCKET or the PID of a run, and a DIR to be made");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void read_order(int argc, char *argv[], struct order *order)
{
    static const struct argp_option rows[] = {
        {"parent", 'p', "DIR", 0, "write the difference to the last snapshot, which is DIR", 0},
        {"track", 't', NULL, 0, "log what is written from now on, for a difference to this one; --parent does, too", 0},
        {"json", 'j', NULL, 0, "print one JSON object instead of text", 0},
        {NULL, 0, NULL, 0, NULL, 0}};
    static const struct argp argp = {
        .options = rows,
        .parser = read_argument,
        .args_doc = "SOCKET|PID DIR",
        .doc = "Write the guest of a run, which goes on, into a new directory DIR. The run is one that was begun with "
               "loam run --control SOCKET.\v"
               "Exit status: 0 all is written; 2 usage, or DIR is there; 3 it could not be written."};

    argp_err_exit_status = EXIT_CODE_USAGE;
    argp_parse(&argp, argc, argv, 0, NULL, order);
}

/* --- Files --------------------------------------------------------------------------------------------------------- */

/* Without a name, in the directory that DIR will be in. */
static enum loam_error make_files(struct order *order, struct loam_diag *diag)
{
    char *copy = strdup(order->directory);
    const char *folder = copy != NULL ? dirname(copy) : "";
    enum loam_error error = LOAM_OK;
    struct stat status;

    if (lstat(order->directory, &status) == 0) {
        error = loam_fail(diag, LOAM_ERROR_INVALID, "%s: is there already: give a directory that is to be made",
                          order->directory);
    }
    for (int i = 0; error == LOAM_OK && i < FILE_COUNT; i++) {
        order->fds[i] = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, S_IRUSR | S_IWUSR);
        if (order->fds[i] < 0) {
            error =
                loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: no file without a name can be made there (O_TMPFILE)", folder);
        }
    }
    free(copy);
    return error;
}

static bool give_name(int fd, const char *directory, const char *name)
{
    char from[64];
    char *to = NULL;
    bool is_given;

    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    is_given =
        asprintf(&to, "%s/%s", directory, name) >= 0 && linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0;
    free(to);
    return is_given;
}

/* Everything is on the disk before it has a name, and the state is the last to have one. */
static enum loam_error name_files(const struct order *order, struct loam_diag *diag)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        if (fsync(order->fds[i]) < 0) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s/%s: fsync", order->directory, file_names[i]);
        }
    }
    if (mkdir(order->directory, S_IRWXU) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: cannot be made", order->directory);
    }
    for (int i = 0; i < FILE_COUNT; i++) {
        if (!give_name(order->fds[i], order->directory, file_names[i])) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s/%s: cannot be made", order->directory, file_names[i]);
        }
    }
    return LOAM_OK;
}

static void close_files(const struct order *order)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        if (order->fds[i] >= 0) {
            close(order->fds[i]);
        }
    }
}

/* --- The run -------------------------------------------------------------------------------------------------------- */

/* A parent beside it moves with it; any other is named by its whole path. */
static char *name_of_parent(const struct order *order)
{
    char *parent = realpath(order->parent, NULL), *copy = strdup(order->directory), *folder = NULL, *name = NULL;
    char *base;

    if (parent != NULL && copy != NULL) {
        folder = realpath(dirname(copy), NULL);
        base = strrchr(parent, '/');
        if (folder != NULL && (size_t)(base - parent) == strlen(folder) &&
            strncmp(parent, folder, strlen(folder)) == 0) {
            name = asprintf(&name, "..%s", base) >= 0 ? name : NULL;
        } else {
            name = strdup(parent);
        }
    }
    free(folder);
    free(copy);
    free(parent);
    return name;
}

static enum loam_error add_parent(const struct order *order, json_t *arguments, struct loam_diag *diag)
{
    char id[2 * IMAGE_ID_BYTES + 1], *name;
    struct snapshot parent;
    enum loam_error error = snapshot_open(order->parent, &parent, diag);

    if (error != LOAM_OK) {
        return error;
    }
    for (size_t i = 0; i < IMAGE_ID_BYTES; i++) {
        snprintf(id + 2 * i, 3, "%02x", parent.image.id[i]);
    }
    snapshot_close(&parent);
    name = name_of_parent(order);
    if (name == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "%s: has no path", order->parent);
    }
    json_object_set_new(arguments, "parent", json_pack("{ssss}", "id", id, "name", name));
    free(name);
    return LOAM_OK;
}

static enum loam_error have_written(struct order *order, struct qmp_caller *caller, struct loam_diag *diag)
{
    json_t *arguments = json_pack("{sb}", "track", order->track);
    enum loam_error error = order->parent != NULL ? add_parent(order, arguments, diag) : LOAM_OK;
    const char *why;

    if (error != LOAM_OK) {
        json_decref(arguments);
        return error;
    }
    error = qmp_caller_call(caller, "loam-snapshot", arguments, order->fds, FILE_COUNT, NULL, diag);
    if (error == LOAM_OK) {
        error = qmp_caller_await(caller, "LOAM_SNAPSHOT", &order->figures, diag);
    }
    why = json_string_value(json_object_get(order->figures, "error"));
    return error == LOAM_OK && why != NULL ? loam_fail(diag, LOAM_ERROR_NOT_PERMITTED, "%s", why) : error;
}

static enum loam_error take(struct order *order, struct loam_diag *diag)
{
    char path[RUN_SOCKET_BYTES];
    struct qmp_caller caller;
    enum loam_error error = run_socket_find(order->where, path, diag);

    if (error == LOAM_OK) {
        error = qmp_caller_open(path, &caller, diag);
    }
    if (error != LOAM_OK) {
        return error;
    }
    error = make_files(order, diag);
    if (error == LOAM_OK) {
        error = have_written(order, &caller, diag);
    }
    qmp_caller_close(&caller);
    return error == LOAM_OK ? name_files(order, diag) : error;
}

static double figure(const struct order *order, const char *name, double unit)
{
    return (double)json_integer_value(json_object_get(order->figures, name)) / unit;
}

static void tell(const struct order *order)
{
    if (order->json) {
        json_object_set_new(order->figures, "directory", json_string(order->directory));
        json_dumpf(order->figures, stdout, JSON_COMPACT);
        putchar('\n');
        return;
    }
    printf("%s: %.1f MiB of memory, %.1f KiB of state; the guest stood for %.1f ms\n", order->directory,
           figure(order, "memory-bytes", 1 << 20), figure(order, "state-bytes", 1024),
           figure(order, "pause-nanoseconds", 1e6));
}

static int status_of(enum loam_error error)
{
    return error == LOAM_OK                                               ? EXIT_CODE_PASS
           : error == LOAM_ERROR_INVALID || error == LOAM_ERROR_NOT_FOUND ? EXIT_CODE_USAGE
                                                                          : EXIT_CODE_HOST;
}

int snapshot_command(int argc, char *argv[])
{
    struct order order = {.fds = {-1, -1}};
    struct loam_diag diag = {0};
    enum loam_error error;

    read_order(argc, argv, &order);
    error = take(&order, &diag);
    close_files(&order);
    if (error == LOAM_OK) {
        tell(&order);
    } else {
        fprintf(stderr, "loam snapshot: %s\n", diag.text);
    }
    json_decref(order.figures);
    return status_of(error);
}
