// SPDX-License-Identifier: Apache-2.0
#include "vmm/listener.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[] = "/tmp/loam-gdb-XXXXXX";
static char path[64];
static struct listener listener;
static struct loam_diag diag;

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/socket", folder);
    listener.fd = -1;
}

static void tear_down(void)
{
    listener_close(&listener);
    cr_expect_eq(rmdir(folder), 0, "something was left in %s", folder);
}

TestSuite(listener, .init = set_up, .fini = tear_down, .timeout = 30);

static int connect_path(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void expect_refused(const char *where, enum loam_error error, const char *why)
{
    cr_expect_eq(listener_open("--gdb", where, &listener, &diag), error, "%s: %s", where, diag.text);
    cr_expect_not_null(strstr(diag.text, why), "%s", diag.text);
    cr_expect_eq(listener.fd, -1);
}

Test(listener, makes_a_socket_that_is_its_owners_alone)
{
    struct stat status;
    int fd, accepted;

    umask(0);
    cr_assert_eq(listener_open("--gdb", path, &listener, &diag), LOAM_OK, "%s", diag.text);
    cr_expect_str_eq(listener.name, path);
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_mode, S_IFSOCK | 0600);
    cr_expect_eq(listener_accept(&listener), -1, "nobody has come");
    fd = connect_path();
    accepted = listener_accept(&listener);
    cr_expect_geq(accepted, 0);
    cr_expect_eq(fcntl(accepted, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    cr_expect_eq(fcntl(accepted, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    close(accepted);
    close(fd);
    listener_close(&listener);
    cr_expect_neq(access(path, F_OK), 0, "it goes with the listener");
}

Test(listener, takes_the_place_of_one_that_was_left_behind)
{
    cr_assert_eq(listener_open("--gdb", path, &listener, &diag), LOAM_OK);
    close(listener.fd); /* as a process that was killed */
    cr_expect_eq(listener_open("--gdb", path, &listener, &diag), LOAM_OK, "%s", diag.text);
}

Test(listener, leaves_alone_what_is_not_its_own)
{
    struct listener other;
    int fd;

    cr_assert_eq(listener_open("--gdb", path, &other, &diag), LOAM_OK);
    expect_refused(path, LOAM_ERROR_OVERLAP, "somebody else listens there");
    fd = connect_path(); /* and still does */
    close(fd);
    listener_close(&other);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    close(fd);
    expect_refused(path, LOAM_ERROR_OVERLAP, "somebody else");
    cr_expect_eq(unlink(path), 0, "a file is no socket");
}

Test(listener, listens_at_a_port_of_this_host_alone)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    struct listener other;
    int fd, accepted;

    cr_assert_eq(listener_open("--gdb", "0", &listener, &diag), LOAM_OK, "%s", diag.text);
    cr_assert_eq(getsockname(listener.fd, (struct sockaddr *)&address, &length), 0);
    cr_expect_eq(address.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
    cr_expect_eq(strncmp(listener.name, "127.0.0.1:", 10), 0, "%s", listener.name);
    cr_expect_eq(strtoul(listener.name + 10, NULL, 10), ntohs(address.sin_port));
    cr_expect_eq(listener_open("--gdb", listener.name + 10, &other, &diag), LOAM_ERROR_OVERLAP, "%s", diag.text);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    accepted = listener_accept(&listener);
    cr_expect_geq(accepted, 0);
    close(accepted);
    close(fd);
}

Test(listener, refuses_what_is_neither)
{
    char longest[200];

    memset(longest, 'x', sizeof longest);
    longest[199] = '\0';
    expect_refused("65536", LOAM_ERROR_INVALID, "ports go from 0");
    expect_refused("99999999999999999999", LOAM_ERROR_INVALID, "ports go from 0");
    expect_refused("tcp::1234", LOAM_ERROR_INVALID, "give a port, such as 1234");
    expect_refused("localhost:1234", LOAM_ERROR_INVALID, "give a port, such as 1234");
    expect_refused("", LOAM_ERROR_INVALID, "give a port, such as 1234");
    expect_refused(longest, LOAM_ERROR_INVALID, "at most 107: shorten it");
    expect_refused("/nowhere/at/all", LOAM_ERROR_SYSTEM, "No such file or directory");
}
