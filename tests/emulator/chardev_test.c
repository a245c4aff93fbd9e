// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/chardev.h"

#include "vmm/intake.h"
#include "vmm/standard.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MILLISECONDS 20000 /* by then something hangs */

static char folder[] = "/tmp/loam-chardev-XXXXXX";
static char path[64], log_path[64];
static struct chardev *chardev;
static struct loam_diag diag;
static struct line_chardev line;

/* What came in; the receiver takes up to `room` at a time. */
static struct {
    char text[4096];
    size_t count, room;
} received;

static size_t sink(void *self, const uint8_t *bytes, size_t count)
{
    size_t taken = count < received.room ? count : received.room;

    (void)self;
    taken = taken < sizeof received.text - received.count ? taken : sizeof received.text - received.count;
    memcpy(received.text + received.count, bytes, taken);
    received.count += taken;
    return taken;
}

static void set_up(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/end", folder);
    snprintf(log_path, sizeof log_path, "%s/log", folder);
    standard_open(EXIT_FAILURE);
    line = (struct line_chardev){.id = "serial0", .fd = -1, .log_fd = -1};
    received.room = sizeof received.text;
    received.count = 0;
}

static void tear_down(void)
{
    chardev_close(chardev);
    chardev = NULL;
    unlink(path);
    unlink(log_path);
    cr_expect_eq(rmdir(folder), 0, "something is left in %s", folder);
}

TestSuite(chardev, .init = set_up, .fini = tear_down, .timeout = 60);

static void open_kind(enum line_chardev_kind kind)
{
    line.kind = kind;
    cr_assert_eq(chardev_open(&line, &chardev, &diag), LOAM_OK, "%s", diag.text);
}

static int64_t now_milliseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* One round of the owner's loop, which waits for fd (-1: none) too. */
static void turn(int fd, short events, bool takes_input)
{
    struct pollfd fds[CHARDEV_POLL_MAX + 1] = {{.fd = fd, .events = events}};
    int timeout = 1000;
    size_t count = chardev_poll(chardev, fds + 1, takes_input, &timeout);

    (void)poll(fds, (nfds_t)(1 + count), timeout);
    chardev_turn(chardev, takes_input ? sink : NULL, NULL);
}

/* How often the owner's loop turns in a fifth of a second. */
static unsigned int wait_count(bool takes_input)
{
    int64_t end = now_milliseconds() + 200;
    unsigned int count = 0;

    for (; now_milliseconds() < end; count++) {
        turn(-1, 0, takes_input);
    }
    return count;
}

/* Turn and read from fd until count bytes have come; returns how many did. */
static size_t read_turning(int fd, char *text, size_t count)
{
    int64_t end = now_milliseconds() + LIMIT_MILLISECONDS;
    size_t got = 0;

    while (got < count && now_milliseconds() < end) {
        ssize_t more;

        turn(fd, POLLIN, true);
        more = read(fd, text + got, count - got);
        got += more > 0 ? (size_t)more : 0;
    }
    return got;
}

static void expect_read(int fd, const char *text)
{
    char got[256] = "";

    cr_expect_eq(read_turning(fd, got, strlen(text)), strlen(text), "'%s' wanted, '%s' came", text, got);
    cr_expect_str_eq(got, text);
}

static void expect_received(const char *text)
{
    int64_t end = now_milliseconds() + LIMIT_MILLISECONDS;

    while (received.count < strlen(text) && now_milliseconds() < end) {
        turn(-1, 0, true);
    }
    cr_expect_eq(received.count, strlen(text));
    cr_expect_eq(memcmp(received.text, text, received.count), 0);
    received.count = 0;
}

static void say(const char *text)
{
    chardev_write(chardev, (const uint8_t *)text, strlen(text));
}

/* --- Terminals --------------------------------------------------------------------------------------------------- */

