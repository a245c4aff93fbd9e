// SPDX-License-Identifier: Apache-2.0
#include "vmm/trace_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[] = "/tmp/loam-trace-XXXXXX";
static char path[64], other[64];
static struct loam_diag diag;
static int fd = -1;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/trace", folder);
    snprintf(other, sizeof other, "%s/other", folder);
}

static void tear_down(void)
{
    if (fd >= 0) {
        close(fd);
    }
    (void)unlink(path);
    (void)rmdir(path);
    (void)unlink(other);
    cr_expect_eq(rmdir(folder), 0, "something was left in %s", folder);
}

TestSuite(trace_file, .init = set_up, .fini = tear_down, .timeout = 30);

static void write_file(const char *name, const char *text, mode_t mode)
{
    int made = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);

    cr_assert_geq(made, 0);
    cr_assert_eq(write(made, text, strlen(text)), (ssize_t)strlen(text));
    cr_assert_eq(close(made), 0);
}

static void expect_refused(enum loam_error error, const char *why)
{
    cr_expect_eq(trace_file_open(path, &fd, &diag), error, "%s", diag.text);
    cr_expect_eq(fd, -1);
    cr_expect_not_null(strstr(diag.text, why), "%s", diag.text);
    cr_expect_not_null(strstr(diag.text, path), "%s", diag.text);
}

static struct stat status_of(const char *name)
{
    struct stat status;

    cr_assert_eq(lstat(name, &status), 0);
    return status;
}

Test(trace_file, makes_one_for_its_owner_alone)
{
    umask(0);
    cr_assert_eq(trace_file_open(path, &fd, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(status_of(path).st_mode, S_IFREG | 0600);
    cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    cr_expect_eq(write(fd, "x", 1), 1);
}

Test(trace_file, empties_a_former_trace)
{
    write_file(path, "{\"time\":1,\"vcpu\":0,\"reason\":\"KVM_EXIT_HLT\"}\n", 0640);
    cr_assert_eq(trace_file_open(path, &fd, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(status_of(path).st_size, 0);
    cr_expect_eq(status_of(path).st_mode, S_IFREG | 0640);
}

Test(trace_file, takes_an_empty_file)
{
    write_file(path, "", 0600);
    cr_expect_eq(trace_file_open(path, &fd, &diag), LOAM_OK, "%s", diag.text);
}

Test(trace_file, keeps_what_is_no_trace)
{
    static const char dear[] = "{\"key\":\"of something dear\"}\n";

    write_file(path, dear, 0600);
    expect_refused(LOAM_ERROR_INVALID, "holds something else than a trace");
    cr_expect_eq(status_of(path).st_size, sizeof dear - 1);
    cr_assert_eq(truncate(path, 3), 0);
    expect_refused(LOAM_ERROR_INVALID, "holds something else than a trace");
}

Test(trace_file, follows_no_symbolic_link)
{
    write_file(other, "", 0600);
    cr_assert_eq(symlink(other, path), 0);
    expect_refused(LOAM_ERROR_INVALID, "a symbolic link");
    cr_assert_eq(unlink(other), 0);
    expect_refused(LOAM_ERROR_INVALID, "a symbolic link");
    cr_expect_neq(access(other, F_OK), 0, "nothing was made at its end");
}

Test(trace_file, takes_a_fifo_that_is_read)
{
    int reader;

    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refused(LOAM_ERROR_INVALID, "a FIFO that nobody reads");
    reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_geq(reader, 0);
    cr_assert_eq(trace_file_open(path, &fd, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_eq(write(fd, "x", 1), 1);
    close(reader);
    signal(SIGPIPE, SIG_IGN);
    cr_expect_eq(write(fd, "x", 1), -1, "it has no reader of its own");
}

Test(trace_file, refuses_what_is_no_file)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener;

    cr_assert_eq(mkdir(path, 0700), 0);
    expect_refused(LOAM_ERROR_SYSTEM, "Is a directory");
    cr_assert_eq(rmdir(path), 0);
    strcpy(address.sun_path, path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    expect_refused(LOAM_ERROR_SYSTEM, "No such device or address");
    close(listener);
    cr_assert_eq(unlink(path), 0);
    if (geteuid() == 0 && mknod(path, S_IFBLK | 0600, makedev(7, 0)) == 0) { /* a loop device, bound or not */
        cr_expect_neq(trace_file_open(path, &fd, &diag), LOAM_OK);
        cr_expect_eq(fd, -1);
    }
}

Test(trace_file, says_why_it_cannot_be_made)
{
    snprintf(path, sizeof path, "%s/none/trace", folder);
    expect_refused(LOAM_ERROR_SYSTEM, "No such file or directory");
}

Test(trace_file, takes_a_device_of_characters)
{
    strcpy(path, "/dev/null");
    cr_expect_eq(trace_file_open(path, &fd, &diag), LOAM_OK, "%s", diag.text);
    snprintf(path, sizeof path, "%s/none", folder); /* for tear_down */
}
