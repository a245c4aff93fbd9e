// SPDX-License-Identifier: Apache-2.0
#include "tests/emulator/emulator_run.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS_MAX 64

char *emulator_path(void)
{
    char *path = getenv("LOAM_EMULATOR");

    cr_assert_not_null(path, "LOAM_EMULATOR names the program");
    return path;
}

char *domain_guest_path(void)
{
    char *path = getenv("LOAM_DOMAIN_GUEST");

    cr_assert_not_null(path, "LOAM_DOMAIN_GUEST names the guest");
    return path;
}

/* --- Start and end ---------------------------------------------------------------------------------------------------- */

void emulator_run_init(struct emulator_run *run)
{
    *run = (struct emulator_run){
        .mib = "64", .memory = "memory-backend-memfd,share=on", .monitor = -1, .serial = -1, .events = json_array()};
    run->process.pid = -1;
    snprintf(run->folder, sizeof run->folder, "/tmp/loam-emulator-XXXXXX");
    cr_assert_not_null(mkdtemp(run->folder));
    snprintf(run->monitor_path, sizeof run->monitor_path, "%s/monitor", run->folder);
    snprintf(run->serial_path, sizeof run->serial_path, "%s/serial", run->folder);
}

static void close_serial(struct emulator_run *run)
{
    if (run->serial >= 0) {
        close(run->serial);
        run->serial = -1;
    }
}

void emulator_run_end(struct emulator_run *run)
{
    emulator_run_hang_up(run);
    close_serial(run);
    if (run->process.out != NULL) { /* it was started */
        process_end(&run->process);
    }
    json_decref(run->events);
    free(run->said);
    unlink(run->monitor_path);
    unlink(run->serial_path);
    cr_expect_eq(rmdir(run->folder), 0, "something is left in %s", run->folder);
}

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    return address;
}

/* As libvirtd makes them: listening, and inherited. */
static int listen_at(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    unlink(path);
    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(fd, 1), 0);
    return fd;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void start(struct emulator_run *run, const char *kernel, const char *option, va_list options)
{
    char monitor[64], serial[64], memory[256];
    int listeners[] = {listen_at(run->monitor_path), listen_at(run->serial_path)};
    char *argv[ARGUMENTS_MAX] = {emulator_path(),
                                 "-name",
                                 "guest=test,debug-threads=on",
                                 "-S",
                                 "-machine",
                                 "microvm,usb=off,dump-guest-core=off,memory-backend=microvm.ram",
                                 "-object",
                                 memory,
                                 "-m",
                                 (char *)run->mib,
                                 "-accel",
                                 "kvm",
                                 "-display",
                                 "none",
                                 "-no-user-config",
                                 "-nodefaults",
                                 "-chardev",
                                 monitor,
                                 "-mon",
                                 "chardev=charmonitor,id=monitor,mode=control",
                                 "-chardev",
                                 serial,
                                 "-device",
                                 "isa-serial,chardev=charserial0,id=serial0,index=0"};
    size_t count = 24;

    snprintf(memory, sizeof memory, "%s,id=microvm.ram,size=%sM", run->memory, run->mib);
    snprintf(monitor, sizeof monitor, "socket,id=charmonitor,fd=%d,server=on,wait=off", listeners[0]);
    snprintf(serial, sizeof serial, "socket,id=charserial0,fd=%d,server=on,wait=off", listeners[1]);
    if (kernel != NULL) {
        argv[count++] = "-kernel";
        argv[count++] = (char *)kernel;
    }
    for (; option != NULL; option = va_arg(options, const char *)) {
        cr_assert_lt(count, ARGUMENTS_MAX - 1);
        argv[count++] = (char *)option;
    }
    cr_assert(process_start(&run->process, argv, EMULATOR_RUN_MILLISECONDS));
    close(listeners[0]);
    close(listeners[1]);
}

void emulator_run_start(struct emulator_run *run, const char *kernel, ...)
{
    va_list options;

    va_start(options, kernel);
    start(run, kernel, va_arg(options, const char *), options);
    va_end(options);
}

