// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp.h"

#include "tests/support/heap.h"
#include "tests/vmm/qmp_peer.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MILLISECONDS 20000
#define HELLO                 "{\"execute\":\"qmp_capabilities\"}\n"
#define OK                    "{\"return\": {}}\r\n"
#define GREETING                                                                                                       \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 3, \"minor\": 2, \"major\": 7}, \"package\": \"loam\"}, "          \
    "\"capabilities\": []}}\r\n"

static struct qmp *qmp;
static unsigned descriptors_before, hung_up_count;
static uint32_t blocks_before;
static size_t clients_left;
static char text[1 << 20];

/* --- The server ---------------------------------------------------------------------------------------------------- */

static void echo(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = json_deep_copy(call->arguments);
}

static void tell(void *self, struct qmp_call *call)
{
    const char *name = json_string_value(json_object_get(call->arguments, "name"));

    qmp_event(*(struct qmp **)self, name != NULL ? name : "TOLD", NULL);
}

/* What stands in the file that came. */
static void take(void *self, struct qmp_call *call)
{
    char content[64] = "";
    int fd = qmp_take_descriptor(call);

    (void)self;
    if (fd < 0 || pread(fd, content, sizeof content - 1, 0) < 0) {
        qmp_refuse(call, QMP_GENERIC_ERROR, "No file descriptor supplied via SCM_RIGHTS");
    } else {
        call->answer = json_string(content);
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void fail(void *self, struct qmp_call *call)
{
    (void)self;
    qmp_refuse(call, QMP_DEVICE_NOT_ACTIVE, "it fails \xff");
}

/* A string as long as it is asked for. */
static void fill(void *self, struct qmp_call *call)
{
    size_t bytes = (size_t)json_integer_value(json_object_get(call->arguments, "bytes"));
    char *string = malloc(bytes + 1);

    (void)self;
    if (string != NULL) {
        memset(string, 'x', bytes);
        string[bytes] = '\0';
        call->answer = json_string(string);
        free(string);
    }
}

static void hear(void *self, size_t client_count)
{
    (void)self;
    hung_up_count++;
    clients_left = client_count;
}

static const struct qmp_command commands[] = {
    {"echo", echo}, {"tell", tell}, {"take", take}, {"fail", fail}, {"fill", fill}};
static const struct qmp_config config = {
    .commands = commands,
    .command_count = sizeof commands / sizeof commands[0],
    .self = &qmp,
    .package = "loam",
    .major = 7,
    .minor = 2,
    .micro = 3,
    .hung_up = hear,
};

static void create(void)
{
    struct loam_diag diag = {0};

    cr_assert_eq(qmp_create(&config, &qmp, &diag), LOAM_OK, "%s", diag.text);
}

static void set_up(void)
{
    descriptors_before = qmp_peer_count_descriptors();
    blocks_before = heap_block_count();
    create();
}

static void tear_down(void)
{
    qmp_destroy(qmp);
    cr_expect_eq(qmp_peer_count_descriptors(), descriptors_before, "descriptors are left");
    cr_expect_eq(heap_block_count(), blocks_before, "memory is left");
}

TestSuite(qmp, .init = set_up, .fini = tear_down, .timeout = 120);

static bool has_work(int timeout_milliseconds)
{
    struct pollfd entry = {qmp_fd(qmp), POLLIN, 0};

    return poll(&entry, 1, timeout_milliseconds) == 1;
}

static void work(void)
{
    while (has_work(0)) {
        qmp_turn(qmp);
    }
}

/* --- Clients ------------------------------------------------------------------------------------------------------- */

/* One on a socket pair. */
static int join(void)
{
    struct loam_diag diag = {0};
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(qmp_serve(qmp, pair[1], &diag), LOAM_OK, "%s", diag.text);
    return pair[0];
}

static const char *hear_all(int client)
{
    work();
    qmp_peer_receive(client, text, sizeof text);
    return text;
}

static void say(int client, const char *bytes)
{
    cr_assert(qmp_peer_send(client, bytes, strlen(bytes), NULL, 0));
}

static void say_with(int client, const char *bytes, const char *content)
{
    int fd = qmp_peer_file(content);

    cr_assert_geq(fd, 0);
    cr_assert(qmp_peer_send(client, bytes, strlen(bytes), &fd, 1));
    close(fd);
}

static const char *ask(int client, const char *bytes)
{
    say(client, bytes);
    return hear_all(client);
}

static int join_ready(void)
{
    int client = join();

    cr_assert_str_eq(ask(client, HELLO), GREETING OK);
    return client;
}

static void expect_served(int client)
{
    cr_expect_str_eq(ask(client, "{\"execute\":\"echo\",\"id\":\"still\"}\n"),
                     "{\"return\": {}, \"id\": \"still\"}\r\n");
}

/* A listening socket that has no name in a file system; its address serves those who connect. */
static int make_listener(struct sockaddr_un *address, socklen_t *bytes)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *bytes = sizeof *address;
    cr_assert_geq(fd, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)address, sizeof address->sun_family), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)address, bytes), 0);
    cr_assert_eq(listen(fd, 16), 0);
    return fd;
}

