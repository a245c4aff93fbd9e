// SPDX-License-Identifier: Apache-2.0
#include "tests/support/libvirtd.h"

#include "tests/support/process.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PATIENCE_MILLISECONDS 60000

static void start(struct libvirtd *daemon, enum libvirtd_kind kind, bool listens_on_tcp)
{
    const char *lack = libvirtd_lack(kind);

    if (lack != NULL) {
        cr_skip_test("%s", lack);
    }
    if (access("/usr/bin/virsh", X_OK) != 0) {
        cr_skip_test("virsh is not installed");
    }
    cr_assert(libvirtd_start(daemon, kind, listens_on_tcp));
}

/* What virsh prints when it asks that URI; "" if it is refused. */
static char *virsh(const char *uri, const char *command)
{
    struct process process;
    char *argv[] = {"virsh", "--connect", (char *)uri, (char *)command, NULL}, *text;
    int status = process_run(&process, argv, PATIENCE_MILLISECONDS);

    text = strdup(status == 0 ? process.out : "");
    process_end(&process);
    return text;
}

static bool answers(const char *uri)
{
    char *text = virsh(uri, "version");
    bool good = strstr(text, "Running hypervisor: QEMU") != NULL || strstr(text, "Using API: QEMU") != NULL;

    free(text);
    return good;
}

/* Processes of the host whose command line or mounts name the folder. */
static unsigned count_traces(const char *folder)
{
    DIR *processes = opendir("/proc");
    unsigned count = 0;

    for (const struct dirent *entry; (entry = readdir(processes)) != NULL;) {
        static const char *const files[] = {"cmdline", "mountinfo"};

        for (size_t i = 0; entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && i < 2; i++) {
            char path[300], text[16384] = "";
            FILE *file;

            snprintf(path, sizeof path, "/proc/%s/%s", entry->d_name, files[i]);
            file = fopen(path, "r");
            if (file != NULL) {
                count += memmem(text, fread(text, 1, sizeof text, file), folder, strlen(folder)) != NULL;
                fclose(file);
            }
        }
    }
    closedir(processes);
    return count;
}

static void check_gone(const char *folder)
{
    cr_expect_eq(access(folder, F_OK), -1);
    cr_expect_eq(count_traces(folder), 0);
}

static void check_one(enum libvirtd_kind kind)
{
    struct libvirtd daemon;
    char folder[sizeof daemon.folder], uri[sizeof daemon.uri];

    start(&daemon, kind, true);
    strcpy(folder, daemon.folder);
    strcpy(uri, daemon.uri);
    cr_expect(answers(daemon.uri));
    cr_expect(answers(daemon.tcp_uri), "%s", daemon.tcp_uri);
    cr_expect_gt(count_traces(folder), 0, "what is looked for at the end can be seen");
    cr_expect(libvirtd_kill(&daemon));
    cr_expect_not(answers(daemon.uri));
    cr_expect(libvirtd_restart(&daemon));
    cr_expect(answers(daemon.uri));
    cr_expect(libvirtd_restart(&daemon));
    cr_expect(answers(daemon.uri));
    cr_expect(libvirtd_end(&daemon));
    cr_expect_not(answers(uri));
    check_gone(folder);
}

Test(libvirtd, a_system_daemon)
{
    check_one(LIBVIRTD_SYSTEM);
}

Test(libvirtd, a_session_daemon)
{
    check_one(LIBVIRTD_SESSION);
}

Test(libvirtd, two_are_apart)
{
    struct libvirtd one, other;
    char *first, *second;

    start(&one, LIBVIRTD_SESSION, false);
    start(&other, LIBVIRTD_SESSION, false);
    first = virsh(one.uri, "capabilities");
    second = virsh(other.uri, "capabilities");
    cr_expect_neq(strcmp(first, second), 0, "they have uuids of their own");
    free(first);
    free(second);
    cr_expect(libvirtd_end(&one));
    cr_expect(answers(other.uri));
    cr_expect(libvirtd_end(&other));
}

Test(libvirtd, a_file_is_lent)
{
    struct libvirtd daemon;
    struct stat status;
    char path[LIBVIRTD_PATH_MAX];

    start(&daemon, LIBVIRTD_SESSION, false);
    cr_assert(libvirtd_lend(&daemon, "/bin/sh", "shell", path));
    cr_expect_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode & 0777, 0755);
    cr_expect_not(libvirtd_lend(&daemon, "/nonexistent", "shell", path));
    cr_expect(libvirtd_end(&daemon));
}

static void await_end(pid_t pid)
{
    struct pollfd end = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};

    if (end.fd >= 0) {
        cr_expect_eq(poll(&end, 1, PATIENCE_MILLISECONDS), 1, "the keeper outlives the test");
        close(end.fd);
    }
}

/* The test is killed: nobody is left who could clean up but the keeper. */
Test(libvirtd, nothing_outlives_a_test_that_is_killed)
{
    struct libvirtd daemon;
    int ends[2];
    pid_t pid;

    cr_assert_eq(pipe(ends), 0);
    if (libvirtd_lack(LIBVIRTD_SYSTEM) != NULL) {
        cr_skip_test("%s", libvirtd_lack(LIBVIRTD_SYSTEM));
    }
    pid = fork();
    if (pid == 0) {
        memset(&daemon, 0, sizeof daemon);
        if (!libvirtd_start(&daemon, LIBVIRTD_SYSTEM, false) ||
            write(ends[1], &daemon, sizeof daemon) != sizeof daemon) {
            _exit(1);
        }
        pause();
    }
    close(ends[1]);
    cr_assert_eq(read(ends[0], &daemon, sizeof daemon), sizeof daemon);
    cr_expect_gt(count_traces(daemon.folder), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    await_end(daemon.keeper);
    check_gone(daemon.folder);
}

/* As a check that fails leaves: nothing is ended, and the process's end is an ordinary one. */
Test(libvirtd, nothing_outlives_a_test_that_leaves)
{
    struct libvirtd daemon;
    char folder[sizeof daemon.folder] = "";
    int ends[2];
    pid_t pid;

    cr_assert_eq(pipe(ends), 0);
    if (libvirtd_lack(LIBVIRTD_SESSION) != NULL) {
        cr_skip_test("%s", libvirtd_lack(LIBVIRTD_SESSION));
    }
    pid = fork();
    if (pid == 0) {
        if (libvirtd_start(&daemon, LIBVIRTD_SESSION, false)) {
            (void)!write(ends[1], daemon.folder, sizeof daemon.folder);
        }
        exit(0);
    }
    cr_expect_eq(waitpid(pid, NULL, 0), pid);
    cr_assert_eq(read(ends[0], folder, sizeof folder), sizeof folder);
    check_gone(folder);
}
