// SPDX-License-Identifier: Apache-2.0
#include "vmm/emulator/net_tap.h"

#include "tests/support/lock_watch.h"
#include "tests/vmm/call_gate.h"
#include "tests/vmm/net_guest.h"
#include "tests/vmm/random.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME = 60, FRAME_MAX = VIRTIO_NET_FRAME_BYTES_MAX };

static struct net_guest guest;
static struct net_tap *tap;
static int here, there; /* the device's end, and the test's */

/* --- Threads as the test wants them ------------------------------------------------------------------------------ */

static int refusal; /* what pthread_create answers; 0: it goes on */

int __real_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);
int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self);

int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attributes, void *(*work)(void *), void *self)
{
    return refusal != 0 ? refusal : __real_pthread_create(made, attributes, work, self);
}

/* --- Helpers ----------------------------------------------------------------------------------------------------- */

static void open_tap(int fd)
{
    struct loam_diag diag = {0};

    cr_assert_eq(net_tap_open(fd, &guest.net, &tap, &diag), LOAM_OK, "%s", diag.text);
}

static void connect_pair(int type)
{
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends), 0);
    here = ends[0];
    there = ends[1];
    open_tap(here);
}

static void set_up(void)
{
    refusal = 0;
    tap = NULL;
    here = there = -1;
    net_guest_init(&guest);
}

static void tear_down(void)
{
    net_tap_close(tap);
    net_guest_destroy(&guest);
    close(here);
    close(there);
}

TestSuite(net_tap, .init = set_up, .fini = tear_down, .timeout = 60);

static void make_frame(uint8_t *frame, size_t bytes, uint32_t number)
{
    for (size_t i = 0; i < bytes; i++) {
        frame[i] = (uint8_t)(number * 13 + i * 5 + (i >> 8));
    }
}

static void write_frame(size_t bytes, uint32_t number)
{
    uint8_t frame[4096];

    make_frame(frame, bytes, number);
    cr_assert_eq(send(there, frame, bytes, 0), (ssize_t)bytes);
}

static void expect_frame(size_t bytes, uint32_t number)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES], expected[NET_GUEST_BUFFER_BYTES];
    size_t found;

    net_guest_await(&guest, frame, &found);
    make_frame(expected, bytes, number);
    cr_assert_eq(found, bytes, "%zu bytes in place of %zu, frame %u", found, bytes, number);
    cr_assert_eq(memcmp(frame, expected, bytes), 0, "frame %u", number);
}

static void offer(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        net_guest_offer(&guest, i);
    }
}

static struct virtio_net_counts counts(void)
{
    struct virtio_net_counts now;

    virtio_net_read_counts(&guest.net, &now);
    return now;
}

/* Until the device has refused a frame. */
static void await_refusal(void)
{
    bool is_refused = false;

    while (!is_refused) {
        virtio_mmio_lock(&guest.net.mmio);
        is_refused = guest.net.is_room_awaited;
        virtio_mmio_unlock(&guest.net.mmio);
        sched_yield();
    }
}