static void listen_at(struct sockaddr_un *address, socklen_t *bytes)
{
    struct loam_diag diag = {0};

    cr_assert_eq(qmp_listen(qmp, make_listener(address, bytes), &diag), LOAM_OK, "%s", diag.text);
}

static int connect_to(const struct sockaddr_un *address, socklen_t bytes)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)address, bytes), 0);
    return fd;
}

/* --- Conversations ------------------------------------------------------------------------------------------------- */

Test(qmp, a_client_is_greeted_negotiates_and_is_served)
{
    int client = join();

    cr_expect_str_eq(hear_all(client), GREETING);
    cr_expect_str_eq(ask(client, "{\"execute\":\"echo\",\"id\":\"libvirt-1\"}\r\n"),
                     "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Expecting capabilities negotiation with "
                     "'qmp_capabilities'\"}, \"id\": \"libvirt-1\"}\r\n");
    cr_expect_str_eq(ask(client, "{\"execute\":\"qmp_capabilities\",\"id\":\"libvirt-2\"}\r\n"),
                     "{\"return\": {}, \"id\": \"libvirt-2\"}\r\n");
    cr_expect_str_eq(ask(client, "{\"execute\":\"echo\",\"arguments\":{\"a\":1},\"id\":{\"b\":[]}}\r\n"),
                     "{\"return\": {\"a\": 1}, \"id\": {\"b\": []}}\r\n");
    cr_expect_str_eq(ask(client, "{\"execute\":\"fail\"}\n"),
                     "{\"error\": {\"class\": \"DeviceNotActive\", \"desc\": \"it fails \\uFFFD\"}}\r\n");
    close(client);
}

Test(qmp, several_commands_come_at_once_with_or_without_lines)
{
    int client = join();

    cr_expect_str_eq(ask(client, "{\"execute\":\"qmp_capabilities\"}{\"execute\":\"echo\",\"id\":1} "
                                 "{\"execute\":\"echo\",\"id\":2}\r\n\r\n{\"execute\":\"echo\",\"id\":3}\n"
                                 "{\"execute\":\"echo\",\"id\":4}"),
                     GREETING OK "{\"return\": {}, \"id\": 1}\r\n{\"return\": {}, \"id\": 2}\r\n"
                                 "{\"return\": {}, \"id\": 3}\r\n{\"return\": {}, \"id\": 4}\r\n");
    close(client);
}

Test(qmp, after_nonsense_the_next_line_is_heard)
{
    static const char *const lines[] = {"hello",   "{\"execute\":", "}", "\"", "{]{\"execute\":\"echo\"}",
                                        "{'a':1}", "\xff\xfe\x01"};
    int client = join_ready();

    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        const char *start = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error, ";
        char *end;

        say(client, lines[i]);
        (void)ask(client, "\n{\"execute\":\"echo\",\"id\":1}\n");
        cr_expect_eq(strncmp(text, start, strlen(start)), 0, "%s: %s", lines[i], text);
        end = strstr(text, "\r\n");
        cr_assert_not_null(end);
        cr_expect_str_eq(end, "\r\n{\"return\": {}, \"id\": 1}\r\n", "%s: %s", lines[i], text);
    }
    close(client);
}

Test(qmp, too_long_too_deep_and_too_many_are_named)
{
    enum { COUNT = QMP_LINE_BYTES_MAX + 2 };
    static const struct {
        char first, rest;
        const char *what;
    } cases[] = {
        {'"', 'x', "longer than 1048576 bytes"},
        {'[', '[', "nested deeper than 64 levels"},
        {'[', ',', "more than 65536 brackets, commas and colons"},
    };
    int client = join_ready();

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char block[4096], expected[256];

        snprintf(expected, sizeof expected,
                 "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error, %s\"}}\r\n"
                 "{\"return\": {}, \"id\": 1}\r\n",
                 cases[i].what);
        memset(block, cases[i].rest, sizeof block);
        cr_assert(qmp_peer_send(client, &cases[i].first, 1, NULL, 0));
        for (unsigned k = 0; k < COUNT / sizeof block + 1; k++) {
            cr_assert(qmp_peer_send(client, block, sizeof block, NULL, 0));
            work();
        }
        cr_expect_str_eq(ask(client, "\n{\"execute\":\"echo\",\"id\":1}\n"), expected, "%s", text);
    }
    close(client);
}

/* --- Events -------------------------------------------------------------------------------------------------------- */

