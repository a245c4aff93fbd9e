// SPDX-License-Identifier: Apache-2.0
#include "vmm/qmp_client.h"

#include "tests/support/heap.h"
#include "tests/vmm/qmp_peer.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct qmp_client client;
static int peer;
static unsigned descriptors_before;
static uint32_t blocks_before;

static void set_up(void)
{
    int pair[2];

    descriptors_before = qmp_peer_count_descriptors();
    blocks_before = heap_block_count();
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    peer = pair[0];
    qmp_client_init(&client, pair[1]);
}

static void tear_down(void)
{
    qmp_client_end(&client);
    close(peer);
    cr_expect_eq(qmp_peer_count_descriptors(), descriptors_before, "descriptors are left");
    cr_expect_eq(heap_block_count(), blocks_before, "memory is left");
}

TestSuite(qmp_client, .init = set_up, .fini = tear_down, .timeout = 60);

/* --- In ----------------------------------------------------------------------------------------------------------- */

static void send_with(const char *text, unsigned descriptor_count)
{
    int fds[QMP_PEER_DESCRIPTOR_MAX];

    for (unsigned i = 0; i < descriptor_count; i++) {
        char content[16];

        snprintf(content, sizeof content, "%u", i);
        fds[i] = qmp_peer_file(content);
        cr_assert_geq(fds[i], 0);
    }
    cr_assert(qmp_peer_send(peer, text, strlen(text), fds, descriptor_count));
    for (unsigned i = 0; i < descriptor_count; i++) {
        close(fds[i]);
    }
}

static void expect_text(const char *text)
{
    cr_assert_eq(qmp_client_next(&client), QMP_SPLIT_TEXT);
    cr_assert_eq(client.split.bytes, strlen(text));
    cr_expect_arr_eq(client.split.text, text, strlen(text));
}

/* The first descriptor that is there was made as this. */
static void expect_descriptor(const char *content)
{
    char text[16] = "";
    int fd = qmp_descriptors_take(&client.descriptors);

    cr_assert_geq(fd, 0);
    cr_expect_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    cr_assert_geq(pread(fd, text, sizeof text - 1, 0), 0);
    cr_expect_str_eq(text, content);
    close(fd);
}

Test(qmp_client, texts_come_one_after_the_other_and_over_chunks)
{
    static char text[3 * QMP_CLIENT_CHUNK_BYTES];

    memset(text, ' ', sizeof text - 1);
    text[0] = '[';
    text[sizeof text - 2] = ']';
    send_with("{}{}\n", 0);
    cr_assert(qmp_client_receive(&client));
    expect_text("{}");
    expect_text("{}");
    cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
    cr_expect(qmp_client_receive(&client), "nothing has come, and it has not hung up");
    cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
    send_with(text, 0);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert(qmp_client_receive(&client));
        cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
    }
    cr_assert(qmp_client_receive(&client));
    expect_text(text);
}

Test(qmp_client, who_hangs_up_is_heard_when_all_has_been_read)
{
    send_with("{}", 0);
    close(peer);
    peer = -1;
    cr_expect(qmp_client_receive(&client));
    expect_text("{}");
    cr_expect_not(qmp_client_receive(&client));
    cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
}

Test(qmp_client, a_descriptor_is_its_text_s_and_closed_with_it)
{
    send_with("{} \r\n", 1);
    send_with("[]", 0);
    cr_assert(qmp_client_receive(&client));
    expect_text("{}");
    cr_expect_eq(client.descriptors.count, 1);
    qmp_client_done(&client, false);
    cr_expect_eq(client.descriptors.count, 0);
}

/* What was sent before the bytes that it came with may be read with them: its text is the last of those read. */
Test(qmp_client, a_descriptor_outlives_the_texts_before_its_own)
{
    send_with("{}\n", 0);
    send_with("[1]\n", 1);
    cr_assert(qmp_client_receive(&client));
    expect_text("{}");
    qmp_client_done(&client, false);
    if (client.chunk_at == 3 && client.chunk_bytes == 3) {
        cr_assert(qmp_client_receive(&client)); /* this kernel reads them singly */
    }
    expect_text("[1]");
    expect_descriptor("0");
}

Test(qmp_client, a_descriptor_may_come_before_its_text_or_with_a_part_of_it)
{
    static const char *const pieces[][3] = {{" ", "{}", "{}"}, {"{", "} ", "{}"}, {"{\"a ", "\"}", "{\"a \"}"}};

    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        send_with(pieces[i][0], 2);
        cr_assert(qmp_client_receive(&client));
        cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
        send_with(pieces[i][1], 0);
        cr_assert(qmp_client_receive(&client));
        expect_text(pieces[i][2]);
        expect_descriptor("0");
        expect_descriptor("1");
        qmp_client_done(&client, false);
    }
}

/* And no other: what comes with a line behind it is that line's. */
Test(qmp_client, nonsense_takes_the_descriptors_of_its_line_with_it)
{
    send_with("{]{}{}\n", 3);
    cr_assert(qmp_client_receive(&client));
    expect_text("{]");
    qmp_client_done(&client, true);
    cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
    cr_expect_eq(client.descriptors.count, 0);
    send_with("{]{}{}\n{}", 1);
    cr_assert(qmp_client_receive(&client));
    expect_text("{]");
    qmp_client_done(&client, true);
    expect_text("{}");
    expect_descriptor("0");
}