/* Until the link is down, of which the line tells. */
static void await_link_down(void)
{
    while ((net_guest_in(&guest, VIRTIO_MMIO_CONFIG + 4) >> 16 & VIRTIO_NET_LINK_UP) != 0) {
        sched_yield();
    }
    cr_assert_neq(net_guest_in(&guest, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_INTERRUPT_CONFIG, 0);
}

/* Between the wakes that it gets, the thread sleeps. */
static void expect_rest(void)
{
    enum { WAKES = 20 };

    call_gate_reset();
    for (uint32_t i = 0; i < WAKES; i++) {
        const unsigned before = call_gate_count(CALL_POLL);

        virtio_mmio_lock(&guest.net.mmio);
        guest.net.outside.room(guest.net.outside.self);
        virtio_mmio_unlock(&guest.net.mmio);
        while (call_gate_count(CALL_POLL) == before) {
            sched_yield();
        }
    }
    cr_assert_leq(call_gate_count(CALL_POLL), WAKES + 4);
}

static unsigned descriptor_count(void)
{
    DIR *folder = opendir("/proc/self/fd");
    unsigned count = 0;

    cr_assert_not_null(folder);
    while (readdir(folder) != NULL) {
        count++;
    }
    closedir(folder);
    return count;
}

/* --- Sockets ----------------------------------------------------------------------------------------------------- */

static void carries_both_ways(int type)
{
    uint8_t frame[4096], found[4096];

    connect_pair(type);
    offer(4);
    for (uint32_t i = 0; i < 200; i++) {
        const size_t bytes = 14 + (i * 97) % (FRAME_MAX - 13);

        write_frame(bytes, i);
        expect_frame(bytes, i);
        make_frame(frame, bytes, i + 1000);
        net_guest_send(&guest, frame, bytes);
        cr_assert_eq(recv(there, found, sizeof found, 0), (ssize_t)bytes);
        cr_assert_eq(memcmp(found, frame, bytes), 0);
    }
    cr_assert_eq(counts().received.frames, 200);
    cr_assert_eq(counts().sent.frames, 200);
}

Test(net_tap, carries_datagrams_both_ways)
{
    carries_both_ways(SOCK_DGRAM);
}

Test(net_tap, carries_packets_both_ways)
{
    carries_both_ways(SOCK_SEQPACKET);
}

Test(net_tap, frames_without_buffers_wait_in_order)
{
    connect_pair(SOCK_SEQPACKET);
    for (uint32_t i = 0; i < 8; i++) {
        write_frame(FRAME, i);
    }
    await_refusal();
    expect_rest();
    for (uint32_t i = 0; i < 8; i++) {
        if (i < 2) {
            net_guest_offer(&guest, i);
        }
        expect_frame(FRAME, i);
    }
    cr_assert_eq(counts().received.dropped_frames, 0);
}

Test(net_tap, frames_for_a_guest_that_stands_still_wait)
{
    uint8_t frame[NET_GUEST_BUFFER_BYTES];
    size_t bytes;

    connect_pair(SOCK_DGRAM);
    offer(8);
    virtio_net_quiesce(&guest.net);
    for (uint32_t i = 0; i < 4; i++) {
        write_frame(FRAME, i);
    }
    await_refusal();
    cr_assert_not(net_guest_take(&guest, frame, &bytes));
    cr_assert_not(guest.level);
    virtio_net_resume(&guest.net);
    for (uint32_t i = 0; i < 4; i++) {
        expect_frame(FRAME, i);
    }
}

Test(net_tap, a_reader_that_sleeps_costs_frames_and_no_time)
{
    uint8_t frame[FRAME_MAX] = {0};

    connect_pair(SOCK_DGRAM);
    while (counts().sent.dropped_frames < 100) {
        cr_assert_lt(counts().sent.frames, 100000, "the socket takes all");
        net_guest_send(&guest, frame, sizeof frame);
    }
    cr_assert_gt(counts().sent.frames, 0);
}

Test(net_tap, what_is_no_frame_is_dropped)
{
    connect_pair(SOCK_DGRAM);
    offer(4);
    write_frame(0, 1);
    write_frame(13, 2);
    write_frame(FRAME_MAX + 1, 3);
    write_frame(4000, 4);
    write_frame(FRAME_MAX, 5);
    expect_frame(FRAME_MAX, 5);
    cr_assert_eq(counts().received.dropped_frames, 4);
}

Test(net_tap, without_the_other_end_the_link_is_down)
{
    uint8_t frame[FRAME] = {0};

    connect_pair(SOCK_SEQPACKET);
    offer(2);
    write_frame(FRAME, 1);
    close(there);
    there = -1;
    expect_frame(FRAME, 1);
    await_link_down();
    expect_rest();
    net_guest_send(&guest, frame, sizeof frame);
    virtio_net_set_link(&guest.net, true);
    net_guest_send(&guest, frame, sizeof frame);
    cr_assert_eq(counts().sent.dropped_frames, 2);
}

Test(net_tap, a_datagram_s_receiver_may_be_absent)
{
    uint8_t frame[FRAME] = {0};

    connect_pair(SOCK_DGRAM);
    close(there);
    there = -1;
    net_guest_send(&guest, frame, sizeof frame);
    net_guest_send(&guest, frame, sizeof frame);
    cr_assert_eq(counts().sent.dropped_frames, 2);
    cr_assert(guest.net.is_up);
}

/* By whoever shares it. */
Test(net_tap, a_socket_that_is_shut_down_takes_the_link_down)
{
    connect_pair(SOCK_DGRAM);
    cr_assert_eq(shutdown(here, SHUT_RD), 0);
    await_link_down();
    expect_rest();
}

static int udp_socket(uint16_t port, uint16_t peer_port)
{
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = port};
    const struct sockaddr_in peer = {
        .sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_port = peer_port};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    cr_assert(peer_port == 0 || connect(fd, (const struct sockaddr *)&peer, sizeof peer) == 0);
    return fd;
}

static uint16_t port_of(int fd)
{
    struct sockaddr_in address;
    socklen_t bytes = sizeof address;

    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    return address.sin_port;
}

/* The error that a refused frame leaves behind is no end. */
Test(net_tap, a_receiver_may_come_back)
{
    uint8_t frame[FRAME] = {0};
    uint16_t port;

    there = udp_socket(0, 0);
    port = port_of(there);
    here = udp_socket(0, port);
    close(there);
    open_tap(here);
    offer(1);
    net_guest_send(&guest, frame, sizeof frame);
    there = udp_socket(port, port_of(here));
    write_frame(FRAME, 1);
    expect_frame(FRAME, 1);
    cr_assert(guest.net.is_up);
}