/* The line without its time, which has to be there; in place. */
static char *without_time(char *line)
{
    json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    char *plain;

    cr_assert_not_null(object, "%s", line);
    if (json_object_get(object, "event") != NULL) {
        cr_assert_eq(json_object_del(object, "timestamp"), 0, "%s", line);
    }
    plain = json_dumps(object, JSON_ENSURE_ASCII);
    cr_assert_not_null(plain);
    json_decref(object);
    return plain;
}

/* All lines without times, each ended by '\n'. They are whole. */
static void flatten(char *lines, char *flat)
{
    flat[0] = '\0';
    for (char *line = lines, *end; *line != '\0'; line = end + 2) {
        char *plain;

        end = strstr(line, "\r\n");
        cr_assert_not_null(end, "half a line: %s", line);
        *end = '\0';
        plain = without_time(line);
        flat = stpcpy(stpcpy(flat, plain), "\n");
        free(plain);
    }
}

Test(qmp, an_event_of_a_command_goes_out_before_its_reply_and_to_all_who_are_ready)
{
    int one = join_ready(), two = join_ready(), deaf = join();
    char flat[512];

    (void)hear_all(deaf);
    (void)ask(one, "{\"execute\":\"tell\",\"arguments\":{\"name\":\"STOP\"},\"id\":5}\n");
    flatten(text, flat);
    cr_expect_str_eq(flat, "{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": 5}\n", "%s", flat);
    (void)hear_all(two);
    flatten(text, flat);
    cr_expect_str_eq(flat, "{\"event\": \"STOP\"}\n");
    cr_expect_str_eq(hear_all(deaf), "", "it has not negotiated");
    close(one);
    close(two);
    close(deaf);
}

Test(qmp, an_event_with_data_wakes_the_owner)
{
    int client = join_ready();
    char flat[512];

    cr_expect_not(has_work(0));
    qmp_event(qmp, "SHUTDOWN", json_pack("{sbss}", "guest", 1, "reason", "guest-shutdown"));
    cr_expect(has_work(0));
    (void)hear_all(client);
    flatten(text, flat);
    cr_expect_str_eq(flat, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-shutdown\"}}\n",
                     "%s", flat);
    cr_expect_not(has_work(0));
    close(client);
}

/* --- Descriptors --------------------------------------------------------------------------------------------------- */

Test(qmp, a_descriptor_goes_to_the_command_that_it_comes_with)
{
    int client = join_ready();

    say_with(client, "{\"execute\":\"take\"}\r\n", "one");
    say_with(client, "{\"execute\":\"take\"}\r\n", "two");
    cr_expect_str_eq(hear_all(client), "{\"return\": \"one\"}\r\n{\"return\": \"two\"}\r\n");
    say(client, "{\"execute\":\"echo\"}\n");
    say_with(client, "{\"execute\":\"take\"}\n", "three");
    cr_expect_str_eq(hear_all(client), "{\"return\": {}}\r\n{\"return\": \"three\"}\r\n");
    close(client);
}

/* Else a command would get the descriptor of one before it that was refused. */
Test(qmp, a_descriptor_that_its_command_does_not_take_is_closed)
{
    static const char *const lines[] = {"{\"execute\":\"echo\"}\r\n", "{\"execute\":\"take\",\"x\":1}\r\n",
                                        "nonsense\n", "{\"execute\":\"nothing\"}"};
    int client = join_ready();
    unsigned before = qmp_peer_count_descriptors();

    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        say_with(client, lines[i], "stale");
        (void)hear_all(client);
        cr_expect_eq(qmp_peer_count_descriptors(), before, "%s", lines[i]);
        say_with(client, "{\"execute\":\"take\"}\n", "fresh");
        cr_expect_str_eq(hear_all(client), "{\"return\": \"fresh\"}\r\n", "%s", lines[i]);
    }
    (void)ask(client, "{\"execute\":\"take\"}\n");
    cr_expect_not_null(strstr(text, "No file descriptor"), "%s", text);
    close(client);
}

Test(qmp, descriptors_without_commands_harm_nothing)
{
    int client = join_ready(), other = join_ready();
    unsigned before = qmp_peer_count_descriptors();

    for (unsigned i = 0; i < 1000; i++) {
        say_with(client, " ", "x");
        work();
    }
    cr_expect_eq(qmp_peer_count_descriptors(), before + QMP_DESCRIPTOR_MAX);
    expect_served(other);
    close(client);
    work();
    cr_expect_eq(qmp_peer_count_descriptors(), before - 2);
    close(other);
}

/* --- Clients that misbehave ---------------------------------------------------------------------------------------- */

