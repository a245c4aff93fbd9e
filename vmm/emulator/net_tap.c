// SPDX-License-Identifier: Apache-2.0
/*
 * A frame that the guest has no buffer for is held, and the descriptor not read until it is through:
 *
 *     held_bytes > 0 => packet holds a frame, of so many bytes with the tap's header
 *
 * All but fd, format and wake_fd is the thread's own.
 */
#include "vmm/emulator/net_tap.h"

#include "vmm/kick.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define TAP_HEADER_BYTES 10 /* struct virtio_net_hdr: all zero where nothing is offloaded */
#define HANG_UP          (POLLHUP | POLLRDHUP | POLLNVAL)

struct format {
    bool is_socket;
    bool has_end;        /* reading nothing says that the other end is gone */
    size_t header_bytes; /* before each frame */
};

struct net_tap {
    int fd;
    int wake_fd; /* there is room, or the thread is to leave */
    struct format format;
    struct virtio_net *net;
    struct kick_thread thread;
    atomic_bool leaving;
    bool is_gone; /* the other end */
    size_t held_bytes;
    uint8_t packet[TAP_HEADER_BYTES + VIRTIO_NET_FRAME_BYTES_MAX + 1]; /* one more than can be: too long is seen */
};

/* --- What the guest sends: with the transport locked ------------------------------------------------------------- */

static bool send_frame(void *self, const void *frame, size_t bytes)
{
    struct net_tap *tap = self;
    uint8_t header[TAP_HEADER_BYTES] = {0};
    struct iovec parts[] = {{header, tap->format.header_bytes}, {(void *)frame, bytes}};
    ssize_t wanted = (ssize_t)(tap->format.header_bytes + bytes);

    if (tap->format.is_socket) {
        return send(tap->fd, frame, bytes, MSG_DONTWAIT | MSG_NOSIGNAL) == wanted;
    }
    return writev(tap->fd, parts, 2) == wanted;
}

static void wake(void *self)
{
    struct net_tap *tap = self;

    (void)eventfd_write(tap->wake_fd, 1);
}

/* --- What the guest receives: the thread ------------------------------------------------------------------------- */

/* Hand on what was read. Returns whether it is through. */
static bool hand_on(struct net_tap *tap, size_t bytes)
{
    const size_t header_bytes = tap->format.header_bytes;
    const bool is_done =
        virtio_net_receive(tap->net, tap->packet + header_bytes, bytes > header_bytes ? bytes - header_bytes : 0);

    tap->held_bytes = is_done ? 0 : bytes;
    return is_done;
}

static ssize_t read_packet(struct net_tap *tap)
{
    if (tap->format.is_socket) {
        return recv(tap->fd, tap->packet, sizeof tap->packet, MSG_DONTWAIT);
    }
    return read(tap->fd, tap->packet, sizeof tap->packet);
}

/* Whether what read_packet returned says that nothing will come any more. */
static bool is_end(const struct net_tap *tap, ssize_t got, bool has_hung_up)
{
    if (got >= 0) {
        return got == 0 && tap->format.has_end;
    }
    switch (errno) {
    case EAGAIN:
        return has_hung_up;
    case EINTR:
    case ECONNREFUSED: /* of a frame that was sent, and is over with this */
        return false;
    default:
        return true;
    }
}

/* Read until nothing is there, or the guest takes no more. */
static void read_frames(struct net_tap *tap, short events)
{
    const bool has_hung_up = (events & HANG_UP) != 0;

    while (!atomic_load(&tap->leaving)) {
        const ssize_t got = read_packet(tap);

        if (is_end(tap, got, has_hung_up)) {
            tap->is_gone = true;
            virtio_net_set_link(tap->net, false);
            return;
        }
        if (got < 0 || !hand_on(tap, (size_t)got)) {
            return;
        }
    }
}

static void carry(void *self)
{
    struct net_tap *tap = self;

    while (!atomic_load(&tap->leaving)) {
        const bool reads = tap->held_bytes == 0 && !tap->is_gone;
        struct pollfd fds[] = {{.fd = tap->wake_fd, .events = POLLIN},
                               {.fd = reads ? tap->fd : -1, .events = POLLIN | POLLRDHUP}};
        eventfd_t count;

        if (poll(fds, 2, -1) <= 0) {
            continue;
        }
        if (fds[0].revents != 0) {
            (void)eventfd_read(tap->wake_fd, &count);
        }
        if (tap->held_bytes > 0) {
            (void)hand_on(tap, tap->held_bytes);
        } else if (fds[1].revents != 0) {
            read_frames(tap, fds[1].revents);
        }
    }
}