static int open_terminal(void)
{
    int fd;

    cr_assert_eq(strncmp(chardev_filename(chardev), "pty:/dev/pts/", 13), 0, "%s", chardev_filename(chardev));
    fd = open(chardev_filename(chardev) + 4, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

Test(chardev, a_terminal_carries_bytes_both_ways_and_unchanged)
{
    int fd;

    open_kind(LINE_CHARDEV_PTY);
    fd = open_terminal();
    say("hello\r\n\003\004");
    expect_read(fd, "hello\r\n\003\004");
    cr_assert_eq(write(fd, "typed\r\003", 7), 7);
    expect_received("typed\r\003");
    cr_expect_eq(received.count, 0, "output came back as input");
    close(fd);
}

Test(chardev, what_nobody_read_is_there_for_who_comes_later)
{
    int fd;

    open_kind(LINE_CHARDEV_PTY);
    say("early, ");
    turn(-1, 0, true);
    fd = open_terminal();
    expect_read(fd, "early, ");
    say("late");
    expect_read(fd, "late");
    close(fd);
    turn(-1, 0, true);
    say("between");
    turn(-1, 0, true);
    fd = open_terminal();
    expect_read(fd, "between");
    close(fd);
}

/* Numbers, so that the place of each byte shows. */
static void say_numbers(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        char text[16];

        snprintf(text, sizeof text, "%07u\n", i);
        say(text);
    }
}

Test(chardev, without_a_reader_the_latest_is_kept_and_nobody_waits)
{
    const unsigned count = 100000, kept = CHARDEV_HIGH_BYTES / 8;
    char *got = malloc(CHARDEV_HIGH_BYTES + 1);
    int stop = eventfd(0, EFD_CLOEXEC), fd;

    cr_assert_not_null(got);
    open_kind(LINE_CHARDEV_PTY);
    turn(-1, 0, true);
    for (unsigned i = 0; i < count; i += 1000) {
        say_numbers(i, i + 1000);
        chardev_pace(chardev, stop);
    }
    fd = open_terminal();
    cr_assert_eq(read_turning(fd, got, CHARDEV_HIGH_BYTES), CHARDEV_HIGH_BYTES);
    for (unsigned i = 0; i < kept; i++) {
        cr_assert_eq((unsigned)strtoul(got + (size_t)i * 8, NULL, 10), count - kept + i);
    }
    close(fd);
    close(stop);
    free(got);
}

struct writer {
    unsigned count;
    int stop;
    atomic_bool is_done;
};

static void *write_numbers(void *self)
{
    struct writer *writer = self;

    for (unsigned i = 0; i < writer->count; i += 100) {
        say_numbers(i, i + 100);
        chardev_pace(chardev, writer->stop);
    }
    atomic_store(&writer->is_done, true);
    return NULL;
}

Test(chardev, a_reader_gets_every_byte_however_much_there_is)
{
    struct writer writer = {.count = 60000, .stop = eventfd(0, EFD_CLOEXEC)};
    size_t bytes = (size_t)writer.count * 8;
    char *got = malloc(bytes + 1);
    pthread_t thread;
    int fd;

    cr_assert_not_null(got);
    open_kind(LINE_CHARDEV_PTY);
    fd = open_terminal();
    turn(-1, 0, true);
    cr_assert_eq(pthread_create(&thread, NULL, write_numbers, &writer), 0);
    cr_expect_eq(read_turning(fd, got, bytes), bytes);
    for (unsigned i = 0; i < writer.count; i++) {
        cr_assert_eq((unsigned)strtoul(got + (size_t)i * 8, NULL, 10), i);
    }
    pthread_join(thread, NULL);
    close(fd);
    close(writer.stop);
    free(got);
}

Test(chardev, a_reader_that_does_not_read_is_waited_for_no_longer_than_a_second)
{
    struct writer writer = {.count = 100000, .stop = eventfd(0, EFD_CLOEXEC)};
    pthread_t thread;
    int fd;

    open_kind(LINE_CHARDEV_PTY);
    fd = open_terminal();
    turn(-1, 0, true);
    cr_assert_eq(pthread_create(&thread, NULL, write_numbers, &writer), 0);
    for (int64_t end = now_milliseconds() + LIMIT_MILLISECONDS;
         !atomic_load(&writer.is_done) && now_milliseconds() < end;) {
        turn(-1, 0, true);
    }
    cr_expect(atomic_load(&writer.is_done), "the guest hangs with its console");
    pthread_join(thread, NULL);
    close(fd);
    close(writer.stop);
}

Test(chardev, whoever_paces_is_let_go_by_its_end)
{
    struct writer writer = {.count = 20000, .stop = eventfd(1, EFD_CLOEXEC)};
    int64_t begin = now_milliseconds();
    int fd;

    open_kind(LINE_CHARDEV_PTY);
    fd = open_terminal();
    turn(-1, 0, true);
    write_numbers(&writer);
    cr_expect_lt(now_milliseconds() - begin, CHARDEV_STALL_MILLISECONDS);
    close(fd);
    close(writer.stop);
}

Test(chardev, what_was_typed_before_the_terminal_was_closed_arrives)
{
    char text[600];
    int fd;

    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    open_kind(LINE_CHARDEV_PTY);
    fd = open_terminal();
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    close(fd);
    expect_received(text);
}

Test(chardev, input_waits_for_a_receiver_that_is_full_or_away)
{
    int fd;

    open_kind(LINE_CHARDEV_PTY);
    fd = open_terminal();
    cr_assert_eq(write(fd, "abc", 3), 3);
    turn(-1, 0, false);
    cr_expect_eq(received.count, 0);
    received.room = 1;
    turn(-1, 0, true);
    cr_expect_eq(received.count, 1);
    received.room = 10;
    expect_received("abc");
    close(fd);
}

/* --- Files, and the log ------------------------------------------------------------------------------------------ */

static void expect_file(const char *name, const char *text)
{
    char got[256] = "";
    FILE *file = fopen(name, "re");

    cr_assert_not_null(file);
    cr_expect_eq(fread(got, 1, sizeof got - 1, file), strlen(text));
    cr_expect_str_eq(got, text);
    fclose(file);
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "we");

    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static void close_it(void)
{
    chardev_close(chardev);
    chardev = NULL;
}

Test(chardev, a_file_is_emptied_or_appended_to)
{
    line.path = path;
    write_file(path, "before ");
    line.append = true;
    open_kind(LINE_CHARDEV_FILE);
    cr_expect_str_eq(chardev_filename(chardev), "file");
    say("after");
    close_it();
    expect_file(path, "before after");
    line.append = false;
    open_kind(LINE_CHARDEV_FILE);
    say("anew");
    close_it();
    expect_file(path, "anew");
}

Test(chardev, an_inherited_file_stays_whose_it_was)
{
    line.fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    open_kind(LINE_CHARDEV_FILE);
    say("inherited");
    close_it();
    cr_expect_geq(fcntl(line.fd, F_GETFD), 0, "it was closed");
    close(line.fd);
    expect_file(path, "inherited");
}

Test(chardev, the_log_has_all_output_beside)
{
    line.path = path;
    line.log_path = log_path;
    open_kind(LINE_CHARDEV_FILE);
    say("both");
    close_it();
    expect_file(path, "both");
    expect_file(log_path, "both");
    line.log_append = true;
    open_kind(LINE_CHARDEV_NULL);
    cr_expect_str_eq(chardev_filename(chardev), "null");
    say(" and more");
    close_it();
    expect_file(log_path, "both and more");
}

Test(chardev, a_path_that_cannot_be_opened_is_named)
{
    line.path = "/nonexistent/serial.log";
    line.kind = LINE_CHARDEV_FILE;
    cr_expect_eq(chardev_open(&line, &chardev, &diag), LOAM_ERROR_SYSTEM);
    cr_expect_null(chardev);
    cr_expect_not_null(strstr(diag.text, "serial0"));
    cr_expect_not_null(strstr(diag.text, "/nonexistent/serial.log"));
}

Test(chardev, a_pipe_that_nobody_reads_is_refused_and_one_that_is_read_is_written)
{
    char got[16] = "";
    int reader;

    line.path = path;
    line.kind = LINE_CHARDEV_FILE;
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(chardev_open(&line, &chardev, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "nobody reads"), "%s", diag.text);
    reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    open_kind(LINE_CHARDEV_FILE);
    say("read");
    close_it();
    cr_expect_eq(read(reader, got, sizeof got - 1), 4);
    cr_expect_str_eq(got, "read");
    close(reader);
}

/* --- Sockets ------------------------------------------------------------------------------------------------------ */

static int connect_to(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

Test(chardev, clients_of_a_socket_come_and_go_one_at_a_time)
{
    int first, second;

    line.path = path;
    open_kind(LINE_CHARDEV_SOCKET);
    say("kept ");
    first = connect_to(path);
    expect_read(first, "kept ");
    second = -1;
    cr_assert_eq(write(first, "one", 3), 3);
    expect_received("one");
    close(first);
    turn(-1, 0, true);
    say("again");
    second = connect_to(path);
    expect_read(second, "again");
    close(second);
    close_it();
    cr_expect_eq(access(path, F_OK), -1, "the socket is left behind");
}

Test(chardev, a_client_that_hangs_up_is_noticed_while_no_input_is_taken)
{
    int first, second;

    line.path = path;
    open_kind(LINE_CHARDEV_SOCKET);
    first = connect_to(path);
    turn(-1, 0, false);
    close(first);
    turn(-1, 0, false);
    second = connect_to(path);
    say("for the second");
    for (int i = 0; i < 3; i++) {
        turn(-1, 0, false);
    }
    expect_read(second, "for the second");
    close(second);
}

Test(chardev, a_client_that_hangs_up_is_noticed_while_its_input_waits_for_the_guest)
{
    char many[INTAKE_BYTES];
    int first, second;

    memset(many, 'x', sizeof many);
    received.room = 0;
    line.path = path;
    open_kind(LINE_CHARDEV_SOCKET);
    first = connect_to(path);
    turn(-1, 0, true);
    cr_assert_eq(write(first, many, sizeof many), sizeof many);
    cr_assert_eq(write(first, "last", 4), 4);
    close(first);
    for (int i = 0; i < 10; i++) {
        turn(-1, 0, true);
    }
    cr_expect_lt(wait_count(true), 100, "the loop does not rest");
    received.room = sizeof many;
    turn(-1, 0, true);
    received.count = 0;
    received.room = 0;
    second = connect_to(path);
    for (int i = 0; i < 10; i++) {
        turn(-1, 0, true);
    }
    say("for the second");
    expect_read(second, "for the second");
    received.room = sizeof received.text;
    expect_received("last");
    close(second);
}

Test(chardev, a_socket_that_was_left_behind_is_replaced_and_nothing_else)
{
    line.path = path;
    open_kind(LINE_CHARDEV_SOCKET);
    cr_assert_eq(link(path, log_path), 0);
    close_it();
    cr_assert_eq(rename(log_path, path), 0);
    open_kind(LINE_CHARDEV_SOCKET);
    close_it();
    write_file(path, "precious");
    line.kind = LINE_CHARDEV_SOCKET;
    cr_expect_eq(chardev_open(&line, &chardev, &diag), LOAM_ERROR_SYSTEM);
    expect_file(path, "precious");
}

Test(chardev, an_inherited_socket_has_to_listen)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int client;

    line.kind = LINE_CHARDEV_SOCKET;
    line.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_expect_eq(chardev_open(&line, &chardev, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "does not listen"), "%s", diag.text);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    line.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(line.fd, (const struct sockaddr *)&address, sizeof address), 0);
    cr_assert_eq(listen(line.fd, 1), 0);
    open_kind(LINE_CHARDEV_SOCKET);
    client = connect_to(path);
    say("inherited");
    expect_read(client, "inherited");
    close(client);
}