Test(qmp, who_sends_half_a_line_holds_up_nobody)
{
    int half = join_ready(), other = join_ready();

    say(half, "{\"execute\":\"ec");
    for (unsigned i = 0; i < 3; i++) {
        expect_served(other);
    }
    cr_expect_str_eq(ask(half, "ho\"}\n"), OK);
    say(half, "{\"execute\":");
    close(half);
    expect_served(other);
    cr_expect_eq(hung_up_count, 1);
    cr_expect_eq(clients_left, 1);
    close(other);
}

Test(qmp, who_says_no_more_gets_what_was_asked)
{
    int client = join();

    say(client, HELLO "{\"execute\":\"echo\",\"id\":1}\n{\"execute\":\"ec");
    cr_assert_eq(shutdown(client, SHUT_WR), 0);
    cr_expect_str_eq(hear_all(client), GREETING OK "{\"return\": {}, \"id\": 1}\r\n");
    cr_expect(qmp_peer_is_hung_up(client));
    close(client);
}

Test(qmp, who_asks_and_never_reads_is_hung_up_on)
{
    static const char line[] = "{\"execute\":\"fill\",\"arguments\":{\"bytes\":100000}}\n";
    int client = join_ready(), other = join_ready();
    unsigned asked = 0;

    while (hung_up_count == 0) {
        cr_assert_lt(asked, 1000);
        asked += qmp_peer_send(client, line, sizeof line - 1, NULL, 0);
        work();
        if (asked % 10 == 0) {
            expect_served(other);
        }
    }
    cr_expect_geq(asked, QMP_WAITING_BYTES_MAX / 100100, "what fits is kept: %u", asked);
    expect_served(other);
    close(client);
    close(other);
}

/* A reply that can never be kept ends it at once: what it asks behind that is not carried out. */
Test(qmp, who_has_missed_a_reply_is_heard_no_more)
{
    int client = join_ready(), other = join_ready();

    say(client, "{\"execute\":\"fill\",\"arguments\":{\"bytes\":5000000}}{\"execute\":\"tell\"}\n");
    cr_expect_str_eq(hear_all(other), "");
    cr_expect_eq(hung_up_count, 1);
    cr_expect(qmp_peer_is_hung_up(client));
    close(client);
    close(other);
}

Test(qmp, who_does_not_read_events_is_hung_up_on)
{
    int client = join_ready(), other = join_ready();
    unsigned told = 0;

    while (hung_up_count == 0) {
        cr_assert_lt(told, QMP_WAITING_BYTES_MAX / 50);
        qmp_event(qmp, "BALLOON_CHANGE", NULL);
        told++;
        if (told % 100 == 0) {
            (void)hear_all(other);
            cr_assert_neq(text[0], '\0');
        }
    }
    (void)hear_all(other);
    cr_expect_geq(told, QMP_WAITING_BYTES_MAX / 200, "what fits is kept: %u", told);
    cr_expect_eq(clients_left, 1);
    expect_served(other);
    close(client);
    close(other);
}

/* It is read only now, and not a byte is missing: what did not fit its socket has waited. */
Test(qmp, a_slow_reader_gets_everything)
{
    int client = join_ready();
    size_t have = 0, want = strlen("{\"return\": \"\"}\r\n") + 3000000;

    say(client, "{\"execute\":\"fill\",\"arguments\":{\"bytes\":3000000}}\n");
    while (have < want) {
        size_t got;

        work();
        got = qmp_peer_receive(client, text, 50000);
        cr_assert_gt(got, 0, "after %zu bytes", have);
        have += got;
    }
    cr_expect_eq(have, want);
    cr_expect_str_eq(text + strlen(text) - 4, "\"}\r\n");
    expect_served(client);
    close(client);
}

Test(qmp, what_is_said_to_who_is_gone_is_no_signal)
{
    int client = join_ready(), other = join_ready();

    close(client);
    qmp_event(qmp, "STOP", NULL);
    (void)hear_all(other);
    cr_expect_not_null(strstr(text, "STOP"), "%s", text);
    cr_expect_eq(hung_up_count, 1);
    close(other);
}

/* A child that was forked, for example: epoll would go on telling of it. */
Test(qmp, a_socket_that_another_holds_too_is_forgotten)
{
    int pair[2], copy;

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    copy = dup(pair[1]);
    cr_assert_eq(qmp_serve(qmp, pair[1], NULL), LOAM_OK);
    (void)hear_all(pair[0]);
    close(pair[0]);
    qmp_turn(qmp);
    cr_expect_eq(hung_up_count, 1);
    cr_expect_not(has_work(0));
    close(copy);
}

Test(qmp, one_turn_leaves_the_others_theirs)
{
    static char flood[100000];
    int client = join_ready(), other = join_ready();

    memset(flood, '\n', sizeof flood);
    cr_assert(qmp_peer_send(client, flood, sizeof flood, NULL, 0));
    say(other, "{\"execute\":\"echo\"}\n");
    qmp_turn(qmp);
    qmp_peer_receive(other, text, sizeof text);
    cr_expect_str_eq(text, OK);
    cr_expect(has_work(0), "the flood is not over");
    close(client);
    close(other);
}

