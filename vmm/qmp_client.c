// SPDX-License-Identifier: Apache-2.0
/*
 * A descriptor comes with the bytes of one sendmsg(2), and recvmsg(2) reads no further than those bytes, though it may
 * begin before them. So it belongs to the text that the last byte read is of, or, if all of that was blank, to the
 * next. A text before that one may take it too: where its own bytes began nobody can tell.
 */
#include "vmm/qmp_client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAITING_LEAST_BYTES 4096u

/* --- In ---------------------------------------------------------------------------------------------------------- */

/* Those that found no room in the message, or no number in this process, the kernel has dropped (MSG_CTRUNC). */
static void hold_all(struct qmp_descriptors *descriptors, struct msghdr *message, uint64_t end)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL; part = CMSG_NXTHDR(message, part)) {
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            qmp_descriptors_hold(descriptors, fd, end);
        }
    }
}

/* Where the last text in the chunk ends, in the stream; if it is blank, where the next has one byte at least. */
static uint64_t end_of_text(const struct qmp_client *client)
{
    size_t count = client->chunk_bytes;

    while (count > 0 && qmp_split_is_blank(client->chunk[count - 1])) {
        count--;
    }
    return client->taken_bytes + (count > 0 ? count : client->chunk_bytes + 1);
}

bool qmp_client_receive(struct qmp_client *client)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(QMP_DESCRIPTOR_MAX * sizeof(int))];
    struct iovec bytes = {client->chunk, sizeof client->chunk};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    client->chunk_at = 0;
    client->chunk_bytes = got > 0 ? (size_t)got : 0;
    if (got < 0) {
        return errno == EAGAIN || errno == EINTR;
    }
    hold_all(&client->descriptors, &message, end_of_text(client));
    return got > 0;
}

enum qmp_split_found qmp_client_next(struct qmp_client *client)
{
    enum qmp_split_found found;

    do {
        size_t used = qmp_split_take(&client->split, client->chunk + client->chunk_at,
                                     client->chunk_bytes - client->chunk_at, &found);

        client->chunk_at += used;
        client->taken_bytes += used;
        if (found == QMP_SPLIT_PASSED) {
            qmp_descriptors_close(&client->descriptors, client->taken_bytes);
        }
    } while (found == QMP_SPLIT_PASSED);
    return found;
}

void qmp_client_done(struct qmp_client *client, bool was_nonsense)
{
    if (was_nonsense) {
        qmp_split_skip_line(&client->split);
    }
    qmp_descriptors_close(&client->descriptors, client->taken_bytes);
}

/* --- Out --------------------------------------------------------------------------------------------------------- */

/* What waits lies in a ring: it may go on at its beginning. Returns the bytes before that. */
static size_t first_part(const struct qmp_client *client)
{
    size_t straight = client->waiting_room - client->waiting_at;

    return client->waiting_bytes < straight ? client->waiting_bytes : straight;
}

/* A larger ring, in which it begins at the beginning. */
static bool make_room(struct qmp_client *client, size_t count)
{
    size_t room = WAITING_LEAST_BYTES, first = first_part(client);
    char *waiting;

    while (room < client->waiting_bytes + count) {
        room *= 2; /* both are at most QMP_WAITING_BYTES_MAX */
    }
    waiting = malloc(room);
    if (waiting == NULL) {
        return false;
    }
    if (client->waiting_bytes > 0) {
        memcpy(waiting, client->waiting + client->waiting_at, first);
        memcpy(waiting + first, client->waiting, client->waiting_bytes - first);
    }
    free(client->waiting);
    client->waiting = waiting;
    client->waiting_at = 0;
    client->waiting_room = room;
    return true;
}

static void put(struct qmp_client *client, const char *bytes, size_t count)
{
    size_t end = (client->waiting_at + client->waiting_bytes) % client->waiting_room;
    size_t first = count < client->waiting_room - end ? count : client->waiting_room - end;

    memcpy(client->waiting + end, bytes, first);
    memcpy(client->waiting, bytes + first, count - first);
    client->waiting_bytes += count;
}

bool qmp_client_say(struct qmp_client *client, const char *bytes, size_t count)
{
    if (count > QMP_WAITING_BYTES_MAX - client->waiting_bytes) {
        return false;
    }
    if (count == 0) {
        return true;
    }
    if (client->waiting_bytes + count > client->waiting_room && !make_room(client, count)) {
        return false;
    }
    put(client, bytes, count);
    return true;
}

/* All has been sent: an idle client costs little. */
static void give_room_back(struct qmp_client *client)
{
    client->waiting_at = 0;
    if (client->waiting_room > WAITING_LEAST_BYTES) {
        free(client->waiting);
        client->waiting = NULL;
        client->waiting_room = 0;
    }
}

bool qmp_client_flush(struct qmp_client *client)
{
    while (client->waiting_bytes > 0) {
        ssize_t sent =
            send(client->fd, client->waiting + client->waiting_at, first_part(client), MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        client->waiting_at = (client->waiting_at + (size_t)sent) % client->waiting_room;
        client->waiting_bytes -= (size_t)sent;
    }
    give_room_back(client);
    return true;
}

/* --- Both -------------------------------------------------------------------------------------------------------- */

void qmp_client_init(struct qmp_client *client, int fd)
{
    *client = (struct qmp_client){.fd = fd};
    qmp_split_init(&client->split);
}

void qmp_client_end(struct qmp_client *client)
{
    close(client->fd);
    qmp_descriptors_close(&client->descriptors, UINT64_MAX);
    qmp_split_end(&client->split);
    free(client->waiting);
    *client = (struct qmp_client){.fd = -1};
}
