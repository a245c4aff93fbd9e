// SPDX-License-Identifier: Apache-2.0
#include "vmm/gdb_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void gdb_client_init(struct gdb_client *client, int fd, int stop_fd)
{
    memset(client, 0, sizeof *client);
    client->fd = fd;
    client->stop_fd = stop_fd;
}

void gdb_client_end(struct gdb_client *client)
{
    if (client->fd >= 0) {
        close(client->fd);
        client->fd = -1;
    }
}

/* Whether it goes on. */
static bool await_room(const struct gdb_client *client)
{
    struct pollfd fds[] = {{.fd = client->fd, .events = POLLOUT}, {.fd = client->stop_fd, .events = POLLIN}};

    (void)poll(fds, 2, -1);
    return fds[1].revents == 0;
}

static void send_bytes(struct gdb_client *client, const char *bytes, size_t count)
{
    for (size_t gone = 0; gone < count && !client->is_gone;) {
        ssize_t sent = send(client->fd, bytes + gone, count - gone, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent > 0) {
            gone += (size_t)sent;
        } else if (sent < 0 && errno == EAGAIN) {
            client->is_gone = !await_room(client);
        } else if (sent == 0 || errno != EINTR) {
            client->is_gone = true;
        }
    }
}

bool gdb_client_receive(struct gdb_client *client)
{
    ssize_t got = recv(client->fd, client->chunk, sizeof client->chunk, MSG_DONTWAIT);

    client->chunk_at = client->chunk_bytes = 0;
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return true;
    }
    if (got <= 0) {
        return false;
    }
    client->chunk_bytes = (size_t)got;
    return true;
}

/* In no-ack mode it vouches for the way: there is nothing to say to a damaged packet but good-bye. */
static enum gdb_heard acknowledge(struct gdb_client *client, enum gdb_heard heard)
{
    if (client->has_no_ack) {
        return heard == GDB_HEARD_DAMAGED ? GDB_HEARD_JUNK : heard;
    }
    send_bytes(client, heard == GDB_HEARD_PACKET ? "+" : "-", 1);
    return heard == GDB_HEARD_PACKET ? heard : GDB_HEARD_NOTHING;
}

/* GDB_HEARD_NOTHING: it has been dealt with. */
static enum gdb_heard hear(struct gdb_client *client, enum gdb_heard heard)
{
    switch (heard) {
    case GDB_HEARD_PACKET:
    case GDB_HEARD_DAMAGED:
        return acknowledge(client, heard);
    case GDB_HEARD_NACK:
        send_bytes(client, client->sent, client->sent_bytes);
        return GDB_HEARD_NOTHING;
    case GDB_HEARD_ACK:
        return GDB_HEARD_NOTHING;
    default:
        return heard;
    }
}

enum gdb_heard gdb_client_next(struct gdb_client *client)
{
    enum gdb_heard heard = GDB_HEARD_NOTHING;

    while (heard == GDB_HEARD_NOTHING && client->chunk_at < client->chunk_bytes) {
        heard = hear(client, gdb_reader_take(&client->reader, client->chunk[client->chunk_at++]));
    }
    return heard;
}

void gdb_client_say(struct gdb_client *client, const char *text, size_t count)
{
    client->sent_bytes = gdb_packet_write(text, count, client->sent);
    send_bytes(client, client->sent, client->sent_bytes);
}