/* --- Connections --------------------------------------------------------------------------------------------------- */

Test(qmp, connections_are_taken_and_taken_again)
{
    struct sockaddr_un address;
    socklen_t bytes;

    listen_at(&address, &bytes);
    for (unsigned i = 1; i <= 5; i++) {
        int client = connect_to(&address, bytes);

        cr_expect_str_eq(ask(client, HELLO), GREETING OK);
        expect_served(client);
        close(client);
        work();
        cr_expect_eq(hung_up_count, i);
        cr_expect_eq(clients_left, 0);
    }
}

Test(qmp, ten_thousand_connections_leave_nothing)
{
    struct sockaddr_un address;
    socklen_t bytes;
    unsigned before;
    int other;

    listen_at(&address, &bytes);
    other = connect_to(&address, bytes);
    cr_assert_str_eq(ask(other, HELLO), GREETING OK);
    before = qmp_peer_count_descriptors();
    for (unsigned i = 0; i < 10000; i++) {
        int client = connect_to(&address, bytes);

        if (i % 3 == 1) {
            say(client, "{\"execute\":");
        } else if (i % 3 == 2) {
            work();
        }
        close(client);
        work();
        if (i % 1000 == 0) {
            expect_served(other);
        }
    }
    cr_expect_eq(hung_up_count, 10000);
    cr_expect_eq(qmp_peer_count_descriptors(), before);
    expect_served(other);
    close(other);
}

Test(qmp, one_client_more_than_there_may_be_is_hung_up_on)
{
    int clients[QMP_CLIENT_MAX], more;
    struct sockaddr_un address;
    struct loam_diag diag = {0};
    socklen_t bytes;
    unsigned before;

    listen_at(&address, &bytes);
    for (unsigned i = 0; i < QMP_CLIENT_MAX; i++) {
        clients[i] = connect_to(&address, bytes);
        cr_assert_str_eq(ask(clients[i], HELLO), GREETING OK);
    }
    more = connect_to(&address, bytes);
    work();
    cr_expect(qmp_peer_is_hung_up(more));
    close(more);
    before = qmp_peer_count_descriptors();
    cr_expect_eq(qmp_serve(qmp, qmp_peer_file(""), &diag), LOAM_ERROR_EXHAUSTED);
    cr_expect_not_null(strstr(diag.text, "16 clients"), "%s", diag.text);
    cr_expect_eq(qmp_peer_count_descriptors(), before, "it is closed");
    cr_expect_eq(hung_up_count, 0, "none of those that were served");
    close(clients[0]);
    clients[0] = connect_to(&address, bytes);
    cr_expect_str_eq(ask(clients[0], HELLO), GREETING OK, "it takes the place of one that goes in the same turn");
    for (unsigned i = 0; i < QMP_CLIENT_MAX; i++) {
        expect_served(clients[i]);
        close(clients[i]);
    }
}

