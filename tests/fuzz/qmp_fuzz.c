// SPDX-License-Identifier: Apache-2.0
/*
 * libFuzzer: two clients of a QMP server send what the bytes say, in pieces and with descriptors, hang up and come back.
 * Whatever they send, each line that a client hears is one JSON object of a kind that is allowed there, and no
 * descriptor is left. What one client has sent is sent once more in one piece to a server of its own, which replies the
 * same.
 *
 * The first byte says who has negotiated already. Then each byte is an action of one client: its lowest bit is which, the
 * next three are what, the rest is how much.
 */
#include "tests/vmm/qmp_peer.h"
#include "vmm/qmp.h"

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

enum { CLIENTS = 2, HEARD_BYTES = 1 << 20, SENT_BYTES = 1 << 14 };

enum action { SEND, SEND_MORE, SEND_WITH, SEND_LINE, TURN, TELL, LISTEN, HANG_UP };

/* What a random byte would be long in coming to. */
static const char *const lines[] = {
    "{\"execute\":\"qmp_capabilities\"}\r\n",
    "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}\n",
    "{\"execute\":\"echo\",\"arguments\":{\"a\":[1,\"\\u00e9\",null]},\"id\":\"x\"}\n",
    "{\"execute\":\"echo\",\"id\":{}}",
    "{\"execute\":\"take\",\"id\":1}\n",
    "{\"execute\":\"tell\",\"id\":[2]}\n",
    "{\"execute\":\"fail\",\"id\":-3.5}\n",
    "{\"execute\":\"",
    "\",\"arguments\":{\"",
    "\":[[[[[[[[[[[[[[[[",
    "]]]]]]]]]]]]]]]]}}\n",
    "\n",
    "{\"return\":{}}",
    "\",\"id\":\"",
    " \t\r\n",
    "\"}\r\n",
};

struct client {
    int fd;
    bool has_descriptors; /* it sent some: what it hears depends on more than its bytes */
    size_t sent_count, heard_count;
    char sent[SENT_BYTES], heard[HEARD_BYTES];
};

static struct client clients[CLIENTS], again;
static struct qmp *qmp;

/* --- The server ---------------------------------------------------------------------------------------------------- */

static void echo(void *self, struct qmp_call *call)
{
    (void)self;
    call->answer = json_deep_copy(call->arguments);
}

static void take(void *self, struct qmp_call *call)
{
    int fd = qmp_take_descriptor(call);

    (void)self;
    call->answer = json_boolean(fd >= 0);
    if (fd >= 0) {
        REQUIRE(close(fd) == 0);
    }
}

static void tell(void *self, struct qmp_call *call)
{
    (void)self;
    qmp_event(qmp, "TOLD", json_deep_copy(call->arguments));
}

static void fail(void *self, struct qmp_call *call)
{
    (void)self;
    qmp_refuse(call, QMP_DEVICE_NOT_ACTIVE, "it fails: %s\xff",
               json_object_size(call->arguments) > 0 ? json_object_iter_key(json_object_iter((json_t *)call->arguments))
                                                     : "");
}

static void create(void)
{
    static const struct qmp_command commands[] = {{"echo", echo}, {"take", take}, {"tell", tell}, {"fail", fail}};
    static const struct qmp_config config = {
        .commands = commands, .command_count = sizeof commands / sizeof commands[0], .package = "fuzz"};

    REQUIRE(qmp_create(&config, &qmp, NULL) == LOAM_OK);
}

static void work(void)
{
    struct pollfd entry = {qmp_fd(qmp), POLLIN, 0};

    while (poll(&entry, 1, 0) == 1) {
        qmp_turn(qmp);
    }
}

/* --- What is heard ------------------------------------------------------------------------------------------------- */

/* Events come once a command has succeeded, of which the first is qmp_capabilities. */
static void check_line(const json_t *line, bool is_first, bool *has_return)
{
    const bool is_return = json_object_get(line, "return") != NULL, is_error = json_object_get(line, "error") != NULL;
    const bool is_event = json_object_get(line, "event") != NULL, is_greeting = json_object_get(line, "QMP") != NULL;

    REQUIRE(json_is_object(line));
    REQUIRE(is_return + is_error + is_event + is_greeting == 1);
    REQUIRE(is_greeting == is_first);
    REQUIRE(!is_event || (*has_return && json_object_get(line, "timestamp") != NULL));
    *has_return |= is_return;
}