/* --- QMP --------------------------------------------------------------------------------------------------------------- */

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int left_milliseconds(const struct emulator_run *run)
{
    int64_t left = run->process.deadline - now_milliseconds();

    return left < 0 ? 0 : (int)left;
}

void emulator_run_prolong(struct emulator_run *run)
{
    run->process.deadline = now_milliseconds() + EMULATOR_RUN_MILLISECONDS;
}

/* What has come is added to a text. false: nothing more will, or time is up. */
static bool read_more(const struct emulator_run *run, int fd, char **text, size_t *bytes)
{
    struct pollfd readable = {.fd = fd, .events = POLLIN};
    char *grown = realloc(*text, *bytes + 4097);
    ssize_t more;

    cr_assert_not_null(grown);
    *text = grown;
    if (poll(&readable, 1, left_milliseconds(run)) <= 0) {
        return false;
    }
    more = read(fd, *text + *bytes, 4096);
    *bytes += more > 0 ? (size_t)more : 0;
    (*text)[*bytes] = '\0';
    return more > 0;
}

/* The next object, or NULL at the end. */
static json_t *next_object(struct emulator_run *run)
{
    char *end = NULL;
    json_t *object;

    while (run->text == NULL || (end = memchr(run->text, '\n', run->text_bytes)) == NULL) {
        if (!read_more(run, run->monitor, &run->text, &run->text_bytes)) {
            return NULL;
        }
    }
    object = json_loadb(run->text, (size_t)(end - run->text), 0, NULL);
    cr_assert_not_null(object, "no JSON: %.*s", (int)(end - run->text), run->text);
    run->text_bytes -= (size_t)(end + 1 - run->text);
    memmove(run->text, end + 1, run->text_bytes + 1);
    return object;
}

void emulator_run_hang_up(struct emulator_run *run)
{
    if (run->monitor >= 0) {
        close(run->monitor);
    }
    run->monitor = -1;
    free(run->text);
    run->text = NULL;
    run->text_bytes = 0;
}

static const char *errors_of(struct emulator_run *run)
{
    (void)process_wait(&run->process);
    return run->process.err;
}

void emulator_run_connect(struct emulator_run *run)
{
    json_t *greeting;

    run->monitor = connect_to(run->monitor_path);
    greeting = next_object(run);
    cr_assert_not_null(greeting, "no greeting: %s", errors_of(run));
    cr_expect_not_null(json_object_get(greeting, "QMP"));
    json_decref(greeting);
    json_decref(emulator_run_do(run, "qmp_capabilities", NULL));
}