Test(qmp, what_is_no_listening_socket_is_refused)
{
    struct loam_diag diag = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    unsigned before = qmp_peer_count_descriptors();

    cr_expect_eq(qmp_listen(qmp, fd, &diag), LOAM_ERROR_INVALID);
    cr_expect_not_null(strstr(diag.text, "is no listening socket"), "%s", diag.text);
    cr_expect_eq(qmp_peer_count_descriptors(), before - 1, "it is closed");
    cr_expect_eq(qmp_listen(qmp, qmp_peer_file(""), &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(qmp_listen(qmp, -1, &diag), LOAM_ERROR_INVALID);
    cr_expect_eq(qmp_serve(qmp, qmp_peer_file(""), &diag), LOAM_ERROR_SYSTEM);
    cr_expect_eq(diag.system_errno, EPERM, "a file cannot be watched");
    cr_expect_eq(qmp_peer_count_descriptors(), before - 1);
}

Test(qmp, as_many_listeners_as_there_may_be)
{
    struct sockaddr_un addresses[QMP_LISTENER_MAX + 1];
    socklen_t bytes[QMP_LISTENER_MAX + 1];
    struct loam_diag diag = {0};

    for (unsigned i = 0; i < QMP_LISTENER_MAX; i++) {
        listen_at(&addresses[i], &bytes[i]);
    }
    cr_expect_eq(qmp_listen(qmp, make_listener(&addresses[QMP_LISTENER_MAX], &bytes[QMP_LISTENER_MAX]), &diag),
                 LOAM_ERROR_EXHAUSTED);
    for (unsigned i = 0; i < QMP_LISTENER_MAX; i++) {
        int client = connect_to(&addresses[i], bytes[i]);

        cr_expect_str_eq(hear_all(client), GREETING);
        close(client);
    }
}

/* It has a copy of the socket: a child of the owner, or libvirtd. */
Test(qmp, a_listener_that_another_shuts_down_is_left_alone)
{
    struct sockaddr_un address;
    socklen_t bytes;
    int fd = make_listener(&address, &bytes), copy = dup(fd), client = join_ready();

    cr_assert_eq(qmp_listen(qmp, fd, NULL), LOAM_OK);
    cr_assert_eq(shutdown(copy, SHUT_RDWR), 0);
    work();
    cr_expect_not(has_work(0));
    expect_served(client);
    close(copy);
    close(client);
}

/* Who connects meanwhile waits, and is served when there are descriptors again; and nobody spins. */
Test(qmp, without_descriptors_who_connects_waits)
{
    struct rlimit before, low;
    struct sockaddr_un address;
    socklen_t bytes;
    int client;

    listen_at(&address, &bytes);
    client = connect_to(&address, bytes);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){(rlim_t)client, before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    qmp_turn(qmp);
    cr_expect_not(has_work(0), "it would spin");
    cr_expect(has_work(PATIENCE_MILLISECONDS), "it tries again");
    qmp_turn(qmp);
    qmp_turn(qmp);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_expect_str_eq(hear_all(client), "");
    cr_expect(has_work(PATIENCE_MILLISECONDS), "it tries again");
    cr_expect_str_eq(hear_all(client), GREETING);
    close(client);
}

Test(qmp, what_was_said_arrives_though_the_server_ends)
{
    int client = join_ready();

    say(client, "{\"execute\":\"echo\"}\n");
    qmp_event(qmp, "SHUTDOWN", NULL);
    qmp_destroy(qmp);
    qmp = NULL;
    qmp_peer_receive(client, text, sizeof text);
    cr_expect_not_null(strstr(text, "SHUTDOWN"), "%s", text);
    cr_expect(qmp_peer_is_hung_up(client));
    close(client);
}

Test(qmp, without_descriptors_there_is_no_server)
{
    struct rlimit before, low;
    struct loam_diag diag;
    unsigned open_before = qmp_peer_count_descriptors();
    int next = dup(0);

    close(next);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (unsigned more = 0; more < 3; more++) {
        struct qmp *second;
        enum loam_error error;

        low = (struct rlimit){(rlim_t)next + more, before.rlim_max};
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        error = qmp_create(&config, &second, &diag);
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
        cr_expect_eq(error, LOAM_ERROR_SYSTEM);
        cr_expect_null(second);
        cr_expect_eq(diag.system_errno, EMFILE);
    }
    cr_expect_eq(qmp_peer_count_descriptors(), open_before);
}

/* --- Pieces -------------------------------------------------------------------------------------------------------- */

/* What one client says, by lines; with a descriptor where there is a content. */
static const struct {
    const char *bytes, *content;
} conversation[] = {
    {"{\"execute\":\"echo\",\"id\":0}\r\n", NULL},
    {HELLO, NULL},
    {"{\"execute\":\"echo\",\"id\":\"a \\\" } {\",\"arguments\":{\"b\":[1,2,{}]}}\r\n", NULL},
    {"{\"execute\":\"echo\",\"id\":1}{\"execute\":\"echo\",\"id\":2}  {\"execute\":\"nothing\"}\n", NULL},
    {"\r\n\n \n", NULL},
    {"{\"execute\":\"take\",\"id\":3}\r\n", "three"},
    {"{\"execute\":\"tell\",\"arguments\":{\"name\":\"RESUME\"},\"id\":4}\n", NULL},
    {"junk\n", NULL},
    {"{\"execute\":\"tell\"\n", NULL},
    {"{]{\"execute\":\"echo\",\"id\":5}\n", NULL},
    {"{\"execute\":\"take\",\"id\":7}", "seven"},
    {"{\"execute\":\"echo\",\"arguments\":{\"\xc3\xa9\":\"\xe2\x82\xac\"},\"id\":8}\n", NULL},
    {"{\"execute\":\"ec\xff\"}\n", NULL},
    {"[1, 2]{\"execute\":\"fail\",\"id\":9}\n", NULL},
    {"{\"execute\":\"echo\",\"more\":0,\"id\":10}\n", NULL},
    {"{\"execute\":\"take\",\"id\":11}\n", "eleven"},
    {"{\"execute\":\"take\",\"id\":12}\n", "twelve"},
    {"{\"execute\":\"echo\",\"id\":13}\n", NULL},
    {"{\"execute\":\"take\",\"id\":14}\n", NULL}, /* before one that has a descriptor it might get that one */
};

enum { LINES = sizeof conversation / sizeof conversation[0] };

/* All its bytes in a row, and where in them each line begins. */
static size_t join_lines(char *all, size_t starts[LINES])
{
    size_t count = 0;

    for (unsigned i = 0; i < LINES; i++) {
        starts[i] = count;
        strcpy(all + count, conversation[i].bytes);
        count += strlen(conversation[i].bytes);
    }
    return count;
}

/* Bytes from..to, with the descriptors of the lines that begin there. */
static void send_piece(int client, const char *all, size_t from, size_t to, const size_t starts[LINES])
{
    int fds[LINES];
    size_t count = 0;

    for (unsigned i = 0; i < LINES; i++) {
        if (starts[i] >= from && starts[i] < to && conversation[i].content != NULL) {
            fds[count] = qmp_peer_file(conversation[i].content);
            cr_assert_geq(fds[count], 0);
            count++;
        }
    }
    cr_assert(qmp_peer_send(client, all + from, to - from, fds, count));
    while (count > 0) {
        close(fds[--count]);
    }
}

/* The whole of it, cut after every byte where cut says so. What is heard, without times. */
static void converse(struct random *random, uint32_t cut_one_in, char *flat)
{
    size_t starts[LINES], count, from = 0;
    char all[2048];
    int client = join();

    count = join_lines(all, starts);
    for (size_t at = 1; at <= count; at++) {
        bool begins_line = false;

        for (unsigned i = 0; i < LINES; i++) {
            begins_line |= starts[i] == at;
        }
        if (at == count || (random == NULL ? begins_line : random_one_in(random, cut_one_in))) {
            send_piece(client, all, from, at, starts);
            from = at;
            if (random == NULL || random_one_in(random, 2)) {
                qmp_turn(qmp);
            }
        }
    }
    (void)hear_all(client);
    close(client);
    work();
    flatten(text, flat);
}

Test(qmp, however_it_is_cut_the_replies_are_the_same)
{
    enum { CONVERSATIONS = 2000 };
    static char expected[8192], flat[8192];
    unsigned before;

    converse(NULL, 0, expected);
    cr_expect_not_null(strstr(expected, "\"three\""), "%s", expected);
    cr_expect_not_null(strstr(expected, "\"event\": \"RESUME\"}\n{\"return\": {}, \"id\": 4}"), "%s", expected);
    cr_expect_not_null(strstr(expected, "\"twelve\", \"id\": 12}\n{\"return\": {}, \"id\": 13}\n"), "%s", expected);
    before = qmp_peer_count_descriptors();
    for (uint64_t seed = 1; seed <= CONVERSATIONS; seed++) {
        struct random random = {.state = seed};

        converse(&random, 1 + (uint32_t)(seed % 100), flat);
        cr_assert_str_eq(flat, expected, "seed %llu: %s", (unsigned long long)seed, flat);
        cr_assert_eq(qmp_peer_count_descriptors(), before, "seed %llu", (unsigned long long)seed);
    }
}

/* --- Memory -------------------------------------------------------------------------------------------------------- */

static void *allocate(size_t bytes)
{
    return malloc(bytes);
}

static void give_back(void *memory)
{
    free(memory);
}

/* Each block fails once: a client has its replies or is hung up on, and others are served. */
Test(qmp, without_memory_nobody_misses_anything_unheard)
{
    static const char *const wanted[] = {"QMP", "\"event\"", "\"return\""};
    bool is_over = false;
    int other;

    json_set_alloc_funcs(allocate, give_back);
    other = join_ready();
    for (uint32_t call = 1; !is_over; call++) {
        struct loam_diag diag = {0};
        unsigned line_count = 0;
        int pair[2];

        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        cr_assert(qmp_peer_send(pair[0], HELLO "{\"execute\":\"tell\"}\n", strlen(HELLO "{\"execute\":\"tell\"}\n"),
                                NULL, 0));
        heap_fail(call);
        if (qmp_serve(qmp, pair[1], &diag) == LOAM_OK) {
            work();
        } else {
            cr_expect_eq(diag.system_errno, ENOMEM);
        }
        is_over = heap_call_count() < call;
        heap_fail(0);
        (void)hear_all(pair[0]);
        for (char *line = text; *line != '\0'; line = strstr(line, "\r\n") + 2) {
            cr_assert_not_null(strstr(line, "\r\n"), "block %u: %s", call, line);
            line_count++;
        }
        cr_assert(line_count == 4 || qmp_peer_is_hung_up(pair[0]) || strstr(text, "error") != NULL, "block %u: %s",
                  call, text);
        for (unsigned i = 0; is_over && i < 3; i++) {
            cr_expect_not_null(strstr(text, wanted[i]), "%s", text);
        }
        close(pair[0]);
        work();
        (void)hear_all(other);
        if (qmp_peer_is_hung_up(other)) { /* it was the event to it that failed */
            close(other);
            other = join_ready();
        }
        expect_served(other);
    }
    close(other);
}

/* --- Threads ------------------------------------------------------------------------------------------------------- */

enum { TELLERS = 2, EVENTS = 2000 };

struct teller {
    pthread_t thread;
    int number;
};

static atomic_uint tellers_left;

static void *tell_often(void *self)
{
    struct teller *teller = self;

    for (int i = 0; i < EVENTS; i++) {
        qmp_event(qmp, "COUNT", json_pack("{sisi}", "teller", teller->number, "count", i));
    }
    atomic_fetch_sub(&tellers_left, 1);
    return NULL;
}

struct listener {
    int fd;
    int next[TELLERS];
    int replies;
    size_t have;
    char bytes[1 << 16];
};

static void look_at_line(struct listener *listener, const char *line)
{
    json_t *object = json_loads(line, 0, NULL), *data = json_object_get(object, "data");
    int teller, count;

    cr_assert_not_null(object, "%s", line);
    if (data == NULL) {
        cr_assert_eq(json_integer_value(json_object_get(object, "id")), listener->replies, "%s", line);
        listener->replies++;
    } else {
        cr_assert_eq(json_unpack(data, "{sisi}", "teller", &teller, "count", &count), 0);
        cr_assert(teller >= 0 && teller < TELLERS);
        cr_assert_eq(count, listener->next[teller], "%s", line);
        listener->next[teller]++;
    }
    json_decref(object);
}

static void listen_on(struct listener *listener)
{
    char *line = listener->bytes, *end;

    listener->have +=
        qmp_peer_receive(listener->fd, listener->bytes + listener->have, sizeof listener->bytes - listener->have);
    while ((end = strstr(line, "\r\n")) != NULL) {
        *end = '\0';
        look_at_line(listener, line);
        line = end + 2;
    }
    listener->have -= (size_t)(line - listener->bytes);
    memmove(listener->bytes, line, listener->have + 1);
}

/* Until the server or one of them has something to do. */
static bool await_any(const struct listener *one, const struct listener *two)
{
    struct pollfd entries[] = {{qmp_fd(qmp), POLLIN, 0}, {one->fd, POLLIN, 0}, {two->fd, POLLIN, 0}};

    return poll(entries, 3, PATIENCE_MILLISECONDS) > 0;
}

static bool has_all(const struct listener *listener, int asked)
{
    return listener->replies == asked && listener->next[0] == EVENTS && listener->next[1] == EVENTS;
}

Test(qmp, events_of_two_threads_come_whole_and_in_order_while_commands_run)
{
    static struct listener listeners[2];
    struct teller tellers[TELLERS];
    char line[128];
    int asked = 0;

    for (unsigned i = 0; i < 2; i++) {
        listeners[i].fd = join_ready();
    }
    atomic_store(&tellers_left, TELLERS);
    for (int i = 0; i < TELLERS; i++) {
        tellers[i].number = i;
        cr_assert_eq(pthread_create(&tellers[i].thread, NULL, tell_often, &tellers[i]), 0);
    }
    while (atomic_load(&tellers_left) > 0 || !has_all(&listeners[0], asked) || !has_all(&listeners[1], asked)) {
        if (atomic_load(&tellers_left) > 0 && asked < listeners[0].replies + 10) {
            snprintf(line, sizeof line, "{\"execute\":\"echo\",\"id\":%d}\n", asked++);
            say(listeners[0].fd, line);
            say(listeners[1].fd, line);
        }
        cr_assert(await_any(&listeners[0], &listeners[1]), "events %d and %d of %d, replies %d of %d",
                  listeners[0].next[0], listeners[0].next[1], EVENTS, listeners[0].replies, asked);
        qmp_turn(qmp);
        listen_on(&listeners[0]);
        listen_on(&listeners[1]);
    }
    for (int i = 0; i < TELLERS; i++) {
        cr_assert_eq(pthread_join(tellers[i].thread, NULL), 0);
    }
    cr_expect_gt(asked, 0);
    close(listeners[0].fd);
    close(listeners[1].fd);
}

/* Clients come and go meanwhile. */
Test(qmp, events_of_two_threads_while_clients_come_and_go)
{
    struct teller tellers[TELLERS];

    atomic_store(&tellers_left, TELLERS);
    for (int i = 0; i < TELLERS; i++) {
        tellers[i].number = i;
        cr_assert_eq(pthread_create(&tellers[i].thread, NULL, tell_often, &tellers[i]), 0);
    }
    while (atomic_load(&tellers_left) > 0) {
        int client = join();

        say(client, HELLO);
        qmp_turn(qmp);
        qmp_turn(qmp);
        qmp_peer_receive(client, text, sizeof text);
        cr_expect_eq(strncmp(text, GREETING, strlen(GREETING)), 0, "%s", text);
        close(client);
        qmp_turn(qmp);
    }
    for (int i = 0; i < TELLERS; i++) {
        cr_assert_eq(pthread_join(tellers[i].thread, NULL), 0);
    }
}