/* --- Which descriptor it is --------------------------------------------------------------------------------------- */

static enum loam_error examine_tap(int fd, short flags, struct format *format, struct loam_diag *diag)
{
    int header_bytes = TAP_HEADER_BYTES;
    int status;

    if ((flags & IFF_TAP) == 0) {
        return loam_fail(diag, LOAM_ERROR_INVALID,
                         "network: descriptor %d: a tap interface is wanted, and this one carries IP packets without "
                         "Ethernet's header: open it with IFF_TAP",
                         fd);
    }
    if (ioctl(fd, TUNSETOFFLOAD, 0) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: descriptor %d: turning offloads off (TUNSETOFFLOAD)", fd);
    }
    if ((flags & IFF_VNET_HDR) != 0) {
        if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) != 0) {
            return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: descriptor %d: a header of %d bytes (TUNSETVNETHDRSZ)",
                             fd, header_bytes);
        }
        format->header_bytes = TAP_HEADER_BYTES;
    }
    status = fcntl(fd, F_GETFL);
    if (status < 0 || fcntl(fd, F_SETFL, status | O_NONBLOCK) != 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: descriptor %d: O_NONBLOCK", fd);
    }
    return LOAM_OK;
}

static enum loam_error examine(int fd, struct format *format, struct loam_diag *diag)
{
    struct ifreq request = {.ifr_flags = 0};
    int type = 0;
    socklen_t bytes = sizeof type;

    if (fcntl(fd, F_GETFD) < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: descriptor %d", fd);
    }
    if (ioctl(fd, TUNGETIFF, &request) == 0) {
        return examine_tap(fd, request.ifr_flags, format, diag);
    }
    format->is_socket = getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0;
    format->has_end = type == SOCK_SEQPACKET;
    if (!format->is_socket || (type != SOCK_DGRAM && type != SOCK_SEQPACKET)) {
        return loam_fail(
            diag, LOAM_ERROR_INVALID,
            "network: descriptor %d: whole frames are wanted, and this is %s: hand over a tap interface's, "
            "or a socket of type SOCK_DGRAM or SOCK_SEQPACKET",
            fd, format->is_socket ? "a socket of another type" : "neither a tap interface nor a socket");
    }
    return LOAM_OK;
}

/* --- Public ------------------------------------------------------------------------------------------------------ */

/* The device first: whoever is told to wait for room has been connected. */
static enum loam_error start(struct net_tap *tap, struct loam_diag *diag)
{
    const struct virtio_net_outside outside = {.self = tap, .send = send_frame, .room = wake};

    tap->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (tap->wake_fd < 0) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: eventfd");
    }
    virtio_net_connect(tap->net, &outside);
    if (kick_start(&tap->thread, carry, tap, "network", diag) != LOAM_OK) {
        virtio_net_connect(tap->net, NULL);
        close(tap->wake_fd);
        return LOAM_ERROR_SYSTEM;
    }
    return LOAM_OK;
}

enum loam_error net_tap_open(int fd, struct virtio_net *net, struct net_tap **tap, struct loam_diag *diag)
{
    struct format format = {.header_bytes = 0};
    enum loam_error error = examine(fd, &format, diag);

    *tap = NULL;
    if (error != LOAM_OK) {
        return error;
    }
    *tap = calloc(1, sizeof **tap);
    if (*tap == NULL) {
        return loam_fail(diag, LOAM_ERROR_SYSTEM, "network: %zu bytes", sizeof **tap);
    }
    (*tap)->fd = fd;
    (*tap)->format = format;
    (*tap)->net = net;
    atomic_init(&(*tap)->leaving, false);
    error = start(*tap, diag);
    if (error != LOAM_OK) {
        free(*tap);
        *tap = NULL;
    }
    return error;
}

void net_tap_close(struct net_tap *tap)
{
    if (tap == NULL) {
        return;
    }
    virtio_net_connect(tap->net, NULL);
    atomic_store(&tap->leaving, true);
    wake(tap);
    if (!kick_end(&tap->thread)) {
        return; /* it is in a call that does not end: what it uses stays */
    }
    close(tap->wake_fd);
    free(tap);
}
