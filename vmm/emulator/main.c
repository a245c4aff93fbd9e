// SPDX-License-Identifier: Apache-2.0
/*
 * loam-emulator: what a libvirt domain's <emulator> names. It reads QEMU's command line, answers QMP, and is one of two:
 * a probe (-machine none), which says what there is and ends when it is hung up on, or a domain, which runs a guest.
 */
#include "loam/version.h"
#include "vmm/emulator/commands.h"
#include "vmm/emulator/daemon.h"
#include "vmm/emulator/probe.h"
#include "vmm/printable.h"
#include "vmm/sandbox.h"
#include "vmm/session.h"
#include "vmm/standard.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_COUNT_MAX    (LINE_CHARDEV_MAX + 2)
#define READ_MILLISECONDS 1000 /* how long who reads standard error is waited for at the end */

/* Zero members are not there yet. */
struct emulator {
    const struct line *line;
    struct daemon daemon;
    struct session session;
    struct fdsets fdsets;
    struct qmp *qmp;
    const char *qmp_paths[QMP_LISTENER_MAX]; /* of sockets made here */
    uint32_t qmp_path_count;
    struct domain *domain; /* NULL: a probe */
    struct commands commands;
    bool is_hung_up; /* a probe's last client has gone */
};

static int fail(const struct loam_diag *diag)
{
    fprintf(stderr, "loam-emulator: %s\n", diag->text);
    return EXIT_FAILURE;
}

static void tell(void *self, const char *name, json_t *data)
{
    struct emulator *emulator = self;

    if (emulator->qmp != NULL) {
        qmp_event(emulator->qmp, name, data);
    } else {
        json_decref(data);
    }
}

/* --- QMP -------------------------------------------------------------------------------------------------------------- */

static void hung_up(void *self, size_t client_count)
{
    struct commands *commands = self;
    struct emulator *emulator = (struct emulator *)((char *)commands - offsetof(struct emulator, commands));

    emulator->is_hung_up = client_count == 0;
}

static enum loam_error serve(struct emulator *emulator, const struct line_chardev *chardev, struct loam_diag *diag)
{
    enum loam_error error;
    int fd;

    if (chardev->kind != LINE_CHARDEV_SOCKET) {
        return loam_fail(diag, LOAM_ERROR_INVALID, "-mon: chardev %s: QMP is spoken on sockets only", chardev->id);
    }
    error = chardev_listen(chardev, &fd, diag);
    if (error == LOAM_OK && chardev->path != NULL) {
        emulator->qmp_paths[emulator->qmp_path_count++] = chardev->path;
    }
    return error == LOAM_OK ? qmp_listen(emulator->qmp, fd, diag) : error;
}

static void close_qmp(struct emulator *emulator)
{
    qmp_destroy(emulator->qmp);
    emulator->qmp = NULL;
    while (emulator->qmp_path_count > 0) {
        (void)unlink(emulator->qmp_paths[--emulator->qmp_path_count]);
    }
}

static enum loam_error open_qmp(struct emulator *emulator, struct loam_diag *diag)
{
    const struct line *line = emulator->line;
    struct line_chardev named = {.id = "qmp", .kind = LINE_CHARDEV_SOCKET, .path = line->qmp_path, .fd = -1};
    struct qmp_config config = {.self = &emulator->commands,
                                .package = "loam " LOAM_VERSION,
                                .major = PROBE_VERSION_MAJOR,
                                .minor = PROBE_VERSION_MINOR,
                                .micro = PROBE_VERSION_MICRO,
                                .hung_up = hung_up};
    enum loam_error error;

    config.commands = commands_table(&config.command_count);
    emulator->commands = (struct commands){.domain = emulator->domain, .fdsets = &emulator->fdsets};
    error = qmp_create(&config, &emulator->qmp, diag);
    for (uint32_t i = 0; error == LOAM_OK && i < line->monitor_count; i++) {
        error = serve(emulator, &line->chardevs[line->monitors[i]], diag);
    }
    return error == LOAM_OK && line->qmp_path != NULL ? serve(emulator, &named, diag) : error;
}

/* --- A probe ------------------------------------------------------------------------------------------------------------ */

static int run_probe(struct emulator *emulator)
{
    struct loam_diag diag = {0};

    if (open_qmp(emulator, &diag) != LOAM_OK || daemon_prepare(&emulator->daemon, &diag) != LOAM_OK) {
        return fail(&diag);
    }
    daemon_ready(&emulator->daemon);
    while (!emulator->is_hung_up) {
        struct pollfd readable = {.fd = qmp_fd(emulator->qmp), .events = POLLIN};

        (void)poll(&readable, 1, -1);
        qmp_turn(emulator->qmp);
    }
    return EXIT_SUCCESS;
}

/* --- A domain ----------------------------------------------------------------------------------------------------------- */

