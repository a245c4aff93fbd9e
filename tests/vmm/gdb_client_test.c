// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_client.h"

#include "tests/support/waiter.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static struct gdb_client client;
static int peer, stop_fd;

static void set_up(void)
{
    int pair[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    stop_fd = eventfd(0, EFD_CLOEXEC);
    peer = pair[0];
    gdb_client_init(&client, pair[1], stop_fd);
}

static void tear_down(void)
{
    gdb_client_end(&client);
    close(peer);
    close(stop_fd);
}

TestSuite(gdb_client, .init = set_up, .fini = tear_down, .timeout = 30);

static void send_text(const char *text)
{
    cr_assert_eq(send(peer, text, strlen(text), 0), (ssize_t)strlen(text));
    cr_assert(gdb_client_receive(&client));
}

/* What the peer has been sent so far. */
static const char *heard(void)
{
    static char text[256];
    ssize_t bytes = recv(peer, text, sizeof text - 1, 0);

    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

Test(gdb_client, hears_packets_and_acknowledges_them)
{
    send_text("+$g#67$?#3f$m0");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_PACKET);
    cr_expect_str_eq(client.reader.text, "g");
    cr_expect_str_eq(heard(), "+");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_PACKET);
    cr_expect_str_eq(client.reader.text, "?");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_NOTHING);
    send_text(",4#fd\x03");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_PACKET);
    cr_expect_str_eq(client.reader.text, "m0,4");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_INTERRUPT);
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_NOTHING);
}

Test(gdb_client, asks_for_a_damaged_packet_again)
{
    send_text("$g#00$g#67");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_PACKET);
    cr_expect_str_eq(heard(), "-+");
}

Test(gdb_client, sends_again_what_was_damaged)
{
    gdb_client_say(&client, "OK", 2);
    cr_expect_str_eq(heard(), "$OK#9a");
    send_text("-");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_NOTHING);
    cr_expect_str_eq(heard(), "$OK#9a");
}

Test(gdb_client, acknowledges_nothing_in_no_ack_mode)
{
    client.has_no_ack = true;
    send_text("$g#67$g#00");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_PACKET);
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_JUNK);
    cr_expect_str_eq(heard(), "");
}

Test(gdb_client, hears_junk)
{
    send_text("GET / HTTP/1.1\r\n\r\n$k#6b");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_JUNK);
}

Test(gdb_client, is_told_that_it_has_hung_up)
{
    cr_expect(gdb_client_receive(&client), "nothing has come yet");
    cr_expect_eq(gdb_client_next(&client), GDB_HEARD_NOTHING);
    shutdown(peer, SHUT_WR);
    cr_expect_not(gdb_client_receive(&client));
}

Test(gdb_client, what_is_said_to_one_that_is_gone_is_lost)
{
    close(peer);
    gdb_client_say(&client, "OK", 2);
    cr_expect(client.is_gone);
    peer = dup(stop_fd); /* for tear_down */
}

static void fill(void *unused)
{
    char text[GDB_PACKET_BYTES_MAX];

    (void)unused;
    memset(text, 'a', sizeof text);
    while (!client.is_gone) {
        gdb_client_say(&client, text, sizeof text);
    }
}

Test(gdb_client, one_that_does_not_read_is_waited_for_until_told)
{
    struct waiter waiter;

    waiter_start(&waiter, fill, NULL);
    cr_expect(waiter_polls(&waiter));
    eventfd_write(stop_fd, 1);
    waiter_join(&waiter);
    cr_expect(client.is_gone);
}