/* The descriptor goes with the first byte; -1: none. */
static void send_line(const struct emulator_run *run, const char *text, int fd)
{
    char control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec parts[] = {{(char *)text, strlen(text)}, {"\n", 1}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    struct cmsghdr *header;

    if (fd >= 0) {
        message.msg_control = control;
        message.msg_controllen = sizeof control;
        header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
    }
    cr_assert_eq(sendmsg(run->monitor, &message, MSG_NOSIGNAL), (ssize_t)strlen(text) + 1);
}

json_t *emulator_run_ask(struct emulator_run *run, const char *command, json_t *arguments)
{
    return emulator_run_ask_with(run, command, arguments, -1);
}

json_t *emulator_run_ask_with(struct emulator_run *run, const char *command, json_t *arguments, int fd)
{
    static int id;
    json_t *request = json_pack("{sssi}", "execute", command, "id", ++id), *reply;
    char *text;

    if (arguments != NULL) {
        json_object_set_new(request, "arguments", arguments);
    }
    text = json_dumps(request, JSON_COMPACT);
    json_decref(request);
    send_line(run, text, fd);
    free(text);
    while ((reply = next_object(run)) != NULL && json_object_get(reply, "event") != NULL) {
        json_array_append_new(run->events, reply);
    }
    cr_assert_not_null(reply, "%s: no reply: %s", command, errors_of(run));
    cr_assert_eq(json_integer_value(json_object_get(reply, "id")), id);
    return reply;
}

json_t *emulator_run_do(struct emulator_run *run, const char *command, json_t *arguments)
{
    json_t *reply = emulator_run_ask(run, command, arguments), *value = json_object_get(reply, "return");

    cr_assert_not_null(value, "%s: %s", command,
                       json_string_value(json_object_get(json_object_get(reply, "error"), "desc")));
    json_incref(value);
    json_decref(reply);
    return value;
}

void emulator_run_refused(struct emulator_run *run, const char *command, json_t *arguments, const char *error_class,
                          const char *text)
{
    json_t *reply = emulator_run_ask(run, command, arguments), *error = json_object_get(reply, "error");
    const char *found = json_string_value(json_object_get(error, "desc"));

    cr_assert_not_null(found, "%s was not refused", command);
    cr_expect_str_eq(json_string_value(json_object_get(error, "class")), error_class);
    cr_expect_not_null(strstr(found, text), "%s: '%s' does not say '%s'", command, found, text);
    json_decref(reply);
}

bool emulator_run_has(const struct emulator_run *run, const char *name)
{
    const json_t *event;
    size_t i;

    json_array_foreach(run->events, i, event)
    {
        if (strcmp(json_string_value(json_object_get(event, "event")), name) == 0) {
            return true;
        }
    }
    return false;
}

json_t *emulator_run_await(struct emulator_run *run, const char *name)
{
    json_t *event;

    for (;;) {
        while (json_array_size(run->events) > 0) {
            event = json_incref(json_array_get(run->events, 0));
            json_array_remove(run->events, 0);
            if (strcmp(json_string_value(json_object_get(event, "event")), name) == 0) {
                return event;
            }
            json_decref(event);
        }
        event = next_object(run);
        cr_assert_not_null(event, "%s does not come: %s", name, errors_of(run));
        json_array_append_new(run->events, event);
    }
}

void emulator_run_expect_status(struct emulator_run *run, const char *status)
{
    json_t *answer = emulator_run_do(run, "query-status", NULL);

    cr_expect_str_eq(json_string_value(json_object_get(answer, "status")), status);
    cr_expect_eq(json_is_true(json_object_get(answer, "running")), strcmp(status, "running") == 0);
    json_decref(answer);
}

/* --- The serial line ------------------------------------------------------------------------------------------------------ */

static void need_serial(struct emulator_run *run)
{
    if (run->serial < 0) {
        run->serial = connect_to(run->serial_path);
    }
}

/* A guest may say zeros as well. */
static const char *find_said(const struct emulator_run *run, const char *text)
{
    return run->said == NULL
               ? NULL
               : memmem(run->said + run->said_looked, run->said_bytes - run->said_looked, text, strlen(text));
}

void emulator_run_expect(struct emulator_run *run, const char *text)
{
    const char *found;

    need_serial(run);
    while ((found = find_said(run, text)) == NULL) {
        cr_assert(read_more(run, run->serial, &run->said, &run->said_bytes),
                  "'%s' does not come; the guest said: %s; the program: %s", text, run->said, errors_of(run));
    }
    run->said_looked = (size_t)(found - run->said) + strlen(text);
}

void emulator_run_type(struct emulator_run *run, const char *text)
{
    need_serial(run);
    cr_assert_eq(write(run->serial, text, strlen(text)), (ssize_t)strlen(text));
}

uint64_t emulator_run_count(struct emulator_run *run)
{
    size_t from;

    emulator_run_type(run, "c");
    emulator_run_expect(run, "count ");
    from = run->said_looked;
    emulator_run_expect(run, "\r\n");
    return strtoull(run->said + from, NULL, 0);
}

void emulator_run_guest(struct emulator_run *run, const char *option, ...)
{
    va_list options;

    va_start(options, option);
    start(run, domain_guest_path(), option, options);
    va_end(options);
    emulator_run_connect(run);
    json_decref(emulator_run_do(run, "cont", NULL));
    emulator_run_expect(run, "ready\r\n");
}