static int live(struct emulator *emulator)
{
    struct pollfd fds[2 + DOMAIN_POLL_MAX];
    int exit_status = EXIT_SUCCESS;

    domain_go(emulator->domain);
    while (!domain_is_over(emulator->domain, &exit_status)) {
        int timeout_milliseconds = -1;
        size_t count = domain_poll(emulator->domain, fds + 2, &timeout_milliseconds);

        fds[0] = (struct pollfd){.fd = session_fd(&emulator->session), .events = POLLIN};
        fds[1] = (struct pollfd){.fd = qmp_fd(emulator->qmp), .events = POLLIN};
        (void)poll(fds, 2 + count, timeout_milliseconds);
        if (session_signalled(&emulator->session)) {
            domain_end(emulator->domain, "host-signal");
        }
        qmp_turn(emulator->qmp);
        domain_turn(emulator->domain);
    }
    return exit_status;
}

/* Files and sockets that go with the process. Returns how many. */
static size_t list_paths(const struct line *line, const char *paths[PATH_COUNT_MAX])
{
    size_t count = 0;

    for (uint32_t i = 0; i < line->chardev_count; i++) {
        if (line->chardevs[i].kind == LINE_CHARDEV_SOCKET && line->chardevs[i].path != NULL) {
            paths[count++] = line->chardevs[i].path;
        }
    }
    if (line->qmp_path != NULL) {
        paths[count++] = line->qmp_path;
    }
    if (line->pid_path != NULL) {
        paths[count++] = line->pid_path;
    }
    return count;
}

static bool has_user_network(const struct line *line)
{
    for (uint32_t i = 0; i < line->net_count; i++) {
        if (line->nets[i].kind == LINE_NET_USER) {
            return true;
        }
    }
    return false;
}

/* All that is needed is open, for every life of the guest. */
static enum loam_error confine(void *self, struct loam_diag *diag)
{
    const struct emulator *emulator = self;
    const char *paths[PATH_COUNT_MAX];
    const struct sandbox_needs needs = {.is_domain = true,
                                        .has_network = has_user_network(emulator->line),
                                        .paths = paths,
                                        .path_count = list_paths(emulator->line, paths)};

    return emulator->line->no_sandbox ? LOAM_OK : sandbox_enter(&needs, diag);
}

static enum loam_error start_domain(struct emulator *emulator, struct loam_diag *diag)
{
    const struct domain_config config = {.line = emulator->line,
                                         .end_fd = session_fd(&emulator->session),
                                         .news = {tell, emulator},
                                         .confine = confine,
                                         .confine_self = emulator};
    enum loam_error error = standard_start(diag);

    if (error == LOAM_OK) {
        error = domain_create(&config, &emulator->domain, diag);
    }
    if (error == LOAM_OK) {
        error = open_qmp(emulator, diag);
    }
    if (error == LOAM_OK) {
        error = daemon_prepare(&emulator->daemon, diag);
    }
    if (error == LOAM_OK) {
        error = domain_make(emulator->domain, diag);
    }
    if (error == LOAM_OK) {
        daemon_ready(&emulator->daemon);
    }
    return error;
}

/* A domain that cannot be released is the kernel's to clear away. */
static void end_domain(struct emulator *emulator, int exit_status)
{
    close_qmp(emulator);
    if (!domain_destroy(emulator->domain)) {
        (void)standard_finish(-1, READ_MILLISECONDS);
        _exit(exit_status);
    }
}

static int run_domain(struct emulator *emulator)
{
    struct loam_diag diag = {0};
    enum loam_error error = session_open(&emulator->session, &diag);
    int exit_status;

    if (error != LOAM_OK) {
        return fail(&diag);
    }
    error = start_domain(emulator, &diag);
    if (error == LOAM_ERROR_CANCELLED) {
        exit_status = EXIT_SUCCESS; /* it was told to end, and has nothing to complain of */
    } else {
        exit_status = error == LOAM_OK ? live(emulator) : fail(&diag);
    }
    end_domain(emulator, exit_status);
    session_close(&emulator->session);
    return exit_status;
}

/* --- The program ---------------------------------------------------------------------------------------------------------- */

static int run(const struct line *line)
{
    struct emulator emulator = {.line = line};
    struct loam_diag diag = {0};
    int exit_status;

    if (daemon_begin(&emulator.daemon, line->daemonize, line->pid_path, &diag) != LOAM_OK) {
        return fail(&diag);
    }
    if (fdsets_init(&emulator.fdsets, line, &diag) != LOAM_OK) {
        exit_status = fail(&diag);
    } else {
        exit_status = line->is_probe ? run_probe(&emulator) : run_domain(&emulator);
    }
    close_qmp(&emulator);
    fdsets_close(&emulator.fdsets);
    daemon_end(&emulator.daemon);
    return exit_status;
}

static int show_version(void)
{
    printf("loam-emulator %s, with the machine protocol of QEMU emulator version %d.%d.%d\n", LOAM_VERSION,
           PROBE_VERSION_MAJOR, PROBE_VERSION_MINOR, PROBE_VERSION_MICRO);
    return EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
    struct loam_diag diag = {0};
    struct line line;
    int exit_status;

    standard_open(EXIT_FAILURE);
    (void)signal(SIGPIPE, SIG_IGN);
    if (line_read(argc, argv, &line, &diag) != LOAM_OK) {
        return fail(&diag);
    }
    if (line.wants_version) {
        exit_status = show_version();
    } else if (line.wants_help) {
        exit_status = line_print_help(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
    } else {
        exit_status = run(&line);
    }
    line_release(&line);
    (void)standard_finish(-1, READ_MILLISECONDS);
    return exit_status;
}