Test(qmp_client, descriptors_without_a_text_are_bounded)
{
    for (unsigned i = 0; i < 100; i++) {
        send_with(" ", i % 4);
        cr_assert(qmp_client_receive(&client));
        cr_expect_eq(qmp_client_next(&client), QMP_SPLIT_NOTHING);
    }
    cr_expect_eq(client.descriptors.count, QMP_DESCRIPTOR_MAX);
    cr_expect_eq(qmp_peer_count_descriptors(), descriptors_before + 2 + QMP_DESCRIPTOR_MAX);
}

Test(qmp_client, more_descriptors_in_a_message_than_are_held_are_dropped)
{
    send_with("{}", QMP_PEER_DESCRIPTOR_MAX);
    cr_assert(qmp_client_receive(&client));
    expect_text("{}");
    cr_expect_eq(qmp_peer_count_descriptors(), descriptors_before + 2 + QMP_DESCRIPTOR_MAX);
    for (unsigned i = 0; i < QMP_DESCRIPTOR_MAX; i++) {
        char content[16];

        snprintf(content, sizeof content, "%u", i);
        expect_descriptor(content);
    }
    cr_expect_eq(qmp_descriptors_take(&client.descriptors), -1);
}

Test(qmp_client, where_no_descriptor_can_be_had_the_text_still_comes)
{
    struct rlimit before, low;
    bool received;

    send_with("{}", 3);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = (struct rlimit){(rlim_t)client.fd + 2, before.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    received = qmp_client_receive(&client);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    cr_assert(received);
    expect_text("{}");
    cr_expect_lt(client.descriptors.count, 3);
}

/* --- Out ---------------------------------------------------------------------------------------------------------- */

/* Said and read in pieces of any size, with more or less of it waiting: a ring that turns over and grows. */
Test(qmp_client, what_is_said_comes_out_in_order)
{
    enum { ROUNDS = 4000, PIECE_BYTES = 50000, TEXT_BYTES = 2 * PIECE_BYTES };
    struct random random = {.state = 1};
    static char piece[PIECE_BYTES], text[TEXT_BYTES];
    uint8_t next_said = 0, next_read = 0;
    unsigned refused_count = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t count = random_below(&random, random_one_in(&random, 4) ? PIECE_BYTES : 300);
        uint32_t room = round / 1000 % 2 == 0 ? 2 : 2 + random_below(&random, TEXT_BYTES - 2);
        size_t got;

        for (uint32_t i = 0; i < count; i++) {
            piece[i] = (char)(uint8_t)(next_said + i);
        }
        if (qmp_client_say(&client, piece, count)) {
            next_said = (uint8_t)(next_said + count);
        } else {
            refused_count++;
        }
        cr_assert(qmp_client_flush(&client));
        got = qmp_peer_receive(peer, text, room);
        for (size_t i = 0; i < got; i++) {
            cr_assert_eq((uint8_t)text[i], next_read, "round %u, byte %zu", round, i);
            next_read++;
        }
    }
    cr_expect(refused_count > 0 && refused_count < ROUNDS / 2, "%u", refused_count);
}

Test(qmp_client, what_waits_is_bounded_and_nothing_of_what_is_too_much_is_kept)
{
    static char block[QMP_WAITING_BYTES_MAX];

    cr_expect(qmp_client_say(&client, block, sizeof block - 10));
    cr_expect_not(qmp_client_say(&client, block, 11));
    cr_expect_eq(client.waiting_bytes, sizeof block - 10);
    cr_expect(qmp_client_say(&client, block, 10));
    cr_expect_not(qmp_client_say(&client, block, 1));
    cr_expect_not(qmp_client_say(&client, block, SIZE_MAX));
    cr_expect_eq(client.waiting_room, QMP_WAITING_BYTES_MAX);
}

Test(qmp_client, room_is_given_back_when_all_is_sent)
{
    static char block[100000], text[100001];

    cr_assert(qmp_client_say(&client, block, sizeof block));
    cr_assert(qmp_client_flush(&client));
    cr_assert_eq(qmp_peer_receive(peer, text, sizeof text), sizeof block);
    cr_assert(qmp_client_flush(&client));
    cr_expect_eq(client.waiting_room, 0);
}

Test(qmp_client, a_reader_that_is_gone_is_no_signal)
{
    cr_assert(qmp_client_say(&client, "{}", 2));
    close(peer);
    peer = -1;
    cr_expect_not(qmp_client_flush(&client));
}

Test(qmp_client, without_memory_nothing_is_kept)
{
    static char block[5000], text[10001];

    cr_assert(qmp_client_say(&client, "one", 3));
    heap_fail(1);
    cr_expect_not(qmp_client_say(&client, block, sizeof block));
    heap_fail(0);
    cr_assert(qmp_client_say(&client, "two", 3));
    cr_assert(qmp_client_flush(&client));
    qmp_peer_receive(peer, text, sizeof text);
    cr_expect_str_eq(text, "onetwo");
}