Test(net_tap, leaves_nothing_behind)
{
    const unsigned before = descriptor_count();
    int flags;
    uint8_t frame[FRAME] = {0};

    connect_pair(SOCK_DGRAM);
    flags = fcntl(here, F_GETFL);
    cr_assert_eq(flags & O_NONBLOCK, 0);
    for (uint32_t i = 0; i < 50; i++) {
        write_frame(FRAME, i);
        net_tap_close(tap);
        open_tap(here);
    }
    net_tap_close(tap);
    tap = NULL;
    cr_assert_null(guest.net.outside.send);
    cr_assert_eq(fcntl(here, F_GETFL), flags);
    cr_assert_eq(descriptor_count(), before + 2);
    net_guest_send(&guest, frame, sizeof frame);
    cr_assert_eq(counts().sent.dropped_frames, 1, "nothing is connected");
}

Test(net_tap, without_a_thread_nothing_is_connected)
{
    const unsigned before = descriptor_count();
    struct loam_diag diag = {0};
    int ends[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends), 0);
    here = ends[0];
    there = ends[1];
    refusal = EAGAIN;
    cr_assert_eq(net_tap_open(here, &guest.net, &tap, &diag), LOAM_ERROR_SYSTEM);
    cr_assert_null(tap);
    cr_assert_not_null(strstr(diag.text, "network: a thread is wanted"), "%s", diag.text);
    cr_assert_null(guest.net.outside.send);
    cr_assert_eq(descriptor_count(), before + 2);
}

static void expect_refusal(int fd, enum loam_error error, const char *word)
{
    struct loam_diag diag = {0};

    cr_expect_eq(net_tap_open(fd, &guest.net, &tap, &diag), error);
    cr_expect_null(tap);
    cr_expect_not_null(strstr(diag.text, word), "%s", diag.text);
    cr_expect_null(strchr(diag.text, '\n'));
}

Test(net_tap, refuses_what_keeps_no_frames_apart)
{
    int file = memfd_create("file", MFD_CLOEXEC);
    int ends[2];

    expect_refusal(-1, LOAM_ERROR_SYSTEM, "descriptor -1: Bad file descriptor");
    expect_refusal(file, LOAM_ERROR_INVALID, "neither a tap interface nor a socket");
    cr_assert_eq(pipe(ends), 0);
    expect_refusal(ends[0], LOAM_ERROR_INVALID, "neither a tap interface nor a socket");
    close(ends[0]);
    close(ends[1]);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    expect_refusal(ends[0], LOAM_ERROR_INVALID, "a socket of another type");
    close(ends[0]);
    close(ends[1]);
    close(file);
}

/* --- Beside each other ------------------------------------------------------------------------------------------- */

enum { CROWD = 2000 };

static void *write_crowd(void *self)
{
    (void)self;
    for (uint32_t i = 0; i < CROWD; i++) {
        write_frame(14 + i % 1500, i);
    }
    return NULL;
}

/* The writer waits where the socket is full: nothing is lost, whatever the guest does. */
Test(net_tap, nothing_is_lost_on_the_way_in)
{
    struct random random = {4};
    uint8_t frame[FRAME] = {0};
    pthread_t writer;

    connect_pair(SOCK_SEQPACKET);
    offer(3);
    cr_assert_eq(pthread_create(&writer, NULL, write_crowd, NULL), 0);
    for (uint32_t i = 0; i < CROWD; i++) {
        expect_frame(14 + i % 1500, i);
        if (random_one_in(&random, 8)) {
            virtio_net_quiesce(&guest.net);
            net_guest_send(&guest, frame, sizeof frame);
            virtio_net_resume(&guest.net);
        }
    }
    pthread_join(writer, NULL);
    cr_assert_eq(counts().received.frames, CROWD);
    cr_assert_eq(counts().received.dropped_frames, 0);
}

/* --- Tap interfaces, in a network of the test's own --------------------------------------------------------------- */

static int interface;

/* A tap interface that is up; there becomes a socket that sends and receives on the host's side of it. */
static bool make_tap(int flags)
{
    struct ifreq request = {.ifr_flags = (short)flags};
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = 0x0300 /* ETH_P_ALL */};

    if (unshare(CLONE_NEWNET) != 0) {
        return false;
    }
    here = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    strcpy(request.ifr_name, "loam0");
    if (here < 0 || ioctl(here, TUNSETIFF, &request) != 0) {
        return false;
    }
    there = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    interface = (int)if_nametoindex("loam0");
    request.ifr_flags = IFF_UP | IFF_NOARP;
    address.sll_ifindex = interface;
    return there >= 0 && ioctl(there, SIOCSIFFLAGS, &request) == 0 &&
           bind(there, (const struct sockaddr *)&address, sizeof address) == 0;
}

