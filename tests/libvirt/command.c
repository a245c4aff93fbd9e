// SPDX-License-Identifier: Apache-2.0
#include "tests/libvirt/command.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char *path_from(const char *variable)
{
    char *path = getenv(variable);

    cr_assert_not_null(path, "%s is not in the environment: run the test by Bazel", variable);
    return path;
}

char *command_host(void)
{
    return path_from("LOAM_HOST");
}

char *command_place(void)
{
    return path_from("LOAM_PLACE");
}

char *command_loam(void)
{
    return path_from("LOAM");
}

int command_run(struct process *process, char *program, ...)
{
    char *argv[COMMAND_WORD_MAX + 2] = {program};
    va_list words;

    va_start(words, program);
    for (size_t i = 1; i <= COMMAND_WORD_MAX && (argv[i] = va_arg(words, char *)) != NULL; i++) {
    }
    va_end(words);
    return process_run(process, argv, COMMAND_MILLISECONDS);
}

json_t *command_json(const struct process *process)
{
    json_error_t error;
    json_t *json = json_loads(process->out, 0, &error);

    cr_assert_not_null(json, "%s: %s%s", error.text, process->out, process->err);
    return json;
}

void command_expect_line(const struct process *process, const char *words)
{
    const char *newline = strchr(process->err, '\n');

    cr_expect_not_null(strstr(process->err, words), "'%s' does not say '%s'", process->err, words);
    cr_expect(newline != NULL && newline[1] == '\0', "not one line: %s", process->err);
    cr_expect_eq(strncmp(process->err, "loam ", 5), 0, "%s: who says so?", process->err);
}

void command_need(struct libvirtd *daemon, enum libvirtd_kind kind, bool listens_on_tcp)
{
    const char *lack = libvirtd_lack(kind);

    if (lack != NULL) {
        cr_skip_test("%s", lack);
    }
    cr_assert(libvirtd_start(daemon, kind, listens_on_tcp), "libvirtd did not come up");
}

int command_silent_socket(char path[64])
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(path, 64, "/tmp/loam-silent.%d", (int)getpid());
    strcpy(address.sun_path, path);
    unlink(path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 8), 0);
    return fd;
}