/* All lines are whole. Those that are no events are moved together. */
static void check_heard(struct client *client)
{
    char *line = client->heard, *end, *replies = client->heard;
    bool has_return = false;

    while ((end = strstr(line, "\r\n")) != NULL) {
        json_t *object = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);

        check_line(object, line == client->heard, &has_return);
        if (json_object_get(object, "event") == NULL) {
            memmove(replies, line, (size_t)(end - line));
            replies += end - line;
        }
        json_decref(object);
        line = end + 2;
    }
    REQUIRE(*line == '\0');
    *replies = '\0';
}

static void hear(struct client *client)
{
    client->heard_count +=
        qmp_peer_receive(client->fd, client->heard + client->heard_count, HEARD_BYTES - client->heard_count);
    REQUIRE(client->heard_count < HEARD_BYTES - 1);
}

/* --- Clients ------------------------------------------------------------------------------------------------------- */

/* Those that have gone unnoticed are in its way. */
static void join(struct client *client)
{
    int pair[2];
    enum loam_error error;

    do {
        REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        error = qmp_serve(qmp, pair[1], NULL);
        if (error != LOAM_OK) {
            REQUIRE(error == LOAM_ERROR_EXHAUSTED && close(pair[0]) == 0);
            work();
        }
    } while (error != LOAM_OK);
    client->fd = pair[0];
    client->has_descriptors = false;
    client->sent_count = client->heard_count = 0;
}

static void send_bytes(struct client *client, const char *bytes, size_t count, size_t descriptor_count)
{
    static const int descriptors[QMP_PEER_DESCRIPTOR_MAX]; /* standard input, again and again */

    if (count == 0 || count > SENT_BYTES - client->sent_count) {
        return;
    }
    if (!qmp_peer_send(client->fd, bytes, count, descriptors, descriptor_count)) {
        work(); /* its socket is full */
        REQUIRE(qmp_peer_send(client->fd, bytes, count, descriptors, descriptor_count));
    }
    memcpy(client->sent + client->sent_count, bytes, count);
    client->sent_count += count;
    client->has_descriptors |= descriptor_count > 0;
}

static void leave(struct client *client)
{
    size_t before;

    do {
        before = client->heard_count;
        work();
        hear(client);
    } while (client->heard_count > before);
    close(client->fd);
    check_heard(client);
}

/* --- The program --------------------------------------------------------------------------------------------------- */

/* Returns how many bytes of the program it has used. */
static size_t act(uint8_t byte, const uint8_t *data, size_t size)
{
    struct client *client = &clients[byte & 1];
    size_t amount = (size_t)byte >> 4, count = amount < size ? amount : size;

    switch ((enum action)(byte >> 1 & 7)) {
    case SEND_MORE:
        amount = amount << 5 | 31;
        count = amount < size ? amount : size;
        /* fall through */
    case SEND:
        send_bytes(client, (const char *)data, count, 0);
        return count;
    case SEND_WITH:
        count = size > 0;
        send_bytes(client, (const char *)data, count, amount * amount + 1);
        return count;
    case SEND_LINE:
        send_bytes(client, lines[amount], strlen(lines[amount]), 0);
        return 0;
    case TURN:
        qmp_turn(qmp);
        return 0;
    case TELL:
        qmp_event(qmp, "EVENT", amount > 0 ? json_pack("{si}", "amount", (int)amount) : NULL);
        return 0;
    case LISTEN:
        hear(client);
        return 0;
    case HANG_UP:
        if (amount > 0) {
            close(client->fd);
        } else {
            leave(client);
        }
        join(client);
        return 0;
    }
    return 0;
}

static void send_again(const struct client *client)
{
    if (client->has_descriptors) {
        return;
    }
    create();
    join(&again);
    send_bytes(&again, client->sent, client->sent_count, 0);
    leave(&again);
    REQUIRE(strcmp(again.heard, client->heard) == 0);
    qmp_destroy(qmp);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const unsigned before = qmp_peer_count_descriptors();
    size_t at = 1;

    if (size == 0) {
        return 0;
    }
    create();
    for (unsigned i = 0; i < CLIENTS; i++) {
        join(&clients[i]);
        if ((data[0] >> i & 1) != 0) {
            send_bytes(&clients[i], lines[0], strlen(lines[0]), 0);
            work();
        }
    }
    while (at < size) {
        uint8_t byte = data[at++];

        at += act(byte, data + at, size - at);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        leave(&clients[i]);
    }
    qmp_destroy(qmp);
    for (unsigned i = 0; i < CLIENTS; i++) {
        send_again(&clients[i]);
    }
    REQUIRE(qmp_peer_count_descriptors() == before);
    return 0;
}