#define TAP_OR_SKIP(flags)                                                                                             \
    do {                                                                                                               \
        if (!make_tap(flags)) {                                                                                        \
            cr_skip("no tap interface can be made here (/dev/net/tun, CAP_NET_ADMIN): %s", strerror(errno));           \
        }                                                                                                              \
    } while (0)

/* The next frame of the guest's on the host's side: one of this kind, which the host itself does not send. */
static void expect_outside(const uint8_t *frame, size_t bytes)
{
    uint8_t found[4096];
    ssize_t count;

    do {
        count = recv(there, found, sizeof found, 0);
        cr_assert_gt(count, 0);
    } while (memcmp(found + 12, frame + 12, 2) != 0);
    cr_assert_eq(count, (ssize_t)bytes);
    cr_assert_eq(memcmp(found, frame, bytes), 0);
}

/* The next frame to the guest of this kind: the host's own, such as router solicitations, pass by. */
static void expect_inside(const uint8_t *frame, size_t bytes)
{
    uint8_t found[NET_GUEST_BUFFER_BYTES];
    size_t count;

    do {
        net_guest_await(&guest, found, &count);
    } while (memcmp(found + 12, frame + 12, 2) != 0);
    cr_assert_eq(count, bytes);
    cr_assert_eq(memcmp(found, frame, bytes), 0);
}

static bool is_offloading(void)
{
    struct ethtool_value value = {.cmd = ETHTOOL_GTXCSUM};
    struct ifreq request = {.ifr_data = (char *)&value};

    strcpy(request.ifr_name, "loam0");
    cr_assert_eq(ioctl(there, SIOCETHTOOL, &request), 0);
    return value.data != 0;
}

static void allow_long_frames(void)
{
    struct ifreq request = {.ifr_mtu = 4000};

    strcpy(request.ifr_name, "loam0");
    cr_assert_eq(ioctl(there, SIOCSIFMTU, &request), 0);
}

/* Frames to everybody, of a kind for local experiments (IEEE 802, clause 9.2.3). */
static void make_ethernet(uint8_t *frame, size_t bytes, uint32_t number)
{
    make_frame(frame, bytes, number);
    memset(frame, 0xff, 6);
    memcpy(frame + 12, (const uint8_t[]){0x88, 0xb5}, 2);
}

static void carries_over_a_tap(void)
{
    uint8_t frame[FRAME_MAX + 1];

    open_tap(here);
    allow_long_frames();
    offer(8);
    for (uint32_t i = 0; i < 20; i++) {
        const size_t bytes = i % 2 == 0 ? FRAME : FRAME_MAX;

        make_ethernet(frame, sizeof frame, i + 100);
        cr_assert_eq(send(there, frame, sizeof frame, 0), (ssize_t)sizeof frame);
        make_ethernet(frame, bytes, i);
        cr_assert_eq(send(there, frame, bytes, 0), (ssize_t)bytes);
        expect_inside(frame, bytes);
        frame[20]++;
        net_guest_send(&guest, frame, bytes);
        expect_outside(frame, bytes);
    }
    cr_assert_geq(counts().received.dropped_frames, 20);
}

Test(net_tap, carries_over_a_tap_without_headers)
{
    TAP_OR_SKIP(IFF_TAP | IFF_NO_PI);
    carries_over_a_tap();
    cr_assert_neq(fcntl(here, F_GETFL) & O_NONBLOCK, 0);
}

/* As another program may have left it: with longer headers, and offloads. */
Test(net_tap, carries_over_a_tap_with_headers)
{
    int header_bytes = 12;

    TAP_OR_SKIP(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    cr_assert_eq(ioctl(here, TUNSETVNETHDRSZ, &header_bytes), 0);
    cr_assert_eq(ioctl(here, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4), 0);
    cr_assert(is_offloading());
    carries_over_a_tap();
    cr_assert_not(is_offloading());
}

Test(net_tap, a_tap_that_is_deleted_takes_the_link_down)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg info;
    } request = {{.nlmsg_len = sizeof request, .nlmsg_type = RTM_DELLINK, .nlmsg_flags = NLM_F_REQUEST}, {0}};
    int netlink;

    TAP_OR_SKIP(IFF_TAP | IFF_NO_PI);
    open_tap(here);
    request.info.ifi_index = interface;
    netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    cr_assert_eq(send(netlink, &request, sizeof request, 0), (ssize_t)sizeof request);
    await_link_down();
    close(netlink);
}

Test(net_tap, refuses_an_interface_without_frames)
{
    TAP_OR_SKIP(IFF_TUN | IFF_NO_PI);
    expect_refusal(here, LOAM_ERROR_INVALID, "carries IP packets");
    cr_assert_eq(fcntl(here, F_GETFL) & O_NONBLOCK, 0);
}
